package pcclient

import (
	"testing"
	"unicode/utf8"
)

// Evidence has no text that is not UTF-8, whatever Partner Center sends: a body in
// another encoding is unreadable, and an escape of half a character is replaced.
func TestTextsAreUTF8(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"\xff", "\xc3", "\xed\xa0\x80", `\ud800`, `\udc00`, `\ud800A`, "é"} {
		status, err := decodeValidationStatus([]byte(`{"type":"account","status":"x` + text + `"}`))
		if err == nil && !utf8.ValidString(status.Status) || (err == nil) != utf8.ValidString(text) {
			t.Errorf("%q: status %q, %v", text, status.Status, err)
		}
		for _, member := range []string{"qualification", "vettingStatus", "vettingReason"} {
			body := `{"qualification":"Education","` + member + `":"x` + text + `"}`
			if member == "qualification" {
				body = `{"qualification":"x` + text + `"}`
			}
			held, err := decodeQualifications([]byte(body))
			if (err == nil) != utf8.ValidString(text) {
				t.Errorf("%q: %v", text, err)
			}
			for _, q := range held {
				if !utf8.ValidString(q.Type) || !utf8.ValidString(q.VettingStatus) || !utf8.ValidString(q.VettingReason) {
					t.Errorf("%q: %+v", text, q)
				}
			}
		}
	}
}
