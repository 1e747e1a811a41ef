package identity_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/eligibilityd/eligibilityd/internal/identity"
	"github.com/eligibilityd/eligibilityd/internal/identity/identitytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func managed(t *testing.T) *identity.Assertions {
	t.Helper()
	assertions, err := identity.NewAssertions(identity.Assertion{Kind: identity.ManagedIdentity, Audience: identitytest.Exchange}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return assertions
}

// The token of a managed identity is kept until it is about to end, and says who
// the identity is.
func TestManagedIdentity(t *testing.T) { //nolint:paralleltest // it changes the environment
	endpoint := identitytest.Start(t)
	assertions := managed(t)
	if endpoint.Asked() != 0 {
		t.Error("New has asked")
	}
	first, err := assertions.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	again, err := assertions.Get(t.Context())
	if err != nil || again != first || endpoint.Asked() != 1 {
		t.Errorf("asked %d times, %v", endpoint.Asked(), err)
	}
	claims, err := identity.ReadClaims(first)
	want := identity.Claims{Issuer: identitytest.Issuer, Subject: identitytest.ObjectID, Audience: []string{identitytest.Exchange}, ObjectID: identitytest.ObjectID, Expires: claims.Expires}
	if diff := cmp.Diff(want, claims); diff != "" || err != nil || time.Until(claims.Expires) < 50*time.Minute {
		t.Errorf("%v, until %v: %s", err, claims.Expires, diff)
	}
	endpoint.Break(identitytest.Hang)
	if kept, err := assertions.Get(t.Context()); err != nil || kept != first {
		t.Errorf("with an endpoint that hangs: %v", err)
	}
}

// A new token is requested while the last one has some minutes left.
func TestManagedIdentityIsRenewedInGoodTime(t *testing.T) { //nolint:paralleltest // it changes the environment
	endpoint := identitytest.Start(t)
	assertions := managed(t)
	endpoint.SetLifetime(4 * time.Minute)
	first, err := assertions.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	second, err := assertions.Get(t.Context())
	if err != nil || second == first {
		t.Errorf("the token is not renewed: %v", err)
	}
}

