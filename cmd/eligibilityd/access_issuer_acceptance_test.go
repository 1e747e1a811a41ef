//go:build acceptance

package main

import (
	"crypto/rsa"
	_ "crypto/sha512" // for RS384
	"fmt"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
)

// issuer issues tokens of the form that the configuration of a target accepts.
type issuer struct {
	*accesstest.Issuer

	mu  sync.Mutex
	key *accesstest.Key // signs; guarded by mu
}

func startIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{Issuer: accesstest.NewIssuer(t)}
	i.key = i.Key()
	return i
}

// sign makes key sign from now on.
func (i *issuer) sign(key *accesstest.Key) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.key = key
}

// jwk is a public key as a key set has it.
func jwk(kid string, key *rsa.PublicKey) string {
	return fmt.Sprintf(`{"kty":"RSA","use":"sig","alg":"RS256","kid":%q,"n":%q,"e":%q}`, kid,
		base64url(key.N.Bytes()), base64url(big.NewInt(int64(key.E)).Bytes()))
}

// issued is a token and what it is made of.
type issued struct {
	kid    string
	key    *rsa.PrivateKey
	header claims
	claims claims
	token  string
}

// valid returns a token with the right check, valid for ten minutes.
func (i *issuer) valid() issued { return i.issue("shop", "Eligibility.Check") }

// issue returns a token of a caller with roles.
func (i *issuer) issue(caller string, roles ...string) issued {
	i.mu.Lock()
	key := i.key
	i.mu.Unlock()
	return i.issueWith(key, caller, roles...)
}

func (i *issuer) issueWith(key *accesstest.Key, caller string, roles ...string) issued {
	now := time.Now().Unix()
	private, _ := key.Private.(*rsa.PrivateKey)
	v := issued{
		kid: key.ID, key: private,
		header: claims{"alg": "RS256", "typ": "JWT", "kid": key.ID},
		claims: claims{
			"iss": i.URL, "aud": audience, "sub": caller, "azp": caller, "tid": tenant, "idtyp": "app", "roles": roles,
			"iat": now, "nbf": now, "exp": now + 600,
		},
	}
	v.token = v.signed(v.header, v.claims)
	return v
}

// signed returns a token that v's key has signed.
func (v issued) signed(header, payload claims) string {
	return forged(header.String(), payload.String(), rs(v.key, sha256Hash))
}
