package cache

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

const (
	// leaseLife is how soon another replica takes over from one that died. The
	// scripts take no lease of a longer life than failureLife for one (leaseOf).
	leaseLife = time.Second
	// renewInterval is how often a holder shows that it lives, and renewCheck how
	// often its leases are examined for that, or for a level that has risen.
	renewInterval = 300 * time.Millisecond
	renewCheck    = 100 * time.Millisecond
	// claimInterval is how often a replica that waits claims again, in case it
	// missed a message.
	claimInterval = 200 * time.Millisecond
	// backgroundPatience is how long a claim in the checkout level waits before it
	// preempts a lease in a lower level, whose holder may be queueing for the
	// budget. If the holder's level rises, it renews the lease sooner than that.
	backgroundPatience = 250 * time.Millisecond
	// failureLife is how long a failure stays in Redis for replicas that wait.
	failureLife = 2 * time.Second
)

// token identifies the holder of a lease: a random one for every claim.
type token [16]byte

func newToken() (t token) {
	_, _ = rand.Read(t[:]) // never fails
	return t
}

// heldLease is a lease of this process.
type heldLease struct {
	token    token
	priority *evidence.Priority
	level    byte      // as stored in Redis
	renewed  time.Time // on the monotonic clock
	// stored is what Redis held when the lease was acquired.
	stored storedValue
}

// leases are the leases of this process and the callers that wait for the leases of
// other replicas.
type leases struct {
	mu      sync.Mutex
	held    map[eligibility.Key]heldLease                 // guarded by mu
	waiting map[eligibility.Key]map[chan message]struct{} // guarded by mu
}

func newLeases() *leases {
	return &leases{
		held:    make(map[eligibility.Key]heldLease),
		waiting: make(map[eligibility.Key]map[chan message]struct{}),
	}
}

func (l *leases) hold(key eligibility.Key, lease heldLease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[key] = lease
}

// forget forgets the lease of key and returns it; false if none is held.
func (l *leases) forget(key eligibility.Key) (heldLease, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lease, held := l.held[key]
	delete(l.held, key)
	return lease, held
}

// due returns the leases to renew.
func (l *leases) due() map[eligibility.Key]heldLease {
	l.mu.Lock()
	defer l.mu.Unlock()
	due := make(map[eligibility.Key]heldLease)
	for key, lease := range l.held {
		if time.Since(lease.renewed) >= renewInterval || levelOf(lease.priority) != lease.level {
			due[key] = lease
		}
	}
	return due
}

// renewed records that the lease was renewed or, if it is not still held, forgets
// it.
func (l *leases) renewed(key eligibility.Key, lease heldLease, still bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[key].token != lease.token {
		return
	}
	if still {
		l.held[key] = lease
	} else {
		delete(l.held, key)
	}
}

// await returns a channel for the next message about key, and a function that
// ends the wait.
func (l *leases) await(key eligibility.Key) (<-chan message, func()) {
	received := make(chan message, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting[key] == nil {
		l.waiting[key] = make(map[chan message]struct{})
	}
	l.waiting[key][received] = struct{}{}
	return received, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.waiting[key], received)
		if len(l.waiting[key]) == 0 {
			delete(l.waiting, key)
		}
	}
}

// wake delivers m to every waiter on its key. A waiter whose buffer is full
// misses it and polls Redis instead.
func (l *leases) wake(m message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for received := range l.waiting[m.key] {
		select {
		case received <- m:
		default:
		}
	}
}

// claiming is one claim until it is decided.
type claiming struct {
	store *Store
	evidence.Claim
	token   token
	awaited []byte    // the token of the holder that is waited for
	ignored []byte    // a lease that no replica has sealed
	began   time.Time // on the monotonic clock
	asked   time.Time // when Redis was last asked
}

// Acquire implements evidence.Store. If Redis is unavailable, or accepts no
// writes, it returns at once that this replica fetches: each process then shares
// its fetches alone.
func (s *Store) Acquire(ctx context.Context, claim evidence.Claim) evidence.Acquisition {
	if s.redis == nil {
		return evidence.Acquisition{}
	}
	c := claiming{store: s, Claim: claim, token: newToken(), began: time.Now()}
	received, stop := s.leases.await(claim.Key)
	defer stop()
	for {
		acquired, decided := c.try(ctx)
		if decided && c.awaited != nil && acquired == (evidence.Acquisition{}) && ctx.Err() != nil {
			return waitedInVain() // the reply to the claim came too late, if at all
		}
		if decided {
			return acquired
		}
		if acquired, decided := c.wait(ctx, received); decided {
			return acquired
		}
	}
}

// wait returns if a message arrives, if ctx ends, or when the next claim is due.
func (c *claiming) wait(ctx context.Context, received <-chan message) (acquired evidence.Acquisition, decided bool) {
	c.store.metrics.waits.Inc()
	defer c.store.metrics.waits.Dec()
	select {
	case m := <-received:
		return c.receive(m)
	case <-time.After(claimInterval):
		return evidence.Acquisition{}, false
	case <-ctx.Done():
		return waitedInVain(), true
	}
}

