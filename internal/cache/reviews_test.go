package cache_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/reviews"
)

// pending is evidence of a customer under review.
func pending(fetched time.Time) *eligibility.Evidence {
	return fetchedHere(&eligibility.Evidence{Status: eligibility.AccountStatusUnderReview, StatusText: "UnderReview"}, fetched)
}

// reviewKeys are n keys of one partition.
func reviewKeys(n int) (keys []eligibility.Key) {
	for i := 0; len(keys) < n; i++ {
		id := eligibility.CustomerID{byte(i), byte(i >> 8), 7}
		if cache.PartitionOf(id) == 5 {
			keys = append(keys, eligibility.Key{CustomerID: id})
		}
	}
	return keys
}

// reviewRig is a list on a Redis whose clock is that of the test.
type reviewRig struct {
	clock

	t      *testing.T
	server *cachetest.Redis
	client *redis.Client
	store  *cache.Store
	list   reviews.List
}

func newReviewRig(t *testing.T) *reviewRig {
	t.Helper()
	r := &reviewRig{t: t, server: cachetest.StartRedis(t)}
	r.client = r.server.Client()
	if err := r.client.Do(t.Context(), "acl", "setuser", "default", "-time").Err(); err != nil {
		t.Fatal(err)
	}
	r.store = newStore(t, r.config())
	r.list = r.store.Reviews()
	return r
}

func (r *reviewRig) config() cache.Config {
	return cache.Config{
		Now: r.now, Reviews: cache.ReviewsConfig{Enabled: true},
		Redis: cache.RedisConfig{Addresses: []string{r.server.Address}, Namespace: "p", ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second},
	}
}

func (r *reviewRig) names(key eligibility.Key) (due, since string) {
	head := "eligibility:v2:p:{" + cache.PartitionTag(key) + "}:reviews"
	return head, head + ":since"
}

func member(key eligibility.Key) string {
	return hex.EncodeToString(key.CustomerID[:]) + ":" + key.Facet.String()
}

// put stores evidence that was fetched now.
func (r *reviewRig) put(key eligibility.Key, evidence func(time.Time) *eligibility.Evidence) {
	r.t.Helper()
	r.store.Healthy()
	r.store.Share(context.Background(), key, evidence(r.now()), r.now().Add(6*time.Hour))
}

// at sets the clock to after start.
func (r *reviewRig) at(after time.Duration) { r.set(after) }

func (r *reviewRig) take(most int) []reviews.Taken {
	r.t.Helper()
	all := make([]int, 64)
	for i := range all {
		all[i] = most
	}
	return r.list.Take(r.t.Context(), all)
}

func (r *reviewRig) look(repair bool) (sum reviews.State) {
	r.t.Helper()
	states, err := r.list.Look(r.t.Context(), repair)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, s := range states {
		sum.Tracked, sum.Due, sum.Late = sum.Tracked+s.Tracked, sum.Due+s.Due, max(sum.Late, s.Late)
	}
	return sum
}

