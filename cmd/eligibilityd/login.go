package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/app"
	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/pcclient"
)

// loginFlags are the flags of the login command.
type loginFlags struct {
	config    string
	partner   string
	noBrowser bool
	timeout   time.Duration
}

// opener opens a page for the user at the terminal.
type opener func(ctx context.Context, url string) error

func newLoginCommand() *cobra.Command {
	var flags loginFlags
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Consent once, in the browser, and store the refresh token",
		Long: `login obtains the refresh token that flow app_user needs: you sign in with the
partner's service user and multi-factor authentication, and consent. The answer
comes to a page on this machine; the refresh token is stored in the file of
partner_center.refresh_token_file, readable by its owner only: run this as
the user of the service. With refresh_token_vault it goes into that vault, as
whoever azidentity's default chain finds here: az login will do. A service that
runs takes it up by itself. If the configuration has several partners, each needs
a login of its own: --partner names it.

The app registration needs the redirect URI http://localhost (platform "Web"),
without a port.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if flags.timeout <= 0 {
				return usageError(cmd, errors.New("--timeout must be more than 0"))
			}
			return login(cmd.Context(), os.Environ(), flags, openBrowser, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.config, "config", "", "YAML configuration file; without one, the environment holds the whole configuration")
	f.StringVar(&flags.partner, "partner", "", "the partner to sign in for; without it, the default or only one of the configuration")
	f.BoolVar(&flags.noBrowser, "no-browser", false, "print the URL only; open it yourself")
	f.DurationVar(&flags.timeout, "timeout", 5*time.Minute, "how long to wait for you")
	return cmd
}

func login(ctx context.Context, environ []string, flags loginFlags, open opener, out io.Writer) error {
	cfg, err := config.Load(flags.config, environ, config.Login)
	if err != nil {
		return fmt.Errorf("configuration:\n%w", err)
	}
	partner, known := cfg.Partner(flags.partner)
	switch {
	case flags.partner == "" && !known:
		return errors.New("the configuration has several partners and no default: name one with --partner")
	case !known:
		return fmt.Errorf("--partner: the configuration has no partner %q", flags.partner)
	}
	if partner.Flow != config.FlowAppUser {
		return errors.New("partner_center.flow is app_only, which needs no login; no account can be decided with it")
	}
	// If the browser resolves localhost to ::1 first, nothing listens there and
	// it falls back to this address.
	listener, err := app.Listen(ctx, "redirect", "127.0.0.1:0")
	if err != nil {
		return err
	}
	consent, err := pcclient.NewConsent(app.ClientConfig(partner.PartnerCenter, zap.NewNop(), nil), redirectURL(listener))
	if err == nil {
		err = consent.CanStore(ctx)
	}
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	deadline, cancel := context.WithTimeout(ctx, flags.timeout)
	defer cancel()
	answers := newCallback(deadline, consent, listener, flags.config)
	invite(ctx, out, flags, open, consent.URL(), listener)
	result, err := answers.await(deadline)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("nobody has signed in within %v; nothing was stored", flags.timeout)
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted; nothing was stored")
	case err != nil:
		return fmt.Errorf("page for the answer: %w; nothing was stored", err)
	case result.err != nil:
		return fmt.Errorf("%w; nothing was stored.\n%s", result.err, result.todo)
	}
	where := partner.RefreshTokenFile
	if vault := partner.RefreshTokenVault; !vault.IsZero() {
		where = vault.URL + "/secrets/" + vault.Secret
	}
	fmt.Fprintf(out, "Consent for tenant %s is given; its refresh token is stored in\n  %s\n%s\n", result.tenantID, where, result.todo)
	return nil
}

// redirectURL is the URL to which the login host sends the answer. If
// http://localhost is registered, the login host ignores the port; only that
// name can be registered in the portal.
//
// Source: https://learn.microsoft.com/en-us/entra/identity-platform/reply-url#localhost-exceptions
// (read 2026-11-21)
func redirectURL(listener net.Listener) string {
	return "http://" + net.JoinHostPort("localhost", strconv.Itoa(port(listener))) + "/"
}

func port(listener net.Listener) int {
	if address, ok := listener.Addr().(*net.TCPAddr); ok {
		return address.Port
	}
	return 0
}

// invite asks the user to sign in.
func invite(ctx context.Context, out io.Writer, flags loginFlags, open opener, url string, listener net.Listener) {
	fmt.Fprintf(out, "Sign in as the partner's service user, with multi-factor authentication, and consent:\n\n  %s\n\n", url)
	switch {
	case flags.noBrowser:
		fmt.Fprintf(out, "The answer comes to port %[1]d of this machine. With the browser on another one, first run there:\n"+
			"  ssh -L %[1]d:127.0.0.1:%[1]d <this machine>\n", port(listener))
	default:
		if err := open(ctx, url); err != nil {
			fmt.Fprintf(out, "No browser could be opened (%v): open the page yourself.\n", err)
		}
	}
	fmt.Fprintf(out, "Waiting for %v; Ctrl-C gives up.\n", flags.timeout)
}

// openBrowser starts a browser and does not wait for it: some browsers run in
// the foreground and outlive the command.
func openBrowser(ctx context.Context, url string) error {
	command := []string{"xdg-open"}
	switch runtime.GOOS {
	case "darwin":
		command = []string{"open"}
	case "windows":
		command = []string{"rundll32", "url.dll,FileProtocolHandler"}
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), command[0], append(command[1:], url)...) //nolint:gosec // our own URL, and no shell
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}

// loginResult is the outcome of one sign-in.
type loginResult struct {
	tenantID string
	err      error
	todo     string // for the user
}

// await waits for the answer and shuts the page's server down, which has a
// moment to finish its responses.
func (c *callback) await(ctx context.Context) (result loginResult, err error) {
	select {
	case result = <-c.results:
	case err = <-c.served:
	case <-ctx.Done():
		err = ctx.Err()
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if c.server.Shutdown(closing) != nil {
		_ = c.server.Close()
	}
	return result, err
}
