package cache_test

import (
	"context"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
)

func TestNewMakesNoConnection(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	for _, mode := range []cache.RedisMode{cache.RedisStandalone, cache.RedisSentinel, cache.RedisCluster} {
		newStore(t, cache.Config{Redis: cache.RedisConfig{
			Mode: mode, Addresses: []string{listener.Addr().String()}, MasterName: "gate",
		}})
	}
	if err := listener.(*net.TCPListener).SetDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if conn, err := listener.Accept(); err == nil {
		_ = conn.Close()
		t.Error("New connected to Redis")
	}
}

// Only the right user with the right password may write, to these keys alone.
func TestRedisOptionsArrive(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	ctx := context.Background()
	const password, db = "of the user", 3
	setup := server.Client()
	defer func() { _ = setup.Close() }()
	for _, command := range [][]any{
		{"ACL", "SETUSER", "gate", "on", ">" + password, "~mine:v2:*", "&mine:v2:*", "+@all"},
		{"ACL", "SETUSER", "default", "resetpass", ">of the server", "~*", "+@all"},
	} {
		if err := setup.Do(ctx, command...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	options := *setup.Options()
	options.Password, options.DB = "of the server", db
	client := redis.NewClient(&options)
	defer func() { _ = client.Close() }()

	cfg := sharing(server, "mine")
	cfg.Redis.Username, cfg.Redis.Password, cfg.Redis.DB, cfg.Redis.Namespace = "gate", password, db, "a{b}c"
	newStore(t, cfg).Share(ctx, key, allowed(time.Now()), time.Now().Add(time.Hour))
	keys, err := client.Keys(ctx, "*").Result()
	slices.Sort(keys)
	want := []string{
		"mine:v2:a_b_c:{" + cache.PartitionTag(key) + "}:abcd0000000000000000000000000000:account",
		"mine:v2:a_b_c:{" + cache.PartitionTag(key) + "}:abcd0000000000000000000000000000:account:confirmed",
		"mine:v2:a_b_c:{" + cache.PartitionTag(key) + "}:abcd0000000000000000000000000000:account:history",
		"mine:v2:a_b_c:{" + cache.PartitionTag(key) + "}:feed",
	}
	if diff := cmp.Diff(want, keys); diff != "" || err != nil {
		t.Errorf("keys in database %d: %v (-want +got):\n%s", db, err, diff)
	}

	cfg.Redis.Username, cfg.Redis.Password, cfg.Redis.KeyPrefix = "", "of the server", ""
	newStore(t, cfg).Share(ctx, key, allowed(time.Now()), time.Now().Add(time.Hour))
	if n := client.Exists(ctx, "eligibility:v2:a_b_c:{"+cache.PartitionTag(key)+"}:abcd0000000000000000000000000000:account").Val(); n != 1 {
		t.Error("without a user and a prefix, the server's password and the default prefix were not used")
	}
}

// A server that keeps its connections and answers nothing costs the budget and
// no more, whatever the other operation's budget is.
func TestStalledRedisCostsTheBudget(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ read, write, least, most time.Duration }{
		"as in production": {most: time.Second},
		"long writes":      {write: 10 * time.Second, most: time.Second},
		"long reads":       {read: 400 * time.Millisecond, least: 400 * time.Millisecond, most: 10 * time.Second},
	} {
		t.Run("loads, "+name, func(t *testing.T) {
			t.Parallel()
			store := stalled(t, row.read, row.write)
			began := time.Now()
			for range 4 {
				load(store)
			}
			if took := time.Since(began); took < 4*row.least || took > row.most {
				t.Errorf("4 loads took %v, want %v to %v", took, 4*row.least, row.most)
			}
		})
	}
	for name, row := range map[string]struct{ read, write, least, most time.Duration }{
		"as in production": {most: time.Second},
		"long reads":       {read: 10 * time.Second, most: time.Second},
		"long writes":      {write: 400 * time.Millisecond, least: 400 * time.Millisecond, most: 5 * time.Second},
	} {
		t.Run("shares, "+name, func(t *testing.T) {
			t.Parallel()
			store := stalled(t, row.read, row.write)
			began := time.Now()
			store.Share(context.Background(), key, allowed(began), began.Add(time.Hour))
			if took := time.Since(began); took < row.least || took > row.most {
				t.Errorf("took %v, want %v to %v", took, row.least, row.most)
			}
		})
	}
}

// stalled is a store with a warm connection to a server that stopped answering.
func stalled(t *testing.T, read, write time.Duration) *cache.Store {
	t.Helper()
	server := cachetest.StartRedis(t)
	cfg := sharing(server, "p")
	cfg.Redis.ReadTimeout, cfg.Redis.WriteTimeout = read, write
	store := newStore(t, cfg)
	load(store)
	server.Stall()
	t.Cleanup(server.Resume)
	return store
}
