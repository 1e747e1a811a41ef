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

// CheckBatch answers many questions within ctx: it calls answered once for each,
// with its place in reqs, in any order and never twice at a time. An answer is
// the callee's until it returns. The shared tier is asked once for all questions,
// Partner Center about no more than Config.BatchConcurrency customers at a time
// and once about each; questions that are still open when ctx ends are answered
// from usable evidence or with the error that [Service.Check] would give.
func (s *Service) CheckBatch(ctx context.Context, reqs []Request, answered func(place int, answer *Answer, err error)) {
	now := s.now()
	var open []openCheck
	var answer Answer // one for all, on the heap
	var err error
	for i := range reqs {
		var c check
		s.peek(ctx, &c, &reqs[i], now)
		if c.settled() {
			answer, err = s.decide(&c, now)
			answered(i, &answer, err)
			continue
		}
		if open == nil { // where one is open, most of the rest are
			open = make([]openCheck, 0, len(reqs)-i)
		}
		open = append(open, openCheck{check: c, place: i})
	}
	if len(open) == 0 {
		return
	}
	s.loadAll(ctx, open, now)
	s.finishAll(ctx, open)
	for i := range open {
		answered(open[i].place, &open[i].answer, open[i].failure)
	}
}

// openCheck is a check of a batch that what this process holds did not settle.
type openCheck struct {
	check

	place   int // in the batch
	answer  Answer
	failure error
}

// loadAll asks the shared tier once for every key that is not settled.
func (s *Service) loadAll(ctx context.Context, open []openCheck, now time.Time) {
	keys := make([]Key, 0, 2*len(open))
	places := make(map[Key]int, 2*len(open)) // key → place in keys
	for i := range open {
		for _, key := range open[i].missing(make([]Key, 0, 2)) {
			if _, listed := places[key]; !listed {
				places[key] = len(keys)
				keys = append(keys, key)
			}
		}
	}
	founds := s.store.Load(ctx, keys)
	for i := range open {
		for _, key := range open[i].missing(make([]Key, 0, 2)) {
			s.consider(&open[i].check, open[i].view(key.Facet), founds[places[key]], now)
		}
	}
}

// finishAll decides what is settled now and asks Partner Center about the rest.
func (s *Service) finishAll(ctx context.Context, open []openCheck) {
	now := s.now()
	groups := make(map[CustomerID][]*openCheck) // customer → its open questions
	customers := make(chan CustomerID, len(open))
	for i := range open {
		c := &open[i]
		if c.settled() {
			c.answer, c.failure = s.decide(&c.check, now)
			continue
		}
		id := c.req.CustomerID
		if groups[id] == nil {
			customers <- id
		}
		groups[id] = append(groups[id], c)
	}
	close(customers)
	var workers sync.WaitGroup
	for range min(len(customers), s.batchConcurrency) {
		workers.Go(func() {
			for id := range customers {
				var before *check
				for _, c := range groups[id] {
					s.finish(ctx, c, before)
					before = &c.check
				}
				if len(customers) > 0 {
					before.awaitLeft(ctx)
				}
			}
		})
	}
	workers.Wait()
}

// finish asks Partner Center and decides, beginning with what the check before
// it has learnt about the same customer. A panic spoils one answer only.
func (s *Service) finish(ctx context.Context, c *openCheck, before *check) {
	defer func() {
		if r := recover(); r != nil {
			c.answer, c.failure = Answer{}, s.panicked(r)
		}
	}()
	if before != nil {
		s.follow(&c.check, before)
	}
	s.ask(ctx, &c.check, LaneBackground)
	c.answer, c.failure = s.decide(&c.check, s.now())
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
