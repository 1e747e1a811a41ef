package main

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"sort"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// customers draws a customer's rank by a Zipf law: the customer of rank n is
// asked about in proportion to 1/n^exponent. It holds the cumulative shares.
// The standard library's own knows exponents above 1 only.
type customers []float64

func newCustomers(n int, exponent float64) customers {
	cumulative := make(customers, n)
	sum := 0.0
	for i := range cumulative {
		sum += math.Pow(float64(i+1), -exponent)
		cumulative[i] = sum
	}
	for i := range cumulative {
		cumulative[i] /= sum
	}
	return cumulative
}

func (c customers) draw(random *rand.Rand) int {
	return min(sort.SearchFloat64s(c, random.Float64()), len(c)-1)
}

// curve is the traffic at that time of the day over its mean: a fifth at four
// in the morning, nine times as much at four in the afternoon.
func curve(sinceMidnight time.Duration) float64 {
	const quietest, swing = 4 * time.Hour, 0.8
	return 1 - swing*math.Cos(2*math.Pi*(sinceMidnight-quietest).Hours()/24)
}

// idOf gives the customer of that rank an ID, spread as those of Microsoft are.
func idOf(rank int) eligibility.CustomerID {
	var id eligibility.CustomerID
	binary.BigEndian.PutUint64(id[:8], mix(uint64(rank)))  //nolint:gosec // never negative
	binary.BigEndian.PutUint64(id[8:], mix(^uint64(rank))) //nolint:gosec // never negative
	return id
}

// mix spreads x over all bits, after splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
