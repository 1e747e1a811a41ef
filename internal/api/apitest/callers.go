package apitest

import (
	"context"
	"errors"

	"google.golang.org/grpc/metadata"

	"github.com/eligibilityd/eligibilityd/internal/access"
)

// Callers is an api.Authenticator of the callers that have these bearer tokens.
type Callers map[string]*access.Caller

// Authenticate implements api.Authenticator.
func (c Callers) Authenticate(given access.Credentials) (*access.Caller, error) {
	if len(given.Authorization) != 1 {
		return nil, errors.New("no token")
	}
	caller, ok := c[given.Authorization[0]]
	if !ok {
		return nil, errors.New("unknown token")
	}
	return caller, nil
}

// With returns ctx with a token that a client over gRPC sends.
func With(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", token)
}

// EachRight returns a caller for each right, who has no other: right and caller have
// the token's name. The caller "none" has no right.
func EachRight() Callers {
	callers := Callers{"none": {Name: "none"}}
	for _, word := range access.Words() {
		right, _ := access.ParseRight(word)
		callers[word] = &access.Caller{Name: word, Rights: right}
	}
	return callers
}
