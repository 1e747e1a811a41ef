package pcclient_test

import (
	"errors"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// The oracle converts an answer of Partner Center. It is written from the rules
// alone, with a JSON reader of its own, and shares no code with the client: if the
// two disagree, one of them is wrong.

// verdict is what the rules make of one answer: either a failure, or absence,
// or facts.
type verdict struct {
	failure        eligibility.Kind // 0 if there is none
	absence        eligibility.Absence
	status         eligibility.AccountStatus
	statusText     string
	qualifications []eligibility.Qualification
}

// oracle judges an answer about one facet.
func oracle(facet eligibility.Facet, status int, body []byte) verdict {
	doc, err := readDocument(body)
	readable := err == nil && doc.kind == object
	switch {
	case status == 200 && facet == eligibility.FacetAccount:
		if !readable {
			return verdict{failure: eligibility.KindInvalidResponse}
		}
		return judgeStatus(doc)
	case status == 200:
		if err != nil {
			return verdict{failure: eligibility.KindInvalidResponse}
		}
		return judgeQualifications(doc)
	case status == 429:
		return verdict{failure: eligibility.KindThrottled}
	case status == 401:
		return verdict{failure: eligibility.KindCredentials}
	case status == 408, status >= 500 && status < 600 && status != 501:
		return verdict{failure: eligibility.KindUnavailable}
	case status == 404 && readable && isCode(doc, 600074) && facet == eligibility.FacetAccount:
		return verdict{status: eligibility.AccountStatusNone}
	case status == 404 && readable && isCode(doc, 60003):
		return verdict{absence: eligibility.AbsenceNotFound}
	case status == 403 && readable && isCode(doc, 20002):
		return verdict{absence: eligibility.AbsenceNotServed}
	case status == 403 && readable && hasCode(doc):
		return verdict{failure: eligibility.KindCredentials}
	default:
		return verdict{failure: eligibility.KindInvalidResponse}
	}
}

func judgeStatus(doc node) verdict {
	invalid := verdict{failure: eligibility.KindInvalidResponse}
	if kind, sent := doc.get("type"); sent && kind.kind != null && (kind.kind != text || squash(kind.text) != "account") {
		return invalid
	}
	word, sent := doc.get("status")
	if !sent || word.kind != text || word.text == "" {
		return invalid
	}
	known := map[string]eligibility.AccountStatus{
		"allowed":     eligibility.AccountStatusAllowed,
		"underreview": eligibility.AccountStatusUnderReview,
		"notallowed":  eligibility.AccountStatusNotAllowed,
		"unknown":     eligibility.AccountStatusUnknown,
		"notready":    eligibility.AccountStatusNotReady,
	}
	meaning, isKnown := known[squash(word.text)]
	if !isKnown {
		meaning = eligibility.AccountStatusUnrecognized
	}
	return verdict{status: meaning, statusText: word.text}
}

func judgeQualifications(doc node) verdict {
	invalid := verdict{failure: eligibility.KindInvalidResponse}
	items := doc.items
	switch doc.kind {
	case array:
	case object:
		if wrapped, sent := doc.get("qualifications"); !sent {
			items = []node{doc}
		} else if wrapped.kind != array {
			return invalid
		} else {
			items = wrapped.items
		}
	default:
		return invalid
	}
	var held []eligibility.Qualification
	for _, item := range items {
		q, ok := judgeItem(item)
		if !ok {
			return invalid
		}
		if squash(q.TypeText) != "none" {
			held = append(held, q)
		}
	}
	return verdict{qualifications: held}
}

func judgeItem(item node) (q eligibility.Qualification, ok bool) {
	if item.kind != object {
		return q, false
	}
	word, sent := item.get("qualification")
	if !sent || word.kind != text || word.text == "" {
		return q, false
	}
	q.TypeText = word.text
	q.Type = map[string]eligibility.QualificationType{
		"education":                eligibility.QualificationEducation,
		"governmentcommunitycloud": eligibility.QualificationGovernmentCommunityCloud,
		"nonprofit":                eligibility.QualificationNonprofit,
		"stateownedentity":         eligibility.QualificationStateOwnedEntity,
	}[squash(word.text)]
	for name, into := range map[string]*string{"vettingstatus": &q.VettingStatusText, "vettingreason": &q.VettingReason} {
		if member, sent := item.get(name); sent && member.kind != null {
			if member.kind != text {
				return q, false
			}
			*into = member.text
		}
	}
	if q.VettingStatusText != "" {
		q.VettingStatus = eligibility.VettingUnrecognized
		switch squash(q.VettingStatusText) {
		case "approved":
			q.VettingStatus = eligibility.VettingApproved
		case "inreview":
			q.VettingStatus = eligibility.VettingInReview
		case "denied":
			q.VettingStatus = eligibility.VettingDenied
		}
	}
	for _, name := range []string{"vettingcreateddate", "vettingcreatedate"} {
		if date, sent := item.get(name); sent && date.kind == text && q.VettingCreatedTime.IsZero() {
			q.VettingCreatedTime = readDate(date.text)
		}
	}
	return q, true
}

func readDate(s string) time.Time {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999"} {
		if at, err := time.Parse(layout, s); err == nil && at.UTC().Year() >= 1 && at.UTC().Year() <= 9999 {
			return at.UTC()
		}
	}
	return time.Time{}
}

