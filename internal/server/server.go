// Package server serves the API on its listeners: gRPC with health and reflection,
// REST, and the state of the process for operators. It owns readiness and the
// shutdown.
package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log" //nolint:depguard // http.Server takes its Logger only
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // clients may compress
	grpchealth "google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/health"
	"github.com/eligibilityd/eligibilityd/internal/logging"
)

// Config tunes a [Server]. Its zero value is the documented default.
type Config struct {
	// Logger gets the server's own records; nil logs nothing.
	Logger *zap.Logger
	// Registerer takes the metrics of connections; nil means a registry of its own,
	// which is then also the Gatherer.
	Registerer prometheus.Registerer
	// Gatherer is what /metrics shows. Required if Registerer is set.
	Gatherer prometheus.Gatherer

	// Components are what /readyz?verbose shows, in that order. They do not change
	// whether the server is ready.
	Components []health.Source

	// TLS encrypts gRPC and REST; its zero value leaves them in plain text.
	TLS TLS
	// Certificate returns what a client certificate, verified in the handshake, states
	// about its holder; nil means that it states nothing.
	Certificate func(leaf *x509.Certificate) *access.Certificate
	// Limits bound what clients may cost.
	Limits Limits

	// DrainPause is how long the server goes on as before after it has reported that
	// it stops serving, so that load balancers can turn away; 0 means none.
	DrainPause time.Duration
	// ShutdownTimeout is how long RPCs in progress may take after that before
	// they are cut off; 0 means 10 s.
	ShutdownTimeout time.Duration

	// FailureRecords is how many records a second are written of what the HTTP
	// servers complain about; 0 means 20.
	FailureRecords int
}

// Validate reports every setting that cannot be kept.
func (c Config) Validate() error {
	var faults []error
	for _, setting := range []struct {
		name     string
		negative bool
	}{
		{"drain pause", c.DrainPause < 0},
		{"shutdown timeout", c.ShutdownTimeout < 0},
		{"failure records", c.FailureRecords < 0},
		{"a limit", c.Limits.negative()},
	} {
		if setting.negative {
			faults = append(faults, fmt.Errorf("%s is negative", setting.name))
		}
	}
	if (c.Registerer == nil) != (c.Gatherer == nil) {
		faults = append(faults, errors.New("registerer and gatherer go together"))
	}
	return errors.Join(faults...)
}

// withDefaults returns c with every zero value replaced by what it means.
func withDefaults(c Config) Config {
	c.ShutdownTimeout = cmp.Or(c.ShutdownTimeout, 10*time.Second)
	c.FailureRecords = cmp.Or(c.FailureRecords, 20)
	c.Limits = c.Limits.withDefaults()
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	if c.Registerer == nil {
		registry := prometheus.NewRegistry()
		c.Registerer, c.Gatherer = registry, registry
	}
	return c
}

const (
	// streamWorkers answer RPCs on stacks that have grown already; more at once
	// get a goroutine each.
	streamWorkers = 64
	// writeBufferBytes is what a gRPC connection collects before it writes; it
	// has the buffer only while it writes.
	writeBufferBytes = 128 << 10
	// maxMessageBytes is from which size on grpc-go itself refuses a message,
	// with a bare status, compressed or not. A smaller one above the limit of the
	// chain gets ours.
	maxMessageBytes = 4 << 20
	// operatorTimeout is how long a probe or an operator may take to send a request.
	operatorTimeout = 10 * time.Second
)

// REST answers the requests of the HTTP listener.
type REST interface {
	http.Handler
	// GuardLoopback makes it refuse what a web page in a browser can send, from now
	// on. It is called before the first request if the listener is bound to
	// loopback.
	GuardLoopback()
}

// Server serves the API. It is built by [New] and run once by [Server.Serve].
type Server struct {
	cfg        Config
	logger     *zap.Logger
	complaints *zap.Logger // of the HTTP servers: limited, for it is often a client's doing

	chain  *api.Chain
	rest   REST
	grpc   *grpc.Server // since Serve
	health *grpchealth.Server
	http   *http.Server
	admin  *http.Server
	probe  *http.Server

	state        atomic.Int32  // stateStarting and its like
	awaited      *awaited      // gRPC streams without a message
	certificates *certificates // nil in plain text

	grpcConnections, httpConnections, adminConnections, probeConnections *connections

	drainEnds context.Context //nolint:containedctx // the server's own life, no request's
	endDrain  context.CancelFunc
}

// New builds a Server for the RPCs of chain, over REST through rest. It opens no
// socket and starts nothing. It fails on a Config that cannot be kept, and if a
// metric's name is taken.
func New(chain *api.Chain, rest REST, cfg Config) (*Server, error) {
	if chain == nil || rest == nil {
		return nil, errors.New("new server: chain and rest are required")
	}
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("new server: %w", err)
	}
	s := &Server{cfg: withDefaults(cfg), chain: chain, rest: rest}
	s.logger = s.cfg.Logger
	s.complaints = logging.Limit(s.logger, logging.NewLimiter(s.cfg.FailureRecords, time.Second))
	if err := s.newConnections(s.cfg.Registerer); err != nil {
		return nil, fmt.Errorf("new server: register metrics: %w", err)
	}
	var err error
	if s.certificates, err = s.openCertificates(); err != nil {
		return nil, fmt.Errorf("new server: %w", err)
	}
	s.drainEnds, s.endDrain = context.WithCancel(context.Background())

	s.health = grpchealth.NewServer()
	s.setHealth(healthv1.HealthCheckResponse_NOT_SERVING)
	s.http = s.newREST(rest)
	// A profile is written for as long as it was asked for, minutes at most.
	s.admin = s.newOperators(newAdmin(s.cfg.Gatherer, s.state.Load, s.cfg.Components, s.complaints), 5*time.Minute)
	s.probe = s.newOperators(newProbe(s.cfg.Gatherer, s.state.Load, s.cfg.Components, s.complaints), time.Minute)
	return s, nil
}

