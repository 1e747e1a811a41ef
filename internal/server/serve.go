package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/eligibilityd/eligibilityd/internal/loopback"
)

// adminTimeout is how long requests of the admin and the probe listener may take to end after
// everything else has.
const adminTimeout = 200 * time.Millisecond

// Listeners are the sockets that a [Server] serves on. All but Probe are required;
// Serve closes them.
type Listeners struct {
	GRPC  net.Listener
	HTTP  net.Listener
	Admin net.Listener
	Probe net.Listener // nil for none
}

// SetReady reports that the server serves, over grpc.health.v1 and /readyz. Before
// it, and once the server is stopping, both report that it does not; requests are
// answered all the same. It is safe for concurrent use.
func (s *Server) SetReady() {
	if s.state.CompareAndSwap(stateStarting, stateReady) {
		s.setHealth(healthv1.HealthCheckResponse_SERVING) // ignored once health was shut down
	}
}

// Reload makes the server read the files of TLS at once. It is safe for concurrent
// use.
func (s *Server) Reload() {
	if s.certificates != nil {
		s.certificates.Reload()
	}
}

// EndDrain ends the drain under way, or skips the one to come. It is safe for
// concurrent use.
func (s *Server) EndDrain() { s.endDrain() }

// Serve serves until ctx ends or a listener fails, then shuts down: it reports
// that it does not serve, goes on for Config.DrainPause, takes nothing new, and
// gives what is in progress Config.ShutdownTimeout. A server that was never ready
// has no callers to drain. It returns when all has ended, nil after an orderly
// end. Call it once.
func (s *Server) Serve(ctx context.Context, listeners Listeners) error {
	if listeners.GRPC == nil || listeners.HTTP == nil || listeners.Admin == nil {
		return errors.New("serve: the listeners of gRPC, HTTP and admin are required")
	}
	s.grpc = s.newGRPC()
	if loopback.Is(listeners.HTTP.Addr()) {
		s.rest.GuardLoopback()
	}
	s.admin.Handler = loopback.Guard(listeners.Admin.Addr(), s.admin.Handler, nil)
	together := newTogether(s.cfg.Limits.Together)
	grpcListener := &boundedListener{listeners.GRPC, s.grpcConnections, s.cfg.Limits, together, false}
	var httpListener net.Listener = &boundedListener{listeners.HTTP, s.httpConnections, s.cfg.Limits, together, true}
	if s.certificates != nil {
		httpListener = secureListener{httpListener, s.certificates}
	}
	group, failed := errgroup.WithContext(ctx)
	group.Go(func() error {
		// It returns ErrServerStopped if the end came before its beginning.
		if err := s.grpc.Serve(grpcListener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			return fmt.Errorf("serve grpc: %w", err)
		}
		return nil
	})
	group.Go(func() error { return serveHTTP(s.http, httpListener, "http") })
	group.Go(func() error {
		return serveHTTP(s.admin, &operatorListener{Listener: listeners.Admin, connections: s.adminConnections, max: maxOperators}, "admin")
	})
	if listeners.Probe != nil {
		s.probe.Handler = loopback.Guard(listeners.Probe.Addr(), s.probe.Handler, nil)
		group.Go(func() error {
			return serveHTTP(s.probe, &operatorListener{Listener: listeners.Probe, connections: s.probeConnections, max: maxOperators}, "probe")
		})
	}
	sweeping, endSweeping := context.WithCancel(context.Background())
	group.Go(func() error {
		s.awaited.run(sweeping)
		return nil
	})
	if s.certificates != nil {
		group.Go(func() error { return s.certificates.Run(sweeping) })
	}
	group.Go(func() error {
		defer endSweeping()
		<-failed.Done()
		return s.shutdown(ctx.Err() != nil)
	})
	return group.Wait()
}

func serveHTTP(server *http.Server, listener net.Listener, name string) error {
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", name, err)
	}
	return nil
}

// shutdown ends the servers of the API together: a slow call on one must not
// delay the end of the other, which its clients see as a GOAWAY. The admin and the
// probe listener end last, so that the end can be watched. Without drain, if a listener
// has failed, load balancers are given no time to turn away.
func (s *Server) shutdown(drain bool) error {
	wasReady := s.state.Swap(stateStopping) == stateReady
	s.health.Shutdown()
	if drain && wasReady && s.cfg.DrainPause > 0 {
		s.chain.Drain(s.cfg.DrainPause)
		s.logger.Info("draining", zap.Duration("pause", s.cfg.DrainPause))
		select {
		case <-time.After(s.cfg.DrainPause):
		case <-s.drainEnds.Done():
		}
	}
	s.logger.Info("shutting down", zap.Duration("timeout", s.cfg.ShutdownTimeout))
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.ShutdownTimeout)
	defer cancel()

	s.chain.Stop() // watchers would keep the graceful stop from its end
	graceful := make(chan error, 1)
	go func() { graceful <- endGRPC(ctx, s.grpc) }()
	err := errors.Join(endHTTP(ctx, s.http, "http"), <-graceful)
	// What watches the end gets its last answer, whatever the time was spent on.
	last, cancelLast := context.WithTimeout(context.Background(), adminTimeout)
	defer cancelLast()
	return errors.Join(err, endHTTP(last, s.admin, "admin"), endHTTP(last, s.probe, "probe"))
}

// endGRPC lets the RPCs in progress end within ctx and cuts off the rest.
func endGRPC(ctx context.Context, server *grpc.Server) error {
	graceful := make(chan struct{})
	go func() {
		defer close(graceful)
		server.GracefulStop()
	}()
	select {
	case <-graceful:
		return nil
	case <-ctx.Done():
		server.Stop()
		<-graceful
		return errors.New("stop grpc: rpcs in progress were cut off")
	}
}

// endHTTP lets the requests in progress end within ctx and cuts off the rest.
func endHTTP(ctx context.Context, server *http.Server, name string) error {
	if err := server.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("stop %s: requests in progress were cut off: %w", name, err), server.Close())
	}
	return nil
}
