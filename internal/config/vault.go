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

// SecretVault is the place of a secret in an Azure Key Vault, which is reached as
// refresh_token_vault is.
type SecretVault struct {
	// URL is the vault, by the rules of refresh_token_vault.url. Optional; none.
	URL string `yaml:"url"`
	// Secret is the name of the secret. The identity needs to get it. Required if
	// url is set; no default.
	Secret string `yaml:"secret"`
}

// IsZero reports whether there is no vault.
func (v SecretVault) IsZero() bool { return v == SecretVault{} }

// IsZero reports whether there is no vault.
func (v RefreshTokenVault) IsZero() bool { return v == RefreshTokenVault{} }

var (
	vaultName  = regexp.MustCompile(`^[A-Za-z0-9-]{3,24}$`)
	secretName = regexp.MustCompile(`^[0-9A-Za-z-]{1,127}$`)
)

// checkVaults checks the vaults of a partner. None of them may hold two things.
func (l *loader) checkVaults(s partnerSection) {
	pc := s.values
	refresh := SecretVault(pc.RefreshTokenVault)
	l.checkVault(s, "refresh_token_vault", &refresh)
	pc.RefreshTokenVault = RefreshTokenVault(refresh)
	if !refresh.IsZero() && pc.RefreshTokenFile != "" {
		l.object(s.at("refresh_token_vault.url"), "conflicts with %s: give one of the two and empty the other", l.source(s.at("refresh_token_file")))
	}
	for name, vault := range map[string]*SecretVault{"client_secret_vault": &pc.ClientSecretVault, "client_certificate_vault": &pc.ClientCertificateVault} {
		l.checkVault(s, name, vault)
		if !vault.IsZero() && strings.EqualFold(vault.URL+"/"+vault.Secret, refresh.URL+"/"+refresh.Secret) {
			l.object(s.at(name+".secret"), "is also the secret of %s: a renewal of the refresh token would replace it", l.source(s.at("refresh_token_vault")))
		}
	}
}

// checkVault checks a vault, if there is one.
func (l *loader) checkVault(s partnerSection, name string, vault *SecretVault) {
	urlKey, secretKey := s.at(name+".url"), s.at(name+".secret")
	if vault.IsZero() {
		return
	}
	if vault.URL == "" {
		l.object(urlKey, "is required with %s", l.source(secretKey))
		return
	}
	u, problem := splitURL(vault.URL, "http", "https")
	switch suffix := s.values.Cloud.hosts().vault; {
	case problem != "":
		l.object(urlKey, "%s", problem)
	case u.Path != "":
		l.object(urlKey, "must not have a path; the secret's name belongs into %s", secretKey)
	case !loopback.IsHost(u.Hostname()) && (u.Port() != "" || !isVault(u.Hostname(), suffix)):
		l.object(urlKey, "must be https://NAME%s, a vault of cloud %s", suffix, s.values.Cloud)
	default:
		vault.URL = u.String()
	}
	if !secretName.MatchString(vault.Secret) {
		l.object(secretKey, "must be the name of a secret: 1 to 127 letters, digits and hyphens")
	}
}

func isVault(host, suffix string) bool {
	name, ok := strings.CutSuffix(strings.ToLower(host), suffix)
	return ok && vaultName.MatchString(name)
}
