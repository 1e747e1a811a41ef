package accesstest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Paths of an issuer that signs people in.
const (
	AuthorizePath  = "/authorize"
	TokenPath      = "/token"
	EndSessionPath = "/end-session"
)

// Provider signs people in by OpenID Connect: the code flow with PKCE, for one client.
// It is part of an [Issuer], which it extends by [Issuer.Provide].
type Provider struct {
	// ClientID and ClientSecret are the client's.
	ClientID, ClientSecret string
	// RedirectURIs are where browsers may be sent with a code, SignedOutURIs where after
	// the end of a session; to the letter.
	RedirectURIs, SignedOutURIs []string
	// People can sign in.
	People []Person
	// IDToken, if it is not nil, replaces the token with these claims.
	IDToken func(claims map[string]any) string
	// Token, if it is not nil, replies to requests for a token.
	Token http.HandlerFunc

	issuer *Issuer
	tb     testing.TB

	mu    sync.Mutex
	codes map[string]grant // guarded by mu
}

// Person is somebody who can sign in.
type Person struct {
	// Name is the claim preferred_username, and what the button that signs in reads.
	Name  string
	Roles []string
	// More replaces claims; a nil value removes one.
	More map[string]any
}

// grant is what a code stands for.
type grant struct {
	person                        Person
	redirectURI, challenge, nonce string
	until                         time.Time
}

// Provide makes the issuer sign people in. Its OpenID configuration then has the
// endpoints for it.
func (i *Issuer) Provide(tb testing.TB, p *Provider) *Provider {
	tb.Helper()
	p.issuer, p.tb, p.codes = i, tb, map[string]grant{}
	i.mu.Lock()
	i.provider = p
	i.mu.Unlock()
	i.Discover("authorization_endpoint", i.URL+AuthorizePath)
	i.Discover("token_endpoint", i.URL+TokenPath)
	i.Discover("end_session_endpoint", i.URL+EndSessionPath)
	i.Discover("token_endpoint_auth_methods_supported", []string{"client_secret_post", "client_secret_basic"})
	return p
}

// Change changes the provider while it serves.
func (p *Provider) Change(change func(p *Provider)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

// serve answers requests for the provider's paths; it reports whether it has.
func (p *Provider) serve(w http.ResponseWriter, r *http.Request) bool {
	switch r.URL.Path {
	case AuthorizePath:
		p.authorize(w, r)
	case TokenPath:
		p.mu.Lock()
		replaced := p.Token
		p.mu.Unlock()
		if replaced != nil {
			replaced(w, r)
			return true
		}
		p.token(w, r)
	case EndSessionPath:
		p.endSession(w, r)
	default:
		return false
	}
	return true
}

// choice is the page on which a person signs in.
const choice = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sign in</title></head>
<body><h1>Sign in</h1>
<form method="post">
{{range .People}}<p><button name="person" value="{{.Name}}">{{.Name}}</button></p>
{{end}}<p><button name="person" value="">Cancel</button></p>
</form></body></html>
`

// authorize shows whom one can sign in as; the form sends the browser back with a code.
func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) {
	asked := r.URL.Query()
	p.mu.Lock()
	defer p.mu.Unlock()
	back, err := url.Parse(asked.Get("redirect_uri"))
	if err != nil || !slices.Contains(p.RedirectURIs, asked.Get("redirect_uri")) || asked.Get("client_id") != p.ClientID {
		http.Error(w, "the client or its redirect_uri is not registered", http.StatusBadRequest)
		return
	}
	answer := url.Values{"state": {asked.Get("state")}}
	sendBack := func() {
		back.RawQuery = answer.Encode()
		http.Redirect(w, r, back.String(), http.StatusFound) //nolint:gosec // it is registered
	}
	if asked.Get("response_type") != "code" || asked.Get("code_challenge_method") != "S256" || len(asked.Get("code_challenge")) != 43 ||
		asked.Get("nonce") == "" || asked.Get("state") == "" {
		answer.Set("error", "invalid_request")
		sendBack()
		return
	}
	if r.Method == http.MethodGet {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = template.Must(template.New("choice").Parse(choice)).Execute(w, p)
		return
	}
	at := slices.IndexFunc(p.People, func(one Person) bool { return one.Name != "" && one.Name == r.PostFormValue("person") })
	if at < 0 {
		answer.Set("error", "access_denied")
		answer.Set("error_description", "<script>alert('the user said no')</script>")
		sendBack()
		return
	}
	code := rand.Text()
	p.codes[code] = grant{
		person: p.People[at], redirectURI: asked.Get("redirect_uri"), challenge: asked.Get("code_challenge"),
		nonce: asked.Get("nonce"), until: time.Now().Add(time.Minute),
	}
	answer.Set("code", code)
	sendBack()
}

// token exchanges a code, once.
func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, code string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": code, "error_description": "secret of the provider"}) //nolint:errchkjson // strings
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	id, secret, basic := r.BasicAuth()
	if basic {
		id, _ = url.QueryUnescape(id)
		secret, _ = url.QueryUnescape(secret)
	} else {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	if r.Method != http.MethodPost || id != p.ClientID || secret != p.ClientSecret {
		refuse(http.StatusUnauthorized, "invalid_client")
		return
	}
	granted, ok := p.codes[r.PostFormValue("code")]
	delete(p.codes, r.PostFormValue("code"))
	challenge := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	if !ok || r.PostFormValue("grant_type") != "authorization_code" || time.Now().After(granted.until) ||
		r.PostFormValue("redirect_uri") != granted.redirectURI || encode(challenge[:]) != granted.challenge {
		refuse(http.StatusBadRequest, "invalid_grant")
		return
	}
	claims := p.claims(granted)
	var token string
	if p.IDToken != nil {
		token = p.IDToken(claims)
	} else {
		token = p.issuer.Key().Sign(p.tb, nil, claims)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{ //nolint:errchkjson // strings
		"id_token": token, "access_token": rand.Text(), "token_type": "Bearer", "expires_in": 300,
	})
}

// claims are those of the ID token of a grant.
func (p *Provider) claims(of grant) map[string]any {
	now := time.Now()
	claims := map[string]any{
		"iss": p.issuer.URL, "aud": p.ClientID, "sub": "subject of " + of.person.Name, "preferred_username": of.person.Name,
		"iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "nonce": of.nonce, "roles": of.person.Roles,
	}
	if of.person.Roles == nil {
		delete(claims, "roles")
	}
	maps.Copy(claims, of.person.More)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	return claims
}

// endSession sends the browser back to the client, as if a session had ended.
func (p *Provider) endSession(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if back := r.FormValue("post_logout_redirect_uri"); slices.Contains(p.SignedOutURIs, back) {
		http.Redirect(w, r, back, http.StatusFound) //nolint:gosec // it is registered
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write([]byte("<!doctype html><html lang=\"en\"><title>Signed out</title><h1>Signed out of the provider</h1>"))
}

// Choose does what a person does in a browser at the address of a sign-in: it presses
// the button of a person, or Cancel if person is empty. It returns the address that the
// provider sends the browser back to; empty if it sends it nowhere.
func Choose(tb testing.TB, authorize, person string) string {
	tb.Helper()
	client := &http.Client{
		Transport:     new(http.Transport),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(tb.Context(), http.MethodPost, authorize, strings.NewReader(url.Values{"person": {person}}.Encode()))
	if err != nil {
		tb.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := client.Do(request)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	return response.Header.Get("Location")
}
