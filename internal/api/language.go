package api

import (
	"cmp"
	"hash/maphash"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/text/language"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// headerAcceptLanguage has the languages that a caller prefers, as a metadata key.
const headerAcceptLanguage = "accept-language"

const (
	// maxLanguagesBytes is the longest list of languages that is read: a browser sends
	// some 30 to 100 bytes.
	maxLanguagesBytes = 512
	// recentLanguages is how many lists are remembered.
	recentLanguages = 256
)

// languages finds the language of a caller's messages. It remembers the lists that it
// has read last, so that callers pay for reading theirs once. It is safe for
// concurrent use.
type languages struct {
	seed    maphash.Seed
	matcher language.Matcher
	recent  [recentLanguages]atomic.Pointer[readLanguages] // by hash
}

// readLanguages is a list of languages and the one that was found for it.
type readLanguages struct {
	list  string
	found eligibility.Language
}

func newLanguages() *languages {
	tags := make([]language.Tag, eligibility.LanguageCount)
	for i := range tags {
		tags[i] = language.MustParse(eligibility.Language(i).String())
	}
	return &languages{seed: maphash.MakeSeed(), matcher: language.NewMatcher(tags)}
}

// Language returns the language of a caller's messages, by the values of its
// Accept-Language header: English unless another of those that there are suits it
// better.
func (ch *Chain) Language(accepted []string) eligibility.Language { return ch.languages.of(accepted) }

func (l *languages) of(accepted []string) eligibility.Language {
	size := len(accepted) // and the commas between them
	for _, value := range accepted {
		size += len(value)
	}
	if size == len(accepted) || size > maxLanguagesBytes {
		return eligibility.English
	}
	list := accepted[0]
	if len(accepted) > 1 {
		list = strings.Join(accepted, ",")
	}
	slot := &l.recent[maphash.String(l.seed, list)%recentLanguages]
	if known := slot.Load(); known != nil && known.list == list {
		return known.found
	}
	found := l.read(list)
	slot.Store(&readLanguages{strings.Clone(list), found})
	return found
}

// wanted is a language that a caller accepts, and how much.
type wanted struct {
	tag    language.Tag
	weight float32
}

// read finds the language for a list. An item that is malformed, or that names no
// language which is known, is left out.
//
// Source: https://www.rfc-editor.org/rfc/rfc9110#name-accept-language
func (l *languages) read(list string) eligibility.Language {
	var all []wanted
	for item := range strings.SplitSeq(list, ",") {
		tags, weights, err := language.ParseAcceptLanguage(item)
		if err != nil {
			continue
		}
		for i := range tags { // one, or none if its weight is zero
			all = append(all, wanted{tags[i], weights[i]})
		}
	}
	slices.SortStableFunc(all, func(a, b wanted) int { return cmp.Compare(b.weight, a.weight) })
	tags := make([]language.Tag, len(all))
	for i := range all {
		tags[i] = all[i].tag
	}
	_, found, confidence := l.matcher.Match(tags...)
	if confidence == language.No {
		return eligibility.English
	}
	return eligibility.Language(found) //nolint:gosec // up to LanguageCount
}
