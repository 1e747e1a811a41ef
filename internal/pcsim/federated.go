package pcsim

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// FederatedCredential makes the tokens of another issuer assertions of the
// application, if they are signed with RS256 and have exactly these claims.
//
// Source: https://learn.microsoft.com/en-us/entra/workload-id/workload-identity-federation-considerations
// (read 2026-11-28)
type FederatedCredential struct {
	Issuer, Subject, Audience string
	// Key is the issuer's key, which Microsoft reads from the issuer.
	Key *rsa.PublicKey
}

// Validate returns an error if a part is missing.
func (c FederatedCredential) Validate() error {
	if c.Issuer == "" || c.Subject == "" || c.Audience == "" || c.Key == nil {
		return errors.New("federated credential needs issuer, subject, audience and key")
	}
	return nil
}

// federated are the federated credentials of an application.
type federated struct {
	mu          sync.RWMutex
	credentials []FederatedCredential // guarded by mu
}

// AddFederatedCredential adds a federated credential to those of the Config.
func (s *Server) AddFederatedCredential(c FederatedCredential) error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("pcsim: %w", err)
	}
	s.federated.mu.Lock()
	defer s.federated.mu.Unlock()
	s.federated.credentials = append(s.federated.credentials, c)
	return nil
}

// isForeign reports whether an assertion is one of another issuer's, a URL. The
// application itself signs as its id.
func isForeign(token string) bool {
	parts := strings.Split(token, ".")
	var c struct {
		Issuer string `json:"iss"`
	}
	return len(parts) == 3 && decodePart(parts[1], &c) && strings.HasPrefix(c.Issuer, "https://")
}

// verify returns 0 if an assertion matches a federated credential and is valid
// now, else an AADSTS code: of the first claim that no credential has, in the
// order issuer, audience, subject, and 70021 if there is no credential at all.
// Entra takes such an assertion any number of times. It compares case by case.
//
// The codes are those of users' reports:
// https://github.com/Azure/azure-workload-identity/issues/1200,
// https://github.com/Azure/login/issues/482,
// https://learn.microsoft.com/en-us/entra/identity-platform/reference-breaking-changes
// (read 2026-11-28)
func (f *federated) verify(token string, now time.Time) (code int) {
	f.mu.RLock()
	matching := slices.Clone(f.credentials)
	f.mu.RUnlock()
	parts := strings.Split(token, ".")
	var head assertionHeader
	var c struct {
		Issuer   string          `json:"iss"`
		Subject  string          `json:"sub"`
		Audience json.RawMessage `json:"aud"`
		Expires  *int64          `json:"exp"`
		From     int64           `json:"nbf"`
	}
	if len(parts) != 3 || !decodePart(parts[0], &head) || !decodePart(parts[1], &c) {
		return aadAssertionMalformed
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || c.Expires == nil || head.Alg != "RS256" {
		return aadAssertionMalformed
	}
	if len(matching) == 0 {
		return aadFederatedUnknown
	}
	for _, claim := range []struct {
		has  func(FederatedCredential) bool
		code int
	}{
		{func(of FederatedCredential) bool { return of.Issuer == c.Issuer }, aadFederatedIssuer},
		{func(of FederatedCredential) bool { return slices.Contains(texts(c.Audience), of.Audience) }, aadFederatedAudience},
		{func(of FederatedCredential) bool { return of.Subject == c.Subject }, aadFederatedSubject},
	} {
		matching = slices.DeleteFunc(matching, func(of FederatedCredential) bool { return !claim.has(of) })
		if len(matching) == 0 {
			return claim.code
		}
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	switch {
	case rsa.VerifyPKCS1v15(matching[0].Key, crypto.SHA256, sum[:], signature) != nil:
		return aadAssertionSignature
	case now.Unix() >= *c.Expires, now.Unix() < c.From:
		return aadAssertionTime
	}
	return 0
}

// texts returns a claim that is one text or a list of them.
func texts(claim json.RawMessage) (list []string) {
	var one string
	if json.Unmarshal(claim, &one) == nil {
		return []string{one}
	}
	_ = json.Unmarshal(claim, &list) // anything else is no audience
	return list
}
