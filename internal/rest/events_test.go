package rest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
	echov1 "github.com/eligibilityd/eligibilityd/internal/rest/testdata/echo/v1"
)

func TestAcceptChoosesTheFormOfAStream(t *testing.T) {
	t.Parallel()
	for accept, events := range map[string]bool{
		"":                                        false,
		"*/*":                                     false,
		"text/event-stream":                       true,
		"Text/Event-Stream":                       true,
		"text/event-stream;charset=utf-8":         true,
		"application/x-ndjson":                    false,
		"application/json":                        false,
		"text/event-stream, */*":                  true,
		"*/*, text/event-stream":                  true,
		"*/*;q=0.1, text/event-stream;q=0.9":      true,
		"text/event-stream;q=0.5, */*":            false,
		"text/event-stream;q=0, */*":              false,
		"application/x-ndjson, text/event-stream": false,
		"application/x-ndjson;q=0.9, text/event-stream": true,
		"application/x-ndjson, text/event-stream;q=0.9": false,
		"text/*": true,
		"text/html,application/xhtml+xml,*/*;q=0.8":                false,
		"text/event-stream;q=x":                                    false,
		"text/event-stream;q=2":                                    false,
		"text/event-stream;q=NaN":                                  false,
		"application/*;q=0.3, text/event-stream; level=1 ; Q=0.4 ": true,
		",,;,": false,
	} {
		if got := prefersEvents([]string{accept}); got != events {
			t.Errorf("%q: events %t, want %t", accept, got, events)
		}
	}
	if !prefersEvents([]string{"application/json;q=0.5", "text/event-stream"}) {
		t.Error("the second header counts, too")
	}
}

func TestQueriesOfGeneratedHandlersAreRewritten(t *testing.T) {
	t.Parallel()
	fields := new(eligibilityv1.WatchEligibilityRequest).ProtoReflect().Descriptor().Fields()
	for given, c := range map[string]struct{ last, want string }{
		"segment=education":                      {"", "segment=SEGMENT_EDUCATION"},
		"segment=Segment_Nonprofit":              {"", "segment=SEGMENT_NONPROFIT"},
		"segment=2":                              {"", "segment=2"},
		"segment=military":                       {"", "segment=military"},
		"customer_ids=a,b&customer_ids=c":        {"", "customer_ids=a&customer_ids=b&customer_ids=c"},
		"customerIds=a%2Cb":                      {"", "customerIds=a&customerIds=b"},
		"customerIds=":                           {"", "customerIds="},
		"partner=a,b":                            {"", "partner=a%2Cb"},
		"unknown=a,b":                            {"", "unknown=a%2Cb"},
		"resumeToken=one":                        {"two", "resume_token=two"},
		"resume_token=one&resume_token=three":    {"two", "resume_token=two"},
		"resume_token=one":                       {"", "resume_token=one"},
		"start_time=2026-11-21T09:00:00%2B01:00": {"", "start_time=2026-11-21T09%3A00%3A00%2B01%3A00"},
		"segment=%zz":                            {"two", "segment=%zz"},
	} {
		req := &http.Request{URL: &url.URL{RawQuery: given}, Header: http.Header{"Last-Event-Id": {c.last}}}
		before := req.URL
		rewriteQuery(req, new(request), fields)
		if req.URL.RawQuery != c.want || before.RawQuery != given {
			t.Errorf("%s: %s, want %s", given, req.URL.RawQuery, c.want)
		}
	}
	req := &http.Request{URL: &url.URL{}, Header: http.Header{"Last-Event-Id": {"token"}}}
	rewriteQuery(req, new(request), new(eligibilityv1.ListReviewsRequest).ProtoReflect().Descriptor().Fields())
	if req.URL.RawQuery != "" {
		t.Errorf("of a method without a token: %s", req.URL.RawQuery)
	}
}

// FuzzEvents writes texts as messages of a stream: whatever they hold, an event is one
// event, and a line one line.
func FuzzEvents(f *testing.F) {
	for _, text := range []string{"", "a\nb", "\r\n\r\ndata: x\nid: y\n\n", "\u2028\u2029\u0085", "</script><script>alert(1)</script>", "\xff\x00", "\x07change\n{}", "🙂"} {
		f.Add(text)
	}
	written := &events{newMarshaler()}
	f.Fuzz(func(t *testing.T, text string) {
		valid := strings.ToValidUTF8(text, "�")
		message := map[string]any{"result": &echov1.EchoResponse{Text: valid}}
		failure := map[string]proto.Message{"error": status.New(codes.Internal, valid).Proto()}
		for _, part := range []any{message, failure} {
			line, err := written.marshaler.Marshal(part)
			if err != nil || bytes.ContainsAny(line, "\r\n") || !json.Valid(line) {
				t.Fatalf("line %q: %v", line, err)
			}
			event, err := written.Marshal(part)
			if err != nil {
				t.Fatal(err)
			}
			fields := strings.Split(string(event), "\n")
			data, found := strings.CutPrefix(fields[len(fields)-1], "data: ")
			if !found || len(fields) > 2 || bytes.ContainsRune(event, '\r') || data != string(line) {
				t.Fatalf("event %q", event)
			}
		}
		var back echov1.EchoResponse
		line, _ := written.marshaler.Marshal(message)
		if err := protojson.Unmarshal(line, &back); err != nil || back.GetText() != valid || !utf8.Valid(line) {
			t.Fatalf("%q: %v", line, err)
		}
	})
}
