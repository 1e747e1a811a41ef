package cache

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const (
	// leaseLife is how soon another replica takes over from one that died.
	leaseLife = time.Second
	// renewInterval is how often a holder shows that it lives.
	renewInterval = 300 * time.Millisecond
	// claimInterval is how often a replica that waits asks again, should an
	// announcement have been missed.
	claimInterval = 200 * time.Millisecond
	// backgroundPatience is how long a caller who waits for one customer lets
	// another replica's batch or renewal hold the lease. It may be queueing
	// there behind others' budget; interactive checks never do.
	backgroundPatience = 250 * time.Millisecond
	// failureLife is how long a failure stays in Redis for replicas that wait.
	failureLife = 2 * time.Second
)

// token names the holder of a lease: a random one for every claim.
type token [16]byte

func newToken() (t token) {
	_, _ = rand.Read(t[:]) // never fails
	return t
}

// leases are the leases of this process and the callers who wait for others'.
type leases struct {
	mu      sync.Mutex
	held    map[eligibility.Key]token                          // guarded by mu
	waiting map[eligibility.Key]map[chan announcement]struct{} // guarded by mu
}

func newLeases() *leases {
	return &leases{
		held:    make(map[eligibility.Key]token),
		waiting: make(map[eligibility.Key]map[chan announcement]struct{}),
	}
}

func (l *leases) hold(key eligibility.Key, holder token) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[key] = holder
}

// letGo forgets the lease of key and returns its token, nil where none is held.
func (l *leases) letGo(key eligibility.Key) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	holder, held := l.held[key]
	if !held {
		return nil
	}
	delete(l.held, key)
	return holder[:]
}

// list returns what is held now.
func (l *leases) list() map[eligibility.Key]token {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.held)
}

// await returns a channel for the next announcement about key, and how to stop
// listening.
func (l *leases) await(key eligibility.Key) (<-chan announcement, func()) {
	heard := make(chan announcement, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting[key] == nil {
		l.waiting[key] = make(map[chan announcement]struct{})
	}
	l.waiting[key][heard] = struct{}{}
	return heard, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.waiting[key], heard)
		if len(l.waiting[key]) == 0 {
			delete(l.waiting, key)
		}
	}
}

// wake tells those who wait for key. Who has not yet looked at the last
// announcement asks Redis anyway.
func (l *leases) wake(a announcement) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for heard := range l.waiting[a.key] {
		select {
		case heard <- a:
		default:
		}
	}
}

// claiming is one claim until it is settled.
type claiming struct {
	store *Store
	eligibility.Claim
	token   token
	awaited []byte    // the token of the holder that is waited for
	began   time.Time // on the monotonic clock
	asked   time.Time // when Redis was last asked
}

// Lead implements eligibility.Store. Where Redis is away it answers at once
// that this replica fetches: each process then shares its fetches alone.
func (s *Store) Lead(ctx context.Context, claim eligibility.Claim) eligibility.Lead {
	if s.redis == nil {
		return eligibility.Lead{}
	}
	c := claiming{store: s, Claim: claim, token: newToken(), began: time.Now()}
	heard, stop := s.leases.await(claim.Key)
	defer stop()
	for {
		if lead, settled := c.try(ctx); settled {
			return lead
		}
		if lead, settled := c.wait(ctx, heard); settled {
			return lead
		}
	}
}

// wait ends with an announcement, with ctx, or when it is time to try again.
func (c *claiming) wait(ctx context.Context, heard <-chan announcement) (lead eligibility.Lead, settled bool) {
	c.store.metrics.waits.Inc()
	defer c.store.metrics.waits.Dec()
	select {
	case a := <-heard:
		return c.hear(a)
	case <-time.After(claimInterval):
		return eligibility.Lead{}, false
	case <-ctx.Done():
		return eligibility.Lead{Err: &eligibility.Error{
			Kind: eligibility.KindUnavailable, RetryAfter: leaseLife, Err: errWaited,
		}}, true
	}
}

var errWaited = errors.New("another replica's fetch, waited for, took too long")

// try asks Redis once.
func (c *claiming) try(ctx context.Context) (lead eligibility.Lead, settled bool) {
	c.asked = c.store.now()
	reply, ok := c.store.redis.claim(ctx, c)
	switch {
	case !ok:
		return eligibility.Lead{}, true
	case reply.evidence != nil:
		return c.take(reply.evidence)
	case reply.failure != nil:
		return eligibility.Lead{Err: reply.failure}, true
	case reply.holder != nil && c.NotBefore.After(c.asked):
		// The holder's fetch started too early: this replica fetches beside it.
		return eligibility.Lead{}, true
	case reply.holder != nil:
		c.awaited = reply.holder
		return eligibility.Lead{}, false
	}
	c.store.leases.hold(c.Key, c.token)
	if c.awaited != nil {
		c.store.metrics.takeOvers.Inc()
	}
	return eligibility.Lead{}, true
}

