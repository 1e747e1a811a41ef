package rest_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"
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
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
	const commercial, education = "ACCOUNT_ALLOWED", "ACCOUNT_ALLOWED QUALIFICATION_APPROVED"
	for word, want := range map[string]string{
		"EDUCATION": education, "education": education, "Education": education,
		"SEGMENT_EDUCATION": education, "segment_education": education, "2": education,
		"COMMERCIAL": commercial, "SEGMENT_UNSPECIFIED": commercial, "0": commercial,
		"nonprofit": "ACCOUNT_ALLOWED QUALIFICATION_MISSING", "Non-Profit": "ACCOUNT_ALLOWED QUALIFICATION_MISSING",
	} {
		if got := run.Get(t, apitest.CustomerA, "?segment="+word); got.StatusCode != http.StatusOK || reasons(got.JSON(t)) != want {
			t.Errorf("?segment=%s: %d %s", word, got.StatusCode, got.Body)
		}
		value := `"` + word + `"`
		if len(word) == 1 {
			value = word
		}
		got := run.Post(t, `{"requests":[{"customerId":"`+apitest.CustomerA+`","segment":`+value+`}]}`)
		results, _ := got.JSON(t)["results"].([]any)
		if len(results) != 1 {
			t.Fatalf("segment %s in a batch: %d %s", word, got.StatusCode, got.Body)
		}
		first, _ := results[0].(map[string]any)
		if answer, _ := first["response"].(map[string]any); reasons(answer) != want {
			t.Errorf("segment %s in a batch: %s", word, got.Body)
		}
	}
}

func TestRESTRefusesAQueryThatItCannotRead(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
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
		"?customer_id=" + apitest.CustomerB:     {"customer_id"},
		"?segment=%zz":                          {"query"},
		"?segment=EDUCATION;max_age=0s":         {"query"},
		"?%ff%00=1":                             {"??"},
		"?segment=EDU&max_age=x&foo=1":          {"foo", "max_age", "segment"},
	} {
		got := run.Get(t, apitest.CustomerA, query)
		st := got.Failure(t)
		if got.StatusCode != http.StatusBadRequest || st.Code != 3 || st.Reason() != "INVALID_ARGUMENT" {
			t.Errorf("%s: %d %s", query, got.StatusCode, got.Body)
		}
		if diff := cmp.Diff(fields, st.Fields()); diff != "" {
			t.Errorf("%s: fields (-want +got):\n%s", query, diff)
		}
	}
}

func TestRESTReportsEveryFaultAtOnce(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
	got := run.Get(t, "no-guid", "?segment=EDU&max_age=-1s&foo=1", "Grpc-Timeout", "soon", "Cache-Control", "max-age=x")
	want := []string{"Grpc-Timeout", "Cache-Control", "foo", "segment", "customer_id", "max_age"}
	if diff := cmp.Diff(want, got.Failure(t).Fields()); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}

func TestRESTTakesBothNamesOfAParameter(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
	for _, query := range []string{
		"?max_age=600s&min_evidence_time=2020-01-01T00:00:00Z",
		"?maxAge=600.5s&minEvidenceTime=2020-01-01T01:00:00.000000001%2B01:00",
		"?maxAge=315576000000s&minEvidenceTime=0001-01-01T00:00:00Z",
	} {
		if got := run.Get(t, apitest.CustomerA, query); got.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", query, got.StatusCode, got.Body)
		}
	}
}

func TestACustomerIDIsReadFromThePathInEveryForm(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
	const canonical = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
	for _, id := range []string{
		canonical, strings.ToUpper(canonical), "%7B" + canonical + "%7D", "%20" + canonical + "%20",
		strings.ReplaceAll(canonical, "-", ""),
	} {
		if got := run.Get(t, id, ""); got.StatusCode != http.StatusOK || got.JSON(t)["customerId"] != canonical {
			t.Errorf("%s: %d %s", id, got.StatusCode, got.Body)
		}
	}
	for _, id := range []string{"x", "%20", canonical + "0", "..", "%00"} {
		if got := run.Get(t, id, ""); got.StatusCode == http.StatusOK || got.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s", id, got.StatusCode, got.Body)
		}
	}
}