// isCode reports whether the body's code is want: a number of that value, or
// exactly its digits in a string.
func isCode(doc node, want int64) bool {
	code, _ := doc.get("code")
	switch code.kind {
	case text:
		return code.text == strconv.FormatInt(want, 10)
	case number:
		return sameNumber(code.text, want)
	default:
		return false
	}
}

// sameNumber compares exactly. Exponents beyond reason are no code.
func sameNumber(digits string, want int64) bool {
	if at := strings.IndexAny(digits, "eE"); at >= 0 {
		exponent, err := strconv.Atoi(digits[at+1:])
		if err != nil || exponent > 2_000_000 || exponent < -2_000_000 {
			return false
		}
		if exponent > 5000 || exponent < -5000 {
			return false // the generator writes no mantissa that long
		}
	}
	value, ok := new(big.Rat).SetString(digits)
	return ok && value.Cmp(new(big.Rat).SetInt64(want)) == 0
}

func hasCode(doc node) bool {
	code, sent := doc.get("code")
	if !sent || code.kind == null {
		code, _ = doc.get("statuscode")
	}
	return code.kind == number || code.kind == text
}

// squash brings a word into the form in which words are compared.
func squash(word string) string {
	for _, gone := range []string{" ", "\t", "\n", "\v", "\f", "\r", "_", "-"} {
		word = strings.ReplaceAll(word, gone, "")
	}
	return asciiLower(word)
}

func asciiLower(s string) string {
	b := []byte(s)
	for i := range b {
		if b[i] >= 'A' && b[i] <= 'Z' {
			b[i] |= 0x20
		}
	}
	return string(b)
}

// kind is what a JSON value is.
type kind int

const (
	absent kind = iota
	null
	boolean
	number
	text
	array
	object
)

// node is a JSON value; names are in ASCII lower case.
type node struct {
	kind    kind
	text    string // of a string, or the digits of a number
	items   []node
	names   []string
	members []node
}

func (n node) get(name string) (node, bool) {
	for i := range n.names {
		if n.names[i] == name {
			return n.members[i], true
		}
	}
	return node{}, false
}

var errDocument = errors.New("unreadable")

// readDocument reads a body as one JSON value by RFC 8259 and the rules' own
// restrictions.
func readDocument(body []byte) (node, error) {
	if len(body) > 1<<20 {
		return node{}, errDocument
	}
	s := strings.TrimPrefix(string(body), "\ufeff")
	if !utf8.ValidString(s) {
		return node{}, errDocument
	}
	r := &jsonReader{rest: s}
	r.blanks()
	value, err := r.value()
	if err != nil {
		return node{}, err
	}
	r.blanks()
	if r.rest != "" {
		return node{}, errDocument
	}
	return value, nil
}

type jsonReader struct{ rest string }

func (r *jsonReader) blanks() { r.rest = strings.TrimLeft(r.rest, " \t\n\r") }

func (r *jsonReader) take(prefix string) bool {
	rest, ok := strings.CutPrefix(r.rest, prefix)
	if ok {
		r.rest = rest
	}
	return ok
}

