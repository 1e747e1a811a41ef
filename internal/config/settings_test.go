package config_test

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

// printed returns the settings as lines: key value source.
func printed(t *testing.T, path string, environ []string) map[string]string {
	t.Helper()
	_, settings, err := config.LoadSettings(path, environ, config.Doctor)
	if err != nil {
		t.Fatal(err)
	}
	lines := make(map[string]string, len(settings))
	for _, s := range settings {
		if _, again := lines[s.Key]; again {
			t.Errorf("%s is shown twice", s.Key)
		}
		lines[s.Key] = strings.TrimSpace(s.Text() + " " + s.Source)
	}
	return lines
}

func TestSettingsHaveTheirSources(t *testing.T) {
	t.Parallel()
	secret := write(t, "secret", canary+"\n")
	hook := write(t, "hook", webhookSecret+"\n")
	path := write(t, "config.yaml", `partner_defaults:
  attempt_timeout: 1s
  client_secret_file: `+secret+`
partners:
  eu: {tenant_id: eu.example}
  us: {tenant_id: us.example, client_secret_file: ""}
default_partner: eu
cache: {redis: {addresses: [a.example:1, b.example:2], insecure: true, password: `+canary+`}}
webhooks: [{name: orders, partner: eu, url: "https://h.example/`+canary+`?x=1", secret_file: `+hook+`}]
auth: {jwt: [{issuer: "https://i.example", audiences: [a, b], keys_url: "https://k.example/keys?`+canary+`"}], tokens_file: `+write(t, "tokens", "[]")+`}
limits: {callers: {a.b: {burst: 9}}}
`)
	got := printed(t, path, []string{
		"ELIGIBILITY_PARTNERS__US__CLIENT_SECRET=" + canary, "ELIGIBILITY_LOG__LEVEL=debug",
		"ELIGIBILITY_PARTNERS__EU__REFRESH_TOKEN_FILE=" + canary,
	})
	for key, want := range map[string]string{
		"server.grpc.address":              "127.0.0.1:9090",
		"server.drain":                     "5s",
		"partners.eu.attempt_timeout":      "1s " + path + ":2",
		"partners.eu.client_secret":        "[redacted] " + path + ":3",
		"partners.eu.client_secret_file":   secret + " " + path + ":3",
		"partners.eu.tenant_id":            "eu.example " + path + ":5",
		"partners.eu.refresh_token_file":   "[redacted] ELIGIBILITY_PARTNERS__EU__REFRESH_TOKEN_FILE",
		"partners.us.client_secret":        "[redacted] ELIGIBILITY_PARTNERS__US__CLIENT_SECRET",
		"partners.us.client_secret_file":   `"" ` + path + ":6",
		"default_partner":                  "eu " + path + ":7",
		"cache.redis.addresses":            "[a.example:1, b.example:2] " + path + ":8",
		"cache.redis.mode":                 "cluster",
		"cache.redis.password":             "[redacted] " + path + ":8",
		"cache.redis.integrity_key":        `""`,
		"webhooks[0].url":                  "https://h.example/[redacted] " + path + ":9",
		"webhooks[0].secret_file":          hook + " " + path + ":9",
		"auth.jwt[0].audiences":            "[a, b] " + path + ":10",
		"auth.jwt[0].keys_url":             "https://k.example/keys?[redacted] " + path + ":10",
		"auth.jwt[0].caller_claim":         "azp",
		`limits.callers["a.b"].burst`:      "9 " + path + ":11",
		`limits.callers["a.b"].concurrent`: "512",
		"auth.certificates":                "[]",
		"log.level":                        "debug ELIGIBILITY_LOG__LEVEL",
	} {
		if got[key] != want {
			t.Errorf("%s: %q, want %q", key, got[key], want)
		}
	}
	hidden(t, "settings", fmt.Sprint(got))
}

// Every key is among the settings, whichever it is, and no secret.
func TestSettingsHoldEveryKeyAndNoSecret(t *testing.T) {
	t.Parallel()
	byDefault := printed(t, "", nil)
	for _, l := range leaves() {
		if _, ok := byDefault[l.key]; !ok {
			t.Errorf("%s is not among the settings", l.key)
		}
		if _, isSecret := reflect.TypeAssert[config.Secret](l.in(config.Default())); isSecret {
			value := others[l.key] + "canary000000000000"
			environ := []string{l.variable() + "=" + value}
			for key, text := range companions(t, l) {
				environ = append(environ, leaf{key: key}.variable()+"="+text)
			}
			if strings.HasSuffix(l.key, ".headers") {
				environ[0] = l.variable() + "=authorization=Bearer%20canary000000000000"
			}
			for key, line := range printed(t, "", environ) {
				if strings.Contains(line, "canary000") {
					t.Errorf("%s is shown by %s: %s", l.key, key, line)
				}
				if key == l.key && line != "[redacted] "+l.variable() {
					t.Errorf("%s: %s", key, line)
				}
			}
		}
	}
}

