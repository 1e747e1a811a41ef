package config_test

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

// consoleIssuer is an issuer of auth.jwt.
const consoleIssuer = "https://login.example/1/v2.0"

// others are values that differ from the default, for keys whose type does not
// provide one.
var others = map[string]string{
	"server.grpc.address":          "127.0.0.2:1",
	"server.http.address":          "[::1]:0",
	"server.admin.address":         "localhost:65535",
	"server.probe.address":         "127.0.0.1:9092",
	"server.http.cors.origins":     "https://shop.example",
	"partner_center.cloud":         "us_government",
	"partner_center.base_url":      "https://pc.example:8443/proxy",
	"partner_center.authority":     "https://login.example",
	"partner_center.tenant_id":     "contoso.onmicrosoft.com",
	"partner_center.client_id":     "00000000-0000-0000-0000-00000000000A",
	"partner_center.flow":          "app_only",
	"partner_center.audience":      "https://audience.example",
	"cache.redis.key_prefix":       "shop:eligibility",
	"cache.redis.username":         "gate",
	"cache.redis.addresses":        "redis.example:6379",
	"policy.not_ready":             "allow",
	"policy.when_undecidable":      "block",
	"policy.under_review":          "allow_reducing",
	"log.level":                    "debug",
	"log.format":                   "console",
	"decision_log.file":            "/var/log/eligibilityd/decisions.jsonl",
	"decision_log.max_bytes":       "3MiB",
	"decision_log.on_overflow":     "block",
	"decision_log.customer_ids":    "hashed",
	"partner_center.client_secret": "a~secret",

	"partner_center.client_assertion": "managed_identity",
	"cache.redis.password":            "a password",
	"cache.redis.integrity_key":       "0123456789abcdef0123456789abcdef",
	"tracing.endpoint":                "https://collector.example:4317",
	"tracing.headers":                 "authorization=Bearer%20x",
	"metrics.otlp.endpoint":           "https://collector.example:4317",
	"metrics.otlp.headers":            "authorization=Bearer%20x",
	"webhooks":                        "[{name: orders, partner: default, url: 'https://orders.example/x', secret_file: /run/secret, segment: education, only: unblocked, allow_private: true}]",

	"partner_center.token_endpoint": "v1",

	"partner_center.client_secret_vault.url":         "https://another.vault.azure.net",
	"partner_center.client_secret_vault.secret":      "a-client-secret",
	"partner_center.client_certificate_vault.url":    "https://another.vault.azure.net",
	"partner_center.client_certificate_vault.secret": "a-certificate",
	"partner_center.refresh_token_vault.url":         "https://another.vault.azure.net",
	"partner_center.refresh_token_vault.secret":      "a-secret",
	"cache.redis.mode":                               "cluster",
	"cache.redis.integrity_key_previous":             "fedcba9876543210fedcba9876543210",
	"cache.redis.sentinel.master_name":               "gate",
	"cache.redis.sentinel.username":                  "watcher",
	"cache.redis.sentinel.password":                  "a password",
	"cache.redis.tls.server_name":                    "redis.example",
	"server.tls.client_certificates":                 "required",
	"console.oidc.issuer":                            consoleIssuer,
	"console.oidc.client_id":                         "another",

	"auth.certificates": `[{caller: checkout, uri: 'spiffe://shop.example/checkout'}, {caller: checkout, dns: checkout.shop.example}]`,
	"auth.jwt": `[{issuer: 'https://login.example/1/v2.0', audiences: ['api://eligibilityd', b], keys_url: 'https://login.example/keys?p=1', algorithms: [ES256, RS256], ` +
		`caller_claim: appid, rights_claim: scp, rights: {Eligibility.Check: [check, batch], 'https://x/y': [support]}, require: {tid: '1', 'https://x/idtyp': app}}]`,
	"auth.callers":   `{checkout: {rights: [check, fresh], partners: [default]}, 'spiffe://shop.example/a.b': {rights: [support]}, 7: {rights: [watch_all]}}`,
	"limits.callers": `{pipeline: {requests_per_second: 1, burst: 2, concurrent: 3, new_customers_per_minute: 0}, anonymous: {burst: 9}}`,
}

