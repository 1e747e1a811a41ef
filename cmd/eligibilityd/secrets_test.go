package main

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// Secrets that the login host alone may see.
const (
	canarySecret  = "canary-client-secret"
	canaryRefresh = "canary-refresh-token"
)

// tokenTap keeps every token that a simulator hands out.
type tokenTap struct {
	handler http.Handler
	mu      sync.Mutex
	tokens  []string
}

func (tap *tokenTap) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		tap.handler.ServeHTTP(w, r)
		return
	}
	answer := httptest.NewRecorder()
	tap.handler.ServeHTTP(answer, r)
	var tokens struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
	}
	if json.Unmarshal(answer.Body.Bytes(), &tokens) == nil && tokens.Access != "" {
		tap.mu.Lock()
		tap.tokens = append(tap.tokens, tokens.Access, tokens.Refresh)
		tap.mu.Unlock()
	}
	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

// Secrets and tokens reach no log, answer, metric or cache, whatever fails.
func TestSecretsStayInside(t *testing.T) {
	t.Parallel()
	sim, err := pcsim.New(pcsim.Config{ClientSecret: canarySecret, RefreshToken: canaryRefresh})
	if err != nil {
		t.Fatal(err)
	}
	tap := &tokenTap{handler: sim.Handler()}
	partnerCenter := httptest.NewServer(tap)
	defer partnerCenter.Close()
	defer sim.Close()
	redis := cachetest.StartRedis(t)
	refreshFile := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(refreshFile, []byte(canaryRefresh), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startServe(t, partnerCenter.URL,
		"ELIGIBILITY_LOG__LEVEL=debug",
		"ELIGIBILITY_CACHE__REDIS__ADDRESSES="+redis.Address,
		"ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET="+canarySecret,
		"ELIGIBILITY_PARTNER_CENTER__REFRESH_TOKEN_FILE="+refreshFile,
	)

	var seen strings.Builder
	ask := func(path string) {
		_, header, body := get(t, "http://"+p.HTTP+path)
		seen.WriteString(body)
		for name, values := range header {
			seen.WriteString(name + strings.Join(values, " "))
		}
	}
	for _, customer := range sim.Customers() {
		ask("/v1/customers/" + customer.ID + "/eligibility?segment=EDUCATION")
	}
	sim.ExpireTokens() // a 401, a renewal and a replay
	ask("/v1/customers/" + allowedID + "/eligibility?max_age=0s")
	for _, code := range []int{700082, 7000215, 90033} {
		if err := sim.ScriptTokens(pcsim.Step{EntraError: code}); err != nil {
			t.Fatal(err)
		}
		sim.ExpireTokens()
		ask("/v1/customers/" + notAllowedID + "/eligibility?max_age=0s")
	}
	_, _, metrics := get(t, "http://"+p.Admin+"/metrics")
	seen.WriteString(metrics)
	seen.WriteString(everythingIn(t, redis))
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	seen.WriteString(p.log.String())
	seen.WriteString(p.out.String())

	tap.mu.Lock()
	defer tap.mu.Unlock()
	if len(tap.tokens) == 0 {
		t.Fatal("no token was handed out: nothing was tested")
	}
	for _, secret := range append(tap.tokens, canarySecret, canaryRefresh) {
		if secret != "" && strings.Contains(seen.String(), secret) {
			at := strings.Index(seen.String(), secret)
			t.Errorf("a secret got out: …%s", seen.String()[max(0, at-200):min(seen.Len(), at+len(secret)+50)])
		}
	}
}

func everythingIn(t *testing.T, redis *cachetest.Redis) string {
	t.Helper()
	client := redis.Client()
	defer func() { _ = client.Close() }()
	ctx := context.Background()
	var all strings.Builder
	for _, key := range client.Keys(ctx, "*").Val() {
		all.WriteString(key + client.Get(ctx, key).Val())
	}
	return all.String()
}
