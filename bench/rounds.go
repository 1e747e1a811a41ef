package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/eligibilityd/eligibilityd/bench/load"
	"github.com/eligibilityd/eligibilityd/bench/rig"
)

// measured is a target with the results of its rounds.
type measured struct {
	target `json:"-"`

	Name    string        `json:"name"`
	Rounds  []load.Result `json:"rounds"`
	OpenAt  float64       `json:"open_rate,omitempty"`
	Open    []load.Result `json:"open,omitempty"`
	PerCall float64       `json:"redis_reads_per_request,omitempty"`
	// Local is the share of the look-ups that the local tier answered in the last
	// round, if the target is the service.
	Local float64 `json:"local_share,omitempty"`
}

// rounds runs every target once a round, in turn. Every other round runs
// backwards, so that no target benefits if the machine's load changes.
type rounds struct {
	opts compareOptions
	rig  *rig.Rig
	out  io.Writer // receives the progress
}

// closed measures the Rounds of each target, all at full load.
func (r *rounds) closed(ctx context.Context, targets []*measured) error {
	return r.each(targets, "closed", func(m *measured, caller load.Caller) error {
		cfg := r.config(m)
		cfg.Callers = cmp.Or(m.Callers, r.opts.callers)
		result, err := r.run(ctx, m, caller, cfg)
		m.Rounds = append(m.Rounds, result)
		return err
	})
}

// open measures the open loop of each target, at half of its maximum in the
// closed loop.
func (r *rounds) open(ctx context.Context, targets []*measured) error {
	return r.each(targets, "open", func(m *measured, caller load.Caller) error {
		cfg := r.config(m)
		m.OpenAt = median(collect(m.Rounds, load.Result.PerSecond)) / 2
		cfg.Rate = m.OpenAt
		result, err := r.run(ctx, m, caller, cfg)
		m.Open = append(m.Open, result)
		return err
	})
}

func (r *rounds) config(m *measured) load.Config {
	return load.Config{
		Requests: m.requests(), Distribution: load.Distribution(r.opts.distribution),
		Warmup: r.opts.warmup, Duration: r.opts.duration, Processes: m.Processes,
	}
}

func (r *rounds) each(targets []*measured, name string, one func(*measured, load.Caller) error) error {
	callers := make(map[*measured]load.Caller, len(targets)) // kept alive, as the callers of a service do
	defer func() {
		for _, caller := range callers {
			_ = caller.Close() // measured already
		}
	}()
	for _, m := range targets {
		caller, err := m.dial(r.opts.connections)
		if err != nil {
			return err
		}
		callers[m] = caller
	}
	for round := range r.opts.rounds {
		order := slices.Clone(targets)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, m := range order {
			fmt.Fprintf(r.out, "%s loop, round %d of %d: %s\n", name, round+1, r.opts.rounds, m.target.Name)
			if err := one(m, callers[m]); err != nil {
				return fmt.Errorf("%s: %w", m.target.Name, err)
			}
		}
	}
	return nil
}

// attempts is how often a turn is begun that does not measure what it should.
const attempts = 3

// run measures one target once. A turn in which requests failed, records were dropped or
// another tier answered, as happens if the machine stalls, is repeated.
func (r *rounds) run(ctx context.Context, m *measured, caller load.Caller, cfg load.Config) (result load.Result, err error) {
	for range attempts {
		if result, err = r.attempt(ctx, m, caller, cfg); err == nil || ctx.Err() != nil {
			break
		}
		fmt.Fprintf(r.out, "%s: not counted: %v\n", m.target.Name, err)
	}
	return result, err
}

// attempt measures one target once. If it is the service, attempt checks that the
// intended tier answered.
func (r *rounds) attempt(ctx context.Context, m *measured, caller load.Caller, cfg load.Config) (load.Result, error) {
	if m.service == nil {
		return checked(load.Run(ctx, caller, cfg))
	}
	warm, measuring := cfg, cfg
	warm.Duration, warm.Warmup, measuring.Warmup = cfg.Warmup, 0, 0
	if _, err := checked(load.Run(ctx, caller, warm)); err != nil {
		return load.Result{}, err
	}
	before, err := r.rig.Counts(ctx, *m.service)
	if err != nil {
		return load.Result{}, err
	}
	result, err := checked(load.Run(ctx, caller, measuring))
	if err != nil {
		return result, err
	}
	after, err := r.rig.Counts(ctx, *m.service)
	if err != nil {
		return result, err
	}
	counted := after.Minus(before)
	if counted.Dropped > 0 {
		return result, fmt.Errorf("%v of %d records were dropped", counted.Dropped, result.Requests)
	}
	m.Local = counted.LocalHits / counted.LocalLookups
	fits := r.opts.customers <= heldByDefault
	if m.local && fits && m.Local < 1-strayed || !m.local && m.Local > strayed {
		return result, fmt.Errorf("the local tier answered %.1f %% of the look-ups", 100*m.Local)
	}
	if !m.local || !fits {
		m.PerCall = counted.RedisReads / float64(result.Requests)
	}
	return result, nil
}

// strayed is the share of lookups that may be answered by another tier than the
// intended one: when the local tier has no message from Redis for a moment, it
// revalidates.
const strayed = .05

// heldByDefault is the number of customers that the local tier holds with its
// default settings, in each version of the service. With more of them, Redis
// answers the rest.
const heldByDefault = 50_000

// tolerated is the share of requests that may fail before a run is discarded.
const tolerated = .001

// checked returns an error if too many requests of a run failed.
func checked(result load.Result, err error) (load.Result, error) {
	all := result.Requests + result.Failures
	if err == nil && (all == 0 || float64(result.Failures) > tolerated*float64(all)) {
		err = fmt.Errorf("%d of %d requests failed, the first with: %s", result.Failures, all, result.Cause)
	}
	return result, err
}

// profiles loads each target of the service once more and keeps its profiles.
func (r *rounds) profiles(ctx context.Context, targets []*measured, dir string) error {
	for _, m := range targets {
		if m.service == nil {
			continue
		}
		caller, err := m.dial(r.opts.connections)
		if err != nil {
			return err
		}
		fmt.Fprintf(r.out, "profile: %s\n", m.target.Name)
		cfg := r.config(m)
		cfg.Callers = cmp.Or(m.Callers, r.opts.callers)
		cfg.Duration = r.opts.profileDuration + 2*time.Second // the profile must begin and end during the load
		profiled := make(chan error, 1)
		go func() {
			profiled <- rig.Profile(ctx, *m.service, max(1, int(r.opts.profileDuration.Seconds())), dir, fileName(m.target.Name))
		}()
		_, err = load.Run(ctx, caller, cfg)
		if err := errors.Join(err, <-profiled, caller.Close()); err != nil {
			return err
		}
	}
	return nil
}