// companions returns the keys that must be set if l is.
func companions(t *testing.T, l leaf) map[string]string {
	t.Helper()
	with := map[string]string{}
	switch l.key {
	case "decision_log.customer_ids":
		with["decision_log.hash_key_file"] = write(t, "hash.key", "00112233445566778899aabbccddeeff\n")
	case "console.oidc.client_id", "console.oidc.client_secret_file":
		with["console.oidc.issuer"] = consoleIssuer
		fallthrough
	case "console.oidc.issuer":
		with["auth.jwt"] = others["auth.jwt"]
		with["console.oidc.client_id"] = "companion"
		with["console.oidc.client_secret_file"] = write(t, "console", "0123456789abcdef\n")
	case "decision_log.hash_key_file":
		with["decision_log.customer_ids"] = "hashed"
	case "auth.callers":
		with["auth.tokens_file"] = "/etc/eligibilityd/tokens.yaml"
	case "auth.certificates":
		with["auth.callers"] = `{checkout: {rights: [check]}}`
		fallthrough
	case "server.tls.client_ca_file", "server.tls.client_certificates":
		with["server.tls.certificate_file"] = "/etc/eligibilityd/tls.crt"
		with["server.tls.key_file"] = "/etc/eligibilityd/tls.key"
		with["server.tls.client_ca_file"] = "/etc/eligibilityd/callers.crt"
	case "server.tls.certificate_file":
		with["server.tls.key_file"] = "/etc/eligibilityd/tls.key"
	case "server.tls.key_file":
		with["server.tls.certificate_file"] = "/etc/eligibilityd/tls.crt"
	case "cache.redis.username":
		with["cache.redis.password"] = "companion"
	case "cache.redis.sentinel.username":
		with["cache.redis.sentinel.password"] = "companion"
	case "cache.redis.entra_id.enabled":
		with["cache.redis.tls.enabled"] = "true"
	case "partner_center.client_secret_vault.url":
		with["partner_center.client_secret_vault.secret"] = "companion"
	case "partner_center.client_secret_vault.secret":
		with["partner_center.client_secret_vault.url"] = "https://another.vault.azure.net"
	case "partner_center.client_certificate_vault.url":
		with["partner_center.client_certificate_vault.secret"] = "companion"
	case "partner_center.client_certificate_vault.secret":
		with["partner_center.client_certificate_vault.url"] = "https://another.vault.azure.net"
	case "partner_center.refresh_token_vault.url":
		with["partner_center.refresh_token_vault.secret"] = "companion"
	case "partner_center.refresh_token_vault.secret":
		with["partner_center.refresh_token_vault.url"] = "https://companion.vault.azure.net"
	case "cache.redis.addresses":
		with["cache.redis.insecure"] = "true"
	case "cache.redis.integrity_key_previous", "cache.redis.integrity_key_previous_file":
		with["cache.redis.integrity_key"] = others["cache.redis.integrity_key"]
	case "cache.redis.tls.certificate_file":
		with["cache.redis.tls.key_file"] = write(t, "key.pem", goodPEM(t))
	case "cache.redis.tls.key_file":
		with["cache.redis.tls.certificate_file"] = write(t, "certificate.pem", goodPEM(t))
	}
	if strings.HasPrefix(l.key, "cache.redis.sentinel.") {
		with["cache.redis.mode"] = "sentinel"
	}
	if strings.HasPrefix(l.key, "cache.redis.tls.") && l.key != "cache.redis.tls.enabled" {
		with["cache.redis.tls.enabled"] = "true"
	}
	return with
}

// other returns a value for a key that differs from its default.
func other(t *testing.T, l leaf) string {
	t.Helper()
	if l.key == "webhooks" {
		return strings.Replace(others[l.key], "/run/secret", write(t, "secret", webhookSecret+"\n"), 1)
	}
	if text, ok := others[l.key]; ok {
		return text
	}
	if l.key == "partner_center.client_certificate_file" || strings.HasPrefix(l.key, "cache.redis.tls.") && strings.HasSuffix(l.key, "_file") {
		return write(t, "client.pem", goodPEM(t))
	}
	if strings.HasSuffix(l.key, ".headers_file") {
		return write(t, "headers", "from=a%20file\n")
	}
	if strings.Contains(l.key, "integrity_key") || l.key == "decision_log.hash_key_file" {
		return write(t, "key", "00112233445566778899aabbccddeeff\n")
	}
	if strings.HasSuffix(l.key, "_file") {
		return write(t, "secret", "from~a~file~of~secrets\n")
	}
	switch v := l.in(config.Default()).Interface().(type) {
	case time.Duration:
		return (v / 2).String()
	case int:
		return fmt.Sprint(v + 1)
	case float64:
		return fmt.Sprint(v / 2)
	case bool:
		return fmt.Sprint(!v)
	default:
		t.Fatalf("%s: add a value to others", l.key)
		return ""
	}
}

