package pcclient

import (
	"context"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// Obstacles implements evidence.Source.
func (s *Source) Obstacles(ctx context.Context) []evidence.Obstacle { return s.client.obstacles(ctx) }

// obstacles returns what a fetch would meet, in the order in which guarded does. It
// makes no request.
func (c *Client) obstacles(ctx context.Context) (met []evidence.Obstacle) {
	now := c.now()
	add := func(kind evidence.ObstacleKind, host evidence.Host, left time.Duration, fail *APIError) {
		o := evidence.Obstacle{Kind: kind, Host: host}
		if left > 0 {
			o.Until = now.Round(0).Add(left)
		}
		if fail != nil {
			_, o.Err = judge(eligibility.FacetAccount, fail, eligibility.Call{})
		}
		met = append(met, o)
	}
	refusal := func(class Class, reason Reason, left time.Duration) *APIError {
		return &APIError{Op: OpValidationStatus, Class: class, Reason: reason, RetryAfter: left}
	}
	if c.flow == FlowAppOnly {
		add(evidence.ObstacleCredentials, evidence.HostPartnerCenter, 0, refusal(ClassCredentials, ReasonAppOnly, 0))
	}
	standing := c.budget.Standing(ctx)
	if left := standing.Paused; left > 0 {
		add(evidence.ObstaclePause, evidence.HostPartnerCenter, left, refusal(ClassThrottled, ReasonPaused, left))
	}
	if fail, left := c.tokens.obstacle(); fail != nil {
		kind := evidence.ObstaclePause
		switch {
		case fail.Class == ClassCredentials:
			kind = evidence.ObstacleCredentials
		case fail.Reason == ReasonBreaker:
			kind = evidence.ObstacleCircuitBreaker
		}
		add(kind, evidence.HostLogin, left, fail)
	}
	if left := c.breaker.Rejects(); left > 0 {
		add(evidence.ObstacleCircuitBreaker, evidence.HostPartnerCenter, left, refusal(ClassUnavailable, ReasonBreaker, left))
	}
	if left := standing.Wait; left > 0 && standing.Paused == 0 {
		fail := refusal(ClassThrottled, ReasonBudget, left)
		if !standing.Refuses {
			fail = nil
		}
		add(evidence.ObstacleBudget, evidence.HostPartnerCenter, left, fail)
	}
	if standing.Alone {
		add(evidence.ObstacleSharedCache, evidence.HostNone, 0, nil)
	}
	return met
}

// obstacle returns what start would fail with, and how much longer; nil if a token
// serves or may be asked for.
func (t *tokens) obstacle() (fail *APIError, left time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if t.current.serves(now) {
		return nil, 0
	}
	if left := t.pause.left(now); left > 0 && t.refused != nil {
		return t.refusal(left), left
	}
	if left := t.breaker.Rejects(); left > 0 {
		return &APIError{Op: OpToken, Class: ClassUnavailable, Reason: ReasonBreaker, RetryAfter: max(left, firstBreak)}, left
	}
	return nil, 0
}
