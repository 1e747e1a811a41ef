package identity

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"
)

// Claims are what a token says about an identity. Nothing verifies them here:
// they are of our own tokens, and for diagnosis and for the name of a user.
type Claims struct {
	Issuer   string
	Subject  string
	Audience []string
	// ObjectID is the id of the identity in its tenant; empty in tokens of others
	// than Entra.
	ObjectID string
	Expires  time.Time
}

var errNoJWT = errors.New("holds no JSON web token")

// ReadClaims reads the claims of a JSON web token. Its error does not repeat any
// of it.
func ReadClaims(token string) (Claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return Claims{}, errNoJWT
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return Claims{}, errNoJWT
	}
	var read struct {
		Issuer   string          `json:"iss"`
		Subject  string          `json:"sub"`
		Audience json.RawMessage `json:"aud"`
		ObjectID string          `json:"oid"`
		Expires  float64         `json:"exp"`
	}
	if json.Unmarshal(payload, &read) != nil {
		return Claims{}, errNoJWT
	}
	claims := Claims{Issuer: read.Issuer, Subject: read.Subject, ObjectID: read.ObjectID}
	if read.Expires > 0 && read.Expires < 1<<40 {
		claims.Expires = time.Unix(int64(read.Expires), 0)
	}
	var one string
	if json.Unmarshal(read.Audience, &one) == nil {
		claims.Audience = []string{one}
	} else if json.Unmarshal(read.Audience, &claims.Audience) != nil {
		claims.Audience = nil
	}
	return claims, nil
}
