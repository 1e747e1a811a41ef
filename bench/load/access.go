package load

import (
	"context"
	"crypto/tls"
	"crypto/x509"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// Access is how a server is reached. The zero value is plain text without a token.
type Access struct {
	// Authorities are those of the server's certificate, which is for localhost; nil
	// means no TLS.
	Authorities *x509.CertPool
	// Token is the bearer token that each request carries; "" means none.
	Token string
}

func (a Access) tls() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: a.Authorities, ServerName: "localhost"}
}

// DialOptions returns the options of a gRPC connection.
func (a Access) DialOptions() []grpc.DialOption {
	security := insecure.NewCredentials()
	if a.Authorities != nil {
		security = credentials.NewTLS(a.tls())
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(security)}
	if a.Token != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer{"authorization": "Bearer " + a.Token}))
	}
	return options
}

// bearer is the metadata of each call.
type bearer map[string]string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return b, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (bearer) RequireTransportSecurity() bool { return true }
