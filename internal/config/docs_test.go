package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

// deployed returns the text of a file that operators get.
func deployed(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheExampleLoadsAndStatesTheDefaults(t *testing.T) {
	t.Parallel()
	secret, token := write(t, "secret", canary+"\n"), write(t, "token", canary+"\n")
	const id = "10000000-0000-4000-8000-000000000001"
	cfg, err := config.Load(filepath.Join("..", "..", "deploy", "config.example.yaml"), []string{
		"ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET_FILE=" + secret,
		"ELIGIBILITY_PARTNER_CENTER__REFRESH_TOKEN_FILE=" + token,
		"ELIGIBILITY_PARTNER_CENTER__TENANT_ID=" + id,
		"ELIGIBILITY_PARTNER_CENTER__CLIENT_ID=" + id,
	}, config.Serve)
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.PartnerCenter.TenantID = id
	want.PartnerCenter.ClientID = id
	want.PartnerCenter.ClientSecret = config.NewSecret(canary)
	want.PartnerCenter.ClientSecretFile = secret
	want.PartnerCenter.RefreshTokenFile = token
	if diff := cmp.Diff(want, cfg); diff != "" {
		t.Errorf("differs from the default (-want +got):\n%s", diff)
	}
}

// TestTheExampleHoldsEveryKey switches on the keys that are off, too.
func TestTheExampleHoldsEveryKey(t *testing.T) {
	t.Parallel()
	text := regexp.MustCompile(`(?m)^( *)#([a-z_]+:)`).ReplaceAllString(deployed(t, "config.example.yaml"), "$1$2")
	var root map[string]any
	if err := yaml.Unmarshal([]byte(text), &root); err != nil {
		t.Fatal(err)
	}
	var got, want []string
	var walk func(string, map[string]any)
	walk = func(prefix string, section map[string]any) {
		for name, value := range section {
			if below, ok := value.(map[string]any); ok {
				walk(prefix+name+".", below)
				continue
			}
			got = append(got, prefix+name)
		}
	}
	walk("", root)
	for _, l := range leaves() {
		want = append(want, l.key)
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestTheReferenceIsComplete compares the table of deploy/README.md with the
// keys, their variables and their defaults.
func TestTheReferenceIsComplete(t *testing.T) {
	t.Parallel()
	row := regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\| `(ELIGIBILITY_[A-Z_]+)` \\| (?:`([^`]+)`|–) \\| .*\\|$")
	var got, want []string
	for _, cells := range row.FindAllStringSubmatch(deployed(t, "README.md"), -1) {
		got = append(got, strings.Join(cells[1:], " "))
	}
	for _, l := range leaves() {
		value := fmt.Sprint(l.in(config.Default()).Interface())
		value = strings.TrimSuffix(value, "[redacted]")
		value = strings.TrimSuffix(value, "[]")
		if before, ok := strings.CutSuffix(value, "m0s"); ok {
			value = strings.TrimSuffix(before+"m", "h0m")
			if value != before+"m" {
				value += "h"
			}
		}
		want = append(want, strings.Join([]string{l.key, l.variable(), value}, " "))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
