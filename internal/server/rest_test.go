package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// reasons lists the codes of an answer's reasons.
func reasons(answer map[string]any) string {
	var codes []string
	list, _ := answer["reasons"].([]any)
	for _, reason := range list {
		if reason, ok := reason.(map[string]any); ok {
			codes = append(codes, strings.TrimPrefix(fmt.Sprint(reason["code"]), "REASON_CODE_"))
		}
	}
	return strings.Join(codes, " ")
}

func TestRESTReadsTheSegmentHoweverItIsWritten(t *testing.T) {
	t.Parallel()
	run := start(t, setup{source: approved()})
	const commercial, education = "ACCOUNT_ALLOWED", "ACCOUNT_ALLOWED QUALIFICATION_APPROVED"
	for word, want := range map[string]string{
		"EDUCATION": education, "education": education, "Education": education,
		"SEGMENT_EDUCATION": education, "segment_education": education, "2": education,
		"COMMERCIAL": commercial, "SEGMENT_UNSPECIFIED": commercial, "0": commercial,
		"nonprofit": "ACCOUNT_ALLOWED QUALIFICATION_MISSING", "Non-Profit": "ACCOUNT_ALLOWED QUALIFICATION_MISSING",
	} {
		if got := run.get(t, customerA, "?segment="+word); got.StatusCode != http.StatusOK || reasons(got.json(t)) != want {
			t.Errorf("?segment=%s: %d %s", word, got.StatusCode, got.body)
		}
		value := `"` + word + `"`
		if len(word) == 1 {
			value = word
		}
		got := run.post(t, `{"requests":[{"customerId":"`+customerA+`","segment":`+value+`}]}`)
		results, _ := got.json(t)["results"].([]any)
		if len(results) != 1 {
			t.Fatalf("segment %s in a batch: %d %s", word, got.StatusCode, got.body)
		}
		first, _ := results[0].(map[string]any)
		if answer, _ := first["response"].(map[string]any); reasons(answer) != want {
			t.Errorf("segment %s in a batch: %s", word, got.body)
		}
	}
}

func TestRESTRefusesAQueryThatItCannotRead(t *testing.T) {
	t.Parallel()
	run := start(t, setup{source: approved()})
	for query, fields := range map[string][]string{
		"?segmnt=EDUCATION":                     {"segmnt"},
		"?segment=EDU":                          {"segment"},
		"?segment=":                             {"segment"},
		"?segment=7":                            {"segment"},
		"?segment=-1":                           {"segment"},
		"?segment=EDUCATION&segment=EDUCATION":  {"segment"},
		"?Segment=EDUCATION":                    {"Segment"},
		"?max_age=5":                            {"max_age"},
		"?max_age=":                             {"max_age"},
		"?max_age=soon":                         {"max_age"},
		"?max_age=-1s":                          {"max_age"},
		"?max_age=1s&maxAge=1s":                 {"max_age"},
		"?max_age=999999999999999s":             {"max_age"},
		"?min_evidence_time=yesterday":          {"min_evidence_time"},
		"?minEvidenceTime=2999-01-01T00:00:00Z": {"min_evidence_time"},
		"?minEvidenceTime=2026-11-21":           {"min_evidence_time"},
		"?customer_id=" + customerB:             {"customer_id"},
		"?segment=%zz":                          {"query"},
		"?segment=EDUCATION;max_age=0s":         {"query"},
		"?%ff%00=1":                             {"??"},
		"?segment=EDU&max_age=x&foo=1":          {"foo", "max_age", "segment"},
	} {
		got := run.get(t, customerA, query)
		st := got.status(t)
		if got.StatusCode != http.StatusBadRequest || st.Code != 3 || st.reason() != "INVALID_ARGUMENT" {
			t.Errorf("%s: %d %s", query, got.StatusCode, got.body)
		}
		if diff := cmp.Diff(fields, st.fields()); diff != "" {
			t.Errorf("%s: fields (-want +got):\n%s", query, diff)
		}
	}
}

func TestRESTTellsEveryFaultAtOnce(t *testing.T) {
	t.Parallel()
	run := start(t, setup{source: approved()})
	got := run.get(t, "no-guid", "?segment=EDU&max_age=-1s&foo=1", "Grpc-Timeout", "soon", "Cache-Control", "max-age=x")
	want := []string{"Grpc-Timeout", "Cache-Control", "foo", "segment", "customer_id", "max_age"}
	if diff := cmp.Diff(want, got.status(t).fields()); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}

