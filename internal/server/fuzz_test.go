package server

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// FuzzQuery wants that no query panics, and that the gateway reads what is left
// for it without a fault and as it was meant.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{
		"", "segment=EDUCATION", "segment=2&maxAge=0s", "segmnt=1", "max_age=1.5s&min_evidence_time=2026-11-21T10:00:00.1Z",
		"max_age=-315576000000s", "max_age=315576000000.999999999s", "min_evidence_time=0001-01-01T00:00:00Z&segment=-1",
		"%zz", "a;b", "segment=1&segment=2", "maxAge=1s&max_age=1s", "minEvidenceTime=9999-12-31T23:59:59.999999999Z",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		meant := readQuery(raw, new(restRequest), fieldSegment, fieldMaxAge, fieldMinEvidenceTime)
		req := &http.Request{URL: &url.URL{RawQuery: raw}}
		prepareCheck(req, new(restRequest), nil)

		values, err := url.ParseQuery(req.URL.RawQuery)
		if err != nil {
			t.Fatalf("left %q: %v", req.URL.RawQuery, err)
		}
		read := new(eligibilityv1.CheckEligibilityRequest)
		if err := runtime.PopulateQueryParameters(read, values, utilities.NewDoubleArray(nil)); err != nil {
			t.Fatalf("left %q: %v", req.URL.RawQuery, err)
		}
		if age := meant.GetMaxAge(); age != nil { // centuries are cut to what a time.Duration holds
			meant.MaxAge = durationpb.New(age.AsDuration())
		}
		if diff := cmp.Diff(meant, read, protocmp.Transform()); diff != "" {
			t.Errorf("of %q the gateway reads %q (-meant +read):\n%s", raw, req.URL.RawQuery, diff)
		}
	})
}

// FuzzBatchBody wants that no body panics, that a body with a fault says so,
// and that a body without is read as proto JSON reads it.
func FuzzBatchBody(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `null`, `[]`, `{"requests":[]}`, `{"requests":[{}]}`, `{"requests":[null,1,"x",[],{}]}`,
		`{"requests":[{"customerId":"a","segment":"education","maxAge":"1s","minEvidenceTime":"2026-11-21T10:00:00Z"}]}`,
		`{"requests":[{"customer_id":"a","segment":2,"max_age":null}]}`, `{"requests":[{"segment":9,"segment":1}]}`,
		`{"requests":[{"x":{"y":[1,2,{"z":null}]}}],"requests":1}`, "{\"requests\":[{\"customerId\":\"\xff\"}]}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		said := new(restRequest)
		questions := readBatch(data, said)
		for place, faults := range said.items {
			if place < 0 || place >= len(questions) || len(faults) == 0 {
				t.Fatalf("%d questions, faults %v at %d", len(questions), faults, place)
			}
		}
		if len(said.violations) > 0 || len(said.items) > 0 || len(questions) > maxBatch {
			return
		}
		strict := new(eligibilityv1.BatchCheckEligibilityRequest)
		if protojson.Unmarshal(data, strict) != nil { // a short segment word
			return
		}
		read := &eligibilityv1.BatchCheckEligibilityRequest{Requests: questions}
		if diff := cmp.Diff(strict, read, protocmp.Transform()); diff != "" {
			t.Errorf("(-proto JSON +read):\n%s", diff)
		}
	})
}
