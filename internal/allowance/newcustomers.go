package allowance

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// Window is the time in which no more new customers are granted than a minute
	// allows: a second more, because calls do not take equal times on their way.
	Window = 61 * time.Second
	// freeRetries is how often a customer may be fetched again without a charge
	// within Window, because Partner Center was called and gave no evidence.
	freeRetries = 4
	// minRefused is the least time for which a refusal of Shared holds here, so
	// that refused requests do not query it one by one.
	minRefused = 50 * time.Millisecond
)

// Shared counts new customers for all replicas.
type Shared interface {
	// TakeNewCustomer takes one of the new customers that caller may ask about
	// within Window. If there is none, it returns how long until there is. It
	// fails within a short time if the count is out of reach.
	TakeNewCustomer(ctx context.Context, caller string, perMinute int) (granted bool, wait time.Duration, err error)
}

// Customer names a customer of a partner.
type Customer struct {
	Partner string
	ID      [16]byte
}

// NewCustomers is how many new customers one caller may ask about: so many within
// any Window, all at once if need be. Shared can refuse more and never grants
// more. It is safe for concurrent use.
type NewCustomers struct {
	caller    string
	perMinute int
	shared    Shared // nil without
	now       func() time.Time
	origin    time.Time
	metrics   *metrics

	mu      sync.Mutex
	last    time.Duration        // the last reading of the clock, since origin; guarded by mu
	refused time.Duration        // until then Shared refuses; guarded by mu
	charges []*charge            // oldest first, at most perMinute; guarded by mu
	latest  map[Customer]*charge // the last of each customer; guarded by mu
}

// charge is a customer that was taken.
type charge struct {
	customer Customer
	at       time.Duration // guarded by the mu of its NewCustomers
	failures int           // fetches that brought no evidence; guarded by the mu of its NewCustomers

	decided    chan struct{} // closed when the next two are known
	granted    bool
	retryAfter time.Duration
}

// Take takes one customer about whom nothing is known, before Partner Center is
// called. If none is left, it returns when there is one. A customer that was taken
// within Window costs nothing again, unless calls to Partner Center keep failing
// for it.
func (n *NewCustomers) Take(ctx context.Context, customer Customer) (granted bool, retryAfter time.Duration) {
	n.mu.Lock()
	now := n.time()
	if c := n.latest[customer]; c != nil && c.failures <= freeRetries {
		n.mu.Unlock()
		<-c.decided // as soon as Shared replies or does not
		return c.granted, c.retryAfter
	}
	switch {
	case n.perMinute == 0:
		retryAfter = Window
	case len(n.charges) >= n.perMinute:
		retryAfter = n.charges[0].at + Window - now
	case now < n.refused:
		retryAfter = n.refused - now
	}
	if retryAfter > 0 {
		n.mu.Unlock()
		n.metrics.refused.Inc()
		return false, retryAfter
	}
	c := &charge{customer: customer, at: now, decided: make(chan struct{})}
	n.charges = append(n.charges, c)
	if n.latest == nil {
		n.latest = make(map[Customer]*charge)
	}
	n.latest[customer] = c
	n.mu.Unlock()

	defer close(c.decided)
	c.granted, c.retryAfter = n.share(ctx)
	if !c.granted {
		n.refund(c)
	}
	return c.granted, c.retryAfter
}

// share takes one from Shared, if there is one and it replies.
func (n *NewCustomers) share(ctx context.Context) (granted bool, retryAfter time.Duration) {
	if n.shared == nil {
		n.metrics.granted.Inc()
		return true, 0
	}
	granted, wait, err := n.shared.TakeNewCustomer(ctx, n.caller, n.perMinute)
	switch {
	case err != nil:
		n.metrics.alone.Inc()
		return true, 0
	case granted:
		n.metrics.granted.Inc()
		return true, 0
	default:
		n.metrics.refused.Inc()
		return false, min(max(wait, minRefused), Window)
	}
}

// refund removes a charge that Shared has refused.
func (n *NewCustomers) refund(c *charge) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refused = n.time() + c.retryAfter
	if i := slices.Index(n.charges, c); i >= 0 {
		n.charges = slices.Delete(n.charges, i, i+1)
	}
	if n.latest[c.customer] == c {
		delete(n.latest, c.customer)
	}
}

// Failed records that Partner Center was called for a customer and gave no evidence.
func (n *NewCustomers) Failed(customer Customer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.latest[customer]; c != nil {
		c.failures++
	}
}

// time reads the clock and drops the charges that have left the window. If the
// clock was set back, all times move with it. mu is held.
func (n *NewCustomers) time() time.Duration {
	now := n.now().Sub(n.origin)
	if back := n.last - now; back > 0 {
		n.refused -= back
		for _, c := range n.charges {
			c.at -= back
		}
	}
	n.last = now
	over := 0
	for over < len(n.charges) && n.charges[over].at+Window <= now {
		if c := n.charges[over]; n.latest[c.customer] == c {
			delete(n.latest, c.customer)
		}
		over++
	}
	n.charges = slices.Delete(n.charges, 0, over)
	if len(n.charges) == 0 {
		n.charges, n.latest = nil, nil
	}
	return now
}

// unused reports whether nothing is charged or refused.
func (n *NewCustomers) unused() bool {
	if n == nil {
		return true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.time()
	return len(n.charges) == 0 && n.refused <= now
}

// metrics counts new customers. A label for the caller would have no bound.
type metrics struct {
	newCustomers            *prometheus.CounterVec
	granted, alone, refused prometheus.Counter
}

func newMetrics() *metrics {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "eligibility_new_customers_total",
		Help: "Checks about customers of whom nothing was known, by outcome: granted, granted_alone (by the count of this process, because Redis was out of reach), refused (the caller has used up its new customers).",
	}, []string{"outcome"})
	return &metrics{
		newCustomers: vec, granted: vec.WithLabelValues("granted"), alone: vec.WithLabelValues("granted_alone"), refused: vec.WithLabelValues("refused"),
	}
}
