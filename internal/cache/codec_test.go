package cache

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

var (
	accountKey        = eligibility.Key{CustomerID: eligibility.CustomerID{1}}
	qualificationsKey = eligibility.Key{CustomerID: eligibility.CustomerID{1}, Facet: eligibility.FacetQualifications}
	fetched           = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
)

// fields is a value body of the given fields, ready to be sealed.
func fields(fields ...[]byte) []byte {
	b := binary.BigEndian.AppendUint64([]byte{valueVersion}, uint64(fetched.UnixNano()))
	return append(b, bytes.Join(fields, nil)...)
}

func varint(field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, field, protowire.VarintType), v)
}

func text(field protowire.Number, s string) []byte { return appendString(nil, field, s) }

func qualification(fields ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, fieldQualification, protowire.BytesType), bytes.Join(fields, nil))
}

// unkeyed seals without an integrity key.
var unkeyed = new(sealer)

// seal ends a body with the right seal.
func seal(key eligibility.Key, body []byte) []byte {
	return unkeyed.seal(bytes.Clone(body), 0, sealValue, key)
}

func encode(key eligibility.Key, evidence *eligibility.Evidence) []byte {
	return unkeyed.encode(key, evidence)
}

func decode(key eligibility.Key, value []byte) (*eligibility.Evidence, error) {
	return unkeyed.decode(key, value, known{})
}

func TestDecodeReadsWhatEncodeWrote(t *testing.T) {
	t.Parallel()
	samples := append(cachetest.Samples(fetched), &eligibility.Evidence{
		Facet: eligibility.FacetQualifications, FetchTime: fetched,
		Qualifications: []eligibility.Qualification{{TypeText: "of 1970", VettingCreatedTime: time.Unix(0, 0).UTC()}},
	})
	for i, want := range samples {
		key := eligibility.Key{CustomerID: eligibility.CustomerID{1}, Facet: want.Facet}
		got, err := decode(key, encode(key, want))
		if diff := cmp.Diff(want, got, cachetest.Compare()); diff != "" || err != nil {
			t.Errorf("sample %d: %v (-want +got):\n%s", i, err, diff)
		}
	}
}

