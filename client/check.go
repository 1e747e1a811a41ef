package client

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

const (
	batchSize     = 1000 // the most that the service accepts
	batchesAtOnce = 4
	batchTimeout  = 30 * time.Second
)

// Request is one question. Only CustomerID is required.
type Request struct {
	// CustomerID is the customer's Microsoft tenant id, a GUID.
	CustomerID string
	// Segment is what the offer is meant for; unspecified means commercial.
	Segment eligibilityv1.Segment
	// Operation is what the order does; unspecified means a purchase.
	Operation eligibilityv1.Operation
	// Partner is the partner who sells; empty means the service's default.
	Partner string
	// MaxAge is how old evidence may be to count as fresh; nil leaves it to the service,
	// and 0 asks Partner Center now. If that fails, usable older evidence still answers.
	MaxAge *time.Duration
	// MinEvidenceTime excludes older evidence: an order step passes the EvidenceTime of
	// the verdict that the customer was shown. Zero excludes none.
	MinEvidenceTime time.Time
}

func (r Request) message() *eligibilityv1.CheckEligibilityRequest {
	m := &eligibilityv1.CheckEligibilityRequest{CustomerId: r.CustomerID, Segment: r.Segment, Operation: r.Operation, Partner: r.Partner}
	if r.MaxAge != nil {
		m.MaxAge = durationpb.New(*r.MaxAge)
	}
	if !r.MinEvidenceTime.IsZero() {
		m.MinEvidenceTime = timestamppb.New(r.MinEvidenceTime)
	}
	return m
}

// bounded returns the context of a call that ends after timeout, unless ctx has a
// deadline.
func (c *Client) bounded(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	ctx = c.outgoing(ctx)
	if _, has := ctx.Deadline(); has {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, timeout)
}

// Check asks about one customer. It retries within the deadline if that helps.
func (c *Client) Check(ctx context.Context, question Request) Verdict {
	ctx, cancel := c.bounded(ctx, c.cfg.Timeout)
	defer cancel()
	var response *eligibilityv1.CheckEligibilityResponse
	failure := c.retry(ctx, func() *Error {
		var err error
		response, err = c.api.CheckEligibility(ctx, question.message())
		return errorOf(err)
	})
	return verdictOf(question.CustomerID, response, failure)
}

// CheckBatch asks about any number of customers, a thousand in a call and four calls at
// once. It returns a verdict for each question, in their order. Questions that the
// service cannot answer yet are asked again within the deadline, the others are not. If
// ctx has no deadline, each call has 30 s, its retries included.
func (c *Client) CheckBatch(ctx context.Context, questions []Request) []Verdict {
	verdicts := make([]Verdict, len(questions))
	var calls sync.WaitGroup
	slots := make(chan struct{}, batchesAtOnce)
	for start := 0; start < len(questions); start += batchSize {
		end := min(start+batchSize, len(questions))
		slots <- struct{}{}
		calls.Go(func() {
			defer func() { <-slots }()
			c.batch(ctx, questions[start:end], verdicts[start:end])
		})
	}
	calls.Wait()
	return verdicts
}

// batch asks up to a thousand questions and sets their verdicts.
func (c *Client) batch(ctx context.Context, questions []Request, verdicts []Verdict) {
	ctx, cancel := c.bounded(ctx, batchTimeout)
	defer cancel()
	open := make([]int, len(questions)) // to be asked
	for i := range open {
		open[i] = i
	}
	_ = c.retry(ctx, func() *Error { // the failure is in the verdicts
		request := new(eligibilityv1.BatchCheckEligibilityRequest)
		for _, i := range open {
			request.Requests = append(request.Requests, questions[i].message())
		}
		response, err := c.api.BatchCheckEligibility(ctx, request)
		failure := errorOf(err)
		if failure == nil && len(response.GetResults()) != len(open) {
			failure = invalid("the service did not answer each question")
		}
		if failure != nil {
			for _, i := range open {
				verdicts[i] = Verdict{err: failure}
			}
			return failure
		}
		var again []int
		var last *Error // the error of the question that has to wait longest
		for n, result := range response.GetResults() {
			i := open[n]
			verdicts[i] = verdictOf(questions[i].CustomerID, result.GetResponse(), itemError(result.GetError()))
			if e := verdicts[i].err; e != nil && e.RetryAfter > 0 && fits(ctx, e.RetryAfter) {
				again = append(again, i)
				if last == nil || e.RetryAfter > last.RetryAfter {
					last = e
				}
			}
		}
		open = again
		return last
	})
}
