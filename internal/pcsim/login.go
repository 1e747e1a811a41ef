package pcsim

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
)

// loginVersion is the version of a token endpoint.
type loginVersion int

const (
	loginV1 loginVersion = 1 // `resource`, and numbers as strings
	loginV2 loginVersion = 2 // `scope`, and numbers
)

// maxFormBytes bounds a token request.
const maxFormBytes = 64 << 10

// tokenEndpoint serves one of the login host's token endpoints.
//
// Sources (read 2026-11-21):
// https://learn.microsoft.com/en-us/partner-center/developer/partner-center-authentication,
// https://learn.microsoft.com/en-us/entra/identity-platform/refresh-tokens
func (s *Server) tokenEndpoint(v loginVersion) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		// Read to the end before any wait: only then does net/http detect a
		// disconnect.
		r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
		formErr := r.ParseForm()
		s := s.ofClient(r.PostForm.Get("client_id"))
		now := s.cfg.Now()
		s.journal.tokenRequest()

		step := s.cast.nextToken(now)
		var a answer
		switch {
		case step.Raw != nil:
			a = step.Raw.answer()
		case step.EntraError != 0:
			a = s.refuseToken(step.EntraError)
		case r.Method != http.MethodPost:
			a = s.refuseToken(aadPostOnly)
		case formErr != nil:
			a = s.refuseToken(aadMalformed)
		default:
			a = s.grant(v, r, orDefault(step.ExpiresIn, s.cfg.TokenLifetime))
		}
		h := w.Header()
		h.Set("Date", s.microsoftNow().UTC().Format(http.TimeFormat))
		h.Set("Cache-Control", "no-store, no-cache")
		h.Set("Pragma", "no-cache")
		s.perform(w, r, step, a, func() {})
		s.log.Debug("token requested", zap.Int("version", int(v)),
			zap.Int("status", a.status), zap.String("failure", step.Failure))
	}
}

// grant answers a well-formed token request.
func (s *Server) grant(v loginVersion, r *http.Request, lifetime time.Duration) answer {
	form := r.PostForm
	if !strings.EqualFold(r.PathValue("tenant"), s.cfg.TenantID) {
		return s.refuseToken(aadTenantNotFound)
	}
	grantType := form.Get("grant_type")
	if grantType == "" || form.Get("client_id") == "" {
		return s.refuseToken(aadParameterMissing)
	}
	if !slices.Contains([]string{"client_credentials", "refresh_token", "authorization_code"}, grantType) {
		return s.refuseToken(aadGrantUnsupported)
	}
	code := s.checkClient(r)
	if code != 0 {
		return s.refuseToken(code)
	}
	var g granted
	switch grantType {
	case "authorization_code":
		g, code = s.grantCode(v, r)
	case "refresh_token":
		g, code = s.grantRefresh(v, form)
	default:
		g.appOnly = true
		g.audience, code = audienceOf(v, form, true)
	}
	if code != 0 {
		return s.refuseToken(code)
	}
	return s.tokenAnswer(v, g, lifetime)
}

// granted is the result of a token request.
type granted struct {
	audience string
	appOnly  bool
	mfa      bool
	refresh  bool // a refresh token as well
	idToken  string
}

// grantRefresh grants what the refresh token's consent allows.
func (s *Server) grantRefresh(v loginVersion, form url.Values) (granted, int) {
	token := form.Get("refresh_token")
	if token == "" {
		return granted{}, aadParameterMissing
	}
	c, err := s.tokens.readRefresh(token)
	switch {
	case errors.Is(err, errTokenRevoked):
		return granted{}, aadGrantRevoked
	case err != nil:
		return granted{}, aadGrantMalformed
	}
	audience, code := audienceOf(v, form, false)
	return granted{audience: audience, mfa: c.mfa, refresh: true}, code
}

// audienceOf returns the audience that a request names, or an AADSTS code.
func audienceOf(v loginVersion, form url.Values, appOnly bool) (audience string, code int) {
	if v == loginV2 {
		return audienceV2(form.Get("scope"), appOnly)
	}
	return audienceV1(form.Get("resource"))
}

// audienceV1 returns the audience that a `resource` names, or an error code.
func audienceV1(resource string) (audience string, code int) {
	if resource == "" {
		return "", aadParameterMissing
	}
	if !knownAudience(resource) {
		return "", aadResourceUnknown
	}
	return resource, 0
}

// audienceV2 returns the audience that a `scope` names, or an error code.
func audienceV2(scope string, appOnly bool) (audience string, code int) {
	if scope == "" {
		return "", aadParameterMissing
	}
	for word := range strings.FieldsSeq(scope) {
		switch word {
		case "openid", "profile", "email", "offline_access":
			continue
		}
		cut := strings.LastIndexByte(word, '/')
		if cut < 0 || audience != "" {
			return "", aadScopeInvalid
		}
		permission := word[cut+1:]
		if permission != ".default" && (appOnly || permission != "user_impersonation") {
			return "", aadScopeInvalid
		}
		audience = word[:cut]
		if !knownAudience(audience) {
			return "", aadResourceUnknown
		}
	}
	if audience == "" {
		return "", aadScopeInvalid
	}
	return audience, 0
}

func knownAudience(a string) bool {
	return a == audienceGlobal || a == audienceChina || a == audienceRetired || a == audienceRetiredChina
}

// tokenAnswer issues what was granted, in the form of the endpoint's version.
func (s *Server) tokenAnswer(v loginVersion, g granted, lifetime time.Duration) answer {
	now := s.microsoftNow()
	seconds := int64(lifetime / time.Second)
	body := map[string]any{
		"token_type":   "Bearer",
		"access_token": s.tokens.access(g.audience, g.appOnly, g.mfa && !s.Settings().WithoutMFA, lifetime),
	}
	if v == loginV1 {
		body["resource"] = g.audience
		body["expires_in"] = strconv.FormatInt(seconds, 10)
		body["ext_expires_in"] = strconv.FormatInt(seconds, 10)
		body["expires_on"] = strconv.FormatInt(now.Add(lifetime).Unix(), 10)
		body["not_before"] = strconv.FormatInt(now.Unix(), 10)
	} else {
		body["expires_in"] = seconds
		body["ext_expires_in"] = seconds
	}
	if g.idToken != "" {
		body["id_token"] = g.idToken
	}
	if g.refresh {
		// The old one remains valid: use does not revoke it.
		body["refresh_token"] = s.tokens.refresh(g.mfa)
	}
	if !g.appOnly {
		body["scope"] = "user_impersonation"
		if v == loginV2 {
			body["scope"] = g.audience + "/user_impersonation"
		}
	}
	return jsonAnswer(http.StatusOK, body)
}
