package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// A stored value is
//
//	version (1 byte) | fetch time (8 bytes, Unix ns, big endian) | protobuf fields | seal
//
// The fetch time comes first so that the scripts can compare it. The seal covers
// the key too: a value under another key is unreadable. Words are stored as
// Partner Center sent them and parsed by the process that uses them.
const (
	valueVersion  = 2
	headerBytes   = 1 + 8
	maxValueBytes = 4 << 20
)

// The protobuf fields of a value, then of a qualification in it.
const (
	fieldAbsence protowire.Number = iota + 1
	fieldNoStatus
	fieldStatusText
	fieldCorrelationID
	fieldQualification
	fieldRequestID
)

const (
	fieldType protowire.Number = iota + 1
	fieldVettingStatus
	fieldVettingReason
	fieldCreatedSeconds
	fieldCreatedNanos
)

var errValue = errors.New("unreadable value")

// encode returns the stored form of evidence under key.
func (s *sealer) encode(key eligibility.Key, evidence *eligibility.Evidence) []byte {
	return s.seal(appendBody(make([]byte, 0, 160), evidence), 0, sealValue, key)
}

// appendBody appends all but the seal.
func appendBody(b []byte, evidence *eligibility.Evidence) []byte {
	b = append(b, valueVersion)
	b = appendTime(b, evidence.FetchTime)
	b = appendVarint(b, fieldAbsence, uint64(evidence.Absence))
	if evidence.Status == eligibility.AccountStatusNone {
		b = appendVarint(b, fieldNoStatus, 1)
	}
	b = appendString(b, fieldStatusText, evidence.StatusText)
	b = appendString(b, fieldCorrelationID, evidence.CorrelationID)
	for i := range evidence.Qualifications {
		q := appendQualification(make([]byte, 0, 128), &evidence.Qualifications[i])
		b = protowire.AppendTag(b, fieldQualification, protowire.BytesType)
		b = protowire.AppendBytes(b, q)
	}
	return appendString(b, fieldRequestID, evidence.RequestID)
}

func appendQualification(b []byte, q *eligibility.Qualification) []byte {
	b = appendString(b, fieldType, q.TypeText)
	b = appendString(b, fieldVettingStatus, q.VettingStatusText)
	b = appendString(b, fieldVettingReason, q.VettingReason)
	if !q.VettingCreatedTime.IsZero() {
		// Written even if 0: 1970 is a valid time.
		b = protowire.AppendTag(b, fieldCreatedSeconds, protowire.VarintType)
		b = protowire.AppendVarint(b, protowire.EncodeZigZag(q.VettingCreatedTime.Unix()))
		b = appendVarint(b, fieldCreatedNanos, uint64(q.VettingCreatedTime.Nanosecond())) //nolint:gosec // never negative
	}
	return b
}

// appendTime appends a time as it stands in a header.
func appendTime(b []byte, t time.Time) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(t.UnixNano()))
}

