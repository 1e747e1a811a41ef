package rest

import (
	"net/url"
	goruntime "runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/eligibilityd/eligibilityd/internal/api"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// FuzzQuery wants that no query panics, and that one without a fault means what
// the gateway, which reads more loosely, takes it for.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{
		"", "segment=EDUCATION", "segment=2&maxAge=0s", "segmnt=1", "max_age=1.5s&min_evidence_time=2026-11-21T10:00:00.1Z",
		"max_age=-315576000000s", "max_age=315576000000.999999999s", "min_evidence_time=0001-01-01T00:00:00Z&segment=-1",
		"%zz", "a;b", "segment=1&segment=2", "maxAge=1s&max_age=1s", "partner=eu&operation=RENEWAL", "partner=%00&operation=4", "partner=eu&partner=us",
		"operation=seat-reduction", "operation=99999999999&partner=", "minEvidenceTime=9999-12-31T23:59:59.999999999Z",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		inbound := new(request)
		meant := readQuery(raw, inbound, api.FieldSegment, api.FieldMaxAge, api.FieldMinEvidenceTime, api.FieldPartner, api.FieldOperation)
		values, err := url.ParseQuery(raw)
		if err != nil && inbound.Violations.Empty() {
			t.Fatalf("%q was taken: %v", raw, err)
		}
		read := new(eligibilityv1.CheckEligibilityRequest)
		if !inbound.Violations.Empty() || runtime.PopulateQueryParameters(read, values, utilities.NewDoubleArray(nil)) != nil {
			return // such as the short word of a segment
		}
		if diff := cmp.Diff(read, meant, protocmp.Transform()); diff != "" {
			t.Errorf("%q (-as the gateway reads it +as we do):\n%s", raw, diff)
		}
	})
}

// FuzzBatchBody wants that no body panics or costs more than its size allows,
// that a body with a fault is reported, and that one without is read as proto
// JSON reads it.
func FuzzBatchBody(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `null`, `[]`, `{"requests":[]}`, `{"requests":[{}]}`, `{"requests":[null,1,"x",[],{}]}`,
		`{"requests":[{"customerId":"a","segment":"education","maxAge":"1s","minEvidenceTime":"2026-11-21T10:00:00Z"}]}`,
		`{"requests":[{"customer_id":"a","segment":2,"max_age":null}]}`, `{"requests":[{"partner":"eu","operation":"RENEWAL"},{"partner":null,"operation":4}]}`,
		`{"requests":[{"partner":1,"operation":["x"]},{"operation":"seat_reduction","operation":1}]}`, `{"requests":[{"segment":9,"segment":1}]}`,
		`{"requests":[{"x":{"y":[1,2,{"z":null}]}}],"requests":1}`, "{\"requests\":[{\"customerId\":\"\xff\"}]}",
	} {
		f.Add([]byte(seed))
	}
	for _, body := range costly(1000) {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		inbound := new(request)
		var before, after goruntime.MemStats
		goruntime.ReadMemStats(&before)
		questions, err := readBatch(t.Context(), data, inbound)
		goruntime.ReadMemStats(&after)
		// An item takes up to 200 bytes for its two characters.
		if most, got := uint64(64<<10+200*len(data)), after.TotalAlloc-before.TotalAlloc; got > most {
			t.Errorf("%d bytes allocated for a body of %d, want at most %d", got, len(data), most)
		}
		if err != nil {
			t.Fatal(err)
		}
		for place, faults := range inbound.Items {
			if place < 0 || place >= len(questions) || faults.Empty() {
				t.Fatalf("%d questions, faults %v at %d", len(questions), faults, place)
			}
		}
		if !inbound.Violations.Empty() || len(inbound.Items) > 0 || len(questions) > api.MaxBatch {
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