// changed returns the configuration that must result if the keys are set.
func changed(t *testing.T, values map[string]string) *config.Config {
	t.Helper()
	cfg := config.Default()
	for _, l := range leaves() {
		if text, given := values[l.key]; given {
			change(t, cfg, l, text)
		}
	}
	return cfg
}

// change sets a key to text, and any field that Load derives from it.
func change(t *testing.T, cfg *config.Config, l leaf, text string) {
	t.Helper()
	v := l.in(cfg)
	switch v.Interface().(type) {
	case config.Secret:
		v.Set(reflect.ValueOf(config.NewSecret(text)))
	case time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		v.SetInt(int64(d))
	case config.Size:
		v.SetInt(3 << 20)
	case int:
		var n int
		if _, err := fmt.Sscan(text, &n); err != nil {
			t.Fatal(err)
		}
		v.SetInt(int64(n))
	case float64:
		x, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatal(err)
		}
		v.SetFloat(x)
	case bool:
		v.SetBool(text == "true")
	case []string:
		v.Set(reflect.ValueOf([]string{text}))
	case string, config.Cloud, config.TokenEndpoint, config.Flow, config.RedisMode, config.NotReady, config.WhenUndecidable, config.UnderReview,
		config.LogLevel, config.LogFormat, config.ClientCertificates, config.OnOverflow, config.CustomerIDs:
		v.SetString(text)
	default:
		if err := yaml.Unmarshal([]byte(text), v.Addr().Interface()); err != nil {
			t.Fatal(err)
		}
		for name, limit := range cfg.Limits.Callers { // the value that gives one of four keys
			if name == "anonymous" {
				cfg.Limits.Callers[name] = config.Limit{RequestsPerSecond: 500, Burst: limit.Burst, Concurrent: 512, NewCustomersPerMinute: 60}
			} else {
				limit.NewCustomersGiven = true
				cfg.Limits.Callers[name] = limit
			}
		}
	}
	if l.key == "partner_center.cloud" {
		cfg.Partners[0].Authority = "https://login.microsoftonline.us"
	}
	contents, ok := map[string]*config.Secret{
		"partner_center.client_certificate_file":  &cfg.Partners[0].ClientCertificate,
		"partner_center.client_secret_file":       &cfg.Partners[0].ClientSecret,
		"cache.redis.password_file":               &cfg.Cache.Redis.Password,
		"cache.redis.integrity_key_file":          &cfg.Cache.Redis.IntegrityKey,
		"cache.redis.integrity_key_previous_file": &cfg.Cache.Redis.IntegrityKeyPrevious,
		"cache.redis.sentinel.password_file":      &cfg.Cache.Redis.Sentinel.Password,
		"cache.redis.tls.ca_file":                 &cfg.Cache.Redis.TLS.CA,
		"cache.redis.tls.certificate_file":        &cfg.Cache.Redis.TLS.Certificate,
		"cache.redis.tls.key_file":                &cfg.Cache.Redis.TLS.Key,
		"tracing.headers_file":                    &cfg.Tracing.Headers,
		"metrics.otlp.headers_file":               &cfg.Metrics.OTLP.Headers,
	}[l.key]
	if !ok {
		return
	}
	content, err := os.ReadFile(text)
	if err != nil {
		t.Fatal(err)
	}
	*contents = config.NewSecret(strings.TrimSuffix(string(content), "\n"))
}

// inFile writes the values as a YAML file, nested as in the keys.
func inFile(values map[string]string) string {
	var text strings.Builder
	var open []string
	for _, key := range slices.Sorted(maps.Keys(values)) {
		path := strings.Split(key, ".")
		for i, name := range path {
			if i < len(open) && open[i] == name {
				continue
			}
			open = append(open[:min(i, len(open))], name)
			text.WriteString(strings.Repeat("  ", i) + name + ":")
			if i == len(path)-1 {
				value := values[key]
				if key == "cache.redis.addresses" || key == "server.http.cors.origins" {
					value = "[" + value + "]"
				} else if strings.ContainsAny(value, "[#") && !strings.Contains(value, "{") {
					value = `"` + value + `"`
				}
				text.WriteString(" " + value)
			}
			text.WriteString("\n")
		}
	}
	return text.String()
}

