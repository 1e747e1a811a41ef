package rest

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	goruntime "runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"

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
		var meant api.Question
		readQuery(raw, inbound, &meant, api.FieldSegment, api.FieldMaxAge, api.FieldMinEvidenceTime, api.FieldPartner, api.FieldOperation)
		values, err := url.ParseQuery(raw)
		if err != nil && inbound.Violations.Empty() {
			t.Fatalf("%q was taken: %v", raw, err)
		}
		read := new(eligibilityv1.CheckEligibilityRequest)
		if !inbound.Violations.Empty() || runtime.PopulateQueryParameters(read, values, utilities.NewDoubleArray(nil)) != nil {
			return // such as the short word of a segment
		}
		if diff := cmp.Diff(api.QuestionOf(read), withoutID(meant), unexported); diff != "" {
			t.Errorf("%q (-as the gateway reads it +as we do):\n%s", raw, diff)
		}
	})
}

// unexported lets cmp compare all of a question and of violations.
var unexported = cmp.AllowUnexported(api.Question{}, api.Violations{})

// withoutID returns q as QuestionOf returns one whose customer is not named.
func withoutID(q api.Question) api.Question {
	q.CustomerID, q.IsGUID = eligibility.CustomerID{}, false
	return q
}

// FuzzBatchBody wants that no body panics or costs more than its size allows, and that
// each means, or is reported as, what plainBatch makes of it.
func FuzzBatchBody(f *testing.F) {
	for _, seed := range batchBodies() {
		f.Add([]byte(seed))
	}
	for _, body := range costly(1000) {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		inbound, want := new(request), new(request)
		messages, err := plainBatch(t.Context(), data, want)
		if err != nil {
			t.Fatal(err)
		}
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
		var meant []api.Question
		for _, message := range messages {
			meant = append(meant, api.QuestionOf(message))
		}
		if diff := cmp.Diff(meant, questions, unexported, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%q (-plainly +read):\n%s", data, diff)
		}
		if diff := cmp.Diff(want.Violations, inbound.Violations, unexported); diff != "" {
			t.Errorf("%q: violations (-plainly +read):\n%s", data, diff)
		}
		if diff := cmp.Diff(want.Items, inbound.Items, unexported, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%q: violations of items (-plainly +read):\n%s", data, diff)
		}
	})
}

// A caller whose time has ended is asked to retry only if that can help: a malformed body
// is reported as such.
func TestAMalformedBatchIsNoMatterOfTime(t *testing.T) {
	t.Parallel()
	ended, end := context.WithCancel(t.Context())
	end()
	for _, body := range batchBodies() {
		inbound, want := new(request), new(request)
		_, wanted := plainBatch(ended, []byte(body), want)
		_, err := readBatch(ended, []byte(body), inbound)
		if !errors.Is(err, wanted) {
			t.Errorf("%.80q: %v, want %v", body, err, wanted)
		}
		if diff := cmp.Diff(want.Violations, inbound.Violations, unexported); diff != "" {
			t.Errorf("%.80q: violations (-plainly +read):\n%s", body, diff)
		}
	}
}

