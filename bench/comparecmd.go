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

// containerLimit is the memory limit that the service sets itself in a container
// of 512 MiB.
const containerLimit = "460MiB"

// compareOptions are the compare command's flags.
type compareOptions struct {
	service         string
	baseline        string
	memoryLimit     string
	scenarios       []string
	rounds          int
	duration        time.Duration
	warmup          time.Duration
	callers         int
	connections     int
	customers       int
	distribution    string
	others          string
	json            string
	profiles        string
	profileDuration time.Duration
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
			for _, s := range needed(selected(opts.scenarios, false)) {
				if opts.customers < s.batch {
					return fmt.Errorf("--customers: %d are fewer than a batch of %d", opts.customers, s.batch)
				}
			}
			return compare(cmd.Context(), opts, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&opts.service, "service", "bin/eligibilityd", "the eligibilityd to measure")
	f.StringVar(&opts.baseline, "baseline", "", "another eligibilityd, to measure in turn with it")
	f.StringVar(&opts.memoryLimit, "memory-limit", containerLimit, "GOMEMLIMIT of the services; off is a host without a limit")
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
	f.DurationVar(&opts.profileDuration, "profile-duration", 10*time.Second, "how long each of them lasts")
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
	wanted := selected(opts.scenarios, opts.baseline != "")
	specs := needed(wanted)
	running, err := rig.New(ctx, rig.Config{
		Service: opts.service, Baseline: opts.baseline, Self: self, Servers: serversOf(specs),
		Customers: opts.customers, MemoryLimit: opts.memoryLimit,
	})
	if err != nil {
		return err
	}
	defer running.Close()
	targets, err := targetsOf(running, opts.customers, specs)
	if err != nil {
		return err
	}
	others, compared, err := othersOf(opts.others)
	if err != nil {
		return err
	}
	targets, wanted = append(targets, others...), append(wanted, compared...)
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
	if err := r.peaks(running); err != nil {
		return err
	}
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

// othersOf returns the targets of a file and how they are compared: with the floor of
// their transport, and the service with each of them.
func othersOf(file string) ([]target, []comparison, error) {
	if file == "" {
		return nil, nil, nil
	}
	others, err := readTargets(file)
	if err != nil {
		return nil, nil, err
	}
	var compared []comparison
	for _, other := range others {
		service := nameREST
		if other.Method != "" {
			service = nameGRPC
		}
		compared = append(compared, comparison{of: other.Name, to: other.Floor, unit: unitRatio},
			comparison{of: service, to: other.Name, unit: unitRatio, budget: other.Budget})
	}
	return others, compared, nil
}
