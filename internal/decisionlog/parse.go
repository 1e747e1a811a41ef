package decisionlog

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// MaxLine is the most bytes that a line may have, its end included. None that the
// service writes comes near it.
const MaxLine = 1 << 20

// The errors of Parse. They repeat nothing of the line.
var (
	errTooLong  = errors.New("decision log: the line is too long")
	errNotJSON  = errors.New("decision log: the line is no JSON object, or a member has the wrong type")
	errSchema   = errors.New("decision log: the line is of another schema")
	errTime     = errors.New("decision log: a timestamp or duration cannot be read")
	errWord     = errors.New("decision log: a word is not known")
	errCustomer = errors.New("decision log: the customer is neither an ID nor a hash")
	errPolicy   = errors.New("decision log: the policy cannot be read")
)

// line is the JSON of a record.
type line struct {
	Schema     string       `json:"schema"`
	Time       string       `json:"time"`
	DecisionID string       `json:"decision_id"`
	Caller     string       `json:"caller"`
	Person     string       `json:"person"`
	Partner    string       `json:"partner"`
	Via        string       `json:"via"`
	RequestID  string       `json:"request_id"`
	TraceID    string       `json:"trace_id"`
	Question   lineQuestion `json:"question"`
	Evidence   *struct {
		Account        *lineHeld `json:"account"`
		Qualifications *lineHeld `json:"qualifications"`
	} `json:"evidence"`
	Policy  json.RawMessage `json:"policy"`
	Outcome string          `json:"outcome"`
	Reasons []string        `json:"reasons"`
	Reason  string          `json:"reason"`
	Stale   bool            `json:"stale"`
	Sampled float64         `json:"sampled"`
	Version string          `json:"version"`
	Dropped int64           `json:"dropped"`
}

type lineQuestion struct {
	CustomerID      string  `json:"customer_id"`
	Segment         *string `json:"segment"`
	Operation       string  `json:"operation"`
	MaxAge          *string `json:"max_age"`
	MinEvidenceTime string  `json:"min_evidence_time"`
}

type lineHeld struct {
	Absence        string              `json:"absence"`
	NoStatus       bool                `json:"no_status"`
	Word           *string             `json:"word"`
	Qualifications []lineQualification `json:"qualifications"`
	FetchedAt      string              `json:"fetched_at"`
	CorrelationID  string              `json:"correlation_id"`
	FreshUntil     string              `json:"fresh_until"`
	UsableUntil    string              `json:"usable_until"`
	Tier           string              `json:"tier"`
	Fresh          bool                `json:"fresh"`
	Fetched        bool                `json:"fetched"`
	Error          *string             `json:"error"`
}

type lineQualification struct {
	Type               string `json:"type"`
	VettingStatus      string `json:"vetting_status"`
	VettingReason      string `json:"vetting_reason"`
	VettingCreatedTime string `json:"vetting_created_time"`
}

// Parse is the Parse of a [Parser]. It is safe for concurrent use.
func Parse(text []byte) (Record, error) {
	p, _ := parsers.Get().(*Parser)
	defer parsers.Put(p)
	return p.Parse(text)
}

var parsers = sync.Pool{New: func() any { return new(Parser) }} //nolint:gochecknoglobals // nobody sees which one is used

// Parser reads lines, of which neighbouring ones share their policy. The zero value is
// ready. It is not safe for concurrent use.
type Parser struct {
	err    error   // the first of a line
	policy *Policy // of the last line that has one
}

// Parse reads one line, with or without its end. Members that it does not know are
// ignored. Its errors repeat nothing of the line.
func (p *Parser) Parse(text []byte) (Record, error) {
	p.err = nil
	if len(text) > MaxLine {
		return Record{}, errTooLong
	}
	var l line
	if json.Unmarshal(text, &l) != nil {
		return Record{}, errNotJSON
	}
	if l.Schema != Schema {
		return Record{}, errSchema
	}
	r := Record{
		DecisionID: l.DecisionID, Caller: l.Caller, Person: l.Person, Partner: l.Partner, Via: l.Via, RequestID: l.RequestID, TraceID: l.TraceID,
		Stale: l.Stale, Sampled: l.Sampled, Version: l.Version, Dropped: l.Dropped,
	}
	r.Time = p.time(l.Time)
	p.question(&r.Question, &l.Question)
	if l.Evidence != nil {
		r.Basis.Time = r.Time
		p.held(&r.Basis.Account, l.Evidence.Account, eligibility.FacetAccount)
		p.held(&r.Basis.Qualifications, l.Evidence.Qualifications, eligibility.FacetQualifications)
	}
	if len(l.Policy) > 0 {
		r.Policy = p.policyOf(l.Policy)
	}
	p.outcome(&r, &l)
	if p.err != nil {
		return Record{}, p.err
	}
	return r, nil
}

// fail keeps the first error.
func (p *Parser) fail(err error) {
	if p.err == nil {
		p.err = err
	}
}

func (p *Parser) time(text string) time.Time {
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || at.IsZero() {
		p.fail(errTime)
	}
	return at.UTC()
}

