package decisionlog

import (
	"errors"
	"strconv"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/jsontext"
)

const (
	// maxTextBytes bounds the texts that Partner Center sent about one facet, as they
	// are written. Longer ones are abridged to maxWordBytes each, in a way that the
	// rule reads alike.
	maxTextBytes = 8 << 10
	maxWordBytes = 512
	// qualificationBytes is what the members of one qualification count beside texts.
	qualificationBytes = 64
)

// AppendJSON appends the record as one line, its end included.
func (r *Record) AppendJSON(b []byte) []byte { return appendEnd(r.appendOpen(b), r.Dropped) }

// appendEnd ends a line.
func appendEnd(b []byte, dropped int64) []byte {
	if dropped > 0 {
		b = strconv.AppendInt(append(b, `,"dropped":`...), dropped, 10)
	}
	return append(b, "}\n"...)
}

// appendOpen appends the record without Dropped and the end of its line.
func (r *Record) appendOpen(b []byte) []byte {
	b = appendTime(append(b, `{"schema":"`+Schema+`","time":`...), r.Time)
	b = jsontext.AppendString(append(b, `,"decision_id":`...), r.DecisionID)
	b = appendMember(b, `,"caller":`, r.Caller)
	b = appendMember(b, `,"person":`, r.Person)
	b = appendMember(b, `,"partner":`, r.Partner)
	b = appendMember(b, `,"via":`, r.Via)
	b = appendMember(b, `,"request_id":`, r.RequestID)
	b = appendMember(b, `,"trace_id":`, r.TraceID)
	b = r.Question.append(append(b, `,"question":`...))
	if !r.Basis.Time.IsZero() {
		b = append(b, `,"evidence":{`...)
		open := len(b)
		b = appendHeld(b, `"account":`, &r.Basis.Account)
		if r.Question.Segment != eligibility.SegmentCommercial {
			name := `"qualifications":`
			if len(b) > open {
				name = `,"qualifications":`
			}
			b = appendHeld(b, name, &r.Basis.Qualifications)
		}
		b = append(b, '}')
	}
	if r.Policy != nil {
		b = append(append(b, `,"policy":`...), r.Policy.json...)
	}
	b = append(append(append(b, `,"outcome":"`...), r.Outcome.String()...), '"')
	if r.Outcome == OutcomeError {
		b = append(append(append(b, `,"reason":"`...), r.Kind.Reason()...), '"')
	} else {
		b = append(b, `,"reasons":[`...)
		for i, reason := range r.Reasons {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(append(append(b, '"'), reason.String()...), '"')
		}
		b = strconv.AppendBool(append(b, `],"stale":`...), r.Stale)
	}
	b = strconv.AppendFloat(append(b, `,"sampled":`...), r.Sampled, 'g', -1, 64)
	return appendMember(b, `,"version":`, r.Version)
}

func (q *Question) append(b []byte) []byte {
	b = append(b, '{')
	open := len(b)
	if q.Customer.form != customerUnknown {
		b = append(q.Customer.append(append(b, `"customer_id":"`...)), '"')
	}
	if q.Invalid {
		return append(b, '}')
	}
	if len(b) > open {
		b = append(b, ',')
	}
	b = append(append(append(b, `"segment":"`...), q.Segment.String()...), '"')
	b = append(append(append(b, `,"operation":"`...), q.Operation.String()...), '"')
	if q.MaxAgeSet {
		b = append(append(append(b, `,"max_age":"`...), q.MaxAge.String()...), '"')
	}
	if !q.MinEvidenceTime.IsZero() {
		b = appendTime(append(b, `,"min_evidence_time":`...), q.MinEvidenceTime)
	}
	return append(b, '}')
}

// appendHeld appends what a check held about a facet, unless that is nothing.
func appendHeld(b []byte, member string, h *eligibility.Held) []byte {
	if h.Evidence == nil && h.Err == nil {
		return b
	}
	b = append(append(b, member...), '{')
	if h.Evidence != nil {
		b = appendEvidence(b, h.Evidence)
		b = appendTime(append(b, `,"fresh_until":`...), h.Lifetime.FreshUntil)
		b = appendTime(append(b, `,"usable_until":`...), h.Lifetime.UsableUntil)
		b = append(append(append(b, `,"tier":"`...), tierName(h.Tier)...), '"')
		b = strconv.AppendBool(append(b, `,"fresh":`...), h.Fresh)
		b = strconv.AppendBool(append(b, `,"fetched":`...), h.Fetched)
	}
	if h.Err != nil {
		if h.Evidence != nil {
			b = append(b, ',')
		}
		b = append(append(append(b, `"error":"`...), kindOf(h.Err).String()...), '"')
	}
	return append(b, '}')
}

// kindOf returns the kind of a failed fetch.
func kindOf(err error) eligibility.Kind {
	if known, ok := errors.AsType[*eligibility.Error](err); ok {
		return known.Kind
	}
	return eligibility.KindInternal
}

func appendEvidence(b []byte, e *eligibility.Evidence) []byte {
	if textBytes(e) > maxTextBytes {
		e = e.Abridge(maxWordBytes)
	}
	switch {
	case e.Absence != eligibility.AbsenceNone:
		b = append(append(append(b, `"absence":"`...), e.Absence.String()...), '"')
	case e.Facet == eligibility.FacetQualifications:
		b = append(b, `"qualifications":[`...)
		for i := range e.Qualifications {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendQualification(b, &e.Qualifications[i])
		}
		b = append(b, ']')
	case e.Status == eligibility.AccountStatusNone:
		b = append(b, `"no_status":true`...)
	default:
		b = jsontext.AppendString(append(b, `"word":`...), e.StatusText)
	}
	b = appendTime(append(b, `,"fetched_at":`...), e.FetchTime)
	return appendMember(b, `,"correlation_id":`, e.CorrelationID)
}

func appendQualification(b []byte, q *eligibility.Qualification) []byte {
	b = jsontext.AppendString(append(b, `{"type":`...), q.TypeText)
	b = appendMember(b, `,"vetting_status":`, q.VettingStatusText)
	b = appendMember(b, `,"vetting_reason":`, q.VettingReason)
	if !q.VettingCreatedTime.IsZero() {
		b = appendTime(append(b, `,"vetting_created_time":`...), q.VettingCreatedTime)
	}
	return append(b, '}')
}

// textBytes is about how many bytes the evidence takes.
func textBytes(e *eligibility.Evidence) int {
	size := len(e.StatusText) + len(e.CorrelationID)
	for i := range e.Qualifications {
		q := &e.Qualifications[i]
		size += qualificationBytes + len(q.TypeText) + len(q.VettingStatusText) + len(q.VettingReason)
	}
	return size
}

// appendMember appends a member unless its text is empty.
func appendMember(b []byte, member, text string) []byte {
	if text == "" {
		return b
	}
	return jsontext.AppendString(append(b, member...), text)
}

// appendTime appends a timestamp with all its digits.
func appendTime(b []byte, at time.Time) []byte {
	return append(at.UTC().AppendFormat(append(b, '"'), time.RFC3339Nano), '"')
}

func tierName(t eligibility.Tier) string {
	switch t {
	case eligibility.TierLocal:
		return "LOCAL"
	case eligibility.TierRedis:
		return "REDIS"
	case eligibility.TierPartnerCenter:
		return "PARTNER_CENTER"
	default:
		return "NONE"
	}
}
