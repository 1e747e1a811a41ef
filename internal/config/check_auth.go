package config

import (
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/eligibilityd/eligibilityd/internal/access"
)

const (
	// maxIssuers bounds the issuers, each of which has its keys fetched.
	maxIssuers = 16
	// anonymous is the caller of a service that authenticates none.
	anonymous = "anonymous"
)

// algorithms are those of signatures with a key pair.
var algorithms = []string{"RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"} //nolint:gochecknoglobals // only read

func (l *loader) checkAuth(command Command) {
	l.checkCertificates()
	l.checkIssuers()
	l.checkCallers(command)
	l.checkLimit("limits.default", l.cfg.Limits.Default)
	for _, name := range slices.Sorted(maps.Keys(l.cfg.Limits.Callers)) {
		l.checkLimit(entry("limits.callers", name), l.cfg.Limits.Callers[name])
	}
}

func (l *loader) checkCertificates() {
	const key = "auth.certificates"
	taken := map[string]string{} // what a certificate holds → path of its entry
	for i, c := range l.cfg.Auth.Certificates {
		path := key + "[" + strconv.Itoa(i) + "]"
		l.checkCertificateCaller(path, c)
		var name string
		switch {
		case c.URI == "" && c.DNS == "":
			l.object(path, "needs uri or dns: what the certificate of the caller holds")
			continue
		case c.URI != "" && c.DNS != "":
			l.object(path, "has both uri and dns; write two entries")
			continue
		case c.URI != "":
			name = "uri " + c.URI
			if u, err := url.Parse(c.URI); err != nil || u.Scheme == "" || u.Host == "" && u.Opaque == "" || !isVisible(c.URI) {
				l.object(path+".uri", "is not an absolute URI, such as spiffe://shop.example/checkout")
			}
		default:
			name = "dns " + strings.ToLower(c.DNS)
			if _, err := netip.ParseAddr(c.DNS); err == nil || !isHost(c.DNS) || strings.HasSuffix(c.DNS, ".") {
				l.object(path+".dns", "is not a DNS name, such as checkout.shop.example; names are compared whole, without wildcards")
			}
		}
		if other, ok := taken[name]; ok {
			l.object(path, "is the same certificate as %s", other)
		}
		taken[name] = path
	}
	if len(l.cfg.Auth.Certificates) > 0 && l.cfg.Server.TLS.ClientCAFile == "" {
		l.object(key, "needs server.tls.client_ca_file, which client certificates are verified against")
	}
}

// checkCertificateCaller checks the caller of the certificate at path, whose rights
// are nowhere else than in auth.callers.
func (l *loader) checkCertificateCaller(path string, c CertificateCaller) {
	key := path + ".caller"
	switch _, given := l.origins[entry("auth.callers", c.Caller)+".rights"]; {
	case c.Caller == "":
		l.objectToEither(key, path, "is missing: the caller's name")
	case !access.ValidName(c.Caller):
		l.object(key, "must be 1 to 64 visible ASCII characters except quotes, commas and backslashes")
	case c.Caller == anonymous:
		l.object(key, "is the name of callers that are not authenticated; choose another")
	case !given && !l.isRejected(entry("auth.callers", c.Caller)+".rights"):
		l.object(key, "has no rights: give them in %s.rights", entry("auth.callers", c.Caller))
	}
}

func (l *loader) checkIssuers() {
	const key = "auth.jwt"
	taken := map[string]string{} // issuer → path of its entry
	for i, j := range l.cfg.Auth.JWT {
		path := key + "[" + strconv.Itoa(i) + "]"
		switch other, again := taken[j.Issuer]; {
		case j.Issuer == "":
			l.objectToEither(path+".issuer", path, "is missing: the claim iss of the tokens, to the letter")
		case again:
			l.object(path+".issuer", "is the same as that of %s", other)
		default:
			l.checkIssuerURL(path+".issuer", j.Issuer)
		}
		taken[j.Issuer] = path
		if j.KeysURL != "" {
			address, _, _ := strings.Cut(j.KeysURL, "?") // Entra ID has keys of one application under ?appid=
			l.checkIssuerURL(path+".keys_url", address)
		}
		if len(j.Audiences) == 0 {
			l.objectToEither(path+".audiences", path, "needs at least one: without it, tokens for any other service would be accepted")
		}
		l.checkItems(path+".audiences", j.Audiences, audienceProblem)
		if len(j.Algorithms) == 0 {
			l.object(path+".algorithms", "needs at least one; leave it out for RS256")
		}
		l.checkItems(path+".algorithms", j.Algorithms, algorithmProblem)
		l.checkClaim(path+".caller_claim", j.CallerClaim)
		l.checkClaim(path+".rights_claim", j.RightsClaim)
		l.checkClaims(path, j)
	}
	if n := len(l.cfg.Auth.JWT); n > maxIssuers {
		l.object(key, "has %d issuers, and at most %d are supported", n, maxIssuers)
	}
}

