package app

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/budget"
	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

func TestMain(m *testing.M) {
	code := m.Run()
	err := goleak.Find()
	for range 5 { // go-redis takes a second to notice that a client was closed
		if err != nil {
			err = goleak.Find()
		}
	}
	if code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// usedElsewhere are the keys that do not pass through the five configurations
// below: key → who reads it.
var usedElsewhere = map[string]string{
	"server.grpc.address":                     "OpenListeners",
	"server.http.address":                     "OpenListeners",
	"server.admin.address":                    "OpenListeners",
	"server.probe.address":                    "OpenListeners",
	"server.insecure":                         "config.Load, which refuses listeners by it",
	"partner_center.client_secret_file":       "config.Load, which reads it into client_secret",
	"partner_center.client_certificate_file":  "config.Load, which reads it for KeyPair",
	"cache.redis.password_file":               "config.Load, which reads it into password",
	"cache.redis.sentinel.password_file":      "config.Load, which reads it into password",
	"cache.redis.tls.ca_file":                 "config.Load, which reads it for TLSConfig",
	"cache.redis.tls.certificate_file":        "config.Load, which reads it for TLSConfig",
	"cache.redis.tls.key_file":                "config.Load, which reads it for TLSConfig",
	"cache.redis.insecure":                    "config.Load, which refuses addresses by it",
	"cache.redis.integrity_key_file":          "config.Load, which reads it into integrity_key",
	"cache.redis.integrity_key_previous_file": "config.Load, which reads it into integrity_key_previous",
	"log.level":                               "NewLogger",
	"tracing.insecure":                        "config.Load, which refuses endpoints by it",
	"tracing.headers_file":                    "config.Load, which reads it into headers",
	"log.format":                              "NewLogger",
	"default_partner":                         "config.Load, which names the default",
	"policy.under_review":                     "nothing yet",
	"webhooks":                                "App.newWebhook",
	"metrics.otlp.insecure":                   "config.Load, which refuses endpoints by it",
	"metrics.otlp.headers_file":               "config.Load, which reads it into headers",
	"decision_log.customer_ids":               "App.newDecisions",
	"decision_log.hash_key_file":              "App.newDecisions",
	"console.enabled":                         "App.mountConsole",
	"console.oidc.issuer":                     "App.mountConsole",
	"console.oidc.client_id":                  "App.mountConsole",
	"console.oidc.client_secret_file":         "App.mountConsole",
}

// A key that is read and documented but goes nowhere is worse than no key.
func TestEveryKeyArrives(t *testing.T) {
	t.Parallel()
	arrived := func(cfg *config.Config) string {
		partner := cfg.Partners[0]
		client := ClientConfig(partner.PartnerCenter, zap.NewNop(), nil)
		calls := budgetConfig(cfg, partner, Build{}, new(cache.Store), nil)
		calls.Replica = budget.Replica{} // which names keys, and uses none
		store := cacheConfig(cfg, partner, zap.NewNop(), nil)
		chain := chainConfig(cfg, Build{}, zap.NewNop(), nil)
		front := serverConfig(cfg, zap.NewNop(), nil)
		service := ServiceConfig(cfg, partner, zap.NewNop(), nil)
		traces := tracingConfig(cfg, Build{}, zap.NewNop())
		metrics, decisions := metricsConfig(cfg, Build{}, nil, zap.NewNop()), decisionsConfig(cfg.DecisionLog, Build{}, nil, nil)
		client.Logger, store.Logger, chain.Logger, front.Logger, service.Logger, traces.Logger, metrics.Logger = nil, nil, nil, nil, nil, nil, nil
		encrypted, serverName := store.Redis.TLS != nil, ""
		if encrypted {
			serverName, store.Redis.TLS = store.Redis.TLS.ServerName, nil // which would print its address
		}
		auth, limits := AccessConfig(cfg.Auth, zap.NewNop(), nil), limitsConfig(cfg, nil)
		auth.Logger = nil
		return fmt.Sprintf("%+v %+v %+v %+v %+v %+v %+v %+v %v %s %+v %+v %+v %+v", restConfig(cfg), client, calls, store, chain, front, service, traces, encrypted, serverName, auth, limits, metrics, decisions)
	}
	seen := 0
	eachKey(config.Default(), func(key string, in func(*config.Config) reflect.Value) {
		if usedElsewhere[key] != "" {
			seen++
			return
		}
		cfg := config.Default()
		cfg.Cache.Redis.TLS.Enabled = key == "cache.redis.tls.server_name"
		if strings.HasPrefix(key, "limits.") {
			cfg.Auth.TokensFile = "/tokens.yaml"
		}
		before := arrived(cfg)
		change(t, key, in(cfg))
		if arrived(cfg) == before {
			t.Errorf("%s goes nowhere", key)
		}
	})
	if seen != len(usedElsewhere) {
		t.Errorf("%d of %d exceptions are keys", seen, len(usedElsewhere))
	}
}

// eachKey visits every key, and how to find its value. Those of a partner are
// visited in the section partner_center.
func eachKey(cfg *config.Config, visit func(key string, in func(*config.Config) reflect.Value)) {
	whole := func(cfg *config.Config) reflect.Value { return reflect.ValueOf(cfg).Elem() }
	partner := func(cfg *config.Config) reflect.Value { return reflect.ValueOf(&cfg.Partners[0]).Elem() }
	var walk func(root func(*config.Config) reflect.Value, v reflect.Value, parent string, index []int)
	walk = func(root func(*config.Config) reflect.Value, v reflect.Value, parent string, index []int) {
		for i := range v.NumField() {
			name := v.Type().Field(i).Tag.Get("yaml")
			if name == "-" || name == "partners" {
				continue
			}
			at := append(append([]int(nil), index...), i)
			if f := v.Field(i); f.Kind() == reflect.Struct && f.Type() != reflect.TypeFor[config.Secret]() {
				walk(root, f, parent+name+".", at)
			} else {
				visit(parent+name, func(cfg *config.Config) reflect.Value { return root(cfg).FieldByIndex(at) })
			}
		}
	}
	walk(whole, whole(cfg), "", nil)
	walk(partner, partner(cfg), "", nil)
}

// change gives a key another value than its default.
func change(t *testing.T, key string, v reflect.Value) {
	t.Helper()
	switch value := v.Addr().Interface().(type) {
	case *config.Secret:
		*value = config.NewSecret("an=other")
	case *time.Duration:
		*value += time.Second
	case *int:
		*value += 7
	case *bool:
		*value = !*value
	case *config.ClientCertificates:
		*value = config.ClientCertificatesRequired
	case *[]config.CertificateCaller:
		*value = []config.CertificateCaller{{Caller: "checkout", URI: "spiffe://shop.example/checkout"}}
	case *[]config.JWT:
		issuer := config.DefaultJWT()
		issuer.Issuer, issuer.Audiences = "https://issuer.example", []string{"api://eligibilityd"}
		*value = []config.JWT{issuer}
	case *map[string]config.Caller:
		*value = map[string]config.Caller{"checkout": {Rights: []string{"check"}}}
	case *map[string]config.Limit:
		*value = map[string]config.Limit{"checkout": {RequestsPerSecond: 1, Burst: 1, Concurrent: 1}}
	case *config.ClientAssertion:
		*value = config.ManagedIdentity
	case *config.Size:
		*value += 7
	case *config.OnOverflow:
		*value = config.OverflowBlock
	case *config.RedisMode:
		*value = config.RedisSentinel
	case *float64:
		*value /= 2
	case *[]string:
		*value = []string{"redis:6379"}
	case *config.Cloud:
		*value = config.CloudUSGovernment
	case *config.TokenEndpoint:
		*value = config.TokenEndpointV1
	case *config.Flow:
		*value = config.FlowAppOnly
	case *config.NotReady:
		*value = config.NotReadyAllow
	case *config.WhenUndecidable:
		*value = config.UndecidableBlock
	case *config.UnderReview:
		*value = config.UnderReviewAllowReducing
	case *string:
		*value = "https://another"
	default:
		t.Errorf("%s has a type that this test does not know: %T", key, value)
	}
}

// A cache keeps its evidence over an upgrade, and clouds apart.
func TestEachCloudHasItsNamespace(t *testing.T) {
	t.Parallel()
	cfg := config.Default().Partners[0]
	cfg.TenantID = "Partner.example"
	if got := namespace(cfg); got != "default/partner.example@api.partnercenter.microsoft.com" {
		t.Errorf("global: %s", got)
	}
	cfg.Cloud = config.CloudUSGovernment
	if got := namespace(cfg); got != "default/partner.example@api.partnercenter.microsoft.com#us_government" {
		t.Errorf("US government, with the same host: %s", got)
	}
}

// Partners differ in every key of Redis by their names, whatever else they share,
// and have equal parts of the local tier.
func TestPartnersShareNoKeyAndDivideTheLocalTier(t *testing.T) {
	t.Parallel()
	cfg := config.Default()
	one := cfg.Partners[0]
	one.TenantID = "partner.example"
	cfg.Partners = nil
	namespaces := map[string]string{}
	for i, name := range []string{"a", "a-b", "b", "default"} {
		one.Name, one.ClientID = name, fmt.Sprintf("00000000-0000-0000-0000-00000000000%d", i/2)
		cfg.Partners = append(cfg.Partners, one)
	}
	for _, partner := range cfg.Partners {
		store := cacheConfig(cfg, partner, zap.NewNop(), nil)
		if other, taken := namespaces[store.Redis.Namespace]; taken {
			t.Errorf("%s and %s share the namespace %s", other, partner.Name, store.Redis.Namespace)
		}
		namespaces[store.Redis.Namespace] = partner.Name
		if store.MaxEntries != 25_000 || store.MaxBytes != 32<<20 {
			t.Errorf("%s has %d entries and %d bytes of the local tier", partner.Name, store.MaxEntries, store.MaxBytes)
		}
	}
}

func TestTracingIsOffByDefault(t *testing.T) {
	t.Parallel()
	if traces, err := newTraces(config.Default(), Build{}, nil, zap.NewNop()); traces != nil || err != nil {
		t.Errorf("tracing without an endpoint: %v, %v", traces, err)
	}
}

func TestTheDefaultAgesAreThoseOfTheRule(t *testing.T) {
	t.Parallel()
	if got := ages(config.Default()); got != eligibility.DefaultAges() {
		t.Errorf("config.Default has %+v, eligibility.DefaultAges %+v", got, eligibility.DefaultAges())
	}
}