func TestRESTTakesBothNamesOfAParameter(t *testing.T) {
	t.Parallel()
	run := start(t, setup{source: approved()})
	for _, query := range []string{
		"?max_age=600s&min_evidence_time=2020-01-01T00:00:00Z",
		"?maxAge=600.5s&minEvidenceTime=2020-01-01T01:00:00.000000001%2B01:00",
		"?maxAge=315576000000s&minEvidenceTime=0001-01-01T00:00:00Z",
	} {
		if got := run.get(t, customerA, query); got.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", query, got.StatusCode, got.body)
		}
	}
}

func TestACustomerIDIsReadFromThePathInEveryForm(t *testing.T) {
	t.Parallel()
	run := start(t, setup{source: approved()})
	const canonical = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
	for _, id := range []string{
		canonical, strings.ToUpper(canonical), "%7B" + canonical + "%7D", "%20" + canonical + "%20",
		strings.ReplaceAll(canonical, "-", ""),
	} {
		if got := run.get(t, id, ""); got.StatusCode != http.StatusOK || got.json(t)["customerId"] != canonical {
			t.Errorf("%s: %d %s", id, got.StatusCode, got.body)
		}
	}
	for _, id := range []string{"x", "%20", canonical + "0", "..", "%00"} {
		if got := run.get(t, id, ""); got.StatusCode == http.StatusOK || got.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s", id, got.StatusCode, got.body)
		}
	}
}

func TestWhatIsWrongWithABatchSpoilsTheCall(t *testing.T) {
	t.Parallel()
	run := start(t, setup{source: approved()})
	tooMany := `{"requests":[` + strings.Repeat(`{"customerId":"`+customerA+`"},`, maxBatch) + `{}]}`
	for name, row := range map[string]struct {
		body   string
		fields []string
	}{
		"nothing":               {"", []string{"body"}},
		"no JSON":               {"hello", []string{"body"}},
		"half a body":           {`{"requests":[{"customerId":`, []string{"body"}},
		"a list":                {`[]`, []string{"body"}},
		"null":                  {`null`, []string{"body"}},
		"two objects":           {`{"requests":[{}]} {}`, []string{"body"}},
		"an empty object":       {`{}`, []string{"requests"}},
		"an empty list":         {`{"requests":[]}`, []string{"requests"}},
		"no list":               {`{"requests":null}`, []string{"requests"}},
		"a list that is none":   {`{"requests":{"0":{}}}`, []string{"requests"}},
		"two lists":             {`{"requests":[{}],"requests":[{}]}`, []string{"requests"}},
		"a mistyped name":       {`{"reqests":[{}]}`, []string{"reqests"}},
		"one member too many":   {`{"requests":[{}],"segment":2}`, []string{"segment"}},
		"one question too many": {tooMany, []string{"requests"}},
		"too many bytes":        {`{"requests":[{}` + strings.Repeat(" ", maxBodyBytes) + `]}`, []string{"requests"}},
	} {
		got := run.post(t, row.body)
		st := got.status(t)
		if got.StatusCode != http.StatusBadRequest || st.Code != 3 || st.reason() != "INVALID_ARGUMENT" {
			t.Errorf("%s: %d %.300s", name, got.StatusCode, got.body)
		}
		if diff := cmp.Diff(row.fields, st.fields()); diff != "" {
			t.Errorf("%s: fields (-want +got):\n%s", name, diff)
		}
	}
	if got := run.post(t, `{"requests":[{}]}`, "X-Other", "1"); got.StatusCode != http.StatusOK {
		t.Errorf("a batch of one: %d %s", got.StatusCode, got.body)
	}
	got := run.do(t, http.MethodPost, run.rest+"/v1/customers:batchCheckEligibility?segment=EDUCATION", `{"requests":[{}]}`)
	if diff := cmp.Diff([]string{"segment"}, got.status(t).fields()); diff != "" {
		t.Errorf("a query beside a batch: fields (-want +got):\n%s", diff)
	}
}

