package rest

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/eligibilityd/eligibilityd/internal/api"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

const (
	// eventsContentType is the media type of server-sent events.
	eventsContentType = "text/event-stream"
	// eventsRetry is sent before the first event: browsers reconnect after so many
	// milliseconds.
	eventsRetry = "retry: 2000\n\n"
)

// events is the marshaler of server-sent events. What is no part of a stream is
// written as JSON.
type events struct{ *marshaler }

// StreamContentType returns the media type of a stream.
func (*events) StreamContentType(any) string { return eventsContentType }

// Delimiter ends an event.
func (*events) Delimiter() []byte { return []byte("\n\n") }

// Marshal writes an event without its end. The JSON has no line breaks, and so has
// one line of data.
func (e *events) Marshal(v any) ([]byte, error) {
	var head string
	switch part := v.(type) {
	case map[string]any: // a message
		message, ok := part["result"].(proto.Message)
		if !ok {
			return nil, fmt.Errorf("write %T: no protobuf message", part["result"])
		}
		if name, encoded := encodedIn(message); encoded != nil {
			reply, _ := message.(*eligibilityv1.WatchEligibilityResponse) // it is nothing else
			head = "id: " + reply.GetResumeToken() + "\nevent: " + name + "\n"
		}
	case map[string]proto.Message: // the status that ends the stream
		head = "event: error\n"
	default:
		return e.marshaler.Marshal(v)
	}
	data, err := e.marshaler.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append([]byte(head+"data: "), data...), nil
}

// encodedMark begins the unknown fields of a message that was encoded already: its name
// as an event, a line break and its JSON follow. No message that was received begins
// so: the byte is no tag that protobuf has.
const encodedMark = "\x07"

// encodeInto makes message stand for reply.
func encodeInto(message any, reply *api.WatchReply) error {
	response, ok := message.(*eligibilityv1.WatchEligibilityResponse)
	if !ok {
		return fmt.Errorf("receive %T: a message of another method", message)
	}
	proto.Reset(response)
	response.ResumeToken = reply.Token
	response.ProtoReflect().SetUnknown(protoreflect.RawFields(reply.AppendJSON([]byte(encodedMark + reply.Event() + "\n"))))
	return nil
}

// encodedIn returns the name and the JSON of a message that stands for a reply; nil for
// any other.
func encodedIn(message proto.Message) (name string, encoded []byte) {
	unknown := message.ProtoReflect().GetUnknown()
	if len(unknown) == 0 || unknown[0] != encodedMark[0] {
		return "", nil
	}
	before, encoded, _ := bytes.Cut(unknown[1:], []byte("\n"))
	return string(before), encoded
}

// prefersEvents reports whether a request with these values of Accept prefers
// server-sent events to lines of JSON. If it likes both equally, it does so only if it
// names them and the others not.
//
// Source: https://www.rfc-editor.org/rfc/rfc9110#name-accept
func prefersEvents(accept []string) bool {
	ours, oursNamed := qualityOf(accept, eventsContentType)
	others, othersNamed := qualityOf(accept, streamContentType)
	return ours > 0 && (ours > others || ours == others && oursNamed && !othersNamed)
}

// qualityOf returns the weight that values of Accept give to a media type, and whether
// they name it.
func qualityOf(accept []string, media string) (quality float64, named bool) {
	kind, _, _ := strings.Cut(media, "/")
	best := -1 // how specific the range was that decided
	for _, value := range accept {
		for item := range strings.SplitSeq(value, ",") {
			of, parameters, _ := strings.Cut(item, ";")
			specific := -1
			switch of = strings.ToLower(strings.TrimSpace(of)); of {
			case media:
				specific = 2
			case kind + "/*":
				specific = 1
			case "*/*":
				specific = 0
			}
			if specific > best {
				best, quality = specific, weightOf(parameters)
			}
		}
	}
	return quality, best == 2
}

// weightOf returns the parameter q, 1 if there is none, and 0 for one that is malformed.
func weightOf(parameters string) float64 {
	for parameter := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(parameter, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "q") {
			continue
		}
		weight, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil || !(weight >= 0 && weight <= 1) {
			return 0
		}
		return weight
	}
	return 1
}
