package api

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// wires are requests on the wire, of a question and of a batch, valid and not.
func wires(tb testing.TB) [][]byte {
	tb.Helper()
	questions := []*eligibilityv1.CheckEligibilityRequest{
		{},
		{CustomerId: "11111111-1111-4111-8111-111111111111"},
		{CustomerId: " {11111111111141118111111111111111}\n", Segment: eligibilityv1.Segment_SEGMENT_EDUCATION},
		{CustomerId: "no GUID é", Segment: -1, Operation: 99, Partner: "contoso-eu"},
		{CustomerId: "x", MaxAge: durationpb.New(-1), MinEvidenceTime: timestamppb.Now(), Operation: eligibilityv1.Operation_OPERATION_RENEWAL},
		{MaxAge: &durationpb.Duration{Seconds: 1 << 62, Nanos: -5}, MinEvidenceTime: &timestamppb.Timestamp{Seconds: -1 << 62, Nanos: 1 << 30}},
		{MaxAge: new(durationpb.Duration), MinEvidenceTime: new(timestamppb.Timestamp)},
	}
	var all [][]byte
	for _, message := range append([]proto.Message{&eligibilityv1.BatchCheckEligibilityRequest{Requests: questions}}, asMessages(questions)...) {
		wire, err := proto.Marshal(message)
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, wire, append(slices.Clone(wire), wire...), wire[:len(wire)/2])
	}
	bytesField := func(number protowire.Number, value string) []byte {
		return protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), value)
	}
	varintField := func(number protowire.Number, value uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), value)
	}
	var others [][]byte
	for number := range protowire.Number(8) {
		others = append(others,
			bytesField(number, "\xff"), bytesField(number, "\x0a\x09"), bytesField(number, "\x08\x01\x12\x01x"), varintField(number, 1<<40+3), varintField(number, 1<<63),
			protowire.AppendFixed64(protowire.AppendTag(nil, number, protowire.Fixed64Type), 7), protowire.AppendFixed32(protowire.AppendTag(nil, number, protowire.Fixed32Type), 7),
			protowire.AppendGroup(protowire.AppendTag(nil, number, protowire.StartGroupType), number, varintField(1, 1)),
			protowire.AppendTag(nil, number, protowire.EndGroupType), protowire.AppendTag(nil, number, protowire.StartGroupType), protowire.AppendTag(nil, number, 6))
	}
	others = append(others,
		varintField(protowire.MaxValidNumber, 1), protowire.AppendVarint(nil, (1<<29)<<3), protowire.AppendVarint(nil, (1<<31)<<3), protowire.AppendVarint(nil, 1<<63),
		[]byte("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02"), []byte("\x8a\x00\x00"), // a tag that overflows, and one that is too long
		bytesField(3, string(varintField(1, 5))+string(varintField(2, 6))), bytesField(3, string(varintField(2, 9))), bytesField(4, string(bytesField(1, "x"))),
		protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.BytesType), 1<<40),
		[]byte(markTooLarge), bytes.Repeat([]byte{1<<3 | 3}, 20_000), bytes.Repeat([]byte{0x0a, 0x00}, 3*MaxBatch), bytes.Repeat(varintField(9, 1), 3*MaxBatch))
	for _, other := range others {
		all = append(all, other, append(slices.Clone(all[0]), other...), bytesField(requestsField, string(other)))
	}
	return append(all, slices.Concat(others...), bytesField(requestsField, strings.Repeat("\x12\x00", 1<<10)))
}

func asMessages(questions []*eligibilityv1.CheckEligibilityRequest) []proto.Message {
	messages := make([]proto.Message, len(questions))
	for i := range questions {
		messages[i] = questions[i]
	}
	return messages
}

// sameQuestion fails unless wire is read as proto.Unmarshal and QuestionOf read it.
func sameQuestion(tb testing.TB, wire []byte) {
	tb.Helper()
	message := new(eligibilityv1.CheckEligibilityRequest)
	var got, want Question
	failure := proto.Unmarshal(wire, message)
	if failure == nil {
		want = QuestionOf(message)
	}
	if ok := got.decode(wire); ok != (failure == nil) || ok && got != want {
		tb.Errorf("question %x: %v, %+v; want %+v, %v", wire, ok, got, want, failure)
	}
}

// sameBatch is sameQuestion for a batch, which must not be longer than a handler needs to
// refuse it.
func sameBatch(tb testing.TB, wire []byte) {
	tb.Helper()
	message := new(eligibilityv1.BatchCheckEligibilityRequest)
	var got Batch
	ok := got.decode(wire)
	if len(got.Questions) > MaxBatch {
		return
	}
	failure := proto.Unmarshal(wire, message)
	if ok != (failure == nil) || ok && !slices.Equal(got.Questions, questionsOf(message)) {
		tb.Errorf("batch %x: %v, %+v; want %+v, %v", wire, ok, got.Questions, questionsOf(message), failure)
	}
}

func TestRequestsAreReadAsProtobufReadsThem(t *testing.T) {
	t.Parallel()
	for _, wire := range wires(t) {
		sameQuestion(t, wire)
		sameBatch(t, wire)
	}
}

// FuzzDecode compares the decoders with protobuf's.
func FuzzDecode(f *testing.F) {
	for _, wire := range wires(f) {
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		sameQuestion(t, wire)
		sameBatch(t, wire)
	})
}

// FuzzBatchOf composes batches of valid and random items.
func FuzzBatchOf(f *testing.F) {
	for _, wire := range wires(f) {
		f.Add(wire, uint16(len(wire)%MaxBatch))
	}
	f.Fuzz(func(t *testing.T, item []byte, items uint16) {
		if len(item) > 100 {
			item = item[:100]
		}
		one := protowire.AppendBytes(protowire.AppendTag(nil, requestsField, protowire.BytesType), item)
		sameBatch(t, bytes.Repeat(one, int(items)%(MaxBatch+2)))
	})
}
