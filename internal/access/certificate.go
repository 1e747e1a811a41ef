package access

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Certificate is a client certificate that was verified in the TLS handshake.
type Certificate struct {
	caller              *Caller
	failure             *failure // why it names no caller; it may come with a token
	notBefore, notAfter time.Time
}

// namedCertificate is a caller and the name in its certificate.
type namedCertificate struct {
	uri, dns string
	caller   *Caller
}

func nameCertificates(given []CertificateCaller, callers map[string]*Caller) ([]namedCertificate, error) {
	named := make([]namedCertificate, 0, len(given))
	seen := map[CertificateCaller]bool{}
	for n, one := range given {
		caller, san := callers[one.Caller], CertificateCaller{URI: one.URI, DNS: strings.ToLower(one.DNS)}
		var err error
		switch {
		case (one.URI == "") == (one.DNS == ""):
			err = errors.New("needs either a URI or a DNS name")
		case caller == nil || caller.Rights == 0:
			err = errors.New("its caller has no rights in auth.callers")
		case seen[san]:
			err = errors.New("its name is given twice")
		}
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", n+1, err)
		}
		seen[san] = true
		named = append(named, namedCertificate{one.URI, one.DNS, caller})
	}
	return named, nil
}

// Certificate returns what leaf, verified in a handshake, says about its holder.
// Names are compared whole; a URI with its case.
func (a *Authenticator) Certificate(leaf *x509.Certificate) *Certificate {
	c := &Certificate{failure: errCertificateUnnamed, notBefore: leaf.NotBefore, notAfter: leaf.NotAfter}
	for _, named := range a.certificates {
		if !named.matches(leaf) || c.caller == named.caller {
			continue
		}
		if c.caller != nil {
			c.caller, c.failure = nil, errCertificateSeveral
			return c
		}
		c.caller, c.failure = named.caller, nil
	}
	return c
}

func (n namedCertificate) matches(leaf *x509.Certificate) bool {
	if n.uri != "" {
		return slices.Contains(urisOf(leaf), n.uri)
	}
	for _, name := range leaf.DNSNames {
		if strings.EqualFold(name, n.dns) {
			return true
		}
	}
	return false
}

// urisOf returns the URIs of a certificate as its authority has written them. A
// [url.URL] is not the same text: it has lost the case of the scheme and an empty fragment.
//
// Source: https://www.rfc-editor.org/rfc/rfc5280#section-4.2.1.6
func urisOf(leaf *x509.Certificate) []string {
	const uniformResourceIdentifier = 6
	var uris []string
	for _, extension := range leaf.Extensions {
		var names []asn1.RawValue
		if !extension.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) {
			continue
		}
		_, _ = asn1.Unmarshal(extension.Value, &names) // package x509 has parsed it
		for _, name := range names {
			if name.Class == asn1.ClassContextSpecific && name.Tag == uniformResourceIdentifier {
				uris = append(uris, string(name.Bytes))
			}
		}
	}
	return uris
}

// check reports whether the certificate is valid at that time: the connection may be
// older than its expiry.
func (c *Certificate) check(now time.Time) *failure {
	if now.Before(c.notBefore) || now.After(c.notAfter) {
		return errCertificateExpired
	}
	return nil
}
