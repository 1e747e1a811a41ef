package main

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// consoleDev is dev with Redis, so that it has reviews and a history, and what the control
// API of its simulator scripts.
type consoleDev struct {
	*process

	base    string // of the REST listener
	control string // of the simulator
	records string // the file of the decision log
	client  eligibilityv1.EligibilityServiceClient
}

func startConsoleDev(t *testing.T, more ...string) *consoleDev {
	t.Helper()
	records := filepath.Join(t.TempDir(), "decisions.jsonl")
	p := startDev(t, slices.Concat(more, onFleet(cachetest.StartRedis(t)), []string{"ELIGIBILITY_DECISION_LOG__FILE=" + records})...)
	p.out.await(t, "the control API", func(printed string) bool { return strings.Contains(printed, "scripts what a customer gets") })
	_, control, _ := strings.Cut(p.out.String(), "simulator    http://")
	control, _, _ = strings.Cut(control, "/")
	d := &consoleDev{process: p, base: "http://" + p.HTTP, control: "http://" + control, records: records}
	d.client = dialCheck(t, p.GRPC)
	return d
}

// script gives a customer of the first partner a status, and qualifications.
func (d *consoleDev) script(t *testing.T, id, status string, items ...pcsim.Qualification) {
	t.Helper()
	d.put(t, id, pcsim.Customer{
		Account: []pcsim.Step{{Status: status}}, Qualifications: []pcsim.Step{{Items: append([]pcsim.Qualification{}, items...)}},
	})
}

func (d *consoleDev) put(t *testing.T, id string, customer pcsim.Customer) {
	t.Helper()
	sendJSON(t, http.MethodPut, d.control+"/v1/customers/"+id, customer)
}

// fetch asks Partner Center about a customer now, as the order that is called so.
func (d *consoleDev) fetch(t *testing.T, id, order, partner string) *eligibilityv1.CheckEligibilityResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "x-request-id", order), patience)
	defer cancel()
	question := freshEducation(id)
	question.Partner = partner
	resp, err := d.client.CheckEligibility(ctx, question)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// stored waits until what callers do not wait for has been stored: the changes of a
// customer, its review, and the record of an order.
func (d *consoleDev) stored(t *testing.T, id string, changes int, reviewed bool, order string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	eventually(t, "the history of "+id, func() bool {
		known, err := d.client.ExplainEligibility(ctx, &eligibilityv1.ExplainEligibilityRequest{CustomerId: id})
		return err == nil && len(known.GetHistory()) >= changes && (len(known.GetReviews()) > 0 || !reviewed)
	})
	eventually(t, "the record of "+order, func() bool {
		text, err := os.ReadFile(d.records)
		return err == nil && bytes.Contains(text, []byte(order))
	})
}

// supportStep is what somebody does at the console: it counts as one click.
type supportStep struct{ paste, click string }

// supportCall is a call that support gets.
type supportCall struct {
	question string
	steps    []supportStep // from the start page
	want     []string      // on the page then
}

// Customers of the calls.
const (
	educationLost      = "1c000000-0000-4000-8000-000000000001"
	workedBefore       = "1c000000-0000-4000-8000-000000000002"
	fineAgain          = "1c000000-0000-4000-8000-000000000003"
	askedFor           = "1c000000-0000-4000-8000-000000000004"
	blockedByMicrosoft = "1c000000-0000-4000-8000-000000000005"
	inBoth             = "1c000000-0000-4000-8000-000000000006"
)

