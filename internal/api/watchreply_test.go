package api

import (
	"bytes"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// TestWatchRepliesAreProtobufAndProtoJSON compares both encodings of every kind of
// message with those of the generated code.
func TestWatchRepliesAreProtobufAndProtoJSON(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		reply, message := randomWatchReply(t)
		encoded, err := NewCodec(1 << 20).Marshal(reply)
		if err != nil {
			t.Fatal(err)
		}
		compareProto(t, message, encoded.Materialize())
		written := reply.AppendJSON(nil)
		compareJSON(t, message, written)
		if bytes.ContainsAny(written, "\r\n") {
			t.Fatalf("more than one line: %q", written)
		}
	})
}

func randomWatchReply(t *rapid.T) (*WatchReply, proto.Message) { //nolint:ireturn // of one type
	token := rapid.StringMatching(`[A-Za-z0-9_-]{0,80}`).Draw(t, "token")
	reply, message := &WatchReply{Token: token, Language: randomLanguage(t)}, &eligibilityv1.WatchEligibilityResponse{ResumeToken: token}
	switch rapid.IntRange(0, 2).Draw(t, "kind") {
	case 0:
		event := &changeEvent{
			id: rapid.StringMatching(`[a-z0-9:-]{1,60}`).Draw(t, "id"), initial: rapid.Bool().Draw(t, "initial"),
			redelivered: rapid.Bool().Draw(t, "redelivered"), observed: randomTime(t),
		}
		change := &eligibilityv1.EligibilityChange{
			EventId: event.id, Initial: event.initial, Redelivered: event.redelivered, ObserveTime: timestamp(event.observed),
		}
		if rapid.Bool().Draw(t, "before") {
			event.before = randomReply(t)
			change.Before = event.before.inLanguage(reply.Language).message()
		}
		if rapid.Bool().Draw(t, "after") {
			event.after = randomReply(t)
			change.After = event.after.inLanguage(reply.Language).message()
		}
		event.customer = randomReply(t).CustomerID
		change.CustomerId = event.customer.String()
		reply.event, message.Event = event, &eligibilityv1.WatchEligibilityResponse_Change{Change: change}
	case 1:
		progress := changes.Progress{Through: randomTime(t), Oldest: randomTime(t)}
		reply.event = watchProgress(progress)
		message.Event = &eligibilityv1.WatchEligibilityResponse_Progress{Progress: &eligibilityv1.WatchProgress{
			InitialComplete: true, ThroughTime: timestamp(progress.Through), OldestTime: timestamp(progress.Oldest),
		}}
	default:
		reason := eligibilityv1.WatchEnd_Reason(rapid.Int32Range(1, 3).Draw(t, "reason"))
		reply.event = watchEnd(reason)
		message.Event = &eligibilityv1.WatchEligibilityResponse_End{End: &eligibilityv1.WatchEnd{Reason: reason}}
	}
	return reply, message
}

// Comparisons are shared, and the oldest make room.
func TestComparisonsAreShared(t *testing.T) {
	t.Parallel()
	var kept comparisons
	calls := 0
	key := comparisonKey{change: new(changes.Change)}
	kept.mu.Lock()
	kept.keep(key, func() *compared {
		calls++
		return new(compared)
	})
	kept.mu.Unlock()
	if kept.of(key.change, eligibility.SegmentCommercial, nil) == nil || calls != 1 {
		t.Errorf("compared %d times", calls)
	}
	for range 3 * maxComparisons {
		kept.mu.Lock()
		kept.keep(comparisonKey{change: &changes.Change{PendingSince: time.Now()}}, nil)
		kept.mu.Unlock()
	}
	if len(kept.kept) != maxComparisons || kept.kept[key] != nil {
		t.Errorf("%d are kept, the oldest %t", len(kept.kept), kept.kept[key] != nil)
	}
}
