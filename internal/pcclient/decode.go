package pcclient

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// The error codes that the rules know.
//
// Source: https://learn.microsoft.com/en-us/partner-center/developer/retrieve-validation-status
// and https://learn.microsoft.com/en-us/partner-center/developer/error-codes
// (read 2026-11-21)
const (
	codeNoAccountStatus   = "600074"
	codeTenantNotFound    = "60003"
	codeCustomerNotServed = "20002"
)

// maxCodeDigits is the longest error code that is kept; published ones have six.
const maxCodeDigits = 10

// ValidationStatus is a customer's account status, in Partner Center's words.
type ValidationStatus struct {
	// None is true if Partner Center has no account status for the customer (404
	// with code 600074), which is not the status "Unknown".
	None bool
	// Status is the status word as sent, never empty unless None.
	Status string
}

// Qualification is one entry of a customer's qualifications, in Partner
// Center's words.
type Qualification struct {
	// Type is the qualification word as sent, never empty. "None" is a word
	// like any other here.
	Type string
	// VettingStatus and VettingReason are empty if none was sent.
	VettingStatus string
	VettingReason string
	// VettingCreatedTime is zero if no readable date was sent.
	VettingCreatedTime time.Time
}

// decodeValidationStatus reads the body of a 200: an object with a non-empty
// string status that speaks of the account.
func decodeValidationStatus(body []byte) (ValidationStatus, error) {
	object, err := parseObject(body)
	if err != nil {
		return ValidationStatus{}, err
	}
	switch kind := object["type"].(type) {
	case nil:
	case string:
		if eligibility.FoldWord(kind) != "account" {
			return ValidationStatus{}, errShape
		}
	default:
		return ValidationStatus{}, errShape
	}
	status, _ := object["status"].(string)
	if status == "" {
		return ValidationStatus{}, errShape
	}
	return ValidationStatus{Status: status}, nil
}

// decodeQualifications reads the body of a 200 in any of its three shapes: an
// array, an object with an array qualifications, or one qualification.
func decodeQualifications(body []byte) ([]Qualification, error) {
	value, err := parseJSON(body)
	if err != nil {
		return nil, err
	}
	if object, ok := value.(map[string]any); ok {
		if wrapped, ok := object["qualifications"]; ok {
			value = wrapped
		} else {
			value = []any{object}
		}
	}
	items, ok := value.([]any)
	if !ok {
		return nil, errShape
	}
	qualifications := make([]Qualification, 0, len(items))
	for _, item := range items {
		q, err := decodeQualification(item)
		if err != nil {
			return nil, err
		}
		qualifications = append(qualifications, q)
	}
	return qualifications, nil
}

func decodeQualification(item any) (Qualification, error) {
	object, ok := item.(map[string]any)
	if !ok {
		return Qualification{}, errShape
	}
	kind, _ := object["qualification"].(string)
	status, statusOK := optionalString(object["vettingstatus"])
	reason, reasonOK := optionalString(object["vettingreason"])
	if kind == "" || !statusOK || !reasonOK {
		return Qualification{}, errShape
	}
	// Partner Center uses both names, in one and the same list.
	created := parseDate(object["vettingcreateddate"])
	if created.IsZero() {
		created = parseDate(object["vettingcreatedate"])
	}
	return Qualification{
		Type:               kind,
		VettingStatus:      status,
		VettingReason:      reason,
		VettingCreatedTime: created,
	}, nil
}

// optionalString reads a member that may be absent or null.
func optionalString(value any) (s string, ok bool) {
	if value == nil {
		return "", true
	}
	s, ok = value.(string)
	return s, ok
}

// parseDate reads a date with a zone, or without one as UTC. What it cannot
// read is dropped: no decision depends on a date alone.
func parseDate(value any) time.Time {
	text, _ := value.(string)
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05"} {
		t, err := time.Parse(layout, text)
		if err != nil {
			continue
		}
		// An offset can carry a date out of the years that a timestamp holds.
		if t = t.UTC(); t.Year() >= 1 && t.Year() <= 9999 {
			return t
		}
	}
	return time.Time{}
}

// fault is what the rules ask of an error body. Its free text is not kept.
type fault struct {
	// readable is true if the body is an object whose code, or if it has none
	// whose statusCode, is a number or a string.
	readable bool
	// code is the code in decimal digits. It is empty unless the code is a whole
	// number of at most maxCodeDigits digits.
	code string
	// final is true if a replay is useless: isRetryable is false.
	final bool
}

// decodeFault reads an error body. A body that it cannot read is the zero
// fault: the status alone must do.
func decodeFault(body []byte) fault {
	object, err := parseObject(body)
	if err != nil {
		return fault{}
	}
	var f fault
	f.final = object["isretryable"] == false
	switch code := object["code"].(type) {
	case nil:
		switch object["statuscode"].(type) {
		case json.Number, string:
			f.readable = true
		}
	case json.Number:
		f.readable = true
		f.code = wholeNumber(code.String())
	case string:
		f.readable = true
		if len(code) <= maxCodeDigits && strings.Trim(code, "0123456789") == "" {
			f.code = code
		}
	}
	return f
}

// wholeNumber returns the decimal digits of a JSON number that is a whole
// number of at most maxCodeDigits digits, however it is written, and the empty
// string for any other. It compares exactly: a float64 would round
// 600074.00000000001 to a code that was not sent.
func wholeNumber(number string) string {
	number, negative := strings.CutPrefix(number, "-")
	exponent := 0
	if i := strings.IndexAny(number, "eE"); i >= 0 {
		e, err := strconv.ParseInt(number[i+1:], 10, 30)
		if err != nil { // far beyond what the digits of a body can make up for
			return ""
		}
		number, exponent = number[:i], int(e)
	}
	whole, fraction, _ := strings.Cut(number, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	if digits == "" {
		return "0"
	}
	significant := strings.TrimRight(digits, "0")
	zeros := exponent - len(fraction) + len(digits) - len(significant)
	if negative || zeros < 0 || len(significant)+zeros > maxCodeDigits {
		return ""
	}
	return significant + strings.Repeat("0", zeros)
}
