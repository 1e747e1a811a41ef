package cache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// A stored value is
//
//	version (1 byte) | fetch time (8 bytes, Unix ns, big endian) | protobuf fields | CRC-32C (4 bytes)
//
// The fetch time stands in front so that the writing script can compare it. The
// checksum covers the key as well: a value under another key is unreadable.
// Words are stored as Partner Center sent them and read again by the rule of
// the process that uses them.
const (
	valueVersion  = 1
	headerBytes   = 1 + 8
	checksumBytes = 4
	maxValueBytes = 4 << 20
)

// The protobuf fields of a value, then of a qualification in it.
const (
	fieldAbsence protowire.Number = iota + 1
	fieldNoStatus
	fieldStatusText
	fieldCorrelationID
	fieldQualification
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
func encode(key eligibility.Key, evidence *eligibility.Evidence) []byte {
	b := appendBody(make([]byte, 0, 128), evidence)
	return binary.BigEndian.AppendUint32(b, checksum(key, b))
}

// appendBody appends all but the checksum.
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
	return b
}

func appendQualification(b []byte, q *eligibility.Qualification) []byte {
	b = appendString(b, fieldType, q.TypeText)
	b = appendString(b, fieldVettingStatus, q.VettingStatusText)
	b = appendString(b, fieldVettingReason, q.VettingReason)
	if !q.VettingCreatedTime.IsZero() {
		// Written even where 0, which is a time as well.
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

func checksum(key eligibility.Key, value []byte) uint32 {
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	// The key by hand: what crc32.Update is given goes to the heap.
	sum := ^uint32(0)
	for _, b := range key.CustomerID {
		sum = castagnoli[byte(sum&0xff)^b] ^ sum>>8
	}
	sum = castagnoli[byte(sum&0xff)^byte(key.Facet)] ^ sum>>8
	return crc32.Update(^sum, castagnoli, value)
}

// decode reads a stored value. Anything that encode would not have written for
// key is an error, never evidence.
func decode(key eligibility.Key, value []byte) (*eligibility.Evidence, error) {
	return reread(key, value, nil)
}

// reread is decode for a value that may be of the same fetch as held, which it
// then returns.
func reread(key eligibility.Key, value []byte, held *eligibility.Evidence) (*eligibility.Evidence, error) {
	if len(value) < headerBytes+checksumBytes || len(value) > maxValueBytes || value[0] != valueVersion {
		return nil, errValue
	}
	body, sum := value[:len(value)-checksumBytes], value[len(value)-checksumBytes:]
	if checksum(key, body) != binary.BigEndian.Uint32(sum) {
		return nil, fmt.Errorf("%w: checksum", errValue)
	}
	fetched := int64(binary.BigEndian.Uint64(body[1:headerBytes])) //nolint:gosec // the same bits as written
	if held != nil && held.FetchTime.UnixNano() == fetched {
		return held, nil
	}
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
	// Protobuf has many spellings for one message; encode has one. The checksum
	// is right already.
	if !bytes.Equal(appendBody(make([]byte, 0, 256), evidence), body) {
		return nil, fmt.Errorf("%w: spelling", errValue)
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