func TestWhatIsWrongWithAnItemSpoilsItsResultOnly(t *testing.T) {
	t.Parallel()
	run := start(t, setup{source: approved()})
	items := []struct{ item, want string }{
		{`{"customerId":"` + customerA + `"}`, ""},
		{`{"customer_id":"` + customerA + `","segment":null,"maxAge":null}`, ""},
		{`{"customerId":"no-guid"}`, "requests[2].customer_id: must be a GUID"},
		{`{"customerId":"` + customerA + `","segment":"EDU"}`, "requests[3].segment: must be one of COMMERCIAL, EDUCATION, GOVERNMENT, NONPROFIT"},
		{`{"customerId":"` + customerA + `","segment":9}`, "requests[4].segment: must be one of COMMERCIAL, EDUCATION, GOVERNMENT, NONPROFIT"},
		{`{"customerId":"` + customerA + `","segment":["EDUCATION"]}`, "requests[5].segment: must be one of COMMERCIAL, EDUCATION, GOVERNMENT, NONPROFIT"},
		{`{"customerId":"` + customerA + `","segmnt":"EDUCATION"}`, `requests[6].segmnt: is no member of a question`},
		{`{"customerId":"` + customerA + `","maxAge":"soon"}`, `requests[7].max_age: must be a duration in seconds, such as "0s"`},
		{`{"customerId":"` + customerA + `","maxAge":"-1s"}`, "requests[8].max_age: must not be negative"},
		{`{"customerId":"` + customerA + `","minEvidenceTime":"2999-01-01T00:00:00Z"}`, "requests[9].min_evidence_time: must not lie more than one second in the future"},
		{`{"customerId":"` + customerA + `","customer_id":"` + customerA + `"}`, "requests[10].customer_id: must stand in a question once"},
		{`{"customerId":7}`, "requests[11].customer_id: must be a string requests[11].customer_id: must be a GUID"},
		{`null`, "requests[12]: must be a JSON object requests[12].customer_id: must be a GUID"},
		{`"` + customerA + `"`, "requests[13]: must be a JSON object requests[13].customer_id: must be a GUID"},
		{`{"customerId":"` + customerB + `"}`, ""},
	}
	var bodies []string
	for _, row := range items {
		bodies = append(bodies, row.item)
	}
	got := run.post(t, `{"requests":[`+strings.Join(bodies, ",")+`]}`)
	results, _ := got.json(t)["results"].([]any)
	if len(results) != len(items) {
		t.Fatalf("%d results: %s", len(results), got.body)
	}
	for i, row := range items {
		result, _ := results[i].(map[string]any)
		failure, failed := result["error"].(map[string]any)
		if row.want == "" {
			if answer, _ := result["response"].(map[string]any); answer["decision"] != "DECISION_ALLOWED" {
				t.Errorf("%s: %v", row.item, result)
			}
			continue
		}
		if !failed || failure["code"] != 3.0 || failure["reason"] != "INVALID_ARGUMENT" ||
			failure["message"] != "The request is not valid. "+row.want {
			t.Errorf("%s: %v", row.item, result)
		}
	}
}

