package doctor

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

const day = 24 * time.Hour

// lasting is a template of a server's certificate.
func lasting(d time.Duration) x509.Certificate {
	return x509.Certificate{
		DNSNames: []string{"gate.example"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotBefore: time.Now().Add(-100 * day), NotAfter: time.Now().Add(d),
	}
}

// joined writes the contents of files into one.
func joined(t *testing.T, files ...string) string {
	t.Helper()
	var all []byte
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, text...)
	}
	return written(t, all)
}

func written(t *testing.T, text []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(path, text, 0o600); err != nil { //nolint:gosec // a temporary file
		t.Fatal(err)
	}
	return path
}

// tlsFindings examines a service with these files.
func tlsFindings(t *testing.T, roots *x509.CertPool, certificate, key string, more ...string) examined {
	t.Helper()
	_, partnerCenter := pcsimtest.Start(t)
	return consult(t, pcsimtest.Environ(partnerCenter.URL, pcsimtest.TokenFile(t), append(more,
		"ELIGIBILITY_SERVER__TLS__CERTIFICATE_FILE="+certificate, "ELIGIBILITY_SERVER__TLS__KEY_FILE="+key)...), Options{Roots: roots})
}

func TestDoctorChecksTheServersCertificate(t *testing.T) {
	t.Parallel()
	ca, other := accesstest.NewAuthority(t), accesstest.NewAuthority(t)
	good := ca.Issue(t, "server", lasting(90*day))
	issue := func(change func(*x509.Certificate)) *accesstest.Pair {
		template := lasting(90 * day)
		change(&template)
		return ca.Issue(t, "server", template)
	}
	half, err := os.ReadFile(good.CertificateFile)
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		certificate, key, check string
		verdict                 Verdict
		words                   []string
	}{
		"good":            {good.CertificateFile, good.KeyFile, checkServerCertificate, VerdictOK, []string{"gate.example", "89 days left"}},
		"its key":         {good.CertificateFile, good.KeyFile, checkServerKey, VerdictOK, nil},
		"no file":         {"/nowhere/tls.crt", good.KeyFile, checkServerCertificate, VerdictFailure, []string{"/nowhere/tls.crt", "no such file", "server.tls.certificate_file"}},
		"no certificate":  {good.KeyFile, good.KeyFile, checkServerCertificate, VerdictFailure, []string{"no certificate in PEM"}},
		"half of it":      {written(t, append(half, half[:len(half)/2]...)), good.KeyFile, checkServerCertificate, VerdictFailure, []string{"1 whole certificates of 2"}},
		"endless":         {"/dev/zero", good.KeyFile, checkServerCertificate, VerdictFailure, []string{"larger"}},
		"key of another":  {good.CertificateFile, other.Issue(t, "server", lasting(day)).KeyFile, checkServerKey, VerdictFailure, []string{"private key does not match"}},
		"no key":          {good.CertificateFile, "/nowhere/tls.key", checkServerKey, VerdictFailure, []string{"no such file"}},
		"soon":            {ca.Issue(t, "server", lasting(14*day-time.Hour)).CertificateFile, good.KeyFile, checkServerCertificate, VerdictWarning, []string{"13 days left", "renew"}},
		"not soon":        {ca.Issue(t, "server", lasting(14*day+time.Hour)).CertificateFile, good.KeyFile, checkServerCertificate, VerdictOK, nil},
		"expired":         {ca.Issue(t, "server", lasting(-time.Hour)).CertificateFile, good.KeyFile, checkServerCertificate, VerdictFailure, []string{"expired", "renew"}},
		"from tomorrow":   {issue(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(day) }).CertificateFile, good.KeyFile, checkServerCertificate, VerdictFailure, []string{"clock"}},
		"without a name":  {issue(func(c *x509.Certificate) { c.DNSNames = nil }).CertificateFile, good.KeyFile, checkServerCertificate, VerdictFailure, []string{"subject alternative name"}},
		"for clients":     {issue(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }).CertificateFile, good.KeyFile, checkServerCertificate, VerdictFailure, []string{"serverAuth"}},
		"private issuer":  {good.CertificateFile, good.KeyFile, checkServerChain, VerdictOK, []string{"CN=ca", "--ca-file"}},
		"wrong order":     {joined(t, good.CertificateFile, other.File), good.KeyFile, checkServerChain, VerdictWarning, []string{"order"}},
		"no intermediate": {issue(func(c *x509.Certificate) { c.IssuingCertificateURL = []string{"http://ca.example"} }).CertificateFile, good.KeyFile, checkServerChain, VerdictWarning, []string{"append"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tlsFindings(t, nil, row.certificate, row.key).want(row.check, row.verdict, row.words...)
		})
	}
	tlsFindings(t, ca.Pool(), good.CertificateFile, good.KeyFile).want(checkServerChain, VerdictOK, "authority of this system")
	open := ca.Issue(t, "server", lasting(90*day))
	if err := os.Chmod(open.KeyFile, 0o644); err != nil { //nolint:gosec // the mistake under test
		t.Fatal(err)
	}
	tlsFindings(t, nil, open.CertificateFile, open.KeyFile).want(checkServerKey, VerdictWarning, "chmod o-rwx "+open.KeyFile)

	self := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(self.Close)
	key, err := x509.MarshalPKCS8PrivateKey(self.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: self.Certificate().Raw})
	tlsFindings(t, nil, written(t, certificate), written(t, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))).
		want(checkServerChain, VerdictWarning, "signed itself")
}

