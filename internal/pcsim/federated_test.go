package pcsim_test

import (
	"crypto/rand"
	"crypto/rsa"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/identity/identitytest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

func federated() pcsim.FederatedCredential {
	return pcsim.FederatedCredential{
		Issuer: "https://oidc.example/cluster/", Subject: "system:serviceaccount:shop:eligibilityd", Audience: identitytest.Exchange,
		Key: &identitytest.Key().PublicKey,
	}
}

// A token of a federated identity takes the place of the secret in every flow, any
// number of times; each claim that differs has a code of its own.
func TestFederatedCredentials(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	now := r.clock.Now()
	claims := identitytest.Claims{
		Issuer: federated().Issuer, Subject: federated().Subject, Audience: []string{identitytest.Exchange}, Expires: now.Add(time.Hour).Unix(),
	}
	good := identitytest.Sign(claims)
	refuse := func(name, assertion string, status int, word string, code int) {
		t.Helper()
		got, err := r.postToken(t.Context(), v2Path, asserted(refreshForm(), assertion))
		if err != nil {
			t.Fatal(err)
		}
		checkEntra(t, name, got, status, word, code)
	}
	refuse("no credential", good, 400, "invalid_request", 70021)
	if err := r.AddFederatedCredential(federated()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r.grant(v2Path, asserted(refreshForm(), good))
		r.grant(v2Path, asserted(appOnlyForm(), good))
	}
	one := claims
	one.Audience = identitytest.Exchange
	r.grant(v2Path, asserted(refreshForm(), identitytest.Sign(one)))
	with := func(change func(*identitytest.Claims)) string {
		changed := claims
		change(&changed)
		return identitytest.Sign(changed)
	}
	another, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		assertion string
		code      int
	}{
		"another issuer":   {with(func(c *identitytest.Claims) { c.Issuer = "https://oidc.example/cluster" }), 700211},
		"another subject":  {with(func(c *identitytest.Claims) { c.Subject = "system:serviceaccount:shop:Eligibilityd" }), 700213},
		"another audience": {with(func(c *identitytest.Claims) { c.Audience = identitytest.Exchange + "USGov" }), 700212},
		"no audience":      {with(func(c *identitytest.Claims) { c.Audience = 1 }), 700212},
		"expired":          {with(func(c *identitytest.Claims) { c.Expires = now.Unix() }), 700024},
		"another key":      {identitytest.SignBy(another, claims), 700027},
	} {
		refuse(name, test.assertion, 401, "invalid_client", test.code)
	}
	for _, incomplete := range []pcsim.FederatedCredential{{}, {Issuer: "https://a.example", Subject: "s", Audience: "a"}} {
		if r.AddFederatedCredential(incomplete) == nil {
			t.Errorf("%+v is accepted", incomplete)
		}
	}
	if _, err := pcsim.New(pcsim.Config{FederatedCredentials: []pcsim.FederatedCredential{{}}}); err == nil {
		t.Error("an incomplete credential is accepted")
	}
}
