package doctor

import (
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

func TestWebhooks(t *testing.T) {
	t.Parallel()
	var requests atomic.Int64
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) })
	plain, secure, closed := httptest.NewServer(handler), httptest.NewTLSServer(handler), httptest.NewServer(handler)
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	closed.Close()
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	secret := filepath.Join(t.TempDir(), "secret")
	const line = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"
	if err := os.WriteFile(secret, []byte(line+line), 0o600); err != nil {
		t.Fatal(err)
	}
	_, partnerCenter := pcsimtest.Start(t)
	var hooks []string
	for name, url := range map[string]string{
		"plain": plain.URL, "secure": secure.URL, "closed": closed.URL, "private": "https://10.0.0.1", "metadata": "https://169.254.169.254",
		"unknown": "https://name.invalid", "old": strings.Replace(plain.URL, "http", "https", 1),
	} {
		hooks = append(hooks, "{name: "+name+", url: '"+url+"', secret_file: "+secret+"}")
	}
	environ := pcsimtest.Environ(partnerCenter.URL, pcsimtest.TokenFile(t), "ELIGIBILITY_WEBHOOKS=["+strings.Join(hooks, ", ")+"]")
	r := consult(t, environ, Options{Roots: roots})
	r.want("webhook plain", VerdictOK, "accepts connections, in plain HTTP on loopback", "an earlier one")
	r.want("webhook secure", VerdictOK, "TLS 1.3", "an earlier one")
	r.want("webhook closed", VerdictFailure, "refuses connections")
	r.want("webhook private", VerdictFailure, "has an address that is not permitted")
	r.want("webhook metadata", VerdictFailure, "has an address that is not permitted")
	r.want("webhook unknown", VerdictFailure, "DNS: ")
	r.want("webhook old", VerdictFailure, "no connection to")
	if strings.Contains(r.Text, "MfKQ9r8G") {
		t.Errorf("a secret is in the report: %s", r.Text)
	}
	r = consult(t, environ, Options{Roots: x509.NewCertPool()})
	r.want("webhook secure", VerdictFailure, "tls: certificate of an unknown authority")
	if n := requests.Load(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}
