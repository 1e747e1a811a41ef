package rig

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/eligibilityd/eligibilityd/bench/load"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// warmLimit is how long the tiers may take to fill: each customer costs two
// calls of the simulator, on cores that all processes share.
const warmLimit = 5 * time.Minute

// warmBatch is the number of customers in one call.
const warmBatch = 100

// warm asks a service about every customer until the tiers answer for each.
// Evidence is written to Redis after the answer was sent, so if the second pass
// comes too early, it repeats.
func warm(ctx context.Context, s Server, access load.Access, customers int) error {
	ctx, cancel := context.WithTimeout(ctx, warmLimit)
	defer cancel()
	return withClient(s.GRPC, access, func(client eligibilityv1.EligibilityServiceClient) error {
		again := time.NewTicker(20 * time.Millisecond)
		defer again.Stop()
		for {
			missing, err := ask(ctx, client, customers)
			if err != nil || missing == nil {
				return err
			}
			select {
			case <-again.C:
			case <-ctx.Done():
				return fmt.Errorf("warm: %w; last not held: %v", ctx.Err(), missing)
			}
		}
	})
}

// ask asks about every customer and returns the last result that did not come
// from the tiers, or nil if all did.
func ask(ctx context.Context, client eligibilityv1.EligibilityServiceClient, customers int) (missing *eligibilityv1.BatchCheckEligibilityResult, err error) {
	for first := 0; first < customers; first += warmBatch {
		resp, err := client.BatchCheckEligibility(ctx, Batch(first, min(warmBatch, customers-first)))
		if err != nil {
			return nil, fmt.Errorf("warm: %w", err)
		}
		for _, result := range resp.GetResults() {
			answer := result.GetResponse()
			if !answer.GetQualificationsKnown() || answer.GetSource() == eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_PARTNER_CENTER {
				missing = result
			}
		}
	}
	return missing, nil
}

// Batch returns a batch about that many customers from the first on.
func Batch(first, count int) *eligibilityv1.BatchCheckEligibilityRequest {
	batch := new(eligibilityv1.BatchCheckEligibilityRequest)
	for i := range count {
		batch.Requests = append(batch.Requests, Check(first+i))
	}
	return batch
}

// Check returns the question about the i-th customer.
func Check(i int) *eligibilityv1.CheckEligibilityRequest {
	return &eligibilityv1.CheckEligibilityRequest{CustomerId: CustomerID(i)}
}

// answer returns the service's answer about a customer, encoded as protobuf and
// as REST's JSON: the floors send the same.
func (r *Rig) answer(ctx context.Context) (message, body []byte, err error) {
	err = withClient(r.Local.GRPC, load.Access{}, func(client eligibilityv1.EligibilityServiceClient) error {
		resp, err := client.CheckEligibility(ctx, Check(0))
		if err != nil {
			return fmt.Errorf("answer for the floors: %w", err)
		}
		message, err = proto.Marshal(resp)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	body, err = get(ctx, "http://"+r.Local.HTTP+Path(0))
	return message, body, err
}

// Path returns the REST path of the question about the i-th customer.
func Path(i int) string { return "/v1/customers/" + CustomerID(i) + "/eligibility" }

func withClient(address string, access load.Access, use func(eligibilityv1.EligibilityServiceClient) error) error {
	conn, err := grpc.NewClient(address, access.DialOptions()...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return errors.Join(use(eligibilityv1.NewEligibilityServiceClient(conn)), conn.Close())
}
