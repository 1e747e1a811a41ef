package access_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/access"
)

func TestTokenFilesThatAreRefused(t *testing.T) {
	t.Parallel()
	const secret = "a-token-that-stands-in-the-wrong-place"
	sum, end := sumOf(staticToken), "2099-01-01T00:00:00Z"
	for name, one := range map[string]struct{ content, want string }{
		"empty":             {"", "is empty"},
		"a comment":         {"# none\n", "is empty"},
		"no list":           {"caller: a\n", "line 1: must be a list"},
		"a token":           {secret, "line 1: must be a list"},
		"no YAML":           {"- {caller: a\n  sha256: '" + secret + "\n", "is not valid YAML"},
		"an unknown alias":  {"- *" + secret, "is not valid YAML"},
		"two documents":     {"[]\n---\n[]\n", "more than one document"},
		"an entry no map":   {"- " + secret, "line 1: entry 1: must be {caller, sha256, not_after, rights}"},
		"unknown key":       {"- {caller: a, sha256: " + sum + ", not_after: " + end + ", rights: [check], token: " + secret + "}", "entry 1 (a): has an unknown key"},
		"unknown key first": {"- {" + secret + ": x}", "entry 1: has an unknown key"},
		"key twice":         {"- {caller: a, caller: b}", "entry 1 (a): has caller twice"},
		"no caller":         {"- {sha256: " + sum + ", not_after: " + end + ", rights: [check]}", "entry 1: has no caller"},
		"null caller":       {"- {caller: ~, sha256: " + sum + "}", "has no caller"},
		"caller a list":     {"- {caller: [a], sha256: " + sum + "}", "caller must be a single value"},
		"odd caller":        {"- {caller: 'a b', sha256: " + sum + "}", "visible ASCII"},
		"anonymous":         {"- {caller: anonymous, sha256: " + sum + "}", "not authenticated"},
		"no sha256":         {"- {caller: a, not_after: " + end + ", rights: [check]}", "entry 1 (a): has no sha256"},
		"short sha256":      {"- {caller: a, sha256: abcd, not_after: " + end + ", rights: [check]}", "entry 1 (a): sha256 must have 64 hexadecimal digits"},
		"sha256 no hex":     {"- {caller: a, sha256: " + strings.Repeat("g", 64) + "}", "64 hexadecimal digits"},
		"token as sha256":   {"- {caller: a, sha256: " + secret + "}", "64 hexadecimal digits"},
		"sha256 of nothing": {"- {caller: a, sha256: " + sumOf("") + "}", "not that of a token"},
		"sha256 of a line":  {"- {caller: a, sha256: " + sumOf("\n") + "}", "not that of a token"},
		"sha256 of zeros":   {"- {caller: a, sha256: '" + strings.Repeat("0", 64) + "'}", "not that of a token"},
		"no not_after":      {"- {caller: a, sha256: " + sum + ", rights: [check]}", "entry 1 (a): has no not_after"},
		"a date":            {"- {caller: a, sha256: " + sum + ", not_after: 2099-01-01, rights: [check]}", "not_after must be a time such as"},
		"unknown right":     {"- {caller: a, sha256: " + sum + ", not_after: " + end + ", rights: [check, " + secret + "]}", "entry 1 (a): an unknown right"},
		"rights a word":     {"- {caller: a, sha256: " + sum + ", not_after: " + end + ", rights: check}", "rights must be a list"},
		"no rights":         {"- {caller: a, sha256: " + sum + ", not_after: " + end + "}", "entry 1 (a): has no rights"},
		"empty rights":      {"- {caller: legacy, sha256: " + sum + ", not_after: " + end + ", rights: []}", "entry 1 (legacy): has no rights"},
		"one token twice": {
			"- {caller: a, sha256: " + sum + ", not_after: " + end + ", rights: [check]}\n" +
				"- {caller: b, sha256: " + strings.ToUpper(sum) + ", not_after: " + end + ", rights: [check]}\n",
			"line 2: entry 2 (b): has the sha256 of entry 1",
		},
	} {
		_, err := access.Tokens([]byte(one.content), map[string]access.Grant{"legacy": {Rights: []string{"check"}}})
		if err == nil || !strings.Contains(err.Error(), one.want) {
			t.Errorf("%s: got %v, want %q", name, err, one.want)
		} else if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), sum) {
			t.Errorf("%s: %v has what may be a secret", name, err)
		}
	}
	if _, err := access.Tokens([]byte("[]"), nil); err != nil {
		t.Errorf("no tokens: %v", err)
	}
}

