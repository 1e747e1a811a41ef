package cache_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/allowance"
	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
)

func newAllowances(t *testing.T, cfg cache.RedisConfig) *cache.Allowances {
	t.Helper()
	connections, err := cache.Connect(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connections.Close() })
	shared, err := cache.NewAllowances(cfg, connections, nil)
	if err != nil {
		t.Fatal(err)
	}
	return shared
}

func patientRedis(server *cachetest.Redis) cache.RedisConfig {
	return cache.RedisConfig{Addresses: []string{server.Address}, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second}
}

// newReplica returns the new customers of one caller in a process of its own.
func newReplica(t *testing.T, cfg cache.RedisConfig, caller string, perMinute int) *allowance.NewCustomers {
	t.Helper()
	callers, err := allowance.New(allowance.Config{
		Default: allowance.Limit{NewCustomersPerMinute: perMinute, NewCustomers: allowance.BoundWithoutBatch}, Shared: newAllowances(t, cfg),
	})
	if err != nil {
		t.Fatal(err)
	}
	return callers.Of(caller).NewCustomers(false)
}

// take asks about n customers, starting with the one of that number, and counts those
// that were granted.
func take(t *testing.T, from *allowance.NewCustomers, first, n int) (granted int) {
	t.Helper()
	for i := first; i < first+n; i++ {
		ok, retryAfter := from.Take(t.Context(), allowance.Customer{ID: [16]byte{byte(i), byte(i >> 8)}}) //nolint:gosec // its low bytes
		switch {
		case ok:
			granted++
		case retryAfter <= 0 || retryAfter > allowance.Window:
			t.Fatalf("refused for %v", retryAfter)
		}
	}
	return granted
}

// Replicas count the new customers of a caller together, and those of another caller
// apart.
func TestReplicasShareNewCustomers(t *testing.T) {
	t.Parallel()
	cfg := patientRedis(cachetest.StartRedis(t))
	total := 0
	for replica := range 3 {
		total += take(t, newReplica(t, cfg, "checkout", 20), replica*100, 15)
	}
	if total != 20 {
		t.Errorf("three replicas granted %d of 20", total)
	}
	if n := take(t, newReplica(t, cfg, "basket", 20), 0, 30); n != 20 {
		t.Errorf("another caller got %d of 20", n)
	}
}

func TestNewCustomersOnACluster(t *testing.T) {
	t.Parallel()
	cfg := onCluster(cachetest.StartCluster(t))
	cfg.ReadTimeout, cfg.WriteTimeout = 5*time.Second, 5*time.Second
	for caller := range 10 { // on several nodes
		name := fmt.Sprint("caller ", caller)
		if n := take(t, newReplica(t, cfg, name, 5), 0, 4) + take(t, newReplica(t, cfg, name, 5), 100, 4); n != 5 {
			t.Errorf("%s: two replicas granted %d of 5", name, n)
		}
	}
}

// Without Redis each replica counts alone; when Redis is back, even without its
// scripts and contents, they count together.
func TestNewCustomersWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	cfg := patientRedis(server)
	a, b := newReplica(t, cfg, "checkout", 10), newReplica(t, cfg, "checkout", 10)
	if n := take(t, a, 0, 3); n != 3 {
		t.Fatalf("%d of 3", n)
	}
	server.Kill()
	if n := take(t, a, 100, 20); n != 7 {
		t.Errorf("without Redis %d, want the 7 that are left", n)
	}
	if n := take(t, b, 200, 20); n != 10 {
		t.Errorf("without Redis the other replica granted %d of 10", n)
	}
	server.Start()
	client := server.Client()
	if err := client.ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	shared := newAllowances(t, cfg)
	for i := range 12 {
		granted, _, err := shared.TakeNewCustomer(t.Context(), "checkout", 10)
		if err != nil || granted != (i < 10) {
			t.Fatalf("place %d after the restart: %v, %v", i, granted, err)
		}
	}
	c := newReplica(t, cfg, "checkout", 10)
	if n := take(t, c, 300, 5); n != 0 {
		t.Errorf("%d beyond what Redis counts", n)
	}
}

