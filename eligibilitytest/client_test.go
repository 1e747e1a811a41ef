package eligibilitytest_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/client"
	"github.com/eligibilityd/eligibilityd/eligibilitytest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

func dialClient(t *testing.T, service *eligibilitytest.Service, cfg client.Config) *client.Client {
	t.Helper()
	cfg.Insecure = true
	asker, err := client.New(service.Conn.Target(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = asker.Close() })
	return asker
}

func reasonOf(err error) string {
	if failure, ok := errors.AsType[*client.Error](err); ok {
		return failure.Reason
	}
	return ""
}

// The client of callers decides as the service does, and no failure permits a sale.
func TestTheClientAgainstTheService(t *testing.T) {
	t.Parallel()
	customers := map[string]eligibilitytest.Customer{}
	want := map[string]string{}
	id := func() string { return fmt.Sprintf("c0000000-0000-4000-8000-%012d", len(customers)) }
	for status, outcome := range map[string]client.Outcome{
		eligibilitytest.Allowed: client.Allowed, eligibilitytest.NoStatus: client.Allowed, eligibilitytest.UnderReview: client.Blocked,
		eligibilitytest.NotAllowed: client.Blocked, eligibilitytest.Unknown: client.Blocked, eligibilitytest.NotReady: client.Blocked, "New": client.Blocked,
	} {
		want[id()] = outcome.String()
		customers[id()] = eligibilitytest.Customer{Account: status}
	}
	for _, failure := range []eligibilitytest.Failure{
		eligibilitytest.CustomerNotFound, eligibilitytest.CustomerNotServed, eligibilitytest.PartnerCenterUnavailable, eligibilitytest.PartnerCenterThrottled,
		eligibilitytest.PartnerCenterCredentials, eligibilitytest.PartnerCenterInvalidResponse, eligibilitytest.DeadlineExceeded,
	} {
		want[id()] = "undecided " + string(failure)
		customers[id()] = eligibilitytest.Customer{Failure: failure, RetryAfter: time.Hour}
	}
	asker := dialClient(t, eligibilitytest.New(t, eligibilitytest.Config{Customers: customers}), client.Config{Timeout: time.Second})
	questions := []client.Request{{CustomerID: "no GUID"}}
	want["no GUID"] = "undecided INVALID_ARGUMENT"
	for id := range customers {
		questions = append(questions, client.Request{CustomerID: id})
	}
	got := func(v client.Verdict) string {
		if v.Err() != nil {
			return v.Outcome().String() + " " + reasonOf(v.Err())
		}
		return v.Outcome().String()
	}
	for _, question := range questions {
		if v := asker.Check(t.Context(), question); got(v) != want[question.CustomerID] {
			t.Errorf("%+v: %s, want %s: %v", customers[question.CustomerID], got(v), want[question.CustomerID], v.Err())
		}
	}
	questions = slices.DeleteFunc(questions, func(q client.Request) bool {
		return customers[q.CustomerID].Failure == eligibilitytest.DeadlineExceeded
	})
	for i, v := range asker.CheckBatch(t.Context(), questions) {
		if got(v) != want[questions[i].CustomerID] {
			t.Errorf("in a batch, %+v: %s, want %s: %v", customers[questions[i].CustomerID], got(v), want[questions[i].CustomerID], v.Err())
		}
	}
}

// A call that is refused for now is made again after the pause that the service names.
func TestTheClientWaitsAsTheServiceAsks(t *testing.T) {
	t.Parallel()
	service := eligibilitytest.New(t, eligibilitytest.Config{
		Customers: map[string]eligibilitytest.Customer{contoso: {Account: eligibilitytest.Allowed}},
		Environ:   []string{"ELIGIBILITY_LIMITS__CALLERS={anonymous: {requests_per_second: 1, burst: 1}}"},
	})
	hasty, patient := dialClient(t, service, client.Config{Attempts: 1}), dialClient(t, service, client.Config{Timeout: time.Minute})
	limited := false
	for range 1000 {
		if limited = reasonOf(hasty.Check(t.Context(), client.Request{CustomerID: contoso}).Err()) == "CALLER_LIMITED"; limited {
			break
		}
	}
	if v := patient.Check(t.Context(), client.Request{CustomerID: contoso}); !limited || !v.Allowed() {
		t.Errorf("limited: %v; then %v, %v", limited, v.Outcome(), v.Err())
	}
}

