package api

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// DefaultPartner is the name of the only partner of a configuration that names none.
const DefaultPartner = "default"

// Partners are the partners that the API answers for, each with a service of its
// own: what one of them knows never answers for another. It is built by
// [NewPartners] and never changes.
type Partners struct {
	named     map[string]*partner
	byDefault *partner // who is meant if a request names none; nil if it must name one
}

// partner is one of the partners.
type partner struct {
	name    string
	service *evidence.Service
}

// NewPartners returns the partners of services, by name. A request that names none
// means byDefault; if that is empty, it means the only partner, and is refused if
// there are several.
func NewPartners(services map[string]*evidence.Service, byDefault string) (Partners, error) {
	p := Partners{named: make(map[string]*partner, len(services))}
	if len(services) == 0 {
		return Partners{}, errors.New("partners: at least one is required")
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		switch {
		case !isPartnerName(name):
			return Partners{}, fmt.Errorf("partners: %q must be 1 to %d lower-case letters, digits and hyphens", name, maxPartnerName)
		case services[name] == nil:
			return Partners{}, fmt.Errorf("partners: %s has no service", name)
		}
		p.named[name] = &partner{name: name, service: services[name]}
		if len(services) == 1 && byDefault == "" {
			byDefault = name
		}
	}
	if byDefault == "" {
		return p, nil
	}
	if p.byDefault = p.named[byDefault]; p.byDefault == nil {
		return Partners{}, fmt.Errorf("partners: the default %q is none of them", byDefault)
	}
	return p, nil
}

// maxPartnerName is how many bytes the name of a partner may have.
const maxPartnerName = 32

func isPartnerName(name string) bool {
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return name != "" && len(name) <= maxPartnerName
}

// find returns the partner that a caller's request means by name. If it returns nil,
// it adds a violation, whose text is the same whether the name is malformed, unknown,
// missing or another caller's: it reveals nothing about the partners that exist.
func (p *Partners) find(name string, caller *access.Caller, faults *Violations) *partner {
	meant := p.byDefault
	if name != "" {
		meant = p.named[name]
	}
	if meant == nil || !caller.MayUse(meant.name) {
		faults.Add(FieldPartner, "must name a partner that this service answers for")
		return nil
	}
	return meant
}
