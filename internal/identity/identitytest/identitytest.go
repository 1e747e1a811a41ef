// Package identitytest serves the identity endpoint of an Azure host over real
// HTTP, and signs tokens as a cluster or Entra does. It is for tests only.
package identitytest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
)

// The identity whose tokens the endpoint returns, and what it wants to see.
const (
	Issuer   = "https://login.microsoftonline.com/70000000-0000-4000-8000-000000000001/v2.0"
	ObjectID = "0b000000-0000-4000-8000-000000000001"
	Exchange = "api://AzureADTokenExchange"
	Redis    = "https://redis.azure.com"

	header = "canary-identity-header"
)

// Key signs all tokens. It is made once, as that is slow.
var Key = sync.OnceValue(func() *rsa.PrivateKey { //nolint:gochecknoglobals // never changed
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// Claims are the claims of a token.
type Claims struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Audience any    `json:"aud"` // text or a list of texts
	ObjectID string `json:"oid,omitempty"`
	Expires  int64  `json:"exp"`
	ID       string `json:"jti,omitempty"`
}

// Sign returns a token with those claims, signed with RS256 by Key.
func Sign(claims Claims) string { return SignBy(Key(), claims) }

// SignBy is Sign with another key.
func SignBy(key *rsa.PrivateKey, claims Claims) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(payload)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		panic(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// Endpoint is the identity endpoint of a host. It is safe for concurrent use.
type Endpoint struct {
	*httptest.Server

	mu       sync.Mutex
	lifetime time.Duration                                     // guarded by mu
	answer   func(w http.ResponseWriter, r *http.Request) bool // takes the place of the usual answer if true; guarded by mu
	asked    int                                               // guarded by mu
	issued   []string                                          // guarded by mu
	onIssue  func(token string)                                // guarded by mu
}

// Start starts an endpoint and makes it that of this process, with an identity of
// its own, since the SDK keeps tokens for the whole process. It changes the
// environment, so its callers cannot run in parallel.
func Start(t *testing.T) *Endpoint {
	t.Helper()
	e := &Endpoint{lifetime: time.Hour}
	e.Server = httptest.NewServer(e)
	t.Cleanup(e.Close)
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
	t.Setenv("AZURE_CLIENT_ID", uuid.NewString())
	t.Setenv("IDENTITY_ENDPOINT", e.URL+"/msi/token")
	t.Setenv("IDENTITY_HEADER", header)
	return e
}

// SetLifetime sets how long tokens are valid. The SDK keeps none for less than
// five minutes.
func (e *Endpoint) SetLifetime(lifetime time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lifetime = lifetime
}

// Break makes every request end in that answer; nil mends it.
func (e *Endpoint) Break(answer http.HandlerFunc) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answer = nil
	if answer != nil {
		e.answer = func(w http.ResponseWriter, r *http.Request) bool {
			answer(w, r)
			return true
		}
	}
}

// Hang never answers.
func Hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// Fails answers with a status and a text that must not be repeated.
func Fails(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = fmt.Fprint(w, `{"error":"canary-identity-text","error_description":"canary-identity-text"}`)
	}
}

// Asked returns how many requests have come.
func (e *Endpoint) Asked() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.asked
}

// Issued returns the tokens that were issued.
func (e *Endpoint) Issued() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.issued...)
}

// OnIssue sets a function that gets each token before the client does.
func (e *Endpoint) OnIssue(f func(token string)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.onIssue = f
}

// ServeHTTP implements the endpoint of App Service and Container Apps.
//
// Source: https://learn.microsoft.com/en-us/azure/app-service/overview-managed-identity#rest-endpoint-reference
// (read 2026-11-28)
func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	e.asked++
	answer, lifetime := e.answer, e.lifetime
	e.mu.Unlock()
	if answer != nil && answer(w, r) {
		return
	}
	resource := r.URL.Query().Get("resource")
	if r.Header.Get("X-IDENTITY-HEADER") != header || r.URL.Query().Get("client_id") != os.Getenv("AZURE_CLIENT_ID") || resource == "" {
		Fails(http.StatusBadRequest)(w, r)
		return
	}
	expires := time.Now().Add(lifetime)
	token := Sign(Claims{Issuer: Issuer, Subject: ObjectID, Audience: resource, ObjectID: ObjectID, Expires: expires.Unix(), ID: uuid.NewString()})
	e.mu.Lock()
	e.issued = append(e.issued, token)
	onIssue := e.onIssue
	e.mu.Unlock()
	if onIssue != nil {
		onIssue(token)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(map[string]any{ //nolint:errchkjson // the client may disconnect at any time
		"access_token": token, "token_type": "Bearer", "resource": resource,
		"expires_on": strconv.FormatInt(expires.Unix(), 10),
	})
}

// Pod makes this process one of a pod with the token of a service account, and
// returns the file of the token and its claims. It changes the environment.
func Pod(t *testing.T) (file string, claims Claims) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "azure-identity-token")
	claims = Claims{
		Issuer: "https://oidc.example/cluster/", Subject: "system:serviceaccount:shop:eligibilityd", Audience: []string{Exchange},
		Expires: time.Now().Add(time.Hour).Unix(),
	}
	Project(t, file, Sign(claims))
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", file)
	return file, claims
}

// Project replaces the token in a file as a kubelet does, at once.
func Project(t *testing.T, file, token string) {
	t.Helper()
	next := file + ".next"
	if err := os.WriteFile(next, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, file); err != nil {
		t.Fatal(err)
	}
}
