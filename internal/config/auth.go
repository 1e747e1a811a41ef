package config

import "reflect"

// Auth holds how callers prove who they are, and what each may do. Without
// certificates, tokens_file and jwt there is one caller, anonymous, who may do
// everything.
type Auth struct {
	// Certificates are the callers that present a client certificate. Needs
	// server.tls.client_ca_file. Optional; none.
	Certificates []CertificateCaller `yaml:"certificates"`
	// TokensFile is a file of static tokens, which `eligibilityd token` makes:
	// a list of {caller, sha256, not_after, rights}. It is read again when it
	// changes. Optional; none.
	TokensFile string `yaml:"tokens_file"`
	// JWT are the issuers whose tokens are accepted, such as a tenant of Entra
	// ID; at most 16. Optional; none.
	JWT []JWT `yaml:"jwt"`
	// Callers holds the rights and partners of callers by name: 1 to 64 visible
	// ASCII characters except quotes, commas and backslashes. A caller with a
	// certificate needs an entry with rights. Optional; none.
	Callers map[string]Caller `yaml:"callers"`
}

// Enabled reports whether callers must prove who they are.
func (a Auth) Enabled() bool {
	return len(a.Certificates) > 0 || a.TokensFile != "" || len(a.JWT) > 0
}

// CertificateCaller is a caller that presents a client certificate with a
// subject alternative name.
type CertificateCaller struct {
	// Caller is the caller's name, as in auth.callers.
	Caller string `yaml:"caller"`
	// URI is the URI in the certificate, compared whole. Conflicts with dns.
	URI string `yaml:"uri"`
	// DNS is the DNS name in the certificate, compared whole. Conflicts with
	// uri.
	DNS string `yaml:"dns"`
}

// JWT is an issuer of JSON web tokens.
type JWT struct {
	// Issuer is the claim iss of its tokens, to the letter: an https URL; http
	// is accepted for loopback hosts.
	Issuer string `yaml:"issuer"`
	// Audiences are the values of the claim aud that are accepted; at least one.
	Audiences []string `yaml:"audiences"`
	// KeysURL is where the issuer publishes its keys. Optional; as its OpenID
	// configuration states.
	KeysURL string `yaml:"keys_url"`
	// Algorithms are the accepted algorithms of signatures: RS256, RS384,
	// RS512, PS256, ES256, ES384 and EdDSA. HS256 and its like, and none, are
	// never accepted. Optional; [RS256].
	Algorithms []string `yaml:"algorithms"`
	// CallerClaim is the claim with the caller's name. Version 1 tokens of
	// Entra ID have appid. Optional; azp.
	CallerClaim string `yaml:"caller_claim"`
	// RightsClaim is the claim with the caller's rights: a list, or words
	// separated by blanks, such as scp. Optional; roles.
	RightsClaim string `yaml:"rights_claim"`
	// Rights maps values of the rights claim to the rights that each gives.
	// Optional; none, which means that the values are names of rights.
	Rights map[string][]string `yaml:"rights"`
	// Require holds claims and the value that each must have. Optional; none.
	Require map[string]string `yaml:"require"`
}

// DefaultJWT returns the defaults of an issuer's keys.
func DefaultJWT() JWT {
	return JWT{Algorithms: []string{"RS256"}, CallerClaim: "azp", RightsClaim: "roles"}
}

// Caller holds what a caller may do.
type Caller struct {
	// Rights are the caller's rights: check, batch, fresh, prefetch, watch,
	// watch_all and support. Optional; those of its token.
	Rights []string `yaml:"rights"`
	// Partners are the partners that the caller may ask about. Optional; all.
	// After Load nil means all.
	Partners []string `yaml:"partners"`
}

// Limits holds how much each caller may ask.
type Limits struct {
	// Default holds the limits of every caller that has none of its own. They
	// do not apply to anonymous.
	Default Limit `yaml:"default"`
	// Callers holds the limits of callers by name, anonymous among them; those
	// that a caller does not have are the default's. Optional; none.
	Callers map[string]Limit `yaml:"callers"`
}

// Limit holds how much one caller may ask.
type Limit struct {
	// RequestsPerSecond is how many checks the caller may ask for a second, on
	// average; each item of a batch is one. 1 to 1000000. Optional; 500.
	RequestsPerSecond int `yaml:"requests_per_second"`
	// Burst is how many checks the caller may ask for at once. 1 to 1000000.
	// Optional; 1000.
	Burst int `yaml:"burst"`
	// Concurrent is how many calls of the caller may be in progress. 1 to
	// 1000000. Optional; 512.
	Concurrent int `yaml:"concurrent"`
	// NewCustomersPerMinute is how many single checks a minute may ask Partner
	// Center about a customer about whom nothing is cached, of all replicas
	// that share a Redis together. The default does not apply to callers with
	// the right batch. 0 to 1000000. Optional; 60.
	NewCustomersPerMinute int `yaml:"new_customers_per_minute"`
	// NewCustomersGiven reports whether the caller has new_customers_per_minute
	// of its own. It is false in limits.default.
	NewCustomersGiven bool `yaml:"-"`
}

func defaultLimit() Limit {
	return Limit{RequestsPerSecond: 500, Burst: 1000, Concurrent: 512, NewCustomersPerMinute: 60}
}

// resolveLimits sets what the limits of a caller leave out to the default.
func (l *loader) resolveLimits() {
	const key = "limits.callers"
	for name, limit := range l.cfg.Limits.Callers {
		path := entry(key, name)
		values := reflect.ValueOf(&limit).Elem()
		for i, f := range appendFields(nil, path, values) {
			if _, own := l.origins[f.key]; own {
				continue
			}
			from := appendFields(nil, "limits.default", reflect.ValueOf(&l.cfg.Limits.Default).Elem())[i]
			f.value.Set(from.value)
			l.inherited[f.key] = from.key
		}
		_, limit.NewCustomersGiven = l.origins[join(path, "new_customers_per_minute")]
		l.cfg.Limits.Callers[name] = limit
	}
}
