package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// maxBodyBytes bounds a request on either transport. A batch of maxBatch
// questions takes about a fifth of it.
const maxBodyBytes = 1 << 20

// isJSON reports whether a body with this Content-Type is taken: JSON, nothing
// said, or what curl -d says of any body.
func isJSON(contentType string) bool {
	if contentType == "" {
		return true
	}
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && (media == "application/json" || media == "application/x-www-form-urlencoded")
}

// readBatchRequest reads the questions of a batch. What is wrong with the body
// as a whole spoils the call, what is wrong with one item that item.
func readBatchRequest(w http.ResponseWriter, req *http.Request, said *restRequest, maxAge *durationpb.Duration) *eligibilityv1.BatchCheckEligibilityRequest {
	readQuery(req.URL.RawQuery, said)
	batch := new(eligibilityv1.BatchCheckEligibilityRequest)
	data, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBodyBytes))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		said.violate("requests", fmt.Sprintf("must fit into a body of %d bytes", maxBodyBytes))
	case err != nil:
		said.violate("body", "could not be read to its end")
	default:
		batch.Requests = readBatch(data, said)
	}
	for _, question := range batch.GetRequests() {
		narrow(question, maxAge)
	}
	return batch
}

// readBatch reads the body of a batch.
func readBatch(data []byte, said *restRequest) []*eligibilityv1.CheckEligibilityRequest {
	members, err := readObject(data)
	if err != nil {
		said.violate("body", "must be one JSON object")
		return nil
	}
	var items []json.RawMessage
	seen := false
	for _, member := range members {
		switch {
		case member.name != "requests":
			said.violate(printable(member.name), "is no member of the body")
			continue
		case seen:
			said.violate("requests", "must stand in the body once")
		case json.Unmarshal(member.value, &items) != nil:
			said.violate("requests", "must be a list")
		}
		seen = true
	}
	// One item too many is enough for the handler to refuse the batch.
	items = items[:min(len(items), maxBatch+1)]
	questions := make([]*eligibilityv1.CheckEligibilityRequest, len(items))
	said.items = make(map[int][]eligibility.Violation)
	for i, item := range items {
		var faults []eligibility.Violation
		questions[i], faults = readQuestion(item, fmt.Sprintf("requests[%d]", i))
		if len(faults) > 0 {
			said.items[i] = faults
		}
	}
	return questions
}

// readQuestion reads one item of a batch, whose place is path.
func readQuestion(item json.RawMessage, path string) (*eligibilityv1.CheckEligibilityRequest, []eligibility.Violation) {
	question := new(eligibilityv1.CheckEligibilityRequest)
	members, err := readObject(item)
	if err != nil {
		return question, []eligibility.Violation{{Field: path, Description: "must be a JSON object"}}
	}
	var faults []eligibility.Violation
	seen := make(map[string]bool, len(members))
	for _, member := range members {
		field := fieldNamed(member.name)
		var fault string
		switch {
		case field == "":
			field, fault = printable(member.name), "is no member of a question"
		case seen[field]:
			fault = "must stand in a question once"
		default:
			fault = setField(question, field, member.value)
		}
		seen[field] = true
		if fault != "" {
			faults = append(faults, eligibility.Violation{Field: path + "." + field, Description: fault})
		}
	}
	return question, faults
}

// fieldNamed returns the proto name of the field of a question that name means:
// its proto or its JSON name; empty where it means none.
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

// setField sets one field of a question from its JSON value and says what is
// wrong with the value, if anything. A segment may also be the short word of
// its name, in any case.
func setField(question *eligibilityv1.CheckEligibilityRequest, field string, value json.RawMessage) string {
	if field == fieldSegment {
		return setSegment(question, value)
	}
	var said eligibilityv1.CheckEligibilityRequest
	if protojson.Unmarshal(fmt.Appendf(nil, "{%q:%s}", field, value), &said) == nil {
		proto.Merge(question, &said)
		return ""
	}
	switch field {
	case fieldMaxAge:
		return `must be a duration in seconds, such as "0s"`
	case fieldMinEvidenceTime:
		return `must be an RFC 3339 time, such as "2026-11-21T10:00:00Z"`
	default:
		return "must be a string"
	}
}

func setSegment(question *eligibilityv1.CheckEligibilityRequest, value json.RawMessage) string {
	const fault = "must be one of COMMERCIAL, EDUCATION, GOVERNMENT, NONPROFIT"
	var word string
	var number *int32
	switch {
	case json.Unmarshal(value, &number) == nil: // also null, which says nothing
		if number == nil {
			return ""
		}
		if _, known := eligibilityv1.Segment_name[*number]; !known {
			return fault
		}
		question.Segment = eligibilityv1.Segment(*number)
	case json.Unmarshal(value, &word) == nil:
		folded := strings.TrimPrefix(eligibility.FoldWord(word), "segment")
		for name, number := range eligibilityv1.Segment_value {
			if strings.TrimPrefix(eligibility.FoldWord(name), "segment") == folded {
				question.Segment = eligibilityv1.Segment(number)
				return ""
			}
		}
		return fault
	default:
		return fault
	}
	return ""
}

// member is one member of a JSON object.
type member struct {
	name  string
	value json.RawMessage
}

// readObject returns the members of the one JSON object that data is, in their
// order, repeated ones included.
func readObject(data []byte) ([]member, error) {
	if !json.Valid(data) {
		return nil, errors.New("not JSON")
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	if opening, err := decoder.Token(); err != nil || opening != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	var members []member
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return nil, fmt.Errorf("read member name: %w", err)
		}
		next := member{name: fmt.Sprint(name)}
		if err := decoder.Decode(&next.value); err != nil {
			return nil, fmt.Errorf("read member: %w", err)
		}
		members = append(members, next)
	}
	return members, nil
}
