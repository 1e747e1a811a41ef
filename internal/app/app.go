// Package app builds the service from its configuration and owns its lifecycle:
// start, readiness, shutdown and the signals of the process.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/budget"
	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/pcclient"
	"github.com/eligibilityd/eligibilityd/internal/rest"
	"github.com/eligibilityd/eligibilityd/internal/server"
	"github.com/eligibilityd/eligibilityd/internal/tokenstore"
	"github.com/eligibilityd/eligibilityd/internal/tracing"
)

// readyWithin is when the service reports itself ready although no token has
// come: an outage of the login host must not stop a restart.
const readyWithin = 10 * time.Second

// Build identifies the binary in its metrics and spans.
type Build struct{ Version, Commit string }

// Replacements are the parts of the service that a test replaces. The zero value
// replaces none.
type Replacements struct {
	// Source answers in place of Partner Center, to which no client is built then.
	Source evidence.Source
	// Now is the wall clock, if not time.Now.
	Now func() time.Time
}

// App is the whole service, built and not yet listening.
type App struct {
	cfg     *config.Config
	logger  *zap.Logger
	budget  *budget.Budget // nil if the source was replaced, as is the client
	client  *pcclient.Client
	store   *cache.Store
	service *evidence.Service
	server  *server.Server
	traces  *tracing.Pipeline // nil without tracing
}

// New builds the service, which logs to logOut, and arms its hard end. It
// makes no connection and opens no socket.
func New(ctx context.Context, cfg *config.Config, build Build, logOut io.Writer) (*App, error) {
	return NewWith(ctx, cfg, build, logOut, Replacements{})
}

// NewWith is New with some parts replaced.
func NewWith(ctx context.Context, cfg *config.Config, build Build, logOut io.Writer, replace Replacements) (*App, error) {
	logger, queue, err := NewLogger(cfg.Log, logOut)
	if err != nil {
		return nil, err
	}
	ArmHardEnd(ctx, cfg.Server, logger)
	registry := prometheus.NewRegistry()
	if err := errors.Join(
		queue.Register(registry),
		registry.Register(collectors.NewGoCollector()),
		registry.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})),
	); err != nil {
		return nil, fmt.Errorf("register process metrics: %w", err)
	}
	a := &App{cfg: cfg, logger: logger}
	if err := a.build(build, registry, replace); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// build builds the parts of a in order. If it fails, a.Close releases those that
// were built.
func (a *App) build(build Build, registry *prometheus.Registry, replace Replacements) error {
	storeConfig := cacheConfig(a.cfg, a.cfg.Partners[0], a.logger, registry)
	storeConfig.Now = replace.Now
	var err error
	if a.store, err = cache.New(storeConfig); err != nil {
		return err
	}
	source := replace.Source
	if source == nil {
		if a.budget, err = budget.New(budgetConfig(a.cfg.Partners[0], registry)); err != nil {
			return err
		}
		clientConfig := ClientConfig(a.cfg.Partners[0].PartnerCenter, a.logger, registry)
		clientConfig.Budget = a.budget
		if a.client, err = pcclient.New(clientConfig); err != nil {
			return err
		}
		source = pcclient.NewSource(a.client)
	}
	serviceConfig := ServiceConfig(a.cfg, a.cfg.Partners[0], a.logger, registry)
	serviceConfig.Now = replace.Now
	if a.service, err = evidence.New(source, a.store, serviceConfig); err != nil {
		return err
	}
	if a.traces, err = newTraces(a.cfg, build, a.logger); err != nil {
		return err
	}
	chainConfig := chainConfig(a.cfg, build, a.logger, registry)
	chainConfig.Now = replace.Now
	if a.traces != nil {
		chainConfig.Tracer = a.traces.Tracer()
	}
	partners, err := api.NewPartners(map[string]*evidence.Service{api.DefaultPartner: a.service}, "")
	if err != nil {
		return err
	}
	chain, err := api.New(partners, chainConfig)
	if err != nil {
		return err
	}
	handler, err := rest.New(chain)
	if err != nil {
		return err
	}
	a.server, err = server.New(chain, handler, serverConfig(a.cfg, a.logger, registry))
	return err
}

// newTraces returns nil if the configuration names no collector.
func newTraces(cfg *config.Config, build Build, logger *zap.Logger) (*tracing.Pipeline, error) {
	if cfg.Tracing.Endpoint == "" {
		return nil, nil //nolint:nilnil // no tracing is not a failure
	}
	return tracing.New(tracingConfig(cfg, build, logger))
}

