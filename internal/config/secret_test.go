package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.yaml.in/yaml/v3"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

// canary marks every secret in these tests; it must never be printed.
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
	cfg.Partners[0].ClientSecret = config.NewSecret(canary)
	cfg.Partners[0].ClientCertificate = config.NewSecret(canary)
	cfg.Cache.Redis.Password, cfg.Cache.Redis.Sentinel.Password = config.NewSecret(canary), config.NewSecret(canary)
	cfg.Cache.Redis.TLS.Key = config.NewSecret(canary)
	secret := cfg.Partners[0].ClientSecret

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
	other.Partners = slices.Clone(cfg.Partners)
	other.Partners[0].ClientSecret = config.NewSecret("another")
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

// TestNoFaultShowsASecret makes mistakes that put a secret in the wrong place
// or make YAML parse it as something else.
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
			strings.HasPrefix(l.key, "policy.") || v == "config.Size" || v == "config.OnOverflow" || v == "config.CustomerIDs" || l.key == "partner_center.flow" || l.key == "partner_center.cloud" || l.key == "partner_center.token_endpoint" || l.key == "cache.redis.mode" || strings.HasPrefix(l.key, "server.") {
			continue // their values may be shown
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

// The faults of a client secret.
const (
	noSecret = "holds a blank, a quote, a control character or a letter beyond ASCII, which none that Microsoft hands out does; copy it again"
	secretID = "is a GUID, which is the ID of a secret; give its value, which the portal shows once, when the secret is made"
)

func TestASecretMayBeAFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, c := range map[string]struct {
		contents         string
		secret, password string
		problem          string // of both
		secretProblem    string
	}{
		"plain":                 {contents: "s3cret", secret: "s3cret", password: "s3cret"},
		"a newline":             {contents: "s3cret\n", secret: "s3cret", password: "s3cret"},
		"a Windows newline":     {contents: "s3cret\r\n", secret: "s3cret", password: "s3cret"},
		"two newlines":          {contents: "s3cret\n\n", secret: "s3cret", password: "s3cret\n"},
		"a byte order mark":     {contents: "\ufeffs3cret\n", secret: "s3cret", password: "s3cret"},
		"blanks around":         {contents: " \ts3cret \r", secret: "s3cret", password: " \ts3cret \r"},
		"a blank within":        {contents: "s3 cret", password: "s3 cret", secretProblem: noSecret},
		"quotes":                {contents: `"s3cret"`, password: `"s3cret"`, secretProblem: noSecret},
		"another quote":         {contents: "s3c'ret", password: "s3c'ret", secretProblem: noSecret},
		"two lines":             {contents: "s3cret\nnote\n", password: "s3cret\nnote", secretProblem: noSecret},
		"not ASCII":             {contents: "s3crét", password: "s3crét", secretProblem: noSecret},
		"a GUID":                {contents: "11111111-2222-3333-4444-abcdefABCDEF\n", password: "11111111-2222-3333-4444-abcdefABCDEF", secretProblem: secretID},
		"punctuation":           {contents: "a8Q~.-_~!@#$%^&*()+=[]{}|;:,<>/?", secret: "a8Q~.-_~!@#$%^&*()+=[]{}|;:,<>/?", password: "a8Q~.-_~!@#$%^&*()+=[]{}|;:,<>/?"},
		"the greatest size":     {contents: strings.Repeat("s", 64<<10), secret: strings.Repeat("s", 64<<10), password: strings.Repeat("s", 64<<10)},
		"too long":              {contents: strings.Repeat("s", 64<<10+1), problem: "cannot be read: larger than 65536 bytes"},
		"UTF-16":                {contents: "\xff\xfes\x003\x00", problem: "is in UTF-16; save it as UTF-8"},
		"UTF-16, big endian":    {contents: "\xfe\xff\x00s\x003", problem: "is in UTF-16; save it as UTF-8"},
		"empty":                 {problem: "is an empty file"},
		"a newline and no more": {contents: "\n", problem: "is an empty file"},
		"blanks only":           {contents: " \t\n", problem: "is an empty file"},
		"a mark and no more":    {contents: "\ufeff\n", problem: "is an empty file"},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(c.contents), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, key := range []struct {
			name, want, problem string
			of                  func(*config.Config) config.Secret
		}{
			{"PARTNER_CENTER__CLIENT_SECRET_FILE", c.secret, c.problem + c.secretProblem, func(cfg *config.Config) config.Secret { return cfg.Partners[0].ClientSecret }},
			{"CACHE__REDIS__PASSWORD_FILE", c.password, c.problem, func(cfg *config.Config) config.Secret { return cfg.Cache.Redis.Password }},
		} {
			cfg, err := config.Load("", []string{"ELIGIBILITY_" + key.name + "=" + path}, config.Dev)
			switch {
			case key.problem != "" && (err == nil || !strings.HasSuffix(err.Error(), strings.ToLower(key.name[strings.LastIndex(key.name, "__")+2:])+": "+key.problem)):
				t.Errorf("%s: %s: error %v, want %s", name, key.name, err, key.problem)
			case key.problem == "" && err != nil:
				t.Errorf("%s: %s: %v", name, key.name, err)
			case key.problem == "" && key.of(cfg).Reveal() != key.want:
				t.Errorf("%s: %s is %q", name, key.name, key.of(cfg).Reveal())
			}
		}
	}
}

