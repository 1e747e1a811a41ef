package eligibility

import (
	"encoding/hex"
	"errors"
)

// CustomerID is a customer's Microsoft Entra tenant ID. It is comparable and
// serves as a map key.
type CustomerID [16]byte

var errCustomerID = errors.New("customer ID is not a GUID")

// ParseCustomerID reads a GUID: 8-4-4-4-12 or 32 hexadecimal digits in any
// case, with or without braces; blanks around it are ignored. Anything else is
// an error that does not repeat the input.
func ParseCustomerID[T string | []byte](s T) (CustomerID, error) {
	var id CustomerID
	for len(s) > 0 && isBlank(s[0]) {
		s = s[1:]
	}
	for len(s) > 0 && isBlank(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	if len(s) >= 2 && s[0] == '{' && s[len(s)-1] == '}' {
		s = s[1 : len(s)-1]
	}
	var digits [32]byte
	switch len(s) {
	case 32:
		copy(digits[:], s)
	case 36:
		if s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
			return CustomerID{}, errCustomerID
		}
		n := copy(digits[:], s[:8])
		n += copy(digits[n:], s[9:13])
		n += copy(digits[n:], s[14:18])
		n += copy(digits[n:], s[19:23])
		copy(digits[n:], s[24:])
	default:
		return CustomerID{}, errCustomerID
	}
	if _, err := hex.Decode(id[:], digits[:]); err != nil {
		return CustomerID{}, errCustomerID
	}
	return id, nil
}

func isBlank(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// String returns the ID in lower case, hyphenated 8-4-4-4-12.
func (id CustomerID) String() string {
	var b [36]byte
	return string(id.Append(b[:0]))
}

// Append appends the form that String returns.
func (id CustomerID) Append(b []byte) []byte {
	const digits = "0123456789abcdef"
	var text [36]byte
	at := 0
	for i, v := range id {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			text[at] = '-'
			at++
		}
		text[at], text[at+1] = digits[v>>4], digits[v&0xf]
		at += 2
	}
	return append(b, text[:]...)
}
