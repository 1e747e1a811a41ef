package pcclient

import (
	"context"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/breaker"
	"github.com/eligibilityd/eligibilityd/internal/budget"
)

// Call describes what a fetch did, whether it succeeded or not.
type Call struct {
	// Attempts counts HTTP requests to Partner Center, replays included.
	Attempts int
	// Status is the last HTTP status, 0 if no complete answer came.
	Status int
	// CorrelationID is the fetch's MS-CorrelationId, RequestID the
	// MS-RequestId of its last request; what Microsoft support asks for.
	CorrelationID string
	RequestID     string
	// Lane is the lane in which the fetch waited for the budget, "" if it did not.
	Lane string
}

// fetch is one question on its way: the one path that both resources take. It
// belongs to one goroutine.
type fetch struct {
	*Client
	op   Op
	url  string
	read func(body []byte) error

	call      Call
	requestID string    // empty: the next attempt needs a new one
	renewed   bool      // a 401 was answered with a new token
	probe     bool      // the breaker let it through to see whether the far side works
	met       *APIError // what the latest attempt met; nil for an answer, or before any
}

// do asks for one resource of one customer and has read decode the body of a
// 200. resource is the part of the path behind the customer.
func (c *Client) do(ctx context.Context, op Op, customerID, resource string, read func([]byte) error) (Call, error) {
	f, err := c.question(op, customerID, resource, read)
	if err != nil {
		return Call{}, err
	}
	fail := f.guarded(ctx)
	c.metrics.fetch(op, fail)
	c.conditions.fetched(op, fail, f.met, c.breaker)
	f.traceEnd(ctx, fail)
	if fail == nil {
		return f.call, nil
	}
	fail.CorrelationID = f.call.CorrelationID
	fail.RequestID = f.call.RequestID
	fail.Attempts = f.call.Attempts
	f.report(fail)
	return f.call, fail
}

// report logs what people have to do about a refusal. Callers may not notice it,
// because the cache answers them for a while.
func (f *fetch) report(fail *APIError) {
	if fail.Class != ClassCredentials || fail.Op != f.op || !f.notices.due(notice{f.op, fail.Reason, fail.Code}) {
		return
	}
	f.log.Error(refusalAdvice(fail), zap.String("op", string(f.op)), zap.String("reason", string(fail.Reason)),
		zap.Int("status", fail.Status), zap.String("code", fail.Code), zap.String("ms_correlation_id", fail.CorrelationID))
}

// question is a fetch that has not begun.
func (c *Client) question(op Op, customerID, resource string, read func([]byte) error) (*fetch, error) {
	if id, err := uuid.Parse(customerID); err != nil || id.String() != strings.ToLower(customerID) {
		return nil, ErrCustomerID
	}
	return &fetch{
		Client: c,
		op:     op,
		url:    c.baseURL + "/v1/customers/" + strings.ToLower(customerID) + resource,
		read:   read,
		call:   Call{CorrelationID: uuid.NewString()},
	}, nil
}

// guarded makes the fetch unless the circuit breaker is open. The token comes
// first, so that no probe waits for the login host.
func (f *fetch) guarded(ctx context.Context) *APIError {
	if left := f.budget.Paused(); left > 0 {
		return f.refused(ReasonPaused, left)
	}
	if _, fail := f.tokens.get(ctx); fail != nil {
		return fail
	}
	permit, retryAfter, ok := f.breaker.Allow()
	if !ok {
		f.metrics.refusals.WithLabelValues(string(ReasonBreaker)).Inc()
		return &APIError{Op: f.op, Class: ClassUnavailable, Reason: ReasonBreaker, RetryAfter: retryAfter}
	}
	f.probe = permit.Probe()
	fail := f.run(ctx)
	outcome := fail
	if fail != nil && fail.Reason == ReasonBudget && f.met != nil {
		// In an outage the replays spend the budget, so most fetches end here.
		// The failure before the replay is what the breaker must count.
		outcome = f.met
	}
	report(permit, outcome)
	return fail
}

// report reports the outcome of a fetch to the circuit breaker. An answer,
// whatever its status, shows that Partner Center works.
func report(permit breaker.Permit, fail *APIError) {
	switch {
	case fail == nil:
		permit.Succeed()
	case fail.Op == OpToken, fail.Reason == ReasonCanceled, fail.Reason == ReasonPaused, fail.Reason == ReasonBudget:
		permit.Cancel()
	case fail.Class == ClassUnavailable:
		permit.Fail()
	default:
		permit.Succeed()
	}
}

// run makes attempts until one settles the question.
func (f *fetch) run(ctx context.Context) *APIError {
	for {
		token, fail := f.admit(ctx)
		if fail != nil {
			return fail
		}
		fail = f.attempt(ctx, token)
		f.met = fail
		if fail == nil {
			return nil
		}
		delay, again := f.replay(ctx, fail, token)
		if !again {
			return fail
		}
		f.log.Debug("request to partner center is replayed",
			zap.String("op", string(f.op)), zap.String("reason", string(fail.Reason)),
			zap.Int("status", fail.Status), zap.Int("attempts", f.call.Attempts), zap.Duration("delay", delay),
			zap.String("ms_correlation_id", f.call.CorrelationID), zap.Error(fail.Err))
		f.metrics.retries.WithLabelValues(string(f.op)).Inc()
		if !sleep(ctx, delay) {
			return transportFailure(ctx, f.op, ctx.Err())
		}
	}
}

