package pcclient_test

import (
	"errors"
	"net/http"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/pcclient"
)

// H-08, A-02.
func TestMFAIsWhatPartnerCenterReports(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer answerer
		want   pcclient.MFA
	}{
		"true":                     {responds(http.StatusOK, "[]", "isMfaCompliant: true"), pcclient.MFAProven},
		"in other capitals":        {responds(http.StatusOK, "[]", "ISMFACOMPLIANT: True"), pcclient.MFAProven},
		"false":                    {responds(http.StatusOK, "[]", "IsMfaCompliant: false"), pcclient.MFAMissing},
		"absent":                   {responds(http.StatusOK, "[]"), pcclient.MFAUnknown},
		"another word":             {responds(http.StatusOK, "[]", "isMfaCompliant: maybe"), pcclient.MFAUnknown},
		"true, of nobody":          {responds(http.StatusNotFound, `{"code":60003}`, "isMfaCompliant: true"), pcclient.MFAProven},
		"absent, of nobody":        {responds(http.StatusNotFound, `{"code":60003}`), pcclient.MFAUnknown},
		"enforced":                 {responds(http.StatusUnauthorized, `{"code":900421}`), pcclient.MFAMissing},
		"enforced by a 403":        {responds(http.StatusForbidden, `{"code":900421}`), pcclient.MFAMissing},
		"enforced, with both":      {responds(http.StatusUnauthorized, `{"code":900421}`, "isMfaCompliant: true"), pcclient.MFAMissing},
		"refused for another sake": {responds(http.StatusUnauthorized, `{"code":800001}`), pcclient.MFAUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{api: c.answer})
			got, err := r.MFA(t.Context(), customerID)
			if err != nil || got != c.want {
				t.Errorf("got %v and %v, want %v", got, err, c.want)
			}
			if asked := r.api.asked(); len(asked) != 1 || asked[0].header.Get("ValidateMfa") != "true" {
				t.Errorf("asked %v", asked)
			}
		})
	}
}

func TestMFAIsUnknownWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	r := start(t, setup{api: reset})
	_, err := r.MFA(t.Context(), customerID)
	failure(t, err, pcclient.ClassUnavailable, pcclient.ReasonConnection)
	r.counts(1, 1)

	r = start(t, setup{login: entra(http.StatusBadRequest, "invalid_grant", 700082)})
	_, err = r.MFA(t.Context(), customerID)
	fail := failure(t, err, pcclient.ClassCredentials, pcclient.ReasonInvalidGrant)
	if codes := fail.LoginCodes(); len(codes) != 1 || codes[0] != 700082 {
		t.Errorf("codes %v", codes)
	}
	if _, err := r.MFA(t.Context(), "nobody"); !errors.Is(err, pcclient.ErrCustomerID) {
		t.Errorf("got %v", err)
	}
	r.counts(1, 0)
}

// A 429 to this question pauses the others, as any does.
func TestMFAKeepsThePause(t *testing.T) {
	t.Parallel()
	r := start(t, setup{api: responds(http.StatusTooManyRequests, "", "Retry-After: 60")})
	if got, err := r.MFA(t.Context(), customerID); got != pcclient.MFAUnknown || err != nil {
		t.Errorf("got %v and %v", got, err)
	}
	r.askInVain(pcclient.ClassThrottled, pcclient.ReasonPaused)
	r.counts(1, 1)
}
