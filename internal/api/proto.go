package api

import (
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// The functions here append the API's answers in protobuf's wire format, without
// building messages first. Fields come in the order of their numbers, and fields
// with their default value are left out: the bytes are those of proto.Marshal,
// as a test proves over random answers.

func (r *CheckReply) appendProto(b []byte) []byte {
	a := &r.Answer
	b, start := openMessage(b, 1)
	b = closeMessage(r.CustomerID.Append(b), start)
	b = appendNumberField(b, 2, int32(decision(a.Decision)))
	for _, reason := range a.Reasons {
		b, start = openMessage(b, 3)
		b = closeMessage(appendReasonProto(b, reason, r.Language), start)
	}
	if account := a.Account; account != nil {
		b = appendNumberField(b, 4, int32(accountStatus(account.Status)))
		b = appendTextField(b, 5, account.StatusText)
	}
	if held := a.Qualifications; held != nil {
		for i := range held.Qualifications {
			b, start = openMessage(b, 6)
			b = closeMessage(appendQualificationProto(b, &held.Qualifications[i]), start)
		}
		b = appendFlagField(b, 7, true)
	}
	b = appendTimeField(b, 8, a.EvidenceTime)
	b = appendTimeField(b, 9, a.ExpireTime)
	b = appendTimeField(b, 10, a.RecheckTime)
	b = appendNumberField(b, 11, int32(evidenceSource(a.Tier)))
	b = appendFlagField(b, 12, a.Stale)
	if account := a.Account; account != nil {
		b = appendTextField(b, 13, account.CorrelationID)
	}
	return b
}

func appendReasonProto(b []byte, reason eligibility.Reason, in eligibility.Language) []byte {
	b = appendNumberField(b, 1, int32(reasonCode(reason.Code)))
	b = appendTextField(b, 2, reason.Message(in))
	b = appendFlagField(b, 3, reason.Temporary())
	return appendNumberField(b, 4, int32(remedy(reason.Remedy())))
}

func appendQualificationProto(b []byte, q *eligibility.Qualification) []byte {
	b = appendNumberField(b, 1, int32(qualificationType(q.Type)))
	b = appendTextField(b, 2, q.TypeText)
	b = appendNumberField(b, 3, int32(vettingStatus(q.VettingStatus)))
	b = appendTextField(b, 4, q.VettingStatusText)
	b = appendTextField(b, 5, q.VettingReason)
	return appendTimeField(b, 6, q.VettingCreatedTime)
}

// appendProto appends the batch.
func (r BatchReply) appendProto(b []byte) []byte {
	for i := range r {
		b = r[i].appendProto(b)
	}
	return b
}

// appendProto appends a result of a batch, a message with either field.
func (r *ItemReply) appendProto(b []byte) []byte {
	var start int
	b, result := openLong(b, 1)
	if r.err != nil {
		b, start = openLong(b, 2)
		b = appendItemErrorProto(b, itemError(r.err))
	} else {
		b, start = openLong(b, 1)
		b = r.CheckReply.appendProto(b)
	}
	return closeLong(closeLong(b, start), result)
}

func appendItemErrorProto(b []byte, m *eligibilityv1.BatchCheckEligibilityError) []byte {
	b = appendNumberField(b, 1, m.GetCode())
	b = appendTextField(b, 2, m.GetReason())
	b = appendTextField(b, 3, strings.ToValidUTF8(m.GetMessage(), string(utf8.RuneError)))
	if delay := m.GetRetryAfter(); delay != nil {
		b = appendSecondsField(b, 4, delay.GetSeconds(), delay.GetNanos())
	}
	return b
}

// appendTag appends the tag of a field. All numbers are below 16: it is one byte.
func appendTag(b []byte, number protowire.Number, kind protowire.Type) []byte {
	return append(b, byte(number)<<3|byte(kind)) //nolint:gosec // see above
}

// appendVarint is protowire's, which has no shortcut for one byte.
func appendVarint(b []byte, v uint64) []byte {
	if v < 0x80 {
		return append(b, byte(v))
	}
	return protowire.AppendVarint(b, v)
}

// openMessage begins a field whose length is not known yet. closeMessage needs
// the returned start.
func openMessage(b []byte, number protowire.Number) (_ []byte, start int) {
	b = append(appendTag(b, number, protowire.BytesType), 0)
	return b, len(b)
}

// closeMessage writes the length of the field that began at start in front of it.
// A length of more than one byte moves the field.
func closeMessage(b []byte, start int) []byte {
	if length := len(b) - start; length < 0x80 {
		b[start-1] = byte(length) //nolint:gosec // below 128
		return b
	}
	return closeField(b, start, 1)
}

// openLong is openMessage for a field that usually has 128 to 16,383 bytes: its length
// takes two. closeLong closes it.
func openLong(b []byte, number protowire.Number) (_ []byte, start int) {
	b = append(appendTag(b, number, protowire.BytesType), 0, 0)
	return b, len(b)
}

func closeLong(b []byte, start int) []byte {
	if length := len(b) - start; length >= 0x80 && length < 0x4000 {
		b[start-2], b[start-1] = byte(length)|0x80, byte(length>>7) //nolint:gosec // seven bits each
		return b
	}
	return closeField(b, start, 2)
}

// closeField writes the length of a field into the room in front of it, which is too
// small or too large: it moves the field.
func closeField(b []byte, start, room int) []byte {
	length := len(b) - start
	more := protowire.SizeVarint(uint64(length)) - room //nolint:gosec // not negative
	b = append(b, make([]byte, max(more, 0))...)
	copy(b[start+more:], b[start:start+length])
	b = b[:start+more+length]
	protowire.AppendVarint(b[:start-room], uint64(length)) //nolint:gosec // as above
	return b
}

func appendNumberField(b []byte, number protowire.Number, value int32) []byte {
	if value == 0 {
		return b
	}
	return appendVarint(appendTag(b, number, protowire.VarintType), uint64(int64(value))) //nolint:gosec // protobuf extends the sign
}

func appendFlagField(b []byte, number protowire.Number, value bool) []byte {
	if !value {
		return b
	}
	return append(appendTag(b, number, protowire.VarintType), 1)
}

// appendTextField appends a string, which must be valid UTF-8: protobuf's readers reject
// anything else. That of evidence and of reasons is.
func appendTextField(b []byte, number protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return append(appendVarint(appendTag(b, number, protowire.BytesType), uint64(len(s))), s...)
}

func appendTimeField(b []byte, number protowire.Number, t time.Time) []byte {
	if !IsTimestamp(t) {
		return b
	}
	return appendSecondsField(b, number, t.Unix(), int32(t.Nanosecond())) //nolint:gosec // below a second
}

// appendSecondsField appends a Timestamp or a Duration, which have the same fields, of 22
// bytes at most.
func appendSecondsField(b []byte, number protowire.Number, seconds int64, nanos int32) []byte {
	b, start := openMessage(b, number)
	if seconds != 0 {
		b = appendVarint(appendTag(b, 1, protowire.VarintType), uint64(seconds)) //nolint:gosec // protobuf extends the sign
	}
	return closeMessage(appendNumberField(b, 2, nanos), start)
}
