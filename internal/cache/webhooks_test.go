package cache_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/webhooks"
)

const webhook = "orders"

func newWebhooks(t *testing.T, server *cachetest.Redis, integrityKey string) *cache.Webhooks {
	t.Helper()
	cfg := cache.RedisConfig{Addresses: []string{server.Address}, Namespace: "test", IntegrityKey: []byte(integrityKey)}
	client, err := cache.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	w, err := cache.NewWebhooksOn(cfg, client, nil)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func acquireWebhook(t *testing.T, w *cache.Webhooks, holder string, life time.Duration) webhooks.Status {
	t.Helper()
	status, err := w.Acquire(t.Context(), webhook, holder, life, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return status
}

func commitWebhook(t *testing.T, w *cache.Webhooks, holder string, c webhooks.Commit) {
	t.Helper()
	if err := w.Commit(t.Context(), webhook, holder, c); err != nil {
		t.Fatal(err)
	}
}

func letter(id string, order int64) webhooks.Record {
	return webhooks.Record{ID: id, Order: order, Value: []byte("letter " + id)}
}

func parkedIDs(t *testing.T, w *cache.Webhooks) []string {
	t.Helper()
	records, err := w.Parked(t.Context(), webhook)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, r := range records {
		if string(r.Value) == "letter "+r.ID {
			ids = append(ids, r.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

func TestTheLeaseOfAWebhook(t *testing.T) {
	t.Parallel()
	w := newWebhooks(t, cachetest.StartRedis(t), "")
	if status := acquireWebhook(t, w, "a 1", 300*time.Millisecond); !status.Held || status.Holder != "a 1" || status.State != nil {
		t.Errorf("a free lease: %+v", status)
	}
	if status := acquireWebhook(t, w, "b 2", time.Minute); status.Held || status.Holder != "a 1" {
		t.Errorf("a lease of another: %+v", status)
	}
	if err := w.Commit(t.Context(), webhook, "b 2", webhooks.Commit{State: []byte("b")}); !errors.Is(err, webhooks.ErrNotHeld) {
		t.Errorf("a commit without the lease: %v", err)
	}
	commitWebhook(t, w, "a 1", webhooks.Commit{State: []byte("one")})
	if err := w.Release(t.Context(), webhook, "b 2"); err != nil {
		t.Error(err)
	}
	deadline := time.Now().Add(time.Minute)
	for !acquireWebhook(t, w, "b 2", time.Minute).Held { // until the lease has expired
		if time.Now().After(deadline) {
			t.Fatal("the lease did not expire")
		}
	}
	if err := w.Commit(t.Context(), webhook, "a 1", webhooks.Commit{State: []byte("late")}); !errors.Is(err, webhooks.ErrNotHeld) {
		t.Errorf("a commit after the lease was lost: %v", err)
	}
	if status := acquireWebhook(t, w, "b 2", time.Minute); string(status.State) != "one" {
		t.Errorf("state %q", status.State)
	}
	if err := w.Release(t.Context(), webhook, "b 2"); err != nil {
		t.Error(err)
	}
	if status, err := w.Inspect(t.Context(), webhook); err != nil || status.Holder != "" || status.Held || string(status.State) != "one" {
		t.Errorf("after the release: %+v, error %v", status, err)
	}
}

// A tool that copies Redis may leave out when keys expire.
func TestALeaseOfAWebhookThatNeverEndsIsNone(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	w, client := newWebhooks(t, server, ""), server.Client()
	defer func() { _ = client.Close() }()
	for _, life := range []time.Duration{0, time.Hour} { // 0 is for ever
		acquireWebhook(t, w, "b 2", time.Minute)
		keys, err := client.Keys(t.Context(), "*webhook:*:lease").Result()
		if err != nil || len(keys) != 1 {
			t.Fatal(keys, err)
		}
		if err := client.Set(t.Context(), keys[0], "a 1", life).Err(); err != nil {
			t.Fatal(err)
		}
		if status, err := w.Inspect(t.Context(), webhook); err != nil || status.Holder != "" {
			t.Errorf("a lease of %v: holder %q, error %v", life, status.Holder, err)
		}
		if status := acquireWebhook(t, w, "b 2", time.Minute); !status.Held || status.Holder != "b 2" {
			t.Errorf("a lease of %v keeps others from sending: %+v", life, status)
		}
	}
}

func TestTheLettersOfAWebhook(t *testing.T) {
	t.Parallel()
	w := newWebhooks(t, cachetest.StartRedis(t), "0123456789abcdef0123456789abcdef")
	acquireWebhook(t, w, "me", time.Minute)
	commitWebhook(t, w, "me", webhooks.Commit{Park: []webhooks.Record{letter("1", 0), letter("2", 0), letter("3", 0)}})
	commitWebhook(t, w, "me", webhooks.Commit{Bury: []webhooks.Record{letter("2", 7), letter("4", 6)}, Remove: []string{"1"}})
	if diff := cmp.Diff([]string{"3"}, parkedIDs(t, w)); diff != "" {
		t.Errorf("parked (-want +got):\n%s", diff)
	}
	dead, err := w.Dead(t.Context(), webhook, 10)
	if err != nil || len(dead) != 2 || dead[0].ID != "4" || string(dead[0].Value) != "letter 4" {
		t.Errorf("dead %v, error %v", dead, err)
	}
	moved, left, err := w.Replay(t.Context(), webhook, []string{"2", "none"}, false)
	if moved != 1 || left != 0 || err != nil {
		t.Errorf("replay of one: %d, %d, %v", moved, left, err)
	}
	moved, left, err = w.Replay(t.Context(), webhook, nil, true)
	if moved != 1 || left != 0 || err != nil {
		t.Errorf("replay of all: %d, %d, %v", moved, left, err)
	}
	if diff := cmp.Diff([]string{"2", "3", "4"}, parkedIDs(t, w)); diff != "" {
		t.Errorf("parked (-want +got):\n%s", diff)
	}
	if status := acquireWebhook(t, w, "me", time.Minute); status.Generation != 2 || status.Parked != 3 || status.Dead != 0 {
		t.Errorf("%+v", status)
	}
}

func TestDeadLettersInRedisAreBounded(t *testing.T) {
	t.Parallel()
	w := newWebhooks(t, cachetest.StartRedis(t), "")
	acquireWebhook(t, w, "me", time.Hour)
	var batch []webhooks.Record
	for n := range webhooks.MaxDead + 5 {
		if batch = append(batch, letter(fmt.Sprint(n), int64(n))); len(batch) == 1000 || n == webhooks.MaxDead+4 {
			commitWebhook(t, w, "me", webhooks.Commit{Bury: batch})
			batch = nil
		}
	}
	if status := acquireWebhook(t, w, "me", time.Hour); status.Dead != webhooks.MaxDead || status.Dropped != 5 {
		t.Errorf("%+v", status)
	}
	if dead, err := w.Dead(t.Context(), webhook, 1); err != nil || dead[0].ID != "5" {
		t.Errorf("the oldest is %v, error %v", dead, err)
	}
	moved, left, err := w.Replay(t.Context(), webhook, nil, true)
	if moved != webhooks.MaxParked || left != 0 || err != nil {
		t.Errorf("replay of all: %d, %d, %v", moved, left, err)
	}
	if n := len(parkedIDs(t, w)); n != webhooks.MaxParked {
		t.Errorf("%d are parked", n)
	}
	commitWebhook(t, w, "me", webhooks.Commit{Bury: []webhooks.Record{letter("more", 1)}})
	if moved, left, err := w.Replay(t.Context(), webhook, []string{"more"}, false); moved != 0 || left != 1 || err != nil {
		t.Errorf("replay without room: %d, %d, %v", moved, left, err)
	}
}

// Who can write to Redis can neither make a letter nor pass one off as another, nor
// choose the position.
func TestForgedLettersOfAWebhookAreUnreadable(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"", "0123456789abcdef0123456789abcdef"} {
		server := cachetest.StartRedis(t)
		w := newWebhooks(t, server, key)
		acquireWebhook(t, w, "me", time.Minute)
		commitWebhook(t, w, "me", webhooks.Commit{State: []byte("state"), Park: []webhooks.Record{letter("1", 0), letter("2", 0)}})
		client := server.Client()
		t.Cleanup(func() { _ = client.Close() })
		hash := func(part string) string {
			keys, err := client.Keys(t.Context(), "*webhook:"+webhook+":"+part).Result()
			if err != nil || len(keys) != 1 {
				t.Fatal(keys, err)
			}
			return keys[0]
		}
		one := client.HGet(t.Context(), hash("letters"), "1").Val()
		client.HSet(t.Context(), hash("letters"), "2", one, "3", "letter 3")
		client.ZAdd(t.Context(), hash("parked"), zs("3", "4")...)
		client.HSet(t.Context(), hash("state"), "state", one)
		records, err := w.Parked(t.Context(), webhook)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if got := string(r.Value); r.ID == "1" && got != "letter 1" || r.ID != "1" && r.Value != nil {
				t.Errorf("key %q: letter %s is %q", key, r.ID, got)
			}
		}
		if status := acquireWebhook(t, w, "me", time.Minute); status.State != nil {
			t.Errorf("key %q: state %q", key, status.State)
		}
		if other := newWebhooks(t, server, "fedcba9876543210fedcba9876543210"); len(parkedIDs(t, other)) != 0 {
			t.Errorf("key %q: another key reads the letters", key)
		}
	}
}

func TestTheKeysOfAWebhookShareASlotAndHaveABound(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	w := newWebhooks(t, server, "")
	acquireWebhook(t, w, "me", time.Minute)
	commitWebhook(t, w, "me", webhooks.Commit{State: []byte("s"), Park: []webhooks.Record{letter("1", 0)}, Bury: []webhooks.Record{letter("2", 0)}})
	client := server.Client()
	defer func() { _ = client.Close() }()
	keys, err := client.Keys(t.Context(), "*").Result()
	if err != nil || len(keys) != 5 {
		t.Fatal(keys, err)
	}
	for _, key := range keys {
		tag := func(key string) string { return key[strings.IndexByte(key, '{'):strings.IndexByte(key, '}')] }
		if tag(key) != tag(keys[0]) {
			t.Errorf("%s is not in the slot of %s", key, keys[0])
		}
		if life, err := client.PTTL(t.Context(), key).Result(); err != nil || life <= 0 {
			t.Errorf("%s lives %v, error %v", key, life, err)
		}
	}
}

func TestKeysOfAWebhookOfAnotherTypeAreReplaced(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	w := newWebhooks(t, server, "")
	acquireWebhook(t, w, "me", time.Minute)
	client := server.Client()
	defer func() { _ = client.Close() }()
	for _, part := range []string{"lease", "state", "parked", "dead", "letters"} {
		keys, err := client.Keys(t.Context(), "*webhook:*:lease").Result()
		if err != nil || len(keys) != 1 {
			t.Fatal(keys, err)
		}
		key := strings.TrimSuffix(keys[0], "lease") + part
		client.Del(t.Context(), key)
		client.RPush(t.Context(), key, "a list")
		c := webhooks.Commit{State: []byte("s"), Park: []webhooks.Record{letter("1", 0)}, Bury: []webhooks.Record{letter("2", 0)}}
		var failed error
		for range 2 {
			if _, failed = w.Acquire(t.Context(), webhook, "me", time.Minute, time.Time{}); failed == nil {
				failed = w.Commit(t.Context(), webhook, "me", c)
			}
		}
		if failed != nil {
			t.Errorf("%s: %v", part, failed)
		}
	}
}

func TestAKeyOfAnotherTypeCostsNoOther(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	w := newWebhooks(t, server, "")
	client := server.Client()
	defer func() { _ = client.Close() }()
	acquireWebhook(t, w, "me", time.Minute)
	commitWebhook(t, w, "me", webhooks.Commit{State: []byte("s"), Park: []webhooks.Record{letter("1", 0)}})
	keys, err := client.Keys(t.Context(), "*webhook:*:lease").Result()
	if err != nil || len(keys) != 1 {
		t.Fatal(keys, err)
	}
	client.RPush(t.Context(), strings.TrimSuffix(keys[0], "lease")+"dead", "a list")
	if _, err := w.Acquire(t.Context(), webhook, "me", time.Minute, time.Time{}); err == nil {
		t.Error("a list was accepted")
	}
	status := acquireWebhook(t, w, "me", time.Minute)
	if string(status.State) != "s" || status.Parked != 1 || status.Dead != 0 || !slices.Equal(parkedIDs(t, w), []string{"1"}) {
		t.Errorf("%+v, letters %v", status, parkedIDs(t, w))
	}
}

// roundTrips counts the commands and pipelines of a client.
type roundTrips struct{ n atomic.Int64 }

func (r *roundTrips) DialHook(next redis.DialHook) redis.DialHook { return next }

func (r *roundTrips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		r.n.Add(1)
		return next(ctx, cmd)
	}
}

func (r *roundTrips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		r.n.Add(1)
		return next(ctx, cmds)
	}
}

// A holder reads what is parked before it renews its lease of 5 s.
func TestParkedLettersAreReadInFewRoundTrips(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	cfg := cache.RedisConfig{Addresses: []string{server.Address}, Namespace: "test"}
	client, err := cache.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	w, err := cache.NewWebhooksOn(cfg, client, nil)
	if err != nil {
		t.Fatal(err)
	}
	acquireWebhook(t, w, "me", time.Minute)
	var want []string
	for range 50 {
		var c webhooks.Commit
		for range 200 {
			id := fmt.Sprintf("%05d", len(want))
			want, c.Park = append(want, id), append(c.Park, letter(id, 0))
		}
		commitWebhook(t, w, "me", c)
	}
	count := &roundTrips{}
	client.AddHook(count)
	if got := parkedIDs(t, w); !slices.Equal(got, want) {
		t.Errorf("%d letters of %d", len(got), len(want))
	}
	if n := count.n.Load(); n > 50 {
		t.Errorf("%d round trips", n)
	}
}

func zs(ids ...string) []redis.Z {
	members := make([]redis.Z, len(ids))
	for i, id := range ids {
		members[i] = redis.Z{Member: id}
	}
	return members
}