// The verdict that a customer was shown names the evidence for the order step.
func TestTheEvidenceTimeOfAVerdictIsAReceipt(t *testing.T) {
	t.Parallel()
	service := eligibilitytest.New(t, eligibilitytest.Config{Customers: map[string]eligibilitytest.Customer{contoso: {Account: eligibilitytest.Allowed}}})
	asker := dialClient(t, service, client.Config{})
	shown := asker.Check(t.Context(), client.Request{CustomerID: contoso})
	ordered := asker.Check(t.Context(), client.Request{CustomerID: contoso, MinEvidenceTime: shown.EvidenceTime()})
	if !ordered.Allowed() || !ordered.EvidenceTime().Equal(shown.EvidenceTime()) {
		t.Errorf("%v by evidence of %v, shown was %v", ordered.Outcome(), ordered.EvidenceTime(), shown.EvidenceTime())
	}
	if err := service.Set(contoso, eligibilitytest.Customer{Account: eligibilitytest.UnderReview}); err != nil {
		t.Fatal(err)
	}
	later := asker.Check(t.Context(), client.Request{CustomerID: contoso, MinEvidenceTime: shown.EvidenceTime().Add(time.Millisecond)})
	if later.Outcome() != client.Blocked || later.RecheckTime().IsZero() || later.Reasons()[0].GetCode() != eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_UNDER_REVIEW {
		t.Errorf("%v, %v", later.Outcome(), later.Reasons())
	}
}

func TestTheClientWatches(t *testing.T) {
	t.Parallel()
	service := eligibilitytest.New(t, eligibilitytest.Config{Customers: map[string]eligibilitytest.Customer{contoso: {Account: eligibilitytest.UnderReview}}})
	asker := dialClient(t, service, client.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	now := client.Request{CustomerID: contoso, MaxAge: new(time.Duration)}
	asker.Check(ctx, now)
	token := ""
	var received []string
	watch := client.WatchRequest{CustomerIDs: []string{contoso, fabrikam}, Save: func(next string) error {
		token = next
		return nil
	}}
	for change, err := range asker.Watch(ctx, watch) {
		if err != nil {
			t.Fatal(err)
		}
		received = append(received, fmt.Sprintf("%.1s %v %v", change.CustomerID, change.After.Outcome(), change.Initial))
		if len(received) == 2 { // all that is known now
			if err := service.Set(contoso, eligibilitytest.Customer{Account: eligibilitytest.Allowed}); err != nil {
				t.Fatal(err)
			}
			asker.Check(ctx, now)
		}
		if change.After.Allowed() {
			if v := asker.Check(ctx, client.Request{CustomerID: contoso, MinEvidenceTime: change.ObserveTime}); !v.Allowed() {
				t.Error(v.Err())
			}
			break
		}
	}
	// The change to the current answer may come, too.
	received = slices.DeleteFunc(received, func(one string) bool { return one == "c blocked false" })
	if !slices.Equal(received, []string{"c blocked true", "f undecided true", "c allowed false"}) || token == "" {
		t.Fatalf("%q, token %q", received, token)
	}
	// The change after the token comes again, since the loop ended at it.
	watch.ResumeToken = token
	next, stop := iter.Pull2(asker.Watch(ctx, watch))
	defer stop()
	change, err, _ := next()
	for err == nil && !change.Initial && change.After.Outcome() == client.Blocked { // of before the token
		change, err, _ = next()
	}
	if err != nil || change.Initial || !change.After.Allowed() || change.Before.Outcome() != client.Blocked {
		t.Errorf("%+v, %v", change, err)
	}
}

// Callers test their code with the client of production against the real service.
func Example_client() {
	service, err := eligibilitytest.Start(eligibilitytest.Config{
		Customers: map[string]eligibilitytest.Customer{
			contoso:  {Account: eligibilitytest.Allowed},
			fabrikam: {Failure: eligibilitytest.PartnerCenterCredentials},
		},
	})
	if err != nil {
		panic(err)
	}
	defer func() { _ = service.Close() }()
	asker, err := client.New(service.Conn.Target(), client.Config{Insecure: true})
	if err != nil {
		panic(err)
	}
	defer func() { _ = asker.Close() }()

	for _, id := range []string{contoso, fabrikam} {
		verdict := asker.Check(context.Background(), client.Request{CustomerID: id})
		fmt.Println(verdict.Outcome(), verdict.Err())
	}
	// Output:
	// allowed <nil>
	// undecided PARTNER_CENTER_CREDENTIALS: Partner Center refused access.
}
