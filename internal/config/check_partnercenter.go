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

// retiredAudiences are what tokens used to be asked for; Partner Center
// refuses tokens for them.
//
// Source: https://learn.microsoft.com/partner-center/developer/deprecate-azure-active-directory-graph-token (read 2026-11-21)
var retiredAudiences = []string{"graph.windows.net", "graph.chinacloudapi.cn"} //nolint:gochecknoglobals // only read

// checkPartnerCenter checks what is given and drops the slashes at the end of
// URLs. No fault shows a value: secrets get pasted into the wrong line.
func (l *loader) checkPartnerCenter() {
	pc := &l.cfg.PartnerCenter
	if pc.TenantID != "" && !guid.MatchString(pc.TenantID) && (!domain.MatchString(pc.TenantID) || len(pc.TenantID) > 253) {
		l.object("partner_center.tenant_id", "is neither a GUID nor a domain name")
	}
	if pc.ClientID != "" && !guid.MatchString(pc.ClientID) {
		l.object("partner_center.client_id", "is not a GUID")
	}
	l.checkCertificate(pc)
	l.checkHosts(pc)
	l.checkAudience(pc)
	l.checkVault(pc)
}

// checkHosts checks the two URLs that requests go to.
func (l *loader) checkHosts(pc *PartnerCenter) {
	base, problem := splitURL(pc.BaseURL, "http", "https")
	switch {
	case problem != "":
		l.object("partner_center.base_url", "%s", problem)
	case strings.HasSuffix(base.Path, "/v1"):
		l.object("partner_center.base_url", "must not end in /v1, which is added to it")
	default:
		pc.BaseURL = base.String()
	}
	authority, problem := splitURL(pc.Authority, "http", "https")
	switch {
	case problem != "":
		l.object("partner_center.authority", "%s", problem)
	case slices.ContainsFunc(strings.Split(authority.Path, "/"), func(part string) bool {
		return part != "" && (strings.EqualFold(part, pc.TenantID) || part == "common" || part == "organizations")
	}):
		l.object("partner_center.authority", "must not name a tenant, which tenant_id does")
	default:
		pc.Authority = authority.String()
	}
}

func (l *loader) checkAudience(pc *PartnerCenter) {
	const key = "partner_center.audience"
	audience, problem := splitURL(pc.Audience, "https", "api")
	switch {
	case problem != "":
		l.object(key, "%s", problem)
	case slices.Contains(retiredAudiences, strings.ToLower(audience.Hostname())):
		l.object(key, "is retired, and Partner Center refuses tokens for it; use %s", pc.Cloud.hosts().audience)
	case strings.HasSuffix(audience.Path, "/.default"):
		l.object(key, "must not end in /.default, which is added to it")
	default:
		pc.Audience = audience.String()
	}
}

// require notes what serve or login cannot do without, and which command helps.
func (l *loader) require(command Command) {
	pc := &l.cfg.PartnerCenter
	file := l.path
	if file == "" {
		file = "FILE"
	}
	const doctor = "once it is set, `eligibilityd doctor --config %s` tests it"
	if pc.TenantID == "" {
		l.object("partner_center.tenant_id", "is required: the partner's own tenant, a GUID or a domain name; "+doctor, file)
	}
	if pc.ClientID == "" {
		l.object("partner_center.client_id", "is required: the application (client) id of the app registration; "+doctor, file)
	}
	if pc.ClientSecret.IsZero() && pc.ClientSecretFile == "" && pc.ClientCertificateFile == "" {
		l.object("partner_center.client_secret", "is required, or client_secret_file, or client_certificate_file: "+
			"the value of a secret of the app registration, or a certificate of it with its key; "+doctor, file)
	}
	if pc.Flow == FlowAppUser && pc.RefreshTokenVault.IsZero() {
		l.requireRefreshToken(command, pc.RefreshTokenFile, file)
	}
}

// requireRefreshToken wants a token in the file. What a vault holds only the
// vault knows, and an outage of it must not stop a start.
func (l *loader) requireRefreshToken(command Command, tokenFile, configFile string) {
	const key, login = "partner_center.refresh_token_file", "`eligibilityd login --config %s` obtains a refresh token and writes it there"
	if tokenFile == "" {
		l.object(key, "is required for flow app_user, or refresh_token_vault: a file that can be written to; "+login, configFile)
		return
	}
	if command == Login {
		return
	}
	if _, problem := readSecret(tokenFile); problem != "" {
		l.object(key, "%s; "+login, problem, configFile)
	}
}
