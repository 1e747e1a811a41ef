package cache_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// feedKey is a key of the partition of key.
func feedKey(name string) string {
	return "p:v2:global:partner:{" + cache.PartitionTag(key) + "}:" + name
}

// shareAt shares evidence that was fetched d after start.
func shareAt(store *cache.Store, d time.Duration, evidence func(time.Time) *eligibility.Evidence) {
	fetched := start.Add(d)
	store.Share(context.Background(), key, evidence(fetched), fetched.Add(48*time.Hour))
}

func wantSteps(t *testing.T, store *cache.Store, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, steps(readAll(t, store.Feed()))); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

func TestTheFeedHasTheChangesOfFacts(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	cfg := at(server, start.Add(10*time.Second))
	one, two := newStore(t, cfg), newStore(t, cfg)
	shareAt(one, 1*time.Second, allowed)
	shareAt(two, 2*time.Second, allowed)         // the same facts
	shareAt(one, 3*time.Second, blocked)         // which believed 1 s to be stored
	shareAt(two, 2500*time.Millisecond, allowed) // older
	shareAt(two, 3*time.Second, allowed)         // of the same time
	shareAt(two, time.Hour, allowed)             // from the future
	shareAt(one, 4*time.Second, allowed)
	want := []string{"->Allowed1s", "Allowed2s>NotAllowed3s", "NotAllowed3s>Allowed4s"}
	wantSteps(t, one, want...)
	wantSteps(t, two, want...)
	entry := readAll(t, two.Feed())[1]
	if entry.Key != key || !entry.Change.After.SameFacts(blocked(start)) || entry.Change.Before.FetchTime.IsZero() {
		t.Errorf("%+v", entry.Change)
	}
	if id, outlives := one.Feed().ID(); !outlives {
		t.Error("does not outlive the process")
	} else if other, _ := two.Feed().ID(); other != id {
		t.Errorf("ids %x and %x", id, other)
	}
}

var _ = prometheus.NewRegistry
var _ = redis.Nil
var _ = fmt.Sprint
var _ = slices.Sort[[]int]
var _ = strings.Cut
