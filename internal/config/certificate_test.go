package config_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

const certificateFile = "ELIGIBILITY_PARTNER_CENTER__CLIENT_CERTIFICATE_FILE"

// ourKey and anotherKey are generated once because generation is slow.
var (
	ourKey     = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })
	anotherKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })
)

func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// certPEM is a certificate for key, valid from now+begin to now+end.
func certPEM(t *testing.T, key crypto.Signer, begin, end time.Duration) string {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(begin), NotAfter: time.Now().Add(end)}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	return block("CERTIFICATE", der)
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func keyPEM(t *testing.T, key crypto.Signer) string {
	t.Helper()
	return block("PRIVATE KEY", must[[]byte](t)(x509.MarshalPKCS8PrivateKey(key)))
}

// goodPEM is a certificate and its key that serve accepts.
func goodPEM(t *testing.T) string {
	t.Helper()
	key := must[*rsa.PrivateKey](t)(ourKey())
	return certPEM(t, key, -time.Hour, time.Hour) + keyPEM(t, key)
}

func TestACertificateMayReplaceTheSecret(t *testing.T) {
	t.Parallel()
	const (
		unreadable = "does not hold, in PEM, a certificate first and the key that belongs to it, not encrypted; " +
			"write both into the one file, and remove a passphrase with `openssl pkey`"
		weak = "must hold an RSA key of at least 2048 bits; make a new certificate with one"
	)
	key, other := must[*rsa.PrivateKey](t)(ourKey()), must[*rsa.PrivateKey](t)(anotherKey())
	small := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 1024)) //nolint:gosec // too short on purpose
	elliptical := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	cert := certPEM(t, key, -time.Hour, time.Hour)
	for name, c := range map[string]struct{ text, problem string }{
		"PKCS #8":           {cert + keyPEM(t, key), ""},
		"PKCS #1":           {cert + block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)), ""},
		"the key first":     {keyPEM(t, key) + cert, ""},
		"a chain":           {cert + certPEM(t, other, -time.Hour, time.Hour) + keyPEM(t, key), ""},
		"no key":            {cert, unreadable},
		"no certificate":    {keyPEM(t, key), unreadable},
		"no PEM":            {canary, unreadable},
		"something else":    {block(canary, []byte(canary)), unreadable},
		"no X.509":          {block("CERTIFICATE", []byte(canary)) + keyPEM(t, key), unreadable},
		"another's key":     {cert + keyPEM(t, other), unreadable},
		"an encrypted key":  {cert + block("ENCRYPTED PRIVATE KEY", []byte(canary)), unreadable},
		"a short key":       {certPEM(t, small, -time.Hour, time.Hour) + keyPEM(t, small), weak},
		"an elliptical key": {certPEM(t, elliptical, -time.Hour, time.Hour) + keyPEM(t, elliptical), weak},
		"expired":           {certPEM(t, key, -2*time.Hour, -time.Hour) + keyPEM(t, key), "holds a certificate that expired at "},
		"not yet valid":     {certPEM(t, key, time.Hour, 2*time.Hour) + keyPEM(t, key), "holds a certificate that is not valid before "},
	} {
		path := write(t, "client.pem", c.text)
		cfg, err := config.Load("", []string{certificateFile + "=" + path}, config.Dev)
		switch {
		case c.problem == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.problem == "" && (cfg.Partners[0].KeyPair() == nil || !key.Equal(cfg.Partners[0].KeyPair().PrivateKey)):
			t.Errorf("%s: the key is lost", name)
		case c.problem != "" && (err == nil || !strings.HasPrefix(err.Error(), certificateFile+": partner_center.client_certificate_file: "+c.problem)):
			t.Errorf("%s: error %v, want %s", name, err, c.problem)
		case c.problem != "":
			hidden(t, name, err.Error())
			if strings.HasPrefix(c.problem, "holds") && !strings.Contains(err.Error(), "; add another to the app registration") {
				t.Errorf("%s: no remedy in %v", name, err)
			}
		}
	}
	if config.Default().Partners[0].KeyPair() != nil {
		t.Error("a certificate out of nothing")
	}
}

func TestServeNeedsOneCredential(t *testing.T) {
	t.Parallel()
	const variable = "ELIGIBILITY_PARTNER_CENTER__"
	path, secret := write(t, "client.pem", goodPEM(t)), write(t, "secret", "s3cret")
	environ := []string{variable + "FLOW=app_only", certificateFile + "=" + path}
	for _, c := range []struct {
		more []string
		want []string
	}{
		{[]string{variable + "CLIENT_SECRET="}, nil},
		{nil, []string{certificateFile + ": partner_center.client_certificate_file: conflicts with partner_center.client_secret: give one of the two and empty the other"}},
		{
			[]string{variable + "CLIENT_SECRET=", variable + "CLIENT_SECRET_FILE=" + secret},
			[]string{certificateFile + ": partner_center.client_certificate_file: conflicts with partner_center.client_secret_file: give one of the two and empty the other"},
		},
	} {
		all := append(append([]string{}, environ...), c.more...)
		if c.want == nil {
			if _, err := config.Load(write(t, "config.yaml", connection), all, config.Serve); err != nil {
				t.Error(err)
			}
			continue
		}
		if diff := cmp.Diff(c.want, faults(t, connection, all, config.Serve)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	_, err := config.Load("", []string{certificateFile + "=" + path + "x"}, config.Dev)
	if err == nil || err.Error() != certificateFile+": partner_center.client_certificate_file: cannot be read: no such file or directory" {
		t.Errorf("error %v", err)
	}
}
