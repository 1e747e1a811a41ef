package cache_test

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const reviewMember = "abcd0000000000000000000000000000:account"

// reviewing is a store that lists reviews, on a server, and a client of that.
func reviewing(t *testing.T, with func(*cache.Config)) (*cache.Store, *redis.Client) {
	t.Helper()
	server := cachetest.StartRedis(t)
	client := server.Client()
	t.Cleanup(func() { _ = client.Close() })
	cfg := at(server, start.Add(time.Hour))
	cfg.Reviews = cache.ReviewsConfig{Enabled: true}
	if with != nil {
		with(&cfg)
	}
	return newStore(t, cfg), client
}

// scores are the score of a member in both sorted sets; -1 without one.
func scores(client *redis.Client, member string) (due, since float64) {
	score := func(name string) float64 {
		found, err := client.ZScore(ctx, feedKey(name), member).Result()
		if err != nil {
			return -1
		}
		return found
	}
	return score("reviews"), score("reviews:since")
}

func TestReviewsFollowTheEvidence(t *testing.T) {
	t.Parallel()
	store, client := reviewing(t, nil)
	before := float64(time.Now().UnixMilli())
	shareAt(store, time.Second, underReview)
	due, since := scores(client, reviewMember)
	minute := float64(time.Minute.Milliseconds())
	if now := float64(time.Now().UnixMilli()); since < before || since > now || due < since+1.8*minute || due > since+2.2*minute {
		t.Errorf("due %v, since %v, now %v", due, since, now)
	}
	// A tenth of the time since then, at most an hour, give or take a tenth.
	for i, row := range []struct{ pending, low, high time.Duration }{
		{100 * time.Minute, 9 * time.Minute, 11*time.Minute + time.Second},
		{100 * time.Hour, 54 * time.Minute, 66*time.Minute + time.Second},
	} {
		pending := float64(time.Now().Add(-row.pending).UnixMilli())
		client.ZAdd(ctx, feedKey("reviews:since"), redis.Z{Score: pending, Member: reviewMember})
		shareAt(store, time.Duration(2+i)*time.Second, underReview)
		due, since = scores(client, reviewMember)
		left := time.Until(time.UnixMilli(int64(due)))
		if since != pending || left < row.low-time.Second || left > row.high {
			t.Errorf("pending %v: due in %v, since %v", row.pending, left, since)
		}
	}
	if left := client.PTTL(ctx, feedKey("reviews")).Val(); left < 720*time.Hour || left > 722*time.Hour {
		t.Errorf("expires after %v", left)
	}
	shareAt(store, 10*time.Second, allowed)
	if due, since = scores(client, reviewMember); due != -1 || since != -1 {
		t.Errorf("after the review: due %v, since %v", due, since)
	}
}

// The qualifications of a customer have a review of their own, by the policy.
func TestReviewsAreThoseOfThePolicy(t *testing.T) {
	t.Parallel()
	notReady := func(fetched time.Time) *eligibility.Evidence {
		return fetchedHere(&eligibility.Evidence{Status: eligibility.AccountStatusNotReady, StatusText: "Not Ready"}, fetched)
	}
	store, client := reviewing(t, nil)
	shareAt(store, time.Second, notReady)
	if due, _ := scores(client, reviewMember); due == -1 {
		t.Error("a customer who is not ready is not listed")
	}
	qualifications := eligibility.Key{CustomerID: key.CustomerID, Facet: eligibility.FacetQualifications}
	store.Share(ctx, qualifications, &eligibility.Evidence{
		Facet: qualifications.Facet, FetchTime: start.Add(time.Second),
		Qualifications: []eligibility.Qualification{{
			Type: eligibility.QualificationEducation, TypeText: "Education", VettingStatus: eligibility.VettingInReview, VettingStatusText: "InReview",
		}},
	}, start.Add(48*time.Hour))
	if due, _ := scores(client, "abcd0000000000000000000000000000:qualifications"); due == -1 {
		t.Error("qualifications in review are not listed")
	}
	store, client = reviewing(t, func(cfg *cache.Config) { cfg.Policy.NotReadyAllowed = true })
	shareAt(store, time.Second, notReady)
	if due, _ := scores(client, reviewMember); due != -1 {
		t.Error("a customer who may buy is listed")
	}
}

