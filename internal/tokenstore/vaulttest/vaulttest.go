// Package vaulttest serves an Azure Key Vault, and the identity endpoint of the
// client's machine, over real HTTP. It is for tests only.
package vaulttest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// The vault's challenge, and the access token that it accepts.
const (
	tenant   = "70000000-0000-4000-8000-000000000001"
	resource = "https://vault.azure.net"
	bearer   = "canary-vault-access" //nolint:gosec // opens nothing but this vault
	// IdentityHeader is the secret that the identity endpoint requires.
	IdentityHeader = "canary-identity-header"
)

// Secret is the one secret that a vault holds.
const Secret = "partner-refresh-token"

// Vault is a vault with one secret, which does not exist unless it is set. It
// is safe for concurrent use.
type Vault struct {
	*httptest.Server

	now func() time.Time

	mu       sync.Mutex
	versions []version             // guarded by mu
	content  string                // type of all versions; guarded by mu
	broken   map[string]breakdown  // method → how it fails; guarded by mu
	asked    []string              // guarded by mu
	before   func(context.Context) // guarded by mu
}

// version is one version of the secret.
type version struct {
	value   string
	created time.Time
}

// breakdown is a failure: a status or, if status is 0, no response at all.
type breakdown struct{ status int }

// Start starts a vault on loopback, in plain HTTP. now dates the versions. When
// the test ends, the vault stops.
func Start(t *testing.T, now func() time.Time) *Vault {
	t.Helper()
	v := &Vault{now: now, broken: map[string]breakdown{}}
	v.Server = httptest.NewServer(v)
	t.Cleanup(v.Close)
	return v
}

// Put adds a version of the secret, as another client would.
func (v *Vault) Put(value string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.versions = append(v.versions, version{value, v.now()})
}

// SetContentType sets what the vault says about the form of the secret.
func (v *Vault) SetContentType(content string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.content = content
}

// Value returns the newest version, or "" if there is none.
func (v *Vault) Value() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.versions) == 0 {
		return ""
	}
	return v.versions[len(v.versions)-1].value
}

// Versions returns how many versions there are.
func (v *Vault) Versions() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.versions)
}

// Asked returns the received requests as "METHOD path".
func (v *Vault) Asked() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.asked)
}

// BeforePut sets a function that runs before each write of the secret, with the
// request's context.
func (v *Vault) BeforePut(f func(context.Context)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.before = f
}

// Break makes every request of a method fail with a status. If it is 0, there
// is no response.
func (v *Vault) Break(method string, status int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.broken[method] = breakdown{status}
}

// Mend undoes every Break.
func (v *Vault) Mend() {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.broken)
}

// ServeHTTP implements the two operations on a secret and the identity endpoint.
//
// Sources (read 2026-11-21):
// https://learn.microsoft.com/en-us/rest/api/keyvault/secrets/get-secret/get-secret,
// https://learn.microsoft.com/en-us/rest/api/keyvault/secrets/set-secret/set-secret,
// https://learn.microsoft.com/en-us/azure/key-vault/general/authentication-requests-and-responses
func (v *Vault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var sent struct {
		Value string `json:"value"`
	}
	_ = json.NewDecoder(r.Body).Decode(&sent) // reads the body, so that the server detects a disconnect
	if r.URL.Path == "/identity" {
		identify(w, r)
		return
	}
	v.mu.Lock()
	v.asked = append(v.asked, r.Method+" "+r.URL.Path)
	failure, broken := v.broken[r.Method]
	before := v.before
	v.mu.Unlock()
	switch {
	case broken && failure.status == 0:
		<-r.Context().Done()
	case r.Header.Get("Authorization") == "":
		w.Header().Set("WWW-Authenticate", `Bearer authorization="https://login.microsoftonline.com/`+tenant+`", resource="`+resource+`"`)
		refuse(w, http.StatusUnauthorized, "Unauthorized")
	case broken:
		w.Header().Set("Location", r.URL.Path+"elsewhere") // of a redirect
		refuse(w, failure.status, "Broken")
	case r.Header.Get("Authorization") != "Bearer "+bearer:
		refuse(w, http.StatusUnauthorized, "Unauthorized")
	case r.URL.Query().Get("api-version") == "" || strings.TrimRight(r.URL.Path, "/") != "/secrets/"+Secret:
		refuse(w, http.StatusNotFound, "SecretNotFound")
	case r.Method == http.MethodPut && sent.Value == "":
		refuse(w, http.StatusBadRequest, "BadParameter")
	case r.Method == http.MethodPut:
		if before != nil {
			before(r.Context())
		}
		v.Put(sent.Value)
		v.newest(w)
	case r.Method == http.MethodGet:
		v.newest(w)
	default:
		refuse(w, http.StatusMethodNotAllowed, "MethodNotAllowed")
	}
}

// newest responds with the newest version.
func (v *Vault) newest(w http.ResponseWriter) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.versions) == 0 {
		refuse(w, http.StatusNotFound, "SecretNotFound")
		return
	}
	newest := v.versions[len(v.versions)-1]
	answer(w, http.StatusOK, map[string]any{
		"contentType": v.content,

		"value":      newest.value,
		"id":         fmt.Sprintf("%s/secrets/%s/%032d", v.URL, Secret, len(v.versions)),
		"attributes": map[string]any{"enabled": true, "created": newest.created.Unix(), "updated": newest.created.Unix()},
	})
}

func refuse(w http.ResponseWriter, status int, code string) {
	answer(w, status, map[string]any{"error": map[string]any{"code": code, "message": "canary-vault-text"}})
}

func answer(w http.ResponseWriter, status int, body map[string]any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) //nolint:errchkjson // the client may disconnect at any time
}

// identify serves the endpoint of a managed identity.
//
// Source: https://learn.microsoft.com/en-us/azure/app-service/overview-managed-identity#rest-endpoint-reference
// (read 2026-11-21)
func identify(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-IDENTITY-HEADER") != IdentityHeader || r.URL.Query().Get("resource") != resource {
		refuse(w, http.StatusBadRequest, "BadRequest")
		return
	}
	answer(w, http.StatusOK, map[string]any{
		"access_token": bearer, "token_type": "Bearer", "resource": resource,
		"expires_on": strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10),
	})
}

// IdentityEndpoint returns the value for IDENTITY_ENDPOINT.
func (v *Vault) IdentityEndpoint() string { return v.URL + "/identity" }

// Credential is a credential that the vault accepts. Its zero value works.
type Credential struct {
	// If Err is not nil, GetToken returns it.
	Err error
}

var _ azcore.TokenCredential = Credential{}

// GetToken implements azcore.TokenCredential.
func (c Credential) GetToken(_ context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	switch {
	case c.Err != nil:
		return azcore.AccessToken{}, c.Err
	case !slices.Equal(options.Scopes, []string{resource + "/.default"}) || options.TenantID != tenant:
		return azcore.AccessToken{}, errors.New("canary-vault-text: asked for another resource")
	}
	return azcore.AccessToken{Token: bearer, ExpiresOn: time.Now().Add(time.Hour)}, nil
}
