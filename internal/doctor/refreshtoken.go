package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/pcclient"
	"github.com/eligibilityd/eligibilityd/internal/tokenstore"
)

const (
	checkTokenFile  = "refresh token file"
	checkTokenVault = "refresh token vault"

	// refreshTokenNotice is how long before its expiry a refresh token is
	// reported; a service that receives checks renews it hourly.
	refreshTokenNotice = 14 * 24 * time.Hour
)

// checkRefreshToken checks the store of the refresh token. If client is nil,
// broken is the reason.
func (p patient) checkRefreshToken(ctx context.Context, client *pcclient.Client, broken error) []Finding {
	pc := p.partner.PartnerCenter
	switch {
	case pc.Flow != config.FlowAppUser:
		return nil
	case pc.RefreshTokenVault.IsZero():
		return []Finding{checkRefreshTokenFile(pc.RefreshTokenFile, p.options.ConfigFile)}
	case client == nil:
		line, _, _ := strings.Cut(broken.Error(), "\n")
		return []Finding{failure(checkTokenVault, "correct the configuration, or the AZURE_… variables of this process", "%s", line)}
	}
	since, err := client.RefreshToken(ctx)
	switch {
	case errors.Is(err, tokenstore.ErrNone):
		return []Finding{failure(checkTokenVault, "`eligibilityd login --config "+placeholder(p.options.ConfigFile)+"` stores one", "%v", err)}
	case errors.Is(err, tokenstore.ErrUnreadable):
		return []Finding{failure(checkTokenVault, VaultRemedy, "%v", err)}
	case err != nil:
		return []Finding{failure(checkTokenVault, awayRemedy, "%v", err)}
	}
	return []Finding{aged(checkTokenVault, pc.RefreshTokenVault.URL+" lets it be read", since, p.options.ConfigFile)}
}

const (
	// VaultRemedy is the remedy if a vault denies access.
	VaultRemedy = "grant the identity of the service to get and set secrets (role Key Vault Secrets Officer), and check the vault's firewall and that the secret is enabled"
	// awayRemedy is the remedy if a vault is unreachable.
	awayRemedy = "check partner_center.refresh_token_vault.url, the way to it, and the managed identity or the AZURE_… variables of this process"
)

// aged is the finding about a refresh token that was read.
func aged(check, detail string, since time.Time, configFile string) Finding {
	if since.IsZero() {
		return ok(check, "%s", detail)
	}
	left := pcclient.RefreshTokenLife - time.Since(since)
	if left < refreshTokenNotice {
		return warning(check, "`eligibilityd login --config "+placeholder(configFile)+"`, and find out why no service has renewed it",
			"%s; it is %d days old and lasts 90", detail, int(time.Since(since)/(24*time.Hour)))
	}
	return ok(check, "%s; it lasts %d days more", detail, int(left/(24*time.Hour)))
}

// checkRefreshTokenFile checks the attributes of the file, but not its
// contents.
func checkRefreshTokenFile(path, configFile string) Finding {
	const check = checkTokenFile
	consent := "`eligibilityd login --config " + placeholder(configFile) + "` writes it"
	if path == "" {
		return skipped(check, "partner_center.refresh_token_file is not set")
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return failure(check, consent, "%s does not exist", named(path))
	case err != nil:
		return failure(check, "make it readable for the user of the service", "%s cannot be read: %v", named(path), withoutPath(err))
	case !info.Mode().IsRegular():
		return failure(check, "name a file; "+consent, "%s is no regular file", path)
	case info.Size() == 0:
		return failure(check, consent, "%s is empty", path)
	}
	file, err := os.Open(path) //nolint:gosec // the operator names the file
	if err != nil {
		return failure(check, "make it readable for the user of the service", "%v", err)
	}
	_ = file.Close() // nothing was written
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		return warning(check, "chmod 600 "+path, "%s is open to others (mode %#o)", path, mode)
	}
	probe, err := os.CreateTemp(filepath.Dir(path), ".doctor-*")
	if err != nil {
		return warning(check, "make the directory writable for the user of the service: new refresh tokens are stored there",
			"%s cannot be replaced by this user", path)
	}
	_ = probe.Close() // nothing was written
	if err := os.Remove(probe.Name()); err != nil {
		return warning(check, "let the user of the service remove files in the directory", "%v", err)
	}
	return aged(check, path+" can be read, and its directory written to", info.ModTime(), configFile)
}