// optional is time for a member that may be absent.
func (p *Parser) optional(text string) time.Time {
	if text == "" {
		return time.Time{}
	}
	return p.time(text)
}

func (p *Parser) question(q *Question, l *lineQuestion) {
	q.Customer = p.customer(l.CustomerID)
	if l.Segment == nil {
		q.Invalid = true
		return
	}
	q.Segment = word(p, *l.Segment, eligibility.SegmentCommercial, eligibility.SegmentNonprofit)
	q.Operation = word(p, l.Operation, eligibility.OperationPurchase, eligibility.OperationCancellation)
	if l.MaxAge != nil {
		var err error
		if q.MaxAge, err = time.ParseDuration(*l.MaxAge); err != nil {
			p.fail(errTime)
		}
		q.MaxAgeSet = true
	}
	q.MinEvidenceTime = p.optional(l.MinEvidenceTime)
}

// word returns the value from first to last whose String is text.
func word[T interface {
	~uint8
	String() string
}](p *Parser, text string, first, last T) T {
	for value := first; value <= last; value++ {
		if value.String() == text {
			return value
		}
	}
	p.fail(errWord)
	return first
}

func (p *Parser) customer(text string) Customer {
	if text == "" {
		return Customer{}
	}
	if digits, hashed := strings.CutPrefix(text, hashPrefix); hashed {
		c := Customer{form: customerHashed}
		if len(digits) != hex.EncodedLen(len(c.id)) {
			p.fail(errCustomer)
			return Customer{}
		}
		if _, err := hex.Decode(c.id[:], []byte(digits)); err != nil {
			p.fail(errCustomer)
		}
		return c
	}
	id, err := eligibility.ParseCustomerID(text)
	if err != nil {
		p.fail(errCustomer)
	}
	return PlainCustomer(id)
}

func (p *Parser) held(h *eligibility.Held, l *lineHeld, facet eligibility.Facet) {
	if l == nil {
		return
	}
	if l.Error != nil {
		h.Err = &eligibility.Error{Kind: p.kind(*l.Error, eligibility.Kind.String)}
	}
	if l.FetchedAt == "" {
		return
	}
	h.Evidence = p.evidence(l, facet)
	h.Lifetime = eligibility.Lifetime{FreshUntil: p.time(l.FreshUntil), UsableUntil: p.time(l.UsableUntil)}
	h.Fresh, h.Fetched = l.Fresh, l.Fetched
	for tier := eligibility.TierLocal; tier <= eligibility.TierPartnerCenter; tier++ {
		if tierName(tier) == l.Tier {
			h.Tier = tier
		}
	}
	if h.Tier == eligibility.TierNone && l.Tier != tierName(eligibility.TierNone) {
		p.fail(errWord)
	}
}

func (p *Parser) evidence(l *lineHeld, facet eligibility.Facet) *eligibility.Evidence {
	e := &eligibility.Evidence{Facet: facet, FetchTime: p.time(l.FetchedAt), CorrelationID: l.CorrelationID}
	switch {
	case l.Absence == eligibility.AbsenceNotFound.String():
		e.Absence = eligibility.AbsenceNotFound
	case l.Absence == eligibility.AbsenceNotServed.String():
		e.Absence = eligibility.AbsenceNotServed
	case l.Absence != "":
		p.fail(errWord)
	case facet == eligibility.FacetQualifications:
		for i := range l.Qualifications {
			of := &l.Qualifications[i]
			q, held := eligibility.ParseQualification(of.Type, of.VettingStatus, of.VettingReason, p.optional(of.VettingCreatedTime))
			if !held {
				p.fail(errWord)
				break
			}
			e.Qualifications = append(e.Qualifications, q)
		}
	case l.NoStatus:
		e.Status = eligibility.AccountStatusNone
	case l.Word != nil:
		e.Status, e.StatusText = eligibility.ParseAccountStatus(*l.Word), *l.Word
	default:
		p.fail(errWord)
	}
	return e
}

func (p *Parser) policyOf(member []byte) *Policy {
	if p.policy != nil && bytes.Equal(p.policy.json, member) {
		return p.policy
	}
	var l policyLine
	if json.Unmarshal(member, &l) != nil {
		p.fail(errPolicy)
		return nil
	}
	policy, err := l.policy()
	if err != nil {
		p.fail(err)
		return nil
	}
	policy.json = bytes.Clone(member)
	p.policy = policy
	return policy
}

func (p *Parser) outcome(r *Record, l *line) {
	r.Outcome = word(p, l.Outcome, OutcomeError, OutcomeBlocked)
	if r.Outcome == OutcomeError {
		r.Kind = p.kind(l.Reason, eligibility.Kind.Reason)
		return
	}
	for _, reason := range l.Reasons {
		r.Reasons = append(r.Reasons, word(p, reason, eligibility.ReasonAccountAllowed, eligibility.ReasonUndecidable))
	}
}

// kind returns the kind of error with a name.
func (p *Parser) kind(text string, name func(eligibility.Kind) string) eligibility.Kind {
	for _, kind := range eligibility.Kinds() {
		if name(kind) == text {
			return kind
		}
	}
	p.fail(errWord)
	return eligibility.KindInternal
}
