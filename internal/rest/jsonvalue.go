package rest

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// scanner reads JSON and validates it as encoding/json does, in one pass: it copies no
// value and does not recurse. If a method reports that the JSON is malformed, nothing
// more can be read.
//
// Package pcclient has a reader of its own on purpose. It rejects a body as a
// whole if any object repeats a name, in any case, and needs every value of it.
// Here each fault is reported with its place, the other items of a batch are
// still answered, and a large body must cost no more than its bytes.
type scanner struct {
	data []byte
	at   int
}

// maxDepth is how many lists and objects encoding/json accepts within one another.
const maxDepth = 10_000

// next skips blanks and returns the character behind them; 0 at the end.
func (s *scanner) next() byte {
	for ; s.at < len(s.data); s.at++ {
		switch c := s.data[s.at]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

// take skips blanks, and c if it is next. It reports whether it was.
func (s *scanner) take(c byte) bool {
	if s.next() != c {
		return false
	}
	s.at++
	return true
}

// more moves to the next element of the list or object that ends with end. It reports
// whether there is one.
func (s *scanner) more(first bool, end byte) (more, ok bool) {
	if s.take(end) {
		return false, true
	}
	return true, first || s.take(',')
}

// name reads the name of a member and the colon behind it.
func (s *scanner) name() (name []byte, ok bool) {
	s.next()
	start := s.at
	if !s.text() {
		return nil, false
	}
	literal := s.data[start:s.at]
	name, plain := plainText(literal)
	if !plain {
		var decoded string
		_ = json.Unmarshal(literal, &decoded) // it is valid
		name = []byte(decoded)
	}
	return name, s.take(':')
}

// value reads any value that stands within depth lists and objects.
func (s *scanner) value(depth int) (value json.RawMessage, ok bool) {
	kind := s.next()
	start := s.at
	if kind == '{' || kind == '[' {
		ok = s.container(depth)
	} else {
		ok = s.scalar()
	}
	return s.data[start:s.at], ok
}

// scalar reads a value that is neither a list nor an object.
func (s *scanner) scalar() bool { return s.text() || s.word() }

// text reads a string.
func (s *scanner) text() bool {
	if s.at >= len(s.data) || s.data[s.at] != '"' {
		return false
	}
	for i := s.at + 1; i < len(s.data); i++ {
		switch c := s.data[i]; {
		case c == '"':
			s.at = i + 1
			return true
		case c < ' ':
			return false
		case c == '\\':
			length := escapeLength(s.data[i+1:])
			if length == 0 {
				return false
			}
			i += length
		}
	}
	return false
}

// escapeLength returns the length of an escape without its backslash; 0 if it is none.
func escapeLength(escape []byte) int {
	if len(escape) == 0 {
		return 0
	}
	switch escape[0] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 1
	case 'u':
		const length = 5
		if len(escape) < length {
			return 0
		}
		for _, c := range escape[1:length] {
			if digit := c | 0x20; !isDigit(c) && (digit < 'a' || digit > 'f') {
				return 0
			}
		}
		return length
	default:
		return 0
	}
}

// word reads a number, true, false or null.
func (s *scanner) word() bool {
	rest := s.data[s.at:]
	for _, word := range [...]string{"null", "true", "false"} {
		if len(rest) >= len(word) && string(rest[:len(word)]) == word {
			s.at += len(word)
			return true
		}
	}
	if len(rest) > 0 && rest[0] == '-' {
		s.at++
	}
	if s.at < len(s.data) && s.data[s.at] == '0' {
		s.at++
	} else if !s.digits() {
		return false
	}
	if s.at < len(s.data) && s.data[s.at] == '.' {
		s.at++
		if !s.digits() {
			return false
		}
	}
	if s.at < len(s.data) && s.data[s.at]|0x20 == 'e' {
		s.at++
		if s.at < len(s.data) && (s.data[s.at] == '+' || s.data[s.at] == '-') {
			s.at++
		}
		return s.digits()
	}
	return true
}

// digits reads digits, of which there must be one.
func (s *scanner) digits() bool {
	start := s.at
	for s.at < len(s.data) && isDigit(s.data[s.at]) {
		s.at++
	}
	return s.at > start
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// container reads a list or an object that stands within depth others.
func (s *scanner) container(depth int) bool {
	var room [32]byte
	open := room[:0] // the ends of the containers around what is read
	for {
		kind := s.next()
		opens := kind == '{' || kind == '['
		switch {
		case !opens:
			if !s.scalar() {
				return false
			}
		case depth+len(open) >= maxDepth:
			return false
		default:
			s.at++
			open = append(open, kind+2) // the brackets stand so in ASCII
		}
		var ok bool
		if open, ok = s.leave(open, opens); !ok || len(open) == 0 {
			return ok
		}
	}
}

// leave moves to the value of the next element, out of the containers that end here.
// It returns the ends of those that are still open. The innermost is empty yet if first
// is set.
func (s *scanner) leave(open []byte, first bool) (_ []byte, ok bool) {
	for len(open) > 0 {
		end := open[len(open)-1]
		more, ok := s.more(first, end)
		if !ok {
			return nil, false
		}
		if more {
			if end == '}' {
				_, ok = s.name()
			}
			return open, ok
		}
		open, first = open[:len(open)-1], false
	}
	return open, true
}

// plainText returns what a valid string holds, unless it is to be decoded for that.
func plainText(value []byte) (text []byte, plain bool) {
	if len(value) == 0 || value[0] != '"' {
		return nil, false
	}
	text = value[1 : len(value)-1]
	return text, bytes.IndexByte(text, '\\') < 0 && utf8.Valid(text)
}
