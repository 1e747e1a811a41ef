package pcsim

import (
	"crypto/subtle"
	"net/http"
)

// checkClient returns 0 if a token request is authenticated as the
// application's, by secret, by assertion or by the identity of a federated
// credential; else an AADSTS code.
func (s *Server) checkClient(r *http.Request) (code int) {
	form := r.PostForm
	if form.Get("client_id") != s.cfg.ClientID {
		return aadClientUnknown
	}
	if form.Has("client_assertion") || form.Has("client_assertion_type") {
		if form.Get("client_assertion_type") != assertionType {
			return aadAssertionMalformed
		}
		if isForeign(form.Get("client_assertion")) {
			return s.federated.verify(form.Get("client_assertion"), s.microsoftNow())
		}
		return s.assertions.verify(form.Get("client_assertion"), s.cfg.ClientID, endpointURL(r), s.microsoftNow())
	}
	secret := form.Get("client_secret")
	if secret == "" {
		return aadSecretMissing
	}
	if subtle.ConstantTimeCompare([]byte(secret), []byte(s.cfg.ClientSecret)) != 1 {
		return aadSecretWrong
	}
	return 0
}
