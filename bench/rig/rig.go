// Package rig runs the servers under test: the service as operators run it,
// with a simulated Partner Center and a real redis-server, and the floors
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

	"github.com/eligibilityd/eligibilityd/bench/load"
)

// Config selects the programs and the customers.
type Config struct {
	// Service is the path of eligibilityd, Self of the program that serves the
	// floors: "floor KIND --address A --answer FILE".
	Service, Self string
	// Customers is how many customers the simulator plays.
	Customers int
	// Logged starts Rig.Logged, too.
	Logged bool
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
	// Local answers from its local tier, Shared only from Redis: its local tier
	// is never trusted.
	Local, Shared Server
	// Logged is Local with a decision log, if Config.Logged.
	Logged Server
	// FloorGRPC and FloorHTTP are the minimum cost of a transport; Gateway
	// connects to its own port.
	FloorGRPC, FloorHTTP, Gateway Server
	// Secure is Local with TLS and callers; FloorGRPCTLS and FloorHTTPTLS have the
	// same certificate. Access is how each of the three is reached: the token is a
	// JWT, which Secure verifies once.
	Secure, FloorGRPCTLS, FloorHTTPTLS Server
	Access                             load.Access
	// Redis is the address of redis-server.
	Redis string

	cfg       Config
	dir       string
	simulator string
	issuer    *issuer
	processes []*process
}

// New starts everything and warms the service: it returns when the tiers hold
// evidence for each customer. If it fails, it ends what it has started.
func New(ctx context.Context, cfg Config) (_ *Rig, err error) {
	dir, err := os.MkdirTemp("", "eligibilityd-bench")
	if err != nil {
		return nil, fmt.Errorf("rig: %w", err)
	}
	r := &Rig{cfg: cfg, dir: dir}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	for _, step := range []func(context.Context) error{r.startRedis, r.startSimulator, r.startIssuer, r.startServices, r.startFloors} {
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
	if r.issuer != nil {
		r.issuer.close()
	}
	_ = os.RemoveAll(r.dir) // in the directory for temporary files
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

func (r *Rig) startFloors(ctx context.Context) error {
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
	for _, floor := range []struct {
		kind, answer string
		tls          bool
		server       *Server
	}{
		{"grpc", encoded, false, &r.FloorGRPC},
		{"http", json, false, &r.FloorHTTP},
		{"gateway", encoded, false, &r.Gateway},
		{"grpc", encoded, true, &r.FloorGRPCTLS},
		{"http", json, true, &r.FloorHTTPTLS},
	} {
		var address string
		if err := freeAddresses(ctx, &address); err != nil {
			return err
		}
		args := []string{"floor", floor.kind, "--address", address, "--answer", floor.answer}
		if floor.tls {
			args = append(args, "--certificate", r.file(certificateFile), "--key", r.file(keyFile))
		}
		p, err := r.run("floor "+floor.kind, r.cfg.Self, args...)
		if err != nil {
			return err
		}
		if err := p.await(ctx, pollEvery, accepts(address)); err != nil {
			return err
		}
		*floor.server = Server{PID: p.pid(), HTTP: address}
		if floor.kind == "grpc" {
			*floor.server = Server{PID: p.pid(), GRPC: address}
		}
	}
	return nil
}
