package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/client"
)

// The client proves who its caller is over TLS, and reports credentials that are refused
// as what they are, without a wait: health checks need none.
func TestTheClientWithTLSAndATokenFile(t *testing.T) {
	t.Parallel()
	p, ca, issuer := startGuarded(t)
	authorities, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	trusting := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if !trusting.RootCAs.AppendCertsFromPEM(authorities) {
		t.Fatal("no authority")
	}
	file := filepath.Join(t.TempDir(), "token")
	asker, err := client.New(p.GRPC, client.Config{TLS: trusting, Token: client.TokenFile(file), Timeout: patience, Language: "de"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = asker.Close() })
	check := func(token string) client.Verdict {
		if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return asker.Check(context.Background(), client.Request{CustomerID: underReviewID})
	}
	token := func(right string) string { return issuer.Token(t, "shop", map[string]any{"roles": []any{right}}) }
	var answer client.Verdict
	eventually(t, "the issuer's keys to be fetched", func() bool {
		answer = check(token("check"))
		return answer.Outcome() == client.Blocked
	})
	if got := answer.Reasons()[0].GetMessage(); !strings.Contains(got, "Konto") {
		t.Errorf("in German: %q", got)
	}
	for text, want := range map[string]codes.Code{"unknown": codes.Unauthenticated, "": codes.Unauthenticated, token("batch"): codes.PermissionDenied} {
		if v := check(text); v.Outcome() != client.Undecided || status.Code(v.Err()) != want {
			t.Errorf("%.8s: %v, want %v", text, v.Err(), want)
		}
	}
}