// hear takes an announcement as the end of the wait, if it is.
func (c *claiming) hear(a announcement) (lead eligibility.Lead, settled bool) {
	switch {
	case a.evidence != nil && !a.evidence.FetchTime.Before(c.NotBefore):
		return c.take(a.evidence)
	case a.failure != nil && bytes.Equal(a.holder[:], c.awaited):
		return eligibility.Lead{Err: a.failure}, true
	case a.evidence != nil:
		// It was too early for this claim; who fetches next is no successor.
		c.awaited = nil
	}
	return eligibility.Lead{}, false
}

// take keeps what another replica has fetched. Where yet newer evidence was
// announced meanwhile, the claim goes on.
func (c *claiming) take(evidence *eligibility.Evidence) (lead eligibility.Lead, settled bool) {
	newest := c.store.local.keep(c.Key, evidence, c.asked, c.store.now())
	return eligibility.Lead{Evidence: newest}, newest != nil
}

// Yield implements eligibility.Store.
func (s *Store) Yield(ctx context.Context, key eligibility.Key, failure error) {
	if s.redis == nil {
		return
	}
	if holder := s.leases.letGo(key); holder != nil {
		s.redis.yield(ctx, key, holder, encodeFailure(failure))
	}
}

// claimReply is what Redis says to a claim: evidence, the failure or the token
// of the holder, or nothing, and then the lease is the claimant's.
type claimReply struct {
	evidence *eligibility.Evidence
	failure  error
	holder   []byte
}

// claim asks for the lease; ok is false where Redis does not decide.
func (r *sharedTier) claim(caller context.Context, c *claiming) (reply claimReply, ok bool) {
	now := r.now()
	if r.rest.lasts(now) {
		return claimReply{}, false
	}
	lane, steal := "b", 0
	if c.Priority.Lane() == eligibility.LaneCheckout {
		lane = "u"
		if time.Since(c.began) >= backgroundPatience {
			steal = 1
		}
	}
	oldest := make([]byte, 8)
	if !c.NotBefore.IsZero() {
		oldest = appendTime(nil, c.NotBefore)
	}
	ctx, cancel := context.WithTimeout(caller, r.readTimeout)
	defer cancel()
	answer, err := r.scripts.claim.Run(ctx, r.client, []string{r.keys.of(c.Key), r.keys.lease(c.Key)},
		c.token[:], []byte{valueVersion}, oldest, appendTime(nil, now.Add(clockTolerance)),
		leaseLife.Milliseconds(), lane, c.awaited, steal).StringSlice()
	r.settle(caller, "claim", err)
	if err != nil {
		return claimReply{}, false
	}
	switch {
	case len(answer) == 1 && answer[0] == "won":
		return claimReply{}, true
	case len(answer) == 2 && answer[0] == "value":
		if reply.evidence, err = decode(c.Key, []byte(answer[1])); err != nil {
			r.unlink(caller, []eligibility.Key{c.Key})
		}
		return reply, err == nil
	case len(answer) == 2 && len(answer[1]) >= 2+len(token{}):
		return readLease([]byte(answer[1]))
	default:
		return claimReply{}, false
	}
}

// readLease reads a lease that is busy or has failed.
func readLease(lease []byte) (reply claimReply, ok bool) {
	holder, rest := lease[2:2+len(token{})], lease[2+len(token{}):]
	if lease[0] == 'h' {
		return claimReply{holder: holder}, true
	}
	failure, err := decodeFailure(rest)
	return claimReply{failure: failure}, err == nil
}

// renew prolongs the leases that are held and forgets those that were lost.
func (s *Store) renew(ctx context.Context) {
	for key, holder := range s.leases.list() {
		still, err := s.redis.renew(ctx, key, holder)
		if err != nil {
			return
		}
		if !still {
			s.leases.lose(key, holder)
		}
	}
}

func (r *sharedTier) renew(caller context.Context, key eligibility.Key, holder token) (still bool, err error) {
	ctx, cancel := context.WithTimeout(caller, r.writeTimeout)
	defer cancel()
	still, err = r.scripts.renew.Run(ctx, r.client, []string{r.keys.lease(key)}, holder[:], leaseLife.Milliseconds()).Bool()
	r.settle(caller, "renew", err)
	return still, err
}

// lose forgets a lease that another replica has taken over.
func (l *leases) lose(key eligibility.Key, holder token) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[key] == holder {
		delete(l.held, key)
	}
}

// yield ends a lease and announces the failure, if there is one to tell.
func (r *sharedTier) yield(caller context.Context, key eligibility.Key, holder, failure []byte) {
	ctx, cancel := context.WithTimeout(caller, r.writeTimeout)
	defer cancel()
	still, err := r.scripts.yield.Run(ctx, r.client, []string{r.keys.lease(key)},
		holder, failure, failureLife.Milliseconds()).Bool()
	if err == nil && still && failure != nil {
		err = r.announce(ctx, encodeAnnouncement(kindFailure, key, holder, failure))
	}
	r.settle(caller, "yield", err)
}
