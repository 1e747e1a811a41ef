package config_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// write writes text to a new file of that name and returns its path.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// leaf is one key of the configuration, found without the loader's help.
type leaf struct {
	key     string
	partner bool  // a key of the only partner
	index   []int // as for reflect.Value.FieldByIndex
}

func (l leaf) in(cfg *config.Config) reflect.Value {
	if l.partner {
		return reflect.ValueOf(&cfg.Partners[0]).Elem().FieldByIndex(l.index)
	}
	return reflect.ValueOf(cfg).Elem().FieldByIndex(l.index)
}

func (l leaf) variable() string {
	return "ELIGIBILITY_" + strings.ToUpper(strings.ReplaceAll(l.key, ".", "__"))
}

// leaves returns every key of the configuration, with those of a partner in the
// section partner_center.
func leaves() []leaf {
	var all []leaf
	var walk func(bool, reflect.Type, string, []int)
	walk = func(partner bool, typ reflect.Type, prefix string, index []int) {
		for i := range typ.NumField() {
			f, at := typ.Field(i), append(append([]int{}, index...), i)
			switch f.Tag.Get("yaml") {
			case "-":
				continue
			case "partners":
				walk(true, f.Type.Elem(), "", nil)
				continue
			}
			key := prefix + f.Tag.Get("yaml")
			if f.Type.Kind() == reflect.Struct && f.Type != reflect.TypeFor[config.Secret]() {
				walk(partner, f.Type, key+".", at)
				continue
			}
			all = append(all, leaf{key: key, partner: partner, index: at})
		}
	}
	walk(false, reflect.TypeFor[config.Config](), "", nil)
	return all
}

func TestNothingGivenIsTheDefault(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"empty file":        "",
		"blanks":            "\n\n",
		"comments only":     "# nothing\n# at all\n",
		"document marker":   "---\n",
		"null document":     "null\n",
		"empty mapping":     "{}\n",
		"empty sections":    "server:\ncache:\n  redis:\n  ages: {}\n",
		"byte order mark":   "\ufeff# nothing\n",
		"carriage returns":  "server:\r\n  insecure: false\r\n",
		"default spelt out": "partner_center: {attempt_timeout: 3s, flow: app_user}\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, err := config.Load(write(t, "config.yaml", text), []string{"HOME=/", "ELIGIBILITYD_SERVICE_HOST=10.0.0.1"}, config.Dev)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(config.Default(), cfg); diff != "" {
				t.Errorf("differs from the default (-want +got):\n%s", diff)
			}
		})
	}
	cfg, err := config.Load("", nil, config.Dev)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config.Default(), cfg); diff != "" {
		t.Errorf("without a file (-want +got):\n%s", diff)
	}
}

func TestEnvironmentOverridesTheFile(t *testing.T) {
	t.Parallel()
	path := write(t, "config.yaml", `
server: {drain: 1s, insecure: true, grpc: {address: ":9090"}}
cache: {redis: {addresses: ["redis-0:6379", "redis-1:6379"], insecure: true}}
policy: {not_ready: allow}
`)
	cfg, err := config.Load(path, []string{
		"ELIGIBILITY_CACHE__REDIS__ADDRESSES= redis-2:6379 , unix:///run/redis.sock",
		"ELIGIBILITY_SERVER__DRAIN=0s",
	}, config.Doctor)
	if err == nil || !strings.Contains(err.Error(), "cache.redis.addresses: item 2 is a socket") {
		t.Fatalf("cfg %v, error %v: the override did not take part in the rules", cfg, err)
	}
	cfg, err = config.Load(path, []string{
		"ELIGIBILITY_CACHE__REDIS__ADDRESSES=",
		"ELIGIBILITY_SERVER__DRAIN=0s",
	}, config.Doctor)
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.Server.Insecure = true
	want.Server.Drain = 0
	want.Server.GRPC.Address = ":9090"
	want.Policy.NotReady = config.NotReadyAllow
	want.Cache.Redis.Insecure = true
	if diff := cmp.Diff(want, cfg); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSlashesAtTheEndOfURLsAreDropped(t *testing.T) {
	t.Parallel()
	cfg, err := config.Load("", []string{
		"ELIGIBILITY_PARTNER_CENTER__BASE_URL=http://[::1]:8083/pc//",
		"ELIGIBILITY_PARTNER_CENTER__AUTHORITY=HTTP://LocalHost:8083/",
		"ELIGIBILITY_PARTNER_CENTER__AUDIENCE=api://00000000-0000-0000-0000-000000000001/",
	}, config.Dev)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{cfg.Partners[0].BaseURL, cfg.Partners[0].Authority, cfg.Partners[0].Audience}
	want := []string{"http://[::1]:8083/pc", "http://LocalHost:8083", "api://00000000-0000-0000-0000-000000000001"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
