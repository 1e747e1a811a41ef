package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

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

// dev prints the answers that its customers really get: they are obtained by a
// rehearsal, not written down.
func TestDevPrintsTheAnswersThatItGives(t *testing.T) {
	t.Parallel()
	p := startDev(t)
	p.out.await(t, "the table and its warning", func(printed string) bool {
		return strings.Contains(printed, "(!) Partner Center answers 429") && strings.Contains(printed, "pauses the calls\n    about every customer")
	})
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
		"f0000000-0000-4000-8000-000000000005": "error: throttled (!)",
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
	if marks := strings.Count(printed, " (!)"); marks != 1 {
		t.Errorf("%d customers are marked as throttling, want 1", marks)
	}
	for _, line := range []string{"curl -s 'http://" + p.HTTP, "grpcurl -plaintext", "eligibilityd check --address " + p.GRPC, p.HTTP + "/docs"} {
		if !strings.Contains(printed, line) {
			t.Errorf("nothing to copy that begins %q", line)
		}
	}
	// The rehearsal has not changed timelines or evidence.
	resp, err := p.ask(t, &eligibilityv1.CheckEligibilityRequest{CustomerId: allowedID})
	if err != nil || resp.GetSource() != eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_PARTNER_CENTER {
		t.Errorf("first question of a caller: %v, %v", resp, err)
	}
}

// The partners of dev get different answers about one customer.
func TestDevHasTwoPartners(t *testing.T) {
	t.Parallel()
	p := startDev(t)
	for partner, want := range map[string]eligibilityv1.Decision{
		"":           eligibilityv1.Decision_DECISION_ALLOWED,
		"contoso-eu": eligibilityv1.Decision_DECISION_ALLOWED,
		"contoso-us": eligibilityv1.Decision_DECISION_BLOCKED,
	} {
		resp, err := p.ask(t, &eligibilityv1.CheckEligibilityRequest{CustomerId: allowedID, Partner: partner})
		if err != nil || resp.GetDecision() != want {
			t.Errorf("partner %q: %v, %v", partner, resp, err)
		}
	}
	printed := ""
	p.out.await(t, "the guide", func(all string) bool {
		printed = all
		return strings.Contains(all, "?partner=contoso-us'\n  curl")
	})
	_, example, _ := strings.Cut(printed, "curl -s 'http://"+p.HTTP+"/v1/customers/"+allowedID+"/eligibility?partner=")
	if partner, _, _ := strings.Cut(example, "'"); partner != "contoso-us" {
		t.Errorf("printed %q", printed)
	}
	status, _, body := get(t, "http://"+p.HTTP+"/v1/customers/"+allowedID+"/eligibility?partner=contoso-us")
	if status != http.StatusOK || !strings.Contains(body, "DECISION_BLOCKED") {
		t.Errorf("REST: %d %s", status, body)
	}
	if status, _, body := get(t, "http://"+p.HTTP+"/v1/customers/"+underReviewID+"/eligibility?partner=contoso-us"); status != http.StatusNotFound {
		t.Errorf("a customer of the other partner: %d %s", status, body)
	}
}

// dev opens the console first of all, for a fictitious user, and records for it what was
// asked.
func TestDevServesTheConsole(t *testing.T) {
	t.Parallel()
	p := startDev(t)
	address := "http://" + p.HTTP + "/console"
	p.out.await(t, "the address of the console", func(printed string) bool { return strings.Contains(printed, "console      "+address+" ") })
	if printed := p.out.String(); strings.Index(printed, address) > strings.Index(printed, p.GRPC) {
		t.Errorf("the console is not printed first:\n%s", printed)
	}
	if status, _, body := get(t, address+"/nothing"); status != http.StatusNotFound || !strings.Contains(body, "developer") {
		t.Errorf("%d %s", status, body)
	}
}

// A full batch of new customers fits the budget.
func TestDevAnswersABatchOfNewCustomers(t *testing.T) {
	t.Parallel()
	p := startDev(t)
	p.out.await(t, "the control API", func(printed string) bool { return strings.Contains(printed, "scripts what a customer gets") })
	_, control, _ := strings.Cut(p.out.String(), "simulator    http://")
	control, _, _ = strings.Cut(control, "/")
	batch := new(eligibilityv1.BatchCheckEligibilityRequest)
	for i := range 1000 {
		id := fmt.Sprintf("0d000000-0000-4000-8000-%012d", i)
		batch.Requests = append(batch.Requests, &eligibilityv1.CheckEligibilityRequest{CustomerId: id})
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+control+"/v1/customers/"+id,
			strings.NewReader(`{"account":[{"status":"Allowed"}],"qualifications":[{"items":[]}]}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode >= http.StatusBadRequest {
			t.Fatalf("script customer %d: %s", i, resp.Status)
		}
	}
	conn, err := grpc.NewClient(p.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	resp, err := eligibilityv1.NewEligibilityServiceClient(conn).BatchCheckEligibility(ctx, batch)
	if err != nil {
		t.Fatal(err)
	}
	for i, result := range resp.GetResults() {
		if result.GetResponse().GetDecision() != eligibilityv1.Decision_DECISION_ALLOWED {
			t.Fatalf("customer %d of %d: %v", i, len(resp.GetResults()), result)
		}
	}
}

func TestDevRefusesAWrongEnvironment(t *testing.T) {
	t.Parallel()
	err := dev(t.Context(), []string{"ELIGIBILITY_SERVER__GRPC__ADDRESS=0.0.0.0:0", "ELIGIBILITY_NO=1"}, "127.0.0.1:0", nil, new(output), new(output))
	if err == nil || !strings.Contains(err.Error(), "dev listens on loopback only") || !strings.Contains(err.Error(), "ELIGIBILITY_NO") {
		t.Errorf("error %v, want both mistakes named", err)
	}
}

// Its control API decides who may buy.
func TestDevRefusesAControlAddressBeyondLoopback(t *testing.T) {
	t.Parallel()
	ended, end := context.WithCancel(t.Context())
	end()
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "gate.example:0"} {
		err := dev(ended, anyPort(), address, nil, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), "--control-address") || !strings.Contains(err.Error(), "loopback") {
			t.Errorf("%s: %v", address, err)
		}
	}
}
