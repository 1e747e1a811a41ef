package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.yaml.in/yaml/v3"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

// canary marks every secret in these tests; it must turn up nowhere.
const canary = "c4nary~Secret"

// hidden fails the test if text shows the canary, in clear, in hexadecimal or
// as numbers.
func hidden(t *testing.T, what, text string) {
	t.Helper()
	for _, form := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary), strings.Trim(fmt.Sprint([]byte(canary)), "[]")} {
		if strings.Contains(text, form) {
			t.Errorf("%s shows the secret: %s", what, text)
		}
	}
}

func TestASecretIsNeverPrinted(t *testing.T) {
	t.Parallel()
	cfg := config.Default()
	cfg.PartnerCenter.ClientSecret = config.NewSecret(canary)
	cfg.PartnerCenter.ClientCertificate = config.NewSecret(canary)
	cfg.Cache.Redis.Password, cfg.Cache.Redis.Sentinel.Password = config.NewSecret(canary), config.NewSecret(canary)
	cfg.Cache.Redis.TLS.Key = config.NewSecret(canary)
	secret := cfg.PartnerCenter.ClientSecret

	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%t", "%p", "%T", "%10.3s"} {
		for _, value := range []any{secret, &secret, cfg, *cfg, []any{secret}, map[string]config.Secret{"k": secret}, struct{ s config.Secret }{secret}} {
			hidden(t, verb, fmt.Sprintf(verb, value))
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if got := fmt.Sprintf(verb, secret); got != "[redacted]" {
			t.Errorf("%s prints %s", verb, got)
		}
	}
	if secret.String() != "[redacted]" {
		t.Errorf("String returns %s", secret.String())
	}

	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	hidden(t, "JSON", string(text))
	if !strings.Contains(string(text), `"[redacted]"`) {
		t.Errorf("JSON without the mark: %s", text)
	}
	text, err = yaml.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	hidden(t, "YAML", string(text))

	var out bytes.Buffer
	encoder := zap.NewProductionEncoderConfig()
	for _, core := range []zapcore.Core{
		zapcore.NewCore(zapcore.NewJSONEncoder(encoder), zapcore.AddSync(&out), zap.DebugLevel),
		zapcore.NewCore(zapcore.NewConsoleEncoder(encoder), zapcore.AddSync(&out), zap.DebugLevel),
	} {
		zap.New(core).Info("m", zap.Any("config", cfg), zap.Any("secret", secret), zap.Reflect("again", secret), zap.Stringer("s", secret))
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "config", cfg, "secret", secret)
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "config", cfg, "secret", secret)
	hidden(t, "a log", out.String())

	other := *cfg
	other.PartnerCenter.ClientSecret = config.NewSecret("another")
	if diff := cmp.Diff(cfg, &other); diff == "" {
		t.Error("secrets that differ compare equal")
	}
	if secret.Reveal() != canary || secret.IsZero() || !secret.Equal(config.NewSecret(canary)) {
		t.Error("the secret is lost")
	}
	if none := config.NewSecret(""); !none.IsZero() || none.Reveal() != "" || none.Equal(secret) {
		t.Error("the empty secret is not the zero Secret")
	}
}