// waitedInVain is the result if a caller's time ends while another replica fetches.
func waitedInVain() evidence.Acquisition {
	return evidence.Acquisition{Err: &eligibility.Error{Kind: eligibility.KindUnavailable, RetryAfter: leaseLife, Err: errWaited}}
}

var errWaited = errors.New("another replica's fetch, waited for, took too long")

// maxTries bounds how often one try asks Redis, each time with another obstacle
// out of the way.
const maxTries = 4

// try asks Redis until it decides or another replica has to be waited for.
func (c *claiming) try(ctx context.Context) (acquired evidence.Acquisition, decided bool) {
	for range maxTries {
		reply, ok := c.ask(ctx)
		switch {
		case !ok:
			return evidence.Acquisition{}, true
		case reply.evidence != nil:
			if current, ok := c.read(ctx, reply.evidence); ok {
				if acquired, decided = c.adopt(current); decided {
					return acquired, true
				}
			}
			// Redis does not confirm it, or newer evidence was announced, which
			// Redis does not have. If no replica is fetching, this one does.
			c.NotBefore = reply.evidence.FetchTime.Add(1)
		case reply.failure != nil:
			return evidence.Acquisition{Err: reply.failure}, true
		case reply.holder != nil && c.NotBefore.After(c.asked):
			// The holder's fetch started too early: this replica fetches beside it.
			return evidence.Acquisition{}, true
		case reply.holder != nil:
			c.awaited = reply.holder
			return evidence.Acquisition{}, false
		case reply.acquired:
			if c.awaited != nil {
				c.store.metrics.takeOvers.Inc()
			}
			return evidence.Acquisition{}, true
		}
	}
	return evidence.Acquisition{}, true
}

// read returns what Redis holds, and false if that is older than evidence or not
// confirmed. Nothing shows to which server the connection of a claim leads.
func (c *claiming) read(ctx context.Context, evidence *eligibility.Evidence) (current *eligibility.Evidence, ok bool) {
	found := c.store.redis.load(ctx, []eligibility.Key{c.Key}, nil)[0]
	if found.evidence == nil || found.evidence.FetchTime.Before(evidence.FetchTime) {
		return nil, false
	}
	return found.evidence, c.store.confirms(c.Key, found, c.store.now())
}

// ask asks Redis once, unless it refuses writes.
func (c *claiming) ask(ctx context.Context) (reply claimReply, ok bool) {
	c.asked = c.store.now()
	if c.store.health(c.Key).refuses() {
		return claimReply{}, false
	}
	lease := heldLease{token: c.token, priority: c.Priority, level: levelOf(c.Priority), renewed: time.Now()}
	if reply, ok = c.store.redis.claim(ctx, c, lease); reply.acquired {
		lease.stored = reply.stored
		c.store.leases.hold(c.Key, lease)
	}
	return reply, ok
}

// receive decides whether a message ends the wait.
func (c *claiming) receive(m message) (acquired evidence.Acquisition, decided bool) {
	switch {
	case m.evidence != nil && !m.evidence.FetchTime.Before(c.NotBefore):
		return c.adopt(m.evidence)
	case m.failure != nil && bytes.Equal(m.holder[:], c.awaited):
		return evidence.Acquisition{Err: m.failure}, true
	case m.evidence != nil:
		// It was too early for this claim; the next holder is no successor.
		c.awaited = nil
	}
	return evidence.Acquisition{}, false
}

// adopt keeps what another replica has fetched. If newer evidence has been
// announced, which is not here, the claim goes on.
func (c *claiming) adopt(fetched *eligibility.Evidence) (acquired evidence.Acquisition, decided bool) {
	asked := c.asked // which changes
	newest, ok := c.store.local.put(c.Key, entry{evidence: fetched, confirmed: &asked}, c.store.now())
	return evidence.Acquisition{Evidence: newest.evidence}, ok
}

// Release implements evidence.Store.
func (s *Store) Release(ctx context.Context, key eligibility.Key, failure error) {
	if s.redis == nil {
		return
	}
	if lease, held := s.leases.forget(key); held {
		s.redis.release(ctx, key, lease, encodeFailure(failure))
	}
}

// levelOf returns the level of a lease as it is stored.
func levelOf(priority *evidence.Priority) byte {
	if priority.Lane() == evidence.LaneCheckout {
		return 'c'
	}
	return 'b'
}

// encodeLease returns the stored form of a lease; of a failed one, if there is a
// failure.
func (s *sealer) encodeLease(key eligibility.Key, lease heldLease, failure []byte) []byte {
	b := append(make([]byte, 0, 48), 'h', lease.level)
	if failure != nil {
		b[0] = 'f'
	}
	b = append(append(b, lease.token[:]...), failure...)
	return s.seal(b, 0, sealLease, key)
}

