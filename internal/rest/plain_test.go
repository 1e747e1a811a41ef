package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// The functions here read a batch in the plainest way: they validate the body, take it
// apart, and leave each value to a generic decoder. readBatch has to read the same.

// plainBatch parses the body of a batch; nil is one that readBody could not read.
// What is wrong with the body as a whole spoils the call, what is wrong with one
// item that item. It fails only if ctx ends before it does.
func plainBatch(ctx context.Context, data batchBody, inbound *request) ([]*eligibilityv1.CheckEligibilityRequest, error) {
	if data == nil {
		return nil, nil
	}
	if !json.Valid(data) || kindOf(data) != '{' {
		inbound.Violations.Add("body", "must be one JSON object")
		return nil, nil
	}
	var list json.RawMessage
	seen := false
	for name, value := range plainMembers(data) {
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
	for item := range plainElements(list) {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		place := len(questions)
		question, faults := plainQuestion(item, place)
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

// plainQuestion parses the item of a batch at place.
func plainQuestion(item json.RawMessage, place int) (*eligibilityv1.CheckEligibilityRequest, api.Violations) {
	question := new(eligibilityv1.CheckEligibilityRequest)
	faults := api.ItemViolations(place)
	if kindOf(item) != '{' {
		faults.Add("", "must be a JSON object")
		return question, faults
	}
	seen := make(map[string]bool, 4) // the fields of a question
	for name, value := range plainMembers(item) {
		field := plainFieldNamed(name)
		switch {
		case field == "":
			faults.Add(printable(name, maxShown), "is no member of a question")
			continue
		case seen[field]:
			faults.Add(field, "must stand in a question once")
		default:
			if fault := plainField(question, field, value); fault != "" {
				faults.Add(field, fault)
			}
		}
		seen[field] = true
	}
	return question, faults
}

// plainFieldNamed returns the proto name of the field of a question that name means:
// its proto or its JSON name; empty if it means none.
func plainFieldNamed(name string) string {
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

// plainField sets one field of a question from its JSON value and returns what is
// wrong with the value, if anything. An enumerated value may also be the short word
// of its name, in any case.
func plainField(question *eligibilityv1.CheckEligibilityRequest, field string, value json.RawMessage) string {
	switch field {
	case api.FieldSegment:
		number, fault := plainEnum(value, "segment", eligibilityv1.Segment_value)
		question.Segment = eligibilityv1.Segment(number)
		return fault
	case api.FieldOperation:
		number, fault := plainEnum(value, "operation", eligibilityv1.Operation_value)
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

// plainEnum reads a value of the enumeration that has these values by name: its
// number, its name, or its name without the prefix, in any case. Null is the value
// of an absent member, 0. fault is what is wrong with the value, if anything.
func plainEnum(value json.RawMessage, prefix string, values map[string]int32) (_ int32, fault string) {
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

// blanks are the characters that may stand around a JSON value.
const blanks = " \t\r\n"

// kindOf is the first character of a JSON value, which shows its kind; 0 if
// there is none.
func kindOf(value []byte) byte {
	value = bytes.TrimLeft(value, blanks)
	if len(value) == 0 {
		return 0
	}
	return value[0]
}

// members are the members of a JSON object in their order, repeated ones included.
func plainMembers(object []byte) iter.Seq2[string, json.RawMessage] {
	return func(yield func(string, json.RawMessage) bool) {
		for member := range plainElements(object) {
			end := stringEnd(member, 0)
			value := bytes.TrimLeft(member[end:], blanks)[1:] // behind the colon
			if !yield(plainString(member[:end]), bytes.TrimLeft(value, blanks)) {
				return
			}
		}
	}
}

// elements are what commas separate in a JSON list or object, without the blanks
// around it; nothing if container is empty.
func plainElements(container []byte) iter.Seq[json.RawMessage] {
	return func(yield func(json.RawMessage) bool) {
		container = bytes.Trim(container, blanks)
		if len(container) == 0 {
			return
		}
		rest := container[1 : len(container)-1] // without the brackets
		for start := 0; start < len(rest); {
			end := elementEnd(rest, start)
			element := bytes.Trim(rest[start:end], blanks)
			if len(element) > 0 && !yield(element) { // it is empty in an empty container only
				return
			}
			start = end + 1
		}
	}
}

// elementEnd returns the end of the element that begins at i: at a comma outside
// of all brackets and strings, or at the end.
func elementEnd(data []byte, i int) int {
	depth := 0
	for i < len(data) {
		switch data[i] {
		case '"':
			i = stringEnd(data, i)
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case ',':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return i
}

// stringEnd returns the end of the JSON string that begins at i.
func stringEnd(data []byte, i int) int {
	for i++; data[i] != '"'; i++ {
		if data[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// plainString returns what a JSON string stands for.
func plainString(literal []byte) string {
	if plain := literal[1 : len(literal)-1]; bytes.IndexByte(plain, '\\') < 0 && utf8.Valid(plain) {
		return string(plain)
	}
	var s string
	_ = json.Unmarshal(literal, &s) // it is valid
	return s
}
