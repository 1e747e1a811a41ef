package config

import (
	"errors"
	"slices"
	"strings"
)

// Console configures the pages for support at /console of the REST listener.
type Console struct {
	// Enabled serves the console. Optional; false, and true in dev.
	Enabled bool `yaml:"enabled"`
	// OIDC is how people sign in. Required by enabled, except in dev, which then signs
	// in a fictitious user who may do all.
	OIDC OIDC `yaml:"oidc"`
}

// OIDC configures the sign-in by OpenID Connect: the code flow with PKCE.
type OIDC struct {
	// Issuer is the issuer at which people sign in: one of auth.jwt, whose algorithms,
	// rights_claim, rights and require, except idtyp, apply to ID tokens too. Optional;
	// the only one.
	// After Load it holds the issuer in either case.
	Issuer string `yaml:"issuer"`
	// ClientID is the client ID that the issuer has given the console. Use it for
	// nothing else. The issuer must permit https://HOST/console/callback as the
	// redirect URI for each host name that the console is opened under.
	ClientID string `yaml:"client_id"`
	// ClientSecretFile is a file that holds the client's secret and nothing else, but
	// for one newline at its end. It is read again when it changes; all sessions end
	// then, since their cookies are encrypted with a key that is derived from it.
	ClientSecretFile string `yaml:"client_secret_file"`
}

// given reports whether any key of the sign-in has a value.
func (o *OIDC) given() bool { return o.Issuer != "" || o.ClientID != "" || o.ClientSecretFile != "" }

func (l *loader) checkConsole(command Command) {
	const key = "console.oidc"
	c := &l.cfg.Console
	switch {
	case !c.OIDC.given() && c.Enabled && (command == Serve || command == Login):
		l.objectToEither(key, "console.enabled", "is missing: how people sign in; without it, anybody could use the console")
		return
	case !c.OIDC.given():
		return
	}
	given := key + ".issuer" // a key that was given, to name its line for one that is missing
	for _, name := range []string{".client_secret_file", ".client_id"} {
		if _, ok := l.origins[key+name]; ok {
			given = key + name
		}
	}
	l.checkConsoleIssuer(key+".issuer", given)
	switch {
	case c.OIDC.ClientID == "":
		l.objectToEither(key+".client_id", given, "is missing: the client ID of the console at the issuer")
	case !isVisible(c.OIDC.ClientID) || len(c.OIDC.ClientID) > maxClientID:
		l.object(key+".client_id", "must be 1 to %d visible ASCII characters", maxClientID)
	}
	if c.OIDC.ClientSecretFile == "" {
		l.objectToEither(key+".client_secret_file", given, "is missing: the file with the secret of the client")
	} else if problem := clientSecretProblem(c.OIDC.ClientSecretFile); problem != "" {
		l.object(key+".client_secret_file", "%s", problem)
	}
}

const (
	maxClientID = 256
	// minClientSecret is the least length of a client secret in bytes: sessions are
	// encrypted with what is derived from it.
	minClientSecret = 16
)

// checkConsoleIssuer checks which issuer people sign in at, and completes it.
func (l *loader) checkConsoleIssuer(key, given string) {
	issuer, of := &l.cfg.Console.OIDC.Issuer, l.cfg.Auth.JWT
	switch known := slices.ContainsFunc(of, func(j JWT) bool { return j.Issuer == *issuer }); {
	case l.isRejected("auth.jwt"):
	case len(of) == 0:
		l.objectToEither(key, given, "needs an issuer in auth.jwt, whose ID tokens are accepted")
	case *issuer == "" && len(of) > 1:
		l.objectToEither(key, given, "is missing: auth.jwt has several issuers")
	case *issuer == "":
		*issuer = of[0].Issuer
	case !known:
		l.object(key, "is none of the issuers of auth.jwt; they are compared to the letter")
	}
}

func clientSecretProblem(file string) string {
	text, problem := readSecret(file)
	if problem == "" {
		_, problem = parseClientSecret(text)
	}
	return problem
}

// ParseClientSecret reads the contents of console.oidc.client_secret_file. Its error
// quotes nothing of them.
func ParseClientSecret(contents []byte) ([]byte, error) {
	secret, problem := parseClientSecret(trimLine(string(contents)))
	if problem != "" {
		return nil, errors.New(problem)
	}
	return []byte(secret), nil
}

func parseClientSecret(text string) (secret, problem string) {
	secret = strings.TrimSpace(text)
	switch {
	case !isVisible(secret):
		return "", "must hold visible ASCII characters only"
	case len(secret) < minClientSecret:
		return "", "holds a secret of less than 16 bytes: sessions are encrypted with what is derived from it"
	}
	return secret, ""
}