func TestEveryKeyArrives(t *testing.T) {
	t.Parallel()
	for _, l := range leaves() {
		if l.key == "default_partner" {
			continue // TestPartners names the default
		}
		values := companions(t, l)
		without := changed(t, values)
		values[l.key] = other(t, l)
		want := changed(t, values)
		var environ []string
		for _, l := range leaves() {
			if text, given := values[l.key]; given {
				environ = append(environ, l.variable()+"="+text)
			}
		}
		if diff := cmp.Diff(without, want); diff == "" {
			t.Errorf("%s: the test's value is the default", l.key)
		}
		cfg, err := config.Load("", environ, config.Dev)
		if err != nil {
			t.Errorf("%s by environment: %v", l.key, err)
		} else if diff := cmp.Diff(want, cfg); diff != "" {
			t.Errorf("%s by environment (-want +got):\n%s", l.key, diff)
		}
		cfg, err = config.Load(write(t, "config.yaml", inFile(values)), nil, config.Dev)
		if err != nil {
			t.Errorf("%s by file: %v\n%s", l.key, err, inFile(values))
		} else if diff := cmp.Diff(want, cfg); diff != "" {
			t.Errorf("%s by file (-want +got):\n%s", l.key, diff)
		}
	}
}

func TestAnEmptyVariableEmptiesTheKey(t *testing.T) {
	t.Parallel()
	path := write(t, "config.yaml", `
partner_center: {tenant_id: contoso.onmicrosoft.com, client_secret: s3cret}
cache: {redis: {addresses: ["127.0.0.1:6379"]}}
`)
	cfg, err := config.Load(path, []string{
		"ELIGIBILITY_PARTNER_CENTER__TENANT_ID=",
		"ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET=",
		"ELIGIBILITY_CACHE__REDIS__ADDRESSES=",
	}, config.Dev)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config.Default(), cfg); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, l := range leaves() {
		switch l.in(config.Default()).Interface().(type) {
		case time.Duration, int, float64, bool, config.Cloud, config.Flow, config.RedisMode, config.TokenEndpoint, config.NotReady, config.UnderReview, config.WhenUndecidable, config.LogLevel, config.LogFormat:
			_, err := config.Load("", []string{l.variable() + "="}, config.Dev)
			if err == nil || !strings.HasPrefix(err.Error(), l.variable()+": "+l.key+`: ""`) {
				t.Errorf("%s: empty was taken, error %v", l.key, err)
			}
		}
	}
}

