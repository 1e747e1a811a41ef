package eligibilitytest_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/eligibilityd/eligibilityd/client"
	"github.com/eligibilityd/eligibilityd/eligibilitytest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// The code of docs/integrate.md.

// connect returns a client of all replicas, which has a deadline of 2 s and the right
// retries. One serves the whole program.
func connect() (*client.Client, error) {
	return client.New("dns:///eligibilityd-headless:9090", client.Config{
		Token: client.TokenFile("/run/secrets/eligibilityd-token"),
	})
}

// checkout returns a receipt for the order step, or what to show in its place.
func checkout(ctx context.Context, eligibility *client.Client, customer string) (receipt time.Time, show string) {
	verdict := eligibility.Check(ctx, client.Request{CustomerID: customer})
	switch verdict.Outcome() {
	case client.Allowed:
		return verdict.EvidenceTime(), ""
	case client.Blocked:
		return time.Time{}, textFor(verdict.Reasons())
	default: // verdict.Err() is for the log
		return time.Time{}, "We cannot confirm your order at this moment. Please try again in a few minutes."
	}
}

// textFor returns what a customer is shown: for the remedy that has to be applied first.
func textFor(reasons []*eligibilityv1.Reason) string {
	for _, reason := range reasons {
		switch reason.GetRemedy() {
		case eligibilityv1.Remedy_REMEDY_NONE, eligibilityv1.Remedy_REMEDY_WAIT:
		default:
			return "We cannot accept this order at the moment. We are looking into it, and will contact you."
		}
	}
	return "We keep your order and continue as soon as it can be confirmed."
}

var errNotAllowed = errors.New("the customer may not buy now")

// order places an order unless the customer may no longer buy. No evidence that is older
// than the receipt decides.
func order(ctx context.Context, eligibility *client.Client, id, customer string, receipt time.Time, place func() error) error {
	ctx = metadata.AppendToOutgoingContext(ctx, "x-request-id", id)
	verdict := eligibility.Check(ctx, client.Request{CustomerID: customer, MinEvidenceTime: receipt})
	if !verdict.Allowed() {
		return errors.Join(errNotAllowed, verdict.Err())
	}
	return place()
}

// release calls retry for parked customers whose block has ended. It goes on from token,
// and stores the tokens that follow.
func release(ctx context.Context, eligibility *client.Client, parked []string, token string, save func(string) error, retry func(customer string, receipt time.Time)) error {
	request := client.WatchRequest{CustomerIDs: parked, ResumeToken: token, Save: save}
	for change, err := range eligibility.Watch(ctx, request) {
		if err != nil {
			return err
		}
		if change.After.Outcome() != client.Blocked {
			retry(change.CustomerID, change.ObserveTime)
		}
	}
	return nil
}

// A checkout, and the order step after it.
func Example_checkout() {
	service, err := eligibilitytest.Start(eligibilitytest.Config{
		Customers: map[string]eligibilitytest.Customer{
			contoso:  {Account: eligibilitytest.Allowed},
			fabrikam: {Account: eligibilitytest.NotAllowed},
		},
	})
	if err != nil {
		panic(err)
	}
	defer func() { _ = service.Close() }()
	eligibility, err := client.New(service.Conn.Target(), client.Config{Insecure: true})
	if err != nil {
		panic(err)
	}
	defer func() { _ = eligibility.Close() }()
	ctx := context.Background()

	_, show := checkout(ctx, eligibility, fabrikam)
	fmt.Println(show)
	receipt, _ := checkout(ctx, eligibility, contoso)
	fmt.Println(order(ctx, eligibility, "order-4711-1", contoso, receipt, func() error { return nil }))
	fmt.Println(order(ctx, eligibility, "order-4712-1", fabrikam, receipt, func() error { return nil }))
	// Output:
	// We cannot accept this order at the moment. We are looking into it, and will contact you.
	// <nil>
	// the customer may not buy now
}

// An order that was parked is tried again when the review has ended.
func Example_release() {
	service, err := eligibilitytest.Start(eligibilitytest.Config{
		Customers: map[string]eligibilitytest.Customer{contoso: {Account: eligibilitytest.UnderReview}},
	})
	if err != nil {
		panic(err)
	}
	defer func() { _ = service.Close() }()
	eligibility, err := client.New(service.Conn.Target(), client.Config{Insecure: true})
	if err != nil {
		panic(err)
	}
	defer func() { _ = eligibility.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	_, show := checkout(ctx, eligibility, contoso)
	fmt.Println(show)
	// The review ends. Without Redis, the service finds it out by a check.
	if err := service.Set(contoso, eligibilitytest.Customer{Account: eligibilitytest.Allowed}); err != nil {
		panic(err)
	}
	now := time.Duration(0)
	eligibility.Check(ctx, client.Request{CustomerID: contoso, MaxAge: &now})
	err = release(ctx, eligibility, []string{contoso}, "", nil, func(customer string, receipt time.Time) {
		fmt.Println(order(ctx, eligibility, "order-4711-2", customer, receipt, func() error { return nil }))
		cancel()
	})
	fmt.Println(errors.Is(err, context.Canceled))
	// Output:
	// We keep your order and continue as soon as it can be confirmed.
	// <nil>
	// true
}

var _ = connect // needs a service in a cluster
