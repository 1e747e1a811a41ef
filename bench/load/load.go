// Package load drives a server over gRPC or HTTP and measures it: the latency
// of its answers, and the CPU and memory of its process.
//
// The driver handles only encoded requests and answers, so that its own cost is
// small and the same for every server.
package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Caller sends encoded requests to one server. It is safe for concurrent use.
type Caller interface {
	// Call sends one request and waits for the end of its answer. If the answer
	// is not a success, it returns an error.
	Call(ctx context.Context, request []byte) error
	// Close closes the connections.
	Close() error
}

// Config is the load of a server.
type Config struct {
	// Requests are drawn from at random. At least one.
	Requests [][]byte
	// Distribution is how often each request is drawn; empty means [Uniform].
	Distribution Distribution
	// Callers is the number of concurrent requests. Each caller sends its next
	// request when it has the answer to its last: a closed loop.
	Callers int
	// Rate is the requests a second of an open loop, sent when they are due
	// even if earlier ones have no answer; if it is 0, the loop is closed.
	Rate float64
	// Warmup is a period of the same load that is not measured.
	Warmup time.Duration
	// Duration is the measured period.
	Duration time.Duration
	// Processes are the process ids of the server; if there are none, its CPU
	// and memory are not measured.
	Processes []int
}

// Result holds the measurements of a server.
type Result struct {
	Requests int           `json:"requests"`
	Failures int           `json:"failures"`
	Elapsed  time.Duration `json:"elapsed_ns"`
	// CPU is user and system time of the server's processes; RSS is their
	// memory at the end.
	CPU      time.Duration `json:"cpu_ns"`
	RSSBytes int64         `json:"rss_bytes"`
	// Latency is measured from when a request was due if the loop is open, and
	// from when it was sent if it is closed.
	Latency Latency `json:"latency"`
	// Cause is the first failure.
	Cause string `json:"cause,omitempty"`
}

// Latency holds exact quantiles over every measured request.
type Latency struct {
	P50  time.Duration `json:"p50_ns"`
	P99  time.Duration `json:"p99_ns"`
	P999 time.Duration `json:"p999_ns"`
	Max  time.Duration `json:"max_ns"`
}

// CPUPerMillion is the server's CPU seconds for one million requests; 0 if
// nothing was measured.
func (r Result) CPUPerMillion() float64 {
	if r.Requests == 0 {
		return 0
	}
	return r.CPU.Seconds() / float64(r.Requests) * 1e6
}

// PerSecond is the number of answered requests a second.
func (r Result) PerSecond() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Requests) / r.Elapsed.Seconds()
}

// Run loads a server. It fails if ctx ends early, or if the processes cannot
// be read; requests that fail are counted in the Result.
func Run(ctx context.Context, caller Caller, cfg Config) (Result, error) {
	if len(cfg.Requests) == 0 || cfg.Callers <= 0 && cfg.Rate <= 0 {
		return Result{}, errors.New("load: requests, and callers or a rate, are required")
	}
	loop := closedLoop
	if cfg.Rate > 0 {
		loop = openLoop
	}
	if cfg.Warmup > 0 {
		loop(ctx, caller, cfg, cfg.Warmup)
	}
	before, err := usageOf(cfg.Processes)
	if err != nil {
		return Result{}, err
	}
	start := time.Now()
	samples := loop(ctx, caller, cfg, cfg.Duration)
	elapsed := time.Since(start)
	after, err := usageOf(cfg.Processes)
	if err != nil {
		return Result{}, err
	}
	if err := ctx.Err(); err != nil {
		return Result{}, fmt.Errorf("load: %w", err)
	}
	result := samples.result()
	result.Elapsed, result.CPU, result.RSSBytes = elapsed, after.cpu-before.cpu, after.rssBytes
	return result, nil
}

// samples are the measurements of one loop.
type samples struct {
	took     []time.Duration
	failures int
	cause    error
}

func (s *samples) add(took time.Duration, err error) {
	if err != nil {
		s.failures++
		if s.cause == nil {
			s.cause = err
		}
		return
	}
	s.took = append(s.took, took)
}

func (s *samples) join(other samples) {
	s.took = append(s.took, other.took...)
	s.failures += other.failures
	if s.cause == nil {
		s.cause = other.cause
	}
}

func (s *samples) result() Result {
	slices.Sort(s.took)
	result := Result{
		Requests: len(s.took),
		Failures: s.failures,
		Latency:  Latency{P50: s.quantile(.5), P99: s.quantile(.99), P999: s.quantile(.999), Max: s.quantile(1)},
	}
	if s.cause != nil {
		result.Cause = s.cause.Error()
	}
	return result
}

// quantile requires took to be sorted. It returns the smallest value that a
// fraction q of them do not exceed.
func (s *samples) quantile(q float64) time.Duration {
	if len(s.took) == 0 {
		return 0
	}
	rank := int(float64(len(s.took))*q + 0.999999)
	return s.took[min(max(rank, 1), len(s.took))-1]
}

// closedLoop keeps cfg.Callers requests under way for d.
func closedLoop(ctx context.Context, caller Caller, cfg Config, d time.Duration) samples {
	end := time.Now().Add(d)
	each := make([]samples, cfg.Callers)
	var callers sync.WaitGroup
	for i := range each {
		callers.Go(func() {
			draw := drawFrom(cfg)
			for sent := time.Now(); sent.Before(end) && ctx.Err() == nil; {
				err := caller.Call(ctx, draw())
				now := time.Now()
				each[i].add(now.Sub(sent), err)
				sent = now
			}
		})
	}
	callers.Wait()
	var all samples
	for _, s := range each {
		all.join(s)
	}
	return all
}

// Distribution is how often each of the requests is drawn.
type Distribution string

// The distributions. Under Zipf, the request at place k (from 0) is drawn with a
// probability proportional to 1/(k+1)^1.1: few customers buy most.
const (
	Uniform Distribution = "uniform"
	Zipf    Distribution = "zipf"
)

// zipfExponent is the exponent of Zipf.
const zipfExponent = 1.1

// drawFrom returns a function that draws requests. The order differs each time: the
// caches of the server must not have seen the same requests just before.
func drawFrom(cfg Config) func() []byte {
	random := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())) //nolint:gosec // a load needs no secrecy
	requests := cfg.Requests
	if cfg.Distribution == Zipf {
		zipf := rand.NewZipf(random, zipfExponent, 1, uint64(len(requests)-1)) //nolint:gosec // there is one at least
		return func() []byte { return requests[zipf.Uint64()] }
	}
	return func() []byte { return requests[random.IntN(len(requests))] }
}
