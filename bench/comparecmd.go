package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/eligibilityd/eligibilityd/bench/load"
	"github.com/eligibilityd/eligibilityd/bench/rig"
)

var distributions = []load.Distribution{load.Uniform, load.Zipf} //nolint:gochecknoglobals // only read

// compareOptions are the compare command's flags.
type compareOptions struct {
	service      string
	scenarios    []string
	rounds       int
	duration     time.Duration
	warmup       time.Duration
	callers      int
	connections  int
	customers    int
	distribution string
	others       string
	json         string
	profiles     string
}

func newCompareCommand() *cobra.Command {
	var opts compareOptions
	cmd := &cobra.Command{
		Use:   "compare",
		Short: "Run service and floors in turn, and print ratios beside their budgets",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, name := range opts.scenarios {
				if !slices.Contains(scenarioNames(), name) {
					return fmt.Errorf("--scenarios: %q is none of %s", name, strings.Join(scenarioNames(), ", "))
				}
			}
			if !slices.Contains(distributions, load.Distribution(opts.distribution)) {
				return fmt.Errorf("--distribution: %q is neither uniform nor zipf", opts.distribution)
			}
			if opts.customers < batchSize {
				return fmt.Errorf("--customers: %d are fewer than a batch of %d", opts.customers, batchSize)
			}
			return compare(cmd.Context(), opts, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&opts.service, "service", "bin/eligibilityd", "the eligibilityd to measure")
	f.StringSliceVar(&opts.scenarios, "scenarios", scenarioNames(), "what to measure")
	f.IntVar(&opts.rounds, "rounds", 5, "how often each server has its turn")
	f.DurationVar(&opts.duration, "duration", 3*time.Second, "how long a turn is measured")
	f.DurationVar(&opts.warmup, "warmup", 300*time.Millisecond, "how long a turn is loaded before that")
	f.IntVar(&opts.callers, "callers", 64, "requests under way in the closed loop")
	f.IntVar(&opts.connections, "connections", 4, "gRPC connections that they share")
	f.IntVar(&opts.customers, "customers", 40_000, "customers that the tiers hold and requests ask about")
	f.StringVar(&opts.distribution, "distribution", string(load.Uniform), "how often each customer is asked about: uniform or zipf")
	f.StringVar(&opts.others, "others", "", "JSON file of further servers to take turns with")
	f.StringVar(&opts.json, "json", "", "file for everything that was measured")
	f.StringVar(&opts.profiles, "profiles", "", "directory for profiles of the service, taken after the rounds")
	return cmd
}

// compare measures and prints the report to out.
func compare(ctx context.Context, opts compareOptions, out, progress io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r := &report{Began: time.Now().UTC(), Conditions: conditionsOf(ctx, opts)}
	if slices.Contains(opts.scenarios, scenarioDev) {
		if err := r.dev(ctx, opts.service); err != nil {
			return err
		}
	}
	wanted := selected(opts.scenarios)
	logged := slices.ContainsFunc(wanted, func(c comparison) bool {
		return c.of == nameGRPCLogged || c.of == nameBatchLogged || c.of == nameRESTLogged
	})
	running, err := rig.New(ctx, rig.Config{Service: opts.service, Self: self, Customers: opts.customers, Logged: logged})
	if err != nil {
		return err
	}
	defer running.Close()
	targets, err := targetsOf(running, opts.customers, wanted)
	if err != nil {
		return err
	}
	if opts.others != "" {
		others, err := readTargets(opts.others)
		if err != nil {
			return err
		}
		for _, other := range others {
			wanted = append(wanted, comparison{of: other.Name, to: other.Floor, unit: unitRatio})
		}
		targets = append(targets, others...)
	}
	for _, t := range targets {
		r.Targets = append(r.Targets, &measured{target: t, Name: t.Name})
	}
	turns := &rounds{opts: opts, rig: running, out: progress}
	if err := turns.closed(ctx, r.Targets); err != nil {
		return err
	}
	if slices.Contains(opts.scenarios, scenarioOpen) {
		if err := turns.open(ctx, r.Targets); err != nil {
			return err
		}
	}
	if opts.profiles != "" {
		if err := turns.profiles(ctx, r.Targets, opts.profiles); err != nil {
			return err
		}
	}
	r.conclude(wanted)
	r.print(out)
	if opts.json == "" {
		return nil
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(opts.json, append(text, '\n'), 0o600)
}
