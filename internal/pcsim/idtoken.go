package pcsim

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"time"
)

// idTokenLifetime is how long an id_token is valid.
const idTokenLifetime = time.Hour

// newIDTokenKey generates the key that signs a server's id_tokens. Its public
// half is not published: a client receives its id_token straight from the token
// endpoint, and need not verify a signature when TLS has authenticated the
// host.
func newIDTokenKey() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) }

// idToken identifies the user who has consented.
//
// Source: https://learn.microsoft.com/en-us/entra/identity-platform/id-token-claims-reference
// (read 2026-11-21)
func (s *Server) idToken(v loginVersion, r *http.Request, c consent) (string, error) {
	key, err := s.idTokenKey()
	if err != nil {
		return "", err
	}
	now := s.microsoftNow()
	claims := map[string]any{
		"aud": s.cfg.ClientID, "ver": "1.0", "iss": "https://sts.windows.net/" + c.account.tenant + "/",
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(idTokenLifetime).Unix(),
		"tid": c.account.tenant, "oid": c.account.object, "preferred_username": c.account.Name,
		"sub": c.account.object, // at Microsoft, it differs for each application
	}
	if v == loginV2 {
		claims["ver"], claims["iss"] = "2.0", hostURL(r)+"/"+c.account.tenant+"/v2.0"
	}
	if c.nonce != "" {
		claims["nonce"] = c.nonce
	}
	encode := base64.RawURLEncoding.EncodeToString
	text := encode(marshal(map[string]string{"typ": "JWT", "alg": "RS256", "kid": "simulator"})) + "." + encode(marshal(claims))
	sum := sha256.Sum256([]byte(text))
	signature, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return "", err
	}
	return text + "." + encode(signature), nil
}
