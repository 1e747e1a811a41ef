package cache

import (
	"context"
	"encoding/hex"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/breaker"
	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/reviews"
)

const (
	// reviewsTimeout bounds a round trip about reviews. Only [reviewList.Page] has a
	// caller who waits.
	reviewsTimeout = time.Second
	// reviewPartitions is how many partitions a page reads in one round trip.
	reviewPartitions = 8
)

// reviewList is the list of reviews in Redis: two sorted sets in each partition, which
// [putScript] keeps. It has a circuit breaker of its own.
type reviewList struct {
	tier                                    *sharedTier
	breaker                                 *breaker.Breaker
	look, take, reschedule, abandon, listed *redis.Script
}

var _ reviews.List = (*reviewList)(nil)

// Reviews returns the list of reviews that all replicas with this Redis and namespace
// share; nil without Redis, or if reviews are not enabled.
func (s *Store) Reviews() reviews.List { //nolint:ireturn // nil is a value of its own
	if s.redis == nil || !s.redis.reviews.Enabled {
		return nil
	}
	return &reviewList{
		tier: s.redis,
		breaker: breaker.New(breaker.Config{
			Failures: breakerFailures, First: breakerOpen, ProbeTimeout: reviewsTimeout + dialTimeout, Now: s.redis.now,
		}),
		look: redis.NewScript(lookScript), take: redis.NewScript(takeScript), reschedule: redis.NewScript(rescheduleScript),
		abandon: redis.NewScript(abandonScript), listed: redis.NewScript(reviewPageScript),
	}
}

// keys are those of a partition that every script has.
func (l *reviewList) keys(partition int) []string {
	return []string{l.tier.keys.inPartition(partition, "reviews"), l.tier.keys.inPartition(partition, "reviews:since")}
}

// run runs a script for each of the partitions, in one round trip.
func (l *reviewList) run(caller context.Context, script *redis.Script, of []int, args func(i int) []any) ([]*redis.Cmd, error) {
	permit, _, ok := l.breaker.Allow()
	if !ok {
		return nil, errBreakerOpen
	}
	ctx, cancel := context.WithTimeout(caller, reviewsTimeout)
	defer cancel()
	replies, err := runAll(ctx, l.tier.writer, script, len(of), func(i int) ([]string, []any) { return l.keys(of[i]), args(i) })
	l.tier.report(caller, "reviews", permit, err)
	return replies, err
}

// Look implements reviews.List.
func (l *reviewList) Look(ctx context.Context, repair bool) ([]*reviews.State, error) {
	all := make([]int, partitions)
	for i := range all {
		all[i] = i
	}
	now := l.tier.now().UnixMilli()
	replies, err := l.run(ctx, l.look, all, func(int) []any {
		from := -1
		if repair {
			from = rand.IntN(1 << 30) //nolint:gosec // no secret
		}
		return []any{now, l.tier.reviews.GiveUpAfter.Milliseconds(), from}
	})
	states := make([]*reviews.State, partitions)
	reached := false
	for i, reply := range replies {
		answer, replyErr := reply.Int64Slice()
		if replyErr == nil && len(answer) == 3 {
			states[i] = &reviews.State{Tracked: int(answer[0]), Due: int(answer[1]), Late: time.Duration(max(answer[2], 0)) * time.Millisecond}
			reached = true
		}
	}
	if reached {
		return states, nil
	}
	if err == nil {
		err = errMessage
	}
	return nil, err
}

// Take implements reviews.List.
func (l *reviewList) Take(ctx context.Context, most []int) (taken []reviews.Taken) {
	var of []int
	for partition, n := range most {
		if n > 0 {
			of = append(of, partition)
		}
	}
	if len(of) == 0 {
		return nil
	}
	now := l.tier.now().UnixMilli()
	replies, _ := l.run(ctx, l.take, of, func(i int) []any { return []any{now, most[of[i]], reviews.TakenFor.Milliseconds()} })
	for i, reply := range replies {
		if answer, err := reply.StringSlice(); err == nil && len(answer)%3 == 1 {
			taken = append(taken, l.takenOf(ctx, of[i], answer)...)
		}
	}
	slices.SortFunc(taken, func(a, b reviews.Taken) int { return a.Due.Compare(b.Due) })
	return taken
}

