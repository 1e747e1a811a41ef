// Package api answers the RPCs: handlers, conversion, errors, limits, deadlines,
// encoding, log, metrics and traces. gRPC and REST share it; it knows neither
// listeners nor HTTP. Only errors.go knows which error is which gRPC code.
package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/allowance"
	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
	"github.com/eligibilityd/eligibilityd/internal/logging"
	"github.com/eligibilityd/eligibilityd/internal/reviews"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// Config tunes a [Chain]. Its zero value is the documented default.
type Config struct {
	// Logger gets one record per RPC; nil logs nothing.
	Logger *zap.Logger
	// Registerer takes the metrics of the RPCs; nil means none are exported.
	Registerer prometheus.Registerer
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time

	// DefaultTimeout is the time for a single check whose caller set no deadline;
	// 0 means 2 s. A batch without one gets MaxTimeout.
	DefaultTimeout time.Duration
	// MaxTimeout is the most time that any RPC gets; 0 means 30 s.
	MaxTimeout time.Duration
	// Reserve is the part of a caller's time that is kept back to answer in; 0
	// means 20 ms.
	Reserve time.Duration
	// MaxConcurrent is how many RPCs may be in progress; further ones are refused
	// as overloaded. Batches and prefetches may be half of them. 0 means 4096.
	MaxConcurrent int

	// MaxWatches is how many streaming RPCs may be open, which do not count as in
	// progress; 0 means 10,000.
	MaxWatches int
	// GRPCBodyBytes bounds a message over gRPC, uncompressed; 0 means 1 MiB. A batch
	// of MaxBatch questions takes about a fifth of it.
	GRPCBodyBytes int

	// PlainRecords is how many records a second are written of RPCs that went as
	// nearly all do: allowed, by evidence that was at hand and fresh. All others
	// have theirs. 0 means 100.
	PlainRecords int
	// FailureRecords is how many records a second are written for each reason of
	// a failure, stale answers among them; 0 means 20.
	FailureRecords int
	// Budgets are the calls to Partner Center a minute that may be made for each
	// partner. A batch over gRPC that had to make some states them in its trailer.
	Budgets map[string]int
	// Access authenticates callers; nil means that every caller is anonymous and
	// may do all.
	Access Authenticator
	// Limits bound what each caller may ask; nil means that nothing does.
	Limits *allowance.Callers
	// Callers are the names of callers in the configuration. They have names of their
	// own in metrics before all others.
	Callers []string
	// Tracer starts the spans of requests that are traced; nil traces none.
	Tracer trace.Tracer
	// SampleRatio is the share, 0 to 1, of requests that are traced if the
	// caller's traceparent does not decide; 0 means none.
	SampleRatio float64

	// Logs are the ends of the partners' feeds of changes, by name. A partner without
	// one has no streams.
	Logs map[string]*changes.Log
	// Reviews are the partners' lists of customers under review, by name. The list of
	// a partner without one is empty.
	Reviews map[string]reviews.List

	// Decisions is the log that each answer is recorded in, Policies are the partners'
	// policies, by name, as it states them. nil means that nothing is recorded.
	Decisions *decisionlog.Log
	Policies  map[string]*decisionlog.Policy

	// Version and Commit are labels of the build info metric.
	Version, Commit string
}

// Validate reports every setting that cannot be kept.
func (c Config) Validate() error {
	var faults []error
	for _, setting := range []struct {
		name     string
		negative bool
	}{
		{"default timeout", c.DefaultTimeout < 0},
		{"max timeout", c.MaxTimeout < 0},
		{"reserve", c.Reserve < 0},
		{"max concurrent", c.MaxConcurrent < 0},
		{"max watches", c.MaxWatches < 0},
		{"grpc body bytes", c.GRPCBodyBytes < 0},
		{"plain records", c.PlainRecords < 0},
		{"failure records", c.FailureRecords < 0},
	} {
		if setting.negative {
			faults = append(faults, fmt.Errorf("%s is negative", setting.name))
		}
	}
	if !(c.SampleRatio >= 0 && c.SampleRatio <= 1) {
		faults = append(faults, errors.New("sample ratio is not from 0 to 1"))
	}
	return errors.Join(faults...)
}

