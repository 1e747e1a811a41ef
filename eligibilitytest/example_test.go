package eligibilitytest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/eligibilityd/eligibilityd/eligibilitytest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

const (
	contoso  = "c0000000-0000-4000-8000-00000000000c"
	fabrikam = "f0000000-0000-4000-8000-00000000000f"
)

func Example() {
	service, err := eligibilitytest.Start(eligibilitytest.Config{
		Customers: map[string]eligibilitytest.Customer{
			contoso:  {Account: eligibilitytest.Allowed},
			fabrikam: {Account: eligibilitytest.UnderReview},
		},
	})
	if err != nil {
		panic(err)
	}
	defer func() { _ = service.Close() }()

	client := eligibilityv1.NewEligibilityServiceClient(service.Conn)
	for _, id := range []string{contoso, fabrikam} {
		answer, err := client.CheckEligibility(context.Background(), &eligibilityv1.CheckEligibilityRequest{CustomerId: id})
		if err != nil {
			panic(err)
		}
		fmt.Println(answer.GetDecision(), answer.GetReasons()[0].GetCode())
	}
	// Output:
	// DECISION_ALLOWED REASON_CODE_ACCOUNT_ALLOWED
	// DECISION_BLOCKED REASON_CODE_ACCOUNT_UNDER_REVIEW
}

// The REST API is on a free port.
func Example_rest() {
	service, err := eligibilitytest.Start(eligibilitytest.Config{
		Default: &eligibilitytest.Customer{Failure: eligibilitytest.PartnerCenterThrottled, RetryAfter: 7 * time.Second},
	})
	if err != nil {
		panic(err)
	}
	defer func() { _ = service.Close() }()

	response, err := http.Get(service.URL + "/v1/customers/" + contoso + "/eligibility") //nolint:noctx // short, and without a deadline
	if err != nil {
		panic(err)
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.Copy(io.Discard, response.Body)
	fmt.Println(response.Status)
	fmt.Println("Retry-After:", response.Header.Get("Retry-After"))
	// Output:
	// 503 Service Unavailable
	// Retry-After: 7
}

// The education segment needs a qualification beside the account.
func Example_segment() {
	service, err := eligibilitytest.Start(eligibilitytest.Config{
		Customers: map[string]eligibilitytest.Customer{
			contoso: {
				Account:        eligibilitytest.NoStatus,
				Qualifications: []eligibilitytest.Qualification{{Type: "Education", VettingStatus: "Approved"}},
			},
		},
	})
	if err != nil {
		panic(err)
	}
	defer func() { _ = service.Close() }()

	client := eligibilityv1.NewEligibilityServiceClient(service.Conn)
	answer, err := client.CheckEligibility(context.Background(), &eligibilityv1.CheckEligibilityRequest{
		CustomerId: contoso,
		Segment:    eligibilityv1.Segment_SEGMENT_EDUCATION,
	})
	if err != nil {
		panic(err)
	}
	for _, reason := range answer.GetReasons() {
		fmt.Println(reason.GetCode())
	}
	// Output:
	// REASON_CODE_ACCOUNT_HAS_NO_STATUS
	// REASON_CODE_QUALIFICATION_APPROVED
}

// A customer is blocked between the checkout and the order. The order asks with a
// max_age of 0s and sees it.
func ExampleService_Set() {
	service, err := eligibilitytest.Start(eligibilitytest.Config{
		Customers: map[string]eligibilitytest.Customer{contoso: {Account: eligibilitytest.Allowed}},
	})
	if err != nil {
		panic(err)
	}
	defer func() { _ = service.Close() }()
	client := eligibilityv1.NewEligibilityServiceClient(service.Conn)
	check := func(maxAge *durationpb.Duration) {
		answer, err := client.CheckEligibility(context.Background(), &eligibilityv1.CheckEligibilityRequest{CustomerId: contoso, MaxAge: maxAge})
		if err != nil {
			panic(err)
		}
		fmt.Println(answer.GetDecision())
	}

	check(nil)
	if err := service.Set(contoso, eligibilitytest.Customer{Account: eligibilitytest.NotAllowed}); err != nil {
		panic(err)
	}
	check(nil)
	check(durationpb.New(0))
	// Output:
	// DECISION_ALLOWED
	// DECISION_ALLOWED
	// DECISION_BLOCKED
}

// Partner Center fails. Evidence that is no longer fresh but still usable answers,
// flagged as stale; later there is an error.
func ExampleService_Advance() {
	service, err := eligibilitytest.Start(eligibilitytest.Config{
		Customers: map[string]eligibilitytest.Customer{contoso: {Account: eligibilitytest.Allowed}},
	})
	if err != nil {
		panic(err)
	}
	defer func() { _ = service.Close() }()
	client := eligibilityv1.NewEligibilityServiceClient(service.Conn)
	check := func() {
		answer, err := client.CheckEligibility(context.Background(), &eligibilityv1.CheckEligibilityRequest{CustomerId: contoso})
		if err != nil {
			fmt.Println(status.Convert(err).Details()[0].(*errdetails.ErrorInfo).GetReason())
			return
		}
		fmt.Println(answer.GetDecision(), "stale:", answer.GetStale())
	}

	check()
	if err := service.Set(contoso, eligibilitytest.Customer{Failure: eligibilitytest.PartnerCenterUnavailable}); err != nil {
		panic(err)
	}
	service.Advance(15 * time.Minute)
	check()
	service.Advance(time.Hour)
	check()
	// Output:
	// DECISION_ALLOWED stale: false
	// DECISION_ALLOWED stale: true
	// PARTNER_CENTER_UNAVAILABLE
}

// A stream reports the end of a review once a check has found it out.
func ExampleService_Set_watch() {
	service, err := eligibilitytest.Start(eligibilitytest.Config{
		Customers: map[string]eligibilitytest.Customer{contoso: {Account: eligibilitytest.UnderReview}},
	})
	if err != nil {
		panic(err)
	}
	defer func() { _ = service.Close() }()
	client := eligibilityv1.NewEligibilityServiceClient(service.Conn)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	check := func() {
		_, err := client.CheckEligibility(ctx, &eligibilityv1.CheckEligibilityRequest{CustomerId: contoso, MaxAge: durationpb.New(0)})
		if err != nil {
			panic(err)
		}
	}

	check()
	stream, err := client.WatchEligibility(ctx, &eligibilityv1.WatchEligibilityRequest{CustomerIds: []string{contoso}})
	if err != nil {
		panic(err)
	}
	var after *eligibilityv1.CheckEligibilityResponse
	for after.GetDecision() != eligibilityv1.Decision_DECISION_ALLOWED {
		message, err := stream.Recv()
		if err != nil {
			panic(err)
		}
		switch {
		case message.GetChange().GetInitial():
			fmt.Println("at first:", message.GetChange().GetAfter().GetDecision())
			if err := service.Set(contoso, eligibilitytest.Customer{Account: eligibilitytest.Allowed}); err != nil {
				panic(err)
			}
			check()
		case message.GetChange() != nil:
			after = message.GetChange().GetAfter()
		}
	}
	fmt.Println("then:", after.GetDecision())
	// Output:
	// at first: DECISION_BLOCKED
	// then: DECISION_ALLOWED
}
