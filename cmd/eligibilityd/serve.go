package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

func newServeCommand() *cobra.Command {
	var path string
	var checkConfig bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the service",
		Long: `serve runs the service until it is told to stop (SIGINT or SIGTERM). It starts
while Redis, Partner Center or the login host are away.

Every key of the configuration file can be given, or overridden, by an
environment variable: ELIGIBILITY_PARTNER_CENTER__CLIENT_ID, for instance.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), os.Environ(), path, checkConfig, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "YAML configuration file; without one, the environment says all")
	cmd.Flags().BoolVar(&checkConfig, "check-config", false, "check the configuration, report every mistake and exit")
	return cmd
}

func serve(ctx context.Context, environ []string, path string, checkConfig bool, out, logOut io.Writer) error {
	cfg, err := config.Load(path, environ, config.Serve)
	if err != nil {
		return fmt.Errorf("configuration:\n%w", err)
	}
	logger, err := newLogger(cfg.Log, logOut)
	if err != nil {
		return err
	}
	service, err := newApp(cfg, logger)
	if err != nil {
		return err
	}
	if checkConfig {
		fmt.Fprintln(out, "configuration ok")
		return service.close()
	}
	on, err := listeners(ctx, cfg.Server)
	if err != nil {
		return errors.Join(err, service.close())
	}
	return service.run(ctx, on)
}
