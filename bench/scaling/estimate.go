package main

import (
	"math"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// localMaxAge is how long a local tier serves an entry without revalidation: the
// default of cache.Config.LocalMaxAge.
const localMaxAge = 30 * time.Second

// evidence.Service renews evidence early if a check that needs it comes in the last
// half of its fresh age: each replica that was asked at a moment of its own, which
// lies between these parts of the fresh age. The first of them counts.
const (
	usedPart                = 0.5
	earlyPart, earlyPartEnd = 0.8, 0.95
)

// educationPart is the part of the checks that need the qualifications.
const educationPart = 0.2

// rank is a run of customers with nearly equal rates of checks.
type rank struct {
	count float64
	rate  float64 // checks a second about each of them
}

// population returns the rate of checks for each customer, by a Zipf law: the
// first thousand one by one, the others in runs that differ by 1 %.
func population(n, exponent, checksPerSecond float64) []rank {
	const exact, step = 1000, 1.01
	var ranks []rank
	sum := 0.0
	for first := 1.0; first <= n; {
		last := first
		if first > exact {
			last = min(math.Floor(first*step), n)
		}
		r := rank{count: last - first + 1, rate: math.Pow((first+last)/2, -exponent)}
		sum += r.count * r.rate
		ranks = append(ranks, r)
		first = last + 1
	}
	for i := range ranks {
		ranks[i].rate *= checksPerSecond / sum
	}
	return ranks
}

// demand is the load of traffic on Partner Center if nothing limits it.
type demand struct {
	calls  float64 // a second
	waited float64 // the part of the checks for which the account is fetched while the caller waits
}

// demandOf sums over all customers. If a customer is asked about at the rate r and
// the evidence is fresh for T, a check in the second half of T makes the evidence
// be renewed before T ends; if there is none, the first check after T waits.
// Replicas that share no Redis each receive their part of the checks, and fetch for
// themselves.
func demandOf(ranks []rank, replicas float64, redis bool, ages eligibility.Ages) demand {
	fleets, sharing := replicas, 1.0
	if redis {
		fleets, sharing = 1, replicas
	}
	var d demand
	checks := 0.0
	for _, r := range ranks {
		checks += r.count * r.rate
		rate := r.rate / fleets
		fetches := func(outcomes []outcome, needed float64) (all, waitedFor float64) {
			for _, o := range outcomes {
				fresh := o.age(&ages).Fresh.Seconds()
				notRefreshed := math.Exp(-(1 - usedPart) * fresh * rate * needed)
				between := fresh*ageAtRefresh(fresh*rate*needed, sharing) + notRefreshed/rate
				each := r.count * fleets * o.percent / 100 / between
				all += each
				waitedFor += each * notRefreshed
			}
			return all, waitedFor
		}
		account, waited := fetches(accounts(), 1)
		qualified, _ := fetches(qualifications(), educationPart)
		d.calls += account + qualified
		d.waited += waited
	}
	d.waited /= checks
	return d
}

// ageAtRefresh returns the mean age at which evidence is refreshed early, as a part of
// its fresh age, which counts if it is not. uses is the mean number of the checks
// within the fresh age that need it, at all of the replicas that share the refresh.
func ageAtRefresh(uses, replicas float64) float64 {
	const steps = 40
	age := earlyPart
	for i := range steps {
		at := earlyPart + (1-earlyPart)*(float64(i)+0.5)/steps
		due := min((at-earlyPart)/(earlyPartEnd-earlyPart), 1)
		used := -math.Expm1(-uses / replicas * (at - usedPart)) // at one replica
		age += (1 - earlyPart) / steps * math.Pow(1-due*used, replicas)
	}
	return age
}

// asked returns how many customers have at least one check in that time.
func asked(ranks []rank, while time.Duration) float64 {
	sum := 0.0
	for _, r := range ranks {
		sum -= r.count * math.Expm1(-r.rate*while.Seconds())
	}
	return sum
}

// redisReads returns the minimum number of lookups a second in Redis: one for a
// customer when a replica's local tier is no longer trusted.
func redisReads(ranks []rank, replicas float64, trust time.Duration) float64 {
	sum := 0.0
	for _, r := range ranks {
		rate := r.rate / replicas
		sum += replicas * r.count * rate / (1 + rate*trust.Seconds())
	}
	return sum
}

// warmCustomers returns how many customers a budget keeps fresh all the time.
func warmCustomers(callsPerMinute float64, ages eligibility.Ages) float64 {
	callsPerCustomer := 0.0
	for _, outcomes := range [][]outcome{accounts(), qualifications()} {
		for _, o := range outcomes {
			callsPerCustomer += o.percent / 100 / (earlyPart * o.age(&ages).Fresh.Minutes())
		}
	}
	return callsPerMinute / callsPerCustomer
}