// supportCalls prepares what the calls are about, and returns them.
func supportCalls(t *testing.T, d *consoleDev) []supportCall {
	t.Helper()
	approved := pcsim.Qualification{Qualification: "Education", VettingStatus: "Approved"}
	denied := pcsim.Qualification{Qualification: "Education", VettingStatus: "Denied", VettingReason: "Not an Education Customer"}
	d.script(t, educationLost, "Allowed", approved)
	d.fetch(t, educationLost, "order-1", "")
	d.script(t, educationLost, "Allowed", denied)
	d.fetch(t, educationLost, "order-2", "")

	d.script(t, workedBefore, "Allowed")
	d.fetch(t, workedBefore, "order-3", "")
	d.script(t, workedBefore, "UnderReview")
	d.fetch(t, workedBefore, "order-4", "")

	d.script(t, fineAgain, "NotAllowed")
	d.fetch(t, fineAgain, "order-5", "")
	d.script(t, fineAgain, "Allowed")

	d.script(t, askedFor, "Unknown")
	asked := d.fetch(t, askedFor, "order-at-14-02", "")
	d.script(t, blockedByMicrosoft, "NotAllowed")
	ticket := d.fetch(t, blockedByMicrosoft, "order-6", "")
	d.script(t, inBoth, "UnderReview")
	d.fetch(t, inBoth, "order-7", "")
	d.put(t, inBoth+"?partner="+devSecondPartner, pcsim.Customer{Account: []pcsim.Step{{Status: "Allowed"}}})
	d.fetch(t, inBoth, "order-8", devSecondPartner)
	d.stored(t, educationLost, 3, false, "order-2")
	d.stored(t, workedBefore, 3, true, "order-4")
	d.stored(t, fineAgain, 2, false, "order-5")
	d.stored(t, askedFor, 2, false, "order-at-14-02")
	d.stored(t, blockedByMicrosoft, 2, false, "order-6")
	d.stored(t, inBoth, 2, true, "order-7")

	today := asked.GetEvidenceTime().AsTime().Format("Mon 2006-01-02")
	return []supportCall{
		{
			"My customer cannot buy education licences since Tuesday.",
			[]supportStep{{paste: educationLost}},
			[]string{"May buy commercial licences", "May not buy education licences: Microsoft has denied the qualification", "Since " + today, "Approved", "Denied", "Not an Education Customer"},
		},
		{
			"It worked an hour ago.",
			[]supportStep{{paste: workedBefore}},
			[]string{"May not buy commercial licences: Microsoft is reviewing the account", "Since " + today, "Allowed", "UnderReview", "1 hour ago"},
		},
		{
			"Which of my customers are stuck?",
			[]supportStep{{click: "Under review"}},
			[]string{workedBefore, inBoth, "UnderReview", "Since", "Next check"},
		},
		{
			"Microsoft claims they are fine.",
			[]supportStep{{paste: fineAgain}, {click: "Ask Microsoft now"}},
			[]string{"Microsoft was asked. Its answer is below.", "May buy commercial licences", "Allowed"},
		},
		{
			"Who asked for this at 14:02?",
			[]supportStep{{paste: askedFor}, {click: "Who asked"}},
			[]string{"anonymous", asked.GetEvidenceTime().AsTime().Format("2006-01-02 15:04"), "ACCOUNT_UNKNOWN"},
		},
		{
			"When will it be checked again?",
			[]supportStep{{paste: workedBefore}},
			[]string{"Next check " + today, "by the service itself"},
		},
		{
			"Is it us or Microsoft that is down?",
			[]supportStep{{click: "Fleet"}},
			[]string{"Neither is down: Microsoft answered when it was last asked"},
		},
		{
			"What do I send to Microsoft?",
			[]supportStep{{paste: blockedByMicrosoft}, {click: "Copy for Microsoft support"}},
			[]string{"Customer tenant id: " + blockedByMicrosoft, "Account status: NotAllowed", "MS-CorrelationId: " + ticket.GetCorrelationId()},
		},
		{
			"Can they renew although they are blocked for purchase?",
			[]supportStep{{paste: workedBefore}},
			[]string{"May not buy commercial licences", "Renewals"},
		},
		{
			"Is this our other partner account?",
			[]supportStep{{paste: inBoth}, {click: devSecondPartner}},
			[]string{"May buy commercial licences", "Partner " + devSecondPartner},
		},
	}
}

// answer plays a call, and fails if it takes more than two clicks.
func (c supportCall) answer(t *testing.T, by visitor) {
	t.Helper()
	const most = 2
	if len(c.steps) > most {
		t.Errorf("%q takes %d clicks from the start page", c.question, len(c.steps))
	}
	by.start(t)
	for _, step := range c.steps {
		if step.paste != "" {
			by.paste(t, step.paste)
		} else {
			by.click(t, step.click)
		}
	}
	text := strings.ToLower(by.reads(t))
	for _, want := range c.want {
		if !strings.Contains(text, strings.ToLower(want)) {
			t.Errorf("%q: %q is not in\n%s", c.question, want, text)
		}
	}
}

// Each of ten calls that support gets is answered by the page that two clicks lead to, at
// most, in a browser without script.
func TestTheConsoleAnswersSupportInTwoClicks(t *testing.T) {
	t.Parallel()
	d := startConsoleDev(t)
	calls := supportCalls(t, d)
	if len(calls) != 10 {
		t.Errorf("%d calls", len(calls))
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	for _, call := range calls {
		call.answer(t, newHTTPVisitor(t, d.base, transport))
	}
}

// freshEducation asks whether a customer may buy education licences, by what Partner Center
// answers now.
func freshEducation(id string) *eligibilityv1.CheckEligibilityRequest {
	return &eligibilityv1.CheckEligibilityRequest{CustomerId: id, Segment: eligibilityv1.Segment_SEGMENT_EDUCATION, MaxAge: durationpb.New(0)}
}
