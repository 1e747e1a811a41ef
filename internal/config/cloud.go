package config

// Cloud is a value of partner_center.cloud.
type Cloud string

// The values of partner_center.cloud.
const (
	CloudGlobal       Cloud = "global"
	CloudUSGovernment Cloud = "us_government"
	CloudChina        Cloud = "china"
)

func (Cloud) words() []string { return []string{"global", "us_government", "china"} }

// hosts are a cloud's defaults.
type hosts struct{ baseURL, authority, audience, vault, exchange string }

// hosts returns those of the cloud. The cloud for the US government has the
// global one's Partner Center and a login host of its own.
//
// Sources (read 2026-11-21):
// https://learn.microsoft.com/en-us/partner-center/developer/partner-center-rest-urls,
// https://learn.microsoft.com/en-us/azure/key-vault/general/about-keys-secrets-certificates#dns-suffixes-for-object-identifiers;
// (read 2026-11-28):
// https://learn.microsoft.com/en-us/entra/workload-id/workload-identity-federation-config-app-trust-managed-identity#important-considerations-and-restrictions
func (c Cloud) hosts() hosts {
	const (
		global = "https://api.partnercenter.microsoft.com"
		china  = "https://partner.partnercenterapi.microsoftonline.cn"

		exchange = "api://AzureADTokenExchange"
	)
	switch c {
	case CloudUSGovernment:
		return hosts{global, "https://login.microsoftonline.us", global, ".vault.usgovcloudapi.net", exchange + "USGov"}
	case CloudChina:
		return hosts{china, "https://login.partner.microsoftonline.cn", china, ".vault.azure.cn", exchange + "China"}
	default:
		return hosts{global, "https://login.microsoftonline.com", global, ".vault.azure.net", exchange}
	}
}

// TokenExchange is the audience of assertions of a managed identity in the cloud.
func (c Cloud) TokenExchange() string { return c.hosts().exchange }

// applyCloud sets the keys that were not given to the defaults of the partner's
// cloud.
func (l *loader) applyCloud() {
	for _, s := range l.partners {
		hosts := s.values.Cloud.hosts()
		for name, target := range map[string]struct {
			value *string
			text  string
		}{
			"base_url":  {&s.values.BaseURL, hosts.baseURL},
			"authority": {&s.values.Authority, hosts.authority},
			"audience":  {&s.values.Audience, hosts.audience},
		} {
			if _, given := l.origins[l.source(s.at(name))]; !given {
				*target.value = target.text
			}
		}
	}
}
