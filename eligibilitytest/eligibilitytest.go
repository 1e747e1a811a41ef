// Package eligibilitytest runs the real eligibilityd in the process of a Go test,
// over customers that the test scripts. It needs no network, no Redis and no
// fixed port.
//
// [New] is for one test, [Start] for a TestMain or an example. Only Partner Center
// is replaced: rules, cache, deadlines, errors, gRPC and REST are those of the
// service that runs in production. So is the caching of evidence: after
// [Service.Set], a check returns the old answer until its evidence is no longer
// fresh. A check with max_age of 0s gets the new one, and so does every check after
// [Service.Advance].
package eligibilitytest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

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
	// Environ overrides keys of the service's configuration, as for `eligibilityd
	// serve`: "ELIGIBILITY_POLICY__WHEN_UNDECIDABLE=block", for example.
	Environ []string
	// Log gets the log of the service, as JSON lines. Nil means that New writes to
	// the output of the test, and that Start discards the log.
	Log io.Writer
}

// Service is a running service. Its methods are safe for concurrent use.
type Service struct {
	// Conn is a gRPC connection to the service; Conn.Target() is its address.
	Conn *grpc.ClientConn
	// URL is the base URL of the REST API, such as http://127.0.0.1:41234.
	URL string

	source *source
	clock  *clock
	stop   func() error
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
	source, err := newSource(cfg)
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
	log := cfg.Log
	if log == nil {
		log = io.Discard
	}
	clock := new(clock)
	ctx, cancel := context.WithCancel(context.Background())
	built, err := app.NewWith(ctx, settings, app.Build{Version: "eligibilitytest"}, log, app.Replacements{
		Source: func(string) evidence.Source { return source }, Now: clock.now,
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
		Conn: conn, URL: "http://" + on.HTTP.Addr().String(), source: source, clock: clock,
		stop: sync.OnceValue(func() error { return errors.Join(conn.Close(), stop()) }),
	}, nil
}

// Set adds or replaces a customer. Fetches that start from now on get it;
// evidence that the service has already remains valid for as long as in
// production. It returns an error if id or customer is impossible.
func (s *Service) Set(id string, customer Customer) error {
	if err := s.source.set(id, customer); err != nil {
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
