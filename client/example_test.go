package client_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/client"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

const (
	contoso  = "c0000000-0000-4000-8000-00000000000c"
	fabrikam = "f0000000-0000-4000-8000-00000000000f"
)

// A client in production: TLS, the address of a headless Service, and a token that the
// platform replaces.
func ExampleNew() {
	asker, err := client.New("eligibilityd.shop.svc.cluster.local:9090", client.Config{
		TLS:      &tls.Config{MinVersion: tls.VersionTLS12},
		Token:    client.TokenFile("/var/run/secrets/eligibilityd/token"),
		Language: "de",
	})
	if err != nil {
		panic(err)
	}
	fmt.Println("it connects when it is first used")
	_ = asker.Close()
	// Output:
	// it connects when it is first used
}

// The checkout asks, and the order step asks again with the evidence time of the checkout:
// nothing older than what the customer was shown answers.
func ExampleClient_Check() {
	asker, end := example()
	defer end()
	ctx := context.Background()

	shown := asker.Check(ctx, client.Request{CustomerID: contoso})
	switch shown.Outcome() {
	case client.Allowed:
		fmt.Println("show the button")
	case client.Blocked:
		fmt.Println(shown.Reasons()[0].GetMessage())
	case client.Undecided:
		fmt.Println("try again:", shown.Err())
	}

	if asker.Check(ctx, client.Request{CustomerID: contoso, MinEvidenceTime: shown.EvidenceTime()}).Allowed() {
		fmt.Println("place the order")
	}
	// Output:
	// show the button
	// place the order
}

// The reason of an error names who can do something about it.
func ExampleVerdict_Err() {
	asker, end := example()
	defer end()

	verdict := asker.Check(context.Background(), client.Request{CustomerID: "no GUID"})
	if failure, ok := errors.AsType[*client.Error](verdict.Err()); ok {
		fmt.Println(verdict.Outcome(), failure.Reason)
	}
	// Output:
	// undecided CUSTOMER_NOT_FOUND
}

func ExampleClient_CheckBatch() {
	asker, end := example()
	defer end()

	questions := []client.Request{{CustomerID: contoso}, {CustomerID: fabrikam}}
	for i, verdict := range asker.CheckBatch(context.Background(), questions) {
		fmt.Println(questions[i].CustomerID, verdict.Outcome())
	}
	// Output:
	// c0000000-0000-4000-8000-00000000000c allowed
	// f0000000-0000-4000-8000-00000000000f blocked
}

// An order waits until the review of its customer ends. A check decides, not the change.
func ExampleClient_Watch() {
	asker, end := example()
	defer end()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	token := "" // is in the database of the shop
	for change, err := range asker.Watch(ctx, client.WatchRequest{
		CustomerIDs: []string{fabrikam},
		ResumeToken: token,
		Save:        func(next string) error { token = next; return nil },
	}) {
		if err != nil {
			panic(err)
		}
		fmt.Println(change.After.Outcome())
		if change.After.Allowed() {
			break // check with MinEvidenceTime: change.ObserveTime, then place the order
		}
	}
	// Output:
	// blocked
	// allowed
}

// scripted stands in for the service: contoso may buy, fabrikam is blocked at first.
type scripted struct {
	eligibilityv1.UnimplementedEligibilityServiceServer
}

// example returns a client of a scripted service.
func example() (asker *client.Client, end func()) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // short
	if err != nil {
		panic(err)
	}
	server := grpc.NewServer()
	eligibilityv1.RegisterEligibilityServiceServer(server, scripted{})
	serving := health.NewServer()
	serving.SetServingStatus("eligibility.v1.EligibilityService", healthv1.HealthCheckResponse_SERVING)
	healthv1.RegisterHealthServer(server, serving)
	go func() { _ = server.Serve(listener) }() // Stop ends it
	asker, err = client.New(listener.Addr().String(), client.Config{Insecure: true})
	if err != nil {
		panic(err)
	}
	return asker, func() {
		_ = asker.Close()
		server.Stop()
	}
}

func about(id string) *eligibilityv1.CheckEligibilityResponse {
	response := &eligibilityv1.CheckEligibilityResponse{CustomerId: id, Decision: eligibilityv1.Decision_DECISION_ALLOWED}
	if id == fabrikam {
		response.Decision = eligibilityv1.Decision_DECISION_BLOCKED
	}
	return response
}

func (scripted) CheckEligibility(_ context.Context, request *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
	if len(request.GetCustomerId()) != len(contoso) {
		failure, err := status.New(codes.NotFound, "Partner Center has no such customer.").WithDetails(&errdetails.ErrorInfo{Domain: "eligibility", Reason: "CUSTOMER_NOT_FOUND"})
		if err != nil {
			return nil, err
		}
		return nil, failure.Err()
	}
	return about(request.GetCustomerId()), nil
}

func (scripted) BatchCheckEligibility(_ context.Context, request *eligibilityv1.BatchCheckEligibilityRequest) (*eligibilityv1.BatchCheckEligibilityResponse, error) {
	response := new(eligibilityv1.BatchCheckEligibilityResponse)
	for _, question := range request.GetRequests() {
		response.Results = append(response.Results, &eligibilityv1.BatchCheckEligibilityResult{
			Result: &eligibilityv1.BatchCheckEligibilityResult_Response{Response: about(question.GetCustomerId())},
		})
	}
	return response, nil
}

func (scripted) WatchEligibility(_ *eligibilityv1.WatchEligibilityRequest, stream grpc.ServerStreamingServer[eligibilityv1.WatchEligibilityResponse]) error {
	allowed := about(fabrikam)
	allowed.Decision = eligibilityv1.Decision_DECISION_ALLOWED
	for _, change := range []*eligibilityv1.EligibilityChange{
		{EventId: "1", CustomerId: fabrikam, After: about(fabrikam), Initial: true},
		{EventId: "2", CustomerId: fabrikam, Before: about(fabrikam), After: allowed},
	} {
		message := &eligibilityv1.WatchEligibilityResponse{ResumeToken: change.GetEventId(), Event: &eligibilityv1.WatchEligibilityResponse_Change{Change: change}}
		if err := stream.Send(message); err != nil {
			return err
		}
	}
	return nil
}