func (r *reviewRig) wantLook(what string, want reviews.State) {
	r.t.Helper()
	if got := r.look(false); got != want {
		r.t.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

// A customer is due after a tenth of the time under review, within bounds, is taken
// once, and is due again 30 s later if nothing becomes of it.
func TestReviewsAreTakenWhenTheyAreDue(t *testing.T) {
	t.Parallel()
	r := newReviewRig(t)
	key := reviewKeys(1)[0]
	now := time.Duration(0)
	r.put(key, pending)
	for i := range 30 {
		cadence := min(max(now/10, 2*time.Minute), time.Hour)
		r.at(now + cadence*9/10 - time.Second)
		if got := r.take(10); len(got) != 0 {
			t.Fatalf("taken too early: %+v", got)
		}
		now += (cadence*11/10 + time.Second).Truncate(time.Second)
		r.at(now)
		if got := r.look(false); got.Tracked != 1 || got.Due != 1 || got.Late <= 0 || got.Late > cadence*2/10+2*time.Second {
			t.Errorf("%d: %+v", i, got)
		}
		got := r.take(10)
		if len(got) != 1 || got[0].Key != key || !got[0].Since.Equal(start) || got[0].Pending != now || !got[0].Until.Equal(start.Add(now+30*time.Second)) {
			t.Fatalf("%d: %+v", i, got)
		}
		if got := r.take(10); len(got) != 0 {
			t.Errorf("taken twice: %+v", got)
		}
		r.at(now + 29*time.Second)
		r.wantLook("taken", reviews.State{Tracked: 1})
		now += 31 * time.Second
		r.at(now)
		if got := r.take(10); len(got) != 1 {
			t.Errorf("its replica has died: %+v", got)
		}
		r.put(key, pending)
	}
	r.at(now + time.Second)
	r.put(key, allowed)
	r.wantLook("ended", reviews.State{})
}

// Whatever the order in which they came, those that have been due for longest are
// taken first, and no more than asked for.
func TestReviewsAreTakenInOrder(t *testing.T) {
	t.Parallel()
	r := newReviewRig(t)
	keys := reviewKeys(9)
	for i, key := range keys {
		r.at(time.Duration((i*5)%9) * time.Minute)
		r.put(key, pending)
	}
	r.at(time.Hour)
	r.wantLook("all", reviews.State{Tracked: 9, Due: 9, Late: r.look(false).Late})
	var last time.Time
	for range 3 {
		taken := r.take(3)
		if len(taken) != 3 {
			t.Fatalf("%+v", taken)
		}
		for _, got := range taken {
			if got.Due.Before(last) {
				t.Errorf("%v after %v", got.Due, last)
			}
			last = got.Due
		}
	}
	if got := r.take(3); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestReviewsAreRescheduledUnlessTheyHaveChanged(t *testing.T) {
	t.Parallel()
	r := newReviewRig(t)
	key := reviewKeys(1)[0]
	r.put(key, pending)
	r.at(10 * time.Minute)
	taken := r.take(1)[0]
	if err := r.list.Reschedule(t.Context(), taken, taken.Due); err != nil {
		t.Fatal(err)
	}
	again := r.take(1)
	if len(again) != 1 || !again[0].Due.Equal(taken.Due) {
		t.Fatalf("returned: %+v, want %+v", again, taken)
	}
	r.put(key, pending) // the review is made
	if err := r.list.Reschedule(t.Context(), again[0], taken.Due); err != nil {
		t.Fatal(err)
	}
	if got := r.take(1); len(got) != 0 {
		t.Errorf("a late return undid the cadence: %+v", got)
	}
	r.put(key, allowed)
	r.at(11 * time.Minute)
	r.put(key, allowed)
	if err := r.list.Reschedule(t.Context(), again[0], taken.Due); err != nil {
		t.Fatal(err)
	}
	r.wantLook("ended", reviews.State{})
}

// Whatever the sets hold, what is ours is made, and the rest is removed.
func TestDamagedReviews(t *testing.T) {
	t.Parallel()
	r := newReviewRig(t)
	keys := reviewKeys(3)
	due, since := r.names(keys[0])
	other := eligibility.Key{CustomerID: eligibility.CustomerID{200}}
	if cache.PartitionTag(other) == cache.PartitionTag(keys[0]) {
		t.Fatal("the same partition")
	}
	ctx := t.Context()
	add := func(key string, score float64, member string) {
		t.Helper()
		if err := r.client.ZAdd(ctx, key, redis.Z{Score: score, Member: member}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	ms := func(after time.Duration) float64 { return float64(start.Add(after).UnixMilli()) }
	inf := func(sign string) string { return sign + "inf" }
	for name, test := range map[string]struct {
		damage func()
		since  time.Time
		pend   time.Duration
		none   bool
	}{
		"none":                             {damage: func() {}, since: start, pend: 10 * time.Minute},
		"since missing":                    {damage: func() { r.client.ZRem(ctx, since, member(keys[0])) }, since: start.Add(10 * time.Minute)},
		"since evicted":                    {damage: func() { r.client.Del(ctx, since) }, since: start.Add(10 * time.Minute)},
		"since of another kind":            {damage: func() { r.client.Set(ctx, since, "x", 0) }, since: start.Add(10 * time.Minute)},
		"since in the future":              {damage: func() { add(since, ms(100*time.Hour), member(keys[0])) }, since: start.Add(10 * time.Minute)},
		"since infinite":                   {damage: func() { r.client.Do(ctx, "zadd", since, inf("+"), member(keys[0])) }, since: start.Add(10 * time.Minute)},
		"since never":                      {damage: func() { r.client.Do(ctx, "zadd", since, inf("-"), member(keys[0])) }, since: start.Add(10 * time.Minute)},
		"since a fraction":                 {damage: func() { add(since, ms(0)+0.5, member(keys[0])) }, since: start, pend: 10 * time.Minute},
		"due never":                        {damage: func() { r.client.Do(ctx, "zadd", due, inf("-"), member(keys[0])) }, since: start, pend: 10 * time.Minute},
		"due infinite":                     {damage: func() { r.client.Do(ctx, "zadd", due, inf("+"), member(keys[0])) }, since: start, pend: 10 * time.Minute},
		"the clock was set back by a year": {damage: func() { add(due, ms(365*24*time.Hour), member(keys[0])) }, since: start, pend: 10 * time.Minute},
		"due is a string":                  {damage: func() { r.client.Set(ctx, due, "x", 0) }, none: true},
		"strangers first": {damage: func() {
			for i, stranger := range []string{
				"", "x", ":", "account", strings.Repeat("a", 32), strings.Repeat("a", 32) + ":", strings.Repeat("A", 32) + ":account",
				strings.Repeat("g", 32) + ":account", strings.Repeat("a", 31) + ":account", member(keys[0]) + "s", strings.Repeat("x", 1<<20),
				"\x00\xff", member(other),
			} {
				add(due, float64(i), stranger)
				add(since, float64(i), stranger)
			}
		}, since: start, pend: 10 * time.Minute},
	} {
		r.client.FlushAll(ctx)
		r.at(0)
		r.put(keys[0], pending)
		r.at(10 * time.Minute)
		test.damage()
		r.look(false)
		taken := r.take(2)
		if len(taken) == 0 && !test.none { // those of another partition count as taken
			taken = r.take(2)
		}
		switch {
		case test.none && len(taken) == 0:
			r.put(keys[0], pending)
			if got := r.look(false); got.Tracked != 1 {
				t.Errorf("%s: not tracked again: %+v", name, got)
			}
			continue
		case len(taken) != 1 || taken[0].Key != keys[0] || !taken[0].Since.Equal(test.since) || taken[0].Pending != test.pend || taken[0].Due.After(r.now()):
			t.Errorf("%s: %+v", name, taken)
		}
		if got := r.client.ZRange(ctx, due, 0, -1).Val(); !slices.Equal(got, []string{member(keys[0])}) {
			t.Errorf("%s: left due: %.50q", name, got)
		}
		if got := r.client.ZScore(ctx, since, member(keys[0])).Val(); got != float64(test.since.UnixMilli()) {
			t.Errorf("%s: since %v", name, got)
		}
		if got := r.take(1); len(got) != 0 {
			t.Errorf("%s: taken twice: %+v", name, got)
		}
	}
}

// Thousands of strange members do not keep ours from being made.
func TestAFloodOfStrangeReviews(t *testing.T) {
	t.Parallel()
	r := newReviewRig(t)
	key := reviewKeys(1)[0]
	r.put(key, pending)
	due, _ := r.names(key)
	var strange []redis.Z
	for i := range 10_000 {
		strange = append(strange, redis.Z{Score: 1, Member: fmt.Sprint(i)})
	}
	r.client.ZAdd(t.Context(), due, strange...)
	r.at(10 * time.Minute)
	for i := range 12 {
		if got := r.take(1); len(got) == 1 {
			return
		} else if i == 11 {
			t.Error("not taken")
		}
	}
}

// If the server has evicted the due times, the reviews are due.
func TestReviewsThatLostTheirDueTimes(t *testing.T) {
	t.Parallel()
	r := newReviewRig(t)
	keys := reviewKeys(300)
	for _, key := range keys {
		r.put(key, pending)
	}
	due, since := r.names(keys[0])
	r.client.ZAdd(t.Context(), since, redis.Z{Score: float64(start.Add(-721 * time.Hour).UnixMilli()), Member: member(eligibility.Key{CustomerID: eligibility.CustomerID{1}})})
	r.client.Del(t.Context(), due)
	r.at(time.Second)
	r.wantLook("without repair", reviews.State{})
	for range 100 {
		if r.look(true).Tracked == len(keys) {
			break
		}
	}
	r.wantLook("repaired, but for the one that was given up", reviews.State{Tracked: len(keys), Due: len(keys)})
	if got := r.client.PTTL(t.Context(), due).Val(); got <= 0 {
		t.Errorf("lives for %v", got)
	}
}

// readFeed returns the changes in the feed.
func (r *reviewRig) readFeed() (found []*changes.Change) {
	r.t.Helper()
	r.store.Heartbeat(r.t.Context())
	for _, entry := range readAll(r.t, r.store.Feed()) {
		found = append(found, entry.Change)
	}
	return found
}

// A review is abandoned once, with one event, and not listed again.
func TestAReviewIsAbandonedOnce(t *testing.T) {
	t.Parallel()
	r := newReviewRig(t)
	key := reviewKeys(1)[0]
	r.put(key, pending)
	r.at(720 * time.Hour)
	taken := r.take(1)
	if len(taken) != 1 || taken[0].Pending != 720*time.Hour {
		t.Fatalf("%+v", taken)
	}
	r.put(key, pending) // the last fetch
	evidence := pending(r.now())
	for i, want := range []bool{true, false} {
		if got, err := r.list.Abandon(t.Context(), taken[0], evidence); got != want || err != nil {
			t.Errorf("%d: %v, %v", i, got, err)
		}
	}
	r.at(720*time.Hour + time.Minute)
	r.put(key, pending) // a caller's check
	r.wantLook("afterwards", reviews.State{})
	r.look(true)
	r.wantLook("after a repair", reviews.State{})
	feed := r.readFeed() // the change that began the review is no longer kept
	last := feed[len(feed)-1]
	if len(feed) != 1 || last.Type != changes.TypeAbandoned || last.Key != key || !last.PendingSince.Equal(start) || !last.After.SameFacts(evidence) || !last.After.FetchTime.Equal(evidence.FetchTime) {
		t.Errorf("%d changes, last %+v", len(feed), last)
	}
	r.at(721 * time.Hour)
	r.put(key, allowed)
	r.at(722 * time.Hour)
	r.put(key, pending)
	r.wantLook("another review", reviews.State{Tracked: 1})
	if got, err := r.list.Abandon(t.Context(), taken[0], evidence); got || err != nil {
		t.Errorf("the other one: %v, %v", got, err)
	}
}

// A review that cannot be abandoned for now stays, one whose event must not be written
// does not.
func TestAReviewIsAbandonedAlthoughTheFeedRefuses(t *testing.T) {
	t.Parallel()
	r := newReviewRig(t)
	key := reviewKeys(1)[0]
	r.put(key, pending)
	r.at(720 * time.Hour)
	taken := r.take(1)[0]
	r.server.RefuseWrites("OOM")
	if got, err := r.list.Abandon(t.Context(), taken, pending(r.now())); got || err == nil {
		t.Errorf("memory is full: %v, %v", got, err)
	}
	r.server.AcceptWrites()
	r.wantLook("still there", reviews.State{Tracked: 1})
	if err := r.client.Do(t.Context(), "acl", "setuser", "default", "-xadd").Err(); err != nil {
		t.Fatal(err)
	}
	if got, err := r.list.Abandon(t.Context(), taken, pending(r.now())); !got || err != nil {
		t.Errorf("without the right: %v, %v", got, err)
	}
	r.wantLook("removed", reviews.State{})
}

// Pages hold every review once, whatever their size, with what is known.
func TestPagesOfReviews(t *testing.T) {
	t.Parallel()
	r := newReviewRig(t)
	want := make(map[eligibility.Key]time.Time)
	for i := range 300 {
		r.at(time.Duration(i/50) * time.Minute) // many of the same time
		key := eligibility.Key{CustomerID: eligibility.CustomerID{byte(i), 9, byte(i >> 8)}, Facet: eligibility.Facet(i % 2)}
		evidence := pending
		if key.Facet == eligibility.FacetQualifications {
			evidence = func(at time.Time) *eligibility.Evidence {
				return fetchedHere(&eligibility.Evidence{Facet: eligibility.FacetQualifications, Qualifications: []eligibility.Qualification{
					{Type: eligibility.QualificationGovernmentCommunityCloud, TypeText: "GovernmentCommunityCloud", VettingStatus: eligibility.VettingApproved, VettingStatusText: "Approved"},
					{Type: eligibility.QualificationEducation, TypeText: "Education", VettingStatus: eligibility.VettingInReview, VettingStatusText: "InReview"},
				}}, at)
			}
		}
		r.put(key, evidence)
		want[key] = r.now()
	}
	r.at(7 * time.Minute)
	for _, size := range []int{1, 7, 100, 299, 300, 1000} {
		seen := make(map[eligibility.Key]bool)
		place := new(reviews.Place)
		for place != nil {
			page, next, err := r.list.Page(t.Context(), *place, size)
			if err != nil || len(page) == 0 || len(page) > size {
				t.Fatalf("size %d: %d reviews, %v", size, len(page), err)
			}
			for _, got := range page {
				word := map[eligibility.Facet]string{eligibility.FacetAccount: "UnderReview", eligibility.FacetQualifications: "InReview"}[got.Facet]
				if seen[got.Key] || !got.Since.Equal(want[got.Key]) || !got.Last.Equal(want[got.Key]) || got.StatusText != word || !got.Next.After(got.Last) {
					t.Errorf("size %d: %+v, want since %v", size, got, want[got.Key])
				}
				seen[got.Key] = true
			}
			if place = next; place != nil {
				parsed, err := reviews.ParsePlace(next.String())
				if err != nil || parsed != *next {
					t.Fatalf("%v, %v", parsed, err)
				}
			}
		}
		if len(seen) != len(want) {
			t.Errorf("size %d: %d of %d", size, len(seen), len(want))
		}
	}
	for key := range want { // lost by the server
		r.client.Del(t.Context(), "eligibility:v2:p:{"+cache.PartitionTag(key)+"}:"+member(key))
	}
	page, _, err := r.list.Page(t.Context(), reviews.Place{}, 1000)
	if err != nil || len(page) != len(want) || page[0].StatusText != "" || !page[0].Last.IsZero() || page[0].Since.IsZero() {
		t.Errorf("without evidence: %d, %v, %+v", len(page), err, page[0])
	}
	if page, next, err := r.list.Page(t.Context(), reviews.Place{Partition: 255, After: true}, 10); err != nil || len(page) != 0 || next != nil {
		t.Errorf("behind the end: %v, %v, %v", page, next, err)
	}
}

// If Redis is away, hangs or refuses, everything fails soon, and works again later.
func TestReviewsWithoutRedis(t *testing.T) {
	t.Parallel()
	r := newReviewRig(t)
	key := reviewKeys(1)[0]
	r.put(key, pending)
	r.at(10 * time.Minute)
	taken := reviews.Taken{Key: key, Since: start}
	for name, fault := range map[string]struct{ begin, end func() }{
		"hangs":  {r.server.Stall, r.server.Resume},
		"killed": {r.server.Kill, r.server.Start},
	} {
		fault.begin()
		for what, do := range map[string]func() error{
			"look":       func() error { _, err := r.list.Look(t.Context(), true); return err },
			"reschedule": func() error { return r.list.Reschedule(t.Context(), taken, start) },
			"abandon":    func() error { _, err := r.list.Abandon(t.Context(), taken, pending(start)); return err },
			"page":       func() error { _, _, err := r.list.Page(t.Context(), reviews.Place{}, 10); return err },
		} {
			began := time.Now()
			if err := do(); err == nil {
				t.Errorf("%s, %s: no error", name, what)
			}
			if took := time.Since(began); took > 4*time.Second {
				t.Errorf("%s, %s: took %v", name, what, took)
			}
		}
		if got := r.take(1); len(got) != 0 {
			t.Errorf("%s: %+v", name, got)
		}
		fault.end()
		late := time.Now().Add(30 * time.Second)
		for {
			if _, err := r.list.Look(t.Context(), false); err == nil {
				break
			}
			if time.Now().After(late) {
				t.Fatalf("%s: does not work again", name)
			}
			r.at(10*time.Minute + time.Since(late.Add(-30*time.Second))) // the breaker's clock
		}
	}
	if list := newStore(t, cache.Config{}).Reviews(); list != nil {
		t.Errorf("a list without redis: %v", list)
	}
	cfg := r.config()
	cfg.Reviews.Enabled = false
	if list := newStore(t, cfg).Reviews(); list != nil {
		t.Errorf("a list although reviews are off: %v", list)
	}
}

// On a cluster, the reviews of a server that is down do not keep back the others.
func TestReviewsOnACluster(t *testing.T) {
	t.Parallel()
	cluster := cachetest.StartCluster(t)
	cfg := cache.Config{Redis: onCluster(cluster), Reviews: cache.ReviewsConfig{Enabled: true}}
	cfg.Redis.ReadTimeout, cfg.Redis.WriteTimeout = 5*time.Second, 5*time.Second
	store := newStore(t, cfg)
	list := store.Reviews()
	for i := range 64 {
		store.Share(t.Context(), eligibility.Key{CustomerID: eligibility.CustomerID{byte(i), 3}}, pending(time.Now()), time.Now().Add(time.Hour))
	}
	states, err := list.Look(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	tracked := 0
	for _, s := range states {
		tracked += s.Tracked
	}
	if tracked != 64 {
		t.Errorf("%d tracked", tracked)
	}
	page, next, err := list.Page(t.Context(), reviews.Place{}, 100)
	if err != nil || len(page) != 64 || next != nil {
		t.Errorf("%d on the page, %v, %v", len(page), next, err)
	}
	cluster.PrimaryOf("{" + cache.PartitionTag(page[0].Key) + "}").Kill()
	states, err = list.Look(t.Context(), false)
	reached := 0
	for _, s := range states {
		if s != nil {
			reached++
		}
	}
	if err != nil || reached == 0 {
		t.Errorf("%d of %d partitions reached, %v", reached, len(states), err)
	}
}

// The documented rights suffice.
func TestReviewsAsTheDocumentedUser(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	setUser(t, []*cachetest.Redis{server}, documentedUser(t, "gate", "~eligibility:"))
	var clock clock
	store := newStore(t, cache.Config{
		Now: clock.now, Reviews: cache.ReviewsConfig{Enabled: true, GiveUpAfter: time.Nanosecond},
		Redis: cache.RedisConfig{Addresses: []string{server.Address}, Username: "gate", Password: "word", ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second},
	})
	key := reviewKeys(1)[0]
	store.Share(t.Context(), key, pending(start), start.Add(time.Hour))
	list := store.Reviews()
	if _, err := list.Look(t.Context(), true); err != nil {
		t.Error(err)
	}
	due := "eligibility:v2::{" + cache.PartitionTag(key) + "}:reviews"
	if n := server.Client().ZAdd(t.Context(), due, redis.Z{Score: 1, Member: member(key)}, redis.Z{Score: 1, Member: "strange"}).Val(); n != 1 {
		t.Fatalf("%d members added", n)
	}
	most := make([]int, 64)
	most[cache.PartitionOf(key.CustomerID)] = 1
	taken := list.Take(t.Context(), most)
	if len(taken) != 1 {
		t.Fatalf("%+v", taken)
	}
	if err := list.Reschedule(t.Context(), taken[0], start); err != nil {
		t.Error(err)
	}
	if page, _, err := list.Page(t.Context(), reviews.Place{}, 10); err != nil || len(page) != 1 {
		t.Errorf("%v, %v", page, err)
	}
	if done, err := list.Abandon(t.Context(), taken[0], pending(start)); !done || err != nil {
		t.Errorf("%v, %v", done, err)
	}
	noneDenied(t, []*cachetest.Redis{server})
}
