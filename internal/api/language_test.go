package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

func TestTheLanguageOfACaller(t *testing.T) {
	t.Parallel()
	found := newLanguages()
	for _, row := range []struct {
		accepted []string
		want     eligibility.Language
	}{
		{nil, eligibility.English},
		{[]string{""}, eligibility.English},
		{[]string{"", ""}, eligibility.English},
		{[]string{"en"}, eligibility.English},
		{[]string{"en-US,en;q=0.9,de;q=0.8"}, eligibility.English},
		{[]string{"de"}, eligibility.German},
		{[]string{"DE"}, eligibility.German},
		{[]string{"de-AT"}, eligibility.German},
		{[]string{"de_CH"}, eligibility.German},
		{[]string{"de-AT,en;q=0.5"}, eligibility.German},
		{[]string{"gsw"}, eligibility.German}, // Swiss German
		{[]string{"fr-CA,fr;q=0.9,en;q=0.1"}, eligibility.French},
		{[]string{"es-419"}, eligibility.Spanish},
		{[]string{"it-CH;q=0.2, nl-BE ; q=0.3"}, eligibility.Dutch},
		{[]string{"pt-BR"}, eligibility.Portuguese},
		{[]string{"pt-PT,pt;q=0.9"}, eligibility.Portuguese},
		{[]string{"zh-Hant-TW,ja-JP;q=0.1"}, eligibility.Japanese},

		// By weight, and among equals by place.
		{[]string{"de;q=0.1,fr;q=0.9"}, eligibility.French},
		{[]string{"fr,de"}, eligibility.French},
		{[]string{"sv,fi;q=0.9,it;q=0.1"}, eligibility.Italian},
		{[]string{"de;q=0,fr;q=0.001"}, eligibility.French},
		{[]string{"de;q=0"}, eligibility.English},
		{[]string{"sv"}, eligibility.English},
		{[]string{"*"}, eligibility.English},
		{[]string{"*;q=0.5,de"}, eligibility.German},

		// What is malformed, or names no language that is known, is left out.
		{[]string{"xx-!!,it"}, eligibility.Italian},
		{[]string{"qqq,it"}, eligibility.Italian},
		{[]string{"de;q=high,nl;q=0.1"}, eligibility.Dutch},
		{[]string{"de;q=NaN"}, eligibility.German},
		{[]string{",,;,;q=1,=,\x00,\xff,ja"}, eligibility.Japanese},
		{[]string{"de-"}, eligibility.English},
		{[]string{"\x00\xff"}, eligibility.English},
		{[]string{"ｄｅ"}, eligibility.English},

		// Repeated headers are one list.
		{[]string{"sv", "nl"}, eligibility.Dutch},
		{[]string{"de;q=0.1", "", "es"}, eligibility.Spanish},

		// What is too long is not read.
		{[]string{strings.Repeat("x", 10_000)}, eligibility.English},
		{[]string{"de," + strings.Repeat("-", 10_000)}, eligibility.English},
		{[]string{strings.Repeat("de,", 10_000)}, eligibility.English},
		{slices.Repeat([]string{"de"}, 10_000), eligibility.English},
		{slices.Repeat([]string{""}, 10_000), eligibility.English},
	} {
		for range 2 { // read, then remembered
			if got := found.of(row.accepted); got != row.want {
				t.Errorf("%.80q: %v, want %v", row.accepted, got, row.want)
			}
		}
	}
}

// What is remembered is bounded, and never mistaken for something else.
func TestRememberedLanguagesAreThoseOfTheirLists(t *testing.T) {
	t.Parallel()
	found := newLanguages()
	tags := []string{"en", "de", "fr", "es", "it", "nl", "pt", "ja"}
	for range 2 {
		for i := range 10 * recentLanguages {
			want := eligibility.Language(i % len(tags)) //nolint:gosec // up to eight
			if got := found.of([]string{fmt.Sprintf("%s-x-%04d", tags[want], i)}); got != want {
				t.Fatalf("list %d: %v, want %v", i, got, want)
			}
		}
	}
	remembered := 0
	for i := range found.recent {
		if known := found.recent[i].Load(); known != nil { // by chance, one or two have had no list
			remembered++
			if len(known.list) > maxLanguagesBytes {
				t.Errorf("slot %d: %v", i, known)
			}
		}
	}
	if remembered < recentLanguages/2 {
		t.Errorf("%d lists are remembered", remembered)
	}
}

// FuzzLanguage holds any list to one of the languages, the same each time.
func FuzzLanguage(f *testing.F) {
	for _, list := range []string{"", "de-AT,en;q=0.5", "*;q=0.1", "x-y-z;q=,;=", "en-u-rg-atzzzz", strings.Repeat("a-", 300)} {
		f.Add(list, "fr")
	}
	found := newLanguages()
	f.Fuzz(func(t *testing.T, first, second string) {
		for _, accepted := range [][]string{{first}, {first, second}} {
			got := found.of(accepted)
			if got >= eligibility.LanguageCount || found.of(accepted) != got || newLanguages().of(accepted) != got {
				t.Errorf("%q: %v", accepted, got)
			}
		}
	})
}

func BenchmarkLanguage(b *testing.B) {
	found := newLanguages()
	for name, accepted := range map[string][]string{
		"none": nil, "remembered": {"de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7"},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				found.of(accepted)
			}
		})
	}
	for name, list := range map[string]string{
		"usual": "de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7", "worst": strings.Repeat("fr,", maxLanguagesBytes/3),
		"worst of variants": strings.Repeat("de-x-a,", maxLanguagesBytes/7), "unknown": strings.Repeat("sv,", maxLanguagesBytes/3),
	} {
		b.Run("read "+name, func(b *testing.B) {
			for b.Loop() {
				found.read(list)
			}
		})
	}
}

// An event is encoded once for all streams in a language, and not for others.
func TestEventsAreEncodedOncePerLanguage(t *testing.T) {
	t.Parallel()
	event := &changeEvent{after: &CheckReply{Answer: eligibility.Answer{Reasons: []eligibility.Reason{{Code: eligibility.ReasonAccountAllowed}}}}}
	seen := make(map[string]eligibility.Language)
	for in := range eligibility.Language(eligibility.LanguageCount) {
		wire, text := event.encodedProto(in), event.encodedJSON(in)
		if again := event.encodedProto(in); &again[0] != &wire[0] {
			t.Errorf("%v: encoded twice for gRPC", in)
		}
		if again := event.encodedJSON(in); &again[0] != &text[0] {
			t.Errorf("%v: encoded twice for REST", in)
		}
		message := eligibility.Reason{Code: eligibility.ReasonAccountAllowed}.Message(in)
		if !strings.Contains(string(wire), message) || !strings.Contains(string(text), message) {
			t.Errorf("%v: %q and %s", in, wire, text)
		}
		if other, taken := seen[string(text)]; taken {
			t.Errorf("%v and %v are the same", in, other)
		}
		seen[string(text)] = in
	}
}