func TestStaticTokens(t *testing.T) {
	t.Parallel()
	short, long := strings.Repeat("s", 31), strings.Repeat("l", 4097)
	least, most := strings.Repeat("s", 32), strings.Repeat("l", 4096)
	dotted := "looks.like.a-jwt-but-is-a-static-token"
	r := newRig(t, nil)
	r.write(t, entry("pipeline", staticToken, time.Hour, "[batch]")+
		entry("pipeline", staticToken+"2", 3*time.Hour, "")+ // another, while they are rotated; rights of auth.callers
		entry("a", short, time.Hour, "[check]")+entry("a", long, time.Hour, "[check]")+
		entry("a", least, time.Hour, "[check]")+entry("a", most, time.Hour, "[check]")+
		entry("a", dotted, time.Hour, "[check]")+
		entry("b", "expired-token-0123456789012345678901", -time.Hour, "[check]"))
	r.reload(t)
	for token, want := range map[string]string{
		staticToken:       "pipeline batch",
		staticToken + "2": "pipeline support",
		least:             "a check", most: "a check", dotted: "a check",
		short: "unknown", long: "unknown",
		"expired-token-0123456789012345678901": "expired",
	} {
		if got := r.try("Bearer " + token); got != want {
			t.Errorf("%.40q: got %q, want %q", token, got, want)
		}
	}
	r.clock.pass(61 * time.Minute)
	if got := r.try("Bearer " + staticToken); got != "expired" {
		t.Errorf("after not_after: %q", got)
	}
	if got := r.try("Bearer " + staticToken + "2"); got != "pipeline support" {
		t.Errorf("the token that lasts longer: %q", got)
	}
	// Of pipeline's tokens the last counts; b's ended two hours ago.
	if left := r.gauge(t, "eligibility_tokens_expire_in_seconds"); left < -7300 || left > -7200 {
		t.Errorf("the first caller without a token: in %.0f s", left)
	}
}

// reload runs the Authenticator until it has read the token file again.
func (r *rig) reload(t *testing.T) {
	t.Helper()
	before := r.gauge(t, "eligibility_tokens_expire_in_seconds")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.Reload()
	eventually(t, func() bool {
		now := r.gauge(t, "eligibility_tokens_expire_in_seconds")
		return now < before-1 || now > before+1
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// eventually waits until done returns true.
func eventually(t *testing.T, done func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it did not happen within a minute")
		}
	}
}

// gauge returns the value of a metric without labels, or of its first series.
func (r *rig) gauge(t *testing.T, name string) float64 {
	t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			return family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// A replaced token is refused at once, and nothing of it is remembered.
func TestATokenThatLeavesTheFileIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for range 3 {
		if got := r.try("Bearer " + staticToken); got != "pipeline batch" {
			t.Fatalf("before: %q", got)
		}
	}
	r.write(t, entry("pipeline", staticToken+"2", 2*time.Hour, "[check]"))
	r.reload(t)
	if got := r.try("Bearer " + staticToken); got != "unknown" {
		t.Errorf("the old token: %q", got)
	}
	if got := r.try("Bearer " + staticToken + "2"); got != "pipeline check" {
		t.Errorf("the new token: %q", got)
	}
}

func TestNewToken(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 20 {
		end := time.Now().Add(90 * 24 * time.Hour)
		token, line, err := access.NewToken("spiffe://shop.example/checkout", []string{"check", "watch_all", "check"}, end)
		if err != nil {
			t.Fatal(err)
		}
		if seen[token] || len(token) < 32 || strings.Contains(line, token) {
			t.Fatalf("token %q, entry %q", token, line)
		}
		seen[token] = true
		r := newRigOfTokens(t, line)
		if got := r.try("Bearer " + token); got != "spiffe://shop.example/checkout check,watch_all" {
			t.Fatalf("%s: %q", line, got)
		}
		if read, err := access.Tokens([]byte(line), nil); err != nil || len(read) != 1 || read[0].NotAfter.Sub(end).Abs() > time.Second {
			t.Fatalf("%v, %v", read, err)
		}
	}
	for name, one := range map[string]struct {
		caller string
		rights []string
	}{
		"no caller":     {"", []string{"check"}},
		"odd caller":    {"a b", []string{"check"}},
		"anonymous":     {"anonymous", []string{"check"}},
		"no rights":     {"a", nil},
		"unknown right": {"a", []string{"check", "everything"}},
	} {
		if token, line, err := access.NewToken(one.caller, one.rights, time.Now()); err == nil || token+line != "" {
			t.Errorf("%s: %q, %q, %v", name, token, line, err)
		}
	}
}

func newRigOfTokens(t *testing.T, content string) *rig {
	t.Helper()
	r := &rig{clock: &clock{}, tokens: t.TempDir() + "/tokens.yaml"}
	r.write(t, content)
	var err error
	if r.Authenticator, err = access.NewWithClock(access.Config{TokensFile: r.tokens, Logger: nop()}, r.clock.now, r.clock.elapsed); err != nil {
		t.Fatal(err)
	}
	return r
}
