package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

const connection = "partner_center: {tenant_id: contoso.example, client_id: 00000000-0000-0000-0000-000000000001, client_secret: s3cret}\n"

func TestServeNeedsAConnection(t *testing.T) {
	t.Parallel()
	const variable = "ELIGIBILITY_PARTNER_CENTER__"
	token := write(t, "token", "a~refresh~token\n")
	for name, c := range map[string]struct {
		text    string
		environ []string
		want    []string // empty if it must load
	}{
		"nothing at all": {
			want: []string{
				"partner_center.tenant_id: is required: the partner's own tenant, a GUID or a domain name; once it is set, `eligibilityd doctor --config config.yaml` tests it",
				"partner_center.client_id: is required: the application (client) id of the app registration; once it is set, `eligibilityd doctor --config config.yaml` tests it",
				"partner_center.client_secret: is required, or client_secret_file, client_certificate_file or one of the other credentials: the value of a secret of the app registration, or a certificate of it with its key; once it is set, `eligibilityd doctor --config config.yaml` tests it",
				"partner_center.refresh_token_file: is required for flow app_user, or refresh_token_vault: a file that can be written to; `eligibilityd login --config config.yaml` obtains a refresh token and writes it there",
			},
		},
		"together with other faults": {
			text: "log: {level: loud}\npartner_center: {tenant_id: x, client_id: [], client_secret: s, flow: app_only}\n",
			want: []string{
				`config.yaml:1: log.level: "loud" is not one of debug, info, warn, error`,
				"config.yaml:2: partner_center.client_id: must be text, not several values; put text that holds any of []{} in quotes",
				"config.yaml:2: partner_center.tenant_id: is neither a GUID nor a domain name",
			},
		},
		"a section that is none is reported once": {
			text: "partner_center: x\n",
			want: []string{"config.yaml:1: partner_center: must hold keys, one to a line"},
		},
		"a misspelt key": {
			text:    "partner_center: {client_secert: canary, flow: app_only}\n",
			environ: []string{variable + "TENANT_ID=contoso.example", variable + "CLIENT_ID=00000000-0000-0000-0000-000000000001"},
			want: []string{
				"config.yaml:1: partner_center.client_secert: unknown key; did you mean partner_center.client_secret?",
				"partner_center.client_secret: is required, or client_secret_file, client_certificate_file or one of the other credentials: the value of a secret of the app registration, or a certificate of it with its key; once it is set, `eligibilityd doctor --config config.yaml` tests it",
			},
		},
		"app_user with a token":    {text: connection, environ: []string{variable + "REFRESH_TOKEN_FILE=" + token}},
		"app_only without a token": {text: connection, environ: []string{variable + "FLOW=app_only"}},
		"the secret as a file": {
			text:    connection,
			environ: []string{variable + "FLOW=app_only", variable + "CLIENT_SECRET=", variable + "CLIENT_SECRET_FILE=" + token},
		},
		"a secret file that is away": {
			text:    connection,
			environ: []string{variable + "FLOW=app_only", variable + "CLIENT_SECRET=", variable + "CLIENT_SECRET_FILE=" + token + "x"},
			want:    []string{variable + "CLIENT_SECRET_FILE: partner_center.client_secret_file: cannot be read: no such file or directory"},
		},
		"a refresh token that is away": {
			text:    connection,
			environ: []string{variable + "REFRESH_TOKEN_FILE=" + token + "x"},
			want: []string{variable + "REFRESH_TOKEN_FILE: partner_center.refresh_token_file: cannot be read: no such file or directory; " +
				"`eligibilityd login --config config.yaml` obtains a refresh token and writes it there"},
		},
		"a refresh token that is empty": {
			text:    connection,
			environ: []string{variable + "REFRESH_TOKEN_FILE=" + write(t, "token", "\n")},
			want: []string{variable + "REFRESH_TOKEN_FILE: partner_center.refresh_token_file: is an empty file; " +
				"`eligibilityd login --config config.yaml` obtains a refresh token and writes it there"},
		},
		"files of callers that are away, with another fault": {
			text:    connection + "server:\n  tls: {certificate_file: " + token + ", key_file: " + token + "x, client_ca_file: /}\nauth: {tokens_file: " + token + "x}\nlog: {level: loud}\n",
			environ: []string{variable + "FLOW=app_only"},
			want: []string{
				`config.yaml:5: log.level: "loud" is not one of debug, info, warn, error`,
				"config.yaml:3: server.tls.key_file: cannot be read: no such file or directory",
				"config.yaml:3: server.tls.client_ca_file: is not a regular file",
				"config.yaml:4: auth.tokens_file: cannot be read: no such file or directory",
			},
		},
		"a file that is no YAML hides what depends on it": {
			text:    "{",
			environ: []string{"ELIGIBILITY_LOG__LEVEL=loud"},
			want: []string{
				"config.yaml:1: is not valid YAML near this line: did not find expected node content",
				`ELIGIBILITY_LOG__LEVEL: log.level: "loud" is not one of debug, info, warn, error`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.want != nil {
				if diff := cmp.Diff(c.want, faults(t, c.text, c.environ, config.Serve)); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				return
			}
			cfg, err := config.Load(write(t, "config.yaml", c.text), c.environ, config.Serve)
			if err != nil {
				t.Fatal(err)
			}
			if cfg.Partners[0].ClientSecret.IsZero() {
				t.Error("no secret")
			}
		})
	}
}

func TestLoginNeedsTheNameOfTheTokenFileOnly(t *testing.T) {
	t.Parallel()
	missing := []string{
		"partner_center.tenant_id", "partner_center.client_id", "partner_center.client_secret", "partner_center.refresh_token_file",
	}
	got := faults(t, "", nil, config.Login)
	for i, key := range missing {
		if len(got) != len(missing) || !strings.HasPrefix(got[i], key+": is required") {
			t.Fatalf("faults %q, want one for each of %q", got, missing)
		}
	}
	file := "ELIGIBILITY_PARTNER_CENTER__REFRESH_TOKEN_FILE=" + t.TempDir() + "/none-yet"
	if _, err := config.Load(write(t, "config.yaml", connection), []string{file}, config.Login); err != nil {
		t.Error(err)
	}
}

func TestDoctorNeedsNoKeyAndRejectsInvalidOnes(t *testing.T) {
	t.Parallel()
	if _, err := config.Load("", nil, config.Doctor); err != nil {
		t.Error(err)
	}
	if got := faults(t, "partner_center: {tenant_id: x}", nil, config.Doctor); len(got) != 1 {
		t.Errorf("faults %q", got)
	}
}

func TestServeWithoutAFileNamesThePlaceholder(t *testing.T) {
	t.Parallel()
	_, err := config.Load("", nil, config.Serve)
	if err == nil || !strings.Contains(err.Error(), "eligibilityd login --config FILE") {
		t.Errorf("error %v", err)
	}
}
