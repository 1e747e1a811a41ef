package evidence

import (
	"context"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// reviewAge is how old evidence may be that serves a review: no cadence is as short,
// and no fetch takes as long.
const reviewAge = 30 * time.Second

// Reviewed is the result of [Service.Review].
type Reviewed struct {
	// Evidence is what Partner Center has answered.
	Evidence *eligibility.Evidence
	// UnderReview reports whether it is a block that may pass by itself.
	UnderReview bool
}

// ReviewRoom returns how many reviews this process may start now, so that the budget
// admits them soon. It may be negative.
func (s *Service) ReviewRoom(ctx context.Context) int {
	return min(s.source.Room(ctx, LaneReview), maxPrefetches) - s.inflight.queued(LaneReview)
}

// Review fetches evidence about a customer under review, in LaneReview, unless this
// process or, as its lease shows, another one has done so within reviewAge. It shares
// the fetch with callers, who may raise its lane, and waits for it as long as ctx
// allows. Errors are *Error of the kinds of [Source], KindOverloaded once Run has
// ended, or the context's own.
func (s *Service) Review(ctx context.Context, key eligibility.Key) (Reviewed, error) {
	oldest := s.now().Add(-reviewAge)
	var recent *eligibility.Evidence
	f := s.inflight.start(ctx, fetchRequest{
		Key: key, bound: recency{started: oldest, dated: oldest}, lane: LaneReview,
		enough: func() bool {
			recent = s.store.Peek(key, s.now()).Evidence
			return recent != nil && !recent.FetchTime.Before(oldest)
		},
	})
	if f == nil {
		return s.reviewed(recent), nil
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return Reviewed{}, ctx.Err()
	}
	switch {
	case f.err != nil:
		return Reviewed{}, f.err
	case f.rival.Evidence != nil:
		return s.reviewed(f.rival.Evidence), nil
	default:
		return s.reviewed(f.evidence), nil
	}
}

func (s *Service) reviewed(evidence *eligibility.Evidence) Reviewed {
	return Reviewed{Evidence: evidence, UnderReview: s.policy.UnderReview(evidence)}
}
