package pcclient

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// An unreadableError is why a body cannot be read. It never repeats text of the
// body.
type unreadableError string

func (e unreadableError) Error() string { return string(e) }

const (
	errTooLarge     = unreadableError("body is larger than 1 MiB")
	errEncoding     = unreadableError("body cannot be decompressed")
	errNotUTF8      = unreadableError("body is not UTF-8")
	errNotJSON      = unreadableError("body is not one JSON value")
	errRepeatedName = unreadableError("body repeats a member name")
	errShape        = unreadableError("body is not of the expected shape")
)

// parseJSON reads body as the one JSON value that it must be. Objects become
// map[string]any with their member names in ASCII lower case, numbers
// json.Number, the rest what encoding/json makes of it.
//
// It is stricter than encoding/json: a body is no evidence if two readers could
// read it differently. The whole body is unreadable if it has invalid UTF-8, or if
// any object repeats a member name, in whatever case. A leading byte order mark is
// dropped, because users of the API report one.
func parseJSON(body []byte) (any, error) {
	body = withoutBOM(body)
	if !utf8.Valid(body) {
		return nil, errNotUTF8
	}
	if !json.Valid(body) { // also bounds the nesting, hence our recursion
		return nil, errNotJSON
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	return parseValue(dec)
}

// withoutBOM returns text without a leading byte order mark.
func withoutBOM(text []byte) []byte { return bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")) }

// parseObject is parseJSON for a body that must be an object.
func parseObject(body []byte) (map[string]any, error) {
	value, err := parseJSON(body)
	if err != nil {
		return nil, err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, errShape
	}
	return object, nil
}

func parseValue(dec *json.Decoder) (any, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, errNotJSON
	}
	switch token {
	case json.Delim('{'):
		return parseMembers(dec)
	case json.Delim('['):
		return parseItems(dec)
	default:
		return token, nil
	}
}

func parseMembers(dec *json.Decoder) (map[string]any, error) {
	object := make(map[string]any)
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, errNotJSON
		}
		name, ok := token.(string)
		if !ok {
			return nil, errNotJSON
		}
		name = lowerASCII(name)
		if _, repeated := object[name]; repeated {
			return nil, errRepeatedName
		}
		if object[name], err = parseValue(dec); err != nil {
			return nil, err
		}
	}
	if _, err := dec.Token(); err != nil { // the closing brace
		return nil, errNotJSON
	}
	return object, nil
}

func parseItems(dec *json.Decoder) ([]any, error) {
	items := []any{}
	for dec.More() {
		item, err := parseValue(dec)
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	if _, err := dec.Token(); err != nil { // the closing bracket
		return nil, errNotJSON
	}
	return items, nil
}

// lowerASCII folds A to Z only: Unicode folding would take a Kelvin sign for a k.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
