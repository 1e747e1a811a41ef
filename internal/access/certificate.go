package access

import (
	"crypto/x509"
	"errors"
	"fmt"
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
		for _, uri := range leaf.URIs {
			if uri.String() == n.uri {
				return true
			}
		}
		return false
	}
	for _, name := range leaf.DNSNames {
		if strings.EqualFold(name, n.dns) {
			return true
		}
	}
	return false
}

// check reports whether the certificate is valid at that time: the connection may be
// older than its expiry.
func (c *Certificate) check(now time.Time) *failure {
	if now.Before(c.notBefore) || now.After(c.notAfter) {
		return errCertificateExpired
	}
	return nil
}
