// Package rig runs the servers under test: the service as operators run it,
// with a stand-in for Partner Center and a real redis-server, and the floors
// beside it. Each server is a separate process, so that its cost can be
// separated from the driver's.
package rig

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/eligibilityd/eligibilityd/bench/load"
)

// Config selects the programs, the servers and the customers.
type Config struct {
	// Service is the path of eligibilityd, Self of the program that serves the
	// floors: "floor KIND --address A --answer FILE".
	Service, Self string
	// Baseline is the path of another eligibilityd, usually an older one: it runs
	// the services whose names are from [Name.Before].
	Baseline string
	// Servers are those to start. If a floor is among them, Local is started, too.
	Servers []Name
	// Customers is the number of customers that the tiers are filled with.
	Customers int
	// MemoryLimit is GOMEMLIMIT of the services.
	MemoryLimit string
}

// Name names a server of a rig.
type Name string

// The services.
const (
	Local  Name = "local"  // answers from its local tier
	Shared Name = "shared" // answers only from Redis: its local tier is never trusted
	Logged Name = "logged" // is Local with a decision log
	Secure Name = "secure" // is Local with TLS and callers
)

// The floors: the minimum cost of a transport, and a gateway that connects to its
// own port. Those with TLS have the certificate of Secure.
const (
	FloorGRPC    Name = "floor grpc"
	FloorHTTP    Name = "floor http"
	FloorGateway Name = "floor gateway"
	FloorGRPCTLS Name = "floor grpc, tls"
	FloorHTTPTLS Name = "floor http, tls"
)

const (
	beforePrefix = "before "
	floorPrefix  = "floor "
	tlsSuffix    = ", tls"
)

// Before returns the name of the service n as Config.Baseline runs it.
func (n Name) Before() Name { return beforePrefix + n }

// IsBefore reports whether n is a server of the baseline.
func (n Name) IsBefore() bool { return strings.HasPrefix(string(n), beforePrefix) }

// Floor reports whether n is a floor.
func (n Name) Floor() bool { return strings.HasPrefix(string(n), floorPrefix) }

// TLS reports whether n is reached by Rig.Access.
func (n Name) TLS() bool {
	return n == Secure || n == Secure.Before() || strings.HasSuffix(string(n), tlsSuffix)
}

// Server is a running server.
type Server struct {
	// PID is its process.
	PID int
	// GRPC, HTTP and Admin are its addresses; if one is empty, it has no such
	// listener.
	GRPC, HTTP, Admin string
}

// Rig is all running processes. [New] starts them and [Rig.Close] ends them.
type Rig struct {
	// Servers are the running ones.
	Servers map[Name]Server
	// Access is how Secure and the floors with TLS are reached: the token is a
	// JWT, which Secure verifies once.
	Access load.Access
	// Redis is the address of redis-server.
	Redis string

	cfg           Config
	filled        map[string]bool // prefixes of Redis that hold all customers
	dir           string
	partnerCenter *backend
	issuer        *backend
	processes     []*process
}

// New starts everything and warms the services: it returns when the tiers hold
// evidence for each customer. If it fails, it ends what it has started.
func New(ctx context.Context, cfg Config) (_ *Rig, err error) {
	dir, err := os.MkdirTemp("", "eligibilityd-bench")
	if err != nil {
		return nil, fmt.Errorf("rig: %w", err)
	}
	r := &Rig{cfg: cfg, dir: dir, Servers: map[Name]Server{}, filled: map[string]bool{}}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	for _, step := range []func(context.Context) error{r.startRedis, r.startPartnerCenter, r.startIssuer, r.startServices, r.startFloors} {
		if err := step(ctx); err != nil {
			return nil, fmt.Errorf("rig: %w", err)
		}
	}
	return r, nil
}

// Close ends every process, the last started first, and removes their files.
func (r *Rig) Close() {
	for _, p := range slices.Backward(r.processes) {
		p.stop()
	}
	for _, b := range []*backend{r.issuer, r.partnerCenter} {
		if b != nil {
			b.close()
		}
	}
	_ = os.RemoveAll(r.dir) // a temporary directory
}

// run starts a process that ends with the rig.
func (r *Rig) run(name, path string, args ...string) (*process, error) {
	return r.runIn(nil, name, path, args...)
}

// runIn is run with more variables in the environment.
func (r *Rig) runIn(environ []string, name, path string, args ...string) (*process, error) {
	p, err := start(name, path, environ, args...)
	if err == nil {
		r.processes = append(r.processes, p)
	}
	return p, err
}

func (r *Rig) file(name string) string { return filepath.Join(r.dir, name) }

func (r *Rig) write(name string, content []byte) (path string, err error) {
	return r.file(name), os.WriteFile(r.file(name), content, 0o600)
}

func (r *Rig) startRedis(ctx context.Context) error {
	if err := freeAddresses(ctx, &r.Redis); err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(r.Redis)
	if err != nil {
		return err
	}
	p, err := r.run("redis-server", "redis-server",
		"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", r.dir)
	if err != nil {
		return err
	}
	return p.await(ctx, pollEvery, accepts(r.Redis))
}

// startFloors starts those of the floors that were asked for. They answer what the
// service answers about one customer.
func (r *Rig) startFloors(ctx context.Context) error {
	floors := slices.DeleteFunc(slices.Clone(r.cfg.Servers), func(n Name) bool { return !n.Floor() })
	if len(floors) == 0 {
		return nil
	}
	message, body, err := r.answer(ctx)
	if err != nil {
		return err
	}
	encoded, err := r.write("answer.pb", message)
	if err != nil {
		return err
	}
	json, err := r.write("answer.json", body)
	if err != nil {
		return err
	}
	for _, name := range floors {
		var address string
		if err := freeAddresses(ctx, &address); err != nil {
			return err
		}
		kind, secure := strings.CutSuffix(strings.TrimPrefix(string(name), floorPrefix), tlsSuffix)
		server, answer := Server{GRPC: address}, encoded
		if kind != "grpc" {
			server = Server{HTTP: address}
		}
		if kind == "http" {
			answer = json
		}
		args := []string{"floor", kind, "--address", address, "--answer", answer}
		if secure {
			args = append(args, "--certificate", r.file(certificateFile), "--key", r.file(keyFile))
		}
		p, err := r.run(string(name), r.cfg.Self, args...)
		if err != nil {
			return err
		}
		if err := p.await(ctx, pollEvery, accepts(address)); err != nil {
			return err
		}
		server.PID = p.pid()
		r.Servers[name] = server
	}
	return nil
}
