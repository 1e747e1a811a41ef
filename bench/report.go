package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/eligibilityd/eligibilityd/bench/load"
	"github.com/eligibilityd/eligibilityd/bench/rig"
)

// report holds all results of compare.
type report struct {
	Began       time.Time    `json:"began"`
	Conditions  conditions   `json:"conditions"`
	LoadAverage string       `json:"load_average_at_end"`
	Targets     []*measured  `json:"targets"`
	Conclusions []conclusion `json:"conclusions"`
	Resident    []conclusion `json:"resident"`
	Dev         []conclusion `json:"dev,omitempty"`
}

// conditions are the circumstances of the measurement.
type conditions struct {
	Service      string `json:"service"`
	Baseline     string `json:"baseline,omitempty"`
	MemoryLimit  string `json:"memory_limit"`
	Go           string `json:"go"`
	CPUs         int    `json:"cpus"`
	Callers      int    `json:"callers"`
	Connections  int    `json:"grpc_connections"`
	Rounds       int    `json:"rounds"`
	Duration     string `json:"duration"`
	Customers    int    `json:"customers"`
	Distribution string `json:"distribution"`
	LoadAverage  string `json:"load_average_at_start"`
}

// conclusion is a figure beside its budget: the median, minimum and maximum
// over the rounds. If there were no rounds, it has no figure.
type conclusion struct {
	Name   string  `json:"name"`
	Unit   string  `json:"unit,omitempty"`
	Rounds int     `json:"rounds"`
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	Budget float64 `json:"budget,omitempty"`
}

func conditionsOf(ctx context.Context, opts compareOptions) conditions {
	c := conditions{
		Service: version(ctx, opts.service), MemoryLimit: opts.memoryLimit, Go: runtime.Version(), CPUs: runtime.NumCPU(),
		Callers: opts.callers, Connections: opts.connections, Rounds: opts.rounds, Duration: opts.duration.String(),
		Customers: opts.customers, Distribution: opts.distribution, LoadAverage: loadAverage(),
	}
	if opts.baseline != "" {
		c.Baseline = version(ctx, opts.baseline)
	}
	return c
}

// version returns the first line that a service prints about itself.
func version(ctx context.Context, service string) string {
	text, err := exec.CommandContext(ctx, service, "version").Output()
	if err != nil {
		return err.Error()
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return line
}

// loadAverage returns the load of the last minute, or "" if the machine has
// none.
func loadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg")
	average, _, _ := strings.Cut(string(text), " ")
	return average
}

// devStarts is how often `eligibilityd dev` is started.
const devStarts = 5

// dev measures the start of the service, its memory when idle, and its size.
func (r *report) dev(ctx context.Context, service string) error {
	var answered, idle []float64
	for range devStarts {
		dev, err := rig.StartDev(ctx, service)
		if err != nil {
			return err
		}
		answered = append(answered, float64(dev.FirstAnswer.Microseconds())/1000)
		idle = append(idle, float64(dev.IdleBytes)/(1<<20))
	}
	binary, err := os.Stat(service)
	if err != nil {
		return err
	}
	r.Dev = []conclusion{
		spread("dev: start to first answer", "ms", answered, 150),
		spread("dev: resident set, idle", "MiB", idle, 40),
		spread("binary", "MB", []float64{float64(binary.Size()) / 1e6}, 40),
	}
	return nil
}

// conclude compares the targets, round by round.
func (r *report) conclude(wanted []comparison) {
	r.LoadAverage = loadAverage()
	for _, c := range wanted {
		of, to := r.rounds(c.of), r.rounds(c.to)
		if c.unit == unitItem { // CPU seconds for a million are microseconds for one
			values := collect(of, load.Result.CPUPerMillion)
			for i := range values {
				values[i] /= float64(c.items)
			}
			r.Conclusions = append(r.Conclusions, spread(c.of, string(c.unit), values, c.budget))
			continue
		}
		turns := min(len(of), len(to))
		if turns == 0 {
			continue
		}
		var values []float64
		for i := range turns {
			if to[i].CPU > 0 {
				values = append(values, of[i].CPUPerMillion()/to[i].CPUPerMillion())
			}
		}
		r.Conclusions = append(r.Conclusions, spread(c.of+" / "+c.to, string(c.unit), values, c.budget))
	}
}

// residentBudget is how many MB a service may hold under load.
const residentBudget = 300

// peaks adds the most memory that each service has held since it was started.
func (r *report) peaks(running *rig.Rig) error {
	for _, name := range slices.Sorted(maps.Keys(running.Servers)) {
		if name.Floor() {
			continue
		}
		peak, err := load.Peak(running.Servers[name].PID)
		if err != nil {
			return err
		}
		budget := float64(residentBudget)
		if name.IsBefore() {
			budget = 0
		}
		r.Resident = append(r.Resident, spread("peak of the resident set, service "+string(name), "MB", []float64{float64(peak) / 1e6}, budget))
	}
	return nil
}

