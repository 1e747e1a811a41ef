package api_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// TestABatchReturnsWhatItHas asks about 1,000 customers, of whom ten are known
// and Partner Center is silent about the rest.
func TestABatchReturnsWhatItHas(t *testing.T) {
	t.Parallel()
	// A busy machine needs the reserve to encode and send what there is.
	run := servertest.Start(t, servertest.Setup{API: api.Config{Reserve: 9 * time.Second}})
	batch := new(eligibilityv1.BatchCheckEligibilityRequest)
	var items []string
	for i := range api.MaxBatch {
		id := fmt.Sprintf("cccccccc-0000-4000-8000-%012x", i)
		if i%100 == 0 {
			run.Store.Hold(id, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed}, time.Now())
			run.Store.Hold(id, eligibility.FacetQualifications, eligibility.Evidence{}, time.Now())
		}
		batch.Requests = append(batch.Requests, apitest.Ask(id))
		items = append(items, `{"customerId":"`+id+`"}`)
	}
	const decided, open = api.MaxBatch / 100, api.MaxBatch - api.MaxBatch/100

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	resp, err := run.Client.BatchCheckEligibility(ctx, batch)
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

	over := run.Post(t, `{"requests":[`+strings.Join(items, ",")+`]}`, "Grpc-Timeout", "10S")
	text := string(over.Body)
	if over.StatusCode != http.StatusOK || strings.Count(text, `"response"`) != decided || strings.Count(text, `"DEADLINE_EXCEEDED"`) != open {
		t.Errorf("over REST: %d %.300s", over.StatusCode, text)
	}
}
