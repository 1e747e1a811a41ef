package main

import (
	"crypto/rand"
	"crypto/rsa"
	"net/http"
	"strings"
	"testing"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
	"github.com/eligibilityd/eligibilityd/internal/identity/identitytest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

// federatedCredential is what the app registration of the simulator needs for the
// tokens of an identity.
func federatedCredential(issuer, subject string) pcsim.FederatedCredential {
	return pcsim.FederatedCredential{Issuer: issuer, Subject: subject, Audience: identitytest.Exchange, Key: &identitytest.Key().PublicKey}
}

// asserts are variables of a service that has an identity in place of a secret.
func asserts(kind string, more ...string) []string {
	return append([]string{
		"ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET=", "ELIGIBILITY_PARTNER_CENTER__CLIENT_ASSERTION=" + kind, "ELIGIBILITY_LOG__LEVEL=debug",
	}, more...)
}

// A service without any secret answers: by the identity of its pod or host, and a
// refresh token. Its tokens get nowhere else.
func TestServeByItsIdentity(t *testing.T) { //nolint:paralleltest // it changes the environment
	for _, kind := range []string{"workload_identity", "managed_identity"} {
		endpoint := identitytest.Start(t)
		_, claims := identitytest.Pod(t)
		simulator, partnerCenter := pcsimtest.Start(t)
		credential := federatedCredential(claims.Issuer, claims.Subject)
		if kind == "managed_identity" {
			credential = federatedCredential(identitytest.Issuer, identitytest.ObjectID)
		}
		if err := simulator.AddFederatedCredential(credential); err != nil {
			t.Fatal(err)
		}
		p := startServe(t, partnerCenter.URL, asserts(kind)...)
		answer, err := p.ask(t, &eligibilityv1.CheckEligibilityRequest{CustomerId: allowedID})
		if err != nil || answer.GetDecision() != eligibilityv1.Decision_DECISION_ALLOWED {
			t.Errorf("%s: %v, %v", kind, answer, err)
		}
		_, _, metrics := get(t, "http://"+p.Admin+"/metrics")
		if err := p.stop(); err != nil {
			t.Error(err)
		}
		for _, secret := range append(endpoint.Issued(), identitytest.Sign(claims), "canary") {
			if strings.Contains(metrics+p.log.String()+p.out.String(), secret) {
				t.Errorf("%s: %.12s… got out", kind, secret)
			}
		}
	}
}

// Without a federated credential the service starts, and answers that its
// credentials are refused; the doctor says which federated credential is missing.
// When it is there, the service answers without a restart.
func TestServeWithoutAFederatedCredential(t *testing.T) { //nolint:paralleltest // it changes the environment
	_, claims := identitytest.Pod(t)
	_, partnerCenter := pcsimtest.Start(t)
	p := startServe(t, partnerCenter.URL, asserts("workload_identity")...)
	status, _, body := get(t, "http://"+p.HTTP+"/v1/customers/"+allowedID+"/eligibility")
	if !strings.Contains(body, "PARTNER_CENTER_CREDENTIALS") {
		t.Errorf("status %d, body %s", status, body)
	}
	if !strings.Contains(p.log.String(), "no federated credential") {
		t.Errorf("the log: %s", p.log.String())
	}
	report := consult(t, pcsimtest.Environ(partnerCenter.URL, pcsimtest.TokenFile(t), asserts("workload_identity")...))
	report.Want("client assertion", "ok", "issuer "+claims.Issuer, "subject "+claims.Subject, "audience "+identitytest.Exchange)
	report.Want("token", "failure", "AADSTS70021", "az ad app federated-credential create --id "+pcsim.DefaultClientID, claims.Issuer, claims.Subject, identitytest.Exchange)
	if strings.Contains(report.Text, identitytest.Sign(claims)) {
		t.Error("the report holds the assertion")
	}
}

// An identity endpoint that is away is an outage, and no reason not to start.
func TestServeWithoutAnIdentityEndpoint(t *testing.T) { //nolint:paralleltest // it changes the environment
	endpoint := identitytest.Start(t)
	endpoint.Break(identitytest.Fails(http.StatusInternalServerError))
	simulator, partnerCenter := pcsimtest.Start(t)
	if err := simulator.AddFederatedCredential(federatedCredential(identitytest.Issuer, identitytest.ObjectID)); err != nil {
		t.Fatal(err)
	}
	p := startServe(t, partnerCenter.URL, asserts("managed_identity")...)
	status, _, body := get(t, "http://"+p.HTTP+"/v1/customers/"+allowedID+"/eligibility")
	if status != http.StatusServiceUnavailable || !strings.Contains(body, "PARTNER_CENTER_UNAVAILABLE") {
		t.Errorf("status %d, body %s", status, body)
	}
	report := consult(t, pcsimtest.Environ(partnerCenter.URL, pcsimtest.TokenFile(t), asserts("managed_identity")...))
	report.Want("client assertion", "failure", "status 500", "identity endpoint")
	endpoint.Break(identitytest.Fails(http.StatusBadRequest))
	report = consult(t, pcsimtest.Environ(partnerCenter.URL, pcsimtest.TokenFile(t), asserts("managed_identity")...))
	report.Want("client assertion", "failure", "status 400", "AZURE_CLIENT_ID")
	endpoint.Break(nil)
	eventually(t, "an answer", func() bool {
		status, _, _ := get(t, "http://"+p.HTTP+"/v1/customers/"+allowedID+"/eligibility")
		return status == http.StatusOK
	})
}

// A login whose assertion is refused is no matter of a client secret.
func TestLoginByATokenThatIsRefused(t *testing.T) { //nolint:paralleltest // it changes the environment
	file, claims := identitytest.Pod(t)
	another, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	identitytest.Project(t, file, identitytest.SignBy(another, claims))
	simulator, partnerCenter := pcsimtest.Start(t)
	if err := simulator.AddFederatedCredential(federatedCredential(claims.Issuer, claims.Subject)); err != nil {
		t.Fatal(err)
	}
	run := startLogin(t, partnerCenter.URL, asserts("workload_identity")...)
	person{}.signIn(t, run.page)
	if err := run.end(t); err == nil || !strings.Contains(err.Error(), "compare issuer, subject and audience") || strings.Contains(err.Error(), "client_secret") {
		t.Error(err)
	}
}

// The consent is redeemed by the identity, too.
func TestLoginByTheIdentityOfThePod(t *testing.T) { //nolint:paralleltest // it changes the environment
	_, claims := identitytest.Pod(t)
	simulator, partnerCenter := pcsimtest.Start(t)
	if err := simulator.AddFederatedCredential(federatedCredential(claims.Issuer, claims.Subject)); err != nil {
		t.Fatal(err)
	}
	run := startLogin(t, partnerCenter.URL, asserts("workload_identity")...)
	person{}.signIn(t, run.page)
	if err := run.end(t); err != nil || run.stored() == "" {
		t.Errorf("%v, stored %t", err, run.stored() != "")
	}
	if strings.Contains(run.out.String(), identitytest.Sign(claims)) {
		t.Error("the assertion is printed")
	}
}
