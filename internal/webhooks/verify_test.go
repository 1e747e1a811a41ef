package webhooks_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/webhooks"
)

// verify reports whether body came from a holder of secret within five minutes.
func verify(secret string, header http.Header, body []byte) bool {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	seconds, errTime := strconv.ParseInt(header.Get("webhook-timestamp"), 10, 64)
	if err != nil || errTime != nil || time.Since(time.Unix(seconds, 0)).Abs() > 5*time.Minute {
		return false
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%d.%s", header.Get("webhook-id"), seconds, body)
	want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	return slices.ContainsFunc(strings.Fields(header.Get("webhook-signature")), func(given string) bool {
		return hmac.Equal([]byte(given), []byte(want))
	})
}

// The function of docs/changes.md is this one, and it accepts what is sent, as long as
// nothing of it was changed.
func TestTheVerificationInTheDocuments(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("verify_test.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/changes.md")
	if err != nil {
		t.Fatal(err)
	}
	_, function, _ := strings.Cut(string(source), "\n)\n\n")
	function, _, _ = strings.Cut(function, "\n\n//")
	if !strings.Contains(string(page), "```go\n"+function+"\n```") {
		t.Errorf("docs/changes.md does not have %s", function)
	}
	current, former := []byte("01234567890123456789012345678901"), []byte("former-6789012345678901234567890")
	var got atomic.Pointer[received]
	_, cfg := startReceiver(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got.Store(&received{header: r.Header, body: body})
	})
	cfg.Secrets = func() [][]byte { return [][]byte{current, former} }
	if outcome, _, _, err := webhooks.New(cfg).Attempt(t.Context(), "customer:account:1", []byte(`{"data":{}}`)); outcome != "delivered" {
		t.Fatal(outcome, err)
	}
	sent, body := got.Load().header, got.Load().body
	whsec := func(key []byte) string { return "whsec_" + base64.StdEncoding.EncodeToString(key) }
	if !verify(whsec(current), sent, body) || !verify(whsec(former), sent, body) {
		t.Error("what was sent is not accepted")
	}
	old := sent.Clone()
	old.Set("webhook-timestamp", strconv.FormatInt(time.Now().Add(-6*time.Minute).Unix(), 10))
	other := sent.Clone()
	other.Set("webhook-id", "another")
	for name, accepted := range map[string]bool{
		"another body":     verify(whsec(current), sent, append(body, ' ')),
		"another secret":   verify(whsec(append(current, 'x')), sent, body),
		"another id":       verify(whsec(current), other, body),
		"an old timestamp": verify(whsec(current), old, body),
		"no headers":       verify(whsec(current), http.Header{}, body),
	} {
		if accepted {
			t.Errorf("%s is accepted", name)
		}
	}
}
