package access

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/zap"
)

const (
	// leeway is by how much the clocks of issuers may differ from ours.
	leeway = time.Minute
	// maxHeaderBytes bounds the header of a token, encoded.
	maxHeaderBytes = 2048
	// maxKeysTried bounds the signatures verified for one token that names no key, or a
	// name that several keys have.
	maxKeysTried = 8
	// foreignPerSecond bounds the work for tokens that cannot be valid.
	foreignPerSecond = 100
	// maxSeconds is the largest time that a claim may hold, in the year 5138.
	maxSeconds = 1e11
)

// Issuer is whose tokens are accepted. All strings are compared to the letter.
type Issuer struct {
	// Issuer is the claim iss.
	Issuer string
	// Audiences are the accepted values of the claim aud, of which a token must have one.
	Audiences []string
	// KeysURL is the address of the key set; empty selects the one in the issuer's OpenID
	// configuration.
	KeysURL string
	// Algorithms are the accepted ones, of RS256, RS384, RS512, PS256, ES256, ES384 and
	// EdDSA.
	Algorithms []string
	// CallerClaim is the claim with the caller's name, RightsClaim the one with a list of
	// strings or with words.
	CallerClaim, RightsClaim string
	// Rights maps what is in the rights claim to rights. A value without an entry is the
	// name of a right, or gives none.
	Rights map[string][]string
	// Require has the values that other claims must have.
	Require map[string]string
}

// issuer verifies the tokens of one issuer.
type issuer struct {
	cfg       Issuer
	methods   map[string]jwt.SigningMethod
	validator *jwt.Validator
	rights    map[string]Rights
	callers   map[string]*Caller // whose partners apply
	keys      *keySource
}

// signingMethods are the algorithms that a configuration may name. None of them is
// symmetric.
func signingMethods() map[string]jwt.SigningMethod {
	methods := map[string]jwt.SigningMethod{}
	for _, method := range []jwt.SigningMethod{
		jwt.SigningMethodRS256, jwt.SigningMethodRS384, jwt.SigningMethodRS512, jwt.SigningMethodPS256,
		jwt.SigningMethodES256, jwt.SigningMethodES384, jwt.SigningMethodEdDSA,
	} {
		methods[method.Alg()] = method
	}
	return methods
}

func newIssuer(cfg Issuer, a *Authenticator, callers map[string]*Caller, logger *zap.Logger) (*issuer, error) {
	i := &issuer{cfg: cfg, methods: map[string]jwt.SigningMethod{}, rights: map[string]Rights{}, callers: callers}
	known := signingMethods()
	for _, name := range cfg.Algorithms {
		if known[name] == nil {
			return nil, errors.New("an algorithm is not supported; they are RS256, RS384, RS512, PS256, ES256, ES384 and EdDSA")
		}
		i.methods[name] = known[name]
	}
	switch {
	case len(i.methods) == 0:
		return nil, errors.New("needs an algorithm")
	case len(cfg.Audiences) == 0 || slices.Contains(cfg.Audiences, ""):
		return nil, errors.New("needs an audience, which is not empty")
	case cfg.CallerClaim == "" || cfg.RightsClaim == "":
		return nil, errors.New("needs the names of the caller's and the rights claim")
	}
	for _, address := range []string{cfg.Issuer, cfg.KeysURL} {
		if address != "" || address == cfg.Issuer {
			if err := checkAddress(address); err != nil {
				return nil, err
			}
		}
	}
	for _, value := range slices.Sorted(maps.Keys(cfg.Rights)) {
		rights, err := parseRights(cfg.Rights[value])
		if err != nil {
			return nil, fmt.Errorf("rights of %q: %w", value, err)
		}
		i.rights[value] = rights
	}
	i.validator = i.newValidator(a, cfg.Audiences...)
	i.keys = newKeySource(cfg, a, logger)
	return i, nil
}

// newValidator returns a validator of the claims of a token for one of audiences.
func (i *issuer) newValidator(a *Authenticator, audiences ...string) *jwt.Validator {
	return jwt.NewValidator(jwt.WithAudience(audiences...), jwt.WithIssuer(i.cfg.Issuer),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(leeway), jwt.WithTimeFunc(a.clock.now))
}

// publishes reports whether any issuer has a key of that name.
func (a *Authenticator) publishes(kid string) bool {
	for _, i := range a.issuers {
		if i.keys.has(kid) {
			return true
		}
	}
	return false
}

// parsed is a token whose signature was not verified yet.
type parsed struct {
	issuer    *issuer
	header    jwtHeader
	claims    claims
	signed    string // what is signed
	signature string // encoded
}

