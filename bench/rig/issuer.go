package rig

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// The files of the servers with TLS, and what their callers present.
const (
	certificateFile = "server.pem"
	keyFile         = "server-key.pem"
	audience        = "api://eligibilityd"
	callerName      = "bench"
	keyID           = "bench"
)

// backend is an HTTP server in the driver's process that services ask while they
// are warmed.
type backend struct {
	address string
	server  *http.Server
}

func (b *backend) close() { _ = b.server.Close() }

// serveBackend serves handler on loopback, until close.
func serveBackend(ctx context.Context, handler http.Handler) (*backend, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &backend{listener.Addr().String(), &http.Server{Handler: handler, ReadHeaderTimeout: time.Second}}
	go func() { _ = b.server.Serve(listener) }() // until close
	return b, nil
}

func (r *Rig) issuerURL() string { return "http://" + r.issuer.address }

// startIssuer makes the certificate of the servers with TLS, and the token.
func (r *Rig) startIssuer(ctx context.Context) error {
	if !slices.ContainsFunc(r.cfg.Servers, Name.TLS) {
		return nil
	}
	var err error
	if r.Access.Authorities, err = r.makeCertificate(); err != nil {
		return err
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	documents := map[string]string{
		"/keys": fmt.Sprintf(`{"keys":[{"kty":"RSA","use":"sig","alg":"RS256","kid":%q,"n":%q,"e":%q}]}`, keyID,
			base64.RawURLEncoding.EncodeToString(key.N.Bytes()), base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes())),
	}
	r.issuer, err = serveBackend(ctx, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, documents[req.URL.Path]) // if the service has left, it asks again
	}))
	if err != nil {
		return err
	}
	issuer := r.issuerURL()
	documents["/.well-known/openid-configuration"] = fmt.Sprintf(`{"issuer":%q,"jwks_uri":"%s/keys"}`, issuer, issuer) // nobody asks before startServices
	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss": issuer, "aud": audience, "azp": callerName, "roles": []string{"check", "batch"},
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(12 * time.Hour).Unix(),
	})
	token.Header["kid"] = keyID
	r.Access.Token, err = token.SignedString(key)
	return err
}

// makeCertificate writes a certificate for localhost and its key, and returns the
// authorities that it is verified by: itself.
func (r *Rig) makeCertificate() (*x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "eligibilityd bench"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"localhost"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	encodedKey, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if _, err := r.write(certificateFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})); err != nil {
		return nil, err
	}
	if _, err := r.write(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encodedKey})); err != nil {
		return nil, err
	}
	authorities := x509.NewCertPool()
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	authorities.AddCert(certificate)
	return authorities, nil
}
