package pcclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/eligibilityd/eligibilityd/internal/breaker"
	"github.com/eligibilityd/eligibilityd/internal/budget"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

const (
	// userAgent names us to both hosts.
	userAgent = "eligibilityd"

	// breakAfter is how many fetches in a row must fail before the circuit
	// breaker of Partner Center opens.
	breakAfter = 10
	// loginBreakAfter is the same for renewals and the login host. One renewal
	// serves every caller, so that a single failure concerns all of them.
	loginBreakAfter = 1
	// firstBreak and maxBreak bound the interval between probes of a host that
	// does not work.
	firstBreak = time.Second
	maxBreak   = 5 * time.Second
	// fetchTimeout is the longest time that a caller gives a fetch.
	fetchTimeout = 10 * time.Second
)

// breakers are the circuit breakers of both hosts.
type breakers struct{ partnerCenter, login *breaker.Breaker }

func newBreakers(now func() time.Time) breakers {
	return breakers{
		partnerCenter: breaker.New(breaker.Config{
			Failures: breakAfter, First: firstBreak, Max: maxBreak, ProbeTimeout: fetchTimeout, Now: now,
		}),
		login: breaker.New(breaker.Config{
			Failures: loginBreakAfter, First: firstBreak, Max: maxBreak, ProbeTimeout: tokenTimeout + storeTimeout, Now: now,
		}),
	}
}

// Client asks Partner Center. It is safe for concurrent use.
type Client struct {
	baseURL        string
	flow           Flow
	attemptTimeout time.Duration
	now            func() time.Time
	log            *zap.Logger
	transport      http.RoundTripper
	budget         *budget.Budget
	breaker        *breaker.Breaker
	priority       *evidence.Priority // of the client's questions
	started        func()             // called before a question's first request; may be nil
	tokens         *tokens
	metrics        *metrics
	conditions     *conditions
	notices        *notices
}

// New builds a Client. It makes no call and reads no file, so that a start
// depends on nobody; it fails on a Config that cannot work, with every fault
// at once, and if a metric's name is taken.
func New(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	transport := cfg.Transport
	if transport == nil {
		transport = newTransport(cfg.AttemptTimeout)
	}
	breakers := newBreakers(cfg.Now)
	metrics, err := newMetrics(cfg.Registerer, cfg.Now, breakers)
	if err != nil {
		return nil, fmt.Errorf("partner center: register metrics: %w", err)
	}
	if cfg.Budget == nil {
		if cfg.Budget, err = budget.New(budget.Config{Now: cfg.Now, Registerer: cfg.Registerer}); err != nil {
			return nil, fmt.Errorf("partner center: register metrics: %w", err)
		}
	}
	notices := &notices{now: cfg.Now}
	conditions := newConditions(cfg)
	login, err := newLogin(cfg, transport, metrics, notices, reportProofs(cfg, metrics, notices, conditions))
	if err != nil {
		return nil, err
	}
	open, closeOpen := context.WithCancel(context.Background())
	return &Client{
		baseURL:        cfg.BaseURL,
		flow:           cfg.Flow,
		attemptTimeout: cfg.AttemptTimeout,
		now:            cfg.Now,
		log:            cfg.Logger,
		transport:      transport,
		budget:         cfg.Budget,
		breaker:        breakers.partnerCenter,
		priority:       evidence.NewPriority(evidence.LaneCheckout),
		tokens: &tokens{
			login:      login,
			breaker:    breakers.login,
			now:        cfg.Now,
			log:        cfg.Logger,
			metrics:    metrics,
			notices:    notices,
			conditions: conditions,

			fruitless: rate.NewLimiter(rate.Every(fruitlessEvery), fruitlessBurst),

			open:      open,
			closeOpen: closeOpen,
		},
		metrics:    metrics,
		conditions: conditions,
		notices:    notices,
	}, nil
}

// WithPriority returns a client with the same tokens, pause and budget whose
// questions have that priority; those of a Client from New are in LaneCheckout.
// It costs next to nothing and needs no Close.
func (c *Client) WithPriority(priority *evidence.Priority) *Client {
	ranked := *c
	ranked.priority = priority
	return &ranked
}

// Close ends the token requests under way, waits for them and closes the idle
// connections of an own Transport. The Client must not be used afterwards.
func (c *Client) Close() {
	c.tokens.close()
	if own, ok := c.transport.(*http.Transport); ok {
		own.CloseIdleConnections()
	}
}

// ValidationStatus asks for the account validation status of a customer, a
// GUID in the form 8-4-4-4-12. It makes at most three requests, replays after a
// renewed token apart, and never outlives ctx. It returns ErrCustomerID for
// another form of ID, without a call, and an *APIError for every question that
// was not answered; with FlowAppOnly always one of ClassCredentials. "No
// status" (404, code 600074) is an answer.
//
// Source: https://learn.microsoft.com/en-us/partner-center/developer/retrieve-validation-status
// (read 2026-11-21)
func (c *Client) ValidationStatus(ctx context.Context, customerID string) (ValidationStatus, Call, error) {
	if c.flow == FlowAppOnly {
		fail := &APIError{Op: OpValidationStatus, Class: ClassCredentials, Reason: ReasonAppOnly}
		c.metrics.fetch(OpValidationStatus, fail)
		return ValidationStatus{}, Call{}, fail
	}
	var status ValidationStatus
	call, err := c.do(ctx, OpValidationStatus, customerID, "/validationStatus?type=account", func(body []byte) (err error) {
		status, err = decodeValidationStatus(body)
		return err
	})
	var fail *APIError
	switch {
	case err == nil:
		return status, call, nil
	case errors.As(err, &fail) && fail.Reason == reasonNoStatus:
		return ValidationStatus{None: true}, call, nil
	default:
		return ValidationStatus{}, call, err
	}
}

// Qualifications asks for the qualifications of a customer, as ValidationStatus
// asks for the account; it works with either flow. A customer without any has
// an empty list.
//
// Source: https://learn.microsoft.com/en-us/partner-center/developer/get-customer-qualification-asynchronous
// (read 2026-11-21)
func (c *Client) Qualifications(ctx context.Context, customerID string) ([]Qualification, Call, error) {
	var held []Qualification
	call, err := c.do(ctx, OpQualifications, customerID, "/qualifications", func(body []byte) (err error) {
		held, err = decodeQualifications(body)
		return err
	})
	if err != nil {
		return nil, call, err
	}
	return held, call, nil
}

// Token waits until there is an access token, asking the login host for one if
// need be. It returns an *APIError, or nil.
func (c *Client) Token(ctx context.Context) error {
	if _, fail := c.tokens.get(ctx); fail != nil {
		return fail
	}
	return nil
}
