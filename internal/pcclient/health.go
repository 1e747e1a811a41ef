package pcclient

import (
	"github.com/eligibilityd/eligibilityd/internal/breaker"
	"github.com/eligibilityd/eligibilityd/internal/health"
)

// conditions are how both hosts fare, by the last calls.
type conditions struct {
	service     *health.Component        // whether Partner Center answers
	credentials map[Op]*health.Component // whether it accepts them for an operation; never changed
	login       *health.Component
	store       *health.Component // whether it has the newest refresh token
	proof       *health.Component // whether the vault of the client secret or certificate can be read
}

func newConditions(cfg Config) *conditions {
	return &conditions{
		service: health.New(cfg.Now),
		credentials: map[Op]*health.Component{
			OpValidationStatus: health.New(cfg.Now), OpQualifications: health.New(cfg.Now),
		},
		login: health.New(cfg.Now),
		store: health.New(cfg.Now),
		proof: health.New(cfg.Now),
	}
}

// Health returns how Partner Center fares, by the last questions. The kind of an error
// is its Reason. It does not block.
func (c *Client) Health() health.Condition {
	of := c.conditions
	return health.Worst(of.service.Read(), of.credentials[OpValidationStatus].Read(), of.credentials[OpQualifications].Read())
}

// LoginHealth returns how the login host fares, by the last renewals, and the stores of
// the refresh token and of the client secret or certificate. The kind of an error is its
// Reason. It does not block.
func (c *Client) LoginHealth() health.Condition {
	return health.Worst(c.conditions.login.Read(), c.conditions.store.Read(), c.conditions.proof.Read())
}

// fetched records how a question ended that was answered or given up. The circuit
// breaker has seen it already. met is what the latest attempt met, if there was one.
func (of *conditions) fetched(op Op, fail, met *APIError, breaks *breaker.Breaker) {
	if fail != nil && fail.Reason == ReasonBudget && met != nil {
		fail = met // the own budget did not allow a replay
	}
	switch {
	case fail == nil, fail.Reason == reasonNoStatus, fail.Class == ClassNotFound, fail.Class == ClassNotServed:
		of.service.OK()
		of.credentials[op].OK()
	case fail.Op != op, fail.Reason == ReasonCanceled, fail.Reason == ReasonBudget, fail.Reason == ReasonBreaker:
		// It shows nothing about Partner Center.
	case fail.Reason == ReasonPaused:
		// Another replica may have met the 429.
		if of.service.Read().State < health.Degraded {
			of.service.Degraded(string(ReasonThrottled))
		}
	case fail.Class == ClassCredentials:
		of.service.OK()
		of.credentials[op].Failed(string(fail.Reason))
	case fail.Class == ClassUnavailable && breaks.State() != breaker.Closed:
		of.service.Failed(string(fail.Reason))
	default:
		of.service.Degraded(string(fail.Reason))
	}
}

// stored records whether a restart would find the newest refresh token.
func (of *conditions) stored(ok bool) {
	if ok {
		of.store.OK()
		return
	}
	of.store.Degraded(string(ReasonRefreshTokenStore))
}

// renewed records how a renewal ended. serves reports that there is a token all the
// same.
func (of *conditions) renewed(fail *APIError, serves bool) {
	switch {
	case fail == nil:
		of.login.OK()
	case fail.Reason == ReasonCanceled:
	case fail.Class == ClassCredentials || !serves:
		of.login.Failed(string(fail.Reason))
	default:
		of.login.Degraded(string(fail.Reason))
	}
}
