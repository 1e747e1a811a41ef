package config

import (
	"regexp"
	"strings"

	"github.com/eligibilityd/eligibilityd/internal/loopback"
)

// RefreshTokenVault is the place of the refresh token in an Azure Key Vault.
// serve and login reach it by azidentity's default credential chain, which
// takes the AZURE_… variables, a workload's or a machine's managed identity, or
// a developer's login.
type RefreshTokenVault struct {
	// URL is the vault, without a path: https://NAME.vault.azure.net, or the
	// same in the cloud of partner_center.cloud. http is accepted only if the
	// host is loopback. Optional; none. Conflicts with refresh_token_file.
	URL string `yaml:"url"`
	// Secret is the name of the secret. login creates it and each renewal adds
	// a version; the identity needs to get and to set it. Required if url is
	// set; no default.
	Secret string `yaml:"secret"`
}

// IsZero reports whether there is no vault.
func (v RefreshTokenVault) IsZero() bool { return v == RefreshTokenVault{} }

var (
	vaultName  = regexp.MustCompile(`^[A-Za-z0-9-]{3,24}$`)
	secretName = regexp.MustCompile(`^[0-9A-Za-z-]{1,127}$`)
)

// checkVault checks the vault of the refresh token, if there is one.
func (l *loader) checkVault(pc *PartnerCenter) {
	const key = "partner_center.refresh_token_vault."
	vault := &pc.RefreshTokenVault
	if vault.IsZero() {
		return
	}
	if vault.URL == "" {
		l.object(key+"url", "is required with partner_center.refresh_token_vault.secret")
		return
	}
	u, problem := splitURL(vault.URL, "http", "https")
	switch suffix := pc.Cloud.hosts().vault; {
	case problem != "":
		l.object(key+"url", "%s", problem)
	case u.Path != "":
		l.object(key+"url", "must not have a path; the secret's name belongs into partner_center.refresh_token_vault.secret")
	case !loopback.IsHost(u.Hostname()) && (u.Port() != "" || !isVault(u.Hostname(), suffix)):
		l.object(key+"url", "must be https://NAME%s, a vault of cloud %s", suffix, pc.Cloud)
	default:
		vault.URL = u.String()
	}
	if !secretName.MatchString(vault.Secret) {
		l.object(key+"secret", "must be the name of a secret: 1 to 127 letters, digits and hyphens")
	}
	if pc.RefreshTokenFile != "" {
		l.object(key+"url", "conflicts with partner_center.refresh_token_file: give one of the two and empty the other")
	}
}

func isVault(host, suffix string) bool {
	name, ok := strings.CutSuffix(strings.ToLower(host), suffix)
	return ok && vaultName.MatchString(name)
}
