package console

import (
	"cmp"
	"fmt"
	"strings"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

const (
	// maxBlockRunes is how much of a text of Partner Center the block for Microsoft
	// support has, and maxBlockItems how many qualifications.
	maxBlockRunes = 300
	maxBlockItems = 10
)

// The resources of Partner Center about a customer, as the service requests them.
const (
	accountResource        = "/validationStatus?type=account"
	qualificationsResource = "/qualifications"
)

// supportBlock is the text that Microsoft support asks for; empty if Microsoft has
// returned nothing.
func (p *customerBuilder) supportBlock() string {
	var b strings.Builder
	for _, facet := range []eligibilityv1.Facet{eligibilityv1.Facet_FACET_ACCOUNT, eligibilityv1.Facet_FACET_QUALIFICATIONS} {
		held := p.newest(facet)
		if held == nil {
			continue
		}
		if b.Len() == 0 {
			line(&b, "Customer tenant id", p.id)
		}
		_ = b.WriteByte('\n')
		resource := accountResource
		if facet == eligibilityv1.Facet_FACET_QUALIFICATIONS {
			resource = qualificationsResource
		}
		line(&b, "Request", "GET /v1/customers/"+p.id+resource)
		p.blockFacts(&b, facet, held.GetFacts())
		line(&b, "Time (UTC)", held.GetEvidenceTime().AsTime().UTC().Format(isoMillis))
		line(&b, "MS-CorrelationId", cmp.Or(visible(held.GetCorrelationId(), shortRunes), "not kept"))
		line(&b, "MS-RequestId", cmp.Or(visible(held.GetRequestId(), shortRunes), "not kept"))
	}
	return b.String()
}

func (p *customerBuilder) blockFacts(b *strings.Builder, facet eligibilityv1.Facet, f *eligibilityv1.Facts) {
	switch {
	case f.GetAbsence() == eligibilityv1.Absence_ABSENCE_NOT_FOUND:
		line(b, "Returned", "HTTP 404, code 60003 (tenant not found)")
	case f.GetAbsence() == eligibilityv1.Absence_ABSENCE_NOT_SERVED:
		line(b, "Returned", "HTTP 403, code 20002 (no relationship with this partner)")
	case facet == eligibilityv1.Facet_FACET_ACCOUNT && f.GetAccountStatus() == eligibilityv1.AccountStatus_ACCOUNT_STATUS_NONE:
		line(b, "Returned", "HTTP 404, code 600074 (no status)")
	case facet == eligibilityv1.Facet_FACET_ACCOUNT:
		line(b, "Account status", inBlock(f.GetAccountStatusText()))
	case len(f.GetQualifications()) == 0:
		line(b, "Qualifications", "none")
	default:
		for i, q := range f.GetQualifications() {
			if i == maxBlockItems {
				line(b, "Qualification", fmt.Sprintf("and %d more", len(f.GetQualifications())-i))
				break
			}
			words := []string{cmp.Or(inBlock(q.GetTypeText()), "(no name)"), cmp.Or(inBlock(q.GetVettingStatusText()), "no vetting status")}
			if q.GetVettingReason() != "" {
				words = append(words, "reason: "+inBlock(q.GetVettingReason()))
			}
			if at := momentOf(q.GetVettingCreatedTime(), p.now); at != nil {
				words = append(words, "created "+at.ISO)
			}
			line(b, "Qualification", strings.Join(words, ", "))
		}
	}
}

func line(b *strings.Builder, name, value string) { fmt.Fprintf(b, "%s: %s\n", name, value) }

// inBlock is a text of Partner Center in one line, or its beginning if it is long.
func inBlock(s string) string {
	if more := runesBeyond(s, maxBlockRunes); more > 0 {
		return fmt.Sprintf("%s… (%d more characters)", visible(s, maxBlockRunes), more)
	}
	return visible(s, maxBlockRunes)
}
