package accesstest_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"

	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheAuthorityServesBothSides(t *testing.T) {
	t.Parallel()
	authority := accesstest.NewAuthority(t)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].URIs[0].String()) //nolint:gosec // the test reads it
	}))
	server.TLS = &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{authority.Server(t).TLS()},
		ClientCAs: authority.Pool(), ClientAuth: tls.RequireAndVerifyClientCert,
	}
	server.StartTLS()
	defer server.Close()
	client := authority.Client(t, "spiffe://shop.example/checkout")
	dir := t.TempDir()
	certificate, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	client.CopyTo(t, certificate, key)
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	cfg := authority.ClientTLS(nil)
	cfg.Certificates = []tls.Certificate{pair}
	transport := &http.Transport{TLSClientConfig: cfg}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if body, err := io.ReadAll(answer.Body); err != nil || string(body) != "spiffe://shop.example/checkout" {
		t.Errorf("got %q, %v", body, err)
	}
}

func TestTokensOfAllAlgorithmsVerify(t *testing.T) {
	t.Parallel()
	issuer := accesstest.NewIssuer(t)
	for _, algorithm := range []string{"RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"} {
		key := accesstest.NewKey(t, "k", algorithm)
		token := key.Sign(t, nil, issuer.Claims("checkout", map[string]any{"exp": nil}))
		parsed, err := jwt.Parse(token, func(*jwt.Token) (any, error) { return key.Private.Public(), nil },
			jwt.WithValidMethods([]string{algorithm}), jwt.WithIssuer(issuer.URL), jwt.WithAudience(accesstest.Audience))
		if err != nil || parsed.Header["kid"] != "k" {
			t.Errorf("%s: %v", algorithm, err)
		}
	}
}
