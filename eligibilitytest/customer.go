package eligibilitytest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// Account validation statuses as Partner Center sends them. Any other non-empty
// text is a status that the service does not recognize.
const (
	Allowed     = "Allowed"
	UnderReview = "UnderReview"
	NotAllowed  = "NotAllowed"
	Unknown     = "Unknown"
	NotReady    = "Not Ready"
	// NoStatus is the account of a customer without a status, who may buy.
	NoStatus = "no status"
)

// Customer is what Partner Center answers about a customer: an account, perhaps
// with qualifications, or a failure.
type Customer struct {
	// Account is the account validation status: Allowed, for example. Required
	// unless Failure is set.
	Account string
	// Qualifications are those that the customer holds or has requested.
	Qualifications []Qualification
	// Failure fails every fetch. Usable evidence from earlier fetches still
	// answers, flagged as stale.
	Failure Failure
	// RetryAfter is the wait that Partner Center asks for. It is for the failures
	// PartnerCenterThrottled and PartnerCenterUnavailable; zero means one second.
	RetryAfter time.Duration
}

// Qualification is one qualification in Partner Center's words.
type Qualification struct {
	// Type is Education, GovernmentCommunityCloud, Nonprofit or StateOwnedEntity.
	Type string
	// VettingStatus is Approved, InReview or Denied.
	VettingStatus string
	// VettingReason is Microsoft's reason for a denial.
	VettingReason string
	// VettingCreatedTime is optional.
	VettingCreatedTime time.Time
}

// Failure is why there is no answer: the reason in the error that the caller gets,
// if no evidence is left.
type Failure string

// The failures.
const (
	CustomerNotFound             Failure = "CUSTOMER_NOT_FOUND"
	CustomerNotServed            Failure = "CUSTOMER_NOT_SERVED"
	PartnerCenterUnavailable     Failure = "PARTNER_CENTER_UNAVAILABLE"
	PartnerCenterThrottled       Failure = "PARTNER_CENTER_THROTTLED"
	PartnerCenterCredentials     Failure = "PARTNER_CENTER_CREDENTIALS"
	PartnerCenterInvalidResponse Failure = "PARTNER_CENTER_INVALID_RESPONSE"
	// DeadlineExceeded never answers, so that the caller's deadline ends the
	// wait. Set a deadline: the default is two seconds.
	DeadlineExceeded Failure = "DEADLINE_EXCEEDED"
)

// absence returns the absence that f stands for: such a failure is an answer, which
// is cached and replaces evidence. It is AbsenceNone for all others.
func (f Failure) absence() eligibility.Absence {
	switch f {
	case CustomerNotFound:
		return eligibility.AbsenceNotFound
	case CustomerNotServed:
		return eligibility.AbsenceNotServed
	default:
		return eligibility.AbsenceNone
	}
}

// kind returns the kind of error that a fetch fails with, if f makes it fail.
func (f Failure) kind() (kind eligibility.Kind, fails bool) {
	switch f {
	case PartnerCenterUnavailable, DeadlineExceeded:
		return eligibility.KindUnavailable, true
	case PartnerCenterThrottled:
		return eligibility.KindThrottled, true
	case PartnerCenterCredentials:
		return eligibility.KindCredentials, true
	case PartnerCenterInvalidResponse:
		return eligibility.KindInvalidResponse, true
	default:
		return eligibility.KindInternal, false
	}
}

func (c Customer) validate() error {
	_, fails := c.Failure.kind()
	switch {
	case c.Failure == "" && c.Account == "":
		return errors.New("needs an Account or a Failure")
	case c.Failure != "" && !fails && c.Failure.absence() == eligibility.AbsenceNone:
		return fmt.Errorf("has the unknown Failure %q", c.Failure)
	case c.RetryAfter < 0:
		return errors.New("has a negative RetryAfter")
	}
	return nil
}

// source is an [evidence.Source] that answers from the scripted customers.
type source struct {
	mu        sync.Mutex
	customers map[eligibility.CustomerID]Customer
	otherwise Customer
}

var _ evidence.Source = (*source)(nil)

// newSources returns a source for each partner. What one of them answers, no other
// does.
func newSources(partners map[string]Partner) (map[string]*source, error) {
	sources := make(map[string]*source, len(partners))
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(partners)) {
		of, err := newSource(partners[name])
		if err != nil && len(partners) > 1 {
			err = fmt.Errorf("partner %s: %w", name, err)
		}
		sources[name], faults = of, append(faults, err)
	}
	return sources, errors.Join(faults...)
}

func newSource(cfg Partner) (*source, error) {
	s := &source{customers: make(map[eligibility.CustomerID]Customer), otherwise: Customer{Failure: CustomerNotFound}}
	var faults []error
	if cfg.Default != nil {
		s.otherwise = *cfg.Default
		if err := s.otherwise.validate(); err != nil {
			faults = append(faults, fmt.Errorf("the default customer %w", err))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(cfg.Customers)) {
		faults = append(faults, s.set(id, cfg.Customers[id]))
	}
	return s, errors.Join(faults...)
}

func (s *source) set(id string, customer Customer) error {
	parsed, err := eligibility.ParseCustomerID(id)
	if err != nil {
		return fmt.Errorf("customer ID %q is not a GUID", id)
	}
	if err := customer.validate(); err != nil {
		return fmt.Errorf("customer %s %w", id, err)
	}
	customer.Qualifications = slices.Clone(customer.Qualifications)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.customers[parsed] = customer
	return nil
}

// Fetch implements evidence.Source.
func (s *source) Fetch(ctx context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
	if query.Started != nil {
		query.Started()
	}
	s.mu.Lock()
	customer, ok := s.customers[query.CustomerID]
	if !ok {
		customer = s.otherwise
	}
	s.mu.Unlock()
	fetched := eligibility.Evidence{Facet: query.Facet, Absence: customer.Failure.absence()}
	call := eligibility.Call{Attempts: 1}
	if kind, fails := customer.Failure.kind(); fails {
		if customer.Failure == DeadlineExceeded {
			<-ctx.Done()
		}
		failure := &eligibility.Error{Kind: kind, Call: call, Err: errors.New("scripted failure")}
		if kind == eligibility.KindThrottled || kind == eligibility.KindUnavailable {
			failure.RetryAfter = max(customer.RetryAfter, time.Second)
		}
		return fetched, call, failure
	}
	switch {
	case fetched.Absence != eligibility.AbsenceNone:
	case query.Facet == eligibility.FacetQualifications:
		fetched.Qualifications = customer.held()
	case customer.Account == NoStatus:
		fetched.Status = eligibility.AccountStatusNone
	default:
		fetched.Status, fetched.StatusText = eligibility.ParseAccountStatus(customer.Account), customer.Account
	}
	return fetched, call, nil
}

// Room implements evidence.Source: nothing limits the calls.
func (s *source) Room(context.Context, evidence.Lane) int { return math.MaxInt }

// Obstacles implements evidence.Source.
func (*source) Obstacles(context.Context) []evidence.Obstacle { return nil }

func (c Customer) held() []eligibility.Qualification {
	var held []eligibility.Qualification
	for _, q := range c.Qualifications {
		if parsed, isHeld := eligibility.ParseQualification(q.Type, q.VettingStatus, q.VettingReason, q.VettingCreatedTime); isHeld {
			held = append(held, parsed)
		}
	}
	return held
}
