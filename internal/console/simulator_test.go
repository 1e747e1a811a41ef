package console

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/pcclient"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"
)

// simulated is a source of the simulator's customers, by the client of Partner Center.
func simulated(t *testing.T) (*pcsim.Server, apitest.Source) {
	t.Helper()
	sim, on := pcsimtest.Start(t)
	client, err := pcclient.New(pcclient.Config{
		BaseURL: on.URL, Authority: on.URL, TenantID: pcsim.DefaultTenantID, ClientID: pcsim.DefaultClientID, ClientSecret: pcsim.DefaultClientSecret,
		Audience: "https://api.partnercenter.microsoft.com", RefreshTokenFile: pcsimtest.TokenFile(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	source := pcclient.NewSource(client)
	return sim, func(ctx context.Context, id eligibility.CustomerID, facet eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
		return source.Fetch(ctx, evidence.Query{Key: eligibility.Key{CustomerID: id, Facet: facet}, Started: func() {}, Priority: evidence.NewPriority(evidence.LaneCheckout)})
	}
}

// The block for Microsoft support names the requests that Partner Center received.
func TestTheBlockNamesTheRequests(t *testing.T) {
	t.Parallel()
	sim, source := simulated(t)
	s := startSite(t, servertest.Setup{Source: source}, Config{}, as(support))
	page, _ := s.ask("e0000000-0000-4000-8000-000000000003", "")
	block := ""
	for _, pre := range all(page, element("pre")) {
		block += pre.FirstChild.Data
	}
	requests := sim.Requests()
	if len(requests) != 2 {
		t.Fatalf("%d requests", len(requests))
	}
	for _, r := range requests {
		path := r.Path
		if r.Query != "" {
			path += "?" + r.Query
		}
		for _, line := range []string{"Request: " + r.Method + " " + path, "MS-CorrelationId: " + r.CorrelationID, "MS-RequestId: " + r.RequestID} {
			if !strings.Contains(block, line+"\n") {
				t.Errorf("%q is missing:\n%s", line, block)
			}
		}
	}
	for _, line := range []string{"Account status: Allowed", "Qualification: Education, Denied, reason: Not an Education Customer, created 2020-12-03T10:37:38.885Z"} {
		if !strings.Contains(block, line+"\n") {
			t.Errorf("%q is missing:\n%s", line, block)
		}
	}
}

// Each customer of the simulator has a page, with an answer or the reason why there is
// none.
func TestThePagesOfTheSimulatorsCustomers(t *testing.T) {
	t.Parallel()
	sim, source := simulated(t)
	s := startSite(t, servertest.Setup{Source: source}, Config{}, as(support))
	for _, customer := range sim.Customers() {
		if strings.HasPrefix(customer.ID, "f") {
			continue // failures that take long
		}
		s.h.asks = asks{}
		page, w := s.ask(customer.ID, "")
		if n := len(all(page, withClass("verdict"))); w.Code != 200 || n != 4 {
			t.Errorf("%s: %d, %d verdicts", customer.Name, w.Code, n)
		}
		text := mainOf(page)
		for _, step := range customer.Account {
			if step.Status != "" && step.Status != "none" && len(customer.Account) == 1 && !strings.Contains(text, fmt.Sprintf("Status %s Fetched", step.Status)) {
				t.Errorf("%s: %q is missing: %s", customer.Name, step.Status, text)
			}
		}
	}
}
