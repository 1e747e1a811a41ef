package server

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// TestABatchReturnsWhatItHas asks about 1,000 customers, of whom ten are known
// and Partner Center is silent about the rest.
func TestABatchReturnsWhatItHas(t *testing.T) {
	t.Parallel()
	run := start(t, setup{})
	batch := new(eligibilityv1.BatchCheckEligibilityRequest)
	var items []string
	for i := range maxBatch {
		id := fmt.Sprintf("cccccccc-0000-4000-8000-%012x", i)
		if i%100 == 0 {
			run.store.put(id, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed}, time.Now())
			run.store.put(id, eligibility.FacetQualifications, eligibility.Evidence{}, time.Now())
		}
		batch.Requests = append(batch.Requests, ask(id))
		items = append(items, `{"customerId":"`+id+`"}`)
	}
	const decided, open = maxBatch / 100, maxBatch - maxBatch/100

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	resp, err := run.client.BatchCheckEligibility(ctx, batch)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, result := range resp.GetResults() {
		got[result.GetError().GetReason()]++
	}
	if got[""] != decided || got["DEADLINE_EXCEEDED"] != open {
		t.Errorf("over gRPC: %v", got)
	}

	over := run.post(t, `{"requests":[`+strings.Join(items, ",")+`]}`, "Grpc-Timeout", "2S")
	text := string(over.body)
	if over.StatusCode != http.StatusOK || strings.Count(text, `"response"`) != decided || strings.Count(text, `"DEADLINE_EXCEEDED"`) != open {
		t.Errorf("over REST: %d %.300s", over.StatusCode, text)
	}
}

// TestTheDefaultDeadlineOfABatch compares the deadlines of handlers whose callers
// set none.
func TestTheDefaultDeadlineOfABatch(t *testing.T) {
	t.Parallel()
	s, err := NewChain(start(t, setup{}).service, ChainConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for method, want := range map[string]time.Duration{
		eligibilityv1.EligibilityService_CheckEligibility_FullMethodName:      2 * time.Second,
		eligibilityv1.EligibilityService_BatchCheckEligibility_FullMethodName: 30 * time.Second,
	} {
		c := &call{lazyContext: lazyContext{Context: metadata.NewIncomingContext(t.Context(), nil)}}
		s.bound(c, method)
		if left := time.Until(c.deadline); left > want || left < want-time.Second {
			t.Errorf("%s: %v, want %v", method, left, want)
		}
	}
}

func TestTheReserveOfABatchLeavesHalfOfItsTime(t *testing.T) {
	t.Parallel()
	for left, want := range map[time.Duration]time.Duration{
		10 * time.Second: 9900 * time.Millisecond, 100 * time.Millisecond: 50 * time.Millisecond, -time.Second: -time.Second,
	} {
		parent, cancel := context.WithTimeout(t.Context(), left)
		ctx := withReserve(parent, 100*time.Millisecond)
		deadline, _ := ctx.Deadline()
		parents, _ := parent.Deadline()
		if got := left - parents.Sub(deadline); got > want+time.Millisecond || got < want-20*time.Millisecond {
			t.Errorf("of %v, %v are left, want %v", left, got, want)
		}
		ctx.end()
		cancel()
	}
	if _, ok := withReserve(t.Context(), time.Second).Deadline(); ok {
		t.Error("a context without a deadline gets one")
	}
}
