package pcclient

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The ids are those of the published wire cases: VS for validationStatus, Q
// for qualifications, B for error bodies. Rows without an id are ours.

func TestDecodeValidationStatus(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		body string
		want string // the status; empty means unreadable
	}{
		"VS-01 allowed":               {`{"type":"account","status":"Allowed","lastUpdateDateTime":""}`, "Allowed"},
		"VS-02 under review":          {`{"type":"account","status":"UnderReview","lastUpdateDateTime":""}`, "UnderReview"},
		"VS-03 not allowed":           {`{"type":"account","status":"NotAllowed","lastUpdateDateTime":""}`, "NotAllowed"},
		"VS-04 unknown":               {`{"type":"account","status":"Unknown","lastUpdateDateTime":""}`, "Unknown"},
		"VS-05 not ready":             {`{"type":"account","status":"Not Ready","lastUpdateDateTime":""}`, "Not Ready"},
		"VS-06 old time":              {`{"type":"account","status":"Allowed","lastUpdateDateTime":"2021-07-14T18:02:00"}`, "Allowed"},
		"VS-11 word kept as sent":     {`{"type":"account","status":"ALLOWED"}`, "ALLOWED"},
		"VS-12 new word":              {`{"type":"account","status":"Suspended"}`, "Suspended"},
		"VS-13 status null":           {`{"type":"account","status":null}`, ""},
		"VS-13 status empty":          {`{"type":"account","status":""}`, ""},
		"VS-13 status missing":        {`{"type":"account"}`, ""},
		"VS-15 type in capitals":      {`{"type":"Account","status":"Allowed"}`, "Allowed"},
		"VS-15 type with separators":  {`{"type":" ac_co-unt\t","status":"Allowed"}`, "Allowed"},
		"VS-15 type missing":          {`{"status":"Allowed"}`, "Allowed"},
		"VS-15 type null":             {`{"type":null,"status":"Allowed"}`, "Allowed"},
		"VS-15 another type":          {`{"type":"tax","status":"Allowed"}`, ""},
		"VS-15 empty type":            {`{"type":"","status":"Allowed"}`, ""},
		"VS-15 type is a number":      {`{"type":1,"status":"Allowed"}`, ""},
		"VS-17 localized word":        {`{"type":"account","status":"禁止"}`, "禁止"},
		"S-10 truncated":              {`{"type":"account","status":"Allowed"`, ""},
		"S-10 login page":             {`<!DOCTYPE html><html><body>Sign in</body></html>`, ""},
		"status is a blank":           {`{"status":" "}`, " "},
		"status is a number":          {`{"status":1}`, ""},
		"status is an object":         {`{"status":{"status":"Allowed"}}`, ""},
		"status is an array":          {`{"status":["Allowed"]}`, ""},
		"status one level down":       {`{"data":{"status":"Allowed"}}`, ""},
		"array around":                {`[{"status":"Allowed"}]`, ""},
		"a string":                    {`"Allowed"`, ""},
		"null":                        {`null`, ""},
		"empty":                       {``, ""},
		"blank":                       {" \n", ""},
		"byte order mark":             {"\xef\xbb\xbf" + `{"status":"Allowed"}`, "Allowed"},
		"two byte order marks":        {"\xef\xbb\xbf\xef\xbb\xbf" + `{"status":"Allowed"}`, ""},
		"byte order mark after blank": {" \xef\xbb\xbf" + `{"status":"Allowed"}`, ""},
		"UTF-16":                      {"\xff\xfe{\x00", ""},
		"white space around":          {" \t\r\n" + `{"status":"Allowed"}` + " \t\r\n", "Allowed"},
		"no JSON white space":         {"\v" + `{"status":"Allowed"}`, ""},
		"NUL behind":                  {`{"status":"Allowed"}` + "\x00", ""},
		"text behind":                 {`{"status":"Allowed"} ok`, ""},
		"second value behind":         {`{"status":"Allowed"}{}`, ""},
		"names in other case":         {`{"TYPE":"account","Status":"Allowed"}`, "Allowed"},
		"escaped name":                {`{"\u0073tatus":"Allowed"}`, "Allowed"},
		"long s is no s":              {`{"ſtatus":"Allowed"}`, ""},
		"repeated":                    {`{"status":"Allowed","status":"Allowed"}`, ""},
		"repeated in other case":      {`{"status":"Allowed","STATUS":"NotAllowed"}`, ""},
		"repeated by escape":          {`{"status":"Allowed","\u0053tatus":"NotAllowed"}`, ""},
		"repeated elsewhere":          {`{"status":"Allowed","x":1,"X":2}`, ""},
		"repeated deep":               {`{"status":"Allowed","x":[[{"y":{"z":1,"Z":1}}]]}`, ""},
		"same name in two objects":    {`{"status":"Allowed","x":{"status":1},"y":{"status":2}}`, "Allowed"},
		"invalid UTF-8 in status":     {"{\"status\":\"Allowed\xff\"}", ""},
		"invalid UTF-8 elsewhere":     {"{\"status\":\"Allowed\",\"x\":\"\xc0\xaf\"}", ""},
		"trailing comma":              {`{"status":"Allowed",}`, ""},
		"comment":                     {`{"status":"Allowed"} // fine`, ""},
		"single quotes":               {`{'status':'Allowed'}`, ""},
		"very deep":                   {`{"status":"Allowed","x":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, ""},
		"600074 with a 200":           {`{"code":600074}`, ""},
		"Q-02 the other resource":     {`[{"qualification":"Education","vettingStatus":"Approved"}]`, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := decodeValidationStatus([]byte(test.body))
			if (err == nil) != (test.want != "") {
				t.Fatalf("error %v, want status %q", err, test.want)
			}
			if diff := cmp.Diff(ValidationStatus{Status: test.want}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeQualifications(t *testing.T) {
	t.Parallel()
	december := time.Date(2020, 12, 3, 10, 37, 38, 885e6, time.UTC)
	may := time.Date(2021, 5, 6, 19, 59, 56, 683202100, time.UTC)
	approved := Qualification{Type: "Education", VettingStatus: "Approved"}
	denied := Qualification{Type: "Education", VettingStatus: "Denied", VettingReason: "Not an Education Customer", VettingCreatedTime: december}
	soe := Qualification{Type: "StateOwnedEntity"}

	tests := map[string]struct {
		body string
		want []Qualification // nil means unreadable
	}{
		"Q-01 none held":               {`[]`, []Qualification{}},
		"Q-02 approved without date":   {`[{"qualification":"Education","vettingStatus":"Approved"}]`, []Qualification{approved}},
		"Q-03 in review":               {`[{"qualification":"Education","vettingStatus":"InReview","vettingCreatedDate":"2020-12-03T10:37:38.885Z"}]`, []Qualification{{Type: "Education", VettingStatus: "InReview", VettingCreatedTime: december}}},
		"Q-04 denied":                  {`[{"qualification":"Education","vettingStatus":"Denied","vettingReason":"Not an Education Customer","vettingCreatedDate":"2020-12-03T10:37:38.885Z"}]`, []Qualification{denied}},
		"Q-06 denied without reason":   {`[{"qualification":"Education","vettingStatus":"Denied"}]`, []Qualification{{Type: "Education", VettingStatus: "Denied"}}},
		"Q-07 marker":                  {`[{"qualification":"StateOwnedEntity"}]`, []Qualification{soe}},
		"Q-07 marker with nulls":       {`[{"qualification":"StateOwnedEntity","vettingStatus":null,"vettingReason":null,"vettingCreateDate":null}]`, []Qualification{soe}},
		"Q-08 two entries":             {`[{"qualification":"Education","vettingStatus":"Approved"},{"qualification":"StateOwnedEntity"}]`, []Qualification{approved, soe}},
		"Q-09 other date name":         {`[{"qualification":"GovernmentCommunityCloud","vettingStatus":"Approved","vettingCreateDate":"2021-05-06T19:59:56.6832021+00:00"},{"qualification":"StateOwnedEntity"}]`, []Qualification{{Type: "GovernmentCommunityCloud", VettingStatus: "Approved", VettingCreatedTime: may}, soe}},
		"Q-10 wrapped":                 {`{"qualifications":[{"qualification":"StateOwnedEntity"}]}`, []Qualification{soe}},
		"Q-10 wrapped with neighbours": {`{"totalCount":1,"qualifications":[{"qualification":"StateOwnedEntity"}],"links":{}}`, []Qualification{soe}},
		"Q-11 wrapped none":            {`{"qualifications":[]}`, []Qualification{}},
		"Q-11 wrapped null":            {`{"qualifications":null}`, nil},
		"Q-11 empty object":            {`{}`, nil},
		"Q-13 None is kept here":       {`[{"qualification":"None"}]`, []Qualification{{Type: "None"}}},
		"Q-14 nonprofit":               {`[{"qualification":"Nonprofit"}]`, []Qualification{{Type: "Nonprofit"}}},
		"Q-16 words as sent":           {`[{"qualification":"government_community_cloud"},{"qualification":"GCC"}]`, []Qualification{{Type: "government_community_cloud"}, {Type: "GCC"}}},
		"Q-18 unknown vetting status":  {`[{"qualification":"Education","vettingStatus":"Expired"}]`, []Qualification{{Type: "Education", VettingStatus: "Expired"}}},
		"Q-19 no vetting status":       {`[{"qualification":"Education"}]`, []Qualification{{Type: "Education"}}},
		"Q-26 XML":                     {`<CustomerQualifications/>`, nil},
		"Q-28 trailing comma":          {`[{"qualification":"Education","vettingStatus":"Approved",}]`, nil},
		"Q-28 comment":                 {`[{"qualification":"Education"}] // UTC`, nil},
		"change log: one object":       {`{"Qualification":"Education","VettingStatus":"Denied","VettingReason":"Not an Education Customer","VettingCreatedDate":"2020-12-03T10:37:38.885Z"}`, []Qualification{denied}},
		"wrapper before single":        {`{"qualifications":[],"qualification":"Education","vettingStatus":"Approved"}`, []Qualification{}},
		"date: change log":             {`[{"qualification":"StateOwnedEntity","vettingCreatedDate":"07/09/2020: 00:00:00"}]`, []Qualification{soe}},
		"date: a number":               {`[{"qualification":"StateOwnedEntity","vettingCreatedDate":1607000000}]`, []Qualification{soe}},
		"date: an object":              {`[{"qualification":"StateOwnedEntity","vettingCreatedDate":{}}]`, []Qualification{soe}},
		"date: no zone":                {`[{"qualification":"X","vettingCreatedDate":"2020-12-03T10:37:38.885"}]`, []Qualification{{Type: "X", VettingCreatedTime: december}}},
		"date: other zone":             {`[{"qualification":"X","vettingCreatedDate":"2020-12-03T11:37:38.885+01:00"}]`, []Qualification{{Type: "X", VettingCreatedTime: december}}},
		"date: never":                  {`[{"qualification":"StateOwnedEntity","vettingCreatedDate":"0001-01-01T00:00:00"}]`, []Qualification{soe}},
		"date: before year one":        {`[{"qualification":"StateOwnedEntity","vettingCreatedDate":"0000-06-01T00:00:00Z"}]`, []Qualification{soe}},
		"date: beyond year 9999":       {`[{"qualification":"StateOwnedEntity","vettingCreatedDate":"9999-12-31T23:59:59-12:00"}]`, []Qualification{soe}},
		"date: first bad, second good": {`[{"qualification":"X","vettingCreatedDate":"soon","vettingCreateDate":"2020-12-03T10:37:38.885Z"}]`, []Qualification{{Type: "X", VettingCreatedTime: december}}},
		"item is a string":             {`["Education"]`, nil},
		"item is null":                 {`[null]`, nil},
		"item is a list":               {`[[{"qualification":"Education"}]]`, nil},
		"one bad item spoils the list": {`[{"qualification":"Education","vettingStatus":"Approved"},1]`, nil},
		"item without qualification":   {`[{"vettingStatus":"Approved"}]`, nil},
		"qualification is empty":       {`[{"qualification":""}]`, nil},
		"qualification is a number":    {`[{"qualification":1}]`, nil},
		"vetting status is a number":   {`[{"qualification":"Education","vettingStatus":1}]`, nil},
		"vetting reason is a list":     {`[{"qualification":"Education","vettingStatus":"Denied","vettingReason":[]}]`, nil},
		"list is an object":            {`{"qualifications":{"qualification":"Education"}}`, nil},
		"list is a string":             {`{"qualifications":"Education"}`, nil},
		"old resource: a string":       {`"education"`, nil},
		"null":                         {`null`, nil},
		"empty":                        {``, nil},
		"byte order mark":              {"\xef\xbb\xbf[]", []Qualification{}},
		"repeated":                     {`[{"qualification":"Education","Qualification":"Nonprofit"}]`, nil},
		"VS-01 the other resource":     {`{"type":"account","status":"Allowed"}`, nil},
		"VS-20 error body with a 200":  {`{"code":600074,"errorName":"AccountStatusNotFound"}`, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := decodeQualifications([]byte(test.body))
			if (err == nil) != (test.want != nil) {
				t.Fatalf("error %v, want %v", err, test.want)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestEveryPublishedDenialReasonIsPassedOnAsText(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{
		"Not an Education Customer",
		"Not an education customer",
		"No longer an Education Customer",
		"Not an Education Customer - After Review",
		"Restricted being an Education Customer",
		"Not an Academic Domain",
		"Not an eligible Library",
		"Not an eligible Museum",
		"a reason that nobody published",
	} {
		got, err := decodeQualifications(fmt.Appendf(nil, `[{"qualification":"Education","vettingStatus":"Denied","vettingReason":%q}]`, reason))
		if err != nil || got[0].VettingReason != reason {
			t.Errorf("got %v, %v, want reason %q", got, err, reason)
		}
	}
}

func TestDecodeFault(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		body string
		want fault
	}{
		"VS-20 no account status":   {`{"code":600074,"message":"x","description":"x","errorName":"AccountStatusNotFound","isRetryable":false,"errorMessageExtended":"InternalErrorCode=600074"}`, fault{readable: true, code: "600074", final: true}},
		"B-01 code is a string":     {`{"code":"2032","description":"x"}`, fault{readable: true, code: "2032"}},
		"B-02 code is a number":     {`{"code":3000,"description":"x","data":[],"source":"PartnerFD"}`, fault{readable: true, code: "3000"}},
		"B-03 data are strings":     {`{"code":3000,"description":"x","data":["a","b"],"source":"PartnerFD"}`, fault{readable: true, code: "3000"}},
		"B-04 newer shape":          {`{"code":600061,"message":"x","description":"x","errorName":"X","isRetryable":false,"parameters":{},"errorMessageExtended":"InternalErrorCode=600061"}`, fault{readable: true, code: "600061", final: true}},
		"B-05 gateway":              {`{"statusCode":429,"message":"x"}`, fault{readable: true}},
		"B-06 long text":            {`{"code":3000,"description":"` + strings.Repeat("&quot;", 4000) + `"}`, fault{readable: true, code: "3000"}},
		"B-07 plain text":           {`Service Unavailable`, fault{}},
		"B-07 empty":                {``, fault{}},
		"B-07 null":                 {`null`, fault{}},
		"B-07 array":                {`[{"code":600074}]`, fault{}},
		"F-01 another host's error": {`{"error":"invalid_grant","error_codes":[700082]}`, fault{}},
		"S-05 retryable":            {`{"code":1,"isRetryable":true}`, fault{readable: true, code: "1"}},
		"final without a code":      {`{"isRetryable":false}`, fault{final: true}},
		"final as a string":         {`{"code":1,"isRetryable":"false"}`, fault{readable: true, code: "1"}},
		"final as an object":        {`{"code":1,"isRetryable":{}}`, fault{readable: true, code: "1"}},
		"missing brace of the docs": {`{"code":600074,"errorName":"AccountStatusNotFound"`, fault{}},
		"error name alone":          {`{"errorName":"AccountStatusNotFound"}`, fault{}},
		"one level down":            {`{"error":{"code":600074}}`, fault{}},
		"repeated":                  {`{"code":600074,"Code":600074}`, fault{}},
		"name in other case":        {`{"CODE":600074}`, fault{readable: true, code: "600074"}},
		"code is null":              {`{"code":null,"statusCode":403}`, fault{readable: true}},
		"code is an object":         {`{"code":{},"statusCode":403}`, fault{}},
		"code is a boolean":         {`{"code":true}`, fault{}},
		"status code is an array":   {`{"statusCode":[]}`, fault{}},
		"status code is a string":   {`{"statusCode":"403"}`, fault{readable: true}},
		"code is a word":            {`{"code":"AccessDenied"}`, fault{readable: true}},
		"code is very long":         {`{"code":"60007460007"}`, fault{readable: true}},
		"number too long":           {`{"code":60007460007}`, fault{readable: true}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := decodeFault([]byte(test.body)); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestACodeIsANumberOfThatValueOrExactlyThatString(t *testing.T) {
	t.Parallel()
	same := []string{
		`600074`, `600074.0`, `600074.000`, `6.00074e5`, `6.00074E+5`, `0.600074e6`,
		`60007400e-2`, `600074e0`, `600074e-0`, `6.00074e+0000000000000000000005`, `"600074"`,
		`0.` + strings.Repeat("0", 5000) + `600074e5006`,
		`600074` + strings.Repeat("0", 5000) + `e-5000`,
	}
	for _, code := range same {
		if got := decodeFault([]byte(`{"code":` + code + `}`)).code; got != codeNoAccountStatus {
			t.Errorf("%.40s is read as %q", code, got)
		}
	}
	other := []string{
		`600073`, `600075`, `-600074`, `600074.5`, `600074.00000000000000001`, `600073.99999999999999999`,
		`6.00074e4`, `6.00074e6`, `6.00074e-5`, `600074e1`, `600074e99999999999999999999`, `600074e-99999999999999999999`,
		`600074e536870911`, `600074e-536870912`, `600074e9223372036854775807`, `600074e-9223372036854775808`,
		`0`, `-0`, `0e99999999999999999999`, `0.0`, `1e1000000`,
		`"600074.0"`, `" 600074"`, `"600074 "`, `"0600074"`, `"+600074"`, `"6.00074e5"`, `"６０００７４"`, `"600 074"`, `""`,
		`null`, `true`, `[600074]`, `{"code":600074}`,
	}
	for _, code := range other {
		if got := decodeFault([]byte(`{"code":` + code + `}`)).code; got == codeNoAccountStatus {
			t.Errorf("%s is read as %s", code, codeNoAccountStatus)
		}
	}
}