// A key in place of its file's name is an easy mistake.
func TestDoctorPrintsNoKey(t *testing.T) {
	t.Parallel()
	pair := accesstest.NewAuthority(t).Issue(t, "server", lasting(90*day))
	key, err := os.ReadFile(pair.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range []examined{
		tlsFindings(t, nil, string(key), pair.KeyFile),
		tlsFindings(t, nil, pair.CertificateFile, string(key), "ELIGIBILITY_SERVER__TLS__CLIENT_CA_FILE="+string(key)),
	} {
		if strings.Contains(found.Text, "PRIVATE KEY") {
			t.Error(found.Text)
		}
	}
}

func TestDoctorChecksTheClientAuthorities(t *testing.T) {
	t.Parallel()
	ca := accesstest.NewAuthority(t)
	server := ca.Server(t, "gate.example")
	for file, want := range map[string]struct {
		verdict Verdict
		word    string
	}{
		ca.Issue(t, "fine", x509.Certificate{IsCA: true, BasicConstraintsValid: true, NotBefore: time.Now(), NotAfter: time.Now().Add(90 * day)}).CertificateFile:           {VerdictOK, "optional"},
		ca.Issue(t, "soon", x509.Certificate{IsCA: true, BasicConstraintsValid: true, NotBefore: time.Now(), NotAfter: time.Now().Add(2 * day)}).CertificateFile:            {VerdictWarning, "successor"},
		ca.Issue(t, "past", x509.Certificate{IsCA: true, BasicConstraintsValid: true, NotBefore: time.Now().Add(-2 * day), NotAfter: time.Now().Add(-day)}).CertificateFile: {VerdictFailure, "expired"},
		ca.Issue(t, "leaf", x509.Certificate{BasicConstraintsValid: true, NotBefore: time.Now(), NotAfter: time.Now().Add(90 * day)}).CertificateFile:                       {VerdictWarning, "no authority"},
		server.KeyFile: {VerdictFailure, "no certificate"},
	} {
		e := tlsFindings(t, nil, server.CertificateFile, server.KeyFile, "ELIGIBILITY_SERVER__TLS__CLIENT_CA_FILE="+file)
		e.want(checkClientAuthorities, want.verdict, want.word)
	}
}

// A service that runs is compared with its configuration.
func TestDoctorComparesWhatTheRunningServicePresents(t *testing.T) {
	t.Parallel()
	ca := accesstest.NewAuthority(t)
	now, old := ca.Issue(t, "server", lasting(90*day)), ca.Issue(t, "server", lasting(3*day))
	for name, row := range map[string]struct {
		presents *accesstest.Pair
		words    []string
	}{
		"the same": {now, []string{"is the service running?"}},
		"older":    {old, []string{"another certificate", old.Leaf.NotAfter.UTC().Format(time.DateTime), "eligibility_tls_reload_failures_total"}},
		"none":     {nil, []string{"speaks no TLS", "restart"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			running := httptest.NewUnstartedServer(http.NotFoundHandler())
			running.EnableHTTP2 = true
			if row.presents != nil {
				running.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{row.presents.TLS()}}
				running.StartTLS()
			} else {
				running.Start()
			}
			t.Cleanup(running.Close)
			e := tlsFindings(t, nil, now.CertificateFile, now.KeyFile, "ELIGIBILITY_SERVER__GRPC__ADDRESS="+running.Listener.Addr().String())
			e.want("listener grpc", VerdictWarning, row.words...)
		})
	}
}

func TestDoctorComparesTheLimitOfOpenFiles(t *testing.T) {
	t.Parallel()
	if f := checkDescriptors(256, 20_100); f.Status != VerdictWarning || !strings.Contains(f.Detail+f.Remedy, "256") || !strings.Contains(f.Remedy, "20100") {
		t.Errorf("%+v", f)
	}
	if f := checkDescriptors(20_100, 20_100); f.Status != VerdictOK {
		t.Errorf("%+v", f)
	}
}

// What protects listeners that other machines can reach, and whether
// server.insecure is needed.
func TestDoctorReportsWhatProtectsTheListeners(t *testing.T) {
	t.Parallel()
	ca := accesstest.NewAuthority(t)
	server := ca.Server(t)
	tokens := written(t, []byte("[]\n"))
	secure := []string{"ELIGIBILITY_AUTH__TOKENS_FILE=" + tokens, "ELIGIBILITY_SERVER__HTTP__ADDRESS=0.0.0.0:0", "ELIGIBILITY_SERVER__PROBE__ADDRESS=0.0.0.0:0"}
	e := tlsFindings(t, nil, server.CertificateFile, server.KeyFile, secure...)
	e.want("listener http", VerdictOK, "over TLS and with credentials")
	e.want("listener probe", VerdictOK)
	if e.Has(checkInsecure) {
		t.Errorf("%s", e.Text)
	}
	tlsFindings(t, nil, server.CertificateFile, server.KeyFile, append(secure, "ELIGIBILITY_SERVER__INSECURE=true")...).
		want(checkInsecure, VerdictWarning, "remove server.insecure")
	e = tlsFindings(t, nil, server.CertificateFile, server.KeyFile, "ELIGIBILITY_SERVER__HTTP__ADDRESS=0.0.0.0:0", "ELIGIBILITY_SERVER__INSECURE=true")
	e.want("listener http", VerdictWarning, "without authentication (server.insecure)")
	if e.Has(checkInsecure) {
		t.Errorf("%s", e.Text)
	}
}
