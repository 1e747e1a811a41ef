package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/app"
	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/doctor"
	"github.com/eligibilityd/eligibilityd/internal/pcclient"
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
			logOut := app.Serving(cmd.Context(), cmd.ErrOrStderr())
			return serve(cmd.Context(), os.Environ(), path, checkConfig, cmd.OutOrStdout(), logOut)
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "YAML configuration file; without one, the environment holds the whole configuration")
	cmd.Flags().BoolVar(&checkConfig, "check-config", false, "check the configuration, report every mistake and exit")
	return cmd
}

func serve(ctx context.Context, environ []string, path string, checkConfig bool, out, logOut io.Writer) error {
	cfg, settings, err := config.LoadSettings(path, environ, config.Serve)
	if err != nil {
		return fmt.Errorf("configuration:\n%w", err)
	}
	service, err := app.New(ctx, cfg, buildVersion(), logOut)
	if err != nil {
		return err
	}
	defer func() { _ = service.Logger().Sync() }() // records that are not read by then are lost
	if checkConfig {
		fmt.Fprintln(out, "configuration ok")
		return service.Close()
	}
	if partner, err := service.CheckVaults(ctx); err != nil {
		if len(cfg.Partners) > 1 {
			err = fmt.Errorf("partner %s: %w", partner.Name, err)
		}
		return errors.Join(withRemedy(err, loginArguments(cfg, partner, path)), service.Close())
	}
	logSettings(service.Logger(), cfg.Digest(), settings)
	app.TuneMemory(ctx, service.Logger())
	on, err := app.OpenListeners(ctx, cfg.Server)
	if err != nil {
		return errors.Join(err, service.Close())
	}
	return service.Run(ctx, on)
}

// maxSettingsBytes bounds the record of the configuration.
const maxSettingsBytes = 32 << 10

// logSettings logs the settings that were given, as far as they fit into a record.
func logSettings(logger *zap.Logger, digest string, settings []config.Setting) {
	var given []string
	size, leftOut := 0, 0
	for _, s := range settings {
		if s.Source == "" {
			continue
		}
		text := s.Key + "=" + s.Text() + " (" + s.Source + ")"
		if size += len(text); size > maxSettingsBytes {
			leftOut++
			continue
		}
		given = append(given, text)
	}
	logger.Info("configuration", zap.String("digest", digest), zap.Strings("given", given), zap.Int("left_out", leftOut))
}

// loginArguments are the arguments of the login for a partner.
func loginArguments(cfg *config.Config, partner config.Partner, configFile string) string {
	arguments := "--config " + placeholder(configFile)
	if len(cfg.Partners) > 1 {
		arguments += " --partner " + partner.Name
	}
	return arguments
}

// withRemedy adds the remedy if err is that a vault holds no readable refresh
// token, client secret or certificate.
func withRemedy(err error, arguments string) error {
	if _, ok := errors.AsType[*pcclient.APIError](err); ok {
		return fmt.Errorf("%w; %s", err, doctor.SecretRemedy)
	}
	if errors.Is(err, tokenstore.ErrNone) {
		return fmt.Errorf("%w; `eligibilityd login %s` obtains one and stores it there", err, arguments)
	}
	return fmt.Errorf("%w; %s", err, doctor.VaultRemedy)
}
