package changes

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// The types of events, as CloudEvents carries them.
const (
	typeChanged   = "eligibility.evidence.changed.v1"
	typeAbandoned = "eligibility.review.abandoned.v1"
)

// maxEventBytes is the size of the largest event that Parse reads: two pieces of
// evidence of the largest size that the cache stores, with room for escapes.
const maxEventBytes = 16 << 20

var errEvent = errors.New("changes: unreadable event")

// event is the CloudEvents 1.0 form of a change. The order of members is that on the
// wire. Package cache appends its seal as a further attribute.
type event struct {
	SpecVersion     string `json:"specversion"`
	ID              string `json:"id"`
	Source          string `json:"source"`
	Type            string `json:"type"`
	Subject         string `json:"subject"`
	Time            string `json:"time"`
	DataContentType string `json:"datacontenttype"`
	Data            data   `json:"data"`
}

// data has the same members for both types but for PendingSince. A member that was not
// known, or not sent, is null.
type data struct {
	CustomerID           string  `json:"customerId"`
	Facet                string  `json:"facet"`
	Before               *facts  `json:"before"`
	After                *facts  `json:"after"`
	EvidenceTime         string  `json:"evidenceTime"`
	PreviousEvidenceTime *string `json:"previousEvidenceTime"`
	CorrelationID        string  `json:"correlationId"`
	FirstSeen            bool    `json:"firstSeen"`
	PendingSince         *string `json:"pendingSince,omitempty"`
}

// facts has one of its members.
type facts struct {
	Absence        string           `json:"absence,omitempty"`
	AccountStatus  *json.RawMessage `json:"accountStatus,omitempty"` // a string, or null for no status
	Qualifications *[]qualification `json:"qualifications,omitempty"`
}

type qualification struct {
	Type               string  `json:"type"`
	VettingStatus      *string `json:"vettingStatus"`
	VettingReason      *string `json:"vettingReason"`
	VettingCreatedTime *string `json:"vettingCreatedTime"`
}

// FirstSeen reports whether nothing was known before.
func (c *Change) FirstSeen() bool { return c.Type == TypeChanged && c.Before == nil }

// ID returns the id of the event: customer, facet and evidence time, so that the same
// evidence always has the same id. That of an abandoned review differs from that of
// the change which began it.
func (c *Change) ID() string {
	id := c.Key.CustomerID.String() + ":" + c.Key.Facet.String() + ":" + strconv.FormatInt(c.After.FetchTime.UnixNano(), 10)
	if c.Type == TypeAbandoned {
		id += ":abandoned"
	}
	return id
}

// AppendJSON appends the change as a CloudEvents 1.0 event in structured JSON, of the
// given source. Bytes of words that are not UTF-8 are replaced.
func (c *Change) AppendJSON(b []byte, source string) []byte {
	e := event{
		SpecVersion: "1.0", ID: c.ID(), Source: source, Type: typeChanged,
		Subject: c.Key.CustomerID.String(), Time: formatTime(c.After.FetchTime), DataContentType: "application/json",
		Data: data{
			CustomerID: c.Key.CustomerID.String(), Facet: c.Key.Facet.String(),
			Before: factsOf(c.Before), After: factsOf(c.After),
			EvidenceTime:  formatTime(c.After.FetchTime),
			CorrelationID: valid(c.After.CorrelationID), FirstSeen: c.FirstSeen(),
		},
	}
	if c.Before != nil {
		e.Data.PreviousEvidenceTime = new(formatTime(c.Before.FetchTime))
	}
	if c.Type == TypeAbandoned {
		e.Type, e.Data.PendingSince = typeAbandoned, new(formatTime(c.PendingSince))
	}
	return appendEvent(b, &e)
}

