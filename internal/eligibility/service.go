package eligibility

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// fetchTimeout ends a whole fetch, replays included.
	fetchTimeout = 10 * time.Second
	// shareTimeout ends a write to the shared tier, off the callers' path.
	shareTimeout = 100 * time.Millisecond
	// maxRefreshes bounds the background refreshes under way at once.
	maxRefreshes = 16
	// leftEarlyRetry is when a caller who ran out of time may ask again: the
	// fetch goes on without it and fills the cache.
	leftEarlyRetry = time.Second
	// recheckDefault is when to look again at a block that may pass, where
	// neither the evidence's age nor the failure says so.
	recheckDefault = time.Minute
)

// Config tunes a [Service]. Its zero value is the documented default.
type Config struct {
	// Ages by outcome; the zero value means DefaultAges.
	Ages Ages
	// NotReadyAllowed lets the status Not Ready pass (policy.not_ready: allow).
	NotReadyAllowed bool
	// BlockUndecidable answers a block in place of the errors that say that
	// Partner Center could not be asked (policy.when_undecidable: block).
	BlockUndecidable bool
	// QualificationsGrace is how long an answer that does not need the
	// qualifications waits for them once the account has answered; 0 means 250 ms.
	QualificationsGrace time.Duration
	// BatchConcurrency bounds the customers of one batch that are asked about
	// at Partner Center at once; 0 means 16.
	BatchConcurrency int
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
}

// Service answers whether customers may buy. It is safe for concurrent use.
type Service struct {
	source Source
	store  Store

	ages             Ages
	notReadyAllowed  bool
	blockUndecidable bool
	grace            time.Duration
	batchConcurrency int
	clock            func() time.Time

	flights   *flights
	starting  sync.Mutex      // held to start in the background, and to close
	running   sync.WaitGroup  // flights and refreshes
	refreshes atomic.Int32    // background refreshes under way
	open      context.Context //nolint:containedctx // the service's own life, no request's: ends fetches when Run ends
	closeOpen context.CancelFunc
}