// newGRPC builds the gRPC server with health and reflection beside the API. It
// starts the stream workers, so it is for Serve alone.
func (s *Server) newGRPC() *grpc.Server {
	limits := s.cfg.Limits
	server := grpc.NewServer(
		grpc.Creds(handshake{s}),
		grpc.UnaryInterceptor(s.chain.Intercept),
		grpc.ForceServerCodecV2(s.chain.Codec()),
		grpc.ChainStreamInterceptor(s.awaited.intercept, s.chain.InterceptStream),
		grpc.UnknownServiceHandler(unknownMethod),
		grpc.MaxRecvMsgSize(max(maxMessageBytes, s.chain.GRPCBodyBytes())),
		grpc.MaxHeaderListSize(uint32(limits.HeaderBytes)),             //nolint:gosec // far smaller
		grpc.MaxConcurrentStreams(uint32(limits.StreamsPerConnection)), //nolint:gosec // far smaller
		grpc.ConnectionTimeout(limits.FirstRequest),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.WriteBufferSize(writeBufferBytes),
		grpc.ReadBufferSize(s.readBufferBytes()),
		grpc.WaitForHandlers(true), // nothing below may close before they end
		// Ask a silent client after a minute whether it is still there, and
		// let clients ask as often as they usually do. The age gets a jitter of a tenth.
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: limits.Idle, MaxConnectionAge: limits.ConnectionAge, MaxConnectionAgeGrace: api.MaxWatchAge,
			Time: time.Minute, Timeout: 20 * time.Second,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	)
	for _, service := range s.chain.Services() {
		server.RegisterService(s.awaited.awaiting(s.chain.WithoutMessages(*service.Desc), s.chain.Begin), service.Impl)
	}
	server.RegisterService(s.awaited.awaiting(healthv1.Health_ServiceDesc, s.chain.Begin), s.health)
	reflection.Register(server)
	return server
}

// unknownMethod handles a method that is not registered. The chain, which refuses it,
// authenticates its caller first.
func unknownMethod(any, grpc.ServerStream) error {
	return status.Error(codes.Unimplemented, "This service has no such method.")
}

// readBufferBytes is the size of the buffer that a gRPC connection reads into. In
// plain text it has the buffer only while it reads. Under TLS it always has it, and
// package tls has read the whole record before.
func (s *Server) readBufferBytes() int {
	if s.certificates == nil {
		return 32 << 10
	}
	return 2 << 10
}

// newREST builds the HTTP server of the API. No slow or silent client can hold on to
// it, and HTTP/2 is served under TLS only.
func (s *Server) newREST(rest http.Handler) *http.Server {
	limits := s.cfg.Limits
	server := s.newHTTP(s.closing(rest))
	server.ReadHeaderTimeout = limits.FirstRequest / 2 // the handshake gets the other half
	server.ReadTimeout = limits.FirstRequest
	server.WriteTimeout = s.chain.MaxTimeout() + limits.FirstRequest
	server.IdleTimeout = limits.Idle
	server.MaxHeaderBytes = limits.HeaderBytes
	server.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: limits.StreamsPerConnection}
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetHTTP2(true)
	server.ConnContext = func(ctx context.Context, accepted net.Conn) context.Context {
		if client, ok := accepted.(*tls.Conn); ok {
			accepted = client.NetConn()
		}
		return context.WithValue(ctx, api.ConnectionKey{}, accepted)
	}
	return server
}

// newOperators builds an HTTP server for probes and operators.
func (s *Server) newOperators(handler http.Handler, writeTimeout time.Duration) *http.Server {
	server := s.newHTTP(handler)
	server.ReadTimeout, server.WriteTimeout, server.IdleTimeout = operatorTimeout, writeTimeout, 2*time.Minute
	server.MaxHeaderBytes = 16 << 10
	server.ConnState = noteState
	return server
}

func (s *Server) newHTTP(handler http.Handler) *http.Server {
	errorLog := log.New(httpComplaints{s.complaints}, "", 0)
	// OPTIONS * is for the handler too, which authenticates.
	return &http.Server{Handler: handler, ErrorLog: errorLog, DisableGeneralOptionsHandler: true} //nolint:gosec // the caller sets its timeouts
}

// setHealth reports over grpc.health.v1 whether the server and its API serve.
func (s *Server) setHealth(status healthv1.HealthCheckResponse_ServingStatus) {
	s.health.SetServingStatus("", status)
	for _, service := range s.chain.Services() {
		s.health.SetServingStatus(service.Desc.ServiceName, status)
	}
}
