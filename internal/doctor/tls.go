package doctor

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

// The checks of server.tls.
const (
	checkServerCertificate = "server certificate"
	checkServerKey         = "server key"
	checkServerChain       = "server chain"
	checkClientAuthorities = "client authorities"
)

// maxFileBytes bounds a file, as serve does.
const maxFileBytes = 4 << 20

// checkTLS checks the files of server.tls as serve uses them, and as callers see them.
func (p patient) checkTLS(context.Context) []Finding {
	cfg := p.cfg.Server.TLS
	if !cfg.Enabled() {
		return nil
	}
	now := time.Now()
	findings := checkKeyPair(cfg, p.options.Roots, now)
	if cfg.ClientCAFile != "" {
		findings = append(findings, checkAuthorities(cfg, now))
	}
	return findings
}

// checkKeyPair checks the certificate with its key and chain.
func checkKeyPair(cfg config.TLS, roots *x509.CertPool, now time.Time) []Finding {
	chain, text, err := readCertificates(cfg.CertificateFile)
	if err != nil {
		return []Finding{failure(checkServerCertificate, "correct server.tls.certificate_file: PEM, the certificate of this service first", "%s %v", named(cfg.CertificateFile), err)}
	}
	findings := []Finding{checkLeaf(chain[0], now)}
	key, err := readFile(cfg.KeyFile)
	if err == nil {
		_, err = tls.X509KeyPair(text, key)
	}
	switch info, statErr := os.Stat(cfg.KeyFile); {
	case err != nil:
		findings = append(findings, failure(checkServerKey, "correct server.tls.key_file: PEM, not encrypted, of the first certificate in certificate_file", "%s: %v", named(cfg.KeyFile), err))
	case statErr == nil && info.Mode().Perm()&0o007 != 0:
		findings = append(findings, warning(checkServerKey, "chmod o-rwx "+cfg.KeyFile, "belongs to the certificate, but its mode %v lets every user of this machine at it", info.Mode().Perm()))
	default:
		findings = append(findings, ok(checkServerKey, "belongs to the certificate"))
	}
	return append(findings, checkChain(chain, roots, now))
}

// checkLeaf checks what callers require of a server's certificate.
func checkLeaf(leaf *x509.Certificate, now time.Time) Finding {
	const check = checkServerCertificate
	names := sans(leaf)
	left := leaf.NotAfter.Sub(now)
	switch {
	case now.Before(leaf.NotBefore):
		return failure(check, "check the clock of this machine, or replace the certificate", "not valid before %s: every caller refuses it", leaf.NotBefore.UTC().Format(time.DateTime))
	case left <= 0:
		return failure(check, "renew it; files that are replaced are read within 10 s, without a restart", "expired at %s: every caller refuses it", leaf.NotAfter.UTC().Format(time.DateTime))
	case names == "":
		return failure(check, "get a certificate with the names that callers connect by as subject alternative names", "it has no subject alternative name: every caller refuses it")
	case len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0 && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny):
		return failure(check, "get a certificate with the extended key usage serverAuth", "it is not for servers: every caller refuses it")
	case left < certificateWarning:
		return warning(check, "renew it; files that are replaced are read within 10 s, without a restart", "for %s, valid until %s, %d days left",
			names, leaf.NotAfter.UTC().Format(time.DateOnly), int(left/(24*time.Hour)))
	}
	return ok(check, "for %s, valid until %s, %d days left", names, leaf.NotAfter.UTC().Format(time.DateOnly), int(left/(24*time.Hour)))
}

// sans lists the subject alternative names of a certificate.
func sans(cert *x509.Certificate) string {
	names := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	for _, uri := range cert.URIs {
		names = append(names, uri.String())
	}
	if len(names) > 10 {
		names = append(names[:10], "…")
	}
	return fmt.Sprintf("%.500s", strings.Join(names, ", "))
}