func appendString(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

func appendVarint(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

// decode parses a stored value. Anything that encode would not have written for
// key is an error, never evidence. If the value is of the same fetch as what is held,
// decode returns that.
func (s *sealer) decode(key eligibility.Key, value []byte, held known) (*eligibility.Evidence, error) {
	if len(value) < headerBytes+s.size() || len(value) > maxValueBytes || value[0] != valueVersion {
		return nil, errValue
	}
	body, ok := s.open(value, sealValue, key)
	if !ok {
		return nil, fmt.Errorf("%w: seal", errValue)
	}
	fetched := int64(binary.BigEndian.Uint64(body[1:headerBytes])) //nolint:gosec // the same bits as written
	if held.evidence != nil && held.fetched == fetched && isOfFetch(body, held.evidence) {
		return held.evidence, nil
	}
	return decodeBody(key, body)
}

// isOfFetch reports whether a body is of the same fetch as evidence, by its correlation
// ID: two replicas may fetch different facts in the same millisecond.
func isOfFetch(body []byte, evidence *eligibility.Evidence) bool {
	f := reader{left: body[headerBytes:]}
	f.number(fieldAbsence)
	f.number(fieldNoStatus)
	if f.next(fieldStatusText, protowire.BytesType) {
		f.bytes()
	}
	return f.next(fieldCorrelationID, protowire.BytesType) && string(f.bytes()) == evidence.CorrelationID && !f.unreadable
}

// decodeBody parses all but the seal, which has been verified, of a value that has a
// header. Protobuf has many encodings of one message; decodeBody accepts the one that
// appendBody writes.
func decodeBody(key eligibility.Key, body []byte) (*eligibility.Evidence, error) {
	fetched := int64(binary.BigEndian.Uint64(body[1:headerBytes])) //nolint:gosec // the same bits as written
	evidence := eligibility.Evidence{Facet: key.Facet, FetchTime: time.Unix(0, fetched)}
	f := reader{left: body[headerBytes:]}
	absence, noStatus := f.number(fieldAbsence), f.number(fieldNoStatus)
	evidence.StatusText = f.text(fieldStatusText)
	evidence.CorrelationID = f.text(fieldCorrelationID)
	var few [2]eligibility.Qualification
	qualifications := few[:0]
	for f.next(fieldQualification, protowire.BytesType) {
		of := reader{left: f.bytes()}
		q := of.qualification()
		f.unreadable = f.unreadable || of.unreadable || len(of.left) > 0
		qualifications = append(qualifications, q)
	}
	evidence.RequestID = f.text(fieldRequestID)
	if f.unreadable || len(f.left) > 0 || absence > uint64(eligibility.AbsenceNotServed) || noStatus > 1 {
		return nil, fmt.Errorf("%w: not in canonical form", errValue)
	}
	evidence.Absence = eligibility.Absence(absence)
	if len(qualifications) > 0 {
		evidence.Qualifications = qualifications
	}
	if err := readWords(&evidence, noStatus == 1); err != nil {
		return nil, err
	}
	return eligibility.Compact(evidence), nil
}

// readWords sets what the stored words mean, and refuses values that mean nothing.
func readWords(evidence *eligibility.Evidence, noStatus bool) error {
	account := evidence.Facet == eligibility.FacetAccount
	hasStatus := noStatus || evidence.StatusText != ""
	switch {
	case evidence.Absence > eligibility.AbsenceNotServed,
		evidence.Absence != eligibility.AbsenceNone && (hasStatus || evidence.Qualifications != nil),
		account && evidence.Qualifications != nil,
		!account && hasStatus,
		noStatus && evidence.StatusText != "":
		return errValue
	case evidence.Absence != eligibility.AbsenceNone || !account:
		return nil
	case noStatus:
		evidence.Status = eligibility.AccountStatusNone
	case evidence.StatusText != "":
		evidence.Status = eligibility.ParseAccountStatus(evidence.StatusText)
	default:
		return errValue
	}
	return nil
}

// reader reads protobuf fields in the only form in which they are written: in order,
// each at most once, without default values, varints of no more bytes than needed, and
// texts of valid UTF-8. What is in another form stays left, or is unreadable.
type reader struct {
	left       []byte
	unreadable bool
}

// next reports whether the next field is that one, and reads its tag.
func (f *reader) next(field protowire.Number, kind protowire.Type) bool {
	if f.unreadable || len(f.left) == 0 || uint64(f.left[0]) != protowire.EncodeTag(field, kind) { // all tags have one byte
		return false
	}
	f.left = f.left[1:]
	return true
}

func (f *reader) varint() uint64 {
	v, n := protowire.ConsumeVarint(f.left)
	if n < 0 || n != protowire.SizeVarint(v) {
		f.unreadable = true
		return 0
	}
	f.left = f.left[n:]
	return v
}

func (f *reader) bytes() []byte {
	n := f.varint()
	if f.unreadable || n > uint64(len(f.left)) {
		f.unreadable = true
		return nil
	}
	b := f.left[:n]
	f.left = f.left[n:]
	return b
}

// number returns a number, 0 if it is not the next field.
func (f *reader) number(field protowire.Number) uint64 {
	if !f.next(field, protowire.VarintType) {
		return 0
	}
	v := f.varint()
	f.unreadable = f.unreadable || v == 0
	return v
}

// text returns a text, "" if it is not the next field.
func (f *reader) text(field protowire.Number) string {
	if !f.next(field, protowire.BytesType) {
		return ""
	}
	b := f.bytes()
	f.unreadable = f.unreadable || len(b) == 0 || !utf8.Valid(b)
	return string(b)
}

func (f *reader) qualification() (q eligibility.Qualification) {
	q.TypeText = f.text(fieldType)
	q.VettingStatusText = f.text(fieldVettingStatus)
	q.VettingReason = f.text(fieldVettingReason)
	if f.next(fieldCreatedSeconds, protowire.VarintType) {
		seconds, nanos := protowire.DecodeZigZag(f.varint()), f.number(fieldCreatedNanos)
		q.VettingCreatedTime = time.Unix(seconds, int64(min(nanos, uint64(time.Second)))).UTC()
		f.unreadable = f.unreadable || nanos >= uint64(time.Second) || q.VettingCreatedTime.IsZero()
	}
	q.Type, _ = eligibility.ParseQualificationType(q.TypeText)
	q.VettingStatus = eligibility.ParseVettingStatus(q.VettingStatusText)
	return q
}