// A review may end long after its evidence is too old for an answer: because Redis or
// Partner Center were away, or because there are so many that they are checked rarely.
// The change that ends it has the evidence before.
func TestEvidenceUnderReviewIsKeptForItsChange(t *testing.T) {
	t.Parallel()
	store, client := reviewing(t, nil)
	evidenceKey := rawKey()
	left := func() time.Duration { return client.PTTL(ctx, evidenceKey).Val() }
	shareAt(store, time.Second, underReview)
	if got := left(); got < 719*time.Hour || got > 720*time.Hour {
		t.Errorf("under review: %s is kept for %v", evidenceKey, got)
	}
	shareAt(store, 2*time.Second, allowed)
	if got := left(); got <= 0 || got > 49*time.Hour {
		t.Errorf("after the review: kept for %v", got)
	}
	store, client = reviewing(t, func(cfg *cache.Config) { cfg.Reviews.Enabled = false })
	shareAt(store, time.Second, underReview)
	if got := left(); got <= 0 || got > 49*time.Hour {
		t.Errorf("without reviews: kept for %v", got)
	}
}

func TestReviewsThatAreOffLeaveNone(t *testing.T) {
	t.Parallel()
	store, client := reviewing(t, func(cfg *cache.Config) { cfg.Reviews.Enabled = false })
	client.ZAdd(ctx, feedKey("reviews"), redis.Z{Score: 1, Member: reviewMember})
	client.ZAdd(ctx, feedKey("reviews:since"), redis.Z{Score: 1, Member: reviewMember})
	shareAt(store, time.Second, underReview)
	if due, since := scores(client, reviewMember); due != -1 || since != -1 {
		t.Errorf("due %v, since %v", due, since)
	}
}

// What was given up is not listed again, until the review has ended.
func TestReviewsGivenUpStaySo(t *testing.T) {
	t.Parallel()
	store, client := reviewing(t, func(cfg *cache.Config) { cfg.Reviews.GiveUpAfter = time.Hour })
	long := float64(time.Now().Add(-61 * time.Minute).UnixMilli())
	client.ZAdd(ctx, feedKey("reviews:since"), redis.Z{Score: long, Member: reviewMember})
	shareAt(store, time.Second, underReview)
	if due, since := scores(client, reviewMember); due != -1 || since != long {
		t.Errorf("due %v, since %v", due, since)
	}
	shareAt(store, 2*time.Second, blocked)
	shareAt(store, 3*time.Second, underReview)
	if due, since := scores(client, reviewMember); due == -1 || since <= long {
		t.Errorf("the next review: due %v, since %v", due, since)
	}
}

func TestReviewsAreBounded(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	store, client := reviewing(t, func(cfg *cache.Config) { cfg.Reviews.MaxTracked, cfg.Registerer = 64+1, registry })
	for i := range 3 { // two of a partition have room
		client.ZAdd(ctx, feedKey("reviews"), redis.Z{Score: 1, Member: string(rune('a' + i))})
	}
	shareAt(store, time.Second, underReview)
	if due, _ := scores(client, reviewMember); due != -1 || gathered(t, registry, "eligibility_reviews_untracked_total") != 1 {
		t.Errorf("listed, due %v", due)
	}
	client.ZRem(ctx, feedKey("reviews"), "a", "b")
	shareAt(store, 2*time.Second, underReview)
	client.ZAdd(ctx, feedKey("reviews"), redis.Z{Score: 1, Member: "a"})
	due, _ := scores(client, reviewMember)
	shareAt(store, 3*time.Second, underReview) // which is listed already
	if again, _ := scores(client, reviewMember); due == -1 || again == -1 || gathered(t, registry, "eligibility_reviews_untracked_total") != 1 {
		t.Errorf("due %v, then %v", due, again)
	}
}

// The keys may hold anything.
func TestReviewsAreBegunAnew(t *testing.T) {
	t.Parallel()
	for _, spoiled := range []string{"reviews", "reviews:since"} {
		store, client := reviewing(t, nil)
		client.Set(ctx, feedKey(spoiled), "x", 0)
		shareAt(store, time.Second, blocked) // must not fail either
		shareAt(store, 2*time.Second, underReview)
		if due, since := scores(client, reviewMember); due == -1 || since == -1 {
			t.Errorf("%s: due %v, since %v", spoiled, due, since)
		}
	}
	store, client := reviewing(t, nil)
	client.ZAdd(ctx, feedKey("reviews:since"), redis.Z{Score: 1e15, Member: reviewMember})
	shareAt(store, time.Second, underReview)
	if _, since := scores(client, reviewMember); since > float64(time.Now().UnixMilli()) {
		t.Errorf("since %v", since)
	}
}
