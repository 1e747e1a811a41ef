package access

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/time/rate"
)

// consoleCaller is the name of the caller of what people ask in the console.
const consoleCaller = "console"

const (
	// maxPersonBytes bounds the name of a person.
	maxPersonBytes = 128
	// maxTokenAge is how old an ID token may be. It was issued for the sign-in at hand.
	maxTokenAge = 10 * time.Minute
)

// OpenID signs people in at one of the issuers of an [Authenticator], by OpenID Connect:
// the code flow with PKCE. It is safe for concurrent use.
//
// Source: https://openid.net/specs/openid-connect-core-1_0.html#CodeFlowAuth
type OpenID struct {
	issuer    *issuer
	access    *Authenticator
	clientID  string
	secret    func() []byte
	validator *jwt.Validator
	require   map[string]string // of claims
	exchanges *rate.Limiter
	busy      chan struct{} // holds one value for each exchange under way
}

// OpenID returns what signs people in at an issuer, as a client of this name; secret
// returns the client's secret. It is called before Run.
func (a *Authenticator) OpenID(issuer, clientID string, secret func() []byte) (*OpenID, error) {
	i := a.issuers[issuer]
	if i == nil {
		return nil, errors.New("the issuer is none of auth.jwt")
	}
	i.keys.provides = true
	require := maps.Clone(i.cfg.Require)
	delete(require, "idtyp") // Entra ID has it in access tokens only
	return &OpenID{
		issuer: i, access: a, clientID: clientID, secret: secret, validator: i.newValidator(a, clientID), require: require,
		exchanges: rate.NewLimiter(exchangesPerSecond, exchangesPerSecond), busy: make(chan struct{}, maxExchanges),
	}, nil
}

// Person is somebody who has signed in.
type Person struct {
	Name   string
	Rights Rights
}

// Caller returns the caller of what a person asks. Its partners are those of the
// person's entry in auth.callers.
func (o *OpenID) Caller(p Person) *Caller {
	caller := &Caller{Name: consoleCaller, Person: p.Name, Rights: p.Rights}
	if known := o.issuer.callers[p.Name]; known != nil {
		caller.Partners = known.Partners
	}
	return caller
}

// endpoints are the addresses at which an issuer signs people in.
type endpoints struct {
	Authorize   string   `json:"authorization_endpoint"`
	Token       string   `json:"token_endpoint"`
	EndSession  string   `json:"end_session_endpoint"` // optional
	AuthMethods []string `json:"token_endpoint_auth_methods_supported"`
}

// parseEndpoints reads those of an OpenID configuration.
func parseEndpoints(text []byte) (*endpoints, error) {
	e := new(endpoints)
	if json.Unmarshal(text, e) != nil {
		return nil, errNotExpected
	}
	for _, one := range []struct{ name, address string }{
		{"authorization_endpoint", e.Authorize}, {"token_endpoint", e.Token}, {"end_session_endpoint", e.EndSession},
	} {
		if one.address == "" && one.name == "end_session_endpoint" {
			continue
		}
		if err := checkAddress(one.address); err != nil {
			return nil, fmt.Errorf("%s: %w", one.name, err)
		}
	}
	return e, nil
}

// ErrNotReady means that the issuer's OpenID configuration or keys are not known yet.
var ErrNotReady = errors.New("the OpenID configuration or the keys of the issuer are not known yet")

// endpoints returns those of the issuer. If they are not known, they are fetched soon.
func (o *OpenID) endpoints() (*endpoints, error) {
	known := o.issuer.keys.endpoints.Load()
	if known == nil {
		o.issuer.keys.want()
		return nil, ErrNotReady
	}
	return known, nil
}

// Attempt is one sign-in. Its values are known to the browser and this service only.
type Attempt struct {
	// State and Nonce tie the answer of the issuer to the sign-in, Verifier the code.
	State, Nonce, Verifier string
	// RedirectURI is where the issuer sends the browser back to.
	RedirectURI string
}

