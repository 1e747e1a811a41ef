package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/eligibilityd/eligibilityd/internal/app"
	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/logging"
	"github.com/eligibilityd/eligibilityd/internal/loopback"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// simulatorFlags are the flags of the simulate command.
type simulatorFlags struct {
	address        string
	controlAddress string
	scripts        []string
	certificates   []string
	cfg            pcsim.Config
}

func newSimulateCommand() *cobra.Command {
	var flags simulatorFlags
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Play Partner Center and Microsoft's login host, for tests of your own",
		Long: `simulate serves Partner Center's token endpoint and the two resources that
decide whether a customer may buy, seeded with a customer for every documented
answer. A control API on a listener of its own scripts what each customer gets:
GET /v1/customers lists the seeds. --without-mfa, --mfa-pass-percent and
--clock-skew set the initial settings; PUT /v1/settings changes them.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			logOut := app.Serving(cmd.Context(), cmd.ErrOrStderr())
			return simulate(cmd.Context(), flags, cmd.OutOrStdout(), logOut)
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.address, "address", "127.0.0.1:9080", "where Partner Center and the login host listen")
	f.StringVar(&flags.controlAddress, "control-address", "127.0.0.1:9081", "where the control API listens")
	f.StringArrayVar(&flags.scripts, "script", nil, "YAML `FILE` of customers to play beside the seeds, and of further partners; may be given more than once")
	f.IntVar(&flags.cfg.RequestsPerMinute, "requests-per-minute", 0, "throttle beyond this many requests a minute; 0 means never")
	f.BoolVar(&flags.cfg.LimitPerCustomer, "limit-per-customer", false, "count --requests-per-minute for each customer apart")
	f.BoolVar(&flags.cfg.FixedWindows, "fixed-windows", false, "count --requests-per-minute in each minute of the clock, not in any 60 seconds")
	f.DurationVar(&flags.cfg.TokenLifetime, "token-lifetime", pcsim.DefaultTokenLifetime, "how long access tokens last")
	f.StringVar(&flags.cfg.TenantID, "tenant-id", pcsim.DefaultTenantID, "the partner's tenant")
	f.StringVar(&flags.cfg.ClientID, "client-id", pcsim.DefaultClientID, "the application that gets tokens")
	f.StringVar(&flags.cfg.ClientSecret, "client-secret", pcsim.DefaultClientSecret, "that application's secret")
	f.StringVar(&flags.cfg.RefreshToken, "refresh-token", pcsim.DefaultRefreshToken, "a refresh token that works from the start")
	f.StringArrayVar(&flags.certificates, "client-certificate", nil, "PEM `FILE` with a certificate whose key does in place of the secret; may be given more than once")
	f.BoolVar(&flags.cfg.Settings.WithoutMFA, "without-mfa", false, "issue tokens that lack the proof of multi-factor authentication, and refuse them: 401, code 900421")
	f.IntVar(&flags.cfg.Settings.MFAPassPercent, "mfa-pass-percent", 0, "let so many of a hundred calls pass that --without-mfa would refuse")
	f.DurationVar(&flags.cfg.Settings.ClockSkew, "clock-skew", 0, "how far Microsoft's clocks are ahead of this one; behind, if negative")
	return cmd
}

func simulate(ctx context.Context, flags simulatorFlags, out, logOut io.Writer) error {
	logger, _, err := app.NewLogger(config.Log{Level: config.LogInfo, Format: config.LogConsole}, logOut)
	if err != nil {
		return err
	}
	defer func() { _ = logger.Sync() }()
	flags.cfg.Logger = logger
	app.ArmHardEnd(ctx, config.Server{}, logger)
	for _, file := range flags.certificates {
		cert, err := readCertificate(file)
		if err != nil {
			return fmt.Errorf("--client-certificate %s: %w", file, err)
		}
		flags.cfg.ClientCertificates = append(flags.cfg.ClientCertificates, cert)
	}
	simulator, err := newSimulator(flags.cfg, flags.scripts)
	if err != nil {
		return err
	}
	on, err := openSimulator(ctx, flags.address, flags.controlAddress)
	if err != nil {
		return err
	}
	printed := logging.NewQueue(out)
	defer func() { _ = printed.Sync() }()
	fmt.Fprintf(printed, `Partner Center simulator
  partner_center.base_url and .authority:  http://%s
  control API:                             http://%s/v1/customers
  tenant_id:                               %s
  client_id:                               %s
`, on.api.Addr(), on.control.Addr(), flags.cfg.TenantID, flags.cfg.ClientID)
	for _, name := range simulator.Partners() {
		of, _ := simulator.Partner(name)
		fmt.Fprintf(printed, "  partner %s: tenant_id %s, client_id %s\n", name, of.TenantID(), of.ClientID())
	}
	return serveSimulator(ctx, simulator, on)
}

// readCertificate returns the first certificate in a PEM file, which may also
// hold a key.
func readCertificate(file string) (*x509.Certificate, error) {
	text, err := os.ReadFile(file) //nolint:gosec // the user names the file
	if err != nil {
		return nil, errors.Unwrap(err) // without the path
	}
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return nil, errors.New("holds no certificate in PEM")
		}
		if block.Type == "CERTIFICATE" {
			return x509.ParseCertificate(block.Bytes)
		}
		text = rest
	}
}

// newSimulator returns a simulator that plays the seeds and the script files.
func newSimulator(cfg pcsim.Config, scripts []string) (*pcsim.Server, error) {
	simulator, err := pcsim.New(cfg)
	if err != nil {
		return nil, err
	}
	var faults []error
	for _, script := range scripts {
		faults = append(faults, simulator.LoadFile(script))
	}
	return simulator, errors.Join(faults...)
}

// simulatorListeners are the listeners of a simulator.
type simulatorListeners struct{ api, control net.Listener }

func (l simulatorListeners) close() error { return errors.Join(l.api.Close(), l.control.Close()) }

// openSimulator opens the listeners of a simulator. If one fails, it closes the
// others.
func openSimulator(ctx context.Context, address, controlAddress string) (simulatorListeners, error) {
	api, err := app.Listen(ctx, "--address", address)
	if err != nil {
		return simulatorListeners{}, err
	}
	control, err := app.Listen(ctx, "--control-address", controlAddress)
	if err != nil {
		return simulatorListeners{}, errors.Join(err, api.Close())
	}
	return simulatorListeners{api, control}, nil
}

// serveSimulator serves until ctx ends.
func serveSimulator(ctx context.Context, simulator *pcsim.Server, on simulatorListeners) error {
	group, ctx := errgroup.WithContext(ctx)
	// Other sites may link to the sign-in page, as to Microsoft's own.
	isSignIn := func(path string) bool { return strings.HasSuffix(path, "/authorize") }
	for _, s := range []struct {
		listener net.Listener
		handler  http.Handler
		isPage   func(path string) bool
	}{{on.api, simulator.Handler(), isSignIn}, {on.control, simulator.ControlHandler(), nil}} {
		server := &http.Server{Handler: loopback.Guard(s.listener.Addr(), s.handler, s.isPage), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
		group.Go(func() error {
			if err := server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("simulator on %s: %w", s.listener.Addr(), err)
			}
			return nil
		})
		group.Go(func() error {
			<-ctx.Done()
			simulator.Close()
			return server.Close()
		})
	}
	return group.Wait()
}
