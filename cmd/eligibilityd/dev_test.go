package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

func TestDevAnswersOverBothTransports(t *testing.T) {
	t.Parallel()
	p := startDev(t)
	resp, err := p.ask(t, &eligibilityv1.CheckEligibilityRequest{CustomerId: allowedID})
	if err != nil || resp.GetDecision() != eligibilityv1.Decision_DECISION_ALLOWED {
		t.Errorf("gRPC: %v, %v", resp, err)
	}
	status, _, body := get(t, "http://"+p.HTTP+"/v1/customers/"+underReviewID+"/eligibility")
	var answer struct{ Decision string }
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusOK || answer.Decision != "DECISION_BLOCKED" {
		t.Errorf("REST: %d %s", status, body)
	}
}

// What dev prints about a customer is what the customer's first question is
// answered: the table is rehearsed, not written down.
func TestDevPrintsTheAnswersThatItGives(t *testing.T) {
	t.Parallel()
	p := startDev(t)
	p.out.await(t, "the table", func(printed string) bool { return strings.Contains(printed, "f0000000-") })
	printed := p.out.String()
	for id, want := range map[string]string{
		allowedID:                              "allowed: ACCOUNT_ALLOWED",
		underReviewID:                          "blocked: ACCOUNT_UNDER_REVIEW",
		notAllowedID:                           "blocked: ACCOUNT_NOT_ALLOWED",
		"a0000000-0000-4000-8000-000000000004": "blocked: ACCOUNT_UNKNOWN",
		"a0000000-0000-4000-8000-000000000005": "blocked: ACCOUNT_NOT_READY",
		"a0000000-0000-4000-8000-000000000006": "allowed: ACCOUNT_HAS_NO_STATUS",
		"e0000000-0000-4000-8000-000000000003": "blocked: ACCOUNT_ALLOWED, QUALIFICATION_DENIED",
		"d0000000-0000-4000-8000-000000000001": "blocked: ACCOUNT_UNDER_REVIEW",
		"f0000000-0000-4000-8000-000000000001": "error: not_found",
		"f0000000-0000-4000-8000-000000000005": "error: throttled",
	} {
		row := ""
		for line := range strings.SplitSeq(printed, "\n") {
			if strings.HasPrefix(line, id) {
				row = line
			}
		}
		if !strings.Contains(row, want) {
			t.Errorf("row %q, want %q", row, want)
		}
	}
	for _, line := range []string{"curl -s 'http://" + p.HTTP, "grpcurl -plaintext", "eligibilityd check --address " + p.GRPC, p.HTTP + "/docs"} {
		if !strings.Contains(printed, line) {
			t.Errorf("nothing to copy that begins %q", line)
		}
	}
	// The rehearsal has left timelines and evidence as they were.
	resp, err := p.ask(t, &eligibilityv1.CheckEligibilityRequest{CustomerId: allowedID})
	if err != nil || resp.GetSource() != eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_PARTNER_CENTER {
		t.Errorf("first question of a caller: %v, %v", resp, err)
	}
}

func TestDevRefusesAWrongEnvironment(t *testing.T) {
	t.Parallel()
	err := dev(t.Context(), []string{"ELIGIBILITY_SERVER__GRPC__ADDRESS=0.0.0.0:0", "ELIGIBILITY_NO=1"}, "127.0.0.1:0", nil, new(output), new(output))
	if err == nil || !strings.Contains(err.Error(), "server.insecure") || !strings.Contains(err.Error(), "ELIGIBILITY_NO") {
		t.Errorf("error %v, want both mistakes named", err)
	}
}
