package api

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/jsontext"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// The encoders write what proto.Marshal and protojson write, except for the blanks
// that protojson adds at random, and the result decodes to the same message.
func TestAnswersAreProtobufAndProtoJSON(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		reply := randomReply(t)
		compareProto(t, reply.message(), reply.appendProto(nil))
		compareJSON(t, reply.message(), reply.AppendJSON(nil))
	})
}

func TestBatchesAreProtobufAndProtoJSON(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		batch := make(BatchReply, rapid.IntRange(0, 4).Draw(t, "results"))
		for i := range batch {
			if rapid.Bool().Draw(t, "fails") {
				batch[i].err = randomError(t)
			} else {
				batch[i].CheckReply = *randomReply(t)
			}
		}
		wire, err := NewCodec(1 << 20).Marshal(batch)
		if err != nil {
			t.Fatal(err)
		}
		defer wire.Free()
		compareProto(t, batch.message(), wire.Materialize())
		compareJSON(t, batch.message(), batch.AppendJSON(nil))
	})
}

func TestItemErrorsAreProtobufAndProtoJSON(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		failure := randomItemError(t)
		compareProto(t, failure, appendItemErrorProto(nil, failure))
		compareJSON(t, failure, appendItemError(nil, failure))
	})
}

// A field that is added to the API must be part of the comparisons above: the
// fullest reply sets every field of its messages.
func TestTheReferenceSetsEveryField(t *testing.T) {
	t.Parallel()
	at := time.Unix(1, 0)
	batch := BatchReply{
		{CheckReply: CheckReply{Answer: eligibility.Answer{
			Decision: eligibility.DecisionBlocked, Reasons: []eligibility.Reason{{Code: eligibility.ReasonAccountUnderReview, Blocks: true}},
			Account: &eligibility.Evidence{Status: eligibility.AccountStatusUnderReview, StatusText: "s", CorrelationID: "c"},
			Qualifications: &eligibility.Evidence{Qualifications: []eligibility.Qualification{{
				Type: eligibility.QualificationEducation, TypeText: "t", VettingStatus: eligibility.VettingDenied, VettingStatusText: "v",
				VettingReason: "r", VettingCreatedTime: at,
			}}},
			EvidenceTime: at, ExpireTime: at, RecheckTime: at, Tier: eligibility.TierRedis, Stale: true,
		}}},
		{err: &eligibility.Error{Kind: eligibility.KindUnavailable}},
	}
	message := batch.message()
	for _, full := range []proto.Message{
		message.GetResults()[0].GetResponse(), message.GetResults()[0].GetResponse().GetReasons()[0],
		message.GetResults()[0].GetResponse().GetQualifications()[0], message.GetResults()[1].GetError(),
	} {
		fields := full.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			if !full.ProtoReflect().Has(fields.Get(i)) {
				t.Errorf("%s is not set", fields.Get(i).FullName())
			}
		}
	}
}

func compareProto(t *rapid.T, message proto.Message, got []byte) {
	t.Helper()
	want, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-proto.Marshal +ours):\n%s", diff)
	}
}

func compareJSON(t *rapid.T, message proto.Message, got []byte) {
	t.Helper()
	written, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	if err := json.Compact(&want, written); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.String(), string(got)); diff != "" {
		t.Errorf("(-protojson +ours):\n%s", diff)
	}
	read := message.ProtoReflect().New().Interface()
	if err := protojson.Unmarshal(got, read); err != nil {
		t.Fatalf("%v in %s", err, got)
	}
	if diff := cmp.Diff(message, read, protocmp.Transform()); diff != "" {
		t.Errorf("read back (-written +read):\n%s", diff)
	}
}

