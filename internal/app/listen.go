package app

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/server"
)

// OpenListeners opens the sockets of the configuration. If one fails, it closes the
// others.
func OpenListeners(ctx context.Context, cfg config.Server) (server.Listeners, error) {
	grpc, grpcErr := Listen(ctx, "server.grpc.address", cfg.GRPC.Address)
	http, httpErr := Listen(ctx, "server.http.address", cfg.HTTP.Address)
	admin, adminErr := Listen(ctx, "server.admin.address", cfg.Admin.Address)
	var probe net.Listener
	var probeErr error
	if cfg.Probe.Address != "" {
		probe, probeErr = Listen(ctx, "server.probe.address", cfg.Probe.Address)
	}
	opened := server.Listeners{GRPC: grpc, HTTP: http, Admin: admin, Probe: probe}
	if err := errors.Join(grpcErr, httpErr, adminErr, probeErr); err != nil {
		closeListeners(opened)
		return server.Listeners{}, err
	}
	return opened, nil
}

func closeListeners(opened server.Listeners) {
	if opened.GRPC != nil {
		_ = opened.GRPC.Close()
	}
	if opened.HTTP != nil {
		_ = opened.HTTP.Close()
	}
	if opened.Admin != nil {
		_ = opened.Admin.Close()
	}
	if opened.Probe != nil {
		_ = opened.Probe.Close()
	}
}

// Listen opens a TCP listener. If it fails, the error names setting, which the
// operator has to change.
func Listen(ctx context.Context, setting, address string) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	return listener, nil
}