// New builds a Service on its ports. It fails only on a Config that cannot be kept.
func New(source Source, store Store, cfg Config) (*Service, error) {
	if cfg.Ages == (Ages{}) {
		cfg.Ages = DefaultAges()
	}
	if cfg.QualificationsGrace == 0 {
		cfg.QualificationsGrace = 250 * time.Millisecond
	}
	if cfg.BatchConcurrency == 0 {
		cfg.BatchConcurrency = 16
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	faults := []error{cfg.Ages.Validate()}
	if source == nil || store == nil {
		faults = append(faults, errors.New("source and store are required"))
	}
	if cfg.QualificationsGrace < 0 {
		faults = append(faults, errors.New("qualifications grace is negative"))
	}
	if cfg.BatchConcurrency < 0 {
		faults = append(faults, errors.New("batch concurrency is negative"))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	open, closeOpen := context.WithCancel(context.Background())
	return &Service{
		source:           source,
		store:            store,
		ages:             cfg.Ages,
		notReadyAllowed:  cfg.NotReadyAllowed,
		blockUndecidable: cfg.BlockUndecidable,
		grace:            cfg.QualificationsGrace,
		batchConcurrency: cfg.BatchConcurrency,
		clock:            cfg.Now,
		flights:          newFlights(),
		open:             open,
		closeOpen:        closeOpen,
	}, nil
}

// Run waits until ctx ends, then ends the fetches under way and waits for
// them. Call it once. Questions after that are answered from evidence only.
func (s *Service) Run(ctx context.Context) error {
	<-ctx.Done()
	s.starting.Lock()
	s.closeOpen()
	s.starting.Unlock()
	s.running.Wait()
	return nil
}

// background runs f in a goroutine that Run waits for; once Run is ending, it
// does not, and returns false.
func (s *Service) background(f func()) bool {
	s.starting.Lock()
	defer s.starting.Unlock()
	if s.open.Err() != nil {
		return false
	}
	s.running.Go(f)
	return true
}

// now is the wall clock without a monotonic reading, so that ages mean the same
// here, in Redis and after the machine slept.
func (s *Service) now() time.Time { return s.clock().Round(0) }

// Check answers one question within ctx. Errors are *Error: of kind
// KindNotFound, KindNotServed, KindUnavailable, KindThrottled, KindCredentials,
// KindInvalidResponse, KindCanceled or KindInternal. A fetch that ctx does not
// wait for goes on and fills the cache.
func (s *Service) Check(ctx context.Context, req Request) (Answer, error) {
	now := s.now()
	c := s.peek(&req, now)
	if !c.complete() {
		keys := c.missing(make([]Key, 0, 2))
		for i, found := range s.store.Load(ctx, keys) {
			s.consider(c.view(keys[i].Facet), found, &req, now)
		}
		s.ask(ctx, &c, &req, now)
	}
	return s.decide(&c, &req, now)
}

// check is what is known while one question is being answered.
type check struct {
	account        view
	qualifications view
}

// view is what one check knows about one facet.
type view struct {
	key    Key
	found  Found // newest usable evidence; its Evidence is nil where there is none
	life   lifetime
	fresh  bool    // found answers without asking Partner Center
	flight *flight // the fetch waited for, or nil
	call   Call
	err    error // why asking failed
}

func (c *check) complete() bool { return c.account.fresh && c.qualifications.fresh }

func (c *check) view(facet Facet) *view {
	if facet == FacetQualifications {
		return &c.qualifications
	}
	return &c.account
}

// missing appends the keys of the views that are not fresh.
func (c *check) missing(keys []Key) []Key {
	if !c.account.fresh {
		keys = append(keys, c.account.key)
	}
	if !c.qualifications.fresh {
		keys = append(keys, c.qualifications.key)
	}
	return keys
}

// peek starts a check with what this process holds.
func (s *Service) peek(req *Request, now time.Time) check {
	c := check{
		account:        view{key: Key{CustomerID: req.CustomerID, Facet: FacetAccount}},
		qualifications: view{key: Key{CustomerID: req.CustomerID, Facet: FacetQualifications}},
	}
	for _, v := range [...]*view{&c.account, &c.qualifications} {
		s.consider(v, s.store.Peek(v.key), req, now)
		if v.fresh {
			s.refreshAhead(v, now)
		}
	}
	return c
}

// consider takes found into the view if the request admits it and nothing
// newer is there. All that makes evidence too old to answer is decided here.
func (s *Service) consider(v *view, found Found, req *Request, now time.Time) {
	evidence := found.Evidence
	if evidence == nil ||
		evidence.FetchTime.After(now.Add(clockTolerance)) ||
		evidence.FetchTime.Before(req.MinEvidenceTime) {
		return
	}
	life := s.ages.lifetimeOf(v.key, evidence, s.notReadyAllowed)
	if !now.Before(life.usableUntil) {
		return
	}
	if v.found.Evidence != nil && evidence.FetchTime.Before(v.found.Evidence.FetchTime) {
		return
	}
	v.found, v.life = found, life
	v.fresh = !found.Untrusted && now.Before(life.freshUntil) &&
		!(req.MaxAgeSet && evidence.FetchTime.Before(now.Add(-req.MaxAge)))
}

// refreshAhead renews evidence in the background in the last fifth of its fresh
// age, once, so that the callers after its end need not wait.
func (s *Service) refreshAhead(v *view, now time.Time) {
	evidence := v.found.Evidence
	fresh := v.life.freshUntil.Sub(evidence.FetchTime)
	if now.Sub(evidence.FetchTime) < fresh-fresh/5 || atomic.LoadUint32(&evidence.refreshAhead) != 0 {
		return
	}
	if s.refreshes.Add(1) > maxRefreshes || !atomic.CompareAndSwapUint32(&evidence.refreshAhead, 0, 1) {
		s.refreshes.Add(-1)
		return
	}
	key, notBefore := v.key, evidence.FetchTime.Add(1)
	refreshing := s.background(func() {
		defer s.refreshes.Add(-1)
		<-s.fetch(context.Background(), key, notBefore).done
	})
	if !refreshing {
		s.refreshes.Add(-1)
	}
}

// ask fetches what is not fresh and waits for it: for the account, and for the
// qualifications where the decision needs them, as long as ctx allows; for
// qualifications that it does not need, no longer than the grace.
func (s *Service) ask(ctx context.Context, c *check, req *Request, now time.Time) {
	notBefore := req.MinEvidenceTime
	if req.MaxAgeSet && now.Add(-req.MaxAge).After(notBefore) {
		notBefore = now.Add(-req.MaxAge)
	}
	if !waitUntil(ctx, notBefore.Sub(now)) {
		c.leave(ctx)
		return
	}
	for _, v := range [...]*view{&c.account, &c.qualifications} {
		if !v.fresh {
			v.flight = s.fetch(ctx, v.key, notBefore)
		}
	}
	var grace <-chan time.Time
	for c.account.flight != nil || c.qualifications.flight != nil {
		if grace == nil && c.account.flight == nil && !s.needsQualifications(c, req) {
			grace = time.After(s.grace)
		}
		select {
		case <-c.account.flight.landed():
			s.settle(&c.account, req)
		case <-c.qualifications.flight.landed():
			s.settle(&c.qualifications, req)
		case <-grace:
			c.qualifications.flight = nil
			c.qualifications.err = errGrace
		case <-ctx.Done():
			c.leave(ctx)
		}
	}
}

// errGrace is why qualifications that were not needed are missing.
var errGrace = errors.New("qualifications not waited for")

// waitUntil waits for d, if it is positive, and reports whether ctx goes on.
func waitUntil(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// landed is the flight's done channel; nil, which blocks, where there is none.
func (f *flight) landed() <-chan struct{} {
	if f == nil {
		return nil
	}
	return f.done
}

// settle takes the result of the view's flight, which has landed.
func (s *Service) settle(v *view, req *Request) {
	f := v.flight
	v.flight, v.call, v.err = nil, f.call, f.err
	if f.err == nil {
		s.consider(v, Found{Evidence: f.evidence, Tier: TierPartnerCenter}, req, f.start)
		v.fresh = v.found.Evidence != nil
	}
}

// leave gives up on what has not landed when ctx ended.
func (c *check) leave(ctx context.Context) {
	failure := &Error{Kind: KindCanceled, Err: ctx.Err()}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		failure = &Error{Kind: KindUnavailable, RetryAfter: leftEarlyRetry, Err: ctx.Err()}
	}
	for _, v := range [...]*view{&c.account, &c.qualifications} {
		if !v.fresh && v.err == nil {
			v.flight, v.err = nil, failure
		}
	}
}
