package pcclient

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

const (
	// assertionType is the client_assertion_type of a signed assertion.
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	// assertionLife is how long an assertion lasts, at the lower end of the
	// five to ten minutes that are advised.
	assertionLife = 5 * time.Minute
	// assertionLead is how long ago an assertion claims to have been made: our
	// clock may be a little ahead of the login host's.
	assertionLead = 10 * time.Second
	// minKeyBits is the least length of a key that is not within reach of
	// attackers.
	minKeyBits = 2048
)

// checkCertificate returns why a certificate cannot sign assertions at that
// time, or nil.
func checkCertificate(pair *tls.Certificate, now time.Time) error {
	if len(pair.Certificate) == 0 {
		return errors.New("is empty")
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return errors.New("cannot be read")
	}
	public, ok := leaf.PublicKey.(*rsa.PublicKey)
	if !ok {
		return errors.New("must have an RSA key")
	}
	key, ok := pair.PrivateKey.(*rsa.PrivateKey)
	switch {
	case !ok || key == nil:
		return errors.New("needs its RSA private key")
	case !public.Equal(key.Public()):
		return errors.New("does not belong to the private key")
	case public.N.BitLen() < minKeyBits:
		return fmt.Errorf("must have a key of at least %d bits", minKeyBits)
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("is not valid before %s", leaf.NotBefore.UTC().Format(time.RFC3339))
	case now.After(leaf.NotAfter):
		return fmt.Errorf("expired at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// signer signs assertions, which prove who the client is in place of a secret.
//
// Source: https://learn.microsoft.com/en-us/entra/identity-platform/certificate-credentials
// (read 2026-11-21)
type signer struct {
	key      *rsa.PrivateKey
	header   string // encoded, as every assertion begins
	clientID string
	audience string // the token endpoint
	now      func() time.Time
	ends     time.Time // the certificate
}

// newSigner needs a certificate that checkCertificate has nothing against.
func newSigner(pair *tls.Certificate, clientID, endpoint string, now func() time.Time) *signer {
	key, _ := pair.PrivateKey.(*rsa.PrivateKey)
	sum := sha256.Sum256(pair.Certificate[0])
	return &signer{
		key: key,
		// The thumbprint is of letters that need no escaping.
		header:   encodePart([]byte(`{"alg":"PS256","typ":"JWT","x5t#S256":"` + base64.RawURLEncoding.EncodeToString(sum[:]) + `"}`)),
		clientID: clientID,
		audience: endpoint,
		now:      now,
		ends:     certificateEnd(pair),
	}
}

// certificateEnd returns when a certificate that checkCertificate has nothing against
// expires.
func certificateEnd(pair *tls.Certificate) time.Time {
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return time.Time{}
	}
	return leaf.NotAfter
}

// assertion returns a new assertion. The login host takes each only once.
func (s *signer) assertion() (string, error) {
	made := s.now().Add(-assertionLead)
	claims, err := json.Marshal(struct {
		Audience string `json:"aud"`
		Issuer   string `json:"iss"`
		Subject  string `json:"sub"`
		ID       string `json:"jti"`
		From     int64  `json:"nbf"`
		Issued   int64  `json:"iat"`
		Expires  int64  `json:"exp"`
	}{s.audience, s.clientID, s.clientID, uuid.NewString(), made.Unix(), made.Unix(), made.Add(assertionLead + assertionLife).Unix()})
	if err != nil {
		return "", err
	}
	text := s.header + "." + encodePart(claims)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPSS(rand.Reader, s.key, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	if err != nil {
		return "", err
	}
	return text + "." + encodePart(signature), nil
}

func encodePart(part []byte) string { return base64.RawURLEncoding.EncodeToString(part) }
