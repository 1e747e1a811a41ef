package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

func TestFaultsOfValues(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text    string
		environ []string
		want    []string
	}{
		"listeners beyond loopback": {
			text: "server: {grpc: {address: ':9090'}, http: {address: '0.0.0.0:8080'}, admin: {address: 'gate.example:9091'}}\n",
			want: []string{
				`config.yaml:1: server.grpc.address: ":9090" can be reached from other machines: it needs server.tls, and one of auth.certificates, auth.tokens_file and auth.jwt; use 127.0.0.1, or set server.insecure: true if something in front protects it`,
				`config.yaml:1: server.http.address: "0.0.0.0:8080" can be reached from other machines: it needs server.tls, and one of auth.certificates, auth.tokens_file and auth.jwt; use 127.0.0.1, or set server.insecure: true if something in front protects it`,
				`config.yaml:1: server.admin.address: "gate.example:9091" can be reached from other machines: the admin listener must be on loopback, whatever else is set, because it has pprof; server.probe serves health and metrics to other machines`,
			},
		},
		"listeners that are no addresses": {
			text: "server: {insecure: true, grpc: {address: '9090'}, http: {address: 'a b:80'}, admin: {address: 'localhost:http'}}\n",
			want: []string{
				`config.yaml:1: server.grpc.address: "9090" is not host:port; write e.g. 127.0.0.1:9090`,
				`config.yaml:1: server.http.address: "a b:80" is not host:port; write e.g. 127.0.0.1:9090`,
				`config.yaml:1: server.admin.address: "localhost:http" has no port from 0 to 65535`,
			},
		},
		"ports out of range": {
			text: "server: {grpc: {address: 'localhost:65536'}, http: {address: '127.0.0.1:-1'}, admin: {address: '127.0.0.1:'}}\n",
			want: []string{
				`config.yaml:1: server.grpc.address: "localhost:65536" has no port from 0 to 65535`,
				`config.yaml:1: server.http.address: "127.0.0.1:-1" has no port from 0 to 65535`,
				`config.yaml:1: server.admin.address: "127.0.0.1:" has no port from 0 to 65535`,
			},
		},
		"the same address twice": {
			text: "server: {grpc: {address: '127.0.0.1:8080'}, admin: {address: 'LOCALHOST:8080'}}\n",
			want: []string{
				`server.http.address: is the same address as server.grpc.address`,
				`config.yaml:1: server.admin.address: is the same address as server.http.address`,
			},
		},
		"the same address on every interface": {
			text: "server: {insecure: true, grpc: {address: ':80'}, probe: {address: '0.0.0.0:80'}}\n",
			want: []string{`config.yaml:1: server.probe.address: is the same address as server.grpc.address`},
		},
		"the decision log": {
			text: "decision_log: {max_bytes: 1536KiB, max_files: 0, allowed_sample: 1.1, customer_ids: hashed}\n",
			want: []string{
				`config.yaml:1: decision_log.max_bytes: 1536KiB must be a whole number of MiB, at least 1MiB`,
				`config.yaml:1: decision_log.max_files: 0 must be at least 1`,
				`config.yaml:1: decision_log.allowed_sample: 1.1 must be from 0 to 1`,
				`config.yaml:1: decision_log.hash_key_file: is missing: customer_ids: hashed needs a key`,
			},
		},
		"the decision log, otherwise": {
			text:    "decision_log: {max_bytes: 1 MiB, max_files: 1, allowed_sample: 0, hash_key_file: /etc/hostname}\n",
			environ: []string{"ELIGIBILITY_DECISION_LOG__ALLOWED_SAMPLE=NaN", "ELIGIBILITY_DECISION_LOG__ON_OVERFLOW=wait"},
			want: []string{
				`config.yaml:1: decision_log.max_bytes: "1 MiB" is not a number of bytes; write e.g. 100MiB`,
				`ELIGIBILITY_DECISION_LOG__ON_OVERFLOW: decision_log.on_overflow: "wait" is not one of drop, block`,
				`ELIGIBILITY_DECISION_LOG__ALLOWED_SAMPLE: decision_log.allowed_sample: NaN must be from 0 to 1`,
				`config.yaml:1: decision_log.hash_key_file: has no effect without customer_ids: hashed`,
			},
		},
		"metrics": {
			text: "metrics: {otlp: {endpoint: 'http://collector.example:4317/x', interval: 999ms, headers: 'authorization: Bearer s3cret'}}\n",
			want: []string{
				`config.yaml:1: metrics.otlp.endpoint: must begin with https://; http is accepted for loopback hosts only (127.0.0.0/8, ::1, localhost); or set metrics.otlp.insecure: true if the network to the collector is protected`,
				`config.yaml:1: metrics.otlp.headers: must be name=value pairs separated by commas, values percent-encoded`,
				`config.yaml:1: metrics.otlp.interval: 999ms must be from 1s to 1h`,
			},
		},
		"tracing": {
			text: "tracing: {endpoint: 'http://collector.example:4317', sample_ratio: 1.1, headers: 'authorization: Bearer s3cret'}\n",
			want: []string{
				`config.yaml:1: tracing.endpoint: must begin with https://; http is accepted for loopback hosts only (127.0.0.0/8, ::1, localhost); or set tracing.insecure: true if the network to the collector is protected`,
				`config.yaml:1: tracing.headers: must be name=value pairs separated by commas, values percent-encoded`,
				`config.yaml:1: tracing.sample_ratio: 1.1 must be from 0 to 1`,
			},
		},
		"an insecure collector with a path, and half a head": {
			text: "tracing: {endpoint: 'http://collector.example:4318/v1/traces', insecure: true, sample_ratio: .nan, headers: 'a=b,grpc-timeout=1S'}\n",
			want: []string{
				`config.yaml:1: tracing.sample_ratio: ".nan" is not a number; write e.g. 0.01`,
				`config.yaml:1: tracing.endpoint: must not have a path: OTLP goes over gRPC, usually to port 4317`,
				`config.yaml:1: tracing.headers: must be name=value pairs separated by commas, values percent-encoded`,
			},
		},
		"a ratio that is no number": {
			text:    "",
			environ: []string{"ELIGIBILITY_TRACING__SAMPLE_RATIO=NaN", "ELIGIBILITY_TRACING__ENDPOINT=collector:4317"},
			want: []string{
				`ELIGIBILITY_TRACING__ENDPOINT: tracing.endpoint: must be an absolute URL, such as https://host.example`,
				`ELIGIBILITY_TRACING__SAMPLE_RATIO: tracing.sample_ratio: NaN must be from 0 to 1`,
			},
		},
		"durations out of range": {
			text: `
server: {default_timeout: 99ms, reserve: 51ms, drain: -1s, shutdown_timeout: 0s}
partner_center: {attempt_timeout: 10001ms}
cache: {redis: {read_timeout: 0, write_timeout: -1ms}, local: {max_age: 0s}}
policy: {qualifications_grace: 8761h}
`,
			want: []string{
				`config.yaml:3: partner_center.attempt_timeout: 10.001s must be at most 10s`,
				`config.yaml:2: server.default_timeout: 99ms must be at least 100ms`,
				`config.yaml:2: server.reserve: 51ms must be at most 50ms`,
				`config.yaml:2: server.drain: -1s must be at least 0s`,
				`config.yaml:2: server.shutdown_timeout: 0s must be more than 0`,
				`config.yaml:4: cache.redis.read_timeout: 0s must be more than 0`,
				`config.yaml:4: cache.redis.write_timeout: -1ms must be more than 0`,
				`config.yaml:4: cache.local.max_age: 0s must be more than 0`,
				`config.yaml:5: policy.qualifications_grace: 8761h must be at most 8760h`,
			},
		},
		"the longest call is shorter than the default": {
			text: "server: {default_timeout: 31s}\n",
			want: []string{`config.yaml:1: server.max_timeout: max_timeout 30s is below default_timeout 31s`},
		},
		"ages": {
			text: `
cache:
  ages:
    allowed: {fresh: 2h}
    no_status: {usable: 1m59s}
    pending: {fresh: 0s, usable: 0s}
    not_allowed: {fresh: 20m, usable: 10m}
    qualifications: {fresh: -1m}
    qualifications_in_review: {fresh: soon, usable: 1s}
`,
			want: []string{
				`config.yaml:9: cache.ages.qualifications_in_review.fresh: "soon" is not a duration; write e.g. 2m`,
				`config.yaml:4: cache.ages.allowed.usable: usable 1h is below fresh 2h`,
				`config.yaml:5: cache.ages.no_status.usable: usable 1m59s is below fresh 2m`,
				`config.yaml:6: cache.ages.pending.fresh: 0s must be more than 0`,
				`config.yaml:6: cache.ages.pending.usable: 0s must be more than 0`,
				`config.yaml:7: cache.ages.not_allowed.usable: usable 10m is below fresh 20m`,
				`config.yaml:8: cache.ages.qualifications.fresh: -1m must be more than 0`,
			},
		},
		"counts": {
			text: "partner_center: {budget_per_minute: 0}\ncache: {redis: {db: -1, pool_size: 10001}, local: {max_entries: -1}}\n",
			want: []string{
				`config.yaml:1: partner_center.budget_per_minute: 0 must be at least 1`,
				`config.yaml:2: cache.redis.db: must be at least 0`,
				`config.yaml:2: cache.redis.pool_size: 10001 must be at most 10000`,
				`config.yaml:2: cache.local.max_entries: -1 must be at least 1`,
			},
		},
		"Redis addresses": {
			text: "cache: {redis: {addresses: [localhost, 'a:0', 'redis://:canary@h:1', 'unix://redis.sock', 'unix:///s', ':1', 'h:1', 'h:1', '[::1]:6379'], db: 1}}\n",
			want: []string{
				`config.yaml:1: cache.redis.addresses: item 1 is neither host:port nor unix:///path; item 2 is neither host:port nor unix:///path; ` +
					`item 3 is neither host:port nor unix:///path; item 4 must be an absolute path after unix://; ` +
					`item 5 is a socket, which only one standalone server may have; item 6 is neither host:port nor unix:///path; item 8 is there already`,
				`config.yaml:1: cache.redis.db: must be 0: a cluster has no other database`,
			},
		},
		"an empty item in a variable": {
			environ: []string{"ELIGIBILITY_CACHE__REDIS__ADDRESSES=a:1,"},
			want:    []string{`ELIGIBILITY_CACHE__REDIS__ADDRESSES: cache.redis.addresses: item 2 is neither host:port nor unix:///path`},
		},
		"Redis": {
			text: "cache: {redis: {username: gate, key_prefix: '{gate}'}}\n",
			want: []string{
				`config.yaml:1: cache.redis.username: has no effect without cache.redis.password or cache.redis.password_file`,
				`config.yaml:1: cache.redis.key_prefix: must be 1 to 64 of letters, digits and . _ : -`,
			},
		},
		"no key prefix": {
			environ: []string{"ELIGIBILITY_CACHE__REDIS__KEY_PREFIX="},
			want:    []string{`ELIGIBILITY_CACHE__REDIS__KEY_PREFIX: cache.redis.key_prefix: must be 1 to 64 of letters, digits and . _ : -`},
		},
		"placeholders": {
			text: "partner_center: {tenant_id: 00000000-0000-0000-0000-000000000000, client_id: 00000000-0000-0000-0000-000000000000}\n",
			want: []string{
				`config.yaml:1: partner_center.tenant_id: is the placeholder of the example; see the overview of the app registration`,
				`config.yaml:1: partner_center.client_id: is the placeholder of the example; see the overview of the app registration`,
			},
		},
		"Partner Center ids": {
			text: "partner_center: {tenant_id: common, client_id: my-app, cloud: germany}\n",
			want: []string{
				`config.yaml:1: partner_center.cloud: "germany" is not one of global, us_government, china`,
				`config.yaml:1: partner_center.tenant_id: is neither a GUID nor a domain name`,
				`config.yaml:1: partner_center.client_id: is not a GUID`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, faults(t, c.text, c.environ, config.Doctor)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestURLs(t *testing.T) {
	t.Parallel()
	const (
		relative = "must be an absolute URL, such as https://host.example"
		port     = "must have a port from 1 to 65535 or none"
		user     = "must not hold a user name or password"
		query    = "must not have a query or a fragment"
		plain    = "must begin with https://; http is accepted for loopback hosts only (127.0.0.0/8, ::1, localhost)"
		tenant   = "must not name a tenant, which tenant_id does"
		path     = "must not have a path: the scope is added to it; use https://api.partnercenter.microsoft.com"
		another  = "is another API of Microsoft's, whose tokens Partner Center refuses; use https://api.partnercenter.microsoft.com"
		retired  = "is retired, and Partner Center refuses tokens for it; use https://api.partnercenter.microsoft.com"
	)
	for _, c := range []struct{ key, url, want string }{
		{"base_url", "https://partner.partnercenterapi.microsoftonline.cn", ""},
		{"base_url", "http://127.0.0.1:8083", ""},
		{"base_url", "http://127.255.255.254", ""},
		{"base_url", "http://[::1]:8083/", ""},
		{"base_url", "http://localhost:1", ""},
		{"base_url", "", relative},
		{"base_url", "api.partnercenter.microsoft.com", relative},
		{"base_url", "//api.partnercenter.microsoft.com", relative},
		{"base_url", "https:api.partnercenter.microsoft.com", relative},
		{"base_url", "https://", relative},
		{"base_url", "https://:443", relative},
		{"base_url", "https://a b", relative},
		{"base_url", "https://user:can%zzary@h", relative},
		{"base_url", "ftp://h", relative},
		{"base_url", "https://h:", port},
		{"base_url", "https://h:0", port},
		{"base_url", "https://h:65536", port},
		{"base_url", "https://user:canary@h", user},
		{"base_url", "https://canary@h", user},
		{"base_url", "https://h?code=canary", query},
		{"base_url", "https://h?", query},
		{"base_url", "https://h#", query},
		{"base_url", "http://h", plain},
		{"base_url", "http://0.0.0.0", plain},
		{"base_url", "http://128.0.0.1", plain},
		{"base_url", "http://localhost.example", plain},
		{"base_url", "http://127.1", plain},
		{"base_url", "http://[::2]", plain},
		{"base_url", "https://h/v1/", "must not end in /v1, which is added to it"},
		{"authority", "https://login.microsoftonline.us", ""},
		{"authority", "http://127.0.0.1:8083/login", ""},
		{"authority", "http://login.microsoftonline.com", plain},
		{"authority", "https://login.microsoftonline.com/common", tenant},
		{"authority", "https://login.microsoftonline.com/organizations/", tenant},
		{"authority", "https://login.microsoftonline.com/Contoso.example/", tenant},
		{"audience", "https://partner.partnercenterapi.microsoftonline.cn", ""},
		{"audience", "http://127.0.0.1", relative},
		{"audience", "", relative},
		{"audience", "https://graph.windows.net", retired},
		{"audience", "https://GRAPH.windows.net/", retired},
		{"audience", "https://graph.chinacloudapi.cn", retired},
		{"audience", "https://api.partnercenter.microsoft.com/.default", "must not end in /.default, which is added to it"},
		{"audience", "https://api.partnercenter.microsoft.com/user_impersonation", path},
		{"audience", "https://audience.example/a", path},
		{"audience", "api://fa3d9a0c-3fb0-42cc-9193-47c7ecd2edbd", ""},
		{"audience", "api://fa3d9a0c-3fb0-42cc-9193-47c7ecd2edbd/user_impersonation", path},
		{"audience", "https://API.partnercenter.microsoft.com/", ""},
		{"audience", "https://audience.example", ""},
		{"audience", "https://notmicrosoft.com", ""},
		{"audience", "https://graph.microsoft.com", another},
		{"audience", "https://Graph.Microsoft.com/", another},
		{"audience", "https://management.azure.com", another},
		{"audience", "https://management.core.windows.net/", another},
		{"audience", "https://vault.azure.net", another},
		{"audience", "https://login.microsoftonline.com", another},
		{"audience", "https://microsoftgraph.chinacloudapi.cn", another},
	} {
		variable := "ELIGIBILITY_PARTNER_CENTER__" + strings.ToUpper(c.key)
		_, err := config.Load("", []string{variable + "=" + c.url, "ELIGIBILITY_PARTNER_CENTER__TENANT_ID=contoso.example"}, config.Dev)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.url, err)
		case c.want != "" && (err == nil || err.Error() != variable+": partner_center."+c.key+": "+c.want):
			t.Errorf("%q: error %v, want %s", c.url, err, c.want)
		}
	}
}

func TestGUIDsAndDomains(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		key, id string
		ok      bool
	}{
		{"tenant_id", "11111111-2222-3333-4444-abcdefABCDEF", true},
		{"tenant_id", "contoso.onmicrosoft.com", true},
		{"tenant_id", "xn--bcher-kva.example", true},
		{"tenant_id", "bücher.example", false},
		{"tenant_id", "contoso", false},
		{"tenant_id", "a..example", false},
		{"tenant_id", "-a.example", false},
		{"tenant_id", "contoso.example/", false},
		{"tenant_id", "../v2.0", false},
		{"tenant_id", "127.0.0.1", false},
		{"tenant_id", strings.Repeat("a.", 130) + "example", false},
		{"tenant_id", "11111111-2222-3333-4444-abcdefABCDEF\n", false},
		{"client_id", "11111111-2222-3333-4444-abcdefABCDEF", true},
		{"client_id", "11111111222233334444abcdefABCDEF", false},
		{"client_id", "{11111111-2222-3333-4444-abcdefABCDEF}", false},
		{"client_id", "contoso.example", false},
	} {
		_, err := config.Load("", []string{"ELIGIBILITY_PARTNER_CENTER__" + strings.ToUpper(c.key) + "=" + c.id}, config.Dev)
		if (err == nil) != c.ok {
			t.Errorf("%s %q: error %v", c.key, c.id, err)
		}
	}
}