// SignInURL returns the address at which a browser begins a sign-in.
func (o *OpenID) SignInURL(a Attempt) (string, error) {
	known, err := o.endpoints()
	if err != nil {
		return "", err
	}
	return withQuery(known.Authorize, url.Values{
		"response_type": {"code"}, "client_id": {o.clientID}, "redirect_uri": {a.RedirectURI}, "scope": {"openid profile email"},
		"state": {a.State}, "nonce": {a.Nonce}, "code_challenge": {challengeOf(a.Verifier)}, "code_challenge_method": {"S256"},
	}), nil
}

// SignOutURL returns the address at which a browser ends its session with the issuer,
// and which leads back to backTo; empty if the issuer publishes none.
func (o *OpenID) SignOutURL(backTo string) string {
	known := o.issuer.keys.endpoints.Load()
	if known == nil || known.EndSession == "" {
		return ""
	}
	return withQuery(known.EndSession, url.Values{"client_id": {o.clientID}, "post_logout_redirect_uri": {backTo}})
}

// withQuery adds parameters to the address of an endpoint, which was checked.
func withQuery(address string, more url.Values) string {
	parsed, err := url.Parse(address)
	if err != nil {
		return ""
	}
	query := parsed.Query()
	maps.Copy(query, more)
	parsed.RawQuery, parsed.Fragment = query.Encode(), ""
	return parsed.String()
}

var (
	errNonce     = &failure{causeClaims, "the nonce of the ID token is missing or that of another sign-in"}
	errParty     = &failure{causeAudience, "the ID token was issued to another client"}
	errTokenAge  = &failure{causeClaims, "iat of the ID token is missing or not that of this sign-in"}
	errNoPerson  = &failure{causeClaims, "preferred_username, email or sub of the ID token is missing or names no person"}
	errIDMissing = &failure{causeMissing, "the issuer has sent no ID token"}
)

// verify returns who has signed in, if an ID token is the one of a sign-in.
//
// Source: https://openid.net/specs/openid-connect-core-1_0.html#IDTokenValidation
func (o *OpenID) verify(token, nonce string) (Person, *failure) {
	switch {
	case token == "":
		return Person{}, errIDMissing
	case len(token) > maxJWTBytes:
		return Person{}, errSize
	case !isToken68(token) || strings.Count(token, ".") != 2:
		return Person{}, errMalformed
	}
	p, failure := o.access.parse(token)
	switch {
	case failure != nil:
		return Person{}, failure
	case p.issuer != o.issuer:
		return Person{}, errIssuer
	}
	if failure := check(o.validator, o.require, p.claims); failure != nil {
		return Person{}, failure
	}
	person, failure := o.person(p.claims, nonce)
	if failure != nil {
		return Person{}, failure
	}
	if _, failure := p.verify(); failure != nil {
		return Person{}, failure
	}
	return person, nil
}

// person returns who an ID token speaks of.
func (o *OpenID) person(says claims, nonce string) (Person, *failure) {
	audience, _ := says.GetAudience()
	party, hasParty := text(says["azp"])
	if hasParty && party != o.clientID || !hasParty && (says["azp"] != nil || len(audience) > 1) {
		return Person{}, errParty
	}
	issued, _ := says.GetIssuedAt()
	if issued == nil || o.access.clock.now().Sub(issued.Time) > maxTokenAge+leeway {
		return Person{}, errTokenAge
	}
	if given, ok := text(says["nonce"]); !ok || nonce == "" || subtle.ConstantTimeCompare([]byte(given), []byte(nonce)) != 1 {
		return Person{}, errNonce
	}
	name := ""
	for _, claim := range []string{"preferred_username", "email", "sub"} {
		if claim == "email" && string(says["email_verified"]) != "true" {
			continue
		}
		if raw, has := says[claim]; has {
			name, _ = text(raw)
			break
		}
	}
	if !ValidPerson(name) {
		return Person{}, errNoPerson
	}
	rights, failure := o.issuer.rightsIn(says)
	return Person{Name: name, Rights: rights}, failure
}

// ValidPerson reports whether name may name a person: 1 to 128 bytes of UTF-8 without
// control and format characters.
func ValidPerson(name string) bool {
	return name != "" && len(name) <= maxPersonBytes && utf8.ValidString(name) &&
		!slices.ContainsFunc([]rune(name), func(c rune) bool { return !unicode.IsPrint(c) })
}
