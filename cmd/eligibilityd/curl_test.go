package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// examples/curl sells to customers who may buy, shows the others why not in their
// language, and takes no error for an answer.
func TestACheckoutWithCurl(t *testing.T) {
	t.Parallel()
	p := startDev(t)
	said := func(code eligibility.ReasonCode, in eligibility.Language) string {
		return eligibility.Reason{Code: code, Blocks: true}.Message(in) + "\n"
	}
	allowed := said(eligibility.ReasonAccountAllowed, eligibility.English)
	for name, row := range map[string]struct {
		args      []string
		languages string
		exit      int
		out, err  string
	}{
		"allowed":         {[]string{allowedID}, "", 0, allowed + allowed + "sold\n", ""},
		"in another form": {[]string{strings.ToUpper(strings.ReplaceAll(allowedID, "-", ""))}, "", 0, allowed + allowed + "sold\n", ""},
		"blocked":         {[]string{notAllowedID}, "", exitBlocked, said(eligibility.ReasonAccountNotAllowed, eligibility.English), ""},
		"in German":       {[]string{notAllowedID}, "de-AT,en;q=0.1", exitBlocked, said(eligibility.ReasonAccountNotAllowed, eligibility.German), ""},
		"in a segment": {
			[]string{"e0000000-0000-4000-8000-000000000003", "education"},
			"ja", exitBlocked,
			said(eligibility.ReasonAccountAllowed, eligibility.Japanese) + said(eligibility.ReasonQualificationDenied, eligibility.Japanese), "",
		},
		"not found": {[]string{"f0000000-0000-4000-8000-000000000001"}, "", exitUndecided, "", "undecided: HTTP 404 CUSTOMER_NOT_FOUND"},
		"no GUID":   {[]string{"x"}, "", exitUndecided, "", "undecided: HTTP 400 INVALID_ARGUMENT"},
	} {
		out, errOut, exit := runCheckout(t, []string{"ELIGIBILITY_URL=http://" + p.HTTP, "LANGUAGES=" + row.languages}, row.args...)
		if exit != row.exit || out != row.out || !strings.Contains(errOut, row.err) {
			t.Errorf("%s: exit code %d, %q, %s", name, exit, out, errOut)
		}
	}
	if out, errOut, exit := runCheckout(t, []string{"ELIGIBILITY_URL=http://127.0.0.1:1"}, allowedID); exit != exitUndecided || out != "" {
		t.Errorf("without a service: exit code %d, %q, %s", exit, out, errOut)
	}
}

// It takes no answer about another customer, or about none.
func TestACheckoutWithCurlOfAnotherCustomer(t *testing.T) {
	t.Parallel()
	for _, about := range []string{allowedID, notAllowedID, ""} {
		far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, `{"customerId":%q,"decision":"DECISION_ALLOWED","reasons":[{"message":"M."}],"evidenceTime":"2026-01-02T03:04:05Z"}`, about)
		}))
		_, errOut, exit := runCheckout(t, []string{"ELIGIBILITY_URL=" + far.URL}, allowedID)
		far.Close()
		if sold := about == allowedID; sold != (exit == 0) || !sold && (exit != exitUndecided || !strings.Contains(errOut, "another customer")) {
			t.Errorf("%q: exit code %d, %s", about, exit, errOut)
		}
	}
}

// With TLS and a token, it needs both.
func TestACheckoutWithCurlOverTLS(t *testing.T) {
	t.Parallel()
	p, ca, issuer := startGuarded(t)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(issuer.Token(t, "shop", nil)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	trusting := []string{"ELIGIBILITY_URL=https://localhost:" + portOf(p.HTTP), "ELIGIBILITY_CA_FILE=" + ca}
	if out, errOut, exit := runCheckout(t, append(trusting, "ELIGIBILITY_TOKEN_FILE="+token), allowedID); exit != 0 || !strings.HasSuffix(out, "sold\n") {
		t.Errorf("exit code %d, %q, %s", exit, out, errOut)
	}
	if _, errOut, exit := runCheckout(t, trusting, allowedID); exit != exitUndecided || !strings.Contains(errOut, "401 UNAUTHENTICATED") {
		t.Errorf("without a token: exit code %d, %s", exit, errOut)
	}
}

func runCheckout(t *testing.T, environ []string, args ...string) (out, errOut string, exit int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "../../examples/curl/checkout.sh", args...) //nolint:gosec // our own script
	cmd.Env = append(os.Environ(), environ...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if failed, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	} else if ok {
		exit = failed.ExitCode()
	}
	return stdout.String(), stderr.String(), exit
}
