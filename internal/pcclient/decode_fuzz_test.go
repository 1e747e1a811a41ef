package pcclient

import (
	"bytes"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// The fuzz targets state what a successful reading implies, and check it with
// a reader of their own: json.Unmarshal into maps.

func FuzzDecodeValidationStatus(f *testing.F) {
	f.Add([]byte(`{"type":"account","status":"Allowed","lastUpdateDateTime":""}`))
	f.Add([]byte("\xef\xbb\xbf" + ` {"Type":"ACCOUNT","STATUS":"Not Ready"} `))
	f.Add([]byte(`{"status":"Allowed","x":{"y":[1,{"z":null}]}}`))
	f.Add([]byte(`[{"qualification":"Education"}]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := decodeValidationStatus(body)
		if err != nil {
			if got != (ValidationStatus{}) {
				t.Fatalf("an error comes with %+v", got)
			}
			return
		}
		members := oracleObject(t, oracleValue(t, body))
		if kind := oracleMember(t, members, "type"); kind != nil && eligibility.FoldWord(kind.(string)) != "account" {
			t.Fatalf("type is %v", kind)
		}
		if status := oracleMember(t, members, "status"); status != got.Status || status == "" {
			t.Fatalf("status is %v, read as %q", status, got.Status)
		}
		if got.None {
			t.Fatal("a body means that there is no status")
		}
		if _, err := decodeValidationStatus(withRepeatedMember(body)); err == nil {
			t.Fatal("a repeated member does not make the body unreadable")
		}
	})
}

func FuzzDecodeQualifications(f *testing.F) {
	f.Add([]byte(`[]`))
	f.Add([]byte(`[{"qualification":"Education","vettingStatus":"Denied","vettingReason":"x","vettingCreatedDate":"2020-12-03T10:37:38.885Z"},{"qualification":"StateOwnedEntity"}]`))
	f.Add([]byte(`{"qualifications":[{"qualification":"None","vettingCreateDate":"2021-05-06T19:59:56.6832021+00:00"}]}`))
	f.Add([]byte(`{"Qualification":"Education","VettingStatus":"InReview"}`))
	f.Add([]byte(`{"type":"account","status":"Allowed"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := decodeQualifications(body)
		if err != nil {
			if got != nil {
				t.Fatalf("an error comes with %+v", got)
			}
			return
		}
		value := oracleValue(t, body)
		if object, ok := value.(map[string]any); ok {
			if wrapped := oracleMember(t, object, "qualifications"); wrapped != nil {
				value = wrapped
			} else {
				value = []any{object}
			}
		}
		items := value.([]any)
		if len(items) != len(got) {
			t.Fatalf("%d items read as %d", len(items), len(got))
		}
		for i, item := range items {
			object := oracleObject(t, item)
			if kind := oracleMember(t, object, "qualification"); kind != got[i].Type || kind == "" {
				t.Fatalf("qualification is %v, read as %q", kind, got[i].Type)
			}
			if status, _ := oracleMember(t, object, "vettingStatus").(string); status != got[i].VettingStatus {
				t.Fatalf("vetting status is %q, read as %q", status, got[i].VettingStatus)
			}
			if year := got[i].VettingCreatedTime.UTC().Year(); year < 1 || year > 9999 {
				t.Fatalf("year is %d", year)
			}
		}
		if len(got) > 0 {
			if _, err := decodeQualifications(withRepeatedMember(body)); err == nil {
				t.Fatal("a repeated member does not make the body unreadable")
			}
		}
	})
}

func FuzzDecodeError(f *testing.F) {
	f.Add([]byte(`{"code":600074,"errorName":"AccountStatusNotFound","isRetryable":false}`))
	f.Add([]byte(`{"code":"2032","description":"x"}`))
	f.Add([]byte(`{"statusCode":429,"message":"x"}`))
	f.Add([]byte(`{"code":6.00074e5}`))
	f.Add([]byte(`{"code":0.600074E+06,"isRetryable":true}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		got := decodeFault(body)
		if got == (fault{}) {
			return
		}
		members := oracleObject(t, oracleValue(t, body))
		if got.final && oracleMember(t, members, "isRetryable") != false {
			t.Fatal("final without isRetryable: false")
		}
		if _, err := parseObject(withRepeatedMember(body)); err == nil {
			t.Fatal("a repeated member does not make the body unreadable")
		}
		if got.code == "" {
			return
		}
		if !got.readable || len(got.code) > maxCodeDigits || strings.Trim(got.code, "0123456789") != "" {
			t.Fatalf("got %+v", got)
		}
		switch code := oracleMember(t, members, "code").(type) {
		case string:
			if code != got.code {
				t.Fatalf("code is %q, read as %q", code, got.code)
			}
		case json.Number:
			if len(code) > 100 || strings.ContainsAny(code.String(), "eE") && len(code) > 8 {
				return // big.Rat would work for hours on some exponents
			}
			number, ok := new(big.Rat).SetString(code.String())
			if !ok || number.RatString() != got.code {
				t.Fatalf("code is %s, read as %q", code, got.code)
			}
		default:
			t.Fatalf("code is %v, read as %q", code, got.code)
		}
	})
}

// oracleValue fails the test unless body is one JSON value in valid UTF-8,
// apart from one byte order mark.
func oracleValue(t *testing.T, body []byte) any {
	t.Helper()
	if !utf8.Valid(body) {
		t.Fatal("invalid UTF-8 was read")
	}
	if len(body) >= 3 && string(body[:3]) == "\ufeff" {
		body = body[3:]
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	var value any
	if err := dec.Decode(&value); err != nil {
		t.Fatalf("no JSON was read: %v", err)
	}
	if rest := bytes.Trim(body[dec.InputOffset():], " \t\r\n"); len(rest) > 0 {
		t.Fatalf("text behind the value was ignored: %q", rest)
	}
	return value
}

func oracleObject(t *testing.T, value any) map[string]any {
	t.Helper()
	object, ok := value.(map[string]any)
	if !ok {
		t.Fatalf("%T was read as an object", value)
	}
	return object
}

// oracleMember returns the one member of that name, in any ASCII case.
func oracleMember(t *testing.T, object map[string]any, name string) any {
	t.Helper()
	var found []any
	for key, value := range object {
		if len(key) == len(name) && strings.EqualFold(key, name) {
			found = append(found, value)
		}
	}
	if len(found) > 1 {
		t.Fatalf("%d members %q were read", len(found), name)
	}
	if len(found) == 0 {
		return nil
	}
	return found[0]
}

// withRepeatedMember puts two members of one name into the first object.
func withRepeatedMember(body []byte) []byte {
	return bytes.Replace(body, []byte("{"), []byte(`{"eligibilityd":{},"ELIGIBILITYD":{},`), 1)
}
