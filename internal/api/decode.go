package api

import (
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// The functions here read the two requests that are asked for each sale from
// protobuf's wire format, without building messages first. What they accept and what
// they read is what proto.Unmarshal and [QuestionOf] do, as a fuzz target proves, of a
// batch up to one item more than is allowed: the last value of a field wins, embedded
// messages are merged, a field that is not known or has another type is skipped, and
// text is valid UTF-8. They keep no part of the wire, and return false if it is
// malformed.

// field is one field of a message.
type field struct {
	number protowire.Number
	kind   protowire.Type
	varint uint64 // its value, if kind is VarintType
	bytes  []byte // its value, if kind is BytesType
}

// is reports whether f is a field of that number and type.
func (f *field) is(number protowire.Number, kind protowire.Type) bool {
	return f.number == number && f.kind == kind
}

// nextField reads the first field of wire, and returns its length; negative if it is
// malformed.
func nextField(wire []byte) (f field, n int) {
	// Most fields have bytes, and need one byte each for tag and length.
	if len(wire) >= 2 && wire[0] < 0x80 && wire[0]>>3 > 0 && protowire.Type(wire[0]&7) == protowire.BytesType && wire[1] < 0x80 {
		n = 2 + int(wire[1])
		if n > len(wire) {
			return field{}, -1
		}
		return field{number: protowire.Number(wire[0] >> 3), kind: protowire.BytesType, bytes: wire[2:n]}, n
	}
	var tag int
	f.number, f.kind, tag = protowire.ConsumeTag(wire)
	if tag < 0 || f.number > protowire.MaxValidNumber {
		return field{}, -1
	}
	switch f.kind {
	case protowire.VarintType:
		f.varint, n = protowire.ConsumeVarint(wire[tag:])
	case protowire.BytesType:
		f.bytes, n = protowire.ConsumeBytes(wire[tag:])
	default:
		n = protowire.ConsumeFieldValue(f.number, f.kind, wire[tag:])
	}
	if n < 0 {
		return field{}, -1
	}
	return f, tag + n
}

// The fields of the requests, as in eligibility.proto.
const (
	requestsField        = 1 // of a batch
	customerIDField      = 1
	segmentField         = 2
	maxAgeField          = 3
	minEvidenceTimeField = 4
	partnerField         = 5
	operationField       = 6
	secondsField         = 1 // of a Duration and a Timestamp
	nanosField           = 2
)

// typicalBytes is what a question of a batch takes that names a customer only.
const typicalBytes = 40

// decode reads a batch up to one item more than it may have: the two bytes of an empty
// item become a hundred in memory.
func (b *Batch) decode(wire []byte) bool {
	b.Questions = slices.Grow(b.Questions[:0], min(len(wire)/typicalBytes, MaxBatch+1))
	for len(wire) > 0 && len(b.Questions) <= MaxBatch {
		f, n := nextField(wire)
		if n < 0 {
			return false
		}
		wire = wire[n:]
		if !f.is(requestsField, protowire.BytesType) {
			continue
		}
		b.Questions = append(b.Questions, Question{})
		if !b.Questions[len(b.Questions)-1].decode(f.bytes) {
			return false
		}
	}
	return true
}

// decode reads a question into q, which is zero.
func (q *Question) decode(wire []byte) bool {
	for len(wire) > 0 {
		f, n := nextField(wire)
		if n < 0 || !q.set(f) {
			return false
		}
		wire = wire[n:]
	}
	return true
}

// set sets one field.
func (q *Question) set(f field) bool {
	switch {
	case f.is(customerIDField, protowire.BytesType):
		id, err := eligibility.ParseCustomerID(f.bytes)
		q.CustomerID, q.IsGUID = id, err == nil
		return q.IsGUID || utf8.Valid(f.bytes)
	case f.is(segmentField, protowire.VarintType):
		q.Segment = eligibilityv1.Segment(int32(f.varint)) //nolint:gosec // protobuf drops the upper half
	case f.is(operationField, protowire.VarintType):
		q.Operation = eligibilityv1.Operation(int32(f.varint)) //nolint:gosec // as above
	case f.is(maxAgeField, protowire.BytesType):
		q.MaxAgeSet = true
		return q.MaxAge.decode(f.bytes)
	case f.is(minEvidenceTimeField, protowire.BytesType):
		q.MinEvidenceTimeSet = true
		return q.MinEvidenceTime.decode(f.bytes)
	case f.is(partnerField, protowire.BytesType):
		q.Partner = string(f.bytes)
		return utf8.Valid(f.bytes)
	}
	return true
}

// decode reads a Duration or a Timestamp into s, which an earlier one may have set.
func (s *Seconds) decode(wire []byte) bool {
	for len(wire) > 0 {
		f, n := nextField(wire)
		if n < 0 {
			return false
		}
		switch {
		case f.is(secondsField, protowire.VarintType):
			s.Seconds = int64(f.varint) //nolint:gosec // the same bits
		case f.is(nanosField, protowire.VarintType):
			s.Nanos = int32(f.varint) //nolint:gosec // protobuf drops the upper half
		}
		wire = wire[n:]
	}
	return true
}
