package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/eligibilityd/eligibilityd/bench/floor"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

func newFloorCommand() *cobra.Command {
	var address, answer, certificate, key string
	cmd := &cobra.Command{
		Use:       "floor {grpc|http|gateway}",
		Short:     "Serve one of the floors, as compare does",
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"grpc", "http", "gateway"},
		RunE: func(cmd *cobra.Command, args []string) error {
			return serveFloor(cmd.Context(), args[0], address, answer, certificate, key)
		},
	}
	cmd.Flags().StringVar(&address, "address", "127.0.0.1:9190", "where to listen")
	cmd.Flags().StringVar(&answer, "answer", "", "file with the answer: an encoded message, for http the body")
	cmd.Flags().StringVar(&certificate, "certificate", "", "PEM file of its certificate; without one it serves plain text")
	cmd.Flags().StringVar(&key, "key", "", "PEM file of the key of the certificate")
	_ = cmd.MarkFlagRequired("answer") // the flag is there
	return cmd
}

// serveFloor serves a floor. certificate and key are files in PEM, or both "" for
// plain text.
func serveFloor(ctx context.Context, kind, address, file, certificate, key string) error {
	var security *tls.Config
	if certificate != "" {
		pair, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			return err
		}
		security = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	}
	stored, err := os.ReadFile(file) //nolint:gosec // the user names the file
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	if kind == "http" {
		return floor.ServeHTTP(ctx, listener, stored, security)
	}
	answer := new(eligibilityv1.CheckEligibilityResponse)
	if err := proto.Unmarshal(stored, answer); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if kind == "grpc" {
		return floor.ServeGRPC(ctx, listener, answer, security)
	}
	return floor.ServeGateway(ctx, listener, answer)
}
