package rest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"
)

// Concurrent callers get the answers about their own customers, whatever their body
// and answer share memory with. Half of the customers are under review, batches have
// several sizes, some bodies are malformed, and some callers leave early.
func TestConcurrentCallersGetTheirOwnAnswers(t *testing.T) {
	t.Parallel()
	const callers, rounds, maxSize = 16, 12, 90
	run := servertest.Start(t, servertest.Setup{Source: apitest.Silent(), API: api.Config{MaxConcurrent: 1000}})
	id := func(i int) string { return fmt.Sprintf("cccccccc-0000-4000-8000-%012x", i) }
	decision := func(i int) string { return []string{"DECISION_ALLOWED", "DECISION_BLOCKED"}[i%2] }
	for i := range callers + maxSize {
		account := eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed", CorrelationID: id(i)}
		if i%2 == 1 {
			account.Status, account.StatusText = eligibility.AccountStatusUnderReview, "UnderReview"
		}
		run.Store.Hold(id(i), eligibility.FacetAccount, account, time.Now().Add(-time.Second))
		run.Store.Hold(id(i), eligibility.FacetQualifications, eligibility.Evidence{}, time.Now().Add(-time.Second))
	}

	ask := func(caller, round int) {
		size := 1 + (caller*7+round*13)%maxSize
		items := make([]string, size)
		for i := range items {
			items[i] = `{"customerId":"` + id(caller+i) + `"}`
		}
		body := `{"requests":[` + strings.Join(items, ",") + `]}`
		if round%3 == 1 { // the memory of a body that is refused is used again
			refused := run.Post(t, body[:len(body)-caller%5-1])
			if refused.StatusCode != http.StatusBadRequest {
				t.Errorf("a malformed body: %d %s", refused.StatusCode, refused.Body)
			}
		}
		if round%4 == 2 {
			ctx, leave := context.WithTimeout(t.Context(), time.Duration(caller)*100*time.Microsecond)
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, run.REST+"/v1/customers:batchCheckEligibility", strings.NewReader(body))
			if err != nil {
				t.Error(err)
			} else if resp, err := run.HTTP.RoundTrip(req); err == nil {
				_ = resp.Body.Close()
			}
			leave()
		}
		var got struct {
			Results []struct {
				Response struct{ CustomerID, Decision string }
			}
		}
		if reply := run.Post(t, body); json.Unmarshal(reply.Body, &got) != nil || len(got.Results) != size {
			t.Errorf("%d results for %d questions: %d %.300s", len(got.Results), size, reply.StatusCode, reply.Body)
			return
		}
		for i, result := range got.Results {
			if result.Response.CustomerID != id(caller+i) || result.Response.Decision != decision(caller+i) {
				t.Errorf("caller %d asked about %s: %+v", caller, id(caller+i), result.Response)
			}
		}
		single := run.Do(t, http.MethodGet, run.REST+"/v1/customers/"+id(caller)+"/eligibility", "")
		if text := string(single.Body); !strings.Contains(text, id(caller)) || !strings.Contains(text, decision(caller)) {
			t.Errorf("caller %d: %s", caller, text)
		}
	}
	var asking sync.WaitGroup
	for caller := range callers {
		asking.Go(func() {
			for round := range rounds {
				ask(caller, round)
			}
		})
	}
	asking.Wait()
}