// withChainDefaults returns c with every zero value replaced by what it means.
func withDefaults(c Config) Config {
	c.DefaultTimeout = cmp.Or(c.DefaultTimeout, 2*time.Second)
	c.MaxTimeout = cmp.Or(c.MaxTimeout, 30*time.Second)
	c.Reserve = cmp.Or(c.Reserve, 20*time.Millisecond)
	c.MaxConcurrent = cmp.Or(c.MaxConcurrent, 4096)
	c.MaxWatches = cmp.Or(c.MaxWatches, 10_000)
	c.GRPCBodyBytes = cmp.Or(c.GRPCBodyBytes, 1<<20)
	c.PlainRecords = cmp.Or(c.PlainRecords, 100)
	c.FailureRecords = cmp.Or(c.FailureRecords, 20)
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Service is a gRPC service and what implements it.
type Service struct {
	Desc *grpc.ServiceDesc
	Impl any
	// Needs is the right that each method needs, by its name. A method that is not
	// in it is refused.
	Needs map[string]access.Rights
}

// FullMethod is the name of a method of the service in paths and interceptors.
func (s *Service) FullMethod(method string) string {
	return "/" + s.Desc.ServiceName + "/" + method
}

// Chain is what every RPC runs through, whichever way it came. It owns the
// interceptors, the limits and the log. It is safe for concurrent use.
type Chain struct {
	cfg      Config
	logger   *zap.Logger
	metrics  *metrics
	tracer   Tracer
	limits   limits
	answers  *handler
	services []Service
	methods  map[string]method // by full name; never changed

	languages *languages
	noInbound Inbound   // of every RPC over gRPC; never changed
	headers   sync.Pool // of *callerHeader
	batches   sync.Pool // of *batchMemory
	codec     Codec
	// incomingKey is the key of the metadata in the context of an RPC over gRPC.
	incomingKey any

	inFlight atomic.Int64
	bulk     atomic.Int64 // batches and prefetches in flight
	watches  openStreams  // streaming RPCs
	beside   openStreams  // streams of health and reflection

	refusals *rate.Limiter // of requests without a valid caller that are answered at once
	paused   atomic.Int64  // such requests that wait

	stopping context.Context //nolint:containedctx // the chain's own life, no request's: ends the streams of watchers
	stop     context.CancelFunc
}

// New builds the Chain of the API, which answers for partners, and of further
// services. It fails if cfg is invalid or the name of a metric is taken.
func New(partners Partners, cfg Config, further ...Service) (*Chain, error) {
	if len(partners.named) == 0 {
		return nil, errors.New("new api: partners are required")
	}
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("new api: %w", err)
	}
	c := &Chain{cfg: withDefaults(cfg), refusals: rate.NewLimiter(refusalsPerSecond, refusalsBurst), headers: sync.Pool{New: newCallerHeader}, batches: sync.Pool{New: func() any { return new(batchMemory) }}, incomingKey: incomingKey(), languages: newLanguages()}
	c.codec = NewCodec(c.cfg.GRPCBodyBytes)
	c.watches.most, c.watches.share = c.cfg.MaxWatches, c.cfg.MaxWatches-c.cfg.MaxWatches/10
	c.beside.most, c.beside.fair = maxBeside, fairBeside
	c.logger = logging.OwnLimits(c.cfg.Logger) // by reason: see limits
	c.limits = newLimits(c.cfg.PlainRecords, c.cfg.FailureRecords)
	c.tracer = newTracer(c.cfg.Tracer, c.cfg.SampleRatio)
	c.answers = &handler{partners: partners, budgets: cfg.Budgets, now: c.cfg.Now, logs: cfg.Logs, reviews: cfg.Reviews, watchTimes: defaultWatchTimes()}
	c.answers.decisions = newDecisions(&c.cfg)
	c.services = append([]Service{{&eligibilityv1.EligibilityService_ServiceDesc, c.answers, needs()}}, further...)
	var err error
	c.metrics, err = newMetrics(c.cfg, c.services, func() float64 { return float64(c.inFlight.Load()) }, func() float64 { return float64(c.watches.open()) })
	if err != nil {
		return nil, fmt.Errorf("new api: register metrics: %w", err)
	}
	c.answers.metrics = c.metrics
	c.methods = methodsOf(c.services, c.metrics)
	c.stopping, c.stop = context.WithCancel(context.Background())
	return c, nil
}

// Services returns the services whose RPCs run through the chain. Their handlers
// return nothing without it.
func (ch *Chain) Services() []Service { return ch.services }

// Check answers one question, within [Chain.Intercept] and with the context that it hands
// on. It returns a *CheckReply.
func (ch *Chain) Check(ctx context.Context, q *Question) (any, error) {
	if err := ch.answers.check(ctx, q); err != nil {
		return nil, err
	}
	return &callOf(ctx).CheckReply, nil
}

// CheckBatch is Check for the questions of a batch. It returns a BatchReply.
func (ch *Chain) CheckBatch(ctx context.Context, questions []Question) (any, error) {
	if err := ch.answers.checkBatch(ctx, questions, new(batchMemory)); err != nil {
		return nil, err
	}
	return callOf(ctx).batch, nil
}

// Tracer returns what starts the spans of requests.
func (ch *Chain) Tracer() *Tracer { return &ch.tracer }

// Now returns the wall clock's time.
func (ch *Chain) Now() time.Time { return ch.cfg.Now() }

// MaxTimeout is the most time that any RPC gets, streams apart.
func (ch *Chain) MaxTimeout() time.Duration { return ch.cfg.MaxTimeout }

// Drain ends the streams of changes one after the other within pause, so that their
// callers do not all go on elsewhere at the same time. It returns at once.
func (ch *Chain) Drain(pause time.Duration) { ch.answers.watchers.drain(pause) }

// Stop ends the streams, those to come among them: a watcher never ends by itself. It
// returns at once.
func (ch *Chain) Stop() {
	ch.answers.watchers.stop(ch.answers.watchTimes.cut)
	ch.stop()
}