// TestNoFaultShowsASecret makes the mistakes that put a secret where it does
// not belong or where YAML reads it as something else.
func TestNoFaultShowsASecret(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"partner_center: {client_secret: " + canary + ", client_secret_file: /x, tenant_id: x y}",
		"partner_center: {client_secret_file: " + canary + "}",
		"partner_center: {refresh_token_file: " + canary + "}",
		"partner_center: {client_id: " + canary + "}",
		"partner_center: {tenant_id: " + canary + "}",
		"partner_center:\n  client_secret:" + canary + "\n",
		"partner_center:\n  client_secret:" + canary + "\n  client_id: x\n",
		"partner_center:\n  client_secret:" + canary + ":\n",
		"partner_center:\n  client_secret: *" + canary + "\n",
		"partner_center:\n  client_secret: &" + canary + "\n",
		"partner_center:\n  client_secret: !" + canary + "\n",
		"partner_center:\n  client_secret: !<" + canary + "> x\n",
		"partner_center:\n  client_secret: !" + canary + "!x y\n",
		"partner_center:\n  client_secret: @" + canary + "\n",
		"partner_center:\n  client_secret: %" + canary + "\n",
		"partner_center:\n  client_secret: '" + canary + "\n",
		"partner_center:\n  client_secret: \"\\" + canary + "\"\n",
		"partner_center:\n  client_secret: {" + canary + "}\n",
		"partner_center:\n  client_secret: [" + canary + "]\n",
		"partner_center:\n  client_secret: a: " + canary + "\n",
		"partner_center:\n  client_secret: |\n " + canary + "\n",
		"partner_center:\n  client_secret: x\n  client_secret: " + canary + "\n",
		"partner_center:\n  client_secret: x\n" + canary + "\n",
		"partner_center:\n  ? " + canary + "\n  : x\n",
		"partner_center:\n  client_secret: [*" + canary + "]\n",
		"partner_center: {base_url: 'https://u:" + canary + "@h'}",
		"partner_center: {base_url: 'https://u:%zz" + canary + "@h'}",
		"partner_center: {authority: 'https://h/?s=" + canary + "'}",
		"partner_center: {audience: '" + canary + "'}",
		"partner_center: {client_certificate_file: '" + canary + "'}",
		"cache: {redis: {addresses: ['redis://:" + canary + "@h:6379']}}",
		"cache: {redis: {password: " + canary + ", password_file: /x}}",
		"cache: {redis: {password_file: " + canary + "}}",
		"cache: {redis: {key_prefix: " + canary + "}}",
		"cache: {redis: {username: " + canary + "}}",
		canary,
		"[" + canary + "]",
		"? " + canary,
		"%TAG ! " + canary,
		"log: {}\n---\n" + canary + "\n",
	} {
		for _, line := range faults(t, text, nil, config.Serve) {
			hidden(t, fmt.Sprintf("%q", text), line)
		}
	}
	for _, l := range leaves() {
		if v := l.in(config.Default()).Type().String(); v == "time.Duration" || v == "int" || v == "float64" || v == "bool" || strings.HasPrefix(l.key, "log.") ||
			strings.HasPrefix(l.key, "policy.") || l.key == "partner_center.flow" || l.key == "partner_center.cloud" || l.key == "partner_center.token_endpoint" || l.key == "cache.redis.mode" || strings.HasPrefix(l.key, "server.") {
			continue // their values are shown
		}
		_, err := config.Load("", []string{l.variable() + "=" + canary}, config.Serve)
		if err == nil {
			t.Errorf("%s: loaded", l.key)
			continue
		}
		hidden(t, l.key, err.Error())
	}
	_, err := config.Load("", []string{"ELIGIBILITY_CLIENT_SECRET=" + canary, "ELIGIBILITY_" + canary, "ELIGIBILITY_X " + canary + "=x"}, config.Dev)
	hidden(t, "a variable", err.Error())
}

func TestASecretMayBeAFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, c := range map[string]struct{ contents, secret, problem string }{
		"plain":                 {"s3cret", "s3cret", ""},
		"a newline":             {"s3cret\n", "s3cret", ""},
		"a Windows newline":     {"s3cret\r\n", "s3cret", ""},
		"one newline only":      {"s3cret\n\n", "s3cret\n", ""},
		"blanks stay":           {" s3 cret \r", " s3 cret \r", ""},
		"the greatest size":     {strings.Repeat("s", 64<<10), strings.Repeat("s", 64<<10), ""},
		"too long":              {strings.Repeat("s", 64<<10+1), "", "cannot be read: larger than 65536 bytes"},
		"empty":                 {"", "", "is an empty file"},
		"a newline and no more": {"\n", "", "is an empty file"},
		"blanks only":           {" \t\n", "", "is an empty file"},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(c.contents), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"PARTNER_CENTER__CLIENT_SECRET_FILE", "CACHE__REDIS__PASSWORD_FILE"} {
			cfg, err := config.Load("", []string{"ELIGIBILITY_" + key + "=" + path}, config.Dev)
			switch {
			case c.problem != "" && (err == nil || !strings.HasSuffix(err.Error(), ": "+c.problem)):
				t.Errorf("%s: error %v, want %s", name, err, c.problem)
			case c.problem == "" && err != nil:
				t.Errorf("%s: %v", name, err)
			case c.problem == "":
				got := cfg.PartnerCenter.ClientSecret.Reveal() + cfg.Cache.Redis.Password.Reveal()
				if got != c.secret {
					t.Errorf("%s: %s is %q", name, key, got)
				}
			}
		}
	}
}

func TestASecretAndItsFileConflict(t *testing.T) {
	t.Parallel()
	path := write(t, "secret", canary)
	got := faults(t, "partner_center: {client_secret: "+canary+"}\n", []string{
		"ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET_FILE=" + path,
		"ELIGIBILITY_CACHE__REDIS__PASSWORD=" + canary,
		"ELIGIBILITY_CACHE__REDIS__PASSWORD_FILE=" + path,
	}, config.Dev)
	want := []string{
		"ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET_FILE: partner_center.client_secret_file: conflicts with partner_center.client_secret: give one of the two and empty the other",
		"ELIGIBILITY_CACHE__REDIS__PASSWORD_FILE: cache.redis.password_file: conflicts with cache.redis.password: give one of the two and empty the other",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestASecretFileIsARegularFile(t *testing.T) {
	t.Parallel()
	for _, path := range []string{t.TempDir(), os.DevNull} {
		_, err := config.Load("", []string{"ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET_FILE=" + path}, config.Dev)
		if err == nil || !strings.HasSuffix(err.Error(), "client_secret_file: is not a regular file") {
			t.Errorf("error %v", err)
		}
	}
}
