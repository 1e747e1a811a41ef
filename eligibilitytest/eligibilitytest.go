// Package eligibilitytest runs the real eligibilityd in the process of a Go test,
// over customers that the test scripts. It needs no network, no Redis and no
// fixed port.
//
// [New] is for one test, [Start] for a TestMain or an example. Only Partner Center
// is replaced: rules, cache, deadlines, errors, gRPC and REST are those of the
// service that runs in production. So is the caching of evidence: after
// [Service.Set], a check returns the old answer until its evidence is no longer
// fresh. A check with max_age of 0s gets the new one, and so does every check after
// [Service.Advance]. A stream of WatchEligibility gets a change once a check has got it.
package eligibilitytest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/app"
	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// Config is what a [Service] starts with. In the zero value, no customer is known.
type Config struct {
	// Customers maps a customer ID, in any form that the API accepts, to the
	// customer.
	Customers map[string]Customer
	// Default is every customer that Customers does not have. Nil means that
	// such a customer fails with CustomerNotFound.
	Default *Customer
	// Partners are the partners that the service answers for, by name, in place of
	// the only one that has Customers and Default. Each has answers of its own, also
	// about a customer of several.
	Partners map[string]Partner
	// DefaultPartner is who is meant by a request that names no partner. If it is
	// empty and there are several, such a request is refused.
	DefaultPartner string
	// Environ overrides keys of the service's configuration, as for `eligibilityd
	// serve`: "ELIGIBILITY_POLICY__WHEN_UNDECIDABLE=block", for example.
	Environ []string
	// Log gets the log of the service, as JSON lines. Nil means that New writes to
	// the output of the test, and that Start discards the log.
	Log io.Writer
}

// Partner is one of several partners.
type Partner struct {
	// Customers and Default are as in Config.
	Customers map[string]Customer
	Default   *Customer
}

// Service is a running service. Its methods are safe for concurrent use.
type Service struct {
	// Conn is a gRPC connection to the service; Conn.Target() is its address.
	Conn *grpc.ClientConn
	// URL is the base URL of the REST API, such as http://127.0.0.1:41234.
	URL string

	sources   map[string]*source // by partner
	byDefault string             // partner
	clock     *clock
	stop      func() error
}

// New starts a service that stops when the test ends. If it does not start, the
// test fails at once.
func New(tb testing.TB, cfg Config) *Service {
	tb.Helper()
	output := &output{to: tb.Output()}
	if cfg.Log == nil {
		cfg.Log = output
	}
	s, err := Start(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
		output.end()
	})
	return s
}

// Start starts a service that runs until Close. It returns an error if cfg has an
// impossible customer or an invalid key.
func Start(cfg Config) (*Service, error) {
	s, err := start(cfg)
	if err != nil {
		return nil, fmt.Errorf("eligibilitytest: %w", err)
	}
	return s, nil
}

func start(cfg Config) (*Service, error) {
	if cfg.Partners == nil {
		cfg.Partners = map[string]Partner{api.DefaultPartner: {cfg.Customers, cfg.Default}}
	} else if cfg.Customers != nil || cfg.Default != nil {
		return nil, errors.New("with Partners, each has Customers and Default of its own")
	}
	if len(cfg.Partners) == 0 {
		return nil, errors.New("no partner in Partners")
	}
	sources, err := newSources(cfg.Partners)
	if err != nil {
		return nil, err
	}
	settings, err := config.Load("", append([]string{
		"ELIGIBILITY_SERVER__GRPC__ADDRESS=127.0.0.1:0",
		"ELIGIBILITY_SERVER__HTTP__ADDRESS=127.0.0.1:0",
		"ELIGIBILITY_SERVER__ADMIN__ADDRESS=127.0.0.1:0",
		"ELIGIBILITY_SERVER__DRAIN=0s",
		"ELIGIBILITY_SERVER__SHUTDOWN_TIMEOUT=1s",
	}, cfg.Environ...), config.Dev)
	if err != nil {
		return nil, fmt.Errorf("Environ:\n%w", err)
	}
	settings.Partners = partners(settings.Partners[0].PartnerCenter, cfg.Partners)
	settings.DefaultPartner = cfg.DefaultPartner
	if len(cfg.Partners) == 1 && cfg.DefaultPartner == "" {
		settings.DefaultPartner = settings.Partners[0].Name
	}
	log := cfg.Log
	if log == nil {
		log = io.Discard
	}
	clock := new(clock)
	ctx, cancel := context.WithCancel(context.Background())
	built, err := app.NewWith(ctx, settings, app.Build{Version: "eligibilitytest"}, log, app.Replacements{
		Source: func(partner string) evidence.Source { return sources[partner] }, Now: clock.now,
	})
	if err != nil {
		cancel()
		return nil, err
	}
	on, err := app.OpenListeners(ctx, settings.Server)
	if err != nil {
		cancel()
		return nil, errors.Join(err, built.Close())
	}
	ended := make(chan error, 1)
	go func() { ended <- built.Run(ctx, on) }()
	stop := func() error {
		cancel()
		defer func() { _ = built.Logger().Sync() }() // a slow log fails no test
		return <-ended
	}
	conn, err := grpc.NewClient(on.GRPC.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	return &Service{
		Conn: conn, URL: "http://" + on.HTTP.Addr().String(), sources: sources, byDefault: settings.DefaultPartner, clock: clock,
		stop: sync.OnceValue(func() error { return errors.Join(conn.Close(), stop()) }),
	}, nil
}

// partners returns the settings of partners that differ by their names only.
func partners(settings config.PartnerCenter, named map[string]Partner) []config.Partner {
	var all []config.Partner
	for _, name := range slices.Sorted(maps.Keys(named)) {
		all = append(all, config.Partner{Name: name, PartnerCenter: settings})
	}
	return all
}

// Set adds or replaces a customer of the default partner. Fetches that start from now on get it;
// evidence that the service has already remains valid for as long as in
// production. It returns an error if id or customer is impossible.
func (s *Service) Set(id string, customer Customer) error {
	return s.SetFor(s.byDefault, id, customer)
}

// SetFor is Set for a customer of that partner.
func (s *Service) SetFor(partner, id string, customer Customer) error {
	of, known := s.sources[partner]
	if !known {
		return fmt.Errorf("eligibilitytest: there is no partner %q", partner)
	}
	if err := of.set(id, customer); err != nil {
		return fmt.Errorf("eligibilitytest: %w", err)
	}
	return nil
}

// Advance moves the service's clock forward, so that evidence ages. The ages of
// each outcome are keys of the configuration, below cache.ages: after 10 minutes no
// evidence of an Allowed account is fresh, after an hour none is usable. Deadlines
// and the clocks of callers are not affected.
func (s *Service) Advance(d time.Duration) { s.clock.ahead.Add(int64(max(d, 0))) }

// Close stops the service and closes Conn. Further calls return the result of the
// first.
func (s *Service) Close() error { return s.stop() }

// clock is the time of day, ahead by as much as tests advance it.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// output writes to the output of a test until end. A later write, of a record that
// was still queued, would panic.
type output struct {
	mu sync.Mutex
	to io.Writer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.to.Write(p)
}

func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.to = io.Discard
}