// claimReply is the reply of Redis to a claim: evidence, the failure or the token
// of the holder, or that the lease is the claimant's. If it is none of these, the
// claim may be repeated.
type claimReply struct {
	evidence *eligibility.Evidence
	failure  error
	holder   []byte
	acquired bool
	stored   storedValue // if acquired: what Redis holds
}

// claim asks for the lease; ok is false if Redis does not decide.
func (r *sharedTier) claim(caller context.Context, c *claiming, lease heldLease) (reply claimReply, ok bool) {
	permit, _, admitted := r.claims.Allow()
	if !admitted {
		return claimReply{}, false
	}
	preempt := 0
	if lease.level == 'c' && time.Since(c.began) >= backgroundPatience {
		preempt = 1
	}
	ctx, cancel := context.WithTimeout(caller, r.writeTimeout)
	defer cancel()
	answer, err := r.scripts.claim.Run(ctx, r.claimer, []string{r.keys.of(c.Key), r.keys.lease(c.Key)},
		r.seals.encodeLease(c.Key, lease, nil), []byte{valueVersion}, timeBytes(c.NotBefore), timeBytes(r.now().Add(eligibility.ClockTolerance)),
		leaseLife.Milliseconds(), c.awaited, preempt, c.ignored).StringSlice()
	r.report(caller, "claim", permit, err)
	switch {
	case err != nil:
		return claimReply{}, false
	case len(answer) == 2 && answer[0] == "acquired":
		return claimReply{acquired: true, stored: r.decodeClaimed(caller, c, answer[1])}, true
	case len(answer) == 2 && answer[0] == "value":
		return claimReply{evidence: r.decodeClaimed(caller, c, answer[1]).evidence}, true
	case len(answer) == 2 && answer[0] == "lease":
		return r.decodeLease(c, []byte(answer[1])), true
	default:
		return claimReply{}, false
	}
}

// decodeClaimed reads the value in the reply to a claim, which may be none. It removes
// one that cannot be read.
func (r *sharedTier) decodeClaimed(caller context.Context, c *claiming, value string) storedValue {
	stored, err := r.decodeStored(c.Key, value)
	if err != nil {
		r.remove(caller, removal{key: c.Key, value: []byte(value)})
	}
	return stored
}

// decodeLease parses the lease of another claim. One without a valid seal is
// ignored by the next try.
func (r *sharedTier) decodeLease(c *claiming, lease []byte) claimReply {
	content, ok := r.seals.open(lease, sealLease, c.Key)
	if ok && len(content) >= 2+len(token{}) {
		holder, failure := content[2:2+len(token{})], content[2+len(token{}):]
		if content[0] == 'h' {
			return claimReply{holder: holder}
		}
		if err, unreadable := decodeFailure(failure); unreadable == nil {
			return claimReply{failure: err}
		}
	}
	r.metrics.unreadable.Inc()
	c.ignored = lease
	return claimReply{}
}

// renew prolongs the leases that are due and forgets those that were lost.
func (s *Store) renew(ctx context.Context) {
	for key, lease := range s.leases.due() {
		lease.level, lease.renewed = levelOf(lease.priority), time.Now()
		still, err := s.redis.renew(ctx, key, lease)
		if err != nil {
			return
		}
		s.leases.renewed(key, lease, still)
	}
}

func (r *sharedTier) renew(caller context.Context, key eligibility.Key, lease heldLease) (still bool, err error) {
	permit, _, ok := r.writes.Allow()
	if !ok {
		return false, errBreakerOpen
	}
	ctx, cancel := context.WithTimeout(caller, r.writeTimeout)
	defer cancel()
	still, err = r.scripts.renew.Run(ctx, r.writer, []string{r.keys.lease(key)},
		lease.token[:], r.seals.encodeLease(key, lease, nil), leaseLife.Milliseconds()).Bool()
	r.report(caller, "renew", permit, err)
	return still, err
}

// release ends a lease and publishes the failure, if there is one to share.
func (r *sharedTier) release(caller context.Context, key eligibility.Key, lease heldLease, failure []byte) {
	permit, _, ok := r.writes.Allow()
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(caller, r.writeTimeout)
	defer cancel()
	var failed, published []byte
	if failure != nil {
		failed, published = r.seals.encodeLease(key, lease, failure), r.seals.failureMessage(key, lease.token, failure)
		r.metrics.published.Inc()
	}
	err := r.scripts.release.Run(ctx, r.writer, []string{r.keys.lease(key)},
		lease.token[:], failed, failureLife.Milliseconds(), r.keys.channel(), published).Err()
	r.report(caller, "release", permit, err)
}

// timeBytes encodes a time as in a value's header. A time before 1970, which no
// fetch can have, is the zero time: the scripts compare unsigned numbers.
func timeBytes(t time.Time) []byte {
	if t.Before(time.Unix(0, 0)) {
		return make([]byte, 8)
	}
	if t.After(time.Unix(0, math.MaxInt64)) {
		t = time.Unix(0, math.MaxInt64)
	}
	return appendTime(nil, t)
}
