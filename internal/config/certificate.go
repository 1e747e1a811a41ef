package config

import (
	"crypto/rsa"
	"crypto/tls"
	"fmt"
	"time"
)

// minKeyBits is the minimum size of a certificate's key.
const minKeyBits = 2048

// KeyPair returns the certificate of ClientCertificateFile with its key, or nil
// if there is none.
func (pc PartnerCenter) KeyPair() *tls.Certificate {
	pair, problem := parseKeyPair(pc.ClientCertificate)
	if problem != "" { // none, or Load would have failed
		return nil
	}
	return pair
}

// checkCertificate reads the certificate and reports a fault if the login host
// would reject it now.
func (l *loader) checkCertificate(s partnerSection) {
	pc, key := s.values, s.at("client_certificate_file")
	if pc.ClientCertificateFile == "" {
		return
	}
	text, problem := readSecret(pc.ClientCertificateFile)
	if problem != "" {
		l.object(key, "%s", problem)
		return
	}
	pc.ClientCertificate = NewSecret(text)
	pair, problem := parseKeyPair(pc.ClientCertificate)
	if problem == "" {
		problem = outOfDate(pair, time.Now())
	}
	if problem != "" {
		l.object(key, "%s", problem)
	}
}

// parseKeyPair returns a certificate and its key. If they are invalid, problem
// describes why without repeating any of the text.
func parseKeyPair(text Secret) (pair *tls.Certificate, problem string) {
	data := []byte(text.Reveal())
	parsed, err := tls.X509KeyPair(data, data)
	if err != nil {
		return nil, "does not hold, in PEM, a certificate first and the key that belongs to it, not encrypted; " +
			"write both into the one file, and remove a passphrase with `openssl pkey`"
	}
	key, ok := parsed.PrivateKey.(*rsa.PrivateKey)
	if !ok || key.N.BitLen() < minKeyBits {
		return nil, fmt.Sprintf("must hold an RSA key of at least %d bits; make a new certificate with one", minKeyBits)
	}
	return &parsed, ""
}

// outOfDate returns a problem if the certificate is not valid at now.
func outOfDate(pair *tls.Certificate, now time.Time) (problem string) {
	const remedy = "; add another to the app registration and name its file, or correct the clock"
	switch leaf := pair.Leaf; {
	case now.Before(leaf.NotBefore):
		return "holds a certificate that is not valid before " + leaf.NotBefore.UTC().Format(time.RFC3339) + remedy
	case now.After(leaf.NotAfter):
		return "holds a certificate that expired at " + leaf.NotAfter.UTC().Format(time.RFC3339) + remedy
	}
	return ""
}