// TestDefaultsAreAsSpecified compares every default with the figure that
// operators and deployments rely on.
func TestDefaultsAreAsSpecified(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"server.grpc.address":                            "127.0.0.1:9090",
		"server.http.address":                            "127.0.0.1:8080",
		"server.admin.address":                           "127.0.0.1:9091",
		"server.insecure":                                "false",
		"server.default_timeout":                         "2s",
		"server.max_timeout":                             "30s",
		"server.reserve":                                 "20ms",
		"server.http.cors.origins":                       "[]",
		"server.probe.address":                           "",
		"server.tls.certificate_file":                    "",
		"server.tls.key_file":                            "",
		"server.tls.client_ca_file":                      "",
		"server.tls.client_certificates":                 "optional",
		"console.enabled":                                "false",
		"console.oidc.issuer":                            "",
		"console.oidc.client_id":                         "",
		"console.oidc.client_secret_file":                "",
		"server.limits.connections":                      "10000",
		"server.limits.connection_age":                   "5m0s",
		"server.limits.connection_grace":                 "30s",
		"server.limits.first_request":                    "10s",
		"server.limits.idle":                             "2m0s",
		"server.limits.header_bytes":                     "16384",
		"server.limits.grpc_body_bytes":                  "1048576",
		"server.limits.rest_body_bytes":                  "2097152",
		"server.limits.streams_per_connection":           "250",
		"server.limits.concurrent":                       "4096",
		"feed.retention":                                 "168h0m0s",
		"feed.max_events":                                "200000",
		"watch.max_streams":                              "10000",
		"reviews.enabled":                                "true",
		"reviews.budget_share":                           "0.2",
		"reviews.give_up_after":                          "720h0m0s",
		"reviews.max_tracked":                            "50000",
		"webhooks":                                       "[]",
		"auth.certificates":                              "[]",
		"auth.tokens_file":                               "",
		"auth.jwt":                                       "[]",
		"auth.callers":                                   "map[]",
		"limits.callers":                                 "map[]",
		"limits.default.requests_per_second":             "500",
		"limits.default.burst":                           "1000",
		"limits.default.concurrent":                      "512",
		"limits.default.new_customers_per_minute":        "60",
		"server.drain":                                   "5s",
		"server.shutdown_timeout":                        "10s",
		"partner_center.cloud":                           "global",
		"partner_center.base_url":                        "https://api.partnercenter.microsoft.com",
		"partner_center.authority":                       "https://login.microsoftonline.com",
		"partner_center.refresh_token_vault.secret":      "",
		"partner_center.refresh_token_vault.url":         "",
		"partner_center.tenant_id":                       "",
		"partner_center.token_endpoint":                  "v2",
		"partner_center.client_id":                       "",
		"partner_center.client_secret":                   "[redacted]",
		"partner_center.client_secret_file":              "",
		"partner_center.client_certificate_file":         "",
		"partner_center.client_assertion":                "",
		"partner_center.client_secret_vault.url":         "",
		"partner_center.client_secret_vault.secret":      "",
		"partner_center.client_certificate_vault.url":    "",
		"partner_center.client_certificate_vault.secret": "",
		"cache.redis.entra_id.enabled":                   "false",
		"partner_center.flow":                            "app_user",
		"partner_center.refresh_token_file":              "",
		"partner_center.audience":                        "https://api.partnercenter.microsoft.com",
		"partner_center.attempt_timeout":                 "3s",
		"partner_center.budget_per_minute":               "400",
		"partner_center.batch_concurrency":               "16",
		"cache.redis.mode":                               "standalone",
		"cache.redis.addresses":                          "[]",
		"cache.redis.username":                           "",
		"cache.redis.password":                           "[redacted]",
		"cache.redis.password_file":                      "",
		"cache.redis.sentinel.master_name":               "",
		"cache.redis.sentinel.username":                  "",
		"cache.redis.sentinel.password":                  "[redacted]",
		"cache.redis.sentinel.password_file":             "",
		"cache.redis.tls.enabled":                        "false",
		"cache.redis.tls.ca_file":                        "",
		"cache.redis.tls.certificate_file":               "",
		"cache.redis.tls.key_file":                       "",
		"cache.redis.tls.server_name":                    "",
		"cache.redis.insecure":                           "false",
		"cache.redis.integrity_key":                      "[redacted]",
		"cache.redis.integrity_key_file":                 "",
		"cache.redis.integrity_key_previous":             "[redacted]",
		"cache.redis.integrity_key_previous_file":        "",
		"cache.redis.db":                                 "0",
		"cache.redis.key_prefix":                         "eligibility",
		"cache.redis.read_timeout":                       "50ms",
		"cache.redis.write_timeout":                      "100ms",
		"cache.redis.pool_size":                          "20",
		"cache.local.max_bytes":                          "134217728",
		"cache.local.max_entries":                        "100000",
		"cache.local.max_age":                            "30s",
		"cache.ages.allowed.fresh":                       "10m0s",
		"cache.ages.allowed.usable":                      "1h0m0s",
		"cache.ages.no_status.fresh":                     "2m0s",
		"cache.ages.no_status.usable":                    "15m0s",
		"cache.ages.pending.fresh":                       "1m0s",
		"cache.ages.pending.usable":                      "24h0m0s",
		"cache.ages.not_allowed.fresh":                   "10m0s",
		"cache.ages.not_allowed.usable":                  "24h0m0s",
		"cache.ages.qualifications.fresh":                "15m0s",
		"cache.ages.qualifications.usable":               "6h0m0s",
		"cache.ages.qualifications_in_review.fresh":      "2m0s",
		"cache.ages.qualifications_in_review.usable":     "6h0m0s",
		"policy.not_ready":                               "block",
		"policy.when_undecidable":                        "error",
		"policy.qualifications_grace":                    "250ms",
		"policy.under_review":                            "block_all",
		"default_partner":                                "default",
		"log.level":                                      "info",
		"log.format":                                     "json",
		"log.plain_per_second":                           "100",
		"log.failures_per_second":                        "20",
		"metrics.otlp.endpoint":                          "",
		"metrics.otlp.insecure":                          "false",
		"metrics.otlp.interval":                          "1m0s",
		"metrics.otlp.headers":                           "[redacted]",
		"metrics.otlp.headers_file":                      "",
		"tracing.endpoint":                               "",
		"tracing.insecure":                               "false",
		"decision_log.file":                              "",
		"decision_log.max_bytes":                         "100MiB",
		"decision_log.max_files":                         "30",
		"decision_log.allowed_sample":                    "1",
		"decision_log.on_overflow":                       "drop",
		"decision_log.customer_ids":                      "plain",
		"decision_log.hash_key_file":                     "",
		"tracing.sample_ratio":                           "0.01",
		"tracing.headers":                                "[redacted]",
		"tracing.headers_file":                           "",
	}
	got := map[string]string{}
	for _, l := range leaves() {
		got[l.key] = fmt.Sprint(l.in(config.Default()).Interface())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !config.Default().Partners[0].ClientSecret.IsZero() || !config.Default().Cache.Redis.Password.IsZero() ||
		!config.Default().Cache.Redis.Sentinel.Password.IsZero() {
		t.Error("a default secret exists")
	}
}
