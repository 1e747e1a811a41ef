package rest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// isJSON reports whether a body with this Content-Type is taken: JSON, nothing
// stated, or what curl -d states of any body.
func isJSON(contentType string) bool {
	if contentType == "" {
		return true
	}
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && (media == "application/json" || media == "application/x-www-form-urlencoded")
}

// isEncoded reports whether a body with this Content-Encoding is compressed.
func isEncoded(encodings []string) bool {
	return slices.ContainsFunc(encodings, func(encoding string) bool {
		return encoding != "" && !strings.EqualFold(encoding, "identity")
	})
}

// batchBody is the body of a batch.
type batchBody []byte

// Questions returns how many questions the body holds, if it is well formed.
func (b batchBody) Questions() int { return bytes.Count(b, []byte("{")) - 1 }

// readBody reads the body of a request up to Config.BodyBytes, into the buffer. If it
// cannot, it records why and returns nil.
func (r *Handler) readBody(w http.ResponseWriter, req *http.Request, inbound *request, buffer *[]byte) batchBody {
	// One byte more than the body has, to read its end; a caller who only announces a
	// large body gets no room for it.
	const first, announced = 4 << 10, 16 << 10
	room := max(min(req.ContentLength+1, announced), first)
	data := slices.Grow((*buffer)[:0], int(room))
	from := http.MaxBytesReader(w, req.Body, int64(r.cfg.BodyBytes))
	var err error
	for err == nil {
		if len(data) == cap(data) {
			data = slices.Grow(data, len(data))
		}
		var n int
		n, err = from.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
	}
	*buffer = data
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, io.EOF):
		return data
	case errors.As(err, &tooLarge):
		inbound.Violations.Add("requests", fmt.Sprintf("must fit into a body of %d bytes", tooLarge.Limit))
	default:
		inbound.Violations.Add("body", "could not be read to its end")
	}
	return nil
}

// readBatch parses the body of a batch; nil is one that readBody could not read.
// What is wrong with the body as a whole spoils the call, what is wrong with one
// item that item. It fails only if ctx ends before it does and the body is well formed. It
// keeps no part of data.
func readBatch(ctx context.Context, data batchBody, inbound *request) ([]api.Question, error) {
	if data == nil {
		return nil, nil
	}
	before := inbound.Violations
	r := batchReader{scanner: scanner{data: data}, ctx: ctx, inbound: inbound}
	if !r.body() {
		inbound.Violations, inbound.Items = before, nil
		inbound.Violations.Add("body", "must be one JSON object")
		return nil, nil
	}
	return r.questions, r.err
}

// batchReader reads the body of a batch. Its methods report whether that is well formed.
type batchReader struct {
	scanner

	ctx       context.Context //nolint:containedctx // of the one call
	err       error           // of ctx, if it ends
	inbound   *request
	questions []api.Question
	partner   string // of the question before
}

func (r *batchReader) body() bool {
	if !r.take('{') {
		return false
	}
	seen := false
	for first := true; ; first = false {
		more, ok := r.more(first, '}')
		if !ok {
			return false
		}
		if !more {
			break
		}
		name, ok := r.name()
		if !ok {
			return false
		}
		kind := r.next()
		switch isRequests := string(name) == "requests"; {
		case !isRequests:
			r.inbound.Violations.Add(printable(string(name), maxShown), "is no member of the body")
		case seen:
			r.inbound.Violations.Add("requests", "must stand in the body once")
		case kind == '[':
			seen = true
			if !r.list() {
				return false
			}
			continue
		default:
			seen = true
			if kind != 'n' {
				r.inbound.Violations.Add("requests", "must be a list")
			}
		}
		if _, ok := r.value(1); !ok {
			return false
		}
	}
	r.next()
	return r.at == len(r.data)
}

// list reads the items: of too many, enough for the handler to refuse the batch.
func (r *batchReader) list() bool {
	r.at++ // the bracket
	r.questions = make([]api.Question, 0, min(bytes.Count(r.data, []byte("{")), api.MaxBatch+1))
	for first := true; ; first = false {
		more, ok := r.more(first, ']')
		if !ok || !more {
			return ok
		}
		if r.err == nil {
			r.err = r.ctx.Err()
		}
		if place := len(r.questions); place <= api.MaxBatch && r.err == nil {
			if place == cap(r.questions) { // items that are no objects
				r.questions = slices.Grow(r.questions, 1+min(bytes.Count(r.data, []byte(",")), api.MaxBatch)-place)
			}
			r.questions = append(r.questions, api.Question{})
			ok = r.question(&r.questions[place], place)
		} else {
			_, ok = r.value(2)
		}
		if !ok {
			return false
		}
	}
}

// question reads the item at place.
func (r *batchReader) question(q *api.Question, place int) bool {
	faults := api.ItemViolations(place)
	defer func() {
		if faults.Empty() {
			return
		}
		if r.inbound.Items == nil {
			r.inbound.Items = make(map[int]api.Violations)
		}
		r.inbound.Items[place] = faults
	}()
	if r.next() != '{' {
		faults.Add("", "must be a JSON object")
		_, ok := r.value(2)
		return ok
	}
	r.at++
	var room [6]string
	seen := room[:0] // the fields
	for first := true; ; first = false {
		more, ok := r.more(first, '}')
		if !ok || !more {
			return ok
		}
		name, ok := r.name()
		if !ok {
			return false
		}
		value, ok := r.value(3)
		if !ok {
			return false
		}
		switch field := fieldNamed(string(name)); {
		case field == "":
			faults.Add(printable(string(name), maxShown), "is no member of a question")
		case slices.Contains(seen, field):
			faults.Add(field, "must stand in a question once")
		default:
			seen = append(seen, field)
			if fault := r.setField(q, field, value); fault != "" {
				faults.Add(field, fault)
			}
		}
	}
}

