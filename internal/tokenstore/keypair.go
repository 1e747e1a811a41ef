package tokenstore

import (
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// pkcs12Type is the content type of a vault's certificate in PKCS #12, in base64
// and without a password; the other form is PEM.
//
// Source: https://learn.microsoft.com/en-us/azure/key-vault/certificates/about-certificates#exportable-or-non-exportable-key
// (read 2026-11-28)
const pkcs12Type = "application/x-pkcs12"

var errNoKeyPair = errors.New("holds no certificate with its RSA key: neither in PEM, not encrypted, nor in PKCS #12 in base64, without a password and as a vault exports it")

// KeyPair returns the certificate and the key that a vault's secret holds, in PEM
// or PKCS #12. Its first certificate is the one of the key. Of PKCS #12, it reads
// what vaults export, with SHA-1 and Triple DES; others are rejected.
func KeyPair(stored Secret) (*tls.Certificate, error) {
	data := []byte(stored.Value)
	if stored.ContentType == pkcs12Type || !strings.Contains(stored.Value, "-----BEGIN ") {
		var err error
		if data, err = base64.StdEncoding.DecodeString(Trim(stored.Value)); err != nil {
			return nil, errNoKeyPair
		}
	}
	certificates, key, err := parseCertificates(data)
	if err != nil {
		return nil, errNoKeyPair
	}
	private, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, errNoKeyPair
	}
	pair := &tls.Certificate{PrivateKey: private}
	for _, certificate := range certificates {
		if public, ok := certificate.PublicKey.(*rsa.PublicKey); ok && public.Equal(private.Public()) {
			pair.Leaf, pair.Certificate = certificate, [][]byte{certificate.Raw}
			return pair, nil
		}
	}
	return nil, errNoKeyPair
}

// parseCertificates does not let a malformed input end the process.
func parseCertificates(data []byte) (certificates []*x509.Certificate, key any, err error) {
	defer func() {
		if recover() != nil {
			err = errNoKeyPair
		}
	}()
	return azidentity.ParseCertificates(data, nil)
}
