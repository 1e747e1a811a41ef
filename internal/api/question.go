package api

import (
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// Question is one question as a transport has read it, before any rule was applied:
// a CheckEligibilityRequest without the message. Its zero value is the empty request.
type Question struct {
	// CustomerID is the customer's; IsGUID is false if what was sent is no GUID.
	CustomerID eligibility.CustomerID
	IsGUID     bool

	MaxAgeSet, MinEvidenceTimeSet bool

	Segment   eligibilityv1.Segment
	Operation eligibilityv1.Operation
	// MaxAge and MinEvidenceTime are a Duration and a Timestamp as they were sent.
	MaxAge, MinEvidenceTime Seconds
	Partner                 string

	mark string // why it is refused, as of refusal; empty if it is not
}

// Batch is a batch of questions as gRPC has read it.
type Batch struct {
	Questions []Question

	mark string // as of a Question
}

// Seconds is a Duration or a Timestamp of protobuf, which need not be valid.
type Seconds struct {
	Seconds int64
	Nanos   int32
}

func (s *Seconds) duration() *durationpb.Duration {
	return &durationpb.Duration{Seconds: s.Seconds, Nanos: s.Nanos}
}

func (s *Seconds) timestamp() *timestamppb.Timestamp {
	return &timestamppb.Timestamp{Seconds: s.Seconds, Nanos: s.Nanos}
}

// SetCustomerID sets the customer's ID from the text that was sent.
func (q *Question) SetCustomerID(text string) {
	id, err := eligibility.ParseCustomerID(text)
	q.CustomerID, q.IsGUID = id, err == nil
}

// QuestionOf returns the question of a message.
func QuestionOf(req *eligibilityv1.CheckEligibilityRequest) Question {
	q := Question{Segment: req.GetSegment(), Operation: req.GetOperation(), Partner: req.GetPartner()}
	q.SetCustomerID(req.GetCustomerId())
	if age := req.GetMaxAge(); age != nil {
		q.MaxAge, q.MaxAgeSet = Seconds{age.GetSeconds(), age.GetNanos()}, true
	}
	if at := req.GetMinEvidenceTime(); at != nil {
		q.MinEvidenceTime, q.MinEvidenceTimeSet = Seconds{at.GetSeconds(), at.GetNanos()}, true
	}
	return q
}

// questionsOf returns the questions of a batch.
func questionsOf(req *eligibilityv1.BatchCheckEligibilityRequest) []Question {
	questions := make([]Question, len(req.GetRequests()))
	for i, item := range req.GetRequests() {
		questions[i] = QuestionOf(item)
	}
	return questions
}

// question applies the rules to what a caller asked, finds the partner that it is for,
// and adds every field that is wrong to faults. It is the only place that does so.
func (h *handler) question(q *Question, caller *access.Caller, faults *Violations) (eligibility.Request, *partner) {
	question := eligibility.Request{CustomerID: q.CustomerID}
	if !q.IsGUID {
		faults.Add(FieldCustomerID, "must be a GUID")
	}

	question.Segment = askedSegment(q.Segment, faults)

	does, known := operation(q.Operation)
	if !known {
		faults.Add(FieldOperation, "must be an operation that the API defines")
	}
	question.Operation = does
	question.LacksFresh = !caller.Rights.Has(access.Fresh)

	if q.MaxAgeSet {
		age := q.MaxAge.duration()
		question.MaxAge, question.MaxAgeSet = age.AsDuration(), true
		switch {
		case !age.IsValid():
			faults.Add(FieldMaxAge, "must be a valid duration")
		case question.MaxAge < 0:
			faults.Add(FieldMaxAge, "must not be negative")
		case question.LacksFresh:
			question.MaxAge = max(question.MaxAge, eligibility.FreshAge)
		}
	}

	if q.MinEvidenceTimeSet {
		at := q.MinEvidenceTime.timestamp()
		question.MinEvidenceTime = at.AsTime()
		switch {
		case !at.IsValid():
			faults.Add(FieldMinEvidenceTime, "must be a valid timestamp")
		case question.MinEvidenceTime.After(h.now().Add(maxClockLead)):
			faults.Add(FieldMinEvidenceTime, "must not lie more than one second in the future")
		}
	}
	return question, h.partners.find(q.Partner, caller, faults)
}

// askedSegment converts a segment, and adds a violation if the API defines no such one.
func askedSegment(s eligibilityv1.Segment, faults *Violations) eligibility.Segment {
	asked, known := segment(s)
	if !known {
		faults.Add(FieldSegment, "must be a segment that the API defines")
	}
	return asked
}

// The fields of a question, as violations name them.
const (
	FieldCustomerID      = "customer_id"
	FieldSegment         = "segment"
	FieldMaxAge          = "max_age"
	FieldMinEvidenceTime = "min_evidence_time"
	FieldPartner         = "partner"
	FieldOperation       = "operation"
)
