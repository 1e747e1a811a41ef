package cache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

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
// key is an error, never evidence. If the value is of the same fetch as held,
// which may be nil, decode returns held.
func (s *sealer) decode(key eligibility.Key, value []byte, held *eligibility.Evidence) (*eligibility.Evidence, error) {
	if len(value) < headerBytes+s.size() || len(value) > maxValueBytes || value[0] != valueVersion {
		return nil, errValue
	}
	body, ok := s.open(value, sealValue, key)
	if !ok {
		return nil, fmt.Errorf("%w: seal", errValue)
	}
	fetched := int64(binary.BigEndian.Uint64(body[1:headerBytes])) //nolint:gosec // the same bits as written
	if held != nil && held.FetchTime.UnixNano() == fetched {
		return held, nil
	}
	return decodeBody(key, body)
}

// decodeBody parses all but the seal, which has been verified, of a value that has a
// header.
func decodeBody(key eligibility.Key, body []byte) (*eligibility.Evidence, error) {
	fetched := int64(binary.BigEndian.Uint64(body[1:headerBytes])) //nolint:gosec // the same bits as written
	evidence := &eligibility.Evidence{Facet: key.Facet, FetchTime: time.Unix(0, fetched)}
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
			q, err := decodeQualification(text)
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
	// Protobuf has many encodings of one message, appendBody writes one of them.
	if !bytes.Equal(appendBody(make([]byte, 0, 256), evidence), body) {
		return nil, fmt.Errorf("%w: not in canonical form", errValue)
	}
	return evidence, nil
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

func decodeQualification(b []byte) (eligibility.Qualification, error) {
	var q eligibility.Qualification
	var seconds, nanos int64
	dated := false
	err := eachField(b, func(field protowire.Number, number uint64, text []byte) error {
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

// eachField walks protobuf fields; varints arrive as number, strings and
// messages as text.
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
