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

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/allowance"
	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/otlpmetrics"
	"github.com/eligibilityd/eligibilityd/internal/reload"
	"github.com/eligibilityd/eligibilityd/internal/rest"
	"github.com/eligibilityd/eligibilityd/internal/reviews"
	"github.com/eligibilityd/eligibilityd/internal/server"
	"github.com/eligibilityd/eligibilityd/internal/tracing"
)

// readyWithin is when the service reports itself ready although no token or key has
// come: an outage of the login host must not stop a restart.
const readyWithin = 10 * time.Second

// Build identifies the binary in its metrics and spans.
type Build struct{ Version, Commit string }

// Replacements are the parts of the service that a test replaces. The zero value
// replaces none.
type Replacements struct {
	// Source returns what answers in place of Partner Center for a partner; no
	// client is built then.
	Source func(partner string) evidence.Source
	// Now is the wall clock, if not time.Now.
	Now func() time.Time
}

// App is the whole service, built and not yet listening.
type App struct {
	cfg         *config.Config
	logger      *zap.Logger
	connections *cache.Connections // nil without Redis
	engines     []*engine          // one for each partner
	webhooks    []webhook
	access      *access.Authenticator // nil without auth
	server      *server.Server
	traces      *tracing.Pipeline     // nil without tracing
	metrics     *otlpmetrics.Exporter // nil without metrics.otlp
	decisions   decisions

	consoleSecret *reload.Value[[]byte] // nil if nobody signs in to the console
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
	err := a.registerDigest(registry)
	if err != nil {
		return err
	}
	if len(a.cfg.Cache.Redis.Addresses) > 0 {
		if a.connections, err = cache.Connect(RedisConfig(a.cfg)); err != nil {
			return err
		}
	}
	services := make(map[string]*evidence.Service, len(a.cfg.Partners))
	logs := make(map[string]*changes.Log, len(a.cfg.Partners))
	if err := a.newEngines(build, registry, replace, services, logs); err != nil {
		return err
	}
	if err := a.newWebhooks(registry); err != nil {
		return err
	}
	if err := a.newDecisions(build, registry); err != nil {
		return err
	}
	if a.traces, err = newTraces(a.cfg, build, a.decisions.log, a.logger); err != nil {
		return err
	}
	if a.metrics, err = newMetrics(a.cfg, build, registry, a.logger); err != nil {
		return err
	}
	if a.cfg.Auth.Enabled() {
		if a.access, err = access.New(AccessConfig(a.cfg.Auth, a.logger, registry)); err != nil {
			return fmt.Errorf("auth: %w", err)
		}
	}
	return a.newServer(build, registry, replace, services, logs)
}

// newServer builds what answers callers, over the other parts.
func (a *App) newServer(build Build, registry *prometheus.Registry, replace Replacements, services map[string]*evidence.Service, logs map[string]*changes.Log) error {
	var err error
	chainConfig := chainConfig(a.cfg, build, a.logger, registry)
	chainConfig.Now, chainConfig.Logs, chainConfig.Reviews = replace.Now, logs, a.reviews()
	if a.access != nil {
		chainConfig.Access = a.access
	}
	chainConfig.Decisions, chainConfig.Policies = a.decisions.log, a.policies()
	if chainConfig.Limits, err = a.newLimits(registry); err != nil {
		return err
	}
	if a.traces != nil {
		chainConfig.Tracer = a.traces.Tracer()
	}
	partners, err := api.NewPartners(services, a.cfg.DefaultPartner)
	if err != nil {
		return err
	}
	chain, err := api.New(partners, chainConfig)
	if err != nil {
		return err
	}
	handler, err := rest.New(chain, restConfig(a.cfg))
	if err != nil {
		return err
	}
	if err := a.mountConsole(handler, build, registry, replace); err != nil {
		return err
	}
	serverConfig := serverConfig(a.cfg, a.logger, registry)
	serverConfig.Components = a.components()
	serverConfig.Limits.Together = connectionsTogether(a.cfg, descriptorLimit(), a.logger)
	if a.access != nil {
		serverConfig.Certificate = a.access.Certificate
	}
	a.server, err = server.New(chain, handler, serverConfig)
	return err
}