// TestSecretsThatAreCopiedAreTrimmed covers secrets in the file and in the
// environment.
func TestSecretsThatAreCopiedAreTrimmed(t *testing.T) {
	t.Parallel()
	cfg, err := config.Load(write(t, "config.yaml", "partner_center: {client_secret: ' \ufeff~s3cret '}\ncache: {redis: {password: ' s3cret '}}\n"), []string{
		"ELIGIBILITY_CACHE__REDIS__MODE=sentinel", "ELIGIBILITY_CACHE__REDIS__SENTINEL__PASSWORD=\ufeffs3 cret\r\n",
		"ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET=\ufeff ~s3cret\t\r\n",
	}, config.Dev)
	if err != nil {
		t.Fatal(err)
	}
	for want, got := range map[string]config.Secret{
		"~s3cret": cfg.Partners[0].ClientSecret, " s3cret ": cfg.Cache.Redis.Password, "s3 cret": cfg.Cache.Redis.Sentinel.Password,
	} {
		if got.Reveal() != want {
			t.Errorf("%q, want %q", got.Reveal(), want)
		}
	}
	for text, want := range map[string]string{
		"'" + canary + " x'":                   noSecret,
		`'"` + canary + `"'`:                   noSecret,
		`"` + canary + `\u0000"`:               noSecret,
		"11111111-2222-3333-4444-abcdefABCDEF": secretID,
	} {
		got := faults(t, "partner_center: {client_secret: "+text+"}\n", nil, config.Dev)
		if diff := cmp.Diff([]string{"config.yaml:1: partner_center.client_secret: " + want}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}

func TestTheRefreshTokenFileHoldsAToken(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ contents, problem string }{
		"plain":          {"0.AXY-_.~token", ""},
		"what is copied": {" \ufeff 0.AXY-_.~token \r\n\n", ""},
		"quotes":         {`"0.AXY"`, noSecret},
		"a blank within": {"0.AXY token", noSecret},
		"JSON":           {`{"refresh_token":"0.AXY"}`, noSecret},
		"UTF-16":         {"\xff\xfe0\x00.\x00", "is in UTF-16; save it as UTF-8"},
	} {
		path := write(t, "token", c.contents)
		_, err := config.Load("", []string{
			"ELIGIBILITY_PARTNER_CENTER__TENANT_ID=contoso.example", "ELIGIBILITY_PARTNER_CENTER__CLIENT_ID=11111111-2222-3333-4444-abcdefABCDEF",
			"ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET=x", "ELIGIBILITY_PARTNER_CENTER__REFRESH_TOKEN_FILE=" + path,
		}, config.Serve)
		want := "ELIGIBILITY_PARTNER_CENTER__REFRESH_TOKEN_FILE: partner_center.refresh_token_file: " + c.problem + "; `eligibilityd login"
		if c.problem == "" && err != nil || c.problem != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("%s: error %v, want %q", name, err, c.problem)
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
