package client

import (
	"context"
	"errors"
	"os"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// StaticToken returns a source for [Config].Token that always returns token.
func StaticToken(token string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return token, nil }
}

// TokenFile returns a source for [Config].Token that reads a file, without a byte order
// mark and the blanks around the token. It reads the file for each call, so that the
// token can be replaced while the program runs.
func TokenFile(path string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		text, err := os.ReadFile(path) //nolint:gosec // the program names the file
		return strings.Trim(string(text), " \t\r\n\v\f\ufeff"), err
	}
}

// tokens sends a token with each call.
type tokens func(ctx context.Context) (string, error)

// GetRequestMetadata implements credentials.PerRPCCredentials. Health checks need no
// token: without this, one that cannot be read would make all replicas look unhealthy.
func (t tokens) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	if info, ok := credentials.RequestInfoFromContext(ctx); ok && strings.HasPrefix(info.Method, "/grpc.health.v1.Health/") {
		return nil, nil //nolint:nilnil // no metadata
	}
	token, err := t(ctx)
	if err == nil && (token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' })) {
		err = errors.New("it is empty, or holds a blank, a control character or a letter beyond ASCII")
	}
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, "no token to send: "+err.Error())
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (tokens) RequireTransportSecurity() bool { return true }
