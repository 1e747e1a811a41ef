package eligibility_test

import (
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// dependsOnBlocks are the reasons whose message states whether they block.
var dependsOnBlocks = map[eligibility.ReasonCode]bool{eligibility.ReasonAccountNotReady: true}

// TestEveryReasonHasAMessageInEveryLanguage holds the catalogue to what can be checked
// without reading it: complete, one sentence each, no two alike, and no language left
// in another.
func TestEveryReasonHasAMessageInEveryLanguage(t *testing.T) {
	t.Parallel()
	codes := 0
	for code := eligibility.ReasonAccountAllowed; code.String() != "NONE"; code++ {
		codes++
		for in := range eligibility.Language(eligibility.LanguageCount) {
			checkMessages(t, code, in)
		}
	}
	if codes != int(eligibility.ReasonUndecidable) {
		t.Errorf("%d codes have a name, the last one is %d", codes, eligibility.ReasonUndecidable)
	}
}

func checkMessages(t *testing.T, code eligibility.ReasonCode, in eligibility.Language) {
	t.Helper()
	blocks, allows := eligibility.Reason{Code: code, Blocks: true}.Message(in), eligibility.Reason{Code: code}.Message(in)
	if (blocks != allows) != dependsOnBlocks[code] {
		t.Errorf("%v in %v: %q if it blocks, %q if not", code, in, blocks, allows)
	}
	for _, message := range []string{blocks, allows} {
		checkMessage(t, code, in, message)
	}
}

// placeholder is what a translation may leave behind.
var placeholder = regexp.MustCompile(`[%{}<>\[\]$_*#|]|TODO|TBD|XXX|\?\?|\.\.| {2}|^\s|\s$`)

// checkMessage checks one sentence.
func checkMessage(t *testing.T, code eligibility.ReasonCode, in eligibility.Language, message string) {
	t.Helper()
	if !utf8.ValidString(message) { // encoders rely on it
		t.Errorf("%v in %v: %q is no UTF-8", code, in, message)
	}
	end := "."
	if in == eligibility.Japanese {
		end = "。"
	}
	body, ended := strings.CutSuffix(message, end)
	if !ended || len(body) < 10 || strings.ContainsAny(body, ".。!?;") || strings.HasSuffix(body, " ") {
		t.Errorf("%v in %v: %q is not one sentence", code, in, message)
	}
	if found := placeholder.FindString(message); found != "" {
		t.Errorf("%v in %v: %q has %q", code, in, message, found)
	}
	kana := strings.ContainsFunc(message, func(r rune) bool { return unicode.In(r, unicode.Hiragana) })
	if kana != (in == eligibility.Japanese) {
		t.Errorf("%v in %v: %q", code, in, message)
	}
	// A sentence belongs to one reason in one language.
	for other := eligibility.ReasonAccountAllowed; other <= eligibility.ReasonUndecidable; other++ {
		for also := range eligibility.Language(eligibility.LanguageCount) {
			for _, blocks := range []bool{true, false} {
				if (other != code || also != in) && (eligibility.Reason{Code: other, Blocks: blocks}).Message(also) == message {
					t.Errorf("%v in %v and %v in %v are both %q", code, in, other, also, message)
				}
			}
		}
	}
}

// A reason or language that is not defined costs neither the process nor a message.
func TestMessagesOfWhatIsNotDefined(t *testing.T) {
	t.Parallel()
	for _, code := range []eligibility.ReasonCode{eligibility.ReasonNone, eligibility.ReasonUndecidable + 1, eligibility.ReasonUndecidable + 2, 255} {
		for in := range eligibility.Language(255) {
			if got := (eligibility.Reason{Code: code}).Message(in); got != "" {
				t.Errorf("code %d in %d: %q", code, in, got)
			}
		}
	}
	allowed := eligibility.Reason{Code: eligibility.ReasonAccountAllowed}
	if got := allowed.Message(eligibility.LanguageCount); got != allowed.Message(eligibility.English) {
		t.Errorf("in no language: %q", got)
	}
}

// The tags of languages differ, so that none is announced as another.
func TestEveryLanguageHasATag(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for in := range eligibility.Language(eligibility.LanguageCount) {
		if tag := in.String(); len(tag) != 2 || seen[tag] {
			t.Errorf("language %d has tag %q", in, tag)
		}
		seen[in.String()] = true
	}
}
