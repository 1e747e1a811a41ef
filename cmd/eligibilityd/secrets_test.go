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

	"google.golang.org/protobuf/encoding/prototext"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/tracing/tracingtest"
)

// Secrets that only the login host or the collector may receive.
const (
	canarySecret  = "canary-client-secret"
	canaryRefresh = "canary-refresh-token"
	canaryHeader  = "canary-header" // the collector's
	// Only Redis may receive this one.
	canaryRedis = "canary-redis-password"
)

// tokenTap records every token that a simulator issues.
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

// No secret or token reaches a log, answer, metric, span or cache if anything
// fails.
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
	setRedisUser(t, redis, "+@all", ">"+canaryRedis)
	refreshFile := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(refreshFile, []byte(canaryRefresh), 0o600); err != nil {
		t.Fatal(err)
	}
	collector := tracingtest.Start(t)
	p := startServe(t, partnerCenter.URL,
		"ELIGIBILITY_TRACING__ENDPOINT="+collector.URL,
		"ELIGIBILITY_TRACING__SAMPLE_RATIO=1",
		"ELIGIBILITY_TRACING__HEADERS=authorization="+canaryHeader,
		"ELIGIBILITY_LOG__LEVEL=debug",
		"ELIGIBILITY_CACHE__REDIS__ADDRESSES="+redis.Address,
		"ELIGIBILITY_CACHE__REDIS__USERNAME=gate",
		"ELIGIBILITY_CACHE__REDIS__PASSWORD="+canaryRedis,
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
	setRedisUser(t, redis, "-@all") // the service notices with its next command
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
	inRedis := everythingIn(t, redis)
	if inRedis == "" {
		t.Error("nothing is in Redis: its password did not arrive")
	}
	seen.WriteString(inRedis)
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	seen.WriteString(p.log.String())
	seen.WriteString(p.out.String())
	if len(collector.Spans()) == 0 {
		t.Error("no span was sent: spans were not looked at")
	}
	for _, request := range collector.Requests() {
		seen.WriteString(prototext.Format(request))
	}

	tap.mu.Lock()
	defer tap.mu.Unlock()
	if len(tap.tokens) == 0 {
		t.Fatal("no token was handed out: nothing was tested")
	}
	for _, secret := range append(tap.tokens, canarySecret, canaryRefresh, canaryRedis, canaryHeader) {
		if secret != "" && strings.Contains(seen.String(), secret) {
			at := strings.Index(seen.String(), secret)
			t.Errorf("a secret got out: …%s", seen.String()[max(0, at-200):min(seen.Len(), at+len(secret)+50)])
		}
	}
}

// setRedisUser changes the user gate with the rules of ACL SETUSER.
func setRedisUser(t *testing.T, redis *cachetest.Redis, words ...string) {
	t.Helper()
	client := redis.Client()
	defer func() { _ = client.Close() }()
	command := []any{"ACL", "SETUSER", "gate", "on", "~*", "&*"}
	for _, word := range words {
		command = append(command, word)
	}
	if err := client.Do(t.Context(), command...).Err(); err != nil {
		t.Fatal(err)
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
