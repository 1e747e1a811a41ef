package main

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
	"github.com/eligibilityd/eligibilityd/internal/doctor"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
	"github.com/eligibilityd/eligibilityd/internal/tokenstore/vaulttest"
)

// vault starts a vault that holds the simulator's refresh token, and gives this
// process a managed identity that the vault accepts, so that azidentity's own
// chain is under test. It changes the environment, so its callers cannot run in
// parallel.
func vault(t *testing.T, age time.Duration) (v *vaulttest.Vault, variables []string) {
	t.Helper()
	v = vaulttest.Start(t, func() time.Time { return time.Now().Add(-age) })
	v.Put(pcsim.DefaultRefreshToken)
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
	t.Setenv("IDENTITY_ENDPOINT", v.IdentityEndpoint())
	t.Setenv("IDENTITY_HEADER", vaulttest.IdentityHeader)
	return v, []string{
		"ELIGIBILITY_PARTNER_CENTER__REFRESH_TOKEN_FILE=",
		"ELIGIBILITY_PARTNER_CENTER__REFRESH_TOKEN_VAULT__URL=" + v.URL,
		"ELIGIBILITY_PARTNER_CENTER__REFRESH_TOKEN_VAULT__SECRET=" + vaulttest.Secret,
	}
}

// With a vault in place of the file, a rotated token is stored before the first
// answer. Neither it nor the vault's access token is printed.
func TestServeWithAVault(t *testing.T) { //nolint:paralleltest // it changes the environment
	v, variables := vault(t, 0)
	_, partnerCenter := pcsimtest.Start(t)
	p := startServe(t, partnerCenter.URL, append(variables, "ELIGIBILITY_LOG__LEVEL=debug")...)
	answer, err := p.ask(t, &eligibilityv1.CheckEligibilityRequest{CustomerId: allowedID})
	if err != nil || answer.GetDecision() != eligibilityv1.Decision_DECISION_ALLOWED {
		t.Errorf("%v, %v", answer, err)
	}
	if v.Versions() != 2 || v.Value() == pcsim.DefaultRefreshToken {
		t.Errorf("%d versions", v.Versions())
	}
	_, _, metrics := get(t, "http://"+p.Admin+"/metrics")
	if !strings.Contains(metrics, "\neligibility_partner_center_refresh_token_unstored{partner=\"default\"} 0\n") {
		t.Error("the token counts as unstored")
	}
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	for _, secret := range []string{v.Value(), pcsim.DefaultRefreshToken, "canary"} {
		if strings.Contains(metrics+p.log.String()+p.out.String(), secret) {
			t.Errorf("%.12s… got out", secret)
		}
	}
}

// If the variable that makes the Azure libraries print each request is set, it
// has no effect.
func TestAzureLibrariesPrintNothing(t *testing.T) {
	t.Parallel()
	if os.Getenv("AZURE_SDK_GO_LOGGING") != "" {
		return // set in the child process below
	}
	command := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestServeWithAVault$", "-test.v") //nolint:gosec // this test itself
	command.Env = append(os.Environ(), "AZURE_SDK_GO_LOGGING=all")
	printed, err := command.CombinedOutput()
	if err != nil || !bytes.Contains(printed, []byte("PASS: TestServeWithAVault")) {
		t.Fatalf("%v: %s", err, printed)
	}
	if bytes.Contains(printed, []byte("/secrets/")) || bytes.Contains(printed, []byte("canary")) {
		t.Errorf("printed: %s", printed)
	}
}

// If an operator must act, the start fails and the message names the remedy; if
// the vault is unavailable, the service starts.
func TestServeAndAVaultThatRefuses(t *testing.T) { //nolint:paralleltest // it changes the environment
	v, variables := vault(t, 0)
	_, partnerCenter := pcsimtest.Start(t)
	for status, want := range map[int]string{
		http.StatusNotFound:  "`eligibilityd login --config FILE`",
		http.StatusForbidden: "Key Vault Secrets Officer",
	} {
		v.Break(http.MethodGet, status)
		err := serve(t.Context(), pcsimtest.Environ(partnerCenter.URL, "", variables...), "", false, new(output), new(output))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d: %v", status, err)
		}
	}
	v.Break(http.MethodGet, http.StatusServiceUnavailable)
	p := startServe(t, partnerCenter.URL, variables...)
	status, _, body := get(t, "http://"+p.HTTP+"/v1/customers/"+allowedID+"/eligibility")
	if status != http.StatusServiceUnavailable || !strings.Contains(body, "PARTNER_CENTER_UNAVAILABLE") {
		t.Errorf("status %d, body %s", status, body)
	}
	if !strings.Contains(p.log.String(), "vault of the refresh token cannot be asked yet") {
		t.Errorf("the log: %s", p.log.String())
	}
	v.Mend()
	eventually(t, "an answer", func() bool {
		status, _, _ := get(t, "http://"+p.HTTP+"/v1/customers/"+allowedID+"/eligibility")
		return status == http.StatusOK
	})
}

