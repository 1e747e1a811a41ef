package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

const oneIssuer = "auth: {jwt: [{issuer: 'https://login.example/1/v2.0', audiences: [a]}]}\n"

func TestFaultsOfTheConsole(t *testing.T) {
	t.Parallel()
	secret := write(t, "console", "0123456789abcdef\n")
	short := write(t, "short", "0123456789abcde\n")
	binary := write(t, "binary", "0123456789abc\x00def\n")
	const twoIssuers = "auth: {jwt: [{issuer: 'https://login.example/1/v2.0', audiences: [a]}, {issuer: 'https://login.example/2/v2.0', audiences: [a]}]}\n"
	for name, c := range map[string]struct {
		text    string
		command config.Command
		want    []string
	}{
		"dev needs no sign-in": {text: "console: {enabled: true}\n", command: config.Dev},
		"serve does": {
			text:    oneIssuer + "console: {enabled: true}\n",
			command: config.Serve,
			want:    []string{"config.yaml:2: console.oidc: is missing: how people sign in; without it, anybody could use the console"},
		},
		"halves": {
			text:    oneIssuer + "console: {oidc: {issuer: 'https://login.example/1/v2.0'}}\n",
			command: config.Dev,
			want: []string{
				"config.yaml:2: console.oidc.client_id: is missing: the client ID of the console at the issuer",
				"config.yaml:2: console.oidc.client_secret_file: is missing: the file with the secret of the client",
			},
		},
		"no issuer": {
			text:    fmt.Sprintf("console: {oidc: {client_id: x, client_secret_file: %s}}\n", secret),
			command: config.Dev,
			want:    []string{"config.yaml:1: console.oidc.issuer: needs an issuer in auth.jwt, whose ID tokens are accepted"},
		},
		"several issuers": {
			text:    twoIssuers + fmt.Sprintf("console: {oidc: {client_id: x, client_secret_file: %s}}\n", secret),
			command: config.Dev,
			want:    []string{"config.yaml:2: console.oidc.issuer: is missing: auth.jwt has several issuers"},
		},
		"another issuer": {
			text:    oneIssuer + fmt.Sprintf("console: {oidc: {issuer: 'https://login.example/1/v2.0/', client_id: x, client_secret_file: %s}}\n", secret),
			command: config.Dev,
			want:    []string{"config.yaml:2: console.oidc.issuer: is none of the issuers of auth.jwt; they are compared to the letter"},
		},
		"a client of blanks, and a secret that is away": {
			text:    oneIssuer + "console: {oidc: {client_id: 'a b', client_secret_file: /nonexistent/secret}}\n",
			command: config.Dev,
			want: []string{
				"config.yaml:2: console.oidc.client_id: must be 1 to 256 visible ASCII characters",
				"config.yaml:2: console.oidc.client_secret_file: cannot be read: no such file or directory",
			},
		},
		"a short secret": {
			text:    oneIssuer + fmt.Sprintf("console: {oidc: {client_id: x, client_secret_file: %s}}\n", short),
			command: config.Dev,
			want:    []string{"config.yaml:2: console.oidc.client_secret_file: holds a secret of less than 16 bytes: sessions are encrypted with what is derived from it"},
		},
		"a secret with a control character": {
			text:    oneIssuer + fmt.Sprintf("console: {oidc: {client_id: x, client_secret_file: %s}}\n", binary),
			command: config.Dev,
			want:    []string{"config.yaml:2: console.oidc.client_secret_file: must hold visible ASCII characters only"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := config.Load(write(t, "config.yaml", c.text), nil, c.command)
			var got []string
			if err != nil {
				for line := range strings.SplitSeq(err.Error(), "\n") {
					if strings.Contains(line, "console") {
						got = append(got, line[max(strings.Index(line, "config.yaml"), 0):])
					}
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s\n%v", diff, err)
			}
			if err != nil && strings.Contains(err.Error(), "0123456789abc") {
				t.Errorf("the secret is shown: %v", err)
			}
		})
	}
}

func TestTheOnlyIssuerIsThatOfTheConsole(t *testing.T) {
	t.Parallel()
	secret := write(t, "console", "  0123456789abcdef\r\n")
	cfg, err := config.Load(write(t, "config.yaml", oneIssuer+fmt.Sprintf("console: {enabled: true, oidc: {client_id: x, client_secret_file: %s}}\n", secret)), nil, config.Dev)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Console.OIDC.Issuer != consoleIssuer {
		t.Errorf("issuer %q", cfg.Console.OIDC.Issuer)
	}
	if got, err := config.ParseClientSecret([]byte("  0123456789abcdef\r\n")); err != nil || string(got) != "0123456789abcdef" {
		t.Errorf("%q, %v", got, err)
	}
}