// Refusals need somebody; everything else is an outage. No text of the endpoint
// is repeated, and each ends in time.
func TestFailuresOfTheIdentityEndpoint(t *testing.T) { //nolint:paralleltest // it changes the environment
	endpoint := identitytest.Start(t)
	assertions := managed(t)
	for name, test := range map[string]struct {
		answer  http.HandlerFunc
		refused bool
		text    string
	}{
		"no such identity": {identitytest.Fails(400), true, "status 400"},
		"unauthorized":     {identitytest.Fails(401), true, "status 401"},
		"forbidden":        {identitytest.Fails(403), true, "status 403"},
		"reconfigured":     {identitytest.Fails(404), false, "status 404"},
		"gone":             {identitytest.Fails(410), false, "status 410"},
		"throttled":        {identitytest.Fails(429), false, "status 429"},
		"broken":           {identitytest.Fails(500), false, "status 500"},
		"a proxy's page":   {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>canary-identity-text")) }, false, "cannot be read"},
		"no token":         {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"expires_on":"4000000000"}`)) }, false, "identity endpoint"},
		"endless": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte(strings.Repeat(" ", 1<<16))); err != nil {
					return
				}
			}
		}, false, "cannot be read"},
		"elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/canary-identity-text", http.StatusFound)
		}, false, "status 302"},
		"cut off": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, false, "unexpected EOF"},
	} {
		endpoint.Break(test.answer)
		_, err := assertions.Get(t.Context())
		if err == nil || errors.Is(err, identity.ErrRefused) != test.refused || !strings.Contains(err.Error(), test.text) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
	endpoint.Break(identitytest.Hang)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := assertions.Get(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, identity.ErrRefused) {
		t.Errorf("hanging: %v", err)
	}
	endpoint.Close()
	if _, err := assertions.Get(t.Context()); err == nil || errors.Is(err, identity.ErrRefused) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("absent: %v", err)
	}
}

// Without the variables of a host, the endpoint is that of a virtual machine, and
// no proxy gets the request. If there is none, that is an outage.
func TestTheEndpointOfAVirtualMachine(t *testing.T) { //nolint:paralleltest // it changes the environment
	for _, name := range []string{"IDENTITY_ENDPOINT", "IDENTITY_HEADER", "MSI_ENDPOINT", "AZURE_CLIENT_ID"} {
		t.Setenv(name, "")
	}
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	reached := ""
	transport := &http.Transport{Proxy: identity.Proxy, DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
		reached = address
		return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", errors.New("no route"))}
	}}
	assertions, err := identity.NewAssertions(identity.Assertion{Kind: identity.ManagedIdentity, Audience: identitytest.Exchange + "Nowhere"}, transport)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := assertions.Get(t.Context()); err == nil || errors.Is(err, identity.ErrRefused) || reached != "169.254.169.254:80" {
		t.Errorf("%v at %s", err, reached)
	}
}

// The token of a service account is read anew each time. While the file cannot be
// read, the last token serves until its end.
func TestWorkloadIdentity(t *testing.T) { //nolint:paralleltest // it changes the environment
	file, claims := identitytest.Pod(t)
	assertions, err := identity.NewAssertions(identity.Assertion{Kind: identity.WorkloadIdentity}, nil)
	if err != nil {
		t.Fatal(err)
	}
	get := func(want string) {
		t.Helper()
		if got, err := assertions.Get(t.Context()); err != nil || got != want {
			t.Errorf("%v, another token: %t", err, got != want)
		}
	}
	first := identitytest.Sign(claims)
	get(first)
	claims.ID = "2"
	second := identitytest.Sign(claims)
	identitytest.Project(t, file, second+"\n")
	get(second)
	for _, content := range []string{"", " \n", "no token at all", "a.b.c", strings.Repeat("a", 64<<10+1), "half" + second[:40]} {
		identitytest.Project(t, file, content)
		get(second)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	get(second)
	claims.Expires = time.Now().Add(-time.Hour).Unix()
	identitytest.Project(t, file, identitytest.Sign(claims))
	get(second)
	claims.Expires = time.Now().Add(-time.Second).Unix()
	ended := identitytest.Sign(claims)
	identitytest.Project(t, file, ended)
	get(ended) // the cluster's clock may be behind ours
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := assertions.Get(t.Context()); !errors.Is(err, identity.ErrRefused) || strings.Contains(err.Error(), file) {
		t.Errorf("without a file and a token that is valid: %v", err)
	}
	claims.Expires = 0
	endless := identitytest.Sign(claims)
	identitytest.Project(t, file, endless)
	get(endless)
}

// A token that has ended is not sent.
func TestATokenThatHasEnded(t *testing.T) { //nolint:paralleltest // it changes the environment
	file, claims := identitytest.Pod(t)
	claims.Expires = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Unix()
	identitytest.Project(t, file, identitytest.Sign(claims))
	refuses(t, "holds a token that ended at 2026-01-02T03:04:05Z")
}

// Nobody's token is made of a file that holds none.
func TestFilesWithoutAToken(t *testing.T) { //nolint:paralleltest // it changes the environment
	file, _ := identitytest.Pod(t)
	for content, want := range map[string]string{
		"": "is empty", "\ufeff \r\n": "is empty", "two words": "holds no token", "a.b": "holds no JSON web token",
		"a.!.c": "holds no JSON web token", "a.bm8.c": "holds no JSON web token", strings.Repeat("a", 64<<10+1): "holds no token",
	} {
		identitytest.Project(t, file, content)
		refuses(t, want)
	}
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", filepath.Dir(file))
	refuses(t, "is not a regular file")
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", file+"/x")
	refuses(t, "cannot be read")
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", "")
	if _, err := identity.NewAssertions(identity.Assertion{Kind: identity.WorkloadIdentity}, nil); err == nil || !strings.Contains(err.Error(), "AZURE_FEDERATED_TOKEN_FILE is not set") {
		t.Error(err)
	}
}

func refuses(t *testing.T, want string) {
	t.Helper()
	assertions, err := identity.NewAssertions(identity.Assertion{Kind: identity.WorkloadIdentity}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := assertions.Get(t.Context()); !errors.Is(err, identity.ErrRefused) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

// The user of Redis is the object id of the identity.
func TestTokensForRedis(t *testing.T) { //nolint:paralleltest // it changes the environment
	endpoint := identitytest.Start(t)
	var tokens identity.Tokens
	token, err := tokens.Get(t.Context())
	if err != nil || token.User != identitytest.ObjectID || token.Value != endpoint.Issued()[0] || time.Until(token.Expires) < 50*time.Minute {
		t.Errorf("%v, user %s", err, token.User)
	}
	claims, err := identity.ReadClaims(token.Value)
	if diff := cmp.Diff([]string{identitytest.Redis}, claims.Audience); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "nonsense")
	if _, err := new(identity.Tokens).Get(t.Context()); !errors.Is(err, identity.ErrRefused) || !strings.Contains(err.Error(), "AZURE_TOKEN_CREDENTIALS") {
		t.Error(err)
	}
}

// A chain that ends without an identity is no outage.
func TestNoIdentityAtAll(t *testing.T) { //nolint:paralleltest // it changes the environment
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "WorkloadIdentityCredential")
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", "")
	t.Setenv("AZURE_CLIENT_ID", "")
	t.Setenv("AZURE_TENANT_ID", "")
	if _, err := new(identity.Tokens).Get(t.Context()); !errors.Is(err, identity.ErrRefused) {
		t.Error(err)
	}
}
