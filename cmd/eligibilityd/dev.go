package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/eligibilityd/eligibilityd/internal/app"
	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/logging"
	"github.com/eligibilityd/eligibilityd/internal/loopback"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/server"
)

// devBudget is the budget of dev for its own simulator, which needs no
// protection.
const devBudget = 1_000_000

// devPartner and devSecondPartner are the partners of dev. The first is the default,
// and has the simulator's own credentials and seeds.
const (
	devPartner       = "contoso-eu"
	devSecondPartner = "contoso-us"
)

// devPartners is the script of the second partner: one customer of the first gets
// another answer, and all others are unknown.
const devPartners = `partners:
  ` + devSecondPartner + `:
    tenant_id: 70000000-0000-4000-8000-000000000002
    client_id: c0000000-0000-4000-8000-000000000002
    client_secret: ` + devSecondSecret + `
    refresh_token: ` + devSecondToken + `
    customers:
      a0000000-0000-4000-8000-000000000001:
        name: allowed elsewhere
        shows: May buy through the other partner only.
        account:
          - status: NotAllowed
`

const (
	devSecondSecret = "simulator-client-secret-us"
	devSecondToken  = "simulator-refresh-token-us"
)

func newDevCommand() *cobra.Command {
	var controlAddress string
	var scripts []string
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run the service with an embedded Partner Center simulator",
		Long: `dev runs the service with a simulator of Partner Center in the same process and
without Redis, and prints what to try. It needs nothing and binds loopback. It
has two partners, contoso-eu and contoso-us; requests that name none mean the
first. It serves the console, in which everybody is a fictitious user, and keeps
10,000 customers and, until it ends, a decision log.

Environment variables change its configuration as that of serve:
ELIGIBILITY_SERVER__HTTP__ADDRESS=127.0.0.1:8081, for instance.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			logOut := app.Serving(cmd.Context(), cmd.ErrOrStderr())
			return dev(cmd.Context(), os.Environ(), controlAddress, scripts, cmd.OutOrStdout(), logOut)
		},
	}
	cmd.Flags().StringVar(&controlAddress, "control-address", "127.0.0.1:9081", "where the simulator's control API listens")
	cmd.Flags().StringArrayVar(&scripts, "script", nil, "YAML file of customers to play beside the seeds; may be given more than once")
	return cmd
}

func dev(ctx context.Context, environ []string, controlAddress string, scripts []string, out, logOut io.Writer) error {
	environ = withDefault(environ, "ELIGIBILITY_LOG__FORMAT", "console")
	environ = withDefault(environ, "ELIGIBILITY_SERVER__DRAIN", "0s")
	environ = withDefault(environ, "ELIGIBILITY_CONSOLE__ENABLED", "true")
	environ = withDefault(environ, "ELIGIBILITY_CACHE__LOCAL__MAX_ENTRIES", "10000") // whatever the tier prepares for more costs memory
	cfg, err := config.Load("", environ, config.Dev)
	if err != nil {
		return fmt.Errorf("configuration:\n%w", err)
	}
	if host, _, err := net.SplitHostPort(controlAddress); err == nil && !loopback.IsHost(host) {
		return fmt.Errorf("--control-address %q can be reached from other machines: dev listens on loopback only, such as 127.0.0.1", controlAddress)
	}
	dir, err := os.MkdirTemp("", "eligibilityd-dev")
	if err != nil {
		return fmt.Errorf("directory for the simulator's refresh token: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if cfg.DecisionLog.File == "" {
		cfg.DecisionLog.File = filepath.Join(dir, "decisions.jsonl")
	}

	printed := logging.NewQueue(out)
	defer func() { _ = printed.Sync() }()

	simulator, err := newSimulator(pcsim.Config{}, scripts)
	if err == nil {
		err = simulator.Load(strings.NewReader(devPartners))
	}
	if err != nil {
		return err
	}
	sim, err := openSimulator(ctx, "127.0.0.1:0", controlAddress)
	if err != nil {
		return err
	}
	if err := connectPartners(cfg, simulator, sim.api.Addr().String(), dir); err != nil {
		return errors.Join(err, sim.close())
	}
	service, on, err := openService(ctx, cfg, logOut)
	if err != nil {
		return errors.Join(err, sim.close())
	}

	defer func() { _ = service.Logger().Sync() }()

	// The simulator keeps running while the service drains.
	simulating, endSimulator := context.WithCancel(context.WithoutCancel(ctx))
	defer endSimulator()
	var group errgroup.Group
	group.Go(func() error { return serveSimulator(simulating, simulator, sim) })
	group.Go(func() error {
		defer endSimulator()
		return service.Run(ctx, on)
	})
	group.Go(func() error {
		defer debug.FreeOSMemory() // of the start; little garbage follows that would have it collected
		return printGuide(ctx, printed, guide{simulator.Customers(), on, sim.control.Addr(), scripts, dir, cfg})
	})
	return group.Wait()
}

// withDefault adds a variable if it is not set.
func withDefault(environ []string, name, value string) []string {
	for _, entry := range environ {
		if strings.HasPrefix(entry, name+"=") {
			return environ
		}
	}
	return append(slices.Clip(environ), name+"="+value)
}

// openService builds the service and opens its listeners.
func openService(ctx context.Context, cfg *config.Config, logOut io.Writer) (*app.App, server.Listeners, error) {
	service, err := app.New(ctx, cfg, buildVersion(), logOut)
	if err != nil {
		return nil, server.Listeners{}, err
	}
	on, err := app.OpenListeners(ctx, cfg.Server)
	if err != nil {
		return nil, server.Listeners{}, errors.Join(err, service.Close())
	}
	return service, on, nil
}

// connectPartners gives cfg the partners of dev, which use a simulator. Everything
// else is as it is configured for the first.
func connectPartners(cfg *config.Config, simulator *pcsim.Server, address, dir string) error {
	first := config.Partner{Name: devPartner, PartnerCenter: cfg.Partners[0].PartnerCenter}
	if err := connect(&first.PartnerCenter, address, filepath.Join(dir, "refresh-token")); err != nil {
		return err
	}
	second := config.Partner{Name: devSecondPartner, PartnerCenter: first.PartnerCenter}
	of, _ := simulator.Partner(devSecondPartner)
	second.TenantID, second.ClientID, second.ClientSecret = of.TenantID(), of.ClientID(), config.NewSecret(devSecondSecret)
	second.RefreshTokenFile = filepath.Join(dir, "refresh-token-"+devSecondPartner)
	if err := os.WriteFile(second.RefreshTokenFile, []byte(devSecondToken), 0o600); err != nil {
		return fmt.Errorf("refresh token of the simulator: %w", err)
	}
	cfg.Partners, cfg.DefaultPartner = []config.Partner{first, second}, first.Name
	return nil
}

// connect configures cfg to use a simulator and its credentials.
func connect(cfg *config.PartnerCenter, simulator, refreshTokenFile string) error {
	if err := os.WriteFile(refreshTokenFile, []byte(pcsim.DefaultRefreshToken), 0o600); err != nil {
		return fmt.Errorf("refresh token of the simulator: %w", err)
	}
	cfg.BaseURL = "http://" + simulator
	cfg.Authority = "http://" + simulator
	cfg.TenantID = pcsim.DefaultTenantID
	cfg.ClientID = pcsim.DefaultClientID
	cfg.ClientSecret = config.NewSecret(pcsim.DefaultClientSecret)
	cfg.ClientCertificate = config.Secret{}
	cfg.RefreshTokenFile = refreshTokenFile
	cfg.RefreshTokenVault = config.RefreshTokenVault{}
	cfg.BudgetPerMinute = devBudget
	return nil
}
