package identity

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
)

// redisScope is the scope of tokens for Azure Managed Redis.
//
// Source: https://learn.microsoft.com/en-us/azure/redis/entra-for-authentication#microsoft-entra-client-workflow
// (read 2026-11-28)
const redisScope = "https://redis.azure.com/.default"

// Token is an access token of the service's identity.
type Token struct {
	Value string
	// User is the object id of the identity: the name of its user in Redis.
	User    string
	Expires time.Time
}

// Tokens are the access tokens of azidentity's default chain for Azure Managed
// Redis. It is safe for concurrent use. The zero value is ready.
type Tokens struct {
	once       sync.Once
	credential azcore.TokenCredential
	err        error
}

// Get returns a token that is valid for a while: the last one, or a new one if
// the last ends within five minutes. It takes 5 s at most.
func (t *Tokens) Get(ctx context.Context) (Token, error) {
	// The cloud is that of AZURE_AUTHORITY_HOST, which the platform sets.
	t.once.Do(func() { t.credential, t.err = Default(cloud.Configuration{}, NewTransport(nil, "")) })
	if t.err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrRefused, t.err)
	}
	token, err := get(ctx, t.credential, redisScope)
	if err != nil {
		return Token{}, err
	}
	claims, err := ReadClaims(token.Token)
	if err != nil || claims.ObjectID == "" {
		return Token{}, fmt.Errorf("%w: its token names no object id", ErrRefused)
	}
	return Token{Value: token.Token, User: claims.ObjectID, Expires: token.ExpiresOn}, nil
}
