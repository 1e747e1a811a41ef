package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// verdict is what a check came to.
type verdict string

const (
	verdictOK      verdict = "ok"
	verdictWarning verdict = "warning"
	verdictFailure verdict = "failure"
	verdictSkipped verdict = "skipped"
)

// finding is one line of the doctor's report. It never holds a secret.
type finding struct {
	Check  string  `json:"check"`
	Status verdict `json:"status"`
	Detail string  `json:"detail"`
	Remedy string  `json:"remedy,omitempty"`
}

func ok(check, format string, args ...any) finding {
	return finding{Check: check, Status: verdictOK, Detail: fmt.Sprintf(format, args...)}
}

func skipped(check, why string) finding {
	return finding{Check: check, Status: verdictSkipped, Detail: why}
}

func warning(check, remedy, format string, args ...any) finding {
	return finding{Check: check, Status: verdictWarning, Detail: fmt.Sprintf(format, args...), Remedy: remedy}
}

func failure(check, remedy, format string, args ...any) finding {
	return finding{Check: check, Status: verdictFailure, Detail: fmt.Sprintf(format, args...), Remedy: remedy}
}

// doctorFlags are the doctor command's.
type doctorFlags struct {
	config   string
	customer string
	json     bool
}

func newDoctorCommand() *cobra.Command {
	var flags doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check the configuration and everything that the service needs",
		Long: `doctor checks the configuration, both hosts, the clock, the token, multi-factor
authentication, Redis and the listeners, one line each, and says what to do about
what is wrong. With --customer it also asks Partner Center both questions about
that customer. It changes nothing and prints no secret. Run it as the user of the
service: what it says of files holds for whoever runs it.

Exit code: 1 if anything failed, else 0. Warnings and what was skipped are no
failures.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if flags.customer != "" {
				id, err := eligibility.ParseCustomerID(flags.customer)
				if err != nil {
					return usageError(cmd, fmt.Errorf("--customer: %w", err))
				}
				flags.customer = id.String()
			}
			return doctor(cmd.Context(), os.Environ(), flags, nil, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.config, "config", "", "YAML configuration file; without one, the environment says all")
	f.StringVar(&flags.customer, "customer", "", "a customer of the partner to ask both questions about")
	f.BoolVar(&flags.json, "json", false, "print one JSON array of all checks")
	return cmd
}

// doctor examines and prints. roots are the authorities that vouch for the
// hosts; nil means the system's.
func doctor(ctx context.Context, environ []string, flags doctorFlags, roots *x509.CertPool, out io.Writer) error {
	findings := examine(ctx, environ, flags, roots)
	if err := report(findings, flags.json, out); err != nil {
		return err
	}
	for _, f := range findings {
		if f.Status == verdictFailure {
			return &exitError{code: exitFailure}
		}
	}
	return nil
}

// examine makes all checks, side by side where they do not need each other.
// Each group ends within its limit.
func examine(ctx context.Context, environ []string, flags doctorFlags, roots *x509.CertPool) []finding {
	cfg, findings := checkConfiguration(environ, flags.config)
	if cfg == nil {
		return append(findings, skipped("others", "they need a configuration that can be read"))
	}
	patient := patient{cfg: cfg, flags: flags, roots: roots}
	groups := []struct {
		limit time.Duration
		check func(context.Context) []finding
	}{
		{15 * time.Second, patient.checkHosts},
		{40 * time.Second, patient.checkPartnerCenter},
		{15 * time.Second, patient.checkRedis},
		{5 * time.Second, patient.checkListeners},
	}
	found := make([][]finding, len(groups))
	var checking errgroup.Group
	for i, group := range groups {
		checking.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, group.limit)
			defer cancel()
			found[i] = group.check(ctx)
			return nil
		})
	}
	_ = checking.Wait() // a check that fails is a finding
	for _, group := range found {
		findings = append(findings, group...)
	}
	return findings
}

// patient is what the doctor examines.
type patient struct {
	cfg   *config.Config
	flags doctorFlags
	roots *x509.CertPool
}

// checkConfiguration returns the configuration, unless it cannot be read, and
// one finding for each mistake and each key that is missing. What the refresh
// token's file holds is another check's.
func checkConfiguration(environ []string, path string) (*config.Config, []finding) {
	const check = "configuration"
	cfg, err := config.Load(path, environ, config.Doctor)
	if err == nil {
		_, err = config.Load(path, environ, config.Login)
	}
	if err == nil {
		return cfg, []finding{ok(check, "%s", cmp.Or(path, "from the environment"))}
	}
	var findings []finding
	for line := range strings.SplitSeq(err.Error(), "\n") {
		remedy := "correct it"
		if detail, hint, missing := strings.Cut(line, "; `eligibilityd login"); missing {
			line, remedy = detail, "set it; `eligibilityd login"+hint
		} else if detail, _, missing := strings.Cut(line, "; once it is set"); missing {
			line, remedy = detail, "set it"
		}
		findings = append(findings, failure(check, remedy, "%s", line))
	}
	return cfg, findings
}

// report prints findings, one line each.
func report(findings []finding, asJSON bool, out io.Writer) error {
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return encoder.Encode(findings)
	}
	for _, f := range findings {
		line := fmt.Sprintf("%-8s %-20s %s", f.Status, f.Check, f.Detail)
		if f.Remedy != "" {
			line += "; remedy: " + f.Remedy
		}
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
	return nil
}

// placeholder is a configuration file's name in a command to try.
func placeholder(path string) string { return cmp.Or(path, "FILE") }
