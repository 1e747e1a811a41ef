// Package server offers the service over gRPC and REST, and its state to
// operators over HTTP.
//
// REST calls the handlers of gRPC in this process, through the interceptors that
// gRPC runs too: identity, log and metrics, recovery, limit, deadline.
// grpc-gateway knows its paths and methods. Only errors.go knows which error is
// which gRPC code.
package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/eligibilityd/eligibilityd/internal/evidence"
	gateway "github.com/eligibilityd/eligibilityd/internal/gateway/eligibility/v1"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// Config tunes a [Server]. Its zero value is the documented default.
type Config struct {
	// Logger gets one record per RPC and the server's own; nil logs nothing.
	Logger *zap.Logger
	// Registerer takes the server's metrics; nil means a registry of its own,
	// which is then also the Gatherer.
	Registerer prometheus.Registerer
	// Gatherer is what /metrics shows. Required if Registerer is set.
	Gatherer prometheus.Gatherer
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
	// MaxConcurrent is how many RPCs, batches among them, may be in progress;
	// those beyond are told that the service is overloaded. 0 means 4096.
	MaxConcurrent int

	// DrainPause is how long the server goes on as before after it has said that
	// it stops serving, so that load balancers can turn away; 0 means none.
	DrainPause time.Duration
	// ShutdownTimeout is how long RPCs in progress may take after that before
	// they are cut off; 0 means 10 s.
	ShutdownTimeout time.Duration

	// PlainRecords is how many records a second are written of RPCs that went as
	// nearly all do: allowed, by evidence that was at hand and fresh. All others
	// have theirs. 0 means 100.
	PlainRecords int
	// FailureRecords is how many records a second are written for each reason of
	// a failure, stale answers among them; 0 means 20.
	FailureRecords int
	// Tracer starts the spans of requests that are traced; nil traces none.
	Tracer trace.Tracer
	// SampleRatio is the share, 0 to 1, of requests that are traced where the
	// caller's traceparent does not decide; 0 means none.
	SampleRatio float64

	// Version and Commit are what the build info metric says.
	Version, Commit string
}

// Validate reports every setting that cannot be kept.
func (c Config) Validate() error {
	var faults []error
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"default timeout", c.DefaultTimeout},
		{"max timeout", c.MaxTimeout},
		{"reserve", c.Reserve},
		{"drain pause", c.DrainPause},
		{"shutdown timeout", c.ShutdownTimeout},
	} {
		if d.value < 0 {
			faults = append(faults, fmt.Errorf("%s is negative", d.name))
		}
	}
	if c.MaxConcurrent < 0 {
		faults = append(faults, errors.New("max concurrent is negative"))
	}
	if c.PlainRecords < 0 {
		faults = append(faults, errors.New("plain records is negative"))
	}
	if c.FailureRecords < 0 {
		faults = append(faults, errors.New("failure records is negative"))
	}
	if !(c.SampleRatio >= 0 && c.SampleRatio <= 1) {
		faults = append(faults, errors.New("sample ratio is not from 0 to 1"))
	}
	if (c.Registerer == nil) != (c.Gatherer == nil) {
		faults = append(faults, errors.New("registerer and gatherer go together"))
	}
	return errors.Join(faults...)
}

