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
func (l *loader) checkVault(s partnerSection) {
	urlKey, secretKey := s.at("refresh_token_vault.url"), s.at("refresh_token_vault.secret")
	pc, vault := s.values, &s.values.RefreshTokenVault
	if vault.IsZero() {
		return
	}
	if vault.URL == "" {
		l.object(urlKey, "is required with %s", l.source(secretKey))
		return
	}
	u, problem := splitURL(vault.URL, "http", "https")
	switch suffix := pc.Cloud.hosts().vault; {
	case problem != "":
		l.object(urlKey, "%s", problem)
	case u.Path != "":
		l.object(urlKey, "must not have a path; the secret's name belongs into %s", secretKey)
	case !loopback.IsHost(u.Hostname()) && (u.Port() != "" || !isVault(u.Hostname(), suffix)):
		l.object(urlKey, "must be https://NAME%s, a vault of cloud %s", suffix, pc.Cloud)
	default:
		vault.URL = u.String()
	}
	if !secretName.MatchString(vault.Secret) {
		l.object(secretKey, "must be the name of a secret: 1 to 127 letters, digits and hyphens")
	}
	if pc.RefreshTokenFile != "" {
		l.object(urlKey, "conflicts with %s: give one of the two and empty the other", l.source(s.at("refresh_token_file")))
	}
}

func isVault(host, suffix string) bool {
	name, ok := strings.CutSuffix(strings.ToLower(host), suffix)
	return ok && vaultName.MatchString(name)
}
