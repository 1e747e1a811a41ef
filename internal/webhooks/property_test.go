package webhooks_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/webhooks"
)

// Whatever a receiver answers and however often senders are replaced, each change is
// accepted at least once, and those of a customer in their order.
func TestAtLeastOnceInOrderForEachCustomer(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T, r *rig) { runAtRandom(t, r, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func runAtRandom(t *testing.T, r *rig, random *rand.Rand) {
	t.Helper()
	statuses := []int{200, 200, 200, 200, 202, 302, 400, 404, 408, 429, 500, 503, 0}
	bad := 1.0
	r.receiver.answer = func(received) (int, http.Header, error) { // under the receiver's lock, but for the random numbers
		r.feed.mu.Lock()
		defer r.feed.mu.Unlock()
		if random.Float64() > bad {
			return http.StatusOK, nil, nil
		}
		switch status := statuses[random.IntN(len(statuses))]; status {
		case 0:
			return 0, nil, errBroken
		case 429:
			return status, http.Header{"Retry-After": {fmt.Sprint(random.IntN(100))}}, nil
		default:
			return status, nil, nil
		}
	}
	r.receiver.delay = time.Duration(random.IntN(2000)) * time.Millisecond
	customers := 1 + random.IntN(40)
	order := map[string][]string{} // by customer
	for range 60 {
		r.feed.mu.Lock()
		n, restart, gap := random.IntN(20), random.IntN(6) == 0, time.Duration(random.IntN(60))*time.Second
		bad = random.Float64()
		r.feed.mu.Unlock()
		for range n {
			c := random.IntN(customers)
			order[customer(c).String()] = append(order[customer(c).String()], r.feed.add(c))
		}
		pass(gap)
		if restart {
			r.restart(t)
			synctest.Wait()
		}
	}
	r.feed.mu.Lock()
	bad = 0
	r.feed.mu.Unlock()
	pass(4 * time.Hour)

	accepted := map[string]bool{}
	firsts := map[string][]string{}
	for _, got := range r.receiver.all() {
		if got.status/100 == 2 && !accepted[got.id] {
			accepted[got.id] = true
			firsts[got.customer] = append(firsts[got.customer], got.id)
		}
	}
	for c, want := range order {
		if got := firsts[c]; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("customer %s: accepted %v, written %v", c, got, want)
		}
	}
	if r.receiver.overlaps != 0 {
		t.Errorf("%d requests of a customer overlapped", r.receiver.overlaps)
	}
	if parked, dead := r.store.Letters(name); len(parked)+len(dead) != 0 {
		t.Errorf("%d parked, %d dead", len(parked), len(dead))
	}
}

// The memory of a sender does not grow with what waits in the feed.
func TestWhatIsReadAheadIsBounded(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *rig) {
		r.receiver.set(always(http.StatusInternalServerError))
		for n := range 20_000 {
			r.feed.add(n)
		}
		pass(10 * time.Minute)
		if parked, _ := r.store.Letters(name); len(parked) > 100 {
			t.Errorf("%d changes are parked", len(parked))
		}
		if position := r.store.Current(name).Position; number("-"+position) > webhooks.MaxWindow {
			t.Errorf("position %s", position)
		}
	})
}

// If one customer has more changes than may be parked, the position waits.
func TestParkedChangesAreBounded(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *rig) {
		r.receiver.set(func(got received) (int, http.Header, error) {
			if got.customer == customer(1).String() {
				return http.StatusInternalServerError, nil, nil
			}
			return http.StatusOK, nil, nil
		})
		r.feed.add(1)
		pass(time.Second)
		for range webhooks.MaxParked + 5000 {
			r.feed.add(1)
		}
		pass(time.Minute)
		if parked, _ := r.store.Letters(name); len(parked) != webhooks.MaxParked {
			t.Errorf("%d changes are parked", len(parked))
		}
		r.receiver.set(nil)
		pass(2 * time.Hour)
		if n := len(r.receiver.accepted()); n != webhooks.MaxParked+5001 {
			t.Errorf("%d changes were sent in the end", n)
		}
	})
}
