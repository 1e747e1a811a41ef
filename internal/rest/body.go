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
	"google.golang.org/protobuf/proto"

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

// restBatch is the body of a batch.
type batchBody []byte

// Questions returns how many questions the body holds, if it is well formed.
func (b batchBody) Questions() int { return bytes.Count(b, []byte("{")) - 1 }

// readBody reads the body of a request up to Config.BodyBytes. If it cannot, it
// records why and returns nil.
func (r *Handler) readBody(w http.ResponseWriter, req *http.Request, inbound *request) batchBody {
	data, err := io.ReadAll(http.MaxBytesReader(w, req.Body, int64(r.cfg.BodyBytes)))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		inbound.Violations.Add("requests", fmt.Sprintf("must fit into a body of %d bytes", tooLarge.Limit))
	case err != nil:
		inbound.Violations.Add("body", "could not be read to its end")
	default:
		return data
	}
	return nil
}

// readBatch parses the body of a batch; nil is one that readBody could not read.
// What is wrong with the body as a whole spoils the call, what is wrong with one
// item that item. It fails only if ctx ends before it does.
func readBatch(ctx context.Context, data batchBody, inbound *request) ([]*eligibilityv1.CheckEligibilityRequest, error) {
	if data == nil {
		return nil, nil
	}
	if !json.Valid(data) || kindOf(data) != '{' {
		inbound.Violations.Add("body", "must be one JSON object")
		return nil, nil
	}
	var list json.RawMessage
	seen := false
	for name, value := range members(data) {
		switch {
		case name != "requests":
			inbound.Violations.Add(printable(name, maxShown), "is no member of the body")
			continue
		case seen:
			inbound.Violations.Add("requests", "must stand in the body once")
		case kindOf(value) == '[':
			list = value
		case kindOf(value) != 'n':
			inbound.Violations.Add("requests", "must be a list")
		}
		seen = true
	}
	var questions []*eligibilityv1.CheckEligibilityRequest
	inbound.Items = make(map[int]api.Violations)
	for item := range elements(list) {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		place := len(questions)
		question, faults := readQuestion(item, place)
		if !faults.Empty() {
			inbound.Items[place] = faults
		}
		questions = append(questions, question)
		if len(questions) > api.MaxBatch { // enough for the handler to refuse the batch
			break
		}
	}
	return questions, nil
}

// readQuestion parses the item of a batch at place.
func readQuestion(item json.RawMessage, place int) (*eligibilityv1.CheckEligibilityRequest, api.Violations) {
	question := new(eligibilityv1.CheckEligibilityRequest)
	faults := api.ItemViolations(place)
	if kindOf(item) != '{' {
		faults.Add("", "must be a JSON object")
		return question, faults
	}
	seen := make(map[string]bool, 4) // the fields of a question
	for name, value := range members(item) {
		field := fieldNamed(name)
		switch {
		case field == "":
			faults.Add(printable(name, maxShown), "is no member of a question")
			continue
		case seen[field]:
			faults.Add(field, "must stand in a question once")
		default:
			if fault := setField(question, field, value); fault != "" {
				faults.Add(field, fault)
			}
		}
		seen[field] = true
	}
	return question, faults
}

// fieldNamed returns the proto name of the field of a question that name means:
// its proto or its JSON name; empty if it means none.
func fieldNamed(name string) string {
	fields := (*eligibilityv1.CheckEligibilityRequest)(nil).ProtoReflect().Descriptor().Fields()
	field := fields.ByTextName(name)
	if field == nil {
		field = fields.ByJSONName(name)
	}
	if field == nil {
		return ""
	}
	return string(field.Name())
}

// setField sets one field of a question from its JSON value and returns what is
// wrong with the value, if anything. An enumerated value may also be the short word
// of its name, in any case.
func setField(question *eligibilityv1.CheckEligibilityRequest, field string, value json.RawMessage) string {
	switch field {
	case api.FieldSegment:
		number, fault := enumValue(value, "segment", eligibilityv1.Segment_value)
		question.Segment = eligibilityv1.Segment(number)
		return fault
	case api.FieldOperation:
		number, fault := enumValue(value, "operation", eligibilityv1.Operation_value)
		question.Operation = eligibilityv1.Operation(number)
		return fault
	}
	var inbound eligibilityv1.CheckEligibilityRequest
	if protojson.Unmarshal(fmt.Appendf(nil, "{%q:%s}", field, value), &inbound) == nil {
		proto.Merge(question, &inbound)
		return ""
	}
	switch field {
	case api.FieldMaxAge:
		return `must be a duration in seconds, such as "0s"`
	case api.FieldMinEvidenceTime:
		return `must be an RFC 3339 time, such as "2026-11-21T10:00:00Z"`
	default:
		return "must be a string"
	}
}

// enumValue reads a value of the enumeration that has these values by name: its
// number, its name, or its name without the prefix, in any case. Null is the value
// of an absent member, 0. fault is what is wrong with the value, if anything.
func enumValue(value json.RawMessage, prefix string, values map[string]int32) (_ int32, fault string) {
	short := func(name string) string { return strings.TrimPrefix(eligibility.FoldWord(name), prefix) }
	var word string
	var number *int32
	switch {
	case json.Unmarshal(value, &number) == nil:
		if number == nil {
			return 0, ""
		}
		for _, known := range values {
			if known == *number {
				return known, ""
			}
		}
	case json.Unmarshal(value, &word) == nil:
		for name, known := range values {
			if short(name) == short(word) {
				return known, ""
			}
		}
	}
	return 0, "must be one of " + strings.Join(enumWords(prefix, values), ", ")
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