func TestDecodeRefusesWhatEncodeWouldNotWrite(t *testing.T) {
	t.Parallel()
	allowed := text(fieldStatusText, "Allowed")
	education := text(fieldType, "Education")
	otherVersion := fields(allowed)
	otherVersion[0]++
	for name, row := range map[string]struct {
		key  eligibility.Key
		body []byte
	}{
		"nothing":                                {accountKey, nil},
		"half a header":                          {accountKey, []byte{valueVersion, 0, 0}},
		"another version":                        {accountKey, otherVersion},
		"too large":                              {accountKey, fields(text(fieldStatusText, string(make([]byte, maxValueBytes))))},
		"no status and no word for one":          {accountKey, fields()},
		"a status and none":                      {accountKey, fields(varint(fieldNoStatus, 1), allowed)},
		"an absence that nobody knows":           {accountKey, fields(varint(fieldAbsence, 3))},
		"an absence beyond a byte":               {accountKey, fields(varint(fieldAbsence, 257))},
		"an absence with a status":               {accountKey, fields(varint(fieldAbsence, 1), allowed)},
		"an absence with no status":              {accountKey, fields(varint(fieldAbsence, 1), varint(fieldNoStatus, 1))},
		"an absence with a qualification":        {qualificationsKey, fields(varint(fieldAbsence, 1), qualification(education))},
		"an account with a qualification":        {accountKey, fields(allowed, qualification(education))},
		"qualifications with a status":           {qualificationsKey, fields(allowed)},
		"qualifications with no status":          {qualificationsKey, fields(varint(fieldNoStatus, 1))},
		"an unknown field":                       {accountKey, fields(allowed, varint(99, 1))},
		"an unknown field in a qualification":    {qualificationsKey, fields(qualification(education, varint(99, 1)))},
		"a field of another kind":                {accountKey, fields(allowed, protowire.AppendFixed32(protowire.AppendTag(nil, fieldCorrelationID, protowire.Fixed32Type), 1))},
		"a status that is not UTF-8":             {accountKey, fields(text(fieldStatusText, "Allowed\xff"))},
		"a correlation that is not UTF-8":        {accountKey, fields(allowed, text(fieldCorrelationID, "\xc3"))},
		"a request that is not UTF-8":            {accountKey, fields(allowed, text(fieldRequestID, "\xed\xa0\x80"))},
		"a kind that is not UTF-8":               {qualificationsKey, fields(qualification(text(fieldType, "\xff")))},
		"a vetting status that is not UTF-8":     {qualificationsKey, fields(qualification(education, text(fieldVettingStatus, "\xff")))},
		"a vetting reason that is not UTF-8":     {qualificationsKey, fields(qualification(education, text(fieldVettingReason, "\xff")))},
		"half a tag":                             {accountKey, fields(allowed, []byte{0x80})},
		"half a field":                           {accountKey, fields(allowed, []byte{0x22, 5, 'x'})},
		"a number where words belong":            {accountKey, fields(allowed, varint(fieldCorrelationID, 1))},
		"words where a number belongs":           {accountKey, fields(text(fieldAbsence, "x"), allowed)},
		"a field twice":                          {accountKey, fields(text(fieldStatusText, "NotAllowed"), allowed)},
		"a zero":                                 {accountKey, fields(varint(fieldAbsence, 0), allowed)},
		"no status by another number":            {accountKey, fields(varint(fieldNoStatus, 1), varint(fieldNoStatus, 2))},
		"empty words":                            {accountKey, fields(allowed, []byte{0x22, 0})},
		"fields out of order":                    {accountKey, fields(text(fieldCorrelationID, "c"), allowed)},
		"a long varint":                          {accountKey, fields([]byte{0x08, 0x81, 0x00})},
		"more nanoseconds than a second":         {qualificationsKey, fields(qualification(varint(fieldCreatedSeconds, 2), varint(fieldCreatedNanos, 1e9)))},
		"more nanoseconds than a number":         {qualificationsKey, fields(qualification(varint(fieldCreatedSeconds, 2), varint(fieldCreatedNanos, 1<<63)))},
		"nanoseconds of no second":               {qualificationsKey, fields(qualification(varint(fieldCreatedNanos, 1)))},
		"a field of a qualification, twice":      {qualificationsKey, fields(qualification(education, education))},
		"the request before qualifications":      {qualificationsKey, fields(text(fieldRequestID, "r"), qualification(education))},
		"qualifications before the correlation":  {qualificationsKey, fields(qualification(education), text(fieldCorrelationID, "c"))},
		"a qualification that cannot be read":    {qualificationsKey, fields(qualification([]byte{0x80}))},
		"a qualification with a time as a word":  {qualificationsKey, fields(qualification(text(fieldCreatedSeconds, "x")))},
		"a qualification with a zero nanosecond": {qualificationsKey, fields(qualification(varint(fieldCreatedSeconds, 2), varint(fieldCreatedNanos, 0)))},
	} {
		if evidence, err := decode(row.key, seal(row.key, row.body)); err == nil || evidence != nil {
			t.Errorf("%s: read as %+v, error %v", name, evidence, err)
		}
	}
}

// A value is bound to its customer and its facet: an absence would be read
// under either.
func TestDecodeRefusesTheValueOfAnotherKey(t *testing.T) {
	t.Parallel()
	value := seal(accountKey, fields(varint(fieldAbsence, 1)))
	if _, err := decode(accountKey, value); err != nil {
		t.Fatal(err)
	}
	for _, key := range []eligibility.Key{qualificationsKey, {CustomerID: eligibility.CustomerID{2}}} {
		if evidence, err := decode(key, value); err == nil {
			t.Errorf("%v: read as %+v", key, evidence)
		}
	}
}