// checkChain checks that callers can verify the certificate.
func checkChain(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) Finding {
	const check = checkServerChain
	leaf, last := chain[0], chain[len(chain)-1]
	intermediates := x509.NewCertPool()
	for i, cert := range chain[1:] {
		intermediates.AddCert(cert)
		if chain[i].CheckSignatureFrom(cert) != nil {
			return warning(check, "write the certificates into server.tls.certificate_file in the order leaf, its issuer, the issuer of that",
				"certificate %d of the file did not issue the one before it", i+2)
		}
		if now.After(cert.NotAfter) {
			return failure(check, "replace server.tls.certificate_file by the whole chain of today", "certificate %d of the file expired at %s", i+2, cert.NotAfter.UTC().Format(time.DateTime))
		}
	}
	// Whether the leaf itself is valid now is the finding before this one.
	at := now
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		at = leaf.NotAfter.Add(-time.Second)
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	switch {
	case err == nil:
		return ok(check, "leads to an authority of this system")
	case bytes.Equal(leaf.RawIssuer, leaf.RawSubject):
		return warning(check, "for more than a trial, get a certificate of an authority", "it signed itself: only callers that are given it can verify it, by --ca-file for instance")
	case len(leaf.IssuingCertificateURL) > 0 && len(chain) == 1:
		return warning(check, "append the certificate of the issuer to server.tls.certificate_file, which many authorities offer as the full chain",
			"the file has the certificate alone, and its issuer %.200q is no authority of this system: callers cannot verify it", leaf.Issuer.String())
	default:
		return ok(check, "leads to %.200q, which is no authority of this system: callers have to be given that one, by --ca-file for instance", last.Issuer.String())
	}
}

// checkAuthorities checks what client certificates are verified against.
func checkAuthorities(cfg config.TLS, now time.Time) Finding {
	const check = checkClientAuthorities
	const key = "server.tls.client_ca_file"
	authorities, _, err := readCertificates(cfg.ClientCAFile)
	if err != nil {
		return failure(check, "correct "+key+": PEM, one authority or more", "%s %v", named(cfg.ClientCAFile), err)
	}
	var names []string
	for _, authority := range authorities {
		name := fmt.Sprintf("%.200q", authority.Subject.String())
		switch left := authority.NotAfter.Sub(now); {
		case left <= 0:
			return failure(check, "replace it in "+key, "%s expired at %s: certificates that it issued are refused", name, authority.NotAfter.UTC().Format(time.DateTime))
		case authority.BasicConstraintsValid && !authority.IsCA:
			return warning(check, "put the authority that issued it into "+key, "%s is no authority, so that only itself is accepted", name)
		case left < certificateWarning:
			return warning(check, "add its successor to "+key, "%s is valid for %d more days", name, int(left/(24*time.Hour)))
		}
		names = append(names, name)
	}
	return ok(check, "client certificates are %s, of %s", cfg.ClientCertificates, strings.Join(names, ", "))
}

// readCertificates returns the certificates in a PEM file, and its contents.
func readCertificates(path string) (certs []*x509.Certificate, text []byte, err error) {
	text, err = readFile(path)
	if err != nil {
		return nil, nil, err
	}
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, nil, fmt.Errorf("holds a certificate that cannot be read: %w", err)
		}
		certs = append(certs, cert)
	}
	switch begun := bytes.Count(text, []byte("-----BEGIN CERTIFICATE-----")); {
	case begun == 0:
		return nil, nil, errors.New("holds no certificate in PEM")
	case begun != len(certs):
		return nil, nil, fmt.Errorf("holds only %d whole certificates of %d", len(certs), begun)
	}
	return certs, text, nil
}

// readFile reads a file. The error has no path.
func readFile(path string) ([]byte, error) {
	file, err := os.Open(path) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", withoutPath(err))
	}
	defer func() { _ = file.Close() }() // only read from
	text, err := io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot be read: %w", withoutPath(err))
	case len(text) > maxFileBytes:
		return nil, fmt.Errorf("is larger than %d bytes", maxFileBytes)
	}
	return text, nil
}

// named returns path, unless a secret may stand in its place: a private key in PEM, or a
// token, which is long and has no separator.
func named(path string) string {
	const tokenBytes = 32 // at least
	if strings.Contains(path, "-----BEGIN") || len(path) >= tokenBytes && filepath.Base(path) == path {
		return "what should be the name of a file"
	}
	return path
}

func withoutPath(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}
