package decisionlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// Filter selects records. Its zero value selects all.
type Filter struct {
	// Customer is the customer in question; nil for all.
	Customer *eligibility.CustomerID
	// HashKey is the key of logs that name customers by a hash; nil if there is none.
	HashKey []byte
	// DecisionID is that of a question, or of a batch, of which it selects all items.
	DecisionID string
	Caller     string
	// Outcome is nil for all.
	Outcome *Outcome
	// From and Until bound the time: not before From, and before Until. A zero time
	// sets no bound.
	From, Until time.Time
}

// ErrHashed is the error of Search.Select if the record names its customer by a hash,
// and the filter selects by customer and has no key.
var ErrHashed = errors.New("the log names customers by a hash, and no key was given")

// Search selects the lines that a filter selects. It is safe for concurrent use.
type Search struct {
	filter    Filter
	customers []Customer // any of them
	// needles are parts of every line that matches. Those of customers are separate,
	// any of which suffices.
	needles, customerNeedles [][]byte
}

// NewSearch returns the search for what filter selects.
func NewSearch(filter *Filter) *Search {
	s := &Search{filter: *filter}
	if filter.Customer != nil {
		s.customers = append(s.customers, PlainCustomer(*filter.Customer))
		if filter.HashKey != nil {
			s.customers = append(s.customers, HashedCustomer(filter.HashKey, *filter.Customer))
		} else {
			s.customerNeedles = append(s.customerNeedles, []byte(hashPrefix))
		}
		for _, customer := range s.customers {
			s.customerNeedles = append(s.customerNeedles, []byte(customer.String()))
		}
	}
	if filter.Outcome != nil {
		s.needles = append(s.needles, []byte(`"outcome":"`+filter.Outcome.String()+`"`)) // policies have such words, too
	}
	for _, text := range []string{filter.DecisionID, filter.Caller} {
		if needle := verbatim(text); needle != "" {
			s.needles = append(s.needles, []byte(needle))
		}
	}
	return s
}

// verbatim returns the longest part of text that every encoder of JSON writes as it
// is.
func verbatim(text string) string {
	longest := ""
	for part := range strings.FieldsFuncSeq(text, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_' || r == '.')
	}) {
		if len(part) > len(longest) {
			longest = part
		}
	}
	return longest
}

// Select returns the record of a line if the filter selects it. Its errors are those
// of Parse, and ErrHashed. A line that cannot match is checked to be a record's,
// without reading its members.
func (s *Search) Select(line []byte) (record Record, selected bool, err error) {
	if !s.mayMatch(line) && bytes.HasPrefix(line, []byte(lineStart)) && json.Valid(line) {
		return Record{}, false, nil
	}
	if record, err = Parse(line); err != nil {
		return Record{}, false, err
	}
	if selected, err = s.matches(&record); !selected {
		return Record{}, false, err
	}
	return record, true, nil
}

// lineStart is how each line begins that the service writes. Its time follows.
const lineStart = `{"schema":"` + Schema + `","time":"`

// mayMatch reports whether a line that the service has written may be selected.
func (s *Search) mayMatch(line []byte) bool {
	for _, needle := range s.needles {
		if !bytes.Contains(line, needle) {
			return false
		}
	}
	if len(s.customerNeedles) > 0 && !containsAny(line, s.customerNeedles) {
		return false
	}
	if s.filter.From.IsZero() && s.filter.Until.IsZero() {
		return true
	}
	text, _, ended := bytes.Cut(line[min(len(lineStart), len(line)):], []byte{'"'})
	at, err := time.Parse(time.RFC3339Nano, string(text))
	return !ended || err != nil || s.inTime(at)
}

func containsAny(line []byte, needles [][]byte) bool {
	for _, needle := range needles {
		if bytes.Contains(line, needle) {
			return true
		}
	}
	return false
}

func (s *Search) inTime(at time.Time) bool {
	return !at.Before(s.filter.From) && (s.filter.Until.IsZero() || at.Before(s.filter.Until))
}

// matches reports whether the filter selects a record.
func (s *Search) matches(r *Record) (bool, error) {
	f := &s.filter
	switch {
	case !s.inTime(r.Time),
		f.Outcome != nil && *f.Outcome != r.Outcome,
		f.Caller != "" && f.Caller != r.Caller,
		f.DecisionID != "" && f.DecisionID != r.DecisionID && !strings.HasPrefix(r.DecisionID, f.DecisionID+"/"):
		return false, nil
	case f.Customer == nil:
		return true, nil
	case f.HashKey == nil && r.Question.Customer.form == customerHashed:
		return false, ErrHashed
	}
	return slices.Contains(s.customers, r.Question.Customer), nil
}
