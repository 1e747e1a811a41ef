package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/eligibilityd/eligibilityd/internal/doctor"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// doctorFlags are the flags of the doctor command.
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
authentication, Redis, the listeners, their certificate and chain, the tokens
and issuers of callers, and the secrets and hosts of webhooks, to which it connects
without a request. It prints one line each, and how to repair each fault. With
--customer it also asks Partner Center both questions about that customer. If there are several partners, it examines each. It changes nothing and prints no secret. Run it as the user of the
service: what it reports about files depends on the user.

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
			return runDoctor(cmd.Context(), os.Environ(), flags, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.config, "config", "", "YAML configuration file; without one, the environment holds the whole configuration")
	f.StringVar(&flags.customer, "customer", "", "a customer of the partner to ask both questions about")
	f.BoolVar(&flags.json, "json", false, "print one JSON array of all checks")
	return cmd
}

// runDoctor runs and prints the diagnosis. If a check failed, it returns an
// exitError.
func runDoctor(ctx context.Context, environ []string, flags doctorFlags, out io.Writer) error {
	findings := doctor.Examine(ctx, environ, doctor.Options{ConfigFile: flags.config, Customer: flags.customer})
	if err := report(findings, flags.json, out); err != nil {
		return err
	}
	for _, f := range findings {
		if f.Status == doctor.VerdictFailure {
			return &exitError{code: exitFailure}
		}
	}
	return nil
}

// report prints findings, one line each.
func report(findings []doctor.Finding, asJSON bool, out io.Writer) error {
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return encoder.Encode(findings)
	}
	for _, f := range findings {
		detail := f.Detail
		if f.Partner != "" {
			detail = f.Partner + ": " + detail
		}
		line := fmt.Sprintf("%-8s %-20s %s", f.Status, f.Check, detail)
		if f.Remedy != "" {
			line += "; remedy: " + f.Remedy
		}
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
	return nil
}

// placeholder is the name of a configuration file in suggested commands.
func placeholder(path string) string { return cmp.Or(path, "FILE") }