// newEngines builds the engine of each partner, and adds its parts to services and logs.
func (a *App) newEngines(build Build, registry *prometheus.Registry, replace Replacements, services map[string]*evidence.Service, logs map[string]*changes.Log) error {
	for _, partner := range a.cfg.Partners {
		engine, err := a.newEngine(partner, build, registry, replace)
		a.engines = append(a.engines, engine)
		if err != nil {
			return fmt.Errorf("partner %s: %w", partner.Name, err)
		}
		services[partner.Name] = engine.service
		logs[partner.Name] = engine.changes
	}
	return nil
}

// registerDigest registers the metric that identifies the configuration.
func (a *App) registerDigest(registry *prometheus.Registry) error {
	digest := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "eligibility_config_info",
		Help:        "1; digest identifies the effective configuration, but for its secrets: replicas that are configured alike have the same.",
		ConstLabels: prometheus.Labels{"digest": a.cfg.Digest()},
	})
	digest.Set(1)
	if err := registry.Register(digest); err != nil {
		return fmt.Errorf("register the digest: %w", err)
	}
	return nil
}

// newLimits returns what each caller may ask, counted for all replicas if there is a
// Redis.
func (a *App) newLimits(registry *prometheus.Registry) (*allowance.Callers, error) {
	limits := limitsConfig(a.cfg, registry)
	if a.connections != nil {
		var err error
		if limits.Shared, err = cache.NewAllowances(RedisConfig(a.cfg), a.connections, a.logger.Named("cache")); err != nil {
			return nil, err
		}
	}
	return allowance.New(limits)
}

// reviews returns the lists of customers under review of the partners that have one.
func (a *App) reviews() map[string]reviews.List {
	lists := make(map[string]reviews.List)
	for _, engine := range a.engines {
		if engine.list != nil {
			lists[engine.partner.Name] = engine.list
		}
	}
	return lists
}

// newTraces returns nil if the configuration names no collector. Spans name customers
// as the decision log does.
func newTraces(cfg *config.Config, build Build, decisions *decisionlog.Log, logger *zap.Logger) (*tracing.Pipeline, error) {
	if cfg.Tracing.Endpoint == "" {
		return nil, nil //nolint:nilnil // no tracing is not a failure
	}
	with := tracingConfig(cfg, build, logger)
	if cfg.DecisionLog.CustomerIDs == config.CustomerIDsHashed {
		with.CustomerName = func(text string) string {
			id, err := eligibility.ParseCustomerID(text)
			if err != nil {
				return "" // spans have no others
			}
			return decisions.Name(id).String()
		}
	}
	return tracing.New(with)
}

