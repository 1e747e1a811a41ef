package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// maxServerText bounds what is printed of a text that a server has sent.
const maxServerText = 200

func newHealthCommand() *cobra.Command {
	var flags serviceFlags
	var name string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Check whether a running service serves",
		Long: `health asks a running service by the gRPC health protocol, grpc.health.v1, whether it
serves, and prints SERVING if it does. It is the health check of the container image,
which has no shell. eligibilityd answers it without a token; with
server.tls.client_certificates: required, not without a client certificate.

Exit code: 0 if the service serves, else 1, also if the command line is wrong: Docker
reserves the 2 of the other commands.`,
		Example: `  eligibilityd health
  eligibilityd health --ca-file ca.pem --server-name eligibilityd.shop.example
  eligibilityd health --service eligibility.v1.EligibilityService`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if timeout <= 0 {
				return errors.New("--timeout must be more than 0")
			}
			conn, err := flags.connect()
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			return health(cmd.Context(), conn, name, timeout, cmd.OutOrStdout())
		},
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())
	})
	flags.register(cmd)
	cmd.Flags().StringVar(&name, "service", "", "`NAME` of the gRPC service to ask about (default the whole server)")
	cmd.Flags().DurationVar(&timeout, "timeout", 3*time.Second, "how long the answer may take")
	return cmd
}

// health asks about the service called name and prints that it serves. It returns an
// error if it does not.
func health(ctx context.Context, conn *service, name string, timeout time.Duration, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	resp, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{Service: name}, grpc.WaitForReady(false))
	if err != nil {
		return fmt.Errorf("%s: %w", conn.flags.address, conn.explainHealth(ctx, err, name, timeout))
	}
	if state := resp.GetStatus(); state == healthv1.HealthCheckResponse_NOT_SERVING {
		return fmt.Errorf("%s: NOT_SERVING: it is starting or shutting down", conn.flags.address)
	} else if state != healthv1.HealthCheckResponse_SERVING {
		return fmt.Errorf("%s: it answers %v, not SERVING", conn.flags.address, state)
	}
	_, err = fmt.Fprintln(out, healthv1.HealthCheckResponse_SERVING)
	return err
}

// explainHealth is explain in one line, whatever the server has sent.
func (s *service) explainHealth(ctx context.Context, err error, name string, timeout time.Duration) error {
	if status.Code(err) == codes.NotFound {
		return fmt.Errorf("it has no service %q; leave out --service to ask about the whole server", name)
	}
	explained := s.explain(ctx, err)
	failure, unexplained := status.FromError(explained)
	switch {
	case !unexplained:
		return explained
	case failure.Code() == codes.DeadlineExceeded:
		return fmt.Errorf("no answer within %v", timeout)
	}
	text := failure.Message()
	if len(text) > maxServerText {
		text = strings.ToValidUTF8(text[:maxServerText], "") + "…"
	}
	return fmt.Errorf("%v: %s", failure.Code(), printable(text))
}
