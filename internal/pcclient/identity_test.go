package pcclient_test

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/identity"
	"github.com/eligibilityd/eligibilityd/internal/identity/identitytest"
	"github.com/eligibilityd/eligibilityd/internal/pcclient"
)

const jwtBearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

func asserted(kind identity.Kind, flow pcclient.Flow) func(*pcclient.Config) {
	return func(cfg *pcclient.Config) {
		cfg.ClientSecret, cfg.Flow = "", flow
		cfg.ClientAssertion = identity.Assertion{Kind: kind}
		if kind == identity.ManagedIdentity {
			cfg.ClientAssertion.Audience = identitytest.Exchange
		}
	}
}

// sentAssertion fails the test unless the last token request was proved by that
// assertion and by nothing else.
func (r *rig) sentAssertion(want string) {
	r.t.Helper()
	asked := r.login.asked()
	form := asked[len(asked)-1].form
	if form.Get("client_assertion") != want || form.Get("client_assertion_type") != jwtBearer || form.Has("client_secret") || form.Get("client_id") != "client-id" {
		r.t.Errorf("sent %v", form)
	}
}

// The token of the service account is the assertion, with either flow, and read
// anew for each request.
func TestTheTokenOfAServiceAccountIsTheAssertion(t *testing.T) { //nolint:paralleltest // it changes the environment
	for _, flow := range []pcclient.Flow{pcclient.FlowAppUser, pcclient.FlowAppOnly} {
		file, claims := identitytest.Pod(t)
		r := start(t, setup{config: asserted(identity.WorkloadIdentity, flow), api: responds(200, `{"items":[],"totalCount":0}`)})
		if err := r.Token(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.sentAssertion(identitytest.Sign(claims))
		claims.ID = "rotated"
		identitytest.Project(t, file, identitytest.Sign(claims))
		r.clock.advance(2 * 3600e9)
		if err := r.Token(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.sentAssertion(identitytest.Sign(claims))
		if seen, err := r.Identity(t.Context()); err != nil || seen.Subject != claims.Subject || seen.Issuer != claims.Issuer {
			t.Errorf("%+v, %v", seen, err)
		}
		r.keepsSecret(identitytest.Sign(claims))
	}
}

// The token of a managed identity is the assertion. It is kept by the SDK.
func TestTheTokenOfAManagedIdentityIsTheAssertion(t *testing.T) { //nolint:paralleltest // it changes the environment
	endpoint := identitytest.Start(t)
	r := start(t, setup{config: asserted(identity.ManagedIdentity, pcclient.FlowAppUser)})
	r.ask()
	r.sentAssertion(endpoint.Issued()[0])
	endpoint.Break(identitytest.Hang)
	r.renew()
	r.sentAssertion(endpoint.Issued()[0])
	if endpoint.Asked() != 1 {
		t.Errorf("asked %d times", endpoint.Asked())
	}
	r.keepsSecret(endpoint.Issued()[0])
}

// An identity that is refused needs somebody; an endpoint that is away is an
// outage. In neither case is the login host asked, and either passes by itself.
func TestAnIdentityThatIsNotToBeHad(t *testing.T) { //nolint:paralleltest // it changes the environment
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		class  pcclient.Class
		reason pcclient.Reason
		alert  string
	}{
		"refused":   {identitytest.Fails(400), pcclient.ClassCredentials, pcclient.ReasonClientCredential, "1"},
		"throttled": {identitytest.Fails(429), pcclient.ClassUnavailable, pcclient.ReasonClientCredentialSource, "0"},
		"broken":    {identitytest.Fails(500), pcclient.ClassUnavailable, pcclient.ReasonClientCredentialSource, "0"},
		"cut off":   {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, pcclient.ClassUnavailable, pcclient.ReasonClientCredentialSource, "0"},
	} {
		endpoint := identitytest.Start(t)
		endpoint.Break(test.answer)
		r := start(t, setup{config: asserted(identity.ManagedIdentity, pcclient.FlowAppUser)})
		fail := r.askInVain(test.class, test.reason)
		if !strings.Contains(fail.Error(), "identity") || strings.Contains(fail.Error(), "canary") {
			t.Errorf("%s: %v", name, &fail)
		}
		r.counts(0, 0)
		if !r.shows(`credentials_alert{op="token"} ` + test.alert) {
			t.Errorf("%s: no alert %s: %s", name, test.alert, r.scrape())
		}
		if endpoint.Asked() != 1 {
			t.Errorf("%s: asked %d times", name, endpoint.Asked())
		}
		endpoint.Break(nil)
		r.clock.advance(60e9)
		eventually(t, "a token", func() bool { return r.Token(t.Context()) == nil })
		r.ask()
	}
}

// A file that vanishes is an alert once the token that was read has ended, and no
// reason to ask the login host.
func TestAServiceAccountWithoutAToken(t *testing.T) { //nolint:paralleltest // it changes the environment
	file, claims := identitytest.Pod(t)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	r := start(t, setup{config: asserted(identity.WorkloadIdentity, pcclient.FlowAppUser)})
	r.askInVain(pcclient.ClassCredentials, pcclient.ReasonClientCredential)
	r.counts(0, 0)
	identitytest.Project(t, file, identitytest.Sign(claims))
	r.clock.advance(60e9)
	r.ask()
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", "")
	cfg := pcclient.Config{
		BaseURL: r.api.URL, Authority: r.login.URL, TenantID: "t", ClientID: "c", Audience: "https://api.partnercenter.microsoft.com", Flow: pcclient.FlowAppOnly,
		ClientAssertion: identity.Assertion{Kind: identity.WorkloadIdentity},
	}
	if _, err := pcclient.New(cfg); err == nil || !strings.Contains(err.Error(), "AZURE_FEDERATED_TOKEN_FILE is not set") {
		t.Error(err)
	}
}

// A refusal for lack of a federated credential says so in the log.
func TestAnIdentityThatIsNoFederatedCredential(t *testing.T) { //nolint:paralleltest // it changes the environment
	identitytest.Pod(t)
	for word, code := range map[string]int{"invalid_request": 70021, "invalid_client": 700213} {
		r := start(t, setup{login: entra(http.StatusUnauthorized, word, code), config: asserted(identity.WorkloadIdentity, pcclient.FlowAppUser)})
		fail := r.askInVain(pcclient.ClassCredentials, pcclient.Reason(word))
		if !fail.RefusesIdentity() || r.login.count() != 1 {
			t.Errorf("%v after %d requests", &fail, r.login.count())
		}
		if n := r.logs.FilterMessageSnippet("no federated credential").Len(); n != 1 {
			t.Errorf("%d records", n)
		}
	}
}

// A refusal of an assertion is no matter of a secret or certificate.
func TestAnAssertionThatIsRefused(t *testing.T) { //nolint:paralleltest // it changes the environment
	identitytest.Pod(t)
	r := start(t, setup{login: entra(http.StatusUnauthorized, "invalid_client", 700027), config: asserted(identity.WorkloadIdentity, pcclient.FlowAppUser)})
	fail := r.askInVain(pcclient.ClassCredentials, pcclient.ReasonInvalidClient)
	if !fail.ByIdentity() || r.logs.FilterMessageSnippet("token of the identity of this process").Len() != 1 || r.logs.FilterMessageSnippet("secret").Len() != 0 {
		t.Errorf("%v", r.logs.All())
	}
}

// keepsSecret fails the test if a text is in the log or the metrics.
func (r *rig) keepsSecret(text string) {
	r.t.Helper()
	all := r.scrape()
	for _, entry := range r.logs.All() {
		all += entry.Message
		for _, field := range entry.Context {
			all += field.String
		}
	}
	if strings.Contains(all, text) {
		r.t.Error("an assertion got out")
	}
}