// newMetrics returns nil if the configuration names no collector.
func newMetrics(cfg *config.Config, build Build, registry *prometheus.Registry, logger *zap.Logger) (*otlpmetrics.Exporter, error) {
	if cfg.Metrics.OTLP.Endpoint == "" {
		return nil, nil //nolint:nilnil // no export is not a failure
	}
	return otlpmetrics.New(metricsConfig(cfg, build, registry, logger))
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
	for _, engine := range a.engines {
		engine.run(fetching, looping, &fetches, &loops)
	}
	fetches.Go(func() error {
		a.awaitRemotes(fetching)
		return nil
	})
	if a.connections != nil {
		loops.Go(func() error { return a.connections.Run(looping, a.logger.Named("cache")) })
	}
	if a.traces != nil {
		loops.Go(func() error { return a.traces.Run(looping) })
	}
	if a.metrics != nil {
		loops.Go(func() error { return a.metrics.Run(looping) })
	}
	if a.access != nil {
		loops.Go(func() error { return a.access.Run(looping) })
	}
	a.decisions.run(looping, &loops)
	if a.consoleSecret != nil {
		loops.Go(func() error { return a.consoleSecret.Run(looping) })
	}
	sending, endSending := context.WithCancel(ctx) // requests of webhooks end while calls do
	defer endSending()
	var senders errgroup.Group
	for _, webhook := range a.webhooks {
		senders.Go(func() error { return webhook.sender.Run(sending) })
		loops.Go(func() error { return webhook.secrets.Run(looping) })
	}
	a.announce(on)
	err := a.server.Serve(ctx, on)
	endSending()
	err = errors.Join(err, senders.Wait())
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

// announce logs where the service listens, and a warning if others can use it.
func (a *App) announce(on server.Listeners) {
	if a.cfg.Server.Insecure {
		a.logger.Warn("server.insecure is set: gRPC and REST may be reachable from other machines without TLS or without authentication")
	}
	fields := []zap.Field{zap.Stringer("grpc", on.GRPC.Addr()), zap.Stringer("http", on.HTTP.Addr()), zap.Stringer("admin", on.Admin.Addr())}
	if on.Probe != nil {
		fields = append(fields, zap.Stringer("probe", on.Probe.Addr()))
	}
	a.logger.Info("serving", append(fields, zap.Bool("tls", a.cfg.Server.TLS.Enabled()))...)
}

// followSignals ends the server's drain with the second signal, and reloads files
// with each SIGHUP. stop ends its goroutine.
func (a *App) followSignals(ctx context.Context) (stop func()) {
	ended := make(chan struct{})
	life := lifecycleOf(ctx)
	go func() {
		for {
			select {
			case <-life.reload:
				a.logger.Info("reloading files")
				a.reload()
			case <-life.endDrain:
				a.server.EndDrain()
				return
			case <-ended:
				return
			}
		}
	}()
	return func() { close(ended) }
}

// reload reads the files and vaults that may change while the service runs.
func (a *App) reload() {
	a.server.Reload()
	if a.access != nil {
		a.access.Reload()
	}
	for _, webhook := range a.webhooks {
		webhook.secrets.Reload()
	}
	for _, engine := range a.engines {
		if engine.client != nil {
			engine.client.Reload()
		}
	}
	a.decisions.reload()
	if a.consoleSecret != nil {
		a.consoleSecret.Reload()
	}
}

// flush sends what would be lost with the process, to Redis, the collectors and the
// decision log concurrently: if one hangs, it takes no time from the others. The calls,
// the fetches and the loops of Run have ended.
func (a *App) flush(ctx context.Context) {
	var flushes sync.WaitGroup
	flushes.Go(func() { a.decisions.flush(ctx, a.logger) })
	if a.traces != nil {
		flushes.Go(func() { a.traces.Flush(ctx) })
	}
	if a.metrics != nil {
		flushes.Go(func() { a.metrics.Flush(ctx) })
	}
	for _, engine := range a.engines {
		flushes.Go(func() { engine.flush(ctx) })
	}
	flushes.Wait()
}

// Close releases what New took. Nothing may be using it any more.
func (a *App) Close() error {
	var faults []error
	for _, engine := range a.engines {
		faults = append(faults, engine.close())
	}
	if a.connections != nil {
		faults = append(faults, a.connections.Close())
	}
	return errors.Join(faults...)
}

// awaitRemotes reports the service ready once connections to Redis were tried, the
// first token of each partner has come and the keys of each issuer were fetched, or
// when waiting longer would keep a restart from serving what it holds. One partner
// delays the others no longer.
func (a *App) awaitRemotes(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	var waits sync.WaitGroup
	for _, engine := range a.engines {
		waits.Go(func() { engine.awaitToken(ctx) })
	}
	if a.access != nil {
		waits.Go(func() { a.access.AwaitKeys(ctx) })
	}
	waits.Wait()
	a.server.SetReady()
}

// Logger returns the logger of the service.
func (a *App) Logger() *zap.Logger { return a.logger }

// CheckVaults returns tokenstore.ErrNone or tokenstore.ErrUnreadable if the vault of
// a partner has no refresh token or denies access, or a *pcclient.APIError if one
// holds no usable client secret or certificate, as config.Load does for files, and
// the partner that it is about. If a vault cannot be reached, or the process has no
// identity for it, that is logged and no error: it must not prevent a start.
func (a *App) CheckVaults(ctx context.Context) (config.Partner, error) {
	faults := make([]error, len(a.engines))
	var checks sync.WaitGroup
	for i, engine := range a.engines {
		checks.Go(func() { faults[i] = errors.Join(engine.checkCredential(ctx), engine.checkRefreshToken(ctx)) })
	}
	checks.Wait()
	for i, err := range faults {
		if err != nil {
			return a.engines[i].partner, err
		}
	}
	return config.Partner{}, nil
}
