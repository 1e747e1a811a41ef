package rig

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/eligibilityd/eligibilityd/bench/load"
)

// pollEvery is the interval of readiness checks of a starting process.
const pollEvery = 5 * time.Millisecond

// The credentials of the service, of which the stand-in for Partner Center demands
// none.
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
	PartnerCenter, Redis   string
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

// startServices starts the services that were asked for, one after the other. Those of
// one program share what they keep in Redis, so that only the first has to fill it.
// Those that answer from their local tiers trust it for longer than the benchmark runs.
func (r *Rig) startServices(ctx context.Context) error {
	names := slices.DeleteFunc(slices.Clone(r.cfg.Servers), Name.Floor)
	if len(names) < len(r.cfg.Servers) && !slices.Contains(names, Local) {
		names = append(names, Local) // whose answer the floors have
	}
	for _, name := range names {
		program, keys := r.cfg.Service, "now"
		plain, before := strings.CutPrefix(string(name), beforePrefix)
		if before {
			program, keys = r.cfg.Baseline, "before"
		}
		with := settings{LocalMaxAge: "24h", KeyPrefix: keys}
		switch Name(plain) { //nolint:exhaustive // Local needs no more, and floors are left out
		case Shared:
			with.LocalMaxAge = "1ns"
		case Logged:
			with.DecisionLog = r.file(string(name) + ".jsonl")
		case Secure:
			with.Certificate, with.Key = r.file(certificateFile), r.file(keyFile)
			with.Issuer, with.Audience = r.issuerURL(), audience
		}
		server, err := r.startService(ctx, program, string(name), with)
		if err != nil {
			return err
		}
		r.Servers[name] = server
	}
	return nil
}

// startService starts the service with settings that startService completes.
func (r *Rig) startService(ctx context.Context, program, name string, with settings) (Server, error) {
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
	with.PartnerCenter, with.Redis, with.Collector = r.partnerCenter.address, r.Redis, nobody
	with.TenantID, with.ClientID, with.ClientSecret = tenantID, clientID, clientSecret
	with.RefreshTokenFile = token
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
	p, err := r.runIn([]string{"GOMEMLIMIT=" + r.cfg.MemoryLimit}, "service "+name, program, "serve", "--config", path)
	if err != nil {
		return Server{}, err
	}
	s.PID = p.pid()
	if err := p.await(ctx, pollEvery, answers("http://"+s.Admin+"/readyz")); err != nil {
		return Server{}, err
	}
	if !r.filled[with.KeyPrefix] {
		r.filled[with.KeyPrefix] = true
		if err := warm(ctx, s, access, min(r.cfg.Customers, fetched)); err != nil {
			return Server{}, fmt.Errorf("%w\n%s", err, p.output.String())
		}
		if r.cfg.Customers > fetched {
			if err := r.copyEvidence(ctx, with.KeyPrefix); err != nil {
				return Server{}, err
			}
		}
	}
	if err := warm(ctx, s, access, r.cfg.Customers); err != nil {
		return Server{}, fmt.Errorf("%w\n%s", err, p.output.String())
	}
	return s, nil
}
