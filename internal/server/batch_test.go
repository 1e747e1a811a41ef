package server

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

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