func TestWhatIsWrongWithABatchSpoilsTheCall(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
	tooMany := `{"requests":[` + strings.Repeat(`{"customerId":"`+apitest.CustomerA+`"},`, api.MaxBatch) + `{}]}`
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
		"too many bytes":        {`{"requests":[{}` + strings.Repeat(" ", 2<<20) + `]}`, []string{"requests"}},
	} {
		got := run.Post(t, row.body)
		st := got.Failure(t)
		if got.StatusCode != http.StatusBadRequest || st.Code != 3 || st.Reason() != "INVALID_ARGUMENT" {
			t.Errorf("%s: %d %.300s", name, got.StatusCode, got.Body)
		}
		if diff := cmp.Diff(row.fields, st.Fields()); diff != "" {
			t.Errorf("%s: fields (-want +got):\n%s", name, diff)
		}
	}
	if got := run.Post(t, `{"requests":[{}]}`, "X-Other", "1"); got.StatusCode != http.StatusOK {
		t.Errorf("a batch of one: %d %s", got.StatusCode, got.Body)
	}
	got := run.Do(t, http.MethodPost, run.REST+"/v1/customers:batchCheckEligibility?segment=EDUCATION", `{"requests":[{}]}`)
	if diff := cmp.Diff([]string{"segment"}, got.Failure(t).Fields()); diff != "" {
		t.Errorf("a query beside a batch: fields (-want +got):\n%s", diff)
	}
}

func TestWhatIsWrongWithAnItemSpoilsItsResultOnly(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
	items := []struct{ item, want string }{
		{`{"customerId":"` + apitest.CustomerA + `"}`, ""},
		{`{"customer_id":"` + apitest.CustomerA + `","segment":null,"maxAge":null}`, ""},
		{`{"customerId":"no-guid"}`, "requests[2].customer_id: must be a GUID"},
		{`{"customerId":"` + apitest.CustomerA + `","segment":"EDU"}`, "requests[3].segment: must be one of COMMERCIAL, EDUCATION, GOVERNMENT, NONPROFIT"},
		{`{"customerId":"` + apitest.CustomerA + `","segment":9}`, "requests[4].segment: must be one of COMMERCIAL, EDUCATION, GOVERNMENT, NONPROFIT"},
		{`{"customerId":"` + apitest.CustomerA + `","segment":["EDUCATION"]}`, "requests[5].segment: must be one of COMMERCIAL, EDUCATION, GOVERNMENT, NONPROFIT"},
		{`{"customerId":"` + apitest.CustomerA + `","segmnt":"EDUCATION"}`, `requests[6].segmnt: is no member of a question`},
		{`{"customerId":"` + apitest.CustomerA + `","maxAge":"soon"}`, `requests[7].max_age: must be a duration in seconds, such as "0s"`},
		{`{"customerId":"` + apitest.CustomerA + `","maxAge":"-1s"}`, "requests[8].max_age: must not be negative"},
		{`{"customerId":"` + apitest.CustomerA + `","minEvidenceTime":"2999-01-01T00:00:00Z"}`, "requests[9].min_evidence_time: must not lie more than one second in the future"},
		{`{"customerId":"` + apitest.CustomerA + `","customer_id":"` + apitest.CustomerA + `"}`, "requests[10].customer_id: must stand in a question once"},
		{`{"customerId":7}`, "requests[11].customer_id: must be a string requests[11].customer_id: must be a GUID"},
		{`null`, "requests[12]: must be a JSON object requests[12].customer_id: must be a GUID"},
		{`"` + apitest.CustomerA + `"`, "requests[13]: must be a JSON object requests[13].customer_id: must be a GUID"},
		{`{"customerId":"` + apitest.CustomerB + `"}`, ""},
	}
	var bodies []string
	for _, row := range items {
		bodies = append(bodies, row.item)
	}
	got := run.Post(t, `{"requests":[`+strings.Join(bodies, ",")+`]}`)
	results, _ := got.JSON(t)["results"].([]any)
	if len(results) != len(items) {
		t.Fatalf("%d results: %s", len(results), got.Body)
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
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
	const check, batch = "/v1/customers/" + apitest.CustomerA + "/eligibility", "/v1/customers:batchCheckEligibility"
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
		got := run.Do(t, row.method, run.REST+row.path, "{}", "Content-Type", row.contentType)
		st := got.Failure(t)
		if got.StatusCode != row.code || st.Code != row.grpc || st.Reason() != row.reason || st.Message == "" {
			t.Errorf("%s %s: %d %s", row.method, row.path, got.StatusCode, got.Body)
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
		if got := run.Post(t, `{"requests":[{}]}`, "Content-Type", contentType); got.StatusCode != http.StatusOK {
			t.Errorf("Content-Type %q: %d %s", contentType, got.StatusCode, got.Body)
		}
	}
}

func TestRESTToleratesATrailingSlash(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
	if got := run.Get(t, apitest.CustomerA, "/?segment=EDUCATION"); got.StatusCode != http.StatusOK || reasons(got.JSON(t)) != "ACCOUNT_ALLOWED QUALIFICATION_APPROVED" {
		t.Errorf("a check: %d %s", got.StatusCode, got.Body)
	}
	if got := run.Get(t, "%7B"+apitest.CustomerA+"%7D", "/"); got.StatusCode != http.StatusOK {
		t.Errorf("a check of an escaped id: %d %s", got.StatusCode, got.Body)
	}
	for method, path := range map[string]string{"POST": "/v1/customers:batchCheckEligibility/", "GET": "/openapi.json/", "HEAD": "/docs/"} {
		if got := run.Do(t, method, run.REST+path, `{"requests":[{}]}`); got.StatusCode != http.StatusOK {
			t.Errorf("%s %s: %d %s", method, path, got.StatusCode, got.Body)
		}
	}
}

func TestRESTRefusesACompressedBody(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
	for encoding, want := range map[string]int{"gzip": 415, "br, gzip": 415, "x": 415, "identity": 200, "Identity": 200, "": 200} {
		got := run.Post(t, `{"requests":[{}]}`, "Content-Encoding", encoding)
		if got.StatusCode != want || want == 415 && (got.Failure(t).Reason() != "UNSUPPORTED_MEDIA_TYPE" || got.Header.Get("Accept-Encoding") != "identity") {
			t.Errorf("%q: %d %s", encoding, got.StatusCode, got.Body)
		}
	}
}

func TestRESTIgnoresMethodOverrides(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
	got := run.Do(t, http.MethodPost, run.REST+"/v1/customers/"+apitest.CustomerA+"/eligibility", "",
		"Content-Type", "application/x-www-form-urlencoded", "X-HTTP-Method-Override", "GET")
	if got.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("%d %s", got.StatusCode, got.Body)
	}
}

