package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

// Exactly one credential proves who the application is.
func TestEachCredentialAlone(t *testing.T) {
	t.Parallel()
	const head = "partner_center: {tenant_id: contoso.example, client_id: 10000000-0000-4000-8000-000000000001, flow: app_only, "
	const vault = "{url: 'https://partner.vault.azure.net', secret: s}"
	for _, credential := range []string{
		"client_assertion: workload_identity", "client_assertion: managed_identity", "client_secret_vault: " + vault, "client_certificate_vault: " + vault,
		"client_secret: s3cret, client_assertion: ''",
	} {
		if _, err := config.Load(write(t, "config.yaml", head+credential+"}\n"), nil, config.Serve); err != nil {
			t.Errorf("%s: %v", credential, err)
		}
	}
	const conflict = ": give one of the two and empty the other"
	for credentials, want := range map[string]string{
		"client_secret: s3cret, client_assertion: managed_identity":                    "client_assertion: conflicts with partner_center.client_secret" + conflict,
		"client_secret: s3cret, client_secret_vault: " + vault:                         "client_secret_vault: conflicts with partner_center.client_secret" + conflict,
		"client_secret_vault: " + vault + ", client_certificate_vault: " + vault:       "client_certificate_vault: conflicts with partner_center.client_secret_vault" + conflict,
		"client_certificate_vault: " + vault + ", client_assertion: workload_identity": "client_assertion: conflicts with partner_center.client_certificate_vault" + conflict,
		"client_assertion: azure":          "client_assertion: must be one of workload_identity and managed_identity; the assertion itself is never written here",
		"client_secret_vault: {secret: s}": "client_secret_vault.url: is required with partner_center.client_secret_vault.secret",
		"client_secret_vault: {url: 'https://partner.vault.azure.cn', secret: s}": "client_secret_vault.url: must be https://NAME.vault.azure.net, a vault of cloud global",
		"client_certificate_vault: {url: 'https://partner.vault.azure.net'}":      "client_certificate_vault.secret: must be the name of a secret: 1 to 127 letters, digits and hyphens",
		"client_secret_vault: " + vault + ", refresh_token_vault: " + vault:       "client_secret_vault.secret: is also the secret of partner_center.refresh_token_vault: a renewal of the refresh token would replace it",
	} {
		got := faults(t, head+credentials+"}\n", nil, config.Doctor)
		if len(got) != 1 || strings.TrimPrefix(got[0], "config.yaml:1: ") != "partner_center."+want {
			t.Errorf("%s: %q, want %s", credentials, got, want)
		}
	}
}

// A partner may have another credential than the others.
func TestPartnersWithTheirOwnCredential(t *testing.T) {
	t.Parallel()
	text := `
partner_defaults: {client_assertion: workload_identity, flow: app_only, client_id: 10000000-0000-4000-8000-000000000001}
partners:
  eu: {tenant_id: eu.example}
  us: {tenant_id: us.example, client_assertion: '', client_secret: s3cret, cloud: us_government}
`
	cfg, err := config.Load(write(t, "config.yaml", text), nil, config.Serve)
	if err != nil {
		t.Fatal(err)
	}
	if eu, us := cfg.Partners[0], cfg.Partners[1]; eu.ClientAssertion != config.WorkloadIdentity || us.ClientAssertion != config.NoAssertion || us.ClientSecret.IsZero() {
		t.Errorf("%+v, %+v", eu, us)
	}
	for cloud, want := range map[config.Cloud]string{
		config.CloudGlobal: "api://AzureADTokenExchange", config.CloudUSGovernment: "api://AzureADTokenExchangeUSGov", config.CloudChina: "api://AzureADTokenExchangeChina",
	} {
		if got := cloud.TokenExchange(); got != want {
			t.Errorf("%s: %s", cloud, got)
		}
	}
}

// Tokens are not sent in clear text, and take the place of user and password.
func TestRedisByEntraID(t *testing.T) {
	t.Parallel()
	const conflict = " conflicts with cache.redis.entra_id.enabled: the identity has no password, and its user is its object id"
	for text, want := range map[string][]string{
		"tls: {enabled: true}, entra_id: {enabled: true}":                           nil,
		"insecure: true, entra_id: {enabled: true}":                                 {"entra_id.enabled: needs cache.redis.tls.enabled: true: tokens are not sent in clear text"},
		"tls: {enabled: true}, entra_id: {enabled: true}, username: u, password: p": {"username:" + conflict, "password:" + conflict},
	} {
		text = "cache: {redis: {addresses: ['redis.example:10000'], " + text + "}}\n"
		if want == nil {
			cfg, err := config.Load(write(t, "config.yaml", text), nil, config.Dev)
			if err != nil || !cfg.Cache.Redis.EntraID.Enabled {
				t.Errorf("%s%v", text, err)
			}
			continue
		}
		for i := range want {
			want[i] = "config.yaml:1: cache.redis." + want[i]
		}
		if diff := cmp.Diff(want, faults(t, text, nil, config.Dev)); diff != "" {
			t.Errorf("%s(-want +got):\n%s", text, diff)
		}
	}
}
