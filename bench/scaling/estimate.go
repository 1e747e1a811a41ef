package main

import (
	"math"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// localMaxAge is how long the local tier trusts itself: the default of
// cache.Config.LocalMaxAge.
const localMaxAge = 30 * time.Second

// renewalPart is the part of its fresh age behind which evidence that is asked
// for is renewed: eligibility.Service renews in the last fifth.
const renewalPart = 0.8

// rank stands for a run of customers who are asked about nearly as often.
type rank struct {
	count float64
	rate  float64 // checks a second about each of them
}

// population returns how often each customer is asked about, by a Zipf law: the
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

// demand is what traffic asks of Partner Center, without any limit.
type demand struct {
	calls  float64 // a second
	waited float64 // the part of the checks for which the account is fetched while the caller waits
}

// demandOf adds up over all customers. One who is asked about at the rate r,
// whose evidence is fresh for T, is asked about for the first time behind 0.8·T,
// where it is renewed, or behind T, and then the caller waits. Replicas that
// share nothing each see their part of the checks, and fetch for themselves.
// Those that do share renew only where their local tier still trusts itself: who
// finds evidence in Redis takes it as it is.
func demandOf(ranks []rank, replicas float64, shared bool, ages eligibility.Ages) demand {
	fleets := replicas
	if shared {
		fleets = 1
	}
	var d demand
	checks := 0.0
	for _, r := range ranks {
		checks += r.count * r.rate
		rate, trusted := r.rate/fleets, 1.0
		if shared {
			each := r.rate / replicas * localMaxAge.Seconds()
			trusted = each / (1 + each)
		}
		fetches := func(outcomes []outcome) (all, waitedFor float64) {
			for i := range outcomes {
				fresh := outcomes[i].age(&ages).Fresh.Seconds()
				notRenewed := math.Exp(-(1 - renewalPart) * fresh * rate * trusted)
				between := renewalPart*fresh + (1-notRenewed)/(rate*trusted) + notRenewed/rate
				each := r.count * fleets * float64(outcomes[i].percent) / 100 / between
				all += each
				waitedFor += each * notRenewed
			}
			return all, waitedFor
		}
		account, waited := fetches(accounts())
		qualified, _ := fetches(qualifications())
		d.calls += account + qualified
		d.waited += waited
	}
	d.waited /= checks
	return d
}

// asked is how many customers are asked about at least once in a while.
func asked(ranks []rank, while time.Duration) float64 {
	sum := 0.0
	for _, r := range ranks {
		sum -= r.count * math.Expm1(-r.rate*while.Seconds())
	}
	return sum
}

// redisReads is how many look-ups a second the replicas make in Redis, at least:
// one for a customer whenever a replica's local tier no longer trusts itself.
func redisReads(ranks []rank, replicas float64) float64 {
	sum := 0.0
	for _, r := range ranks {
		rate := r.rate / replicas
		sum += replicas * r.count * rate / (1 + rate*localMaxAge.Seconds())
	}
	return sum
}

// warmCustomers is how many customers a budget keeps fresh all the time.
func warmCustomers(callsPerMinute float64, ages eligibility.Ages) float64 {
	callsPerCustomer := 0.0
	for _, outcomes := range [][]outcome{accounts(), qualifications()} {
		for i := range outcomes {
			fresh := outcomes[i].age(&ages).Fresh.Minutes()
			callsPerCustomer += float64(outcomes[i].percent) / 100 / (renewalPart * fresh)
		}
	}
	return callsPerMinute / callsPerCustomer
}

// meanDemand is the demand over a whole day of that curve.
func (d day) meanDemand() demand {
	var mean demand
	weights := 0.0
	for hour := range 24 {
		weight := curve(time.Duration(hour) * time.Hour)
		ranks := population(float64(d.customers), d.exponent, d.checksPerSecond*weight)
		of := demandOf(ranks, float64(d.replicas), d.shared, d.ages)
		mean.calls += of.calls / 24
		mean.waited += of.waited * weight
		weights += weight
	}
	mean.waited /= weights
	return mean
}
