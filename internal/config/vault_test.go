package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

func TestVault(t *testing.T) {
	t.Parallel()
	const url, secret = "config.yaml:1: partner_center.refresh_token_vault.url: ", "config.yaml:1: partner_center.refresh_token_vault.secret: "
	const name = "must be the name of a secret: 1 to 127 letters, digits and hyphens"
	for text, want := range map[string][]string{
		"refresh_token_vault: {url: 'https://Partner.vault.azure.net/', secret: a-Secret-1}":                      nil,
		"cloud: us_government, refresh_token_vault: {url: 'https://partner.vault.usgovcloudapi.net', secret: s}":  nil,
		"cloud: china, refresh_token_vault: {url: 'https://partner.vault.azure.cn', secret: s}":                   nil,
		"refresh_token_vault: {url: 'http://127.0.0.1:1', secret: s}":                                             nil,
		"refresh_token_vault: {url: '', secret: ''}":                                                              nil,
		"cloud: china, refresh_token_vault: {url: 'https://partner.vault.azure.net', secret: s}":                  {url + "must be https://NAME.vault.azure.cn, a vault of cloud china"},
		"refresh_token_vault: {url: 'https://partner.vault.azure.net.example', secret: s}":                        {url + "must be https://NAME.vault.azure.net, a vault of cloud global"},
		"refresh_token_vault: {url: 'https://vault.azure.net', secret: s}":                                        {url + "must be https://NAME.vault.azure.net, a vault of cloud global"},
		"refresh_token_vault: {url: 'https://a.partner.vault.azure.net', secret: s}":                              {url + "must be https://NAME.vault.azure.net, a vault of cloud global"},
		"refresh_token_vault: {url: 'https://partner.vault.azure.net:444', secret: s}":                            {url + "must be https://NAME.vault.azure.net, a vault of cloud global"},
		"refresh_token_vault: {url: 'https://partner.vault.azure.net/secrets/s', secret: s}":                      {url + "must not have a path; the secret's name belongs into partner_center.refresh_token_vault.secret"},
		"refresh_token_vault: {url: 'http://partner.vault.azure.net', secret: s}":                                 {url + "must begin with https://; http is accepted for loopback hosts only (127.0.0.0/8, ::1, localhost)"},
		"refresh_token_vault: {url: 'https://partner.vault.azure.net', secret: a/b}":                              {secret + name},
		"refresh_token_vault: {url: 'https://partner.vault.azure.net', secret: " + strings.Repeat("a", 128) + "}": {secret + name},
		"refresh_token_vault: {url: 'https://partner.vault.azure.net'}":                                           {"partner_center.refresh_token_vault.secret: " + name},
		"refresh_token_vault: {secret: s}":                                                                        {"partner_center.refresh_token_vault.url: is required with partner_center.refresh_token_vault.secret"},
		"refresh_token_file: x, refresh_token_vault: {url: 'https://partner.vault.azure.net', secret: s}": {
			url + "conflicts with partner_center.refresh_token_file: give one of the two and empty the other",
		},
	} {
		text = "partner_center: {" + text + "}\n"
		if want != nil {
			if diff := cmp.Diff(want, faults(t, text, nil, config.Dev)); diff != "" {
				t.Errorf("%s(-want +got):\n%s", text, diff)
			}
			continue
		}
		if _, err := config.Load(write(t, "config.yaml", text), nil, config.Dev); err != nil {
			t.Errorf("%s%v", text, err)
		}
	}
	cfg, err := config.Load("", []string{
		"ELIGIBILITY_PARTNER_CENTER__REFRESH_TOKEN_VAULT__URL=https://partner.vault.azure.net/",
		"ELIGIBILITY_PARTNER_CENTER__REFRESH_TOKEN_VAULT__SECRET=s",
		"ELIGIBILITY_PARTNER_CENTER__TENANT_ID=contoso.example",
		"ELIGIBILITY_PARTNER_CENTER__CLIENT_ID=00000000-0000-0000-0000-000000000001",
		"ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET=s3cret",
	}, config.Serve)
	if err != nil || cfg.Partners[0].RefreshTokenVault.URL != "https://partner.vault.azure.net" {
		t.Errorf("serve with a vault: %v", err)
	}
}