func TestRESTFaultsOfHTTPAloneHaveTheFormOfAllErrors(t *testing.T) {
	t.Parallel()
	run := start(t, setup{source: approved()})
	const check, batch = "/v1/customers/" + customerA + "/eligibility", "/v1/customers:batchCheckEligibility"
	const form = "application/x-www-form-urlencoded"
	for _, row := range []struct {
		method, path, contentType string
		code, grpc                int
		reason, allow             string
	}{
		{"GET", "/nothing", "", 404, 5, "PATH_NOT_FOUND", ""},
		{"GET", "/v1/customers", "", 404, 5, "PATH_NOT_FOUND", ""},
		{"GET", "/v1/customers:other", "", 404, 5, "PATH_NOT_FOUND", ""},
		{"GET", "/docs/nothing.js", "", 404, 5, "PATH_NOT_FOUND", ""},
		{"GET", check + "//", "", 404, 5, "PATH_NOT_FOUND", ""},
		{"GET", batch + "/", "", 405, 12, "METHOD_NOT_ALLOWED", "POST"},
		{"POST", check, "", 405, 12, "METHOD_NOT_ALLOWED", "GET, HEAD"},
		{"POST", check, form, 405, 12, "METHOD_NOT_ALLOWED", "GET, HEAD"},
		{"DELETE", check, "", 405, 12, "METHOD_NOT_ALLOWED", "GET, HEAD"},
		{"GET", batch, "", 405, 12, "METHOD_NOT_ALLOWED", "POST"},
		{"PUT", batch, "", 405, 12, "METHOD_NOT_ALLOWED", "POST"},
		{"POST", "/openapi.json", "", 405, 12, "METHOD_NOT_ALLOWED", "GET, HEAD"},
		{"POST", batch, "text/plain", 415, 3, "UNSUPPORTED_MEDIA_TYPE", ""},
		{"POST", batch, "multipart/form-data; boundary=x", 415, 3, "UNSUPPORTED_MEDIA_TYPE", ""},
		{"POST", batch, "application/json;;;", 415, 3, "UNSUPPORTED_MEDIA_TYPE", ""},
	} {
		got := run.do(t, row.method, run.rest+row.path, "{}", "Content-Type", row.contentType)
		st := got.status(t)
		if got.StatusCode != row.code || st.Code != row.grpc || st.reason() != row.reason || st.Message == "" {
			t.Errorf("%s %s: %d %s", row.method, row.path, got.StatusCode, got.body)
		}
		for name, want := range map[string]string{
			"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Allow": row.allow,
		} {
			if got.Header.Get(name) != want {
				t.Errorf("%s %s: %s is %q, want %q", row.method, row.path, name, got.Header.Get(name), want)
			}
		}
		if got.Header.Get("X-Request-Id") == "" {
			t.Errorf("%s %s: no request ID", row.method, row.path)
		}
	}
	for _, contentType := range []string{"", "application/json", "application/json; charset=utf-8", "Application/JSON", form} {
		if got := run.post(t, `{"requests":[{}]}`, "Content-Type", contentType); got.StatusCode != http.StatusOK {
			t.Errorf("Content-Type %q: %d %s", contentType, got.StatusCode, got.body)
		}
	}
}

func TestRESTToleratesATrailingSlash(t *testing.T) {
	t.Parallel()
	run := start(t, setup{source: approved()})
	if got := run.get(t, customerA, "/?segment=EDUCATION"); got.StatusCode != http.StatusOK || reasons(got.json(t)) != "ACCOUNT_ALLOWED QUALIFICATION_APPROVED" {
		t.Errorf("a check: %d %s", got.StatusCode, got.body)
	}
	if got := run.get(t, "%7B"+customerA+"%7D", "/"); got.StatusCode != http.StatusOK {
		t.Errorf("a check of an escaped id: %d %s", got.StatusCode, got.body)
	}
	for method, path := range map[string]string{"POST": "/v1/customers:batchCheckEligibility/", "GET": "/openapi.json/", "HEAD": "/docs/"} {
		if got := run.do(t, method, run.rest+path, `{"requests":[{}]}`); got.StatusCode != http.StatusOK {
			t.Errorf("%s %s: %d %s", method, path, got.StatusCode, got.body)
		}
	}
}

func TestRESTRefusesACompressedBody(t *testing.T) {
	t.Parallel()
	run := start(t, setup{source: approved()})
	for encoding, want := range map[string]int{"gzip": 415, "br, gzip": 415, "x": 415, "identity": 200, "Identity": 200, "": 200} {
		got := run.post(t, `{"requests":[{}]}`, "Content-Encoding", encoding)
		if got.StatusCode != want || want == 415 && (got.status(t).reason() != "UNSUPPORTED_MEDIA_TYPE" || got.Header.Get("Accept-Encoding") != "identity") {
			t.Errorf("%q: %d %s", encoding, got.StatusCode, got.body)
		}
	}
}

func TestRESTIgnoresMethodOverrides(t *testing.T) {
	t.Parallel()
	run := start(t, setup{source: approved()})
	got := run.do(t, http.MethodPost, run.rest+"/v1/customers/"+customerA+"/eligibility", "",
		"Content-Type", "application/x-www-form-urlencoded", "X-HTTP-Method-Override", "GET")
	if got.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
}

