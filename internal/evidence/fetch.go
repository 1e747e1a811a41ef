package evidence

import (
	"context"
	"errors"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// errClosed is why nothing is fetched any more.
var errClosed = errors.New("service is shutting down")

// closedError is the error of a fetch that the shutdown ended. Partner Center did
// not fail, so it is not KindUnavailable.
func closedError(call eligibility.Call) error {
	return &eligibility.Error{Kind: eligibility.KindOverloaded, RetryAfter: leftEarlyRetry, Call: call, Err: errClosed}
}

// run makes the fetch in a goroutine: it finishes f and then publishes what this
// replica fetched. It returns false during the shutdown. The lock of the key's
// shard is held.
func (s *Service) run(f *fetch) bool {
	oldest := f.bound.dated
	return s.spawn(func() {
		got, acquired := s.obtain(f, oldest)
		if got.err != nil && got.call.Attempts > 0 && f.failed != nil {
			f.failed()
		}
		s.inflight.finish(f, got, s.now())
		if acquired {
			s.publish(f)
		}
	})
}

// obtain returns the result of f: what another replica fetches, dated oldest or
// later, or what this one does. acquired reports that this replica has the lease,
// and must share or release it. A panic becomes an internal error: no caller may
// wait forever for a fetch that crashed.
func (s *Service) obtain(f *fetch, oldest time.Time) (got result, acquired bool) {
	defer func() {
		switch r := recover(); {
		case r != nil:
			got.err = s.panicked(r)
		case got.err != nil && s.open.Err() != nil:
			got.err = closedError(got.call)
		}
	}()
	ctx, cancel := context.WithTimeout(f.ctx, fetchTimeout)
	defer cancel()
	defer context.AfterFunc(s.open, cancel)()

	if other, finished := s.acquire(ctx, f, oldest); finished {
		s.metrics.shared.Inc()
		return other, false
	}
	s.metrics.led.Inc()
	acquired = true
	f.awaitAccount(ctx)
	s.awaitNextMillisecond(ctx, f.key)
	started := s.inflight.begin(f, s.now)
	began := time.Now()
	evidence, call, err := s.source.Fetch(ctx, Query{Key: f.key, Priority: f.priority, Started: f.markSent})
	got.call, got.tier, got.err = call, eligibility.TierPartnerCenter, err
	if err != nil {
		return got, acquired
	}
	evidence.Facet = f.key.Facet
	got.evidence = eligibility.Compact(evidence)
	got.evidence.SetFetchTime(s.startedBy(started, time.Since(began)))
	got.rival, got.lost = s.put(ctx, f.key, got.evidence)
	return got, acquired
}

// acquire waits while another replica makes the fetch, and reports whether that
// finishes f, with the result other. If not, this replica has the lease.
func (s *Service) acquire(ctx context.Context, f *fetch, oldest time.Time) (other result, finished bool) {
	for {
		acquired := s.store.Acquire(ctx, Claim{Key: f.key, NotBefore: oldest, Priority: f.priority})
		if acquired.Evidence == nil {
			return result{err: acquired.Err}, acquired.Err != nil
		}
		// It may have been fetched long ago.
		now := s.now()
		if now.Before(s.ages.LifetimeOf(f.key, acquired.Evidence, s.policy, eligibility.OperationPurchase, now).FreshUntil) {
			return result{evidence: acquired.Evidence, tier: eligibility.TierRedis}, true
		}
		oldest = acquired.Evidence.FetchTime.Add(1)
	}
}

// awaitAccount waits until the account's fetch has sent its request or has
// finished, so that the account gets the last permit. It does not wait if a
// decision needs f.
func (f *fetch) awaitAccount(ctx context.Context) {
	for f.account != nil {
		lane, raised := f.priority.Watch()
		if lane > LaneSpare {
			return
		}
		select {
		case <-f.account.sent:
			return
		case <-f.account.done:
			return
		case <-ctx.Done():
			return
		case <-raised:
		}
	}
}

// awaitNextMillisecond waits if the evidence that the store holds was fetched in
// the current millisecond: two fetches of one millisecond would count as one.
func (s *Service) awaitNextMillisecond(ctx context.Context, key eligibility.Key) {
	now := s.now()
	if held := s.store.Peek(key, now).Evidence; held != nil && held.FetchTime.Equal(now.Truncate(time.Millisecond)) {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// startedBy returns the start of a fetch that took elapsed. If the clock was set
// back since, that is a time of the new clock: one ahead of it would be rejected.
func (s *Service) startedBy(started time.Time, elapsed time.Duration) time.Time {
	if start := s.now().Add(-elapsed); started.Round(0).After(start.Add(eligibility.ClockTolerance)) {
		return start
	}
	return started
}

// put stores evidence in this process unless another replica has fetched newer
// evidence, by its date, or the store prefers another status of the same millisecond,
// which it then returns. lost reports that there is newer evidence, which is out of
// reach.
func (s *Service) put(ctx context.Context, key eligibility.Key, evidence *eligibility.Evidence) (newer Found, lost bool) {
	known := s.store.Put(key, evidence)
	switch {
	case known == nil:
		newer = s.store.Load(ctx, []eligibility.Key{key})[0]
		if newer.Evidence == nil || !newer.Evidence.FetchTime.After(evidence.FetchTime) {
			return Found{}, true
		}
	case known.FetchTime.After(evidence.FetchTime),
		known.FetchTime.Equal(evidence.FetchTime) && known.Status != evidence.Status:
		newer = s.store.Peek(key, s.now())
		if newer.Evidence == nil { // evicted just now
			newer = Found{Evidence: known, Tier: eligibility.TierLocal, MustRevalidate: true}
		}
	}
	return newer, false
}

// publish ends this replica's lease, off the callers' path: it writes what was
// fetched to the shared tier, or shares the failure with the replicas that wait.
func (s *Service) publish(f *fetch) {
	defer func() {
		if r := recover(); r != nil {
			_ = s.panicked(r)
		}
	}()
	ctx, cancel := context.WithTimeout(f.ctx, shareTimeout)
	defer cancel()
	if f.evidence != nil {
		s.store.Share(ctx, f.key, f.evidence, s.ages.KeepUntil(f.evidence))
		return
	}
	failure := f.err
	if s.open.Err() != nil {
		failure = nil // the shutdown of this replica is no failure of the fetch
	}
	s.store.Release(ctx, f.key, failure)
}
