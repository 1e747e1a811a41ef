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

// idTokenLifetime is how long an id_token is good.
const idTokenLifetime = time.Hour

// newIDTokenKey makes the key that a server signs its id_tokens with. Nobody
// can fetch its public half: a client gets its id_token straight from the
// token endpoint, and need not verify what TLS has vouched for.
func newIDTokenKey() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) }

// idToken identifies the person who has consented.
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
		"sub": c.account.object, // at Microsoft, another one for each application
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