func TestInsecureListenersMayBeAnywhere(t *testing.T) {
	t.Parallel()
	cfg, err := config.Load("", []string{
		"ELIGIBILITY_SERVER__INSECURE=true",
		"ELIGIBILITY_SERVER__GRPC__ADDRESS=0.0.0.0:0",
		"ELIGIBILITY_SERVER__HTTP__ADDRESS=:0",
		"ELIGIBILITY_SERVER__PROBE__ADDRESS=0.0.0.0:0",
	}, config.Doctor)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Server.HTTP.Address != ":0" {
		t.Errorf("address %q", cfg.Server.HTTP.Address)
	}
}

func TestBoundsAreIncluded(t *testing.T) {
	t.Parallel()
	_, err := config.Load(write(t, "config.yaml", `
server: {default_timeout: 100ms, max_timeout: 100ms, reserve: 50ms, drain: 0s, shutdown_timeout: 8760h, limits: {concurrent: 1, connections: 1, streams_per_connection: 1,
  header_bytes: 1024, grpc_body_bytes: 1024, rest_body_bytes: 67108864, connection_age: 1s, connection_grace: 1ns, first_request: 8760h, idle: 1ns}}
partner_center: {attempt_timeout: 10s, budget_per_minute: 1, batch_concurrency: 1}
cache:
  redis: {addresses: ["unix:///run/redis.sock"], db: 15, pool_size: 10000, read_timeout: 1ns}
  local: {max_entries: 1, max_age: 1ns}
  ages: {allowed: {fresh: 1h, usable: 1h}, pending: {fresh: 1ns, usable: 8760h}}
policy: {qualifications_grace: 0}
feed: {retention: 1m, max_events: 64}
watch: {max_streams: 1}
reviews: {enabled: false, budget_share: 1, give_up_after: 1h, max_tracked: 64}
`), nil, config.Dev)
	if err != nil {
		t.Error(err)
	}
}
