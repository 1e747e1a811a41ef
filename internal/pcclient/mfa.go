package pcclient

import (
	"context"
	"strconv"
	"strings"
)

// MFA is Partner Center's verdict on the access token.
type MFA uint8

const (
	// MFAUnknown means that Partner Center gave no verdict.
	MFAUnknown MFA = iota
	// MFAProven means that the token proves multi-factor authentication.
	MFAProven
	// MFAMissing means that it does not; Partner Center refuses such calls of
	// FlowAppUser with code 900421, or will.
	MFAMissing
)

// MFA asks Partner Center whether the access token proves multi-factor
// authentication, by one question about a customer, a GUID in the form
// 8-4-4-4-12, that need not exist. It returns an *APIError if no request
// could be made or no complete answer came; any other answer counts, whatever
// its status. It is not replayed.
//
// Source: https://www.cloudcockpit.com/blog/mfa-enforcement-partner-center-apis
// (read 2026-11-21)
func (c *Client) MFA(ctx context.Context, customerID string) (MFA, error) {
	f, err := c.question(OpQualifications, customerID, "/qualifications", nil)
	if err != nil {
		return MFAUnknown, err
	}
	token, fail := f.admit(ctx)
	if fail != nil {
		return MFAUnknown, fail
	}
	ctx, cancel := context.WithTimeout(ctx, c.attemptTimeout)
	defer cancel()
	req, err := f.request(ctx, token)
	if err != nil { // Validate and the escaping leave nothing to fail
		return MFAUnknown, err
	}
	req.Header.Set("ValidateMfa", "true")
	got, err := exchange(c.transport, req)
	if unanswered(got, err) {
		return MFAUnknown, transportFailure(ctx, f.op, err)
	}
	if fail := classify(f.op, got, c.now()); fail != nil {
		if fail.Reason == ReasonThrottled {
			c.budget.Throttled(ctx, fail.RetryAfter)
		}
		if fail.Code == codeMFAMissing && fail.Class == ClassCredentials {
			return MFAMissing, nil
		}
	}
	proven, err := strconv.ParseBool(strings.ToLower(strings.TrimSpace(got.header.Get("isMfaCompliant"))))
	switch {
	case err != nil:
		return MFAUnknown, nil // absent, or no word that we know
	case proven:
		return MFAProven, nil
	default:
		return MFAMissing, nil
	}
}
