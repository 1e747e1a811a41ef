package pcsim

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// codeLifetime is how long a code can be redeemed.
	codeLifetime = 5 * time.Minute
	// maxCodes bounds the codes that wait to be redeemed.
	maxCodes = 1000
)

// codes are the authorization codes that were issued and not redeemed.
type codes struct {
	mu    sync.Mutex
	given map[string]*consent
}

// consent is the grant behind a code.
type consent struct {
	authorization
	account account
	mfa     bool
	expires time.Time
	used    bool
}

// issue returns a code, or false if too many wait to be redeemed.
func (c *codes) issue(a authorization, who account, mfa bool, now time.Time) (code string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for old, given := range c.given {
		if !now.Before(given.expires) {
			delete(c.given, old)
		}
	}
	if len(c.given) >= maxCodes {
		return "", false
	}
	code = "0." + rand.Text() + "-" + rand.Text()
	c.given[code] = &consent{authorization: a, account: who, mfa: mfa, expires: now.Add(codeLifetime)}
	return code, true
}

// take redeems a code, once, or returns an AADSTS code.
func (c *codes) take(code string, now time.Time) (consent, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	given := c.given[code]
	switch {
	case given == nil:
		return consent{}, aadGrantMalformed
	case !now.Before(given.expires):
		return consent{}, aadGrantExpired
	case given.used:
		return consent{}, aadCodeUsed
	}
	given.used = true
	return *given, 0
}

// grantCode grants what the user has consented to. If the client itself sends a
// code, the code is used up even if the request is rejected.
func (s *Server) grantCode(v loginVersion, r *http.Request) (granted, int) {
	form := r.PostForm
	code, verifier := form.Get("code"), form.Get("code_verifier")
	if code == "" || verifier == "" || form.Get("redirect_uri") == "" {
		return granted{}, aadParameterMissing
	}
	c, refused := s.codes.take(code, s.cfg.Now())
	switch {
	case refused != 0:
		return granted{}, refused
	case form.Get("redirect_uri") != c.sent:
		return granted{}, aadRedirectDiffers
	case !answers(verifier, c.challenge):
		return granted{}, aadVerifierWrong
	}
	g := granted{mfa: c.mfa}
	scope, refused := c.narrow(v, form.Get("scope"))
	if refused != 0 {
		return granted{}, refused
	}
	if v == loginV2 {
		g.audience, refused = audienceV2(scope, false)
		g.refresh = hasWord(scope, "offline_access")
	} else {
		g.audience, refused = audienceV1(orDefault(form.Get("resource"), c.resource))
		g.refresh = true
	}
	if refused != 0 {
		return granted{}, refused
	}
	if hasWord(scope, "openid") {
		var err error
		if g.idToken, err = s.idToken(v, r, c); err != nil {
			return granted{}, aadTransient
		}
	}
	return g, 0
}

// narrow returns the scope that a token request asks for: at most the
// consent's, or all of it if the request names none.
func (c consent) narrow(v loginVersion, scope string) (narrowed string, code int) {
	if scope == "" {
		return c.scope, 0
	}
	for word := range strings.FieldsSeq(scope) {
		if v == loginV2 && !hasWord(c.scope, word) {
			return "", aadScopeInvalid
		}
	}
	return scope, 0
}

func hasWord(scope, word string) bool { return slices.Contains(strings.Fields(scope), word) }

// answers reports whether a PKCE verifier matches an S256 challenge.
func answers(verifier, challenge string) bool {
	if len(verifier) < 43 || len(verifier) > 128 || strings.ContainsFunc(verifier, notUnreserved) {
		return false
	}
	sum := sha256.Sum256([]byte(verifier))
	want := base64.RawURLEncoding.EncodeToString(sum[:])
	return subtle.ConstantTimeCompare([]byte(want), []byte(challenge)) == 1
}

func notUnreserved(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._~", r)
}