func TestAnAnswerShowsPlainFieldsAndNoNulls(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Returns(eligibility.AccountStatusNone, "")})
	got := run.Get(t, apitest.CustomerA, "")
	answer := got.JSON(t)
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
	if _, inbound := answer["recheckTime"]; inbound || strings.Contains(string(got.Body), "null") {
		t.Errorf("empty members are inbound: %s", got.Body)
	}
	if !strings.Contains(string(got.Body), `"temporary"`) {
		t.Errorf("temporary is not inbound: %s", got.Body)
	}
}

func TestRESTAnswersHEADLikeGET(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
	got := run.Do(t, http.MethodHead, run.REST+"/v1/customers/"+apitest.CustomerA+"/eligibility", "")
	if got.StatusCode != http.StatusOK || len(got.Body) != 0 || got.Header.Get("Etag") == "" {
		t.Errorf("%d %v %q", got.StatusCode, got.Header, got.Body)
	}
}

func TestRESTWithoutTrailers(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
	got := run.Get(t, apitest.CustomerA, "", "TE", "trailers")
	if got.StatusCode != http.StatusOK || got.ContentLength != int64(len(got.Body)) {
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
		run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
		for _, facet := range []eligibility.Facet{eligibility.FacetAccount, eligibility.FacetQualifications} {
			run.Store.Hold(apitest.CustomerA, facet, eligibility.Evidence{Status: eligibility.AccountStatusAllowed}, now.Add(-time.Minute))
		}
		got := run.Get(t, apitest.CustomerA, row.query, "Cache-Control", row.cacheControl)
		if got.StatusCode != http.StatusOK {
			t.Errorf("%q, %q: %d %s", row.query, row.cacheControl, got.StatusCode, got.Body)
		}
		if asked := got.JSON(t)["source"] == "EVIDENCE_SOURCE_PARTNER_CENTER"; asked != row.asks {
			t.Errorf("%q, %q: asked %v, want %v", row.query, row.cacheControl, asked, row.asks)
		}
	}
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
	for _, bad := range []string{"max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age=soon"} {
		got := run.Get(t, apitest.CustomerA, "", "Cache-Control", bad)
		if diff := cmp.Diff([]string{"Cache-Control"}, got.Failure(t).Fields()); got.StatusCode != http.StatusBadRequest || diff != "" {
			t.Errorf("%q: %d (-want +got):\n%s", bad, got.StatusCode, diff)
		}
	}
	run.Store.Hold(apitest.CustomerA, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed}, now.Add(-time.Minute))
	run.Store.Hold(apitest.CustomerA, eligibility.FacetQualifications, eligibility.Evidence{}, now.Add(-time.Minute))
	got := run.Post(t, `{"requests":[{"customerId":"`+apitest.CustomerA+`","maxAge":"90s"}]}`, "Cache-Control", "no-cache")
	if !strings.Contains(string(got.Body), "EVIDENCE_SOURCE_PARTNER_CENTER") {
		t.Errorf("no-cache does not reach a batch: %s", got.Body)
	}
}
