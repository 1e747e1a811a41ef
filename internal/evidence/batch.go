package evidence

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// CheckBatch answers many questions within ctx: it calls answered once for each,
// with its place in reqs, in any order and never twice at a time. An answer is
// the callee's until it returns. The shared tier is queried once for all
// questions, and once more for those that would end with an error; Partner Center
// is called for no more than Config.BatchConcurrency customers at a time and once
// for each. Questions that are still open shortly before ctx ends are answered
// from usable evidence or with KindDeadlineExceeded, whose RetryAfter is when the
// batch would have come to them.
func (s *Service) CheckBatch(ctx context.Context, reqs []eligibility.Request, answered func(place int, answer *eligibility.Answer, err error)) {
	arrived := s.now()
	var open []openCheck
	memory := new(struct {
		answer eligibility.Answer // of one question after the other
		ahead  lookAhead
	})
	var err error
	customer := func(i int) eligibility.CustomerID { return reqs[i].CustomerID }
	for i := range reqs {
		var c check
		founds, now := memory.ahead.found(s, i, len(reqs), customer)
		s.start(ctx, &c, &reqs[i], founds, arrived, now)
		if c.completed() {
			memory.answer, err = s.decide(&c, now)
			answered(i, &memory.answer, err)
			continue
		}
		if open == nil { // if one is open, most of the rest are
			open = slices.Grow(*openChecks.Get().(*[]openCheck), len(reqs)-i) //nolint:forcetypeassert // the pool holds nothing else
		}
		open = append(open, openCheck{check: c, place: i})
	}
	if len(open) == 0 {
		return
	}
	s.load(ctx, open, (*check).missing, s.store.Load)
	for i := range open {
		s.denyNewer(&open[i].check)
	}
	pace := s.fetchAll(ctx, open)
	if ctx.Err() == nil {
		looking, cancel := context.WithTimeout(ctx, reloadTimeout)
		s.load(looking, open, s.lacking, s.store.LoadWithin)
		cancel()
	}
	memory.ahead = lookAhead{}
	customer = func(i int) eligibility.CustomerID { return open[i].req.CustomerID }
	for i := range open {
		founds, now := memory.ahead.found(s, i, len(open), customer)
		memory.answer, err = s.conclude(&open[i], founds, pace, now)
		answered(open[i].place, &memory.answer, err)
	}
	clear(open)
	ended := open[:0] // open itself would be allocated for each batch
	openChecks.Put(&ended)
}

// openChecks holds the memory of batches that have ended. No fetch refers to a check
// once inflight.start has returned.
var openChecks = sync.Pool{New: func() any { return new([]openCheck) }} //nolint:gochecknoglobals // of memory

// longestAhead is how long evidence that was looked up ahead may wait for its question,
// while answered waits: newer evidence may arrive, and this grows older.
const longestAhead = time.Millisecond

// lookAhead is what this process holds for the next questions of a batch. Its zero value
// has looked nothing up.
type lookAhead struct {
	looked     time.Time
	now        time.Time // then, by the clock of evidence
	first, end int       // of the questions
	slow       bool      // answered is: only the next question is looked up
	ids        [PeekAtOnce]eligibility.CustomerID
	founds     [PeekAtOnce][2]Found
}

// found returns what is held for question i of n, by facet, and when. It looks the next
// ones up with it if need be. Questions are in their order; customer returns that of one.
func (l *lookAhead) found(s *Service, i, n int, customer func(i int) eligibility.CustomerID) (founds *[2]Found, now time.Time) {
	late := i < l.end && time.Since(l.looked) > longestAhead
	if i == l.end || late {
		l.slow = l.slow || late
		l.looked, l.now, l.first, l.end = time.Now(), s.now(), i, min(i+PeekAtOnce, n)
		if l.slow {
			l.end = i + 1
		}
		for next := i; next < l.end; next++ {
			l.ids[next-i] = customer(next)
		}
		s.store.PeekAll(l.ids[:l.end-i], l.now, &l.founds)
	}
	return &l.founds[i-l.first], l.now
}

// openCheck is a check of a batch that this process's evidence did not complete.
type openCheck struct {
	check

	place  int    // in the batch
	failed error  // from a panic
	keys   [2]int // of load, by facet: where its key is in the query, from 1; 0 if it is not
}

// load queries the shared tier once for every key that the checks need.
func (s *Service) load(ctx context.Context, open []openCheck, wants func(*check, []eligibility.Key) []eligibility.Key,
	query func(context.Context, []eligibility.Key) []Found,
) {
	var keys []eligibility.Key
	var listed map[eligibility.CustomerID][2]int // as openCheck.keys
	wanted := make([]eligibility.Key, 0, 2)
	for i := range open {
		c := &open[i]
		c.keys = [2]int{}
		if wanted = wants(&c.check, wanted[:0]); len(wanted) == 0 {
			continue
		}
		if keys == nil {
			keys = make([]eligibility.Key, 0, 2*(len(open)-i))
			listed = make(map[eligibility.CustomerID][2]int, len(open)-i)
		}
		of := listed[c.req.CustomerID]
		added := false
		for _, key := range wanted {
			if of[key.Facet] == 0 {
				keys = append(keys, key)
				of[key.Facet], added = len(keys), true
			}
			c.keys[key.Facet] = of[key.Facet]
		}
		if added {
			listed[c.req.CustomerID] = of
		}
	}
	if len(keys) == 0 {
		return
	}
	founds, now := query(ctx, keys), s.now()
	for i := range open {
		c := &open[i]
		for facet, v := range c.views() {
			if c.keys[facet] == 0 {
				continue
			}
			s.adopt(&c.check, v, founds[c.keys[facet]-1], now)
			if v.Fresh {
				s.refreshEarly(ctx, &c.check, v, now)
			}
		}
	}
}