// If there are several partners, the message names the one that has no token.
func TestServeNamesThePartnerWithoutARefreshToken(t *testing.T) { //nolint:paralleltest // it changes the environment
	v, variables := vault(t, 0)
	a, b := startPartnerHost(t), startPartnerHost(t)
	environ := slices.Concat(a.environ(t, "a"), b.environ(t, "b"))
	environ = slices.DeleteFunc(environ, func(entry string) bool {
		return strings.HasPrefix(entry, "ELIGIBILITY_PARTNERS__B__REFRESH_TOKEN_FILE=")
	})
	for _, variable := range variables[1:] {
		environ = append(environ, strings.Replace(variable, "PARTNER_CENTER", "PARTNERS__B", 1))
	}
	for status, want := range map[int]string{
		http.StatusNotFound:  "`eligibilityd login --config FILE --partner b`",
		http.StatusForbidden: "partner b: ",
	} {
		v.Break(http.MethodGet, status)
		err := serve(t.Context(), anyPort(environ...), "", false, new(output), new(output))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// A check of the configuration does not ask the vault.
func TestCheckConfigLeavesTheVaultAlone(t *testing.T) { //nolint:paralleltest // it changes the environment
	v, variables := vault(t, 0)
	var out bytes.Buffer
	if err := serve(t.Context(), pcsimtest.Environ("http://127.0.0.1:1", "", variables...), "", true, &out, new(output)); err != nil || len(v.Asked()) != 0 {
		t.Errorf("%v, asked %v", err, v.Asked())
	}
}

func TestLoginStoresInTheVault(t *testing.T) { //nolint:paralleltest // it changes the environment
	v, variables := vault(t, 0)
	_, partnerCenter := pcsimtest.Start(t)
	run := startLogin(t, partnerCenter.URL, variables...)
	person{}.signIn(t, run.page)
	if err := run.end(t); err != nil {
		t.Fatal(err)
	}
	if v.Versions() != 2 || run.stored() != "" {
		t.Errorf("%d versions, and the file holds %q", v.Versions(), run.stored())
	}
	if printed := run.out.String(); !strings.Contains(printed, v.URL+"/secrets/"+vaulttest.Secret) || strings.Contains(printed, v.Value()) {
		t.Errorf("printed %s", printed)
	}
	p := startServe(t, partnerCenter.URL, variables...)
	if _, err := p.ask(t, &eligibilityv1.CheckEligibilityRequest{CustomerId: allowedID}); err != nil {
		t.Error(err)
	}

	v.Break(http.MethodGet, http.StatusForbidden)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	never := func(context.Context, string) error {
		t.Error("sent somebody to sign in")
		return nil
	}
	if err := login(ctx, pcsimtest.Environ(partnerCenter.URL, "", variables...), loginFlags{timeout: patience}, never, new(output)); err == nil {
		t.Error("a vault that refuses is not noticed")
	}
}

func TestDoctorLooksIntoTheVault(t *testing.T) { //nolint:paralleltest // it changes the environment
	_, partnerCenter := pcsimtest.Start(t)
	for name, c := range map[string]struct {
		age     time.Duration
		prepare func(*vaulttest.Vault)
		status  doctor.Verdict
		token   doctor.Verdict
		words   []string
	}{
		"good":     {age: 10*24*time.Hour + time.Minute, status: doctor.VerdictOK, token: doctor.VerdictOK, words: []string{"lasts 79 days more"}},
		"old":      {age: 77 * 24 * time.Hour, status: doctor.VerdictWarning, token: doctor.VerdictOK, words: []string{"77 days old", "eligibilityd login"}},
		"missing":  {prepare: func(v *vaulttest.Vault) { v.Break(http.MethodGet, 404) }, status: doctor.VerdictFailure, token: doctor.VerdictFailure, words: []string{"eligibilityd login"}},
		"refusing": {prepare: func(v *vaulttest.Vault) { v.Break(http.MethodGet, 403) }, status: doctor.VerdictFailure, token: doctor.VerdictFailure, words: []string{"status 403", "Key Vault Secrets Officer"}},
		"away":     {prepare: func(v *vaulttest.Vault) { v.Close() }, status: doctor.VerdictFailure, token: doctor.VerdictFailure, words: []string{"refresh_token_vault.url"}},
		"no identity": {
			prepare: func(*vaulttest.Vault) { t.Setenv("AZURE_TOKEN_CREDENTIALS", "WorkloadIdentityCredential") },
			status:  doctor.VerdictFailure, token: doctor.VerdictFailure, words: []string{"no Azure credential", "AZURE_"},
		},
		"no such chain": {
			prepare: func(*vaulttest.Vault) { t.Setenv("AZURE_TOKEN_CREDENTIALS", "none") },
			status:  doctor.VerdictFailure, token: doctor.VerdictSkipped, words: []string{"AZURE_TOKEN_CREDENTIALS"},
		},
	} {
		v, variables := vault(t, c.age)
		if c.prepare != nil {
			c.prepare(v)
		}
		before := v.Versions()
		e := consult(t, pcsimtest.Environ(partnerCenter.URL, "", variables...))
		e.Want("refresh token vault", string(c.status), c.words...)
		e.Want("token", string(c.token))
		if strings.Contains(e.Text, "canary") || v.Versions() != before {
			t.Errorf("%s: %d versions, printed %s", name, v.Versions(), e.Text)
		}
	}
}

// The client secret may be in a vault: what holds for the refresh token holds for
// it.
func TestServeWithItsSecretInAVault(t *testing.T) { //nolint:paralleltest // it changes the environment
	v, _ := vault(t, 0)
	v.Put(pcsim.DefaultClientSecret)
	variables := []string{
		"ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET=", "ELIGIBILITY_LOG__LEVEL=debug",
		"ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET_VAULT__URL=" + v.URL,
		"ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET_VAULT__SECRET=" + vaulttest.Secret,
	}
	_, partnerCenter := pcsimtest.Start(t)
	for _, status := range []int{http.StatusNotFound, http.StatusForbidden} {
		v.Break(http.MethodGet, status)
		err := serve(t.Context(), pcsimtest.Environ(partnerCenter.URL, pcsimtest.TokenFile(t), variables...), "", false, new(output), new(output))
		if err == nil || !strings.Contains(err.Error(), "Key Vault Secrets User") {
			t.Errorf("%d: %v", status, err)
		}
		e := consult(t, pcsimtest.Environ(partnerCenter.URL, pcsimtest.TokenFile(t), variables...))
		e.Want("client secret vault", "failure", "Key Vault Secrets User")
	}
	v.Break(http.MethodGet, http.StatusServiceUnavailable)
	e := consult(t, pcsimtest.Environ(partnerCenter.URL, pcsimtest.TokenFile(t), variables...))
	e.Want("client secret vault", "failure", "status 503", "client_secret_vault")
	p := startServe(t, partnerCenter.URL, variables...)
	status, _, body := get(t, "http://"+p.HTTP+"/v1/customers/"+allowedID+"/eligibility")
	if status != http.StatusServiceUnavailable || !strings.Contains(body, "PARTNER_CENTER_UNAVAILABLE") {
		t.Errorf("status %d, body %s", status, body)
	}
	v.Mend()
	eventually(t, "an answer", func() bool {
		status, _, _ := get(t, "http://"+p.HTTP+"/v1/customers/"+allowedID+"/eligibility")
		return status == http.StatusOK
	})
	e = consult(t, pcsimtest.Environ(partnerCenter.URL, pcsimtest.TokenFile(t), variables...))
	e.Want("client secret vault", "ok")
	e.Want("token", "ok")
	if printed := p.log.String() + p.out.String(); strings.Contains(printed, pcsim.DefaultClientSecret) || strings.Contains(printed, "canary") {
		t.Errorf("a secret is in the log: %s", printed)
	}
}

// Without an identity for its vaults the service starts all the same, and answers
// that its credentials are missing, as with an assertion.
func TestServeWithoutAnIdentityForItsVaults(t *testing.T) { //nolint:paralleltest // it changes the environment
	v, refreshToken := vault(t, 0)
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "WorkloadIdentityCredential")
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", "")
	_, partnerCenter := pcsimtest.Start(t)
	for check, variables := range map[string][]string{
		"refresh token vault": refreshToken,
		"client secret vault": {
			"ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET=",
			"ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET_VAULT__URL=" + v.URL,
			"ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET_VAULT__SECRET=" + vaulttest.Secret,
		},
	} {
		p := startServe(t, partnerCenter.URL, variables...)
		status, _, body := get(t, "http://"+p.HTTP+"/v1/customers/"+allowedID+"/eligibility")
		if !strings.Contains(body, "PARTNER_CENTER_CREDENTIALS") {
			t.Errorf("%s: status %d, body %s", check, status, body)
		}
		e := consult(t, pcsimtest.Environ(partnerCenter.URL, pcsimtest.TokenFile(t), variables...))
		e.Want(check, "failure", "no Azure credential for the vault", "AZURE_")
		e.Want("token", "failure", "AZURE_FEDERATED_TOKEN_FILE")
	}
}

// SIGHUP makes the service read its secret again.
func TestSIGHUPReadsTheSecretAgain(t *testing.T) { //nolint:paralleltest // it changes the environment
	v, _ := vault(t, 0)
	v.Put(pcsim.DefaultClientSecret)
	_, partnerCenter := pcsimtest.Start(t)
	p := launch(t, nil, pcsimtest.Environ(partnerCenter.URL, pcsimtest.TokenFile(t),
		"ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET=", "ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET_VAULT__URL="+v.URL,
		"ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET_VAULT__SECRET="+vaulttest.Secret), "serve")
	eventually(t, "a start", func() bool {
		status, _, _ := get(t, "http://"+p.HTTP+"/v1/customers/"+allowedID+"/eligibility")
		return status == http.StatusOK
	})
	asked := len(v.Asked())
	p.signal(t, syscall.SIGHUP)
	eventually(t, "a read", func() bool { return len(v.Asked()) > asked })
	v.Put("canary no secret")
	p.signal(t, syscall.SIGHUP)
	line := p.await(t, "cannot be read from its vault; continuing with what was read before")
	if strings.Contains(line, "canary") {
		t.Error(line)
	}
}
