package config

import "time"

// HTTP is the listener for REST.
type HTTP struct {
	// Address is as in server.grpc. Optional; 127.0.0.1:8080.
	Address string `yaml:"address"`
	// CORS permits web pages to read answers.
	CORS CORS `yaml:"cors"`
}

// CORS holds which web pages may read answers over REST.
type CORS struct {
	// Origins are the origins of those pages, exactly as browsers send them:
	// scheme://host or scheme://host:port. No page may send a cookie or a
	// client certificate. Optional; none.
	Origins []string `yaml:"origins"`
}

// TLS holds the certificate of the gRPC and REST listeners, and the verification
// of their callers' certificates. The files are read again when they change.
type TLS struct {
	// CertificateFile is a PEM file with the certificate, the leaf first and the
	// rest of its chain after it. Optional; none, which means plain text.
	// Needs key_file.
	CertificateFile string `yaml:"certificate_file"`
	// KeyFile is a PEM file with the key of the certificate. If others than its
	// owner and group can read it, a warning is logged. Needs certificate_file.
	KeyFile string `yaml:"key_file"`
	// ClientCAFile is a PEM file with the authorities that client certificates
	// are verified against. Optional; none, which means that no caller is asked
	// for a certificate. Needs certificate_file.
	ClientCAFile string `yaml:"client_ca_file"`
	// ClientCertificates decides whether callers must present a certificate:
	// optional or required. Needs client_ca_file. Optional; optional.
	ClientCertificates ClientCertificates `yaml:"client_certificates"`
}

// Enabled reports whether the gRPC and REST listeners use TLS.
func (t TLS) Enabled() bool { return t.CertificateFile != "" }

// ClientCertificates is a value of server.tls.client_certificates.
type ClientCertificates string

// The values of server.tls.client_certificates.
const (
	ClientCertificatesOptional ClientCertificates = "optional"
	ClientCertificatesRequired ClientCertificates = "required"
)

func (ClientCertificates) words() []string { return []string{"optional", "required"} }

// ServerLimits holds what callers may use of the gRPC and REST listeners.
type ServerLimits struct {
	// Connections is how many connections each listener keeps open; further
	// ones are closed at once. 1 to 1000000. Optional; 10000.
	Connections int `yaml:"connections"`
	// ConnectionAge is when a connection is asked to close, give or take 10 %,
	// so that callers spread over replicas. At least 1s. Optional; 5m.
	ConnectionAge time.Duration `yaml:"connection_age"`
	// ConnectionGrace is how long calls in progress may take on a connection
	// that was asked to close; more than 0. Streams of changes go on. Optional;
	// 30s.
	ConnectionGrace time.Duration `yaml:"connection_grace"`
	// FirstRequest is how long the TLS handshake and the first request of a
	// connection may take together; more than 0. Optional; 10s.
	FirstRequest time.Duration `yaml:"first_request"`
	// Idle is when a connection without a request in progress is closed; more
	// than 0. Optional; 2m.
	Idle time.Duration `yaml:"idle"`
	// HeaderBytes bounds the headers of a request. 1024 to 1048576. Optional;
	// 16384.
	HeaderBytes int `yaml:"header_bytes"`
	// GRPCBodyBytes bounds a message over gRPC, as it was sent and
	// uncompressed. 1024 to 67108864. Optional; 1048576.
	GRPCBodyBytes int `yaml:"grpc_body_bytes"`
	// RESTBodyBytes bounds the body of a request over REST. 1024 to 67108864.
	// Optional; 2097152.
	RESTBodyBytes int `yaml:"rest_body_bytes"`
	// StreamsPerConnection is how many requests a connection may have in
	// progress. 1 to 100000. Optional; 250.
	StreamsPerConnection int `yaml:"streams_per_connection"`
	// Concurrent is how many calls may be in progress; further ones fail with
	// OVERLOADED. Batches and prefetches may be half of them. 1 to 1000000.
	// Optional; 4096.
	Concurrent int `yaml:"concurrent"`
}

func defaultServerLimits() ServerLimits {
	return ServerLimits{
		Connections:          10_000,
		ConnectionAge:        5 * time.Minute,
		ConnectionGrace:      30 * time.Second,
		FirstRequest:         10 * time.Second,
		Idle:                 2 * time.Minute,
		HeaderBytes:          16 << 10,
		GRPCBodyBytes:        1 << 20,
		RESTBodyBytes:        2 << 20,
		StreamsPerConnection: 250,
		Concurrent:           4096,
	}
}
