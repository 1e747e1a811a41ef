package console

import (
	"html"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	// shortRunes is how much of a text is shown before the reader opens it, maxRunes how
	// much can be shown at all.
	shortRunes = 120
	maxRunes   = 10_000
	// maxPageText is how many bytes of the texts of Partner Center a page has, escaped.
	maxPageText = 400 << 10
)

// text is a text of Partner Center as a page shows it.
type text struct {
	// Short is the text, or its beginning if it is long.
	Short string
	// Full is the text if Short is only its beginning.
	Full string
	// Cut is how many characters of the text the page does not have.
	Cut int
}

// texts bounds the texts of one page. The zero value is a page without any.
type texts struct{ used int }

// of returns a text as the page shows it.
func (t *texts) of(s string) text {
	whole := firstRunes(s, maxRunes)
	if t.used+len(whole) > maxPageText { // it has at least as many bytes when it is visible
		return t.brief(s)
	}
	shown := visible(whole, maxRunes)
	short := firstRunes(shown, shortRunes)
	switch {
	case len(short) == len(shown) && t.admit(shown):
		return text{Short: shown}
	case t.admit(short + shown):
		return text{Short: short, Full: shown, Cut: utf8.RuneCountInString(s[len(whole):])}
	default:
		return t.brief(s)
	}
}

// brief returns the beginning of a text only.
func (t *texts) brief(s string) text {
	shown, rest := beginning(s, shortRunes)
	if !t.admit(shown) {
		shown, rest = beginning(s, shortRunes/10)
	}
	return text{Short: shown, Cut: utf8.RuneCountInString(rest)}
}

// beginning returns as much of s, visible, as has at most n runes, and the rest of s.
func beginning(s string, n int) (shown, rest string) {
	for i, r := range s {
		piece := visible(string(r), 1)
		if n -= utf8.RuneCountInString(piece); n < 0 {
			return shown, s[i:]
		}
		shown += piece
	}
	return shown, ""
}

// admit reports whether the page has room for s, and takes it.
func (t *texts) admit(s string) bool {
	size := len(html.EscapeString(s))
	if t.used+size > maxPageText {
		return false
	}
	t.used += size
	return true
}

// visible returns the first runes of s, with those escaped that a reader cannot see, or
// that change how others are shown. Joiners stay: scripts and emoji need them.
func visible(s string, runes int) string {
	var b strings.Builder
	for _, r := range s {
		if runes == 0 {
			break
		}
		runes--
		switch {
		case unicode.IsPrint(r), r == '\u200c', r == '\u200d':
			_, _ = b.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			_, _ = b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}

func firstRunes(s string, n int) string {
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}

func runesBeyond(s string, n int) int { return max(utf8.RuneCountInString(s)-n, 0) }

// moment is a point in time as a page shows it.
type moment struct {
	// ISO is for programs, the others are for people.
	ISO, Day, Clock, Relative string
}

// UTC is the whole time.
func (m *moment) UTC() string { return m.Day + " " + m.Clock }

// isoMillis is the form of times in attributes and addresses.
const isoMillis = "2006-01-02T15:04:05.000Z"

// fieldMillis is the form of times in fields of forms.
const fieldMillis = "2006-01-02T15:04:05.000"

// momentOf returns nil for a timestamp that is absent or malformed.
func momentOf(at *timestamppb.Timestamp, now time.Time) *moment {
	if at == nil || at.CheckValid() != nil {
		return nil
	}
	then := at.AsTime().UTC()
	return &moment{ISO: then.Format(isoMillis), Day: then.Format("Mon 2006-01-02"), Clock: then.Format("15:04:05") + " UTC", Relative: relative(then, now)}
}

// relative is how far from now a time is, in words.
func relative(at, now time.Time) string {
	away := at.Sub(now)
	switch {
	case away <= -time.Second:
		return inWords(-away) + " ago"
	case away >= time.Second:
		return "in " + inWords(away)
	default:
		return "now"
	}
}

// inWords is a duration in its largest unit, rounded down.
func inWords(d time.Duration) string {
	for _, unit := range []struct {
		name string
		size time.Duration
	}{{"day", 24 * time.Hour}, {"hour", time.Hour}, {"minute", time.Minute}, {"second", time.Second}} {
		switch n := int64(d / unit.size); {
		case n == 1:
			return "1 " + unit.name
		case n > 1:
			return strconv.FormatInt(n, 10) + " " + unit.name + "s"
		}
	}
	return "less than a second"
}