// takenOf evaluates the reply of takeScript, and removes members of other partitions.
func (l *reviewList) takenOf(ctx context.Context, partition int, answer []string) (taken []reviews.Taken) {
	now, ok := parseMillis(answer[0])
	if !ok {
		return nil
	}
	var strange []any
	for i := 1; i+2 < len(answer); i += 3 {
		key, ours := parseReviewMember(answer[i])
		due, _ := parseMillis(answer[i+1])
		since, ok := parseMillis(answer[i+2])
		switch {
		case !ours || partitionOf(key.CustomerID) != partition:
			strange = append(strange, answer[i])
		case ok:
			if due.After(now) { // the server's clock was set back since
				due = now
			}
			taken = append(taken, reviews.Taken{Key: key, Due: due, Since: since, Pending: now.Sub(since), Until: now.Add(reviews.TakenFor)})
		}
	}
	if len(strange) > 0 {
		_, _ = l.tier.writer.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for _, key := range l.keys(partition) {
				pipe.ZRem(ctx, key, strange...)
			}
			return nil
		})
	}
	return taken
}

// Reschedule implements reviews.List.
func (l *reviewList) Reschedule(ctx context.Context, taken reviews.Taken, due time.Time) error {
	_, err := l.run(ctx, l.reschedule, []int{partitionOf(taken.CustomerID)}, func(int) []any {
		return []any{reviewMember(taken.Key), taken.Until.UnixMilli(), due.UnixMilli()}
	})
	return err
}

// Abandon implements reviews.List.
func (l *reviewList) Abandon(caller context.Context, taken reviews.Taken, evidence *eligibility.Evidence) (bool, error) {
	permit, _, ok := l.breaker.Allow()
	if !ok {
		return false, errBreakerOpen
	}
	ctx, cancel := context.WithTimeout(caller, reviewsTimeout)
	defer cancel()
	r, partition := l.tier, partitionOf(taken.CustomerID)
	change := &changes.Change{Type: changes.TypeAbandoned, Key: taken.Key, After: bounded(evidence), PendingSince: taken.Since}
	keys := append(l.keys(partition), r.keys.inPartition(partition, "feed"), r.keys.inPartition(partition, "feed:removed"))
	answer, err := l.abandon.Run(ctx, r.writer, keys,
		reviewMember(taken.Key), taken.Since.UnixMilli(), r.now().UnixMilli(), r.feed.Retention.Milliseconds(), share(r.feed.MaxEvents),
		r.seals.sealChange(change, r.source)).StringSlice()
	if err == nil && len(answer) != 3 {
		err = errMessage
	}
	if err == nil && answer[0] != "1" && answer[1] != "" {
		err = replyError(answer[1])
	}
	r.report(caller, "reviews", permit, err)
	if err != nil || answer[0] != "1" {
		return false, err
	}
	r.countChanges(put{changes: 1}, answer[1], answer[2], "", "")
	return true, nil
}

// Page implements reviews.List.
func (l *reviewList) Page(ctx context.Context, after reviews.Place, size int) ([]reviews.Review, *reviews.Place, error) {
	var page []listed
	for first := after.Partition; first < partitions && len(page) <= size; first += reviewPartitions {
		var of []int
		for partition := first; partition < min(first+reviewPartitions, partitions); partition++ {
			of = append(of, partition)
		}
		replies, err := l.run(ctx, l.listed, of, func(i int) []any {
			since, member := "-inf", ""
			if after.After && of[i] == after.Partition {
				since, member = strconv.FormatFloat(after.Since, 'f', -1, 64), reviewMember(after.Key)
			}
			return []any{since, member, size + 1 - len(page)}
		})
		if err != nil {
			return nil, nil, err
		}
		for i, reply := range replies {
			answer, err := reply.StringSlice()
			if err != nil {
				return nil, nil, err
			}
			page = append(page, listedOf(of[i], answer)...)
		}
	}
	var next *reviews.Place
	if len(page) > size {
		page = page[:size]
		next = &page[size-1].place
	}
	return l.reviews(ctx, page), next, nil
}