func (r *jsonReader) value() (node, error) {
	switch {
	case r.take("null"):
		return node{kind: null}, nil
	case r.take("true"), r.take("false"):
		return node{kind: boolean}, nil
	case r.take("{"):
		return r.object()
	case r.take("["):
		return r.array()
	case r.take(`"`):
		s, err := r.string()
		return node{kind: text, text: s}, err
	default:
		return r.number()
	}
}

func (r *jsonReader) array() (node, error) {
	n := node{kind: array}
	r.blanks()
	if r.take("]") {
		return n, nil
	}
	for {
		r.blanks()
		item, err := r.value()
		if err != nil {
			return n, err
		}
		n.items = append(n.items, item)
		r.blanks()
		if r.take("]") {
			return n, nil
		}
		if !r.take(",") {
			return n, errDocument
		}
	}
}

func (r *jsonReader) object() (node, error) {
	n := node{kind: object}
	seen := map[string]bool{}
	r.blanks()
	if r.take("}") {
		return n, nil
	}
	for {
		r.blanks()
		if !r.take(`"`) {
			return n, errDocument
		}
		name, err := r.string()
		if err != nil {
			return n, err
		}
		name = asciiLower(name)
		if seen[name] {
			return n, errDocument
		}
		seen[name] = true
		r.blanks()
		if !r.take(":") {
			return n, errDocument
		}
		r.blanks()
		member, err := r.value()
		if err != nil {
			return n, err
		}
		n.names, n.members = append(n.names, name), append(n.members, member)
		r.blanks()
		if r.take("}") {
			return n, nil
		}
		if !r.take(",") {
			return n, errDocument
		}
	}
}

func (r *jsonReader) number() (node, error) {
	start := r.rest
	r.take("-")
	if !r.take("0") && r.digits() == 0 {
		return node{}, errDocument
	}
	if r.take(".") && r.digits() == 0 {
		return node{}, errDocument
	}
	if r.take("e") || r.take("E") {
		if !r.take("+") {
			r.take("-")
		}
		if r.digits() == 0 {
			return node{}, errDocument
		}
	}
	return node{kind: number, text: start[:len(start)-len(r.rest)]}, nil
}

func (r *jsonReader) digits() int {
	trimmed := strings.TrimLeft(r.rest, "0123456789")
	n := len(r.rest) - len(trimmed)
	r.rest = trimmed
	return n
}

// string reads a string whose opening quote is behind.
func (r *jsonReader) string() (string, error) {
	var b strings.Builder
	for r.rest != "" {
		c, size := utf8.DecodeRuneInString(r.rest)
		switch {
		case r.take(`"`):
			return b.String(), nil
		case r.take(`\`):
			if err := r.escape(&b); err != nil {
				return "", err
			}
		case c < 0x20:
			return "", errDocument
		default:
			b.WriteRune(c)
			r.rest = r.rest[size:]
		}
	}
	return "", errDocument
}

func (r *jsonReader) escape(b *strings.Builder) error {
	for from, to := range map[string]string{`"`: `"`, `\`: `\`, "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"} {
		if r.take(from) {
			b.WriteString(to)
			return nil
		}
	}
	unit, ok := r.unit("u")
	if !ok {
		return errDocument
	}
	if utf16.IsSurrogate(unit) {
		before := r.rest
		low, ok := r.unit(`\u`)
		pair := utf16.DecodeRune(unit, low)
		if !ok || pair == utf8.RuneError {
			r.rest = before // the low half, if it was none, stands for itself
		}
		unit = pair
		if !ok {
			unit = utf8.RuneError
		}
	}
	b.WriteRune(unit)
	return nil
}

// unit reads four hexadecimal digits behind prefix.
func (r *jsonReader) unit(prefix string) (rune, bool) {
	if !strings.HasPrefix(r.rest, prefix) || len(r.rest) < len(prefix)+4 {
		return 0, false
	}
	value, err := strconv.ParseUint(r.rest[len(prefix):len(prefix)+4], 16, 16)
	if err != nil {
		return 0, false
	}
	r.rest = r.rest[len(prefix)+4:]
	return rune(value), true
}
