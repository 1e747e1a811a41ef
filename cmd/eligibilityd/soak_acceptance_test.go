//go:build acceptance

package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
)

const (
	flapEvery = 20 * time.Second
	flapTime  = 5 * time.Second
)

// footprint is the memory and resources of the process between two flaps:
// services, simulator and callers together.
type footprint struct{ heap, goroutines float64 }

func takeFootprint() footprint {
	runtime.GC()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	return footprint{heap: float64(memory.HeapAlloc), goroutines: float64(runtime.NumGoroutine())}
}

// median is the median of a third of the footprints.
func median(of []footprint, one func(footprint) float64) float64 {
	values := make([]float64, 0, len(of))
	for _, f := range of {
		values = append(values, one(f))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// floor is the minimum of a third of the footprints. The minimum is used
// because fetches that wait for the budget vary, and connections stay open for
// a while.
func floor(of []footprint, one func(footprint) float64) float64 {
	least := one(of[0])
	for _, f := range of {
		least = min(least, one(f))
	}
	return least
}

// flap makes Redis unavailable for a quarter of the time, killed and stalled in
// turn, until ctx ends. It returns the footprints between.
func flap(ctx context.Context, redis *cachetest.Redis) []footprint {
	var prints []footprint
	for n := 0; pause(ctx, flapEvery-flapTime); n++ {
		prints = append(prints, takeFootprint())
		if n%2 == 0 {
			redis.Kill()
			pause(ctx, flapTime)
			redis.Start()
			continue
		}
		redis.Stall()
		pause(ctx, flapTime)
		redis.Resume()
	}
	return prints
}

// fillJournal fills the simulator's journal, so that its memory grows no more.
func (f *fleet) fillJournal() {
	f.t.Helper()
	for len(f.far.Requests()) < 10_000 {
		for range 1000 {
			req := httptest.NewRequestWithContext(f.t.Context(), http.MethodGet, "/v1/customers/"+allowedID+"/validationStatus", http.NoBody)
			f.far.Handler().ServeHTTP(httptest.NewRecorder(), req)
		}
	}
}

// If Redis is unavailable again and again, nothing grows and no check fails.
func TestAcceptanceRedisSoak(t *testing.T) {
	redis := cachetest.StartRedis(t)
	service := startFleet(t, 2, append(redisAt(redis.Address), "ELIGIBILITY_CACHE__AGES__ALLOWED__FRESH=1m")...)
	ids := service.customers('1', 300, "Allowed")
	service.fillJournal()
	service.warm(ids, 30*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), *soakTime)
	defer cancel()
	var mu sync.Mutex
	var checks, failed, stale int
	var worst time.Duration
	asking := make(chan time.Duration, 1)
	began := time.Now()
	go func() {
		asking <- service.ask(ctx, ids, *checksASecond/2, func(c checked) {
			mu.Lock()
			defer mu.Unlock()
			checks++
			if c.err != nil || c.resp.GetDecision() != eligibilityv1.Decision_DECISION_ALLOWED {
				failed++
				t.Logf("after %v, in %v: %v, %v", c.asked.Sub(began), c.took, c.resp, c.err)
			}
			if c.resp.GetStale() {
				stale++
			}
			worst = max(worst, c.took)
		})
	}()
	prints := flap(ctx, redis)
	late := <-asking
	calls, _ := service.called(began, time.Now())
	t.Logf("%v: %d checks, %d failed, %d stale, slowest %v; %.1f calls of Partner Center a second; machine late by %v",
		*soakTime, checks, failed, stale, worst, calls, late)
	if failed > 0 {
		t.Errorf("%d checks failed", failed)
	}
	third := len(prints) / 3
	if third == 0 {
		t.Fatal("too short to prove anything")
	}
	for _, kept := range []struct {
		what    string
		measure func(of []footprint, one func(footprint) float64) float64
		of      func(footprint) float64
		slack   float64 // beyond a tenth
	}{
		{"median of the heap, bytes", median, func(f footprint) float64 { return f.heap }, 1 << 20},
		// One for each flap and replica would be 60 in 15 minutes.
		{"least goroutines", floor, func(f footprint) float64 { return f.goroutines }, 30},
	} {
		first, last := kept.measure(prints[:third], kept.of), kept.measure(prints[len(prints)-third:], kept.of)
		line := ""
		for _, f := range prints {
			line += fmt.Sprint(" ", int64(kept.of(f)))
		}
		t.Logf("%s: in the first third %.0f, in the last %.0f; all:%s", kept.what, first, last, line)
		if last > first*1.1+kept.slack {
			t.Errorf("%s: grew from %.0f to %.0f", kept.what, first, last)
		}
	}
}
