package pcsim

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // the older thumbprint is one
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// assertionType is the only client_assertion_type there is.
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// maxAssertionLife is how far in the future an assertion may expire: the upper
// end of Microsoft's advice.
const maxAssertionLife = 10 * time.Minute

// assertions verifies the assertions of a client that has certificates in place
// of a secret.
//
// Source: https://learn.microsoft.com/en-us/entra/identity-platform/certificate-credentials
// (read 2026-11-21)
type assertions struct {
	mu   sync.Mutex
	keys map[thumbprint]*x509.Certificate
	seen map[[sha256.Size]byte]time.Time // hash of the jti → when it may be forgotten
}

// thumbprint identifies a certificate, and with it the algorithm, in a header.
type thumbprint struct{ alg, sum string }

func newAssertions(certificates []*x509.Certificate) *assertions {
	a := &assertions{keys: map[thumbprint]*x509.Certificate{}, seen: map[[sha256.Size]byte]time.Time{}}
	for _, c := range certificates {
		a.register(c)
	}
	return a
}

func (a *assertions) register(c *x509.Certificate) {
	modern, older := sha256.Sum256(c.Raw), sha1.Sum(c.Raw) //nolint:gosec // see above
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keys[thumbprint{"PS256", base64.RawURLEncoding.EncodeToString(modern[:])}] = c
	a.keys[thumbprint{"RS256", base64.RawURLEncoding.EncodeToString(older[:])}] = c
}

func checkCertificate(c *x509.Certificate) error {
	if c == nil {
		return errors.New("client certificate is nil")
	}
	if _, ok := c.PublicKey.(*rsa.PublicKey); !ok {
		return fmt.Errorf("client certificate has a %v key: RSA is possible", c.PublicKeyAlgorithm)
	}
	return nil
}

// RegisterCertificate adds a certificate whose key may sign assertions of the
// application, besides those of the Config. If the certificate is nil or its
// key is not RSA, it returns an error.
func (s *Server) RegisterCertificate(c *x509.Certificate) error {
	if err := checkCertificate(c); err != nil {
		return fmt.Errorf("pcsim: register certificate: %w", err)
	}
	s.assertions.register(c)
	return nil
}

type assertionHeader struct {
	Alg     string `json:"alg"`
	Typ     string `json:"typ"`
	X5t     string `json:"x5t"`
	X5tS256 string `json:"x5t#S256"`
}

// assertionClaims has a pointer for each claim whose zero value differs from its absence.
type assertionClaims struct {
	Audience string `json:"aud"`
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	ID       string `json:"jti"`
	Expires  *int64 `json:"exp"`
	From     *int64 `json:"nbf"`
	Issued   *int64 `json:"iat"`
}

// verify returns 0 if an assertion is the client's, was sent to the given token
// endpoint, is valid now and was never used before; else an AADSTS code. There
// is no leeway: if a client needs none here, it needs none at Microsoft either.
func (a *assertions) verify(token, client, endpoint string, now time.Time) (code int) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return aadAssertionMalformed
	}
	var head assertionHeader
	var c assertionClaims
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || !decodePart(parts[0], &head) || !decodePart(parts[1], &c) || !strings.EqualFold(head.Typ, "JWT") {
		return aadAssertionMalformed
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	cert := a.keys[head.thumbprint()]
	switch {
	case cert == nil, now.Before(cert.NotBefore), now.After(cert.NotAfter),
		!signedBy(cert, head.Alg, parts[0]+"."+parts[1], signature):
		return aadAssertionSignature
	case c.Audience != endpoint:
		return aadAssertionAudience
	case c.Issuer != client || c.Subject != client:
		return aadAssertionClient
	case c.ID == "" || c.Expires == nil || c.From == nil || c.Issued == nil:
		return aadAssertionMalformed
	}
	expires := time.Unix(*c.Expires, 0)
	if !now.Before(expires) || expires.Sub(now) > maxAssertionLife ||
		now.Before(time.Unix(*c.From, 0)) || now.Before(time.Unix(*c.Issued, 0)) {
		return aadAssertionTime
	}
	return a.once(c.ID, expires, now)
}

// once requires mu. It forgets assertions that have expired.
func (a *assertions) once(id string, expires, now time.Time) (code int) {
	for old, until := range a.seen {
		if !now.Before(until) {
			delete(a.seen, old)
		}
	}
	key := sha256.Sum256([]byte(id))
	if _, again := a.seen[key]; again {
		return aadAssertionReplayed
	}
	a.seen[key] = expires
	return 0
}

// thumbprint returns the thumbprint for the algorithm.
func (h assertionHeader) thumbprint() thumbprint {
	if h.Alg == "RS256" {
		return thumbprint{h.Alg, h.X5t}
	}
	return thumbprint{h.Alg, h.X5tS256}
}

func decodePart(part string, dst any) bool {
	text, err := base64.RawURLEncoding.DecodeString(part)
	return err == nil && json.Unmarshal(text, dst) == nil
}

func signedBy(c *x509.Certificate, alg, text string, signature []byte) bool {
	key, ok := c.PublicKey.(*rsa.PublicKey)
	if !ok {
		return false // unreachable: no other is registered
	}
	sum := sha256.Sum256([]byte(text))
	if alg == "RS256" {
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature) == nil
	}
	options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
	return rsa.VerifyPSS(key, crypto.SHA256, sum[:], signature, options) == nil
}

// endpointURL returns the URL of a request as the client wrote it.
func endpointURL(r *http.Request) string { return hostURL(r) + r.URL.Path }

func hostURL(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}
