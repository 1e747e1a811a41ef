package cache

import (
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
