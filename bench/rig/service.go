package rig

import (
	"context"
	_ "embed"
	"fmt"
	"strings"
	"text/template"
	"time"

	"github.com/eligibilityd/eligibilityd/bench/load"
)

// pollEvery is the interval of readiness checks of a starting process.
const pollEvery = 5 * time.Millisecond

// memoryLimit is the memory limit that the service sets itself in a container
// of 512 MiB; it determines how much garbage may accumulate.
const memoryLimit = "GOMEMLIMIT=460MiB"

// The simulator's credentials, given to it and to the service alike.
const (
	tenantID     = "bbbbbbbb-0000-4000-8000-000000000001"
	clientID     = "bbbbbbbb-0000-4000-8000-000000000002"
	clientSecret = "a-secret-of-the-benchmark"
	refreshToken = "a-refresh-token-of-the-benchmark"
)

// serviceConfig is the configuration file of the service under test.
//
//go:embed service.yaml.tmpl
var serviceConfig string

// settings fill in serviceConfig.
type settings struct {
	GRPC, HTTP, Admin      string
	Simulator, Redis       string
	Collector              string
	TenantID, ClientID     string
	ClientSecret           string
	RefreshTokenFile       string
	LocalMaxAge, KeyPrefix string

	Certificate, Key, Issuer, Audience string // "" without TLS and callers
	DecisionLog                        string // "" without
}

// CustomerID returns the id of the i-th customer of the simulator.
func CustomerID(i int) string { return fmt.Sprintf("cccccccc-0000-4000-8000-%012x", i) }

// scripted is the number of customers in one script; the simulator bounds its
// size.
const scripted = 2000

// startSimulator starts `eligibilityd simulate` with customers who may buy and
// hold one qualification.
func (r *Rig) startSimulator(ctx context.Context) error {
	if err := freeAddresses(ctx, &r.simulator); err != nil {
		return err
	}
	args := []string{
		"simulate", "--address", r.simulator, "--control-address", "127.0.0.1:0",
		"--tenant-id", tenantID, "--client-id", clientID, "--client-secret", clientSecret, "--refresh-token", refreshToken,
	}
	for first := 0; first < r.cfg.Customers; first += scripted {
		var script strings.Builder
		script.WriteString("customers:\n")
		for i := first; i < min(first+scripted, r.cfg.Customers); i++ {
			fmt.Fprintf(&script, "  %s: {account: [{status: Allowed}], "+
				"qualifications: [{items: [{qualification: Education, vettingStatus: Approved, vettingCreatedDate: \"2026-01-02T03:04:05Z\"}]}]}\n", CustomerID(i))
		}
		path, err := r.write(fmt.Sprintf("customers-%d.yaml", first), []byte(script.String()))
		if err != nil {
			return err
		}
		args = append(args, "--script", path)
	}
	p, err := r.run("simulator", r.cfg.Service, args...)
	if err != nil {
		return err
	}
	return p.await(ctx, pollEvery, accepts(r.simulator))
}

// startServices starts the service three times: one trusts its local tier for longer
// than the benchmark runs, the other not at all; the third is the first with TLS and
// callers. If it is asked for, a fourth one is the first with a decision log.
func (r *Rig) startServices(ctx context.Context) error {
	var err error
	if r.Local, err = r.startService(ctx, "local", settings{LocalMaxAge: "24h"}); err != nil {
		return err
	}
	if r.cfg.Logged {
		if r.Logged, err = r.startService(ctx, "logged", settings{LocalMaxAge: "24h", DecisionLog: r.file("decisions.jsonl")}); err != nil {
			return err
		}
	}
	secure := settings{LocalMaxAge: "24h", Certificate: r.file(certificateFile), Key: r.file(keyFile), Issuer: r.issuer.url, Audience: audience}
	if r.Secure, err = r.startService(ctx, "secure", secure); err != nil {
		return err
	}
	r.Shared, err = r.startService(ctx, "shared", settings{LocalMaxAge: "1ns"})
	return err
}

// startService starts the service with settings that startService completes.
func (r *Rig) startService(ctx context.Context, name string, with settings) (Server, error) {
	var s Server
	var nobody string
	if err := freeAddresses(ctx, &s.GRPC, &s.HTTP, &s.Admin, &nobody); err != nil {
		return Server{}, err
	}
	token, err := r.write(name+"-refresh-token", []byte(refreshToken))
	if err != nil {
		return Server{}, err
	}
	with.GRPC, with.HTTP, with.Admin = s.GRPC, s.HTTP, s.Admin
	with.Simulator, with.Redis, with.Collector = r.simulator, r.Redis, nobody
	with.TenantID, with.ClientID, with.ClientSecret = tenantID, clientID, clientSecret
	with.RefreshTokenFile, with.KeyPrefix = token, name
	access := load.Access{}
	if with.Certificate != "" {
		access = r.Access
	}
	var text strings.Builder
	if err := template.Must(template.New("").Parse(serviceConfig)).Execute(&text, with); err != nil {
		return Server{}, err
	}
	path, err := r.write(name+".yaml", []byte(text.String()))
	if err != nil {
		return Server{}, err
	}
	p, err := r.runIn([]string{memoryLimit}, "service "+name, r.cfg.Service, "serve", "--config", path)
	if err != nil {
		return Server{}, err
	}
	s.PID = p.pid()
	if err := p.await(ctx, pollEvery, answers("http://"+s.Admin+"/readyz")); err != nil {
		return Server{}, err
	}
	if err := warm(ctx, s, access, r.cfg.Customers); err != nil {
		return Server{}, fmt.Errorf("%w\n%s", err, p.output.String())
	}
	return s, nil
}
