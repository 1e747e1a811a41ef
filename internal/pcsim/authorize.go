package pcsim

import (
	"encoding/base64"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"go.uber.org/zap"
)

// authorization is a valid request for consent.
type authorization struct {
	redirect  *url.URL
	sent      string // redirect as it was sent
	state     string
	challenge string // S256
	scope     string
	resource  string // v1 only
	audience  string // empty if a v1 request names no resource
	nonce     string
	hint      string
}

// authorizeEndpoint serves one of the login host's consent pages: GET shows it,
// POST submits its form.
//
// Source: https://learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-auth-code-flow
// (read 2026-11-21)
func (s *Server) authorizeEndpoint(v loginVersion) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := s.ofClient(r.URL.Query().Get("client_id"))
		w.Header().Set("Date", s.microsoftNow().UTC().Format(http.TimeFormat))
		w.Header().Set("Cache-Control", "no-store, no-cache")
		r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
		query := r.URL.Query()
		redirect, code := s.trustedRedirect(r, query)
		if code != 0 { // without a valid redirect, only the user can see the error
			s.problem(w, code)
			return
		}
		a, code := readAuthorization(v, query)
		a.redirect, a.sent = redirect, query.Get("redirect_uri")
		switch {
		case code != 0:
			s.sendBack(w, a, s.refusal(code))
		case query.Get("prompt") == "none":
			s.sendBack(w, a, s.refusal(aadNotSignedIn))
		case r.Method == http.MethodGet:
			s.consentPage(w, a)
		case r.Method == http.MethodPost:
			s.decideConsent(w, r, a)
		default:
			s.problem(w, aadMalformed)
		}
		s.log.Debug("consent asked", zap.Int("version", int(v)), zap.String("method", cut(r.Method)), zap.Int("aadsts", code))
	}
}

// trustedRedirect returns the URL for the answer, or an AADSTS code.
func (s *Server) trustedRedirect(r *http.Request, query url.Values) (to *url.URL, code int) {
	switch client := query.Get("client_id"); {
	case !strings.EqualFold(r.PathValue("tenant"), s.cfg.TenantID):
		return nil, aadTenantNotFound
	case client == "":
		return nil, aadParameterMissing
	case client != s.cfg.ClientID:
		return nil, aadClientUnknown
	}
	to, err := url.Parse(query.Get("redirect_uri"))
	if err != nil || to.Scheme != "http" || to.User != nil || strings.Contains(query.Get("redirect_uri"), "#") ||
		!slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, to.Hostname()) {
		return nil, aadRedirectUnknown
	}
	return to, 0
}

// readAuthorization parses the request. If it is invalid, it also returns an
// AADSTS code.
func readAuthorization(v loginVersion, query url.Values) (a authorization, code int) {
	a = authorization{
		state: query.Get("state"), challenge: query.Get("code_challenge"), nonce: query.Get("nonce"),
		scope: query.Get("scope"), hint: query.Get("login_hint"),
	}
	digest, err := base64.RawURLEncoding.DecodeString(a.challenge)
	switch {
	case query.Get("response_type") == "" || a.state == "" || a.challenge == "":
		return a, aadParameterMissing
	case query.Get("response_type") != "code":
		return a, aadResponseType
	case query.Get("response_mode") != "" && query.Get("response_mode") != "query":
		return a, aadMalformed
	case query.Get("code_challenge_method") != "S256" || err != nil || len(digest) != 32:
		return a, aadMalformed
	case !slices.Contains([]string{"", "login", "none", "consent", "select_account"}, query.Get("prompt")):
		return a, aadPromptUnknown
	}
	if v == loginV2 {
		a.audience, code = audienceV2(a.scope, false)
		return a, code
	}
	a.resource = query.Get("resource")
	if a.resource != "" { // if absent, the token request has to name it
		a.audience, code = audienceV1(a.resource)
	}
	return a, code
}

// decideConsent applies the user's decision.
func (s *Server) decideConsent(w http.ResponseWriter, r *http.Request, a authorization) {
	if err := r.ParseForm(); err != nil {
		s.problem(w, aadMalformed)
		return
	}
	account, known := s.account(r.PostForm.Get("account"))
	switch decision := r.PostForm.Get("decision"); {
	case decision == "cancel":
		denied := s.refusal(aadConsentDenied)
		denied.Set("error_subcode", "cancel")
		s.sendBack(w, a, denied)
	case decision != "accept" || !known:
		s.problem(w, aadMalformed)
	default:
		code, ok := s.codes.issue(a, account, !s.Settings().WithoutMFA, s.cfg.Now())
		if !ok {
			s.sendBack(w, a, s.refusal(aadTransient))
			return
		}
		s.sendBack(w, a, url.Values{"code": {code}})
	}
}

// sendBack redirects the browser to the client, with the state.
func (s *Server) sendBack(w http.ResponseWriter, a authorization, with url.Values) {
	if a.state != "" {
		with.Set("state", a.state)
	}
	to := *a.redirect
	query := to.Query()
	maps.Copy(query, with)
	to.RawQuery = query.Encode()
	w.Header().Set("Location", to.String())
	w.WriteHeader(http.StatusFound)
}

// refusal is an error in the parameters of a redirect.
func (s *Server) refusal(code int) url.Values {
	e, _ := entraErrorFor(code)
	return url.Values{"error": {e.word}, "error_description": {s.describe(code).text}}
}
