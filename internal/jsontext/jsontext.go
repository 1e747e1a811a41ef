// Package jsontext appends JSON where a line is encoded by hand.
package jsontext

import "unicode/utf8"

// AppendString appends a JSON string. What is no UTF-8 becomes the replacement
// character.
func AppendString(b []byte, s string) []byte {
	b = append(b, '"')
	i := 0
	for i < len(s) && isPlain[s[i]] {
		i++
	}
	plain := 0 // start of what is not appended yet
	for i < len(s) {
		c := s[i]
		switch {
		case c >= utf8.RuneSelf:
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				b = utf8.AppendRune(append(b, s[plain:i]...), utf8.RuneError)
				plain = i + 1
			}
			i += size
		case c < ' ' || c == '"' || c == '\\':
			b = appendEscape(append(b, s[plain:i]...), c)
			i++
			plain = i
		default:
			i++
		}
	}
	return append(append(b, s[plain:]...), '"')
}

// isPlain is set for characters of ASCII that stand for themselves.
var isPlain = func() (set [256]bool) { //nolint:gochecknoglobals // only read
	for c := ' '; c < utf8.RuneSelf; c++ {
		set[c] = c != '"' && c != '\\'
	}
	return set
}()

func appendEscape(b []byte, c byte) []byte {
	const digits = "0123456789abcdef"
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\b':
		return append(b, `\b`...)
	case '\f':
		return append(b, `\f`...)
	case '\n':
		return append(b, `\n`...)
	case '\r':
		return append(b, `\r`...)
	case '\t':
		return append(b, `\t`...)
	default:
		return append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&0xf])
	}
}