// FuzzRedisValue decodes bodies under a right checksum, then as they are.
func FuzzRedisValue(f *testing.F) {
	for _, evidence := range cachetest.Samples(fetched) {
		key := eligibility.Key{CustomerID: eligibility.CustomerID{1}, Facet: evidence.Facet}
		value := encode(key, evidence)
		f.Add(value[:len(value)-checksumBytes])
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, key := range []eligibility.Key{accountKey, qualificationsKey} {
			for _, value := range [][]byte{seal(key, body), body} {
				evidence, err := decode(key, value)
				if content, ok := unkeyed.open(value, sealValue, key); ok && len(content) >= headerBytes && content[0] == valueVersion {
					want, wantErr := decodeGenerically(key, content)
					if diff := cmp.Diff(want, evidence, cachetest.Compare()); diff != "" || (err == nil) != (wantErr == nil) {
						t.Errorf("%q: %v, want %v (-want +got):\n%s", value, err, wantErr, diff)
					}
				}
				if err != nil {
					if evidence != nil {
						t.Errorf("%+v beside %v", evidence, err)
					}
					continue
				}
				if !validTexts(evidence) {
					t.Errorf("%q: a text is not UTF-8: %+v", value, evidence)
				}
				if again := encode(key, evidence); !bytes.Equal(again, value) {
					t.Errorf("read %q, which is written as %q", value, again)
				}
				account := key.Facet == eligibility.FacetAccount && evidence.Absence == eligibility.AbsenceNone
				if account != (evidence.Status != eligibility.AccountStatusUnspecified) {
					t.Errorf("%q says nothing, or too much: %+v", value, evidence)
				}
				if evidence.Status == eligibility.AccountStatusAllowed && eligibility.ParseAccountStatus(evidence.StatusText) != evidence.Status {
					t.Errorf("%q allows by the word %q", value, evidence.StatusText)
				}
			}
		}
	})
}

// decodeGenerically reads a body as any encoding of its message, and accepts the one
// that is written again.
func decodeGenerically(key eligibility.Key, body []byte) (*eligibility.Evidence, error) {
	evidence := &eligibility.Evidence{Facet: key.Facet, FetchTime: time.Unix(0, int64(binary.BigEndian.Uint64(body[1:headerBytes])))} //nolint:gosec // the same bits as written
	noStatus := false
	err := eachField(body[headerBytes:], func(field protowire.Number, number uint64, text []byte) error {
		switch field {
		case fieldAbsence:
			evidence.Absence = eligibility.Absence(min(number, 255))
		case fieldNoStatus:
			noStatus = number == 1
		case fieldStatusText:
			evidence.StatusText = string(text)
		case fieldCorrelationID:
			evidence.CorrelationID = string(text)
		case fieldRequestID:
			evidence.RequestID = string(text)
		case fieldQualification:
			q, err := qualificationGenerically(text)
			evidence.Qualifications = append(evidence.Qualifications, q)
			return err
		default:
			return errValue
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := readWords(evidence, noStatus); err != nil {
		return nil, err
	}
	if !bytes.Equal(appendBody(nil, evidence), body) || !validTexts(evidence) {
		return nil, errValue
	}
	return evidence, nil
}

func qualificationGenerically(b []byte) (q eligibility.Qualification, err error) {
	var seconds, nanos int64
	dated := false
	err = eachField(b, func(field protowire.Number, number uint64, text []byte) error {
		switch field {
		case fieldType:
			q.TypeText = string(text)
		case fieldVettingStatus:
			q.VettingStatusText = string(text)
		case fieldVettingReason:
			q.VettingReason = string(text)
		case fieldCreatedSeconds:
			seconds, dated = protowire.DecodeZigZag(number), true
		case fieldCreatedNanos:
			nanos = int64(min(number, math.MaxInt64))
		default:
			return errValue
		}
		return nil
	})
	if dated {
		q.VettingCreatedTime = time.Unix(seconds, nanos).UTC()
	}
	q.Type, _ = eligibility.ParseQualificationType(q.TypeText)
	q.VettingStatus = eligibility.ParseVettingStatus(q.VettingStatusText)
	return q, err
}

// eachField walks protobuf fields; varints arrive as number, strings and messages as
// text.
func eachField(b []byte, visit func(field protowire.Number, number uint64, text []byte) error) error {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errValue
		}
		b = b[n:]
		var number uint64
		var text []byte
		switch kind {
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			text, n = protowire.ConsumeBytes(b)
		default:
			return errValue
		}
		if n < 0 {
			return errValue
		}
		if err := visit(field, number, text); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// validTexts reports whether all texts of evidence are valid UTF-8.
func validTexts(e *eligibility.Evidence) bool {
	valid := utf8.ValidString(e.StatusText) && utf8.ValidString(e.CorrelationID) && utf8.ValidString(e.RequestID)
	for _, q := range e.Qualifications {
		valid = valid && utf8.ValidString(q.TypeText) && utf8.ValidString(q.VettingStatusText) && utf8.ValidString(q.VettingReason)
	}
	return valid
}