// withDefaults returns c with every zero value replaced by what it means.
func withDefaults(c Config) Config {
	set := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	set(&c.DefaultTimeout, 2*time.Second)
	set(&c.MaxTimeout, 30*time.Second)
	set(&c.Reserve, 20*time.Millisecond)
	set(&c.ShutdownTimeout, 10*time.Second)
	if c.PlainRecords == 0 {
		c.PlainRecords = 100
	}
	if c.FailureRecords == 0 {
		c.FailureRecords = 20
	}
	if c.MaxConcurrent == 0 {
		c.MaxConcurrent = 4096
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	if c.Registerer == nil {
		registry := prometheus.NewRegistry()
		c.Registerer, c.Gatherer = registry, registry
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

const (
	// maxStreams bounds the RPCs in progress of one gRPC connection; a client
	// that wants more waits in its own queue.
	maxStreams = 250
	// streamWorkers answer RPCs on stacks that have grown already; more at once
	// get a goroutine each.
	streamWorkers = 64
	// writeBufferBytes is what a gRPC connection collects before it writes; it
	// has the buffer only while it writes.
	writeBufferBytes = 128 << 10
	// maxMessageBytes is from which size on grpc-go itself refuses a message,
	// with a bare status. A smaller one above maxBodyBytes gets ours.
	maxMessageBytes = 4 << 20
	// maxHeaderBytes bounds the header of one request.
	maxHeaderBytes = 16 << 10
	// greetTimeout is how long a new connection may take to say what it wants.
	greetTimeout = 10 * time.Second
	// idleTimeout is how long a connection may be open without a request.
	idleTimeout = 2 * time.Minute
)

// Server serves the API. It is built by [New] and run once by [Server.Serve].
type Server struct {
	cfg     Config
	logger  *zap.Logger
	metrics *metrics
	tracer  tracer
	limits  limits

	answers *handler
	apis    []api
	noREST  restRequest  // what an RPC over gRPC has of one; never changed
	headers sync.Pool    // of *callerHeader
	grpc    *grpc.Server // since Serve
	health  *health.Server
	rest    *rest
	http    *http.Server
	admin   *http.Server

	state    atomic.Int32 // stateStarting and its like
	inFlight atomic.Int64
	streams  atomic.Int64 // streaming RPCs whose first message has arrived
	awaited  awaited      // gRPC streams without a message

	grpcConnections, httpConnections, adminConnections *connections

	drainEnds context.Context //nolint:containedctx // the server's own life, no request's
	endDrain  context.CancelFunc
	stopping  context.Context //nolint:containedctx // the server's own life, no request's: ends the streams of watchers
	stop      context.CancelFunc
}

// New builds a Server for service. It opens no socket and starts nothing. It
// fails on a Config that cannot be kept, and if a metric's name is taken.
func New(service *evidence.Service, cfg Config) (*Server, error) {
	return newServer(service, cfg)
}

// newServer is New with further services beside the API's.
func newServer(service *evidence.Service, cfg Config, further ...api) (*Server, error) {
	if service == nil {
		return nil, errors.New("new server: service is required")
	}
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("new server: %w", err)
	}
	s := &Server{cfg: withDefaults(cfg), headers: sync.Pool{New: newCallerHeader}}
	s.logger = s.cfg.Logger
	s.limits = newLimits(s.cfg.PlainRecords, s.cfg.FailureRecords)
	s.tracer = newTracer(s.cfg.Tracer, s.cfg.SampleRatio)
	var err error
	s.answers = &handler{service: service, now: s.cfg.Now}
	s.apis = append([]api{{
		desc: &eligibilityv1.EligibilityService_ServiceDesc,
		impl: s.answers,
		gateway: func(ctx context.Context, mux *runtime.ServeMux, conn grpc.ClientConnInterface) error {
			return gateway.RegisterEligibilityServiceHandlerClient(ctx, mux, eligibilityv1.NewEligibilityServiceClient(conn))
		},
	}}, further...)
	s.metrics, err = newMetrics(s.cfg.Registerer, s.apis, cfg.Version, cfg.Commit, func() float64 { return float64(s.inFlight.Load()) })
	if err != nil {
		return nil, fmt.Errorf("new server: register metrics: %w", err)
	}
	s.grpcConnections, s.httpConnections, s.adminConnections, err = newConnections(s.cfg.Registerer, &s.awaited)
	if err != nil {
		return nil, fmt.Errorf("new server: register metrics: %w", err)
	}
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.drainEnds, s.endDrain = context.WithCancel(context.Background())

	s.health = health.NewServer()
	s.setHealth(healthv1.HealthCheckResponse_NOT_SERVING)
	s.answers.metrics = s.metrics
	conn := newInProcess(s.apis, s.intercept, s.interceptStream)
	s.rest, err = newREST(s.stopping, s.answers, conn, s.apis, s.tracer, s.cfg.Now)
	if err != nil {
		return nil, fmt.Errorf("new server: %w", err)
	}
	s.http = s.newHTTP(s.closing(s.rest), s.cfg.MaxTimeout+greetTimeout)
	// A profile is written for as long as it was asked for, minutes at most.
	s.admin = s.newHTTP(newAdmin(s.cfg.Gatherer, s.state.Load, s.complaints()), 5*time.Minute)
	return s, nil
}

// newGRPC builds the gRPC server with health and reflection beside the API. It
// starts the stream workers, so it is for Serve alone.
func (s *Server) newGRPC() *grpc.Server {
	server := grpc.NewServer(
		grpc.UnaryInterceptor(s.intercept),
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(protocodec.Name)}),
		grpc.StreamInterceptor(s.interceptStream),
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(greetTimeout),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.WriteBufferSize(writeBufferBytes),
		grpc.WaitForHandlers(true), // nothing below may close before they end
		// Ask a silent client after a minute whether it is still there, and
		// let clients ask as often as they usually do.
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idleTimeout, Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	)
	for _, api := range s.apis {
		server.RegisterService(s.awaited.awaiting(*api.desc), api.impl)
	}
	server.RegisterService(s.awaited.awaiting(healthv1.Health_ServiceDesc), s.health)
	reflection.Register(server)
	return server
}

// newHTTP builds an HTTP server that no slow or silent client can hold on to.
func (s *Server) newHTTP(handler http.Handler, writeTimeout time.Duration) *http.Server {
	// The logger's only failure is a level that it does not know.
	errorLog, _ := zap.NewStdLogAt(s.complaints(), zap.WarnLevel)
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: greetTimeout / 2,
		ReadTimeout:       greetTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          errorLog,
	}
}

// setHealth says over grpc.health.v1 whether the server and its API serve.
func (s *Server) setHealth(status healthv1.HealthCheckResponse_ServingStatus) {
	s.health.SetServingStatus("", status)
	for _, api := range s.apis {
		s.health.SetServingStatus(api.desc.ServiceName, status)
	}
}
