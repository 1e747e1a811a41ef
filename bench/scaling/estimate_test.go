package main

import (
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// The estimate is what docs/scaling.md reckons with where a simulation would
// take too long. Both know nothing of each other but the population.
func TestTheEstimateAgreesWithTheSimulation(t *testing.T) { //nolint:paralleltest // simulate counts goroutines
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // as make scaling does
	const length = time.Hour / 2
	seconds := length.Seconds()
	for _, d := range []day{
		{name: "shared", customers: 800, exponent: 1, checksPerSecond: 5, replicas: 4, shared: true, ages: eligibility.DefaultAges()},
		{name: "apart", customers: 800, exponent: 1.2, checksPerSecond: 5, replicas: 3, ages: eligibility.DefaultAges()},
	} {
		minutes, err := simulate(d, length)
		if err != nil {
			t.Fatal(err)
		}
		var sum minute
		for _, m := range minutes {
			sum.add(m)
		}
		ranks := population(float64(d.customers), d.exponent, float64(sum.checks)/seconds)
		want := demandOf(ranks, float64(d.replicas), d.shared, d.ages)
		near(t, d.name+": calls a second", float64(sum.calls)/seconds, want.calls, 0.07)
		near(t, d.name+": part of the checks that waited", float64(sum.waited)/float64(sum.checks), want.waited, 0.07)
		if d.shared {
			near(t, d.name+": reads a second", float64(sum.reads)/seconds, redisReads(ranks, float64(d.replicas)), 0.10)
		}
		if sum.failed+sum.stale > 0 {
			t.Errorf("%s: %d checks failed and %d were stale without any limit", d.name, sum.failed, sum.stale)
		}
	}
}

func TestTheCurveOfADayHasMeanOne(t *testing.T) {
	t.Parallel()
	sum := 0.0
	for m := range 1440 {
		sum += curve(time.Duration(m)*time.Minute) / 1440
	}
	near(t, "mean", sum, 1, 1e-9)
	near(t, "at four in the afternoon over four in the morning", curve(16*time.Hour)/curve(4*time.Hour), 9, 1e-9)
}

func TestTheZipfLawIsOne(t *testing.T) {
	t.Parallel()
	shares := newCustomers(100_000, 1.2)
	near(t, "the first over the tenth", shares[0]/(shares[9]-shares[8]), math.Pow(10, 1.2), 1e-6)
	ranks := population(100_000, 1.2, 7)
	near(t, "the first of the runs", ranks[0].rate/7, shares[0], 0.01)
	sum, count := 0.0, 0.0
	for _, r := range ranks {
		sum, count = sum+r.count*r.rate, count+r.count
	}
	near(t, "checks a second", sum, 7, 1e-9)
	near(t, "customers", count, 100_000, 1e-9)
}

func near(t *testing.T, what string, got, want, within float64) {
	t.Helper()
	if math.Abs(got-want) > within*want {
		t.Errorf("%s: %.4g, want %.4g ± %.3g %%", what, got, want, within*100)
	}
	t.Logf("%s: %.4g, expected %.4g", what, got, want)
}