// setField is the function of that name. Questions for one partner share its name.
func (r *batchReader) setField(q *api.Question, field string, value json.RawMessage) string {
	if field == api.FieldPartner {
		if text, plain := plainText(value); plain && string(text) == r.partner {
			q.Partner = r.partner
			return ""
		}
	}
	fault := setField(q, field, value)
	if field == api.FieldPartner {
		r.partner = q.Partner
	}
	return fault
}

// fieldNamed returns the proto name of the field of a question that name means:
// its proto or its JSON name; empty if it means none.
func fieldNamed(name string) string {
	switch name {
	case api.FieldCustomerID, "customerId":
		return api.FieldCustomerID
	case api.FieldSegment:
		return api.FieldSegment
	case api.FieldMaxAge, "maxAge":
		return api.FieldMaxAge
	case api.FieldMinEvidenceTime, "minEvidenceTime":
		return api.FieldMinEvidenceTime
	case api.FieldPartner:
		return api.FieldPartner
	case api.FieldOperation:
		return api.FieldOperation
	default:
		return ""
	}
}

// setField sets one field of a question from its JSON value, which is valid, and returns
// what is wrong with the value, if anything. It keeps no part of the value. An enumerated
// value may also be the short word of its name, in any case.
func setField(q *api.Question, field string, value json.RawMessage) string {
	text, plain := plainText(value)
	switch {
	case field == api.FieldSegment:
		number, fault := segments.read(value)
		q.Segment = eligibilityv1.Segment(number)
		return fault
	case field == api.FieldOperation:
		number, fault := operations.read(value)
		q.Operation = eligibilityv1.Operation(number)
		return fault
	case field == api.FieldCustomerID && plain:
		id, err := eligibility.ParseCustomerID(text)
		q.CustomerID, q.IsGUID = id, err == nil
		return ""
	case field == api.FieldPartner && plain:
		q.Partner = string(text)
		return ""
	}
	var message eligibilityv1.CheckEligibilityRequest
	err := protojson.Unmarshal(fmt.Appendf(nil, "{%q:%s}", field, value), &message)
	read := api.QuestionOf(&message)
	switch field {
	case api.FieldMaxAge:
		if err != nil {
			return `must be a duration in seconds, such as "0s"`
		}
		q.MaxAge, q.MaxAgeSet = read.MaxAge, read.MaxAgeSet
	case api.FieldMinEvidenceTime:
		if err != nil {
			return `must be an RFC 3339 time, such as "2026-11-21T10:00:00Z"`
		}
		q.MinEvidenceTime, q.MinEvidenceTimeSet = read.MinEvidenceTime, read.MinEvidenceTimeSet
	case api.FieldCustomerID:
		q.CustomerID, q.IsGUID = read.CustomerID, read.IsGUID
	case api.FieldPartner:
		q.Partner = read.Partner
	}
	if err != nil {
		return "must be a string"
	}
	return ""
}

// enumeration reads the values of an enumeration.
type enumeration struct {
	prefix string           // of its names
	values map[string]int32 // by name, folded and without the prefix
	fault  string           // what is wrong with any other value
}

var (
	segments   = newEnumeration("segment", eligibilityv1.Segment_value)     //nolint:gochecknoglobals // only read
	operations = newEnumeration("operation", eligibilityv1.Operation_value) //nolint:gochecknoglobals // only read
)

func newEnumeration(prefix string, values map[string]int32) *enumeration {
	e := &enumeration{prefix, make(map[string]int32, len(values)), "must be one of " + strings.Join(enumWords(prefix, values), ", ")}
	for name, number := range values {
		e.values[strings.TrimPrefix(eligibility.FoldWord(name), prefix)] = number
	}
	return e
}

// read reads a value: its number, its name, or its name without the prefix, in any case.
// Null is the value of an absent member, 0. fault is what is wrong with the value, if
// anything.
func (e *enumeration) read(value json.RawMessage) (_ int32, fault string) {
	if text, plain := plainText(value); plain {
		var room [64]byte
		folded := eligibility.AppendFolded(room[:0], text)
		if number, ok := e.values[string(bytes.TrimPrefix(folded, []byte(e.prefix)))]; ok {
			return number, ""
		}
		return 0, e.fault
	}
	var word string
	var number *int32
	switch {
	case json.Unmarshal(value, &number) == nil:
		if number == nil {
			return 0, ""
		}
		for _, known := range e.values {
			if known == *number {
				return known, ""
			}
		}
	case json.Unmarshal(value, &word) == nil:
		if number, ok := e.values[strings.TrimPrefix(eligibility.FoldWord(word), e.prefix)]; ok {
			return number, ""
		}
	}
	return 0, e.fault
}

// enumWords returns the short words of an enumeration, in its order.
func enumWords(prefix string, values map[string]int32) []string {
	words := make([]string, 0, len(values))
	for name, number := range values {
		if number != 0 { // unspecified
			words = append(words, strings.TrimPrefix(name, strings.ToUpper(prefix)+"_"))
		}
	}
	slices.SortFunc(words, func(a, b string) int {
		name := strings.ToUpper(prefix) + "_"
		return cmp.Compare(values[name+a], values[name+b])
	})
	return words
}
