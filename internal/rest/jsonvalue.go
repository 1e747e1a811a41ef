package rest

import (
	"bytes"
	"encoding/json"
	"iter"
	"unicode/utf8"
)

// The functions here take apart JSON that json.Valid has accepted. They look at
// each byte once, copy no value and do not recurse.
//
// Package pcclient has a reader of its own on purpose. It rejects a body as a
// whole if any object repeats a name, in any case, and needs every value of it.
// Here each fault is reported with its place, the other items of a batch are
// still answered, and a large body must cost no more than its bytes.

// blanks are the characters that may stand around a JSON value.
const blanks = " \t\r\n"

// kindOf is the first character of a JSON value, which shows its kind; 0 if
// there is none.
func kindOf(value []byte) byte {
	value = bytes.TrimLeft(value, blanks)
	if len(value) == 0 {
		return 0
	}
	return value[0]
}

// members are the members of a JSON object in their order, repeated ones included.
func members(object []byte) iter.Seq2[string, json.RawMessage] {
	return func(yield func(string, json.RawMessage) bool) {
		for member := range elements(object) {
			end := stringEnd(member, 0)
			value := bytes.TrimLeft(member[end:], blanks)[1:] // behind the colon
			if !yield(decodeString(member[:end]), bytes.TrimLeft(value, blanks)) {
				return
			}
		}
	}
}

// elements are what commas separate in a JSON list or object, without the blanks
// around it; nothing if container is empty.
func elements(container []byte) iter.Seq[json.RawMessage] {
	return func(yield func(json.RawMessage) bool) {
		container = bytes.Trim(container, blanks)
		if len(container) == 0 {
			return
		}
		rest := container[1 : len(container)-1] // without the brackets
		for start := 0; start < len(rest); {
			end := elementEnd(rest, start)
			element := bytes.Trim(rest[start:end], blanks)
			if len(element) > 0 && !yield(element) { // it is empty in an empty container only
				return
			}
			start = end + 1
		}
	}
}

// elementEnd returns the end of the element that begins at i: at a comma outside
// of all brackets and strings, or at the end.
func elementEnd(data []byte, i int) int {
	depth := 0
	for i < len(data) {
		switch data[i] {
		case '"':
			i = stringEnd(data, i)
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case ',':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return i
}

// stringEnd returns the end of the JSON string that begins at i.
func stringEnd(data []byte, i int) int {
	for i++; data[i] != '"'; i++ {
		if data[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// decodeString returns what a JSON string stands for.
func decodeString(literal []byte) string {
	if plain := literal[1 : len(literal)-1]; bytes.IndexByte(plain, '\\') < 0 && utf8.Valid(plain) {
		return string(plain)
	}
	var s string
	_ = json.Unmarshal(literal, &s) // it is valid
	return s
}
