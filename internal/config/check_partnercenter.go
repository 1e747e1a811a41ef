package config

import (
	"regexp"
	"slices"
	"strings"
)

var (
	guid   = regexp.MustCompile(`^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`)
	domain = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)
)

// retiredAudiences were valid once; Partner Center now rejects tokens for them.
//
// Source: https://learn.microsoft.com/partner-center/developer/deprecate-azure-active-directory-graph-token (read 2026-11-21)
var retiredAudiences = []string{"graph.windows.net", "graph.chinacloudapi.cn"} //nolint:gochecknoglobals // only read

// checkPartner checks the values that are given and drops trailing slashes of
// URLs. No fault shows a text, because secrets get pasted into the wrong line.
func (l *loader) checkPartner(s partnerSection) {
	pc := s.values
	if pc.TenantID != "" && !guid.MatchString(pc.TenantID) && (!domain.MatchString(pc.TenantID) || len(pc.TenantID) > 253) {
		l.object(s.at("tenant_id"), "is neither a GUID nor a domain name")
	}
	if pc.ClientID != "" && !guid.MatchString(pc.ClientID) {
		l.object(s.at("client_id"), "is not a GUID")
	}
	for _, id := range []struct{ key, value string }{
		{s.at("tenant_id"), pc.TenantID},
		{s.at("client_id"), pc.ClientID},
	} {
		if id.value == zeros {
			l.object(id.key, "is the placeholder of the example; see the overview of the app registration")
		}
	}
	l.checkClientSecret(s)
	if l.checkOneCredential(s) {
		l.checkCertificate(s)
	}
	l.checkHosts(s)
	l.checkAudience(s)
	l.checkVaults(s)
	l.checkDuration(s.at("attempt_timeout"), pc.AttemptTimeout, 1, fetchLimit)
	l.checkCount(s.at("budget_per_minute"), pc.BudgetPerMinute, 1, unlimited)
	l.checkCount(s.at("batch_concurrency"), pc.BatchConcurrency, 1, 1000)
}

// zeros is the placeholder for an ID in the examples.
const zeros = "00000000-0000-0000-0000-000000000000"

// checkClientSecret trims the secret, and rejects it if it cannot be one.
func (l *loader) checkClientSecret(s partnerSection) {
	pc := s.values
	key := s.at("client_secret")
	if pc.ClientSecretFile != "" {
		key += "_file"
	}
	secret, problem := trimToken(pc.ClientSecret)
	switch {
	case problem != "":
		l.object(key, "%s", problem)
	case guid.MatchString(secret.Reveal()):
		l.object(key, "is a GUID, which is the ID of a secret; give its value, which the portal shows once, when the secret is made")
	}
	pc.ClientSecret = secret
}

// credentials returns the keys of the credentials that are given.
func (s partnerSection) credentials() (given []string) {
	pc := s.values
	for _, credential := range []struct {
		name  string
		given bool
	}{
		{"client_secret_file", pc.ClientSecretFile != ""},
		{"client_secret", pc.ClientSecretFile == "" && !pc.ClientSecret.IsZero()},
		{"client_secret_vault", !pc.ClientSecretVault.IsZero()},
		{"client_certificate_file", pc.ClientCertificateFile != ""},
		{"client_certificate_vault", !pc.ClientCertificateVault.IsZero()},
		{"client_assertion", pc.ClientAssertion != NoAssertion},
	} {
		if credential.given {
			given = append(given, s.at(credential.name))
		}
	}
	return given
}

// checkOneCredential rejects a second credential.
func (l *loader) checkOneCredential(s partnerSection) bool {
	given := s.credentials()
	if len(given) <= 1 {
		return true
	}
	l.object(given[1], "conflicts with %s: give one of the two and empty the other", l.source(given[0]))
	return false
}

// checkHosts checks the URLs of the two hosts that receive requests.
func (l *loader) checkHosts(s partnerSection) {
	pc := s.values
	base, problem := splitURL(pc.BaseURL, "http", "https")
	switch {
	case problem != "":
		l.object(s.at("base_url"), "%s", problem)
	case strings.HasSuffix(base.Path, "/v1"):
		l.object(s.at("base_url"), "must not end in /v1, which is added to it")
	default:
		pc.BaseURL = base.String()
	}
	authority, problem := splitURL(pc.Authority, "http", "https")
	switch {
	case problem != "":
		l.object(s.at("authority"), "%s", problem)
	case slices.ContainsFunc(strings.Split(authority.Path, "/"), func(part string) bool {
		return part != "" && (strings.EqualFold(part, pc.TenantID) || part == "common" || part == "organizations")
	}):
		l.object(s.at("authority"), "must not name a tenant, which tenant_id does")
	default:
		pc.Authority = authority.String()
	}
}

