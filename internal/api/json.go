package api

import (
	"slices"
	"strconv"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/jsontext"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// The functions here append the API's answers as proto JSON: every plain field,
// so that a reader sees decision, stale: false and empty lists, and no member
// that has no value. The bytes are those of protojson except for its blanks, at a
// twentieth of the cost; a test compares the two over random answers.

// AppendJSON appends the answer as proto JSON.
func (r *CheckReply) AppendJSON(b []byte) []byte {
	b, _, _ = r.AppendJSONSource(b)
	return b
}

// AppendJSONSource is AppendJSON. It also returns where the member of the answer's source
// begins and ends.
func (r *CheckReply) AppendJSONSource(b []byte) (_ []byte, begin, end int) {
	a := &r.Answer
	var status eligibilityv1.AccountStatus
	var statusText, correlationID string
	if account := a.Account; account != nil {
		status, statusText, correlationID = accountStatus(account.Status), account.StatusText, account.CorrelationID
	}
	b = append(r.CustomerID.Append(append(b, `{"customerId":"`...)), '"')
	b = appendEnum(append(b, `,"decision":`...), decisionNames, int32(decision(a.Decision)))
	b = append(b, `,"reasons":[`...)
	for i, reason := range a.Reasons {
		b = appendReason(appendComma(b, i), reason, r.Language)
	}
	b = appendEnum(append(b, `],"accountStatus":`...), accountStatusNames, int32(status))
	b = jsontext.AppendString(append(b, `,"accountStatusText":`...), statusText)
	b = append(b, `,"qualifications":[`...)
	if held := a.Qualifications; held != nil {
		for i := range held.Qualifications {
			b = appendQualification(appendComma(b, i), &held.Qualifications[i])
		}
	}
	b = strconv.AppendBool(append(b, `],"qualificationsKnown":`...), a.Qualifications != nil)
	b = appendTime(b, `,"evidenceTime":`, a.EvidenceTime)
	b = appendTime(b, `,"expireTime":`, a.ExpireTime)
	b = appendTime(b, `,"recheckTime":`, a.RecheckTime)
	begin = len(b)
	b = appendEnum(append(b, `,"source":`...), evidenceSourceNames, int32(evidenceSource(a.Tier)))
	end = len(b)
	b = strconv.AppendBool(append(b, `,"stale":`...), a.Stale)
	b = jsontext.AppendString(append(b, `,"correlationId":`...), correlationID)
	return append(b, '}'), begin, end
}

func appendReason(b []byte, reason eligibility.Reason, in eligibility.Language) []byte {
	b = appendEnum(append(b, `{"code":`...), reasonCodeNames, int32(reasonCode(reason.Code)))
	b = jsontext.AppendString(append(b, `,"message":`...), reason.Message(in))
	b = strconv.AppendBool(append(b, `,"temporary":`...), reason.Temporary())
	b = appendEnum(append(b, `,"remedy":`...), remedyNames, int32(remedy(reason.Remedy())))
	return append(b, '}')
}

func appendQualification(b []byte, q *eligibility.Qualification) []byte {
	b = appendEnum(append(b, `{"type":`...), qualificationTypeNames, int32(qualificationType(q.Type)))
	b = jsontext.AppendString(append(b, `,"typeText":`...), q.TypeText)
	b = appendEnum(append(b, `,"vettingStatus":`...), vettingStatusNames, int32(vettingStatus(q.VettingStatus)))
	b = jsontext.AppendString(append(b, `,"vettingStatusText":`...), q.VettingStatusText)
	b = jsontext.AppendString(append(b, `,"vettingReason":`...), q.VettingReason)
	b = appendTime(b, `,"vettingCreatedTime":`, q.VettingCreatedTime)
	return append(b, '}')
}

// AppendJSON appends the batch.
func (r BatchReply) AppendJSON(b []byte) []byte {
	b = append(slices.Grow(b, len(r)*jsonBytes), `{"results":[`...)
	for i := range r {
		b = appendComma(b, i)
		if item := &r[i]; item.err != nil {
			b = appendItemError(append(b, `{"error":`...), itemError(item.err))
		} else {
			b = item.AppendJSON(append(b, `{"response":`...))
		}
		b = append(b, '}')
	}
	return append(b, "]}"...)
}

func appendItemError(b []byte, m *eligibilityv1.BatchCheckEligibilityError) []byte {
	b = strconv.AppendInt(append(b, `{"code":`...), int64(m.GetCode()), 10)
	b = jsontext.AppendString(append(b, `,"reason":`...), m.GetReason())
	b = jsontext.AppendString(append(b, `,"message":`...), m.GetMessage())
	if delay := m.GetRetryAfter(); delay != nil {
		seconds, nanos := delay.GetSeconds(), int(delay.GetNanos())
		b = append(b, `,"retryAfter":"`...)
		if seconds < 0 || nanos < 0 {
			b, seconds, nanos = append(b, '-'), -seconds, -nanos
		}
		b = append(appendNanos(strconv.AppendInt(b, seconds, 10), nanos), `s"`...)
	}
	return append(b, '}')
}

// appendComma separates the item at place i from the one before.
func appendComma(b []byte, i int) []byte {
	if i == 0 {
		return b
	}
	return append(b, ',')
}

// enumNames are the names of the values of an enumeration, quoted.
type enumNames []string

// The enumerations of answers and of the ends of streams. Their values have no gaps.
var (
	decisionNames          = namesOf(eligibilityv1.Decision_name)          //nolint:gochecknoglobals // only read
	accountStatusNames     = namesOf(eligibilityv1.AccountStatus_name)     //nolint:gochecknoglobals // only read
	evidenceSourceNames    = namesOf(eligibilityv1.EvidenceSource_name)    //nolint:gochecknoglobals // only read
	reasonCodeNames        = namesOf(eligibilityv1.ReasonCode_name)        //nolint:gochecknoglobals // only read
	remedyNames            = namesOf(eligibilityv1.Remedy_name)            //nolint:gochecknoglobals // only read
	qualificationTypeNames = namesOf(eligibilityv1.QualificationType_name) //nolint:gochecknoglobals // only read
	vettingStatusNames     = namesOf(eligibilityv1.VettingStatus_name)     //nolint:gochecknoglobals // only read
	watchEndNames          = namesOf(eligibilityv1.WatchEnd_Reason_name)   //nolint:gochecknoglobals // only read
)

func namesOf(values map[int32]string) enumNames {
	names := make(enumNames, len(values))
	for i := range names {
		names[i] = strconv.Quote(values[int32(i)])
	}
	return names
}

// appendEnum appends the name of a value, which the functions of convert.go have made.
func appendEnum(b []byte, names enumNames, value int32) []byte { return append(b, names[value]...) }

// appendTime appends a member unless its value is no timestamp.
func appendTime(b []byte, member string, at time.Time) []byte {
	if !IsTimestamp(at) {
		return b
	}
	b = at.UTC().AppendFormat(append(append(b, member...), '"'), time.RFC3339)
	return append(appendNanos(b[:len(b)-len("Z")], at.Nanosecond()), `Z"`...)
}

// IsTimestamp reports whether the API has a timestamp for t. It has none for the
// zero time, which means that there is none, and outside of the years 1 to 9999.
func IsTimestamp(t time.Time) bool {
	const first, end = -62135596800, 253402300800 // the years 1 and 10000
	return !t.IsZero() && t.Unix() >= first && t.Unix() < end
}

// appendNanos appends a fraction of a second in 3, 6 or 9 digits; none for zero.
func appendNanos(b []byte, nanos int) []byte {
	if nanos == 0 {
		return b
	}
	digits := 9
	for nanos%1000 == 0 {
		nanos, digits = nanos/1000, digits-3
	}
	var text [10]byte
	for i := digits; i > 0; i-- {
		text[i] = byte('0' + nanos%10)
		nanos /= 10
	}
	text[0] = '.'
	return append(b, text[:digits+1]...)
}
