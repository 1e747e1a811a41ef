// Package accesstest has what tests of authentication need: an authority with
// certificates of servers and clients, and an issuer of tokens.
package accesstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority issues certificates.
type Authority struct {
	// File has the authority's certificate in PEM.
	File string

	dir    string
	issuer *x509.Certificate
	key    *ecdsa.PrivateKey
}

// Pair is a certificate with its key.
type Pair struct {
	// CertificateFile and KeyFile are in PEM.
	CertificateFile, KeyFile string
	Leaf                     *x509.Certificate
	Key                      *ecdsa.PrivateKey
}

// NewAuthority makes an authority for one test.
func NewAuthority(tb testing.TB) *Authority {
	tb.Helper()
	a := &Authority{dir: tb.TempDir()}
	pair := a.Issue(tb, "ca", x509.Certificate{
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	a.File, a.issuer, a.key = pair.CertificateFile, pair.Leaf, pair.Key
	return a
}

// Server issues a certificate to a server at 127.0.0.1, ::1, localhost and names.
// Such a server is also a client of others like it.
func (a *Authority) Server(tb testing.TB, names ...string) *Pair {
	tb.Helper()
	return a.Issue(tb, "server", x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, DNSNames: append(names, "localhost"),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
}

// Client issues a certificate to a client with these URIs as its names.
func (a *Authority) Client(tb testing.TB, uris ...string) *Pair {
	tb.Helper()
	template := x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, uri := range uris {
		parsed, err := url.Parse(uri)
		if err != nil {
			tb.Fatal(err)
		}
		template.URIs = append(template.URIs, parsed)
	}
	return a.Issue(tb, "client", template)
}

// Issue issues a certificate by template. Without a validity of its own, it is valid
// from an hour ago until in an hour. Files issued under one name get a number.
func (a *Authority) Issue(tb testing.TB, name string, template x509.Certificate) *Pair {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.Subject = pkix.Name{CommonName: name}
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	issuer, signer := a.issuer, a.key
	if issuer == nil {
		issuer, signer = &template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, issuer, key.Public(), signer)
	if err != nil {
		tb.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return &Pair{
		Leaf: leaf, Key: key,
		CertificateFile: a.write(tb, name+"-*.pem", &pem.Block{Type: "CERTIFICATE", Bytes: der}),
		KeyFile:         a.write(tb, name+"-*.key", &pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}
}

func (a *Authority) write(tb testing.TB, pattern string, block *pem.Block) string {
	tb.Helper()
	file, err := os.CreateTemp(a.dir, pattern)
	if err != nil {
		tb.Fatal(err)
	}
	if err := pem.Encode(file, block); err != nil {
		tb.Fatal(err)
	}
	if err := file.Close(); err != nil {
		tb.Fatal(err)
	}
	return file.Name()
}

// Pool holds the authority.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.issuer)
	return pool
}

// ClientTLS is the configuration of a client that trusts the authority, and presents
// pair unless it is nil.
func (a *Authority) ClientTLS(pair *Pair) *tls.Config {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: a.Pool()}
	if pair != nil {
		cfg.Certificates = []tls.Certificate{pair.TLS()}
	}
	return cfg
}

// TLS is the pair as crypto/tls presents it.
func (p *Pair) TLS() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{p.Leaf.Raw}, PrivateKey: p.Key, Leaf: p.Leaf}
}

// CopyTo writes the pair to other files in place, for tests of reloading.
func (p *Pair) CopyTo(tb testing.TB, certificateFile, keyFile string) {
	tb.Helper()
	for from, to := range map[string]string{p.CertificateFile: certificateFile, p.KeyFile: keyFile} {
		content, err := os.ReadFile(filepath.Clean(from))
		if err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(to, content, 0o600); err != nil { //nolint:gosec // a test names it
			tb.Fatal(err)
		}
	}
}
