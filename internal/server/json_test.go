package server

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
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// The encoders write what protojson writes, but for the blanks that protojson
// puts in at random, and what they write reads back as the same message.
func TestAnswersAreProtoJSON(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		answer := randomAnswer(t)
		compareJSON(t, answer, appendAnswerJSON(nil, answer))
	})
}

// Remembered items are put between the others as if all were encoded together,
// over gRPC as well.
func TestBatchesAreProtoJSON(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		batch := newRenderedBatch(rapid.IntRange(0, 4).Draw(t, "results"))
		for i := range batch.known {
			result := new(eligibilityv1.BatchCheckEligibilityResult)
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				result.Result = &eligibilityv1.BatchCheckEligibilityResult_Response{Response: randomAnswer(t)}
			case 1:
				result.Result = &eligibilityv1.BatchCheckEligibilityResult_Error{Error: randomItemError(t)}
			case 2:
				if batch.known[i] = newRendered(randomAnswer(t)); batch.known[i] != nil {
					result = batch.known[i].result
				}
			}
			batch.message.Results[i] = result
		}
		compareJSON(t, batch.message, batch.appendJSON(nil))
		want, err := proto.Marshal(batch.message)
		if err != nil {
			t.Fatal(err)
		}
		got, err := codec{}.Marshal(batch)
		if err != nil {
			t.Fatal(err)
		}
		defer got.Free()
		if diff := cmp.Diff(want, got.Materialize(), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("over gRPC (-want +got):\n%s", diff)
		}
	})
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

func randomAnswer(t *rapid.T) *eligibilityv1.CheckEligibilityResponse {
	text, yes := rapid.String(), rapid.Bool()
	number := rapid.Int32Range(-2, 20) // named values, and some that are not
	answer := &eligibilityv1.CheckEligibilityResponse{
		CustomerId:          text.Draw(t, "id"),
		Decision:            eligibilityv1.Decision(number.Draw(t, "decision")),
		AccountStatus:       eligibilityv1.AccountStatus(number.Draw(t, "status")),
		AccountStatusText:   text.Draw(t, "word"),
		QualificationsKnown: yes.Draw(t, "known"),
		EvidenceTime:        randomTime(t),
		ExpireTime:          randomTime(t),
		RecheckTime:         randomTime(t),
		Source:              eligibilityv1.EvidenceSource(number.Draw(t, "source")),
		Stale:               yes.Draw(t, "stale"),
		CorrelationId:       text.Draw(t, "correlation"),
	}
	for range rapid.IntRange(0, 3).Draw(t, "reasons") {
		answer.Reasons = append(answer.Reasons, &eligibilityv1.Reason{
			Code:      eligibilityv1.ReasonCode(number.Draw(t, "code")),
			Message:   text.Draw(t, "message"),
			Temporary: yes.Draw(t, "temporary"),
			Remedy:    eligibilityv1.Remedy(number.Draw(t, "remedy")),
		})
	}
	for range rapid.IntRange(0, 3).Draw(t, "qualifications") {
		answer.Qualifications = append(answer.Qualifications, &eligibilityv1.Qualification{
			Type:               eligibilityv1.QualificationType(number.Draw(t, "type")),
			TypeText:           text.Draw(t, "type text"),
			VettingStatus:      eligibilityv1.VettingStatus(number.Draw(t, "vetting")),
			VettingStatusText:  text.Draw(t, "vetting text"),
			VettingReason:      text.Draw(t, "vetting reason"),
			VettingCreatedTime: randomTime(t),
		})
	}
	return answer
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

// randomTime is any time that proto JSON can say, or none; nanoseconds end in
// zeros more often than not.
func randomTime(t *rapid.T) *timestamppb.Timestamp {
	if rapid.Bool().Draw(t, "no time") {
		return nil
	}
	nanos := rapid.Int32Range(0, 999).Draw(t, "nanos") * rapid.SampledFrom([]int32{0, 1, 1000, 1_000_000}).Draw(t, "unit")
	return &timestamppb.Timestamp{Seconds: rapid.Int64Range(-62135596800, 253402300799).Draw(t, "seconds"), Nanos: nanos}
}

func TestTextThatIsNoUTF8IsReplaced(t *testing.T) {
	t.Parallel()
	if got := string(appendString(nil, "a\xffb\xf0\x9f\"")); got != "\"a\ufffdb\ufffd\ufffd\\\"\"" {
		t.Errorf("%q", got)
	}
}
