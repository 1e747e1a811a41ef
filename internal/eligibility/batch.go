package eligibility

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Result is the answer to one question of a batch, or why there is none.
type Result struct {
	Answer Answer
	Err    error
}

// CheckBatch answers many questions within ctx, in their order. The shared tier
// is asked once for all of them, Partner Center about no more than
// Config.BatchConcurrency customers at a time and once about each; questions
// that are still open when ctx ends are answered from usable evidence or with
// the error that [Service.Check] would give.
func (s *Service) CheckBatch(ctx context.Context, reqs []Request) []Result {
	now := s.now()
	checks := make([]check, len(reqs))
	for i := range reqs {
		checks[i] = s.peek(ctx, &reqs[i], now)
	}
	s.loadAll(ctx, checks, now)

	results := make([]Result, len(reqs))
	groups := make(map[CustomerID][]int) // customer → places of its open questions
	open := make(chan CustomerID, len(reqs))
	for i := range checks {
		if checks[i].settled() {
			results[i].Answer, results[i].Err = s.decide(&checks[i], now)
			continue
		}
		id := reqs[i].CustomerID
		if groups[id] == nil {
			open <- id
		}
		groups[id] = append(groups[id], i)
	}
	close(open)
	var workers sync.WaitGroup
	for range min(len(open), s.batchConcurrency) {
		workers.Go(func() {
			for id := range open {
				var before *check
				for _, i := range groups[id] {
					results[i] = s.finish(ctx, &checks[i], before)
					before = &checks[i]
				}
				if len(open) > 0 {
					before.awaitLeft(ctx)
				}
			}
		})
	}
	workers.Wait()
	return results
}

// loadAll asks the shared tier once for every key that is not settled.
func (s *Service) loadAll(ctx context.Context, checks []check, now time.Time) {
	var keys []Key
	places := make(map[Key]int) // key → place in keys
	for i := range checks {
		for _, key := range checks[i].missing(make([]Key, 0, 2)) {
			if _, listed := places[key]; !listed {
				places[key] = len(keys)
				keys = append(keys, key)
			}
		}
	}
	if len(keys) == 0 {
		return
	}
	founds := s.store.Load(ctx, keys)
	for i := range checks {
		for _, key := range checks[i].missing(make([]Key, 0, 2)) {
			s.consider(&checks[i], checks[i].view(key.Facet), founds[places[key]], now)
		}
	}
}

// finish asks Partner Center and decides, beginning with what the check before
// it has learnt about the same customer. A panic spoils one result only.
func (s *Service) finish(ctx context.Context, c, before *check) (result Result) {
	defer func() {
		if r := recover(); r != nil {
			result = Result{Err: s.panicked(r)}
		}
	}()
	if before != nil {
		s.follow(c, before)
	}
	s.ask(ctx, c, background)
	result.Answer, result.Err = s.decide(c, s.now())
	return result
}

// follow takes over what another check has learnt, failures included, as far as
// it answers this one.
func (s *Service) follow(c, before *check) {
	for _, v := range c.views() {
		if v.settled() {
			continue
		}
		learnt := before.view(v.key.Facet)
		s.consider(c, v, learnt.found, s.now())
		v.asked = learnt.asked && v.found.Evidence == learnt.found.Evidence
		if _, failed := errors.AsType[*Error](learnt.err); failed && !v.fresh && !learnt.rests {
			v.err, v.call = learnt.err, learnt.call
		}
	}
}

// awaitLeft waits for a fetch that the check did not wait for, so that no more
// of them are under way than there are workers.
func (c *check) awaitLeft(ctx context.Context) {
	if c == nil || c.qualifications.left == nil {
		return
	}
	select {
	case <-c.qualifications.left.done:
	case <-ctx.Done():
	}
}

// panicked logs a panic and returns the error that stands for it.
func (s *Service) panicked(recovered any) error {
	s.logger.Error("panic while answering", zap.String("panic", fmt.Sprint(recovered)), zap.ByteString("stack", debug.Stack()))
	return &Error{Kind: KindInternal, Err: errors.New("panic, logged apart")}
}