func randomReply(t *rapid.T) *CheckReply {
	text, yes := rapid.String(), rapid.Bool()
	number := rapid.Uint8Range(0, 20) // named values, and some that are not
	reply := &CheckReply{Answer: eligibility.Answer{
		Decision:     eligibility.Decision(number.Draw(t, "decision")),
		EvidenceTime: randomTime(t),
		ExpireTime:   randomTime(t),
		RecheckTime:  randomTime(t),
		Tier:         eligibility.Tier(number.Draw(t, "tier")),
		Stale:        yes.Draw(t, "stale"),
	}}
	reply.Language = randomLanguage(t)
	copy(reply.CustomerID[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
	for range rapid.IntRange(0, 3).Draw(t, "reasons") {
		reply.Answer.Reasons = append(reply.Answer.Reasons, eligibility.Reason{
			Code: eligibility.ReasonCode(number.Draw(t, "code")), Blocks: yes.Draw(t, "blocks"),
		})
	}
	if yes.Draw(t, "account") {
		reply.Answer.Account = &eligibility.Evidence{
			Status:     eligibility.AccountStatus(number.Draw(t, "status")),
			StatusText: text.Draw(t, "status text"), CorrelationID: text.Draw(t, "correlation"),
		}
	}
	if yes.Draw(t, "known") {
		held := new(eligibility.Evidence)
		for range rapid.IntRange(0, 3).Draw(t, "qualifications") {
			held.Qualifications = append(held.Qualifications, eligibility.Qualification{
				Type:               eligibility.QualificationType(number.Draw(t, "type")),
				TypeText:           text.Draw(t, "type text"),
				VettingStatus:      eligibility.VettingStatus(number.Draw(t, "vetting")),
				VettingStatusText:  text.Draw(t, "vetting text"),
				VettingReason:      text.Draw(t, "vetting reason"),
				VettingCreatedTime: randomTime(t),
			})
		}
		reply.Answer.Qualifications = held
	}
	return reply
}

func randomLanguage(t *rapid.T) eligibility.Language {
	return eligibility.Language(rapid.Uint8Range(0, eligibility.LanguageCount-1).Draw(t, "language"))
}

func randomError(t *rapid.T) *eligibility.Error {
	return &eligibility.Error{
		Kind:       rapid.SampledFrom(eligibility.Kinds()).Draw(t, "kind"),
		RetryAfter: time.Duration(rapid.Int64().Draw(t, "retry after")),
		Violations: rapid.SampledFrom([][]eligibility.Violation{nil, {{Field: "segment", Description: "must be known"}}}).Draw(t, "violations"),
	}
}

func randomItemError(t *rapid.T) *eligibilityv1.BatchCheckEligibilityError {
	failure := &eligibilityv1.BatchCheckEligibilityError{
		Code: rapid.Int32().Draw(t, "code"), Reason: rapid.String().Draw(t, "reason"), Message: rapid.String().Draw(t, "message"),
	}
	if rapid.Bool().Draw(t, "retry") {
		failure.RetryAfter = durationpb.New(time.Duration(rapid.Int64().Draw(t, "retry after")))
	}
	return failure
}

// randomTime is any time, in any zone: none, one that has a Timestamp, or one that
// has none. Nanoseconds end in zeros more often than not.
func randomTime(t *rapid.T) time.Time {
	if rapid.Bool().Draw(t, "no time") {
		return time.Time{}
	}
	const first, last, day = -62135596800, 253402300799, 86400
	nanos := rapid.Int64Range(0, 999).Draw(t, "nanos") * rapid.SampledFrom([]int64{0, 1, 1000, 1_000_000}).Draw(t, "unit")
	at := time.Unix(rapid.Int64Range(first-day, last+day).Draw(t, "seconds"), nanos)
	return at.In(rapid.SampledFrom([]*time.Location{time.UTC, time.FixedZone("", 5*3600)}).Draw(t, "zone"))
}

func TestTextThatIsNoUTF8IsReplaced(t *testing.T) {
	t.Parallel()
	if got := string(jsontext.AppendString(nil, "a\xffb\xf0\x9f\"")); got != "\"a\ufffdb\ufffd\ufffd\\\"\"" {
		t.Errorf("%q", got)
	}
	wire := appendItemErrorProto(nil, &eligibilityv1.BatchCheckEligibilityError{Message: "a\xffb"})
	if got := string(wire[2:]); got != "a\ufffdb" {
		t.Errorf("over gRPC: %q", got)
	}
}

// appendEnum has a name for every value of an enumeration.
func TestEveryValueHasItsName(t *testing.T) {
	t.Parallel()
	for _, enum := range []struct {
		names  enumNames
		values map[int32]string
	}{
		{decisionNames, eligibilityv1.Decision_name},
		{accountStatusNames, eligibilityv1.AccountStatus_name},
		{evidenceSourceNames, eligibilityv1.EvidenceSource_name},
		{reasonCodeNames, eligibilityv1.ReasonCode_name},
		{remedyNames, eligibilityv1.Remedy_name},
		{qualificationTypeNames, eligibilityv1.QualificationType_name},
		{vettingStatusNames, eligibilityv1.VettingStatus_name},
		{watchEndNames, eligibilityv1.WatchEnd_Reason_name},
	} {
		for value, name := range enum.values {
			if int(value) >= len(enum.names) || enum.names[value] != `"`+name+`"` {
				t.Errorf("%s is not %d of %v", name, value, enum.names)
			}
		}
	}
}
