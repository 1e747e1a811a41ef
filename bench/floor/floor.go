// Package floor holds the servers that the service is compared with: the
// minimum cost of each transport, and the usual way to offer REST beside gRPC.
// Unless a comment states otherwise, each has its library's defaults.
package floor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
	gateway "github.com/eligibilityd/eligibilityd/internal/gateway/eligibility/v1"
)

// echo answers every check with one stored message. grpc-go decodes the request
// and encodes the answer each time, as for any service.
type echo struct {
	eligibilityv1.UnimplementedEligibilityServiceServer

	answer *eligibilityv1.CheckEligibilityResponse
}

// CheckEligibility returns the stored answer.
func (e *echo) CheckEligibility(context.Context, *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
	return e.answer, nil
}

// ServeGRPC serves a bare grpc-go server that answers every check with answer,
// until ctx ends. If security is nil, it is in plain text.
func ServeGRPC(ctx context.Context, listener net.Listener, answer *eligibilityv1.CheckEligibilityResponse, security *tls.Config) error {
	var options []grpc.ServerOption
	if security != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(security)))
	}
	server := grpc.NewServer(options...)
	eligibilityv1.RegisterEligibilityServiceServer(server, &echo{answer: answer})
	defer context.AfterFunc(ctx, server.Stop)()
	if err := server.Serve(listener); err != nil {
		return fmt.Errorf("grpc floor: %w", err)
	}
	return nil
}

// ServeHTTP serves a bare net/http server that answers every request with body,
// until ctx ends. If security is nil, it is in plain text.
func ServeHTTP(ctx context.Context, listener net.Listener, body []byte, security *tls.Config) error {
	if security != nil {
		listener = tls.NewListener(listener, security)
	}
	return serve(ctx, listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		header := w.Header()
		header.Set("Content-Type", "application/json")
		header.Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body) // if a caller has disconnected, it does not matter
	}))
}

// ServeGateway serves grpc-gateway in front of a bare grpc-go server in the
// same process, to which it connects over loopback. It returns when ctx ends.
// It writes proto JSON with the gateway's defaults.
func ServeGateway(ctx context.Context, listener net.Listener, answer *eligibilityv1.CheckEligibilityResponse) error {
	backend, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 1)
	go func() { failed <- ServeGRPC(ctx, backend, answer, nil) }()

	mux := runtime.NewServeMux()
	if err := gateway.RegisterEligibilityServiceHandlerFromEndpoint(ctx, mux, backend.Addr().String(),
		[]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}); err != nil {
		cancel()
		return errors.Join(fmt.Errorf("gateway: %w", err), <-failed)
	}
	err = serve(ctx, listener, mux)
	cancel()
	return errors.Join(err, <-failed)
}

func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler} //nolint:gosec // the defaults are what is measured; it serves loopback
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("http floor: %w", err)
	}
	return nil
}