// A Redis that hangs or refuses writes delays a new customer by no more than the
// timeout of a write, and leaves it to the count of the process.
func TestNewCustomersWhileRedisHangsOrRefuses(t *testing.T) {
	t.Parallel()
	for _, code := range append(cachetest.Refusals(), "hangs") {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			server := cachetest.StartRedis(t)
			cfg := cache.RedisConfig{Addresses: []string{server.Address}}
			replica := newReplica(t, cfg, "checkout", 10)
			if code == "hangs" {
				server.Stall()
				defer server.Resume()
			} else {
				server.RefuseWrites(code)
			}
			began := time.Now()
			if n := take(t, replica, 0, 20); n != 10 {
				t.Errorf("granted %d of 10", n)
			}
			// Ten timeouts of 100 ms at most, of which the circuit breaker saves half.
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// The ring expires, holds no name, and is repaired whatever it holds.
func TestADamagedRingIsRepaired(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	client, ctx := server.Client(), t.Context()
	shared := newAllowances(t, patientRedis(server))
	key := shared.AllowanceKey("checkout")
	if strings.Contains(key, "checkout") || !strings.HasPrefix(key, "eligibility:v2:callers:{") {
		t.Errorf("key %s", key)
	}
	takes := func(what string, n, want int) {
		t.Helper()
		granted := 0
		for range n {
			ok, wait, err := shared.TakeNewCustomer(ctx, "checkout", 5)
			if err != nil || wait < 0 || wait > allowance.Window {
				t.Fatalf("%s: %v, %v", what, wait, err)
			}
			if ok {
				granted++
			}
		}
		if granted != want {
			t.Errorf("%s: %d of %d, want %d", what, granted, n, want)
		}
		if left := client.PTTL(ctx, key).Val(); left <= 0 || left > allowance.Window {
			t.Errorf("%s: lives for %v", what, left)
		}
	}
	takes("as it should be", 8, 5)
	for _, value := range []string{"", "x", "nan", "-nan", "inf", "-inf", "-1", "1e300", "0x10", "1.5", "\x00", strings.Repeat("9", 5000), fmt.Sprint(time.Now().Add(time.Hour).UnixMicro())} {
		client.Del(ctx, key)
		for place := range 5 {
			client.HSet(ctx, key, place, value)
		}
		client.HSet(ctx, key, "next", value)
		takes(fmt.Sprintf("%.20q", value), 12, 5)
	}
	client.Del(ctx, key)
	client.Set(ctx, key, "a string", 0)
	takes("a string", 8, 5)
}

// The clock of the replica counts only if the server's may not be asked. Set back, it
// starts the count anew; a little behind that of another replica, it does not.
func TestNewCustomersWithoutTheServersClock(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	ctx := t.Context()
	shared := newAllowances(t, patientRedis(server))
	now := time.Now()
	shared.SetClock(func() time.Time { return now })
	takes := func(n, want int, what string) {
		t.Helper()
		granted := 0
		for range n {
			ok, _, err := shared.TakeNewCustomer(ctx, "checkout", 5)
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				granted++
			}
		}
		if granted != want {
			t.Errorf("%s: %d of %d, want %d", what, granted, n, want)
		}
	}
	takes(8, 5, "by the server's clock")
	now = now.Add(10 * time.Hour)
	takes(8, 0, "a wrong clock of the replica")
	now = now.Add(-10 * time.Hour)
	if err := server.Client().Do(ctx, "acl", "setuser", "default", "-time").Err(); err != nil {
		t.Fatal(err)
	}
	now = time.Now().Add(-3 * time.Second)
	takes(8, 0, "a clock that is a little behind")
	now = time.Now().Add(allowance.Window + time.Second)
	takes(8, 5, "a window later")
	now = now.Add(-time.Hour)
	takes(8, 5, "a clock that was set back by an hour")
	takes(8, 0, "after that")
}
