package main

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"

	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

// clientCertificate returns a file with a new certificate, valid for that long,
// and its key.
func clientCertificate(t *testing.T, lasts time.Duration) (file string, cert *x509.Certificate) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(lasts)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	for _, block := range []pem.Block{{Type: "CERTIFICATE", Bytes: der}, {Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}} {
		if err := pem.Encode(&text, &block); err != nil {
			t.Fatal(err)
		}
	}
	file = filepath.Join(t.TempDir(), "client.pem")
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, cert
}

// withCertificate returns the variables that replace the secret.
func withCertificate(file string) []string {
	return []string{"ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET=", "ELIGIBILITY_PARTNER_CENTER__CLIENT_CERTIFICATE_FILE=" + file}
}

// T-07.
func TestServeWithACertificate(t *testing.T) {
	t.Parallel()
	sim, partnerCenter := pcsimtest.Start(t)
	file, cert := clientCertificate(t, time.Hour)
	if err := sim.RegisterCertificate(cert); err != nil {
		t.Fatal(err)
	}
	p := startServe(t, partnerCenter.URL, withCertificate(file)...)
	answer, err := p.ask(t, &eligibilityv1.CheckEligibilityRequest{CustomerId: allowedID, Segment: eligibilityv1.Segment_SEGMENT_COMMERCIAL})
	if err != nil || answer.GetDecision() != eligibilityv1.Decision_DECISION_ALLOWED {
		t.Errorf("%v, %v", answer, err)
	}
}

// The audience depends on the cloud, even if the hosts are overridden.
func TestServeInAnotherCloud(t *testing.T) {
	t.Parallel()
	for _, cloud := range []string{"us_government", "china"} {
		_, partnerCenter := pcsimtest.Start(t)
		p := startServe(t, partnerCenter.URL, "ELIGIBILITY_PARTNER_CENTER__CLOUD="+cloud)
		answer, err := p.ask(t, &eligibilityv1.CheckEligibilityRequest{CustomerId: allowedID, Segment: eligibilityv1.Segment_SEGMENT_COMMERCIAL})
		if err != nil || answer.GetDecision() != eligibilityv1.Decision_DECISION_ALLOWED {
			t.Errorf("%s: %v, %v", cloud, answer, err)
		}
	}
}
