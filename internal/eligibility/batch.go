package eligibility

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Result is the answer to one question of a batch, or why there is none.
type Result struct {
	Answer Answer
	Err    error
}

// CheckBatch answers many questions within ctx, in their order. The shared tier
// is asked once for all of them, Partner Center about no more than
// Config.BatchConcurrency customers at a time; questions that are still open
// when ctx ends are answered from usable evidence or with the error that
// [Service.Check] would give.
func (s *Service) CheckBatch(ctx context.Context, reqs []Request) []Result {
	now := s.now()
	checks := make([]check, len(reqs))
	for i := range reqs {
		checks[i] = s.peek(&reqs[i], now)
	}
	s.loadAll(ctx, checks, reqs, now)

	results := make([]Result, len(reqs))
	open := make(chan int, len(reqs))
	for i := range checks {
		if checks[i].complete() {
			results[i].Answer, results[i].Err = s.decide(&checks[i], &reqs[i], now)
		} else {
			open <- i
		}
	}
	close(open)
	var workers sync.WaitGroup
	for range min(len(open), s.batchConcurrency) {
		workers.Go(func() {
			for i := range open {
				results[i] = s.finish(ctx, &checks[i], &reqs[i], now)
			}
		})
	}
	workers.Wait()
	return results
}

// loadAll asks the shared tier once for every key that is not fresh.
func (s *Service) loadAll(ctx context.Context, checks []check, reqs []Request, now time.Time) {
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
			s.consider(checks[i].view(key.Facet), founds[places[key]], &reqs[i], now)
		}
	}
}

// finish asks Partner Center and decides. A panic spoils one result only.
func (s *Service) finish(ctx context.Context, c *check, req *Request, now time.Time) (result Result) {
	defer func() {
		if r := recover(); r != nil {
			result = Result{Err: &Error{Kind: KindInternal, Err: fmt.Errorf("check: panic: %v", r)}}
		}
	}()
	s.ask(ctx, c, req, now, background)
	result.Answer, result.Err = s.decide(c, req, now)
	return result
}