// admit gets what a request needs: no pause running, a token, and a share of
// the budget, which checks the pause again.
func (f *fetch) admit(ctx context.Context) (accessToken, *APIError) {
	if left := f.budget.Paused(); left > 0 {
		return accessToken{}, f.refused(ReasonPaused, left)
	}
	token, fail := f.tokens.get(ctx)
	if fail != nil {
		return accessToken{}, fail
	}
	// A probe that waited for the budget would keep all others from probing.
	admission := f.budget.Take(ctx, f.priority, f.probe)
	if admission.Waited {
		f.call.Lane = admission.Lane.String()
	}
	switch {
	case admission.Granted:
		return token, nil
	case admission.Paused:
		return accessToken{}, f.refused(ReasonPaused, admission.Wait)
	default:
		return accessToken{}, f.refused(ReasonBudget, admission.Wait)
	}
}

func (f *fetch) refused(reason Reason, wait time.Duration) *APIError {
	f.metrics.refusals.WithLabelValues(string(reason)).Inc()
	return &APIError{Op: f.op, Class: ClassThrottled, Reason: reason, RetryAfter: wait}
}

// attempt makes one request and reads the answer.
func (f *fetch) attempt(ctx context.Context, token accessToken) *APIError {
	attemptCtx, cancel := context.WithTimeout(ctx, f.attemptTimeout)
	defer cancel()
	req, err := f.request(attemptCtx, token)
	if err != nil { // Validate and the escaping leave nothing to fail
		return &APIError{Op: f.op, Class: ClassInvalidResponse, Reason: ReasonUnexpected}
	}
	var sent atomic.Int32
	req = req.WithContext(httptrace.WithClientTrace(attemptCtx, &httptrace.ClientTrace{WroteHeaders: func() { sent.Add(1) }}))
	if f.call.Attempts == 0 && f.started != nil {
		f.started()
	}
	f.call.Attempts++
	f.call.Status = 0
	start := time.Now()
	got, err := exchange(f.transport, req)
	if hidden := int(sent.Load()) - 1; hidden > 0 {
		// net/http sent the request again by itself, as it does if a reused
		// connection breaks. Partner Center counts both, and so does this client.
		f.call.Attempts += hidden
		f.budget.Charge(ctx, hidden)
		f.metrics.retries.WithLabelValues(string(f.op)).Add(float64(hidden))
	}
	fail := f.judge(ctx, got, err)
	f.metrics.request(ctx, f.op, fail, time.Since(start))
	f.traceRequest(ctx, fail)
	return fail
}

// judge turns the outcome of an exchange into a failure or reads its body.
func (f *fetch) judge(ctx context.Context, got answer, err error) *APIError {
	if unanswered(got, err) {
		return transportFailure(ctx, f.op, err)
	}
	f.requestID = "" // answered: the next request is another one
	f.call.Status = got.status
	fail := classify(f.op, got, f.now())
	if fail != nil {
		if fail.Reason == ReasonThrottled {
			fail.RetryAfter = f.budget.Throttled(ctx, fail.RetryAfter)
		} else {
			f.budget.Answered()
		}
		return fail
	}
	f.budget.Answered()
	if err == nil {
		err = f.read(got.body)
	}
	if err != nil {
		return &APIError{Op: f.op, Class: ClassInvalidResponse, Reason: ReasonUnreadable, Status: got.status, Err: err}
	}
	return nil
}

// request builds one request. MS-RequestId stays the same while no answer has
// come and is new after one; MS-CorrelationId belongs to the fetch. X-Locale
// is not sent: it would translate the words that the rules compare.
//
// Source: https://learn.microsoft.com/en-us/partner-center/developer/headers
// (read 2026-11-21)
func (f *fetch) request(ctx context.Context, token accessToken) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url, http.NoBody)
	if err != nil {
		return nil, err
	}
	if f.requestID == "" {
		f.requestID = uuid.NewString()
	}
	f.call.RequestID = f.requestID
	req.Header.Set("Authorization", "Bearer "+token.value)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("MS-CorrelationId", f.call.CorrelationID)
	req.Header.Set("MS-RequestId", f.requestID)
	req.Header.Set("MS-Contract-Version", "v1")
	req.Header.Set("MS-PartnerCenter-Application", userAgent)
	return req, nil
}

// replay decides whether another attempt may help and is allowed, and after
// which delay. A 429 is never replayed: the pause holds for everybody. Nor is
// what came with a Retry-After: nobody waits for one.
func (f *fetch) replay(ctx context.Context, fail *APIError, token accessToken) (delay time.Duration, again bool) {
	switch {
	case fail.Reason == ReasonUnauthorized && f.renewed:
		f.tokens.renewalWasFruitless()
		return 0, false
	case fail.Reason == ReasonUnauthorized:
		f.renewed = f.tokens.replace(token)
		return 0, f.renewed
	case fail.Class != ClassUnavailable || fail.final || fail.RetryAfter > 0 || f.probe || f.call.Attempts >= maxAttempts:
		return 0, false
	}
	delay = backoff(f.call.Attempts)
	return delay, budget.TimeFor(ctx, delay)
}