func (l *loader) checkAudience(s partnerSection) {
	pc := s.values
	key := s.at("audience")
	audience, problem := splitURL(pc.Audience, "https", "api")
	switch {
	case problem != "":
		l.object(key, "%s", problem)
	case slices.Contains(retiredAudiences, strings.ToLower(audience.Hostname())):
		l.object(key, "is retired, and Partner Center refuses tokens for it; use %s", pc.Cloud.hosts().audience)
	case strings.HasSuffix(audience.Path, "/.default"):
		l.object(key, "must not end in /.default, which is added to it")
	case audience.Path != "":
		l.object(key, "must not have a path: the scope is added to it; use %s", pc.Cloud.hosts().audience)
	case isOtherAPI(audience.Hostname()):
		l.object(key, "is another API of Microsoft's, whose tokens Partner Center refuses; use %s", pc.Cloud.hosts().audience)
	default:
		pc.Audience = audience.String()
	}
}

// microsoftDomains are the domains of Microsoft's APIs.
var microsoftDomains = []string{ //nolint:gochecknoglobals // only read
	"microsoft.com", "microsoft.us", "office.com", "office365.com", "office365.us", "azure.com", "azure.us", "azure.cn", "azure.net",
	"windows.net", "windows-ppe.net", "microsoftonline.com", "microsoftonline.us", "microsoftonline.cn", "chinacloudapi.cn",
	"usgovcloudapi.net", "sharepoint.com", "dynamics.com", "powerbi.com",
}

// isOtherAPI reports whether host belongs to Microsoft but is not the audience
// of Partner Center in any cloud.
func isOtherAPI(host string) bool {
	host = strings.ToLower(host)
	for _, cloud := range []Cloud{CloudGlobal, CloudUSGovernment, CloudChina} {
		if "https://"+host == cloud.hosts().audience {
			return false
		}
	}
	return slices.ContainsFunc(microsoftDomains, func(domain string) bool {
		return host == domain || strings.HasSuffix(host, "."+domain)
	})
}

// require records a fault if a key that serve and login need is missing. The
// fault names the command that helps.
func (l *loader) require(command Command) {
	for _, s := range l.partners {
		l.requirePartner(command, s)
	}
}

func (l *loader) requirePartner(command Command, s partnerSection) {
	pc := s.values
	file := l.path
	if file == "" {
		file = "FILE"
	}
	const doctor = "once it is set, `eligibilityd doctor --config %s` tests it"
	if pc.TenantID == "" {
		l.object(s.at("tenant_id"), "is required: the partner's own tenant, a GUID or a domain name; "+doctor, file)
	}
	if pc.ClientID == "" {
		l.object(s.at("client_id"), "is required: the application (client) id of the app registration; "+doctor, file)
	}
	if len(s.credentials()) == 0 {
		l.object(s.at("client_secret"), "is required, or client_secret_file, client_certificate_file or one of the other credentials: "+
			"the value of a secret of the app registration, or a certificate of it with its key; "+doctor, file)
	}
	if pc.Flow == FlowAppUser && pc.RefreshTokenVault.IsZero() {
		if len(l.partners) > 1 {
			file += " --partner " + s.name
		}
		l.requireRefreshToken(command, s, file)
	}
}

// requireRefreshToken records a fault if the file holds no token. It does not
// ask a vault, because an outage of the vault must not prevent a start. The
// command that stores a token has the given arguments.
func (l *loader) requireRefreshToken(command Command, s partnerSection, arguments string) {
	const login = "`eligibilityd login --config %s` obtains a refresh token and writes it there"
	key, file := s.at("refresh_token_file"), s.values.RefreshTokenFile
	if file == "" {
		l.object(key, "is required for flow app_user, or refresh_token_vault: a file that can be written to; "+login, arguments)
		return
	}
	if command == Login {
		return
	}
	text, problem := readSecret(file)
	if problem == "" {
		_, problem = trimToken(NewSecret(text))
	}
	if problem != "" {
		l.object(key, "%s; "+login, problem, arguments)
	}
}
