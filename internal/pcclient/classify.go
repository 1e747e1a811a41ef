package pcclient

import (
	"errors"
	"net/http"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/remote"
)

// classify maps an answer of Partner Center to the failure that it is for op. It
// returns nil if the status is 200: no other status is ever a success.
func classify(op Op, got answer, now time.Time) *APIError {
	fault := decodeFault(got.body)
	fail := &APIError{Op: op, Status: got.status, Code: fault.code, final: fault.final}
	switch status := got.status; {
	case status == http.StatusOK:
		return nil
	case status == http.StatusTooManyRequests:
		fail.Class, fail.Reason = ClassThrottled, ReasonThrottled
		fail.RetryAfter = retryAfter(got.header, now)
	case status == http.StatusUnauthorized:
		fail.Class, fail.Reason = ClassCredentials, ReasonUnauthorized
	case remote.ServerFailed(status):
		fail.Class, fail.Reason = ClassUnavailable, ReasonServerError
		if status == http.StatusServiceUnavailable && got.header.Get("Retry-After") != "" {
			fail.RetryAfter = retryAfter(got.header, now)
		}
	case status == http.StatusNotFound && fault.code == codeNoAccountStatus && op == OpValidationStatus:
		fail.Reason = reasonNoStatus
	case status == http.StatusNotFound && fault.code == codeTenantNotFound:
		fail.Class, fail.Reason = ClassNotFound, ReasonNotFound
	case status == http.StatusForbidden && fault.code == codeCustomerNotServed:
		fail.Class, fail.Reason = ClassNotServed, ReasonNotServed
	case status == http.StatusForbidden && fault.readable:
		fail.Class, fail.Reason = ClassCredentials, ReasonForbidden
	case status == http.StatusForbidden:
		fail.Reason = ReasonUnreadable
	default:
		fail.Reason = ReasonUnexpected
	}
	return fail
}

// unanswered reports whether an exchange brought no complete answer. If the
// status alone decides, a missing body does not matter.
func unanswered(got answer, err error) bool {
	var unreadable unreadableError
	switch {
	case err == nil || errors.As(err, &unreadable):
		return false
	case got.status == 0:
		return true
	}
	return got.status != http.StatusTooManyRequests && got.status != http.StatusUnauthorized && !remote.ServerFailed(got.status)
}