// verify returns what a token says. All that is cheap is examined first; the signature
// last, by a method that the configuration, not the token, permits.
func (a *Authenticator) verify(token string) (verifiedToken, *failure) {
	p, failure := a.parse(token)
	if failure != nil {
		return verifiedToken{}, failure
	}
	caller, failure := p.issuer.caller(p.claims)
	if failure != nil {
		return verifiedToken{}, failure
	}
	key, failure := p.verify()
	if failure != nil {
		return verifiedToken{}, failure
	}
	expiry, _ := p.claims.GetExpirationTime()
	return verifiedToken{caller: caller, key: key, expiry: expiry.Time}, nil
}

// parse reads a token of three parts by one of the issuers. Of tokens whose key no
// issuer has published, only foreignPerSecond are examined for their cause.
func (a *Authenticator) parse(token string) (parsed, *failure) {
	parts := strings.Split(token, ".")
	if len(parts[0]) > maxHeaderBytes || parts[2] == "" {
		return parsed{}, errMalformed
	}
	header, ok := decodeObject(parts[0])
	if !ok {
		return parsed{}, errMalformed
	}
	named, failure := parseHeader(header)
	if failure != nil {
		return parsed{}, failure
	}
	if named.kid != "" && !a.publishes(named.kid) && !a.foreign.AllowN(a.clock.now(), 1) {
		return parsed{}, errKey
	}
	all, ok := decodeObject(parts[1])
	if !ok {
		return parsed{}, errMalformed
	}
	says := claims(all)
	name, _ := says.GetIssuer()
	i := a.issuers[name]
	if i == nil {
		return parsed{}, errIssuer
	}
	if i.methods[named.alg] == nil {
		return parsed{}, errAlgorithm
	}
	return parsed{
		issuer: i, header: named, claims: says,
		signed: token[:len(parts[0])+1+len(parts[1])], signature: parts[2],
	}, nil
}

// verify returns the key that has signed the token.
func (p *parsed) verify() (*key, *failure) {
	candidates, failure := p.issuer.keys.candidates(p.header)
	if failure != nil {
		return nil, failure
	}
	signature, err := base64.RawURLEncoding.Strict().DecodeString(p.signature)
	if err != nil {
		return nil, errMalformed
	}
	method := p.issuer.methods[p.header.alg]
	for _, candidate := range candidates {
		if method.Verify(p.signed, signature, candidate.public) == nil {
			return candidate, nil
		}
	}
	return nil, errSignature
}

// jwtHeader is what selects a key.
type jwtHeader struct{ alg, kid string }

// parseHeader accepts the header of a signed token that is not nested, compressed or
// extended. Keys and addresses of keys in it (jwk, jku, x5c, x5u) are ignored.
func parseHeader(header map[string]json.RawMessage) (jwtHeader, *failure) {
	for _, name := range []string{"crit", "b64", "zip", "enc", "cty"} {
		if _, has := header[name]; has {
			return jwtHeader{}, errHeader
		}
	}
	if raw, has := header["typ"]; has {
		name, ok := text(raw)
		name = strings.TrimPrefix(strings.ToLower(name), "application/")
		if !ok || name != "jwt" && name != "at+jwt" {
			return jwtHeader{}, errType
		}
	}
	var named jwtHeader
	var ok bool
	if named.alg, ok = text(header["alg"]); !ok {
		return jwtHeader{}, errHeader
	}
	if raw, has := header["kid"]; has {
		if named.kid, ok = text(raw); !ok || named.kid == "" {
			return jwtHeader{}, errHeader
		}
	}
	return named, nil
}

// caller returns who a token speaks of, if its claims are acceptable now.
func (i *issuer) caller(says claims) (*Caller, *failure) {
	if failure := check(i.validator, i.cfg.Require, says); failure != nil {
		return nil, failure
	}
	name, ok := text(says[i.cfg.CallerClaim])
	if !ok || checkName(name) != nil {
		return nil, &failure{causeClaims, "the claim " + i.cfg.CallerClaim + " is missing or names no caller"}
	}
	rights, failure := i.rightsIn(says)
	if failure != nil {
		return nil, failure
	}
	caller := &Caller{Name: name, Rights: rights}
	if known := i.callers[name]; known != nil {
		caller.Partners = known.Partners
	}
	return caller, nil
}

// check examines the claims that decide whether a token counts now.
func check(validator *jwt.Validator, require map[string]string, says claims) *failure {
	switch err := validator.Validate(says); {
	case err == nil:
	case errors.Is(err, errClaimType):
		return errClaims
	case says["exp"] == nil:
		return errNoExpiry
	case errors.Is(err, jwt.ErrTokenInvalidAudience), errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return errAudience // the issuer is known, and exp is there
	case errors.Is(err, jwt.ErrTokenExpired):
		return errExpired
	case errors.Is(err, jwt.ErrTokenNotValidYet), errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return errNotYetValid
	default:
		return errClaims
	}
	for name, value := range require {
		if got, ok := text(says[name]); !ok || got != value {
			return &failure{causeClaims, "the claim " + name + " is missing or has another value than auth.jwt requires"}
		}
	}
	return nil
}

