package cache_test

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
)

// documentedUser is an ACL user of that name, whose password is "word", with
// the rights of deploy/README.md and no others. If the document lists several users,
// about is a right that only the wanted one has.
func documentedUser(t *testing.T, name, about string) []any {
	t.Helper()
	text, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range regexp.MustCompile("(?s)```text\n(.*?)```").FindAllSubmatch(text, -1) {
		if strings.Contains(string(list[1]), about) {
			user := []any{name, "on", ">word"}
			for right := range strings.FieldsSeq(string(list[1])) {
				user = append(user, right)
			}
			return user
		}
	}
	t.Fatalf("docs/install.md names no rights %s", about)
	return nil
}

// The store does all it does as the users that are documented, with TLS both
// ways, whatever the topology.
func TestStoreAsDocumentedUsersOverTLS(t *testing.T) {
	t.Parallel()
	certificates := cachetest.NewTLS(t)
	for name, start := range map[string]func(t *testing.T) (cfg cache.RedisConfig, serving, watching []*cachetest.Redis){
		"standalone": func(t *testing.T) (cfg cache.RedisConfig, serving, watching []*cachetest.Redis) {
			t.Helper()
			server := certificates.StartRedis(t)
			return cache.RedisConfig{Addresses: []string{server.Address}}, []*cachetest.Redis{server}, nil
		},
		"sentinel": func(t *testing.T) (cfg cache.RedisConfig, serving, watching []*cachetest.Redis) {
			t.Helper()
			set := certificates.StartSentinel(t)
			return onSentinel(set), set.Servers, set.Sentinels
		},
		"cluster": func(t *testing.T) (cfg cache.RedisConfig, serving, watching []*cachetest.Redis) {
			t.Helper()
			cluster := certificates.StartCluster(t)
			return onCluster(cluster), cluster.Nodes, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, serving, watching := start(t)
			setUser(t, serving, documentedUser(t, "gate", "~eligibility:"))
			setUser(t, watching, documentedUser(t, "watcher", "sentinel|"))
			cfg.TLS = certificates.Client(t)
			cfg.Username, cfg.Password, cfg.SentinelUsername, cfg.SentinelPassword = "gate", "word", "watcher", "word"
			cfg.ReadTimeout, cfg.WriteTimeout = 5*time.Second, 5*time.Second // for a busy machine
			registry := prometheus.NewRegistry()
			store := newStore(t, cache.Config{Redis: cfg, Registerer: registry})
			uses(t, store, "as the documented user")
			if n := gathered(t, registry, faultsTotal); n != 0 {
				t.Errorf("%v faults", n)
			}
			noneDenied(t, append(serving, watching...))
			if len(watching) > 0 {
				inUse(t, watching, "user=watcher")
			}
			cfg.Password = "wrong"
			mustNotUse(t, "a wrong password", cfg)
		})
	}
}

func setUser(t *testing.T, servers []*cachetest.Redis, user []any) {
	t.Helper()
	for _, server := range servers {
		client := server.Client()
		if err := client.Do(context.Background(), append([]any{"ACL", "SETUSER"}, user...)...).Err(); err != nil {
			t.Fatal(err)
		}
		_ = client.Close()
	}
}

// noneDenied expects that no user tried what it may not do.
func noneDenied(t *testing.T, servers []*cachetest.Redis) {
	t.Helper()
	for _, server := range servers {
		client := server.Client()
		denied, err := client.ACLLog(context.Background(), 10).Result()
		if err != nil || len(denied) > 0 {
			t.Errorf("%s denied %+v, error %v", server.Address, denied, err)
		}
		_ = client.Close()
	}
}

func TestTLSIsHeldTo(t *testing.T) {
	t.Parallel()
	certificates, others := cachetest.NewTLS(t), cachetest.NewTLS(t)
	server := certificates.StartRedis(t)
	cfg := cache.RedisConfig{Addresses: []string{server.Address}, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second}

	cfg.TLS = certificates.Client(t)
	cfg.TLS.ServerName = "redis.example"
	uses(t, newStore(t, cache.Config{Redis: cfg}), "by the name in the certificate")
	cfg.TLS = certificates.Client(t)
	cfg.TLS.ServerName = "other.example"
	mustNotUse(t, "another name", cfg)
	cfg.TLS = others.Client(t)
	cfg.TLS.Certificates = certificates.Client(t).Certificates
	mustNotUse(t, "another authority", cfg)
	cfg.TLS = certificates.Client(t)
	cfg.TLS.Certificates = nil
	mustNotUse(t, "no certificate of the client's", cfg)
	cfg.TLS = nil
	mustNotUse(t, "no TLS", cfg)
}

// Handshakes ignore the context of a lookup.
func TestStalledRedisCostsTheBudgetOverTLS(t *testing.T) {
	t.Parallel()
	certificates := cachetest.NewTLS(t)
	server := certificates.StartRedis(t)
	store := newStore(t, cache.Config{Redis: cache.RedisConfig{Addresses: []string{server.Address}, TLS: certificates.Client(t)}})
	goesOn(t, store, "a stall over TLS", func() (undo func()) {
		server.Stall()
		for range 10 {
			load(store)
		}
		server.Resume()
		return func() {}
	})
}

// mustNotUse expects that no store gets through to Redis.
func mustNotUse(t *testing.T, why string, cfg cache.RedisConfig) {
	t.Helper()
	registry := prometheus.NewRegistry()
	store := newStore(t, cache.Config{Redis: cfg, Registerer: registry})
	store.Share(context.Background(), key, allowed(time.Now()), time.Now().Add(time.Hour))
	if found := load(store); found.Evidence != nil {
		t.Errorf("%s: %+v", why, found)
	}
	if n := gathered(t, registry, faultsTotal); n != 2 {
		t.Errorf("%s: %v faults, want 2", why, n)
	}
}
