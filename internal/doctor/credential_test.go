package doctor

import (
	"strings"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/identity/identitytest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

// The command for the federated credential names the audience that Entra wants; if
// the token has only others, they are shown, and there is no command.
func TestDoctorShowsTheAudiencesOfAnAssertion(t *testing.T) { //nolint:paralleltest // it changes the environment
	file, claims := identitytest.Pod(t)
	_, partnerCenter := pcsimtest.Start(t)
	examine := func(audience ...string) examined {
		claims.Audience = audience
		identitytest.Project(t, file, identitytest.Sign(claims))
		return consult(t, pcsimtest.Environ(partnerCenter.URL, pcsimtest.TokenFile(t),
			"ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET=", "ELIGIBILITY_PARTNER_CENTER__CLIENT_ASSERTION=workload_identity"), Options{})
	}
	e := examine("https://kubernetes.default.svc", identitytest.Exchange)
	e.want(checkAssertion, VerdictOK, "audience "+identitytest.Exchange)
	e.want(checkToken, VerdictFailure, `"audiences":["`+identitytest.Exchange+`"]`)
	for shown, audience := range map[string][]string{
		"https://kubernetes.default.svc, api://another": {"https://kubernetes.default.svc", "api://another"},
		"(unreadable), api://another":                   {"canary two words", "api://another"},
		"(unreadable)":                                  {strings.Repeat("a", 200), strings.Repeat("b", 200)},
	} {
		e := examine(audience...)
		e.want(checkAssertion, VerdictWarning, "audience "+shown, "let the token have the audience "+identitytest.Exchange)
		e.want(checkToken, VerdictFailure)
		if strings.Contains(e.Text, "az ad app") || strings.Contains(e.Text, "canary") {
			t.Error(e.Text)
		}
	}
	e = examine()
	e.want(checkAssertion, VerdictWarning, "audience (unreadable)")
}
