package cache

import (
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// All evidence here is of one fetch time, so that only its key decides whether a value
// is what the local tier holds.
func TestKnownEvidenceIsThatOfItsKey(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	store, err := New(Config{Redis: RedisConfig{Addresses: []string{server.Address}, ReadTimeout: 10 * time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	client := server.Client()
	defer func() { _ = client.Close() }()
	now := time.Now()
	var keys []eligibility.Key
	var want []*eligibility.Evidence
	for i := range 2 * knownAtOnce {
		of, evidence := both(i, now)
		for facet, key := range of {
			if (i+facet)%5 == 0 {
				continue
			}
			evidence[facet].CorrelationID = reviewMember(key)
			if err := client.Set(t.Context(), store.redis.keys.of(key), encode(key, evidence[facet]), 0).Err(); err != nil {
				t.Fatal(err)
			}
			if i%3 > 0 {
				store.Put(key, evidence[facet])
				want = append(want, evidence[facet])
			} else {
				want = append(want, nil)
			}
			keys = append(keys, key)
		}
	}
	for i, found := range store.redis.load(t.Context(), keys, store.local) {
		if found.evidence == nil || found.evidence.CorrelationID != reviewMember(keys[i]) {
			t.Errorf("%v: found %+v", keys[i], found)
		}
		if want[i] != nil && found.evidence != want[i] {
			t.Errorf("%v was decoded again", keys[i])
		}
	}
}

// Two replicas may fetch different facts in the same millisecond. Whichever of them
// this process holds, the stricter counts after a read of Redis.
func TestTheStricterOfAMillisecondCounts(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	client := server.Client()
	defer func() { _ = client.Close() }()
	now := time.Now().Truncate(time.Millisecond)
	status := func(status eligibility.AccountStatus, text string) *eligibility.Evidence {
		return &eligibility.Evidence{Status: status, StatusText: text, CorrelationID: "of " + text, FetchTime: now}
	}
	vetted := func(vetting string) *eligibility.Evidence {
		q, _ := eligibility.ParseQualification("Education", vetting, "", time.Time{})
		return &eligibility.Evidence{
			Facet: eligibility.FacetQualifications, Qualifications: []eligibility.Qualification{q}, CorrelationID: "of " + vetting, FetchTime: now,
		}
	}
	approved, denied := vetted("Approved"), vetted("Denied")
	none := status(eligibility.AccountStatusNone, "")
	allowed := status(eligibility.AccountStatusAllowed, "Allowed")
	blocked := status(eligibility.AccountStatusNotAllowed, "NotAllowed")
	review := status(eligibility.AccountStatusUnderReview, "UnderReview")
	notReady := status(eligibility.AccountStatusNotReady, "NotReady")
	absent := &eligibility.Evidence{Absence: eligibility.AbsenceNotFound, CorrelationID: "of none", FetchTime: now}
	// Evidence without an ID may be of any fetch.
	nameless := status(eligibility.AccountStatusAllowed, "Allowed")
	namelessBlock := status(eligibility.AccountStatusNotAllowed, "NotAllowed")
	nameless.CorrelationID, namelessBlock.CorrelationID = "", ""
	for name, row := range map[string]struct{ held, stored, want *eligibility.Evidence }{
		"the block in Redis":               {allowed, blocked, blocked},
		"the block here":                   {blocked, allowed, blocked},
		"no status here, block in Redis":   {none, blocked, blocked},
		"no status here, absence in Redis": {none, absent, absent},
		"the review in Redis":              {notReady, review, review},
		"the review here":                  {review, notReady, review},
		"the denial in Redis":              {approved, denied, denied},
		"the denial here":                  {denied, approved, denied},
		"no IDs, the block in Redis":       {nameless, namelessBlock, namelessBlock},
	} {
		key := eligibility.Key{CustomerID: accountKey.CustomerID, Facet: row.held.Facet}
		store, err := New(Config{Redis: RedisConfig{Addresses: []string{server.Address}, KeyPrefix: strings.ReplaceAll(name, " ", "-"), ReadTimeout: 10 * time.Second}})
		if err != nil {
			t.Fatal(err)
		}
		store.Put(key, row.held)
		if err := client.Set(t.Context(), store.redis.keys.of(key), encode(key, row.stored), 0).Err(); err != nil {
			t.Fatal(err)
		}
		found := store.Load(t.Context(), []eligibility.Key{key})[0].Evidence
		if found == nil || found.CorrelationID != row.want.CorrelationID || found.Status != row.want.Status {
			t.Errorf("%s: %+v", name, found)
		}
		_ = store.Close()
	}
}