// FuzzScanner wants that a value is read if it is valid, and to its end.
func FuzzScanner(f *testing.F) {
	for _, seed := range append(batchBodies(), "0", "-0.0e-0", "01", "1.", "1e", "-", `"\u00Gg"`, `"\ud800"`, `"\x"`, "\"\x1f\"", `"`, `"\`, "nul", "truefalse", "[1,]", "[,]", `{"a":1,}`, `{"a"}`, `{1:2}`, "[[]", "[}", " 1 ", "", "\x00",
		strings.Repeat("[", maxDepth)+strings.Repeat("]", maxDepth), strings.Repeat("[", maxDepth+1)+strings.Repeat("]", maxDepth+1), strings.Repeat(`{"a":[`, 50)+strings.Repeat("]}", 50)) {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := scanner{data: data}
		value, ok := s.value(0)
		ok = ok && s.next() == 0 && s.at == len(data)
		if ok != json.Valid(data) {
			t.Fatalf("%q: %v, want %v", data, ok, !ok)
		}
		if ok && string(value) != strings.Trim(string(data), " \t\r\n") {
			t.Errorf("%q: read as %q", data, value)
		}
	})
}

// batchBodies are bodies of batches, well formed and not.
func batchBodies() []string {
	bodies := []string{
		``, `{}`, `null`, `[]`, `{"requests":[]}`, `{"requests":[{}]}`, `{"requests":[null,1,"x",[],{}]}`, ` { "requests" : [ { } , { } ] } `,
		`{"requests":[{"customerId":"a","segment":"education","maxAge":"1s","minEvidenceTime":"2026-11-21T10:00:00Z"}]}`,
		`{"requests":[{"customer_id":"a","segment":2,"max_age":null}]}`, `{"requests":[{"partner":"eu","operation":"RENEWAL"},{"partner":null,"operation":4}]}`,
		`{"requests":[{"partner":1,"operation":["x"]},{"operation":"seat_reduction","operation":1}]}`, `{"requests":[{"segment":9,"segment":1}]}`,
		`{"requests":[{"x":{"y":[1,2,{"z":null}]}}],"requests":1}`, "{\"requests\":[{\"customerId\":\"\xff\"}]}", `{"requests":null,"requests":[{}]}`,
		`{"requests":[{"customerId":"11111111-1111-4111-8111-111111111111"},{"customerId":" {11111111111141118111111111111111} "}],"more":[1]}`,
		`{"requests":[{"partner":"eu"},{"partner":"eu"},{"partner":""},{"partner":"us","partner":"eu"},{"partner":"\u0065u"},{"partner":{}},{"partner":"\ud800"}]}`,
		`{"requests":[{"custom\u0065rId":"\u0031","c\ud800":1,"\"":2},{"customer_id":null,"customerId":1}]}`, `{"requests":[{"customerId":"x"},]}`, `{"requests":[{}]}x`,
		`{"requests":[{"segment":"SEGMENT_EDUCATION"},{"segment":" e-D_u cation"},{"segment":"segmentsegmenteducation"},{"segment":"\u0065ducation"},{"segment":-0},{"segment":1e0},{"segment":1.0},{"segment":4294967297},{"segment":true},{"segment":"é"}]}`,
		`{"requests":[{"maxAge":"1.5s"},{"maxAge":"-1s"},{"maxAge":"315576000001s"},{"maxAge":1},{"maxAge":"\u0031s"},{"maxAge":"1 s"},{"minEvidenceTime":"2026-11-21T10:00:00+01:00"},{"minEvidenceTime":"x"},{"minEvidenceTime":{}}]}`,
		`{"requests":[` + strings.Repeat(`{"customerId":"x"},`, api.MaxBatch+2) + `{}]}`, `{"requests":[` + strings.Repeat(`1 , `, api.MaxBatch+2) + `{]}`,
		`{"requests":[{"x":` + strings.Repeat("[", maxDepth-3) + strings.Repeat("]", maxDepth-3) + `}]}`, `{"requests":[{"x":` + strings.Repeat("[", maxDepth-2) + strings.Repeat("]", maxDepth-2) + `}]}`,
		`{"x":` + strings.Repeat("[", maxDepth-1) + strings.Repeat("]", maxDepth-1) + `}`, `{"x":` + strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth) + `}`,
		`{"requests":[` + strings.Repeat("[", maxDepth-2) + strings.Repeat("]", maxDepth-2) + `]}`, `{"requests":[` + strings.Repeat("[", maxDepth-1) + strings.Repeat("]", maxDepth-1) + `]}`,
	}
	return bodies
}

// TestFieldNamesAreThoseOfTheContract looks for each field by both its names.
func TestFieldNamesAreThoseOfTheContract(t *testing.T) {
	t.Parallel()
	fields := new(eligibilityv1.CheckEligibilityRequest).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		want := string(fields.Get(i).Name())
		if proto, js := fieldNamed(want), fieldNamed(fields.Get(i).JSONName()); proto != want || js != want {
			t.Errorf("%s is read as %q and %q", want, proto, js)
		}
	}
}
