package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/tokenstore"
)

func newServeCommand() *cobra.Command {
	var path string
	var checkConfig bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the service",
		Long: `serve runs the service until SIGINT or SIGTERM; a second signal ends the drain.
It starts while Redis, Partner Center, the login host or the vault are away.

Every key of the configuration file can be given, or overridden, by an
environment variable: ELIGIBILITY_PARTNER_CENTER__CLIENT_ID, for instance.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			logOut := lifecycleOf(cmd.Context()).serve(cmd.ErrOrStderr())
			return serve(cmd.Context(), os.Environ(), path, checkConfig, cmd.OutOrStdout(), logOut)
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
	service, err := newApp(ctx, cfg, logOut)
	if err != nil {
		return err
	}
	defer func() { _ = service.logger.Sync() }() // what is not read by then is lost
	if checkConfig {
		fmt.Fprintln(out, "configuration ok")
		return service.close()
	}
	if err := service.checkRefreshToken(ctx, path); err != nil {
		return errors.Join(err, service.close())
	}
	tuneMemory(cgroupLimits(), service.logger)
	on, err := listeners(ctx, cfg.Server)
	if err != nil {
		return errors.Join(err, service.close())
	}
	return service.run(ctx, on)
}

// checkRefreshToken refuses a vault that refuses us or has no refresh token, as
// config.Load does for a file. A vault that is away stops no start.
func (a *app) checkRefreshToken(ctx context.Context, configFile string) error {
	if a.cfg.PartnerCenter.Flow != config.FlowAppUser || a.cfg.PartnerCenter.RefreshTokenVault.IsZero() {
		return nil
	}
	switch _, err := a.client.RefreshToken(ctx); {
	case errors.Is(err, tokenstore.ErrNone):
		return fmt.Errorf("%w; `eligibilityd login --config %s` obtains one and stores it there", err, placeholder(configFile))
	case errors.Is(err, tokenstore.ErrUnreadable):
		return fmt.Errorf("%w; %s", err, vaultRemedy)
	case err != nil:
		a.logger.Error("vault of the refresh token cannot be asked yet; callers are answered from the cache until it can", zap.Error(err))
	}
	return nil
}
