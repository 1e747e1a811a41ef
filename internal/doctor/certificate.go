package doctor

import (
	"time"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

const (
	checkCertificate = "client certificate"

	// certificateNotice is how long before its expiry a certificate is
	// reported: its replacement needs the partner's approvals.
	certificateNotice = 30 * 24 * time.Hour
)

// checkClientCertificate reports how long the certificate is valid, or nothing
// if a secret is used. If it is not valid now, config.Load has rejected it.
func checkClientCertificate(cfg config.PartnerCenter, now time.Time) []Finding {
	pair := cfg.KeyPair()
	if pair == nil {
		return nil
	}
	left := pair.Leaf.NotAfter.Sub(now)
	const validity = "valid until %s, %d days left"
	end, days := pair.Leaf.NotAfter.UTC().Format(time.DateOnly), int(left/(24*time.Hour))
	if left < certificateNotice {
		return []Finding{warning(checkCertificate,
			"add another to the app registration, put it into partner_center.client_certificate_file and restart", validity, end, days)}
	}
	return []Finding{ok(checkCertificate, validity, end, days)}
}
