package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show the configuration",
		Args:  usageArgs(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newConfigPrintCommand())
	return cmd
}

func newConfigPrintCommand() *cobra.Command {
	var path string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "print",
		Short: "Print the effective value of every key and its source",
		Long: `config print prints the effective value of every key, and whether it is the default or
which line of the file or which variable gave it. Secrets are masked: a secret that is
set reads [redacted], and so does the part of a URL that may hold one. The digest is
that of eligibility_config_info: it is the same on all replicas whose values are, but
for secrets.

Run it where the service runs: the files of secrets must be readable.

Exit code: 1 if the configuration is wrong, 2 if the command line is, else 0.`,
		Example: `  eligibilityd config print --config /etc/eligibilityd/config.yaml
  eligibilityd config print --json`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return printConfig(path, os.Environ(), asJSON, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "YAML configuration file of the service; without one, its environment")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object instead of a table")
	return cmd
}

// byDefault is the source of a value that nothing gave.
const byDefault = "default"

func printConfig(path string, environ []string, asJSON bool, out io.Writer) error {
	cfg, settings, err := config.LoadSettings(path, environ, config.Doctor)
	if err != nil {
		return fmt.Errorf("configuration:\n%w", err)
	}
	for i := range settings {
		if settings[i].Source == "" {
			settings[i].Source = byDefault
		}
	}
	if asJSON {
		return printConfigJSON(cfg.Digest(), settings, out)
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, s := range settings {
		fmt.Fprintf(table, "%s\t%s\t%s\n", s.Key, s.Text(), s.Source)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "\ndigest %s\n", cfg.Digest())
	return err
}

func printConfigJSON(digest string, settings []config.Setting, out io.Writer) error {
	type setting struct {
		Key    string `json:"key"`
		Value  any    `json:"value"`
		Source string `json:"source"`
	}
	all := make([]setting, len(settings))
	for i, s := range settings {
		all[i] = setting(s)
	}
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(struct {
		Digest   string    `json:"digest"`
		Settings []setting `json:"settings"`
	}{digest, all})
}
