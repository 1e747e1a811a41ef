package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

const (
	shortestWait = 500 * time.Millisecond // between attempts, doubled up to the longest
	longestWait  = time.Minute
	callTimeout  = 10 * time.Second
)

// segmentOf returns the segment that an order names.
func segmentOf(name string) (segment eligibilityv1.Segment, known bool) {
	if name == "" {
		return eligibilityv1.Segment_SEGMENT_COMMERCIAL, true
	}
	number, known := eligibilityv1.Segment_value["SEGMENT_"+strings.ToUpper(name)]
	return eligibilityv1.Segment(number), known && number != 0
}

// pipeline places each order that it is given, once its customer may buy.
type pipeline struct {
	client eligibilityv1.EligibilityServiceClient
	book   *book
	shop   *shop
	slots  chan struct{} // bounds the checks under way
	read   atomic.Bool   // no more orders come
	fail   context.CancelCauseFunc

	printing sync.Mutex
	out      *json.Encoder
}

// intake accepts orders until the input ends, one JSON object a line. An order is on the
// disk before it is reported as accepted; a line without an order is reported, no more.
func (p *pipeline) intake(in io.Reader) {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var o Order
		err := json.Unmarshal(lines.Bytes(), &o)
		if _, known := segmentOf(o.Segment); err != nil || o.ID == "" || !known {
			p.report(Order{ID: o.ID, State: rejected}, "not an order")
			continue
		}
		p.slots <- struct{}{} // reads no faster than checks are made
		<-p.slots
		o = Order{ID: o.ID, CustomerID: o.CustomerID, Segment: o.Segment, State: due}
		known, err := p.book.accept(o)
		switch {
		case err != nil:
			p.fail(err)
			return
		case known != "":
			p.report(Order{ID: o.ID, State: known}, "known")
		default:
			p.report(o, "accepted")
			go p.work(o)
		}
	}
	if err := lines.Err(); err != nil {
		p.fail(fmt.Errorf("orders: %w", err))
	}
	p.read.Store(true)
}

// work checks a due order until it is no longer due.
func (p *pipeline) work(o Order) {
	for wait := shortestWait; ; wait = min(2*wait, longestWait) {
		again, err := p.check(&o)
		if err != nil {
			p.fail(err)
			return
		}
		if o.State != due {
			return
		}
		sleep(max(again, wait))
	}
}

// check asks about a due order and acts on the answer. If the order is still due, it
// returns when to ask again. An error is one of the disk.
func (p *pipeline) check(o *Order) (again time.Duration, err error) {
	p.slots <- struct{}{}
	defer func() { <-p.slots }()
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	segment, _ := segmentOf(o.Segment)
	question := &eligibilityv1.CheckEligibilityRequest{CustomerId: o.CustomerID, Segment: segment}
	if !o.NotBefore.IsZero() {
		question.MinEvidenceTime = timestamppb.New(o.NotBefore)
	}
	answer, err := p.client.CheckEligibility(ctx, question)
	switch why, wait := reasonOf(err); {
	case why == "CUSTOMER_NOT_FOUND", why == "CUSTOMER_NOT_SERVED", why == "INVALID_ARGUMENT" && o.NotBefore.IsZero():
		return 0, p.move(o, rejected, why)
	case err != nil: // undecided, which is neither allowed nor blocked
		p.report(*o, why)
		return wait, nil
	}
	blocked := answer.GetDecision() == eligibilityv1.Decision_DECISION_BLOCKED
	switch sentence := sentences(answer); {
	case answer.GetDecision() == eligibilityv1.Decision_DECISION_ALLOWED:
		// After a crash between these two, the first is done again, with the same key.
		if err := p.shop.place(o.ID, o.CustomerID); err != nil {
			return 0, err
		}
		return 0, p.move(o, placed, sentence)
	case temporary(answer):
		o.CustomerID = answer.GetCustomerId() // as streams write it
		if *o, err = p.book.park(*o, answer.GetEvidenceTime().AsTime()); err == nil {
			p.report(*o, sentence)
		}
		return 0, err
	case blocked && answer.GetRecheckTime() == nil: // waiting does not help
		return 0, p.move(o, refused, sentence)
	default: // REASON_CODE_UNDECIDABLE: no change ends it
		p.report(*o, sentence)
		return time.Until(answer.GetRecheckTime().AsTime()), nil
	}
}

// temporary reports whether a block ends by itself, by a review whose end is a change.
func temporary(answer *eligibilityv1.CheckEligibilityResponse) bool {
	return answer.GetDecision() == eligibilityv1.Decision_DECISION_BLOCKED && answer.GetRecheckTime() != nil &&
		!slices.ContainsFunc(answer.GetReasons(), func(r *eligibilityv1.Reason) bool {
			return r.GetCode() == eligibilityv1.ReasonCode_REASON_CODE_UNDECIDABLE
		})
}

// sentences returns the reasons of an answer, fit to be shown.
func sentences(answer *eligibilityv1.CheckEligibilityResponse) string {
	var all []string
	for _, reason := range answer.GetReasons() {
		all = append(all, reason.GetMessage())
	}
	return strings.Join(all, " ")
}

// move makes a due order one of another state.
func (p *pipeline) move(o *Order, to state, why string) error {
	o.State = to
	if err := p.book.put(*o); err != nil {
		return err
	}
	p.report(*o, why)
	return nil
}

// report is a line about an order.
type report struct {
	Order string `json:"order"`
	State state  `json:"state"`
	Why   string `json:"why"`
}

func (p *pipeline) report(o Order, why string) {
	p.printing.Lock()
	defer p.printing.Unlock()
	_ = p.out.Encode(report{o.ID, o.State, why}) //nolint:errchkjson // a reader who has left stops no order
}

// reasonOf returns the reason of an error of the service, and after how long to ask
// again if the error has that.
func reasonOf(err error) (reason string, again time.Duration) {
	s := status.Convert(err)
	if s.Code() != codes.OK {
		reason = s.Code().String()
	}
	for _, detail := range s.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			reason = detail.GetReason()
		case *errdetails.RetryInfo:
			again = detail.GetRetryDelay().AsDuration()
		}
	}
	return reason, again
}

// sleep waits for d, less up to a half of it, so that what failed together is not
// repeated together.
func sleep(d time.Duration) { time.Sleep(d - rand.N(d/2+1)) } //nolint:gosec // no secret