// Of implements reviews.List. It reads the scores of the customer's members only.
func (l *reviewList) Of(caller context.Context, id eligibility.CustomerID) ([]reviews.Review, error) {
	permit, _, ok := l.breaker.Allow()
	if !ok {
		return nil, errBreakerOpen
	}
	ctx, cancel := context.WithTimeout(caller, reviewsTimeout)
	defer cancel()
	partition := partitionOf(id)
	var due, since [2]*redis.FloatCmd
	_, err := l.tier.writer.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, keys := 0, l.keys(partition); i < len(due); i++ {
			member := reviewMember(keyOf(id, i))
			due[i], since[i] = pipe.ZScore(ctx, keys[0], member), pipe.ZScore(ctx, keys[1], member)
		}
		return nil
	})
	if errors.Is(err, redis.Nil) { // of the first one
		err = nil
	}
	var page []listed
	for i := range due {
		next, dueErr := due[i].Result()
		began, sinceErr := since[i].Result()
		for _, failed := range []error{dueErr, sinceErr} {
			if failed != nil && !errors.Is(failed, redis.Nil) {
				err = failed
			}
		}
		if dueErr == nil && sinceErr == nil && !math.IsNaN(next) && !math.IsNaN(began) {
			page = append(page, listed{place: reviews.Place{Key: keyOf(id, i), Since: began}, due: ofMillis(next)})
		}
	}
	l.tier.report(caller, "reviews", permit, err)
	if err != nil {
		return nil, err
	}
	return l.reviews(ctx, page), nil
}

func keyOf(id eligibility.CustomerID, facet int) eligibility.Key {
	return eligibility.Key{CustomerID: id, Facet: eligibility.Facet(facet)} //nolint:gosec // below 2
}

// listed is a member of the list, and its place.
type listed struct {
	place reviews.Place
	due   time.Time
}

// listedOf evaluates the reply of reviewPageScript.
func listedOf(partition int, answer []string) (found []listed) {
	for i := 0; i+2 < len(answer); i += 3 {
		key, ours := parseReviewMember(answer[i])
		since, err := strconv.ParseFloat(answer[i+1], 64)
		due, ok := parseMillis(answer[i+2])
		if ours && err == nil && ok && partitionOf(key.CustomerID) == partition {
			found = append(found, listed{place: reviews.Place{Partition: partition, After: true, Since: since, Key: key}, due: due})
		}
	}
	return found
}

// reviews adds the evidence to what is listed.
func (l *reviewList) reviews(ctx context.Context, page []listed) []reviews.Review {
	keys := make([]eligibility.Key, len(page))
	for i := range page {
		keys[i] = page[i].place.Key
	}
	found := make([]loaded, len(keys))
	if len(keys) > 0 {
		found = l.tier.loadWithin(ctx, keys, nil)
	}
	all := make([]reviews.Review, len(page))
	for i := range page {
		all[i] = reviews.Review{Key: keys[i], Since: ofMillis(page[i].place.Since), Next: page[i].due}
		if evidence := found[i].evidence; evidence != nil {
			all[i].StatusText, all[i].Last = pendingWord(evidence), evidence.FetchTime
		}
	}
	return all
}

// pendingWord is the word because of which a customer is under review.
func pendingWord(evidence *eligibility.Evidence) string {
	for i := range evidence.Qualifications {
		if q := &evidence.Qualifications[i]; q.VettingStatus == eligibility.VettingInReview {
			return q.VettingStatusText
		}
	}
	return evidence.StatusText
}

// parseReviewMember is the inverse of reviewMember.
func parseReviewMember(member string) (key eligibility.Key, ok bool) {
	id, facet, _ := strings.Cut(member, ":")
	if len(id) != 2*len(key.CustomerID) {
		return key, false
	}
	if _, err := hex.Decode(key.CustomerID[:], []byte(id)); err != nil {
		return key, false
	}
	if facet == eligibility.FacetQualifications.String() {
		key.Facet = eligibility.FacetQualifications
	}
	return key, reviewMember(key) == member
}

// parseMillis reads a score: a time in ms, which may be any number.
func parseMillis(score string) (time.Time, bool) {
	n, err := strconv.ParseFloat(score, 64)
	return ofMillis(n), err == nil && !math.IsNaN(n)
}

// ofMillis bounds a time to those that a timestamp of the API can have.
func ofMillis(n float64) time.Time {
	const last = 253_402_300_799_999 // in the year 9999
	return time.UnixMilli(int64(min(max(n, 0), last)))
}