func TestTheDigestIsThatOfTheValues(t *testing.T) {
	t.Parallel()
	digest := func(path string, environ ...string) string {
		t.Helper()
		cfg, err := config.Load(path, environ, config.Doctor)
		if err != nil {
			t.Fatal(err)
		}
		return cfg.Digest()
	}
	byDefault := digest("")
	if len(byDefault) != len("sha256:")+64 || byDefault != digest("") {
		t.Errorf("digest %q, then %q", byDefault, digest(""))
	}
	path := write(t, "config.yaml", "log: {level: debug}\npartner_center: {client_secret: a}\n")
	if got, want := digest(path), digest("", "ELIGIBILITY_LOG__LEVEL=debug", "ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET=b"); got != want || got == byDefault {
		t.Errorf("%s by file, %s by environment, %s by default", got, want, byDefault)
	}
	// Every value counts.
	seen := map[string]string{byDefault: "the default"}
	for _, l := range leaves() {
		if l.key == "default_partner" {
			continue // is the only one
		}
		environ := []string{l.variable() + "=" + other(t, l)}
		for key, text := range companions(t, l) {
			if key != l.key {
				environ = append(environ, leaf{key: key}.variable()+"="+text)
			}
		}
		got := digest("", environ...)
		if same := seen[got]; same != "" {
			t.Errorf("%s has the digest of %s", l.key, same)
		}
		seen[got] = l.key
	}
}

// FuzzSettings puts a secret wherever one can stand, by intention or mistake.
func FuzzSettings(f *testing.F) {
	for _, seed := range []string{canary, "c4nary/with/slashes", "c4nary%41@host#x?y", "c4nary\"quoted\"", "c4nary 'a': [b, {c: d}]", "c4nary\x00\x1b[0m"} {
		f.Add(seed)
	}
	hook := filepath.Join(f.TempDir(), "hook")
	if err := os.WriteFile(hook, []byte(webhookSecret), 0o600); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, secret string) {
		const shownAnyway = "ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET_FILE [redacted] "
		if harmless := shownAnyway + hook; len(secret) < 8 || strings.Contains(harmless, secret) {
			return
		}
		escaped := url.PathEscape(secret)
		for _, given := range []string{
			"PARTNER_CENTER__CLIENT_SECRET=" + secret, "PARTNER_CENTER__CLIENT_SECRET_FILE=" + secret, "PARTNER_CENTER__CLIENT_CERTIFICATE_FILE=" + secret,
			"PARTNER_CENTER__REFRESH_TOKEN_FILE=" + secret, "PARTNER_CENTER__BASE_URL=https://" + escaped + "@h.example",
			"PARTNER_CENTER__AUDIENCE=https://u:" + escaped + "@h.example", "PARTNER_CENTER__AUTHORITY=https://h.example/?" + escaped,
			"CACHE__REDIS__PASSWORD=" + secret, "CACHE__REDIS__SENTINEL__PASSWORD=" + secret, "CACHE__REDIS__INTEGRITY_KEY=" + secret,
			"CACHE__REDIS__ADDRESSES=redis://:" + secret + "@h:1", "CACHE__REDIS__TLS__KEY_FILE=" + secret,
			"TRACING__HEADERS=authorization=" + escaped, "TRACING__HEADERS=" + secret, "TRACING__ENDPOINT=https://" + escaped + "@h.example:1", "TRACING__HEADERS_FILE=" + secret,
			"AUTH__TOKENS_FILE=" + secret, "AUTH__JWT=[{issuer: 'https://i.example', audiences: ['https://" + escaped + "@a.example/'], keys_url: 'https://k.example/?" + escaped + "'}]",
			"WEBHOOKS=[{name: a, url: 'https://h.example/" + escaped + "', secret_file: " + hook + "}]",
			"WEBHOOKS=[{name: a, url: 'https://h.example/?" + escaped + "', secret_file: " + hook + "}]",
		} {
			_, settings, err := config.LoadSettings("", []string{"ELIGIBILITY_" + given}, config.Doctor)
			text := ""
			if err != nil {
				text = err.Error()
			}
			for _, s := range settings {
				text += s.Key + " " + s.Text() + " " + s.Source + "\n"
			}
			if strings.Contains(text, secret) || strings.Contains(text, escaped) {
				key, _, _ := strings.Cut(given, "=")
				t.Errorf("%s shows %q:\n%s", key, secret, text)
			}
		}
	})
}
