package tokenstore_test

import (
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/tokenstore"
	"github.com/eligibilityd/eligibilityd/internal/tokenstore/vaulttest"
)

// openssl runs a command in a folder.
func openssl(t *testing.T, dir string, args ...string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), "openssl", args...) //nolint:gosec // our own arguments
	command.Dir = dir
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// A vault holds a certificate in either form; what it cannot export is rejected,
// and never repeated.
func TestKeyPairs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	openssl(t, dir, "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "1", "-subj", "/CN=ours", "-keyout", "key.pem", "-out", "cert.pem")
	openssl(t, dir, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "1", "-subj", "/CN=ca", "-keyout", "ec.pem", "-out", "ca.pem")
	exported := []string{"pkcs12", "-export", "-inkey", "key.pem", "-in", "cert.pem", "-certfile", "ca.pem", "-passout", "pass:"}
	openssl(t, dir, append(exported, "-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "sha1", "-out", "vault.p12")...)
	openssl(t, dir, append(exported, "-out", "modern.p12")...)
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	encoded := func(name string) string { return base64.StdEncoding.EncodeToString([]byte(read(name))) }
	for name, stored := range map[string]tokenstore.Secret{
		"PEM":                  {Value: read("key.pem") + read("cert.pem"), ContentType: "application/x-pem-file"},
		"PEM without a type":   {Value: read("ca.pem") + read("cert.pem") + read("key.pem")},
		"PKCS 12":              {Value: encoded("vault.p12"), ContentType: "application/x-pkcs12"},
		"PKCS 12 with no type": {Value: encoded("vault.p12") + "\n"},
	} {
		pair, err := tokenstore.KeyPair(stored)
		if err != nil || pair.Leaf.Subject.CommonName != "ours" || len(pair.Certificate) != 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, stored := range map[string]tokenstore.Secret{
		"nothing":         {},
		"text":            {Value: "canary-text"},
		"half a PKCS 12":  {Value: encoded("vault.p12")[:400], ContentType: "application/x-pkcs12"},
		"a modern one":    {Value: encoded("modern.p12"), ContentType: "application/x-pkcs12"},
		"no key":          {Value: read("cert.pem")},
		"another's key":   {Value: read("ec.pem") + read("cert.pem")},
		"no certificate":  {Value: read("key.pem")},
		"another's chain": {Value: read("key.pem") + read("ca.pem")},
	} {
		pair, err := tokenstore.KeyPair(stored)
		if err == nil || pair != nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzKeyPair(f *testing.F) {
	f.Add("MIIB", "application/x-pkcs12")
	f.Add("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "")
	f.Fuzz(func(t *testing.T, value, contentType string) {
		pair, err := tokenstore.KeyPair(tokenstore.Secret{Value: value, ContentType: contentType})
		if (err == nil) == (pair == nil) {
			t.Errorf("%v, %v", pair, err)
		}
	})
}

// What somebody else put into a vault is read as it is.
func TestVaultReadsSecretsOfOthers(t *testing.T) {
	t.Parallel()
	transport := newTransport(t)
	server := vaulttest.Start(t, time.Now)
	vault, err := tokenstore.NewVault(tokenstore.VaultSecret{URL: server.URL, Name: vaulttest.Secret}, vaulttest.Credential{}, transport)
	if err != nil {
		t.Fatal(err)
	}
	refuses := func(why string) {
		t.Helper()
		if _, err := vault.Read(t.Context()); !isSecretError(err) || strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "refresh") {
			t.Errorf("%s: %v", why, err)
		}
	}
	refuses("none")
	server.Put(" two lines\n")
	server.SetContentType("application/x-pem-file")
	if got, err := vault.Read(t.Context()); err != nil || got != (tokenstore.Secret{Value: " two lines\n", ContentType: "application/x-pem-file"}) {
		t.Errorf("%+v, %v", got, err)
	}
	server.Break("GET", 403)
	refuses("forbidden")
	server.Break("GET", 500)
	if _, err := vault.Read(t.Context()); err == nil || isSecretError(err) {
		t.Errorf("away: %v", err)
	}
}