func appendEvent(b []byte, e *event) []byte {
	out := bytes.NewBuffer(b)
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(e); err != nil {
		panic(err) // strings, and raw messages of ours, always encode
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

func factsOf(evidence *eligibility.Evidence) *facts {
	switch {
	case evidence == nil:
		return nil
	case evidence.Absence != eligibility.AbsenceNone:
		return &facts{Absence: evidence.Absence.String()}
	case evidence.Facet == eligibility.FacetAccount:
		status, _ := json.Marshal(optional(evidence.StatusText)) //nolint:errchkjson // a string always encodes
		return &facts{AccountStatus: new(json.RawMessage(status))}
	default:
		held := make([]qualification, 0, len(evidence.Qualifications))
		for i := range evidence.Qualifications {
			q := &evidence.Qualifications[i]
			held = append(held, qualification{
				Type: valid(q.TypeText), VettingStatus: optional(q.VettingStatusText),
				VettingReason: optional(q.VettingReason), VettingCreatedTime: optionalTime(q.VettingCreatedTime),
			})
		}
		return &facts{Qualifications: &held}
	}
}

// Parse reads an event. Anything that AppendJSON would not have written is an error,
// which repeats nothing of the event. The evidence before the change has no
// CorrelationID.
func Parse(text []byte) (*Change, error) {
	if len(text) > maxEventBytes {
		return nil, fmt.Errorf("%w: too large", errEvent)
	}
	var e event
	if json.Unmarshal(text, &e) != nil || e.Source == "" {
		return nil, errEvent
	}
	c, err := e.change()
	if err != nil {
		return nil, err
	}
	// JSON has many encodings of one event, AppendJSON writes one of them. It also
	// repeats what the event states twice, so they must agree.
	if !bytes.Equal(c.AppendJSON(make([]byte, 0, len(text)+1), e.Source), text) {
		return nil, fmt.Errorf("%w: not in canonical form", errEvent)
	}
	return c, nil
}

func (e *event) change() (*Change, error) {
	c := new(Change)
	var err error
	if c.Key.CustomerID, err = eligibility.ParseCustomerID(e.Data.CustomerID); err != nil {
		return nil, errEvent
	}
	if e.Data.Facet == eligibility.FacetQualifications.String() {
		c.Key.Facet = eligibility.FacetQualifications
	}
	if c.After, err = e.Data.After.evidence(c.Key.Facet, &e.Data.EvidenceTime); err != nil {
		return nil, err
	}
	c.After.CorrelationID = e.Data.CorrelationID
	if e.Data.Before != nil {
		if c.Before, err = e.Data.Before.evidence(c.Key.Facet, e.Data.PreviousEvidenceTime); err != nil {
			return nil, err
		}
	}
	if e.Type == typeAbandoned {
		c.Type = TypeAbandoned
		if c.PendingSince, err = parseTime(e.Data.PendingSince); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// evidence returns the evidence of a facet that was fetched at the time.
func (f *facts) evidence(facet eligibility.Facet, at *string) (*eligibility.Evidence, error) {
	fetched, err := parseTime(at)
	// The cache stores nanoseconds of the Unix era, and so does the id of an event.
	if err != nil || f == nil || !time.Unix(0, fetched.UnixNano()).Equal(fetched) {
		return nil, errEvent
	}
	evidence := &eligibility.Evidence{Facet: facet, FetchTime: fetched}
	switch {
	case f.Absence == eligibility.AbsenceNotFound.String():
		evidence.Absence = eligibility.AbsenceNotFound
	case f.Absence == eligibility.AbsenceNotServed.String():
		evidence.Absence = eligibility.AbsenceNotServed
	case facet == eligibility.FacetQualifications:
		return evidence, f.readQualifications(evidence)
	default:
		return evidence, f.readStatus(evidence)
	}
	return evidence, nil
}

func (f *facts) readStatus(evidence *eligibility.Evidence) error {
	// encoding/json reads null into a pointer as nil, as if the member were missing;
	// the canonical form has it.
	evidence.Status = eligibility.AccountStatusNone
	if f.AccountStatus == nil {
		return nil
	}
	if json.Unmarshal(*f.AccountStatus, &evidence.StatusText) != nil || evidence.StatusText == "" {
		return errEvent
	}
	evidence.Status = eligibility.ParseAccountStatus(evidence.StatusText)
	return nil
}

func (f *facts) readQualifications(evidence *eligibility.Evidence) error {
	if f.Qualifications == nil {
		return errEvent
	}
	for _, q := range *f.Qualifications {
		var created time.Time
		if q.VettingCreatedTime != nil {
			var err error
			if created, err = parseTime(q.VettingCreatedTime); err != nil {
				return err
			}
		}
		held := eligibility.Qualification{
			TypeText: q.Type, VettingStatusText: word(q.VettingStatus), VettingReason: word(q.VettingReason), VettingCreatedTime: created,
		}
		held.Type, _ = eligibility.ParseQualificationType(held.TypeText)
		held.VettingStatus = eligibility.ParseVettingStatus(held.VettingStatusText)
		evidence.Qualifications = append(evidence.Qualifications, held)
	}
	return nil
}

func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func parseTime(s *string) (time.Time, error) {
	if s == nil {
		return time.Time{}, errEvent
	}
	t, err := time.Parse(time.RFC3339Nano, *s)
	if err != nil {
		return time.Time{}, errEvent // err repeats s
	}
	return t.UTC(), nil
}

// optionalTime returns nil for a time that was not sent, or that RFC 3339 cannot express.
func optionalTime(t time.Time) *string {
	if year := t.UTC().Year(); t.IsZero() || year < 0 || year > 9999 {
		return nil
	}
	return new(formatTime(t))
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return new(valid(s))
}

func word(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func valid(s string) string { return strings.ToValidUTF8(s, "�") }
