package config_test

import (
	"encoding/base64"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

const webhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func TestFaultsOfWebhooks(t *testing.T) {
	t.Parallel()
	secret := write(t, "secret", webhookSecret+"\n")
	const partners = "partners: {eu: {tenant_id: a.example}, us: {tenant_id: b.example}}\n"
	for name, c := range map[string]struct {
		text    string
		command config.Command
		want    []string
	}{
		"nothing is given": {
			text:    "webhooks:\n  - {}\n",
			command: config.Doctor,
			want: []string{
				`config.yaml:2: webhooks[0].name: is missing: what commands, logs and metrics call the webhook`,
				`config.yaml:2: webhooks[0].url: is missing: what is called with each change`,
				`config.yaml:2: webhooks[0].secret_file: is missing: the file with the secret that signs the requests`,
			},
		},
		"names": {
			text: fmt.Sprintf("webhooks:\n"+
				"  - {name: Orders, url: 'https://a.example', secret_file: %[1]s}\n"+
				"  - {name: %[2]s, url: 'https://a.example', secret_file: %[1]s}\n"+
				"  - {name: orders, url: 'https://a.example', secret_file: %[1]s}\n"+
				"  - {name: orders, url: 'https://b.example', secret_file: %[1]s}\n", secret, strings.Repeat("a", 33)),
			command: config.Doctor,
			want: []string{
				`config.yaml:2: webhooks[0].name: must be 1 to 32 lower-case letters, digits and hyphens`,
				`config.yaml:3: webhooks[1].name: must be 1 to 32 lower-case letters, digits and hyphens`,
				`config.yaml:5: webhooks[3].name: is the same as that of webhooks[2]`,
			},
		},
		"no partner of several": {
			text:    partners + fmt.Sprintf("webhooks: [{name: a, url: 'https://a.example', secret_file: %s}]\n", secret),
			command: config.Doctor,
			want:    []string{`config.yaml:2: webhooks[0].partner: is missing: there are several partners and no default_partner`},
		},
		"a foreign partner": {
			text:    partners + fmt.Sprintf("webhooks: [{name: a, partner: uk, url: 'https://a.example', secret_file: %s}]\n", secret),
			command: config.Dev,
			want:    []string{`config.yaml:2: webhooks[0].partner: is none of the partners`},
		},
		"values": {
			text:    fmt.Sprintf("webhooks:\n  - {name: a, url: 'https://a.example', secret_file: %s,\n    segment: public, only: blocked, allow_private: maybe}\n", secret),
			command: config.Doctor,
			want: []string{
				`config.yaml:3: webhooks[0].segment: "public" is not one of commercial, education, government, nonprofit`,
				`config.yaml:3: webhooks[0].only: "blocked" is not one of unblocked, all`,
				`config.yaml:3: webhooks[0].allow_private: "maybe" is neither true nor false`,
			},
		},
		"too many": {
			text:    "webhooks:\n" + strings.Repeat(fmt.Sprintf("  - {name: a, url: 'https://a.example', secret_file: %s}\n", secret), 33),
			command: config.Doctor,
			want:    []string{`config.yaml:1: webhooks: has 33 webhooks, and at most 32 are supported`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, faults(t, c.text, nil, c.command)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestURLsOfWebhooks(t *testing.T) {
	t.Parallel()
	const (
		relative = "must be an absolute URL, such as https://host.example/changes"
		port     = "must have a port from 1 to 65535 or none"
		user     = "must not hold a user name or password; requests are signed"
		plain    = "must begin with https://; http is accepted for loopback hosts only (127.0.0.0/8, ::1, localhost)"
	)
	secret := write(t, "secret", webhookSecret)
	for _, c := range []struct{ url, want string }{
		{"https://orders.shop.example/eligibility?shop=1", ""},
		{"https://10.0.0.1:8443", ""}, // an address is checked when it is connected to
		{"http://localhost:8080/", ""},
		{"http://[::1]:1", ""},
		{"orders.shop.example", relative},
		{"ftp://orders.shop.example", relative},
		{"https://", relative},
		{"https://a b", relative},
		{"https://canary:can%zzary@h", relative},
		{"https://h:0", port},
		{"https://h:", port},
		{"https://canary@h", user},
		{"https://h/#canary", "must not have a fragment"},
		{"https://h/#", "must not have a fragment"},
		{"https://h/a b", "must not hold blanks or other than ASCII characters"},
		{"https://h/ä", "must not hold blanks or other than ASCII characters"},
		{"https://h/" + strings.Repeat("a", 2048), "must not be longer than 2048 bytes"},
		{"http://h", plain},
		{"http://10.0.0.1", plain},
	} {
		text := fmt.Sprintf("[{name: a, url: '%s', secret_file: %s}]", c.url, secret)
		_, err := config.Load("", []string{"ELIGIBILITY_WEBHOOKS=" + text}, config.Dev)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.url, err)
		case c.want != "" && (err == nil || err.Error() != "ELIGIBILITY_WEBHOOKS: webhooks[0].url: "+c.want):
			t.Errorf("%q: error %v, want %s", c.url, err, c.want)
		}
	}
}

func TestSecretsOfWebhooks(t *testing.T) {
	t.Parallel()
	encode := func(n int) string {
		return "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", n)))
	}
	const (
		prefix  = "does not begin with whsec_; make a secret with: echo whsec_$(openssl rand -base64 32)"
		garbled = "is not base64 behind whsec_"
	)
	for _, c := range []struct{ text, want string }{
		{encode(24), ""},
		{encode(64) + "\r\n", ""},
		{"\ufeff" + encode(32) + "\n" + encode(33) + "\n", ""},
		{encode(24) + "\n\n", ""},
		{encode(23), "line 1 holds a secret of 23 bytes; it must have 24 to 64"},
		{encode(65), "line 1 holds a secret of 65 bytes; it must have 24 to 64"},
		{"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "line 1 " + prefix},
		{"whsec_canary!", "line 1 " + garbled},
		{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSx=", "line 1 " + garbled},
		{encode(24) + "\ncanary", "line 2 " + prefix},
		{encode(24) + "\n\n" + encode(24), "holds more than two lines: the secret, and an earlier one that also signs"},
		{strings.Repeat("a", 5000), "cannot be read: larger than 4096 bytes"},
		{"", "is an empty file"},
	} {
		text := fmt.Sprintf("[{name: a, url: 'https://a.example', secret_file: %s}]", write(t, "secret", c.text))
		_, err := config.Load("", []string{"ELIGIBILITY_WEBHOOKS=" + text}, config.Dev)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%q: %v", c.text, err)
		case c.want != "" && (err == nil || err.Error() != "ELIGIBILITY_WEBHOOKS: webhooks[0].secret_file: "+c.want):
			t.Errorf("%q: error %v, want %s", c.text, err, c.want)
		}
	}
	missing := filepath.Join(t.TempDir(), "canary")
	_, err := config.Load("", []string{"ELIGIBILITY_WEBHOOKS=[{name: a, url: 'https://a.example', secret_file: " + missing + "}]"}, config.Dev)
	if err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("error %v, want one without the path", err)
	}
}

func TestWebhooksOfPartners(t *testing.T) {
	t.Parallel()
	secret := write(t, "secret", webhookSecret)
	hook := "webhooks: [{name: a, url: 'https://a.example', secret_file: " + secret
	for _, text := range []string{
		hook + "}]\n",
		"partners: {eu: {tenant_id: a.example}}\n" + hook + "}]\n",
		"partners: {eu: {tenant_id: a.example}, us: {tenant_id: b.example}}\ndefault_partner: us\n" + hook + "}]\n",
		"partners: {eu: {tenant_id: a.example}, us: {tenant_id: b.example}}\n" + hook + ", partner: eu}]\n",
	} {
		if _, err := config.Load(write(t, "config.yaml", text), nil, config.Doctor); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}
