package server

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/reload"
)

// TLS configures the encryption of gRPC and REST.
type TLS struct {
	// CertificateFile holds the chain in PEM, the leaf first, and KeyFile its key.
	// Without CertificateFile, gRPC and REST are plain text.
	CertificateFile, KeyFile string
	// ClientCAFile holds the authorities in PEM that client certificates are verified
	// against. If it is empty, clients are not asked for a certificate.
	ClientCAFile string
	// RequireClientCertificate refuses clients without a certificate.
	RequireClientCertificate bool
}

// certificates are the files of a TLS, kept current. Certificate, key and
// authorities are replaced together or not at all.
type certificates = reload.Value[secured]

// secured is how new connections are secured. A session can only be resumed with
// the configuration that it began with, so that a client whose authority was
// removed has to prove itself again.
type secured struct {
	grpc, rest *tls.Config
	expires    time.Time
}

// openCertificates returns nil if gRPC and REST are plain text.
func (s *Server) openCertificates() (*certificates, error) {
	cfg := s.cfg.TLS
	if cfg.CertificateFile == "" {
		return nil, nil //nolint:nilnil // no TLS is not a failure
	}
	failures := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "eligibility_tls_reload_failures_total",
		Help: "Failed reloads of certificate, key and client authorities; those loaded before stay in use.",
	})
	files := []string{cfg.CertificateFile, cfg.KeyFile}
	if cfg.ClientCAFile != "" {
		files = append(files, cfg.ClientCAFile)
	}
	loaded, err := reload.Open(reload.Config[secured]{
		Name:   "server.tls",
		Files:  files,
		Parse:  s.parseCertificates,
		Logger: s.logger,
		Failed: failures.Inc,
	})
	if err != nil {
		return nil, err
	}
	return loaded, errors.Join(
		s.cfg.Registerer.Register(failures),
		s.cfg.Registerer.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "eligibility_tls_certificate_expires_in_seconds",
			Help: "Seconds until the certificate of gRPC and REST that is in use expires; negative once it has expired.",
		}, func() float64 { return time.Until(loaded.Get().expires).Seconds() })))
}

// parseCertificates is TLS.parse, and warns of files that load and need attention.
func (s *Server) parseCertificates(contents [][]byte) (secured, error) {
	cfg := s.cfg.TLS
	parsed, err := cfg.parse(contents)
	if err != nil {
		return secured{}, err
	}
	if info, err := os.Stat(cfg.KeyFile); err == nil && info.Mode().Perm()&0o007 != 0 {
		s.logger.Warn("server.tls.key_file can be accessed by others than its owner and group; change its mode to 0640 or 0600",
			zap.String("file", cfg.KeyFile), zap.Stringer("mode", info.Mode().Perm()))
	}
	if time.Until(parsed.expires) <= 0 {
		s.logger.Warn("the certificate in server.tls.certificate_file has expired; clients will refuse it", zap.Time("expired", parsed.expires))
	}
	return parsed, nil
}

// parse converts the contents of the files. Errors name a file and quote nothing
// of it.
func (t TLS) parse(contents [][]byte) (secured, error) {
	if _, err := parsePEM(contents[0]); err != nil {
		return secured{}, fmt.Errorf("certificate_file %s: %w; it must be PEM, the certificate of the server first", t.CertificateFile, err)
	}
	pair, err := tls.X509KeyPair(contents[0], contents[1])
	if err != nil {
		return secured{}, fmt.Errorf("certificate_file %s and key_file %s: %w; "+
			"both must be PEM, the certificate of the server first, and the key must belong to it", t.CertificateFile, t.KeyFile, err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if t.ClientCAFile != "" {
		if config.ClientCAs, err = parseAuthorities(contents[2]); err != nil {
			return secured{}, fmt.Errorf("client_ca_file %s: %w; it must be one or more certificates in PEM", t.ClientCAFile, err)
		}
		config.ClientAuth = tls.VerifyClientCertIfGiven
		if t.RequireClientCertificate {
			config.ClientAuth = tls.RequireAndVerifyClientCert
		}
	}
	s := secured{grpc: config.Clone(), rest: config, expires: pair.Leaf.NotAfter}
	s.grpc.NextProtos = []string{"h2"}
	s.rest.NextProtos = []string{"h2", "http/1.1"}
	return s, nil
}

// parseAuthorities returns the certificates in text. It fails if there is none or
// one does not parse: half of a file would refuse clients that are to be trusted.
func parseAuthorities(text []byte) (*x509.CertPool, error) {
	blocks, err := parsePEM(text)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for i, block := range blocks {
		authority, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i+1, err)
		}
		pool.AddCert(authority)
	}
	return pool, nil
}

// parsePEM returns the certificates in text. It fails if one is damaged, which
// package pem skips.
func parsePEM(text []byte) ([]*pem.Block, error) {
	var blocks []*pem.Block
	rest := text
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			blocks = append(blocks, block)
		}
	}
	switch begun := bytes.Count(text, []byte("-----BEGIN CERTIFICATE")); {
	case begun != len(blocks):
		return nil, fmt.Errorf("only %d of %d certificates are whole", len(blocks), begun)
	case begun == 0:
		return nil, errors.New("holds no certificate")
	}
	return blocks, nil
}
