package console

import (
	"html"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// hostile are texts that Partner Center could send.
var hostile = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='alert(1)`, `javascript:alert(1)`, `</pre></main></body>`, `{{.CSRF}}`, `&lt;b&gt;`,
	"\u202eweiveR\u202c", "\u2066a\u2069", "a\x00b\x1b[31mc\r\nd\te", "\u2028\u2029\ufeff\u200b", "👩🏽‍🎓 École", "مؤسسة تعليمية", "審査中", strings.Repeat("x", 10_000), strings.Repeat("審", 10_000),
	strings.Repeat("<", 10_001), strings.Repeat("word ", 2_000), strings.Repeat("\u202e", 10_000), " ", "", "a\u0301", "�",
}

func TestTextsAreVisibleAndBounded(t *testing.T) {
	t.Parallel()
	for _, s := range hostile {
		page := new(texts)
		for _, shown := range []text{page.of(s), page.brief(s)} {
			for _, r := range shown.Short + shown.Full {
				if r == '\u202e' || r == '\u2066' || r < ' ' || r == '\u2028' || r == '\ufeff' || r == '\u200b' {
					t.Errorf("%.20q has %q", s, r)
				}
			}
			if n := utf8.RuneCountInString(shown.Short); n > shortRunes {
				t.Errorf("%.20q: %d characters are shown", s, n)
			}
			if shown.Full != "" && !strings.HasPrefix(shown.Full, shown.Short) {
				t.Errorf("%.20q: the beginning is %q", s, shown.Short)
			}
		}
	}
	page := new(texts)
	if got := page.of(strings.Repeat("x", 10_002)); got.Cut != 2 || len(got.Full) != maxRunes || len(got.Short) != shortRunes {
		t.Errorf("cut %d, %d, %d", got.Cut, len(got.Full), len(got.Short))
	}
	if got := page.of("Under Review"); got != (text{Short: "Under Review"}) {
		t.Errorf("%+v", got)
	}
	if got := page.of("a\u202eb\nc"); got.Short != `a\u202eb\nc` {
		t.Errorf("%+v", got)
	}
	// Characters that are escaped count as one each, and no escape is cut.
	if got := page.brief(strings.Repeat("\u202e", 30)); got != (text{Short: strings.Repeat(`\u202e`, 20), Cut: 10}) {
		t.Errorf("%+v", got)
	}
	if got := page.brief("abc" + strings.Repeat("\u202e", 30)); got != (text{Short: "abc" + strings.Repeat(`\u202e`, 19), Cut: 11}) {
		t.Errorf("%+v", got)
	}
	if got := page.of("👩🏽‍🎓"); got.Short != "👩🏽‍🎓" {
		t.Errorf("%q", got.Short)
	}
	page, size := new(texts), 0
	for range 100 {
		got := page.of(strings.Repeat("<", 9_000))
		size += len(html.EscapeString(got.Short + got.Full))
		if got.Short == "" || got.Full == "" && got.Cut != 9_000-len(got.Short) {
			t.Fatalf("%d, %d, %d", len(got.Short), len(got.Full), got.Cut)
		}
	}
	if size > maxPageText+100*shortRunes {
		t.Errorf("%d bytes", size)
	}
}

func TestMomentsAreInWords(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 14, 2, 7, 0, time.UTC)
	for away, want := range map[time.Duration]string{
		0: "now", 900 * time.Millisecond: "now", -time.Second: "1 second ago", 61 * time.Second: "in 1 minute", -2 * time.Hour: "2 hours ago", 49 * time.Hour: "in 2 days",
	} {
		if got := momentOf(timestamppb.New(now.Add(away)), now); got.Relative != want {
			t.Errorf("%v: %q, want %q", away, got.Relative, want)
		}
	}
	if got := momentOf(timestamppb.New(now), now); got.UTC() != "Sat 2026-11-28 14:02:07 UTC" || got.ISO != "2026-11-28T14:02:07.000Z" {
		t.Errorf("%+v", got)
	}
	if momentOf(nil, now) != nil || momentOf(&timestamp{Seconds: 1 << 60}, now) != nil {
		t.Error("a time that is none is shown")
	}
}
