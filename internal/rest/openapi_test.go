package rest

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/api"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// description is what tests read of the OpenAPI document.
type description struct {
	OpenAPI string `json:"openapi"`
	Paths   map[string]map[string]struct {
		Parameters []struct {
			Name string `json:"name"`
			In   string `json:"in"`
		} `json:"parameters"`
		Responses map[string]struct {
			Content map[string]json.RawMessage `json:"content"`
		} `json:"responses"`
	} `json:"paths"`
	Components struct {
		Schemas map[string]struct {
			Required   []string                   `json:"required"`
			Properties map[string]json.RawMessage `json:"properties"`
		} `json:"schemas"`
	} `json:"components"`
}

func readDescription(t *testing.T) description {
	t.Helper()
	data, err := docsFiles.ReadFile(openAPIFile)
	if err != nil {
		t.Fatal(err)
	}
	var read description
	if err := json.Unmarshal(data, &read); err != nil {
		t.Fatal(err)
	}
	return read
}

// A member is required if and only if it is always present, or clients in typed
// languages must handle an absence that never occurs.
func TestTheOpenAPIDocumentRequiresWhatIsAlwaysPresent(t *testing.T) {
	t.Parallel()
	read := readDescription(t)
	if !strings.HasPrefix(read.OpenAPI, "3.") {
		t.Errorf("version %q, want 3", read.OpenAPI)
	}
	requests := map[string][]string{
		"CheckEligibilityRequest": {"customerId"}, "BatchCheckEligibilityRequest": {"requests"}, "PrefetchEligibilityRequest": {"customerIds"},
	}
	// Requests without a body: their fields are parameters.
	parameters := map[string]string{"WatchEligibilityRequest": "/v1/eligibility:watch", "ListReviewsRequest": "/v1/reviews", "ExplainEligibilityRequest": "/v1/customers/{customerId}/eligibility:explain"}
	messages := eligibilityv1.File_eligibility_v1_eligibility_proto.Messages()
	for i := range messages.Len() {
		name, fields := string(messages.Get(i).Name()), messages.Get(i).Fields()
		if path, ok := parameters[name]; ok {
			var want, got []string
			for j := range fields.Len() {
				want = append(want, fields.Get(j).JSONName())
			}
			for _, parameter := range read.Paths[path]["get"].Parameters {
				if parameter.In == "query" || parameter.In == "path" {
					got = append(got, parameter.Name)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-fields +parameters):\n%s", name, diff)
			}
			continue
		}
		want, isRequest := requests[name]
		for j := range fields.Len() {
			field := fields.Get(j)
			if _, described := read.Components.Schemas[name].Properties[field.JSONName()]; !described {
				t.Errorf("%s is not described", field.FullName())
			}
			if !isRequest && !field.HasPresence() {
				want = append(want, field.JSONName())
			}
		}
		if diff := cmp.Diff(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(read.Components.Schemas[name].Required))); diff != "" {
			t.Errorf("%s (-always present +required):\n%s", name, diff)
		}
	}
	// The answer that has the fewest members.
	var members map[string]json.RawMessage
	if err := json.Unmarshal(new(api.CheckReply).AppendJSON(nil), &members); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(members)), slices.Sorted(slices.Values(read.Components.Schemas["CheckEligibilityResponse"].Required))); diff != "" {
		t.Errorf("(-in the least answer +required):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"code", "message", "details"}, read.Components.Schemas["Status"].Required); diff != "" {
		t.Errorf("errors (-always present +required):\n%s", diff)
	}
}

// A stream has types of its own, and its errors that of all errors.
func TestTheOpenAPIDocumentDescribesStreams(t *testing.T) {
	t.Parallel()
	for code, response := range readDescription(t).Paths["/v1/eligibility:watch"]["get"].Responses {
		want := []string{"application/json"}
		if code == "200" {
			want = []string{"application/x-ndjson", "text/event-stream"}
		}
		if got := slices.Sorted(maps.Keys(response.Content)); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", code, got, want)
		}
	}
}

// The files of Swagger UI are those that its release has.
func TestTheFilesOfSwaggerUIAreUnchanged(t *testing.T) {
	t.Parallel()
	sums, err := docsFiles.ReadFile("swaggerui/SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	files, err := docsFiles.ReadDir("swaggerui")
	if err != nil {
		t.Fatal(err)
	}
	listed := 1 // SHA256SUMS itself
	for lines := bufio.NewScanner(bytes.NewReader(sums)); lines.Scan(); listed++ {
		want, name, _ := strings.Cut(lines.Text(), "  ")
		content, err := docsFiles.ReadFile("swaggerui/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != want {
			t.Errorf("%s has been changed: run scripts/swagger-ui.sh", name)
		}
	}
	if listed != len(files) {
		t.Errorf("%d files, SHA256SUMS lists %d", len(files), listed)
	}
}
