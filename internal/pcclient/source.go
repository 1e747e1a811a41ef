package pcclient

import (
	"context"
	"errors"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// Source converts the answers that a [Client] gets to evidence. It is safe for
// concurrent use.
type Source struct{ client *Client }

var _ evidence.Source = (*Source)(nil)

// NewSource returns a Source that asks client.
func NewSource(client *Client) *Source { return &Source{client: client} }

// Fetch implements evidence.Source.
func (s *Source) Fetch(ctx context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
	client, id := s.client.WithPriority(query.Priority), query.CustomerID.String()
	client.started = query.Started
	evidence := eligibility.Evidence{Facet: query.Facet}
	var call Call
	var err error
	if query.Facet == eligibility.FacetQualifications {
		var held []Qualification
		held, call, err = client.Qualifications(ctx, id)
		evidence.Qualifications = qualifications(held)
	} else {
		var status ValidationStatus
		status, call, err = client.ValidationStatus(ctx, id)
		evidence.Status, evidence.StatusText = accountStatus(status), status.Status
	}
	if err != nil {
		evidence, err = judge(query.Facet, err, eligibility.Call(call))
	}
	evidence.CorrelationID, evidence.RequestID = call.CorrelationID, call.RequestID
	return evidence, eligibility.Call(call), err
}

// Room implements evidence.Source.
func (s *Source) Room(ctx context.Context, lane evidence.Lane) int {
	return s.client.budget.Room(ctx, lane)
}

func accountStatus(status ValidationStatus) eligibility.AccountStatus {
	switch {
	case status.None:
		return eligibility.AccountStatusNone
	case status.Status == "": // no answer
		return eligibility.AccountStatusUnspecified
	default:
		return eligibility.ParseAccountStatus(status.Status)
	}
}

// qualifications leaves out "None", which means that none is held.
func qualifications(items []Qualification) []eligibility.Qualification {
	var held []eligibility.Qualification
	for _, q := range items {
		if parsed, isHeld := eligibility.ParseQualification(q.Type, q.VettingStatus, q.VettingReason, q.VettingCreatedTime); isHeld {
			held = append(held, parsed)
		}
	}
	return held
}

// judge converts a failed call. If the failure is an answer, that there is no such
// customer or that it is another partner's, it becomes evidence; otherwise it
// becomes the domain's error.
func judge(facet eligibility.Facet, err error, call eligibility.Call) (eligibility.Evidence, error) {
	evidence := eligibility.Evidence{Facet: facet}
	failure := &eligibility.Error{Kind: eligibility.KindInternal, Call: call, Err: err}
	var fail *APIError
	if !errors.As(err, &fail) {
		return evidence, failure
	}
	failure.RetryAfter = fail.RetryAfter
	switch fail.Class {
	case ClassNotFound:
		evidence.Absence = eligibility.AbsenceNotFound
		return evidence, nil
	case ClassNotServed:
		evidence.Absence = eligibility.AbsenceNotServed
		return evidence, nil
	case ClassUnavailable:
		failure.Kind = eligibility.KindUnavailable
	case ClassThrottled:
		failure.Kind = eligibility.KindThrottled
	case ClassCredentials:
		failure.Kind = eligibility.KindCredentials
		failure.RetryAfter = 0
	case ClassInvalidResponse:
		failure.Kind = eligibility.KindInvalidResponse
	}
	return evidence, failure
}
