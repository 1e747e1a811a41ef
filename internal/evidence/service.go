// Package evidence answers questions about customers with evidence that it
// fetches, shares and reuses.
//
// [Service] looks for evidence in this process, then in the shared tier, and
// fetches from Partner Center what is missing or too old; concurrent callers share
// one fetch per customer and facet. Package eligibility decides on the result. The
// service knows Partner Center and the caches only through its ports, [Source] and
// [Store].
package evidence

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const (
	// fetchTimeout ends a whole fetch, replays included.
	fetchTimeout = 10 * time.Second
	// shareTimeout ends a write to the shared tier, off the callers' path.
	shareTimeout = 100 * time.Millisecond
	// revalidateTimeout ends the last lookup before an answer: the caller has only
	// the time left that is reserved for the answer.
	revalidateTimeout = 10 * time.Millisecond
	// startGrace is how long a check that does not need the qualifications waits
	// for their fetch to leave the queue.
	startGrace = 20 * time.Millisecond
	// reloadTimeout ends the last query of the shared tier before an error, for
	// which at most maxReloadReserve of the caller's time is kept.
	reloadTimeout    = 2 * time.Second
	maxReloadReserve = 250 * time.Millisecond
	// maxPrefetches bounds the fetches that wait to send their request when a
	// prefetch adds to them: if a large budget admitted all at once, their leases
	// would take longer than Redis's timeouts.
	maxPrefetches = 256
	// leftEarlyRetry is when a caller that ran out of time may retry: the fetch
	// goes on without it and fills the cache.
	leftEarlyRetry = time.Second
)

// Config tunes a [Service]. Its zero value is the documented default.
type Config struct {
	// Ages by outcome; the zero value means DefaultAges.
	Ages eligibility.Ages
	// Partner names the partner, to count the new customers of each apart.
	Partner string
	// Policy is passed to [eligibility.Decide].
	Policy eligibility.Policy
	// QualificationsGrace is how long an answer that does not need the
	// qualifications waits for them once the account has answered; 0 means 250 ms.
	QualificationsGrace time.Duration
	// BatchConcurrency bounds the customers of one batch that are fetched from
	// Partner Center at the same time; 0 means 16.
	BatchConcurrency int
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
	// Logger records panics; nil means none.
	Logger *zap.Logger
	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer
}

// Service answers whether customers may buy. It is safe for concurrent use.
type Service struct {
	source  Source
	store   Store
	partner string

	ages             eligibility.Ages
	policy           eligibility.Policy
	grace            time.Duration
	batchConcurrency int
	clock            func() time.Time
	logger           *zap.Logger
	metrics          *metrics

	inflight    *inflight
	prefetching sync.Mutex     // held from counting the fetches that wait to starting more
	starting    sync.Mutex     // held to start in the background, and to close
	running     sync.WaitGroup // fetches and refreshes
	refreshes   refreshes
	open        context.Context //nolint:containedctx // the service's own life, no request's: ends fetches when Run ends
	closeOpen   context.CancelFunc
}

// New builds a Service on its ports. It fails only on a Config that cannot be kept.
func New(source Source, store Store, cfg Config) (*Service, error) {
	if cfg.Ages == (eligibility.Ages{}) {
		cfg.Ages = eligibility.DefaultAges()
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
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
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
	s := &Service{
		source:           source,
		store:            store,
		partner:          cfg.Partner,
		ages:             cfg.Ages,
		policy:           cfg.Policy,
		grace:            cfg.QualificationsGrace,
		batchConcurrency: cfg.BatchConcurrency,
		clock:            cfg.Now,
		logger:           cfg.Logger,
		open:             open,
		closeOpen:        closeOpen,
	}
	s.refreshes.wake = make(chan struct{}, 1)
	var err error
	s.inflight = newInflight(s.run, func() { s.metrics.joined.Inc() })
	if s.metrics, err = newMetrics(cfg.Registerer, s.inflight.oldest); err != nil {
		closeOpen()
		return nil, err
	}
	return s, nil
}

// Run starts early refreshes when they are due until ctx ends, then ends the fetches
// under way and waits for them. Call it once. Questions after that are answered from
// evidence only.
func (s *Service) Run(ctx context.Context) error {
	s.refreshAll(ctx)
	s.starting.Lock()
	s.closeOpen()
	s.starting.Unlock()
	s.running.Wait()
	return nil
}

// spawn runs f in a goroutine that Run waits for; once Run is ending, it
// does not, and returns false.
func (s *Service) spawn(f func()) bool {
	s.starting.Lock()
	defer s.starting.Unlock()
	if s.open.Err() != nil {
		return false
	}
	s.running.Go(f)
	return true
}

// now is the clock with its monotonic reading. Fetch times have none, so that ages
// are of the wall clock: the same here, in Redis and after the machine slept.
func (s *Service) now() time.Time { return s.clock() }

// Check answers one question within ctx. Errors are *Error: of kind
// KindNotFound, KindNotServed, KindUnavailable, KindThrottled, KindCredentials,
// KindInvalidResponse, KindDeadlineExceeded, KindCanceled, KindOverloaded once
// Run has ended, KindPermissionDenied if the caller lacks the right fresh,
// KindCallerLimited if it may not ask about a new customer now, or KindInternal. A
// fetch that ctx does not wait for goes on and fills the cache.
func (s *Service) Check(ctx context.Context, req eligibility.Request) (eligibility.Answer, error) {
	now := s.now()
	var c check
	s.peek(ctx, &c, &req, now)
	if !c.completed() {
		return s.checkRemote(ctx, c, now)
	}
	return s.decide(&c, now)
}

// decide decides on what the check holds, stores it as the request's basis, and
// counts the answer.
func (s *Service) decide(c *check, now time.Time) (eligibility.Answer, error) {
	if basis := c.req.Basis; basis != nil {
		basis.Account, basis.Qualifications, basis.Time = c.account.Held, c.qualifications.Held, now
	}
	answer, err := eligibility.Decide(s.policy, c.req.Segment, c.req.Operation, c.account.Held, c.qualifications.Held, now)
	if err == nil {
		s.metrics.answered(c, &answer, now)
	}
	return answer, err
}

// checkRemote continues a check that the evidence of this process does not
// complete. It moves a copy to the heap, so that a completed one stays off it.
func (s *Service) checkRemote(ctx context.Context, c check, now time.Time) (eligibility.Answer, error) {
	keys := c.missing(make([]eligibility.Key, 0, 2))
	unread := false
	for i, found := range s.store.Load(ctx, keys) {
		v := c.view(keys[i].Facet)
		unread = unread || found.Unread
		s.admit(&c, v, found, now)
		if v.Fresh {
			s.refreshEarly(ctx, &c, v, now)
		}
	}
	if len(keys) == 1 { // a block may have arrived about the other facet
		if v := c.view(1 - keys[0].Facet); v.Fresh {
			now := s.now()
			s.adoptNewer(&c, v, s.store.Peek(v.key, now), now)
		}
	}
	refused := s.denyNewer(&c)
	if !c.completed() && !s.takeNewCustomer(ctx, &c) {
		refused = true
	}
	switch {
	case !c.completed():
		s.fetch(ctx, &c, LaneCheckout)
	case refused && unread: // the shared tier may hold what the caller must not fetch
		s.reload(ctx, &c)
		s.revalidate(ctx, &c)
	}
	return s.decide(&c, s.now())
}
