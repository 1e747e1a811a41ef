package cache_test

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/identity"
	"github.com/eligibilityd/eligibilityd/internal/identity/identitytest"
)

// identified makes servers that admit the identity of the endpoint by its tokens,
// as Azure Managed Redis does, and only by the last few of them.
func identified(t *testing.T, endpoint *identitytest.Endpoint, servers func() []*cachetest.Redis) {
	t.Helper()
	var mu sync.Mutex
	var valid []string
	endpoint.OnIssue(func(token string) {
		mu.Lock()
		defer mu.Unlock()
		rules := []any{identitytest.ObjectID, "on", "~*", "&*", "+@all", ">" + token}
		if valid = append(valid, token); len(valid) > 20 {
			rules = append(rules, "<"+valid[0])
			valid = valid[1:]
		}
		for _, server := range servers() {
			client := server.Client()
			_ = client.Do(context.Background(), append([]any{"ACL", "SETUSER"}, rules...)...).Err() // a stopped server learns nothing
			_ = client.Close()
		}
	})
}

// stat returns a number of INFO of a server.
func stat(t *testing.T, server *cachetest.Redis, section, name string) int {
	t.Helper()
	client := server.Client()
	defer func() { _ = client.Close() }()
	info, err := client.Info(context.Background(), section).Result()
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(info, name)
	number := strings.TrimLeft(rest, ":cals=")
	number = number[:max(strings.IndexFunc(number, func(r rune) bool { return r < '0' || r > '9' }), 0)]
	n, _ := strconv.Atoi(number) // absent: 0
	return n
}

func total(t *testing.T, servers []*cachetest.Redis, section, name string) (sum int) {
	t.Helper()
	for _, server := range servers {
		sum += stat(t, server, section, name)
	}
	return sum
}

// With each new token, open connections are authenticated again, and no command
// fails.
func TestTokensAreRenewedOnOpenConnections(t *testing.T) { //nolint:paralleltest // it changes the environment
	certificates := cachetest.NewTLS(t)
	server := certificates.StartRedis(t)
	after := renewsTokens(t, certificates, cache.RedisConfig{Addresses: []string{server.Address}}, []*cachetest.Redis{server})
	if after < 2 {
		t.Errorf("%d connections were authenticated again", after)
	}
}

// renewsTokens uses a store while its tokens change, and returns how many connections
// were authenticated again.
func renewsTokens(t *testing.T, certificates *cachetest.TLS, cfg cache.RedisConfig, servers []*cachetest.Redis) (again int) {
	t.Helper()
	endpoint := identitytest.Start(t)
	endpoint.SetLifetime(4 * time.Second) // then tokens are requested every half second
	identified(t, endpoint, func() []*cachetest.Redis { return servers })
	cfg.TLS, cfg.EntraID = certificates.Client(t), new(identity.Tokens)
	cfg.ReadTimeout, cfg.WriteTimeout = 5*time.Second, 5*time.Second // for a busy machine
	registry := prometheus.NewRegistry()
	store := running(t, cache.Config{Redis: cfg, Registerer: registry})
	await(t, "heartbeats", store.Works)
	uses(t, store, "by a token")
	before, faults := total(t, servers, "commandstats", "cmdstat_auth:"), gathered(t, registry, faultsTotal)
	issued := len(endpoint.Issued())
	await(t, "renewals", func() bool {
		uses(t, store, "while tokens change")
		return len(endpoint.Issued()) > issued+3
	})
	if after := gathered(t, registry, faultsTotal); after != faults {
		t.Errorf("%v faults while tokens change", after-faults)
	}
	inUse(t, servers, "user="+identitytest.ObjectID)
	return total(t, servers, "commandstats", "cmdstat_auth:") - before
}

// While no token can be obtained, open connections stay in use, a subscription that
// the server ends comes back, and nothing is sent without credentials.
func TestRedisWithoutATokenHost(t *testing.T) { //nolint:paralleltest // it changes the environment
	endpoint := identitytest.Start(t)
	certificates := cachetest.NewTLS(t)
	server := certificates.StartRedis(t)
	identified(t, endpoint, func() []*cachetest.Redis { return []*cachetest.Redis{server} })
	cfg := cache.RedisConfig{
		Addresses: []string{server.Address}, TLS: certificates.Client(t), EntraID: new(identity.Tokens),
		ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second,
	}
	for name, answer := range map[string]http.HandlerFunc{"failing": identitytest.Fails(500), "refusing": identitytest.Fails(400), "hanging": identitytest.Hang} {
		endpoint.Break(answer)
		before := stat(t, server, "commandstats", "cmdstat_hello") + stat(t, server, "commandstats", "cmdstat_auth:")
		store := running(t, cache.Config{Redis: cfg})
		for range 5 {
			if found := load(store); found.Evidence != nil {
				t.Errorf("%s: %+v", name, found)
			}
		}
		if after := stat(t, server, "commandstats", "cmdstat_hello") + stat(t, server, "commandstats", "cmdstat_auth:"); after > before+2 { // those of stat itself
			t.Errorf("%s: %d commands without a token", name, after-before)
		}
	}
	endpoint.Break(nil)
	store := running(t, cache.Config{Redis: cfg})
	await(t, "heartbeats", store.Works)
	for _, answer := range []http.HandlerFunc{identitytest.Fails(500), identitytest.Hang} {
		endpoint.Break(answer)
		uses(t, store, "by open connections")
		client := server.Client()
		if err := client.Do(context.Background(), "CLIENT", "KILL", "TYPE", "pubsub").Err(); err != nil {
			t.Error(err)
		}
		_ = client.Close()
		await(t, "a subscription again", func() bool {
			return strings.Contains(clients(t, server, "pubsub"), "user="+identitytest.ObjectID)
		})
	}
}

// clients is the list of the clients of a type.
func clients(t *testing.T, server *cachetest.Redis, kind string) string {
	t.Helper()
	client := server.Client()
	defer func() { _ = client.Close() }()
	list, err := client.Do(context.Background(), "CLIENT", "LIST", "TYPE", kind).Text()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// A token for one connection is enough for a look by a command.
func TestClientsForDiagnosisHaveATokenEach(t *testing.T) { //nolint:paralleltest // it changes the environment
	endpoint := identitytest.Start(t)
	certificates := cachetest.NewTLS(t)
	server := certificates.StartRedis(t)
	identified(t, endpoint, func() []*cachetest.Redis { return []*cachetest.Redis{server} })
	cfg := cache.RedisConfig{Addresses: []string{server.Address}, TLS: certificates.Client(t), EntraID: new(identity.Tokens)}
	client, err := cache.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if user, err := client.Do(t.Context(), "ACL", "WHOAMI").Text(); err != nil || user != identitytest.ObjectID {
		t.Errorf("%s, %v", user, err)
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	for _, invalid := range []cache.RedisConfig{
		{Addresses: cfg.Addresses, EntraID: cfg.EntraID},
		{Addresses: cfg.Addresses, EntraID: cfg.EntraID, TLS: cfg.TLS, Password: "p"},
		{Addresses: cfg.Addresses, EntraID: cfg.EntraID, TLS: cfg.TLS, Username: "u"},
	} {
		if _, err := cache.Connect(invalid); err == nil {
			t.Errorf("%+v is valid", invalid)
		}
	}
}