// Run serves until ctx ends and shuts down in order: the listeners and what is
// in progress on them, then the fetches in the background, then the loops of the
// store and of tracing. What these still hold is flushed in what is left of the
// shutdown time, and last the connections are closed.
func (a *App) Run(ctx context.Context, on server.Listeners) error {
	defer a.followSignals(ctx)()
	signalled := make(chan time.Time, 1)
	defer context.AfterFunc(ctx, func() { signalled <- time.Now() })()
	fetching, endFetching := context.WithCancel(context.WithoutCancel(ctx))
	defer endFetching()
	looping, endLooping := context.WithCancel(context.WithoutCancel(ctx))
	defer endLooping()
	var fetches, loops errgroup.Group
	fetches.Go(func() error { return a.service.Run(fetching) })
	fetches.Go(func() error {
		a.awaitToken(fetching)
		return nil
	})
	loops.Go(func() error { return a.store.Run(looping) })
	if a.budget != nil {
		loops.Go(func() error {
			a.budget.Run(looping)
			return nil
		})
	}
	if a.traces != nil {
		loops.Go(func() error { return a.traces.Run(looping) })
	}
	a.logger.Info("serving",
		zap.Stringer("grpc", on.GRPC.Addr()), zap.Stringer("http", on.HTTP.Addr()), zap.Stringer("admin", on.Admin.Addr()))
	err := a.server.Serve(ctx, on)
	endFetching()
	err = errors.Join(err, fetches.Wait())
	endLooping()
	err = errors.Join(err, loops.Wait())

	left := leastFlush
	if ctx.Err() != nil {
		left = max(left, time.Until((<-signalled).Add(a.cfg.Server.Drain+a.cfg.Server.ShutdownTimeout)))
	}
	flushing, cancel := context.WithTimeout(context.WithoutCancel(ctx), left)
	defer cancel()
	a.flush(flushing)
	err = errors.Join(err, a.Close())
	a.logger.Info("stopped")
	return err
}

// followSignals ends the server's drain with the second signal. stop ends its
// goroutine.
func (a *App) followSignals(ctx context.Context) (stop func()) {
	ended := make(chan struct{})
	go func() {
		select {
		case <-lifecycleOf(ctx).endDrain:
			a.server.EndDrain()
		case <-ended:
		}
	}()
	return func() { close(ended) }
}

// flush sends what would be lost with the process, to Redis and the collector
// concurrently: if one hangs, it takes no time from the other. The fetches and
// the loops of Run have ended.
func (a *App) flush(ctx context.Context) {
	var flushes sync.WaitGroup
	if a.traces != nil {
		flushes.Go(func() { a.traces.Flush(ctx) })
	}
	flushes.Go(func() {
		if left := a.store.Flush(ctx); left > 0 {
			a.logger.Warn("evidence is lost with this process: redis did not store it", zap.Int("entries", left))
		}
	})
	flushes.Wait()
}

// Close releases what New took. Nothing may be using it any more.
func (a *App) Close() error {
	if a.client != nil {
		a.client.Close()
	}
	if a.store == nil {
		return nil
	}
	return a.store.Close()
}

// awaitToken reports the service ready once connections to Redis were tried and
// the first token has come, or when waiting longer would keep a restart from
// serving what it holds.
func (a *App) awaitToken(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	defer a.server.SetReady()
	select {
	case <-a.store.Connected():
	case <-ctx.Done():
	}
	if a.client == nil {
		return
	}
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		err := a.client.Token(ctx)
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return // Run is stopping
			}
			a.logger.Warn("no token from the login host yet; callers are answered from the cache until there is one", zap.Error(err))
			return
		}
	}
}

// Logger returns the logger of the service.
func (a *App) Logger() *zap.Logger { return a.logger }

// CheckRefreshToken returns tokenstore.ErrNone or tokenstore.ErrUnreadable if the
// vault of the configuration has no refresh token or denies access, as
// config.Load does for a file. If the vault cannot be reached, that is logged and
// no error: it must not prevent a start.
func (a *App) CheckRefreshToken(ctx context.Context) error {
	if a.cfg.Partners[0].Flow != config.FlowAppUser || a.cfg.Partners[0].RefreshTokenVault.IsZero() {
		return nil
	}
	_, err := a.client.RefreshToken(ctx)
	if err == nil || errors.Is(err, tokenstore.ErrNone) || errors.Is(err, tokenstore.ErrUnreadable) {
		return err
	}
	a.logger.Error("vault of the refresh token cannot be asked yet; callers are answered from the cache until it can", zap.Error(err))
	return nil
}