func TestAnAnswerShowsPlainFieldsAndNoNulls(t *testing.T) {
	t.Parallel()
	run := start(t, setup{source: says(eligibility.AccountStatusNone, "")})
	got := run.get(t, customerA, "")
	answer := got.json(t)
	for name, want := range map[string]any{
		"decision": "DECISION_ALLOWED", "accountStatus": "ACCOUNT_STATUS_NONE", "accountStatusText": "",
		"qualificationsKnown": true, "stale": false, "source": "EVIDENCE_SOURCE_PARTNER_CENTER", "correlationId": "correlation",
	} {
		if answer[name] != want {
			t.Errorf("%s is %v, want %v", name, answer[name], want)
		}
	}
	if list, ok := answer["qualifications"].([]any); !ok || len(list) != 0 {
		t.Errorf("qualifications are %v, want an empty list", answer["qualifications"])
	}
	if _, said := answer["recheckTime"]; said || strings.Contains(string(got.body), "null") {
		t.Errorf("empty members are said: %s", got.body)
	}
	if !strings.Contains(string(got.body), `"temporary"`) {
		t.Errorf("temporary is not said: %s", got.body)
	}
}

func TestRESTAnswersHEADLikeGET(t *testing.T) {
	t.Parallel()
	run := start(t, setup{source: approved()})
	got := run.do(t, http.MethodHead, run.rest+"/v1/customers/"+customerA+"/eligibility", "")
	if got.StatusCode != http.StatusOK || len(got.body) != 0 || got.Header.Get("Etag") == "" {
		t.Errorf("%d %v %q", got.StatusCode, got.Header, got.body)
	}
}

func TestRESTWithoutTrailers(t *testing.T) {
	t.Parallel()
	run := start(t, setup{source: approved()})
	got := run.get(t, customerA, "", "TE", "trailers")
	if got.StatusCode != http.StatusOK || got.ContentLength != int64(len(got.body)) {
		t.Errorf("%d of %d bytes", got.StatusCode, got.ContentLength)
	}
}

func TestMaxAgeIsTheNarrowerOfQueryAndCacheControl(t *testing.T) {
	t.Parallel()
	now := time.Now()
	// Evidence is 60 s old: a max-age above that answers from it, one below asks.
	for _, row := range []struct {
		query, cacheControl string
		asks                bool
	}{
		{"", "", false},
		{"?max_age=0s", "", true},
		{"?max_age=90s", "", false},
		{"", "no-cache", true},
		{"", "No-Cache", true},
		{"", "max-age=0", true},
		{"", "max-age=30", true},
		{"", `max-age="30"`, true},
		{"", "max-age=90", false},
		{"", "max-age=99999999999999999999", false},
		{"", "max-stale=5, no-transform", false},
		{"", "max-age=90, no-cache", true},
		{"", "max-age=90, max-age=30", true},
		{"?max_age=90s", "max-age=30", true},
		{"?max_age=30s", "max-age=90", true},
		{"?max_age=90s", "max-age=90", false},
	} {
		run := start(t, setup{source: approved()})
		for _, facet := range []eligibility.Facet{eligibility.FacetAccount, eligibility.FacetQualifications} {
			run.store.put(customerA, facet, eligibility.Evidence{Status: eligibility.AccountStatusAllowed}, now.Add(-time.Minute))
		}
		got := run.get(t, customerA, row.query, "Cache-Control", row.cacheControl)
		if got.StatusCode != http.StatusOK {
			t.Errorf("%q, %q: %d %s", row.query, row.cacheControl, got.StatusCode, got.body)
		}
		if asked := got.json(t)["source"] == "EVIDENCE_SOURCE_PARTNER_CENTER"; asked != row.asks {
			t.Errorf("%q, %q: asked %v, want %v", row.query, row.cacheControl, asked, row.asks)
		}
	}
	run := start(t, setup{source: approved()})
	for _, bad := range []string{"max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age=soon"} {
		got := run.get(t, customerA, "", "Cache-Control", bad)
		if diff := cmp.Diff([]string{"Cache-Control"}, got.status(t).fields()); got.StatusCode != http.StatusBadRequest || diff != "" {
			t.Errorf("%q: %d (-want +got):\n%s", bad, got.StatusCode, diff)
		}
	}
	run.store.put(customerA, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed}, now.Add(-time.Minute))
	run.store.put(customerA, eligibility.FacetQualifications, eligibility.Evidence{}, now.Add(-time.Minute))
	got := run.post(t, `{"requests":[{"customerId":"`+customerA+`","maxAge":"90s"}]}`, "Cache-Control", "no-cache")
	if !strings.Contains(string(got.body), "EVIDENCE_SOURCE_PARTNER_CENTER") {
		t.Errorf("no-cache does not reach a batch: %s", got.body)
	}
}
