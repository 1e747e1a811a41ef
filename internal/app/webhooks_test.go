package app_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// webhookEvent is the body of a request.
type webhookEvent struct {
	ID, Type, Source, Subject string
	Data                      struct {
		CustomerID                    string `json:"customerId"`
		DecisionBefore, DecisionAfter *struct {
			CustomerID, Decision string
			Reasons              []struct{ Code string }
		}
	}
}

// webhookReceiver verifies and keeps what it gets.
type webhookReceiver struct {
	mu     sync.Mutex
	events []webhookEvent // guarded by mu
	faults []string       // guarded by mu
}

func (r *webhookReceiver) serve(verifier *standardwebhooks.Webhook) http.HandlerFunc {
	return func(_ http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		var event webhookEvent
		for _, err := range []error{err, verifier.Verify(body, request.Header), json.Unmarshal(body, &event)} {
			if err != nil {
				r.mu.Lock()
				r.faults = append(r.faults, err.Error())
				r.mu.Unlock()
			}
		}
		if id := request.Header.Get("Webhook-Id"); id != event.ID || id == "" {
			err = fmt.Errorf("webhook-id %q, event %q", id, event.ID)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if err != nil {
			r.faults = append(r.faults, err.Error())
		}
		r.events = append(r.events, event)
	}
}

func (r *webhookReceiver) of(customer string) (events []webhookEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, event := range r.events {
		if event.Subject == customer {
			events = append(events, event)
		}
	}
	return events
}

// Two replicas with a Redis call a webhook when a review has ended, whichever of them
// fetched the new status.
func TestAWebhookIsCalledWhenAReviewEnds(t *testing.T) {
	t.Parallel()
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	verifier, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	receiver := new(webhookReceiver)
	listener := httptest.NewServer(receiver.serve(verifier))
	t.Cleanup(listener.Close)
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	server := cachetest.StartRedis(t)
	f := startFleetWith(t, 2, server, []string{
		"ELIGIBILITY_WEBHOOKS=[{name: orders, url: '" + listener.URL + "', secret_file: " + file + ", only: unblocked}]",
	}, "eu")
	await := func(what string, holds func() bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for !holds() {
			select {
			case <-ctx.Done():
				t.Fatal("not within a minute: " + what)
			case <-tick.C:
			}
		}
	}
	await("a position is stored", func() bool {
		keys, _ := f.raw.Keys(t.Context(), "*webhook:orders:state").Result()
		return len(keys) == 1 && f.raw.HExists(t.Context(), keys[0], "state").Val()
	})
	check := func(replica int, id eligibility.CustomerID) eligibilityv1.Decision {
		t.Helper()
		reply, err := f.replicas[replica].client.CheckEligibility(t.Context(), &eligibilityv1.CheckEligibilityRequest{CustomerId: id.String(), Partner: "eu"})
		if err != nil {
			t.Fatal(err)
		}
		return reply.GetDecision()
	}
	reviewed, allowed, denied := eligibility.CustomerID{1}, eligibility.CustomerID{2}, eligibility.CustomerID{3}
	for _, id := range []eligibility.CustomerID{reviewed, denied} {
		f.sources["eu"].set(id, "UnderReview")
	}
	for replica, id := range []eligibility.CustomerID{reviewed, allowed, denied} {
		check(replica%2, id)
	}
	f.sources["eu"].set(reviewed, "Allowed")
	f.sources["eu"].set(denied, "NotAllowed")
	f.ahead.Add(int64(2 * time.Minute)) // the evidence is no longer fresh
	await("the answers have changed", func() bool {
		return check(1, reviewed) == eligibilityv1.Decision_DECISION_ALLOWED && check(0, denied) == eligibilityv1.Decision_DECISION_BLOCKED
	})
	await("the webhook is called", func() bool { return len(receiver.of(reviewed.String())) > 0 })

	event := receiver.of(reviewed.String())[0]
	before, after := event.Data.DecisionBefore, event.Data.DecisionAfter
	if before == nil || after == nil || before.Decision != "DECISION_BLOCKED" || after.Decision != "DECISION_ALLOWED" ||
		after.CustomerID != reviewed.String() || before.Reasons[0].Code != "REASON_CODE_ACCOUNT_UNDER_REVIEW" {
		t.Errorf("decisions %+v, %+v", before, after)
	}
	if event.Type != "eligibility.evidence.changed.v1" || !strings.HasPrefix(event.Source, "/eligibilityd/eu/") || event.Data.CustomerID != reviewed.String() {
		t.Errorf("event %+v", event)
	}
	receiver.mu.Lock()
	defer receiver.mu.Unlock()
	if len(receiver.faults) > 0 {
		t.Error(receiver.faults)
	}
	for _, event := range receiver.events {
		if event.Subject != reviewed.String() {
			t.Errorf("called about %s", event.Subject)
		}
	}
}
