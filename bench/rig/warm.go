package rig

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/eligibilityd/eligibilityd/bench/load"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// warmLimit is how long the tiers of a service may take to fill: each customer costs
// two calls of Partner Center, on cores that all processes share.
const warmLimit = 15 * time.Minute

// warmBatch is the number of customers in one call, and warmCalls the number of
// calls under way.
const (
	warmBatch = 500
	warmCalls = 4
)

// warm asks a service about every customer until the tiers answer for each.
// Evidence is written to Redis after the answer was sent, so if the second pass
// comes too early, it repeats for the customers that are missing.
func warm(ctx context.Context, s Server, access load.Access, customers int) error {
	ctx, cancel := context.WithTimeout(ctx, warmLimit)
	defer cancel()
	var firsts []int // of batches
	for first := 0; first < customers; first += warmBatch {
		firsts = append(firsts, first)
	}
	return withClient(s.GRPC, access, func(client eligibilityv1.EligibilityServiceClient) error {
		again := time.NewTicker(20 * time.Millisecond)
		defer again.Stop()
		for {
			missing, err := ask(ctx, client, firsts, customers)
			if err != nil || len(missing) == 0 {
				return err
			}
			firsts = missing
			select {
			case <-again.C:
			case <-ctx.Done():
				return fmt.Errorf("warm: %w; %d batches are not held", ctx.Err(), len(missing))
			}
		}
	})
}

// ask asks about the customers of batches and returns those batches that did not
// come from the tiers alone.
func ask(ctx context.Context, client eligibilityv1.EligibilityServiceClient, firsts []int, customers int) (missing []int, err error) {
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(warmCalls)
	for _, first := range firsts {
		group.Go(func() error {
			var of []int
			for i := first; i < min(first+warmBatch, customers); i++ {
				of = append(of, i)
			}
			resp, err := client.BatchCheckEligibility(ctx, Batch(of))
			if err != nil {
				return fmt.Errorf("warm: %w", err)
			}
			held := !slices.ContainsFunc(resp.GetResults(), func(result *eligibilityv1.BatchCheckEligibilityResult) bool {
				answer := result.GetResponse()
				return !answer.GetQualificationsKnown() || answer.GetSource() == eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_PARTNER_CENTER
			})
			if !held {
				mu.Lock()
				defer mu.Unlock()
				missing = append(missing, first)
			}
			return nil
		})
	}
	err = group.Wait()
	return missing, err
}

// Batch returns a batch about those customers.
func Batch(of []int) *eligibilityv1.BatchCheckEligibilityRequest {
	batch := new(eligibilityv1.BatchCheckEligibilityRequest)
	for _, i := range of {
		batch.Requests = append(batch.Requests, Check(i))
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
	local := r.Servers[Local]
	err = withClient(local.GRPC, load.Access{}, func(client eligibilityv1.EligibilityServiceClient) error {
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
	body, err = get(ctx, "http://"+local.HTTP+Path(0))
	return message, body, err
}

// BatchPath is the REST path of batches.
const BatchPath = "/v1/customers:batchCheckEligibility"

// Path returns the REST path of the question about the i-th customer.
func Path(i int) string { return "/v1/customers/" + CustomerID(i) + "/eligibility" }

func withClient(address string, access load.Access, use func(eligibilityv1.EligibilityServiceClient) error) error {
	conn, err := grpc.NewClient(address, access.DialOptions()...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return errors.Join(use(eligibilityv1.NewEligibilityServiceClient(conn)), conn.Close())
}