// checkClaims checks which claims give rights, and which are required.
func (l *loader) checkClaims(path string, j JWT) {
	if _, given := l.origins[path+".rights"]; given && len(j.Rights) == 0 {
		l.object(path+".rights", "names no value; leave it out if the values are names of rights")
	}
	for _, value := range slices.Sorted(maps.Keys(j.Rights)) {
		l.checkRights(entry(path+".rights", value), j.Rights[value])
	}
	for _, claim := range slices.Sorted(maps.Keys(j.Require)) {
		if j.Require[claim] == "" {
			l.object(entry(path+".require", claim), "must have a value")
		}
	}
}

// checkIssuerURL checks a URL that keys are fetched from, or below.
func (l *loader) checkIssuerURL(key, text string) {
	_, problem := splitURL(text, "https", "http")
	if problem == "" && !isVisible(text) {
		problem = "must not hold blanks or other than ASCII characters"
	}
	if problem != "" {
		l.object(key, "%s", problem)
	}
}

func audienceProblem(text string) string {
	if text == "" || !isVisible(text) {
		return "must be visible ASCII characters"
	}
	return ""
}

// algorithmProblem describes why an algorithm is not accepted, or is "".
func algorithmProblem(name string) string {
	switch {
	case slices.Contains(algorithms, name):
		return ""
	case strings.EqualFold(name, "none"):
		return "is none, which means that tokens are not signed, so that anybody can make them; it is never accepted"
	case strings.HasPrefix(strings.ToUpper(name), "HS"):
		return "has one secret that signs and verifies, so that whoever can verify a token can make one; it is never accepted"
	default:
		return "is not one of " + strings.Join(algorithms, ", ")
	}
}

func (l *loader) checkClaim(key, name string) {
	if !isEntryName(name) {
		l.object(key, "is not the name of a claim")
	}
}

// checkCallers checks the rights and partners of callers. Those of dev have names
// that no configuration holds.
func (l *loader) checkCallers(command Command) {
	const key = "auth.callers"
	auth := &l.cfg.Auth
	_, isSeveral := l.origins[partnersSection]
	for _, name := range slices.Sorted(maps.Keys(auth.Callers)) {
		path, caller := entry(key, name), auth.Callers[name]
		if name == anonymous {
			l.object(path, "is nobody: with a method of auth, every caller is authenticated")
		}
		if _, given := l.origins[path+".rights"]; given {
			l.checkRights(path+".rights", caller.Rights)
		}
		if _, given := l.origins[path+".partners"]; given && len(caller.Partners) == 0 {
			l.object(path+".partners", "names no partner; leave it out for all")
		}
		l.checkItems(path+".partners", caller.Partners, func(name string) string {
			if isKnown := command == Dev && !isSeveral; !isKnown && !slices.ContainsFunc(l.partners, func(s partnerSection) bool { return s.name == name }) {
				return "is none of the partners"
			}
			return ""
		})
	}
	if len(auth.Callers) > 0 && l.lacksMethod() {
		l.object(key, "has no effect without a method that identifies callers: auth.certificates, auth.tokens_file or auth.jwt")
	}
}

// lacksMethod reports whether no method of auth was given, valid or not.
func (l *loader) lacksMethod() bool {
	return !l.cfg.Auth.Enabled() && !l.isRejected("auth.certificates") && !l.isRejected("auth.tokens_file") && !l.isRejected("auth.jwt")
}

// checkRights rejects lists of rights that are empty, or have an item that is no
// right or is repeated.
func (l *loader) checkRights(key string, rights []string) {
	if len(rights) == 0 {
		l.object(key, "names no right; a caller without rights has no access, so leave it out")
	}
	l.checkItems(key, rights, func(right string) string {
		if _, ok := access.ParseRight(right); !ok {
			return "is not one of " + strings.Join(access.Words(), ", ")
		}
		return ""
	})
}

// checkLimit checks the limits of a caller. Those of the default are reported once.
func (l *loader) checkLimit(path string, limit Limit) {
	const greatest = 1_000_000
	l.checkCount(path+".requests_per_second", limit.RequestsPerSecond, 1, greatest)
	l.checkCount(path+".burst", limit.Burst, 1, greatest)
	l.checkCount(path+".concurrent", limit.Concurrent, 1, greatest)
	l.checkCount(path+".new_customers_per_minute", limit.NewCustomersPerMinute, 0, greatest)
}

// isVisible reports whether text consists of visible ASCII characters.
func isVisible(text string) bool {
	return !strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c > '~' })
}