// pace is how fast a batch fetched.
type pace struct {
	took    time.Duration
	workers int
	done    atomic.Int64 // customers that were not left open

	ahead map[eligibility.CustomerID]int // customers left open → how many of them were before it
}

// retryAfter is when the batch would have come to the customer, had it gone on as
// fast: in seconds, at least one.
func (p *pace) retryAfter(id eligibility.CustomerID) time.Duration {
	place, listed := p.ahead[id]
	if !listed {
		place = len(p.ahead)
		p.ahead[id] = place
	}
	each := p.took / time.Duration(max(p.done.Load(), int64(p.workers)))
	return max((each*time.Duration(place) + time.Second - 1).Truncate(time.Second), leftEarlyRetry)
}

// fetchAll fetches what is not complete. It ends before ctx does, so that there is
// time to query the shared tier again and to answer.
func (s *Service) fetchAll(ctx context.Context, open []openCheck) *pace {
	p := &pace{ahead: make(map[eligibility.CustomerID]int)}
	var left []*openCheck
	for i := range open {
		if c := &open[i]; !c.completed() {
			left = append(left, c)
		}
	}
	if len(left) == 0 {
		return p
	}
	if deadline, limited := ctx.Deadline(); limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-reloadReserve(time.Until(deadline))))
		defer cancel()
	}
	groups := make(map[eligibility.CustomerID][]*openCheck) // customer → its open questions
	customers := make(chan eligibility.CustomerID, len(left))
	bound := &spares{most: s.batchConcurrency}
	for _, c := range left {
		c.spares = bound
		id := c.req.CustomerID
		if groups[id] == nil {
			customers <- id
		}
		groups[id] = append(groups[id], c)
	}
	close(customers)
	p.workers = min(len(customers), s.batchConcurrency)
	began := time.Now()
	var workers sync.WaitGroup
	for range p.workers {
		workers.Go(func() {
			for id := range customers {
				var before *check
				for _, c := range groups[id] {
					s.fetchNext(ctx, c, before)
					before = &c.check
				}
				if ctx.Err() == nil {
					p.done.Add(1)
				}
			}
		})
	}
	workers.Wait()
	p.took = time.Since(began)
	return p
}

// fetchNext fetches what the previous check about the same customer did not.
// A panic spoils one answer only.
func (s *Service) fetchNext(ctx context.Context, c *openCheck, before *check) {
	defer func() {
		if r := recover(); r != nil {
			c.failed = s.panicked(r)
		}
	}()
	if before != nil {
		s.adoptFrom(&c.check, before)
	}
	s.fetch(ctx, &c.check, LaneBatch)
}

// conclude decides at the end of the batch, with what this process holds by now: evidence
// may have arrived since the check began.
func (s *Service) conclude(c *openCheck, founds *[2]Found, p *pace, now time.Time) (answer eligibility.Answer, err error) {
	defer func() {
		if r := recover(); r != nil {
			answer, err = eligibility.Answer{}, s.panicked(r)
		}
	}()
	if c.failed != nil {
		return eligibility.Answer{}, c.failed
	}
	for i, v := range c.views() {
		s.adoptNewer(&c.check, v, founds[i], now)
		if v.Fresh {
			v.Err = nil
		}
		if open, ok := errors.AsType[*eligibility.Error](v.Err); ok && open.Kind == eligibility.KindDeadlineExceeded {
			v.Err = &eligibility.Error{Kind: open.Kind, RetryAfter: p.retryAfter(c.req.CustomerID), Call: open.Call, Err: open.Err}
		}
	}
	return s.decide(&c.check, now)
}

// adoptFrom adopts the results of another check, failures included, if they answer
// this one.
func (s *Service) adoptFrom(c, before *check) {
	for _, v := range c.views() {
		if v.completed() {
			continue
		}
		known := before.view(v.key.Facet)
		s.admit(c, v, known.found(), s.now())
		v.Fetched = known.Fetched && v.Evidence == known.Evidence
		if _, failed := errors.AsType[*eligibility.Error](known.Err); failed && !v.Fresh && !known.coolingDown {
			v.Err, v.Call = known.Err, known.Call
		}
	}
}

// spares bounds the fetches of one batch that no decision needs: they may queue for
// long behind the needed ones. A nil one bounds nothing.
type spares struct {
	most int

	mu       sync.Mutex
	inFlight []*fetch // guarded by mu
}

// fetch calls start unless too many fetches are in flight, which waives this one.
func (s *spares) fetch(start func() *fetch) (f *fetch, waived bool) {
	if s == nil {
		return start(), false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight = slices.DeleteFunc(s.inFlight, func(f *fetch) bool {
		select {
		case <-f.done:
			return true
		default:
			return false
		}
	})
	if len(s.inFlight) >= s.most {
		return nil, true
	}
	f = start()
	if f != nil {
		s.inFlight = append(s.inFlight, f)
	}
	return f, false
}

// panicked logs a panic and returns the error that stands for it.
func (s *Service) panicked(recovered any) error {
	s.logger.Error("panic during a check", zap.String("panic", fmt.Sprint(recovered)), zap.ByteString("stack", debug.Stack()))
	return &eligibility.Error{Kind: eligibility.KindInternal, Err: errors.New("panic, logged apart")}
}
