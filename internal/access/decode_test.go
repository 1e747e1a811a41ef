package access

import (
	"encoding/base64"
	"strings"
	"testing"
)

func TestAPartOfATokenIsOneObjectWithoutRepeats(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		`{}`:                         true,
		` {"aud":"a","AUD":"b"} `:    true,
		`{"a":{"b":1,"b":2}}`:        true, // only our own members are read
		`{"aud":"a","aud":"a"}`:      false,
		`{"aud":"a","\u0061ud":""}`:  false,
		`{"alg":"none","alg":""}`:    false,
		`{}{}`:                       false,
		`{} x`:                       false,
		`{"a":`:                      false,
		`[]`:                         false,
		`null`:                       false,
		``:                           false,
		` `:                          false,
		"{\"a\":\"\xff\"}":           false,
		strings.Repeat("[", 100_000): false,
	} {
		object, got := decodeObject(base64.RawURLEncoding.EncodeToString([]byte(text)))
		if got != want || got != (object != nil) {
			t.Errorf("%.40q: %v, want %v", text, got, want)
		}
	}
}