// rounds returns the results of the target of that name.
func (r *report) rounds(name string) []load.Result {
	for _, m := range r.Targets {
		if m.Name == name {
			return m.Rounds
		}
	}
	return nil
}

func spread(name, unit string, values []float64, budget float64) conclusion {
	c := conclusion{Name: name, Unit: unit, Rounds: len(values), Budget: budget}
	if c.Rounds > 0 {
		c.Median, c.Min, c.Max = median(values), slices.Min(values), slices.Max(values)
	}
	return c
}

// median is the middle value, or the mean of both; values is not empty.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// collect returns one figure of each result.
func collect(results []load.Result, figure func(load.Result) float64) []float64 {
	values := make([]float64, len(results))
	for i, result := range results {
		values[i] = figure(result)
	}
	return values
}

func (r *report) print(w io.Writer) {
	c := r.Conditions
	fmt.Fprintf(w, "%s, built with its own Go; driver and floors %s; %d CPUs shared by driver and servers\n", c.Service, c.Go, c.CPUs)
	if c.Baseline != "" {
		fmt.Fprintf(w, "before: %s\n", c.Baseline)
	}
	fmt.Fprintf(w, "%d callers on %d gRPC connections, %d customers (%s), memory limit %s, %d rounds of %s; load average %s before, %s after\n\n",
		c.Callers, c.Connections, c.Customers, c.Distribution, c.MemoryLimit, c.Rounds, c.Duration, c.LoadAverage, r.LoadAverage)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "closed loop\tCPU-s per 1M\tmin\tmax\trequests/s\tp50 ms\tp99 ms\tRSS MiB\tlocal %\tRedis reads\t")
	for _, m := range r.Targets {
		cpu := collect(m.Rounds, load.Result.CPUPerMillion)
		fmt.Fprintf(table, "%s\t%.1f\t%.1f\t%.1f\t%.0f\t%s\t%s\t%.0f\t%s\t%s\t\n", m.Name, median(cpu), slices.Min(cpu), slices.Max(cpu),
			median(collect(m.Rounds, load.Result.PerSecond)),
			milliseconds(m.Rounds, p50), milliseconds(m.Rounds, p99),
			median(collect(m.Rounds, func(r load.Result) float64 { return float64(r.RSSBytes) / (1 << 20) })), share(m), perRequest(m.PerCall))
	}
	_ = table.Flush() // to the standard output
	fmt.Fprintln(w)
	table = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	if slices.ContainsFunc(r.Targets, func(m *measured) bool { return len(m.Open) > 0 }) {
		fmt.Fprintln(table, "open loop at half of that\trequests/s\tp50 ms\tp99 ms\tp99.9 ms\tmax ms\tCPU-s per 1M\t")
		for _, m := range r.Targets {
			fmt.Fprintf(table, "%s\t%.0f\t%s\t%s\t%s\t%s\t%.1f\t\n", m.Name, m.OpenAt,
				milliseconds(m.Open, p50), milliseconds(m.Open, p99), milliseconds(m.Open, p999), milliseconds(m.Open, slowest),
				median(collect(m.Open, load.Result.CPUPerMillion)))
		}
		_ = table.Flush()
		fmt.Fprintln(w)
	}
	table = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "against its budget\tmedian\tmin\tmax\tbudget\t\t")
	for _, c := range slices.Concat(r.Conclusions, r.Resident, r.Dev) {
		fmt.Fprintf(table, "%s\t%.2f\t%.2f\t%.2f\t%s\t\n", c.Name, c.Median, c.Min, c.Max, c.verdict())
	}
	_ = table.Flush()
}

func (c conclusion) verdict() string {
	switch {
	case c.Rounds == 0:
		return "–\ttoo short a --duration: no CPU time was counted"
	case c.Budget == 0:
		return "– " + c.Unit + "\t"
	case c.Median <= c.Budget:
		return fmt.Sprintf("%g %s\tok", c.Budget, c.Unit)
	default:
		return fmt.Sprintf("%g %s\tOVER", c.Budget, c.Unit)
	}
}

func p50(l load.Latency) time.Duration     { return l.P50 }
func p99(l load.Latency) time.Duration     { return l.P99 }
func p999(l load.Latency) time.Duration    { return l.P999 }
func slowest(l load.Latency) time.Duration { return l.Max }

// milliseconds is the median of a quantile over the rounds.
func milliseconds(results []load.Result, quantile func(load.Latency) time.Duration) string {
	return fmt.Sprintf("%.2f", median(collect(results, func(r load.Result) float64 { return quantile(r.Latency).Seconds() * 1000 })))
}

// share is how much the local tier answered, if m is the service.
func share(m *measured) string {
	if m.service == nil {
		return ""
	}
	return fmt.Sprintf("%.1f", 100*m.Local)
}

func perRequest(reads float64) string {
	if reads == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", reads)
}

func fileName(name string) string { return strings.NewReplacer(", ", "-", " ", "-").Replace(name) }