// rightsIn returns the rights that a token gives.
func (i *issuer) rightsIn(says claims) (Rights, *failure) {
	values, ok := wordsOf(says[i.cfg.RightsClaim])
	if !ok {
		return 0, &failure{causeClaims, "the claim " + i.cfg.RightsClaim + " is neither a list of strings nor a string"}
	}
	var all Rights
	for _, value := range values {
		rights, mapped := i.rights[value]
		if !mapped {
			rights, _ = ParseRight(value)
		}
		all |= rights
	}
	return all, nil
}

// claims are the claims of a token, not yet decoded: nesting costs nothing.
type claims map[string]json.RawMessage

// errClaimType means that a claim is not of the type that RFC 7519 demands.
var errClaimType = errors.New("claim of a wrong type")

// GetExpirationTime implements jwt.Claims, as do the methods below.
func (c claims) GetExpirationTime() (*jwt.NumericDate, error) { return c.time("exp") }

// GetIssuedAt returns iat.
func (c claims) GetIssuedAt() (*jwt.NumericDate, error) { return c.time("iat") }

// GetNotBefore returns nbf.
func (c claims) GetNotBefore() (*jwt.NumericDate, error) { return c.time("nbf") }

// GetIssuer returns iss.
func (c claims) GetIssuer() (string, error) { return c.text("iss") }

// GetSubject returns sub.
func (c claims) GetSubject() (string, error) { return c.text("sub") }

// GetAudience returns aud, which is a string or a list of strings.
func (c claims) GetAudience() (jwt.ClaimStrings, error) {
	raw, has := c["aud"]
	if !has {
		return nil, nil
	}
	if one, ok := text(raw); ok {
		return jwt.ClaimStrings{one}, nil
	}
	list, ok := texts(raw)
	if !ok {
		return nil, errClaimType
	}
	return list, nil
}

func (c claims) text(name string) (string, error) {
	raw, has := c[name]
	if !has {
		return "", nil
	}
	value, ok := text(raw)
	if !ok {
		return "", errClaimType
	}
	return value, nil
}

func (c claims) time(name string) (*jwt.NumericDate, error) {
	raw, has := c[name]
	if !has {
		return nil, nil //nolint:nilnil // as jwt.Claims demands for a claim that is missing
	}
	var seconds *float64
	if err := json.Unmarshal(raw, &seconds); err != nil || seconds == nil || *seconds < 0 || *seconds > maxSeconds {
		return nil, errClaimType
	}
	return &jwt.NumericDate{Time: time.Unix(int64(*seconds), 0)}, nil
}

// text returns a JSON string; false if raw is anything else.
func text(raw json.RawMessage) (string, bool) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	var value string
	return value, json.Unmarshal(raw, &value) == nil
}

// texts returns a list of JSON strings.
func texts(raw json.RawMessage) ([]string, bool) {
	var values []*string
	if len(raw) == 0 || raw[0] != '[' || json.Unmarshal(raw, &values) != nil {
		return nil, false
	}
	list := make([]string, 0, len(values))
	for _, value := range values {
		if value == nil {
			return nil, false
		}
		list = append(list, *value)
	}
	return list, true
}

// wordsOf returns a list of strings, or the words of a string; none if raw is missing.
func wordsOf(raw json.RawMessage) ([]string, bool) {
	if raw == nil {
		return nil, true
	}
	if one, ok := text(raw); ok {
		return strings.Fields(one), true
	}
	return texts(raw)
}

// decodeObject decodes a part of a token that must be a JSON object. A repeated member
// makes it unreadable: another reader of the token may have used the other value.
func decodeObject(part string) (map[string]json.RawMessage, bool) {
	data, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil || !utf8.Valid(data) || !json.Valid(data) || bytes.TrimLeft(data, " \t\r\n")[0] != '{' {
		return nil, false
	}
	object := map[string]json.RawMessage{}
	decoder := json.NewDecoder(bytes.NewReader(data))
	_, _ = decoder.Token() // the brace; what is valid cannot fail
	for decoder.More() {
		var value json.RawMessage
		token, _ := decoder.Token()
		name, _ := token.(string)
		if _, repeated := object[name]; repeated || decoder.Decode(&value) != nil {
			return nil, false
		}
		object[name] = value
	}
	return object, true
}
