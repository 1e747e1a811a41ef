package pcclient

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"time"
)

// loginReason maps an error word of the login host, by the one table of them. If
// the word is not in it, the answer is a refusal too.
//
// Source: https://learn.microsoft.com/en-us/entra/identity-platform/reference-error-codes
// (read 2026-11-21)
func loginReason(word string) (Reason, Class) {
	switch word {
	case "invalid_grant":
		return ReasonInvalidGrant, ClassCredentials
	case "interaction_required", "login_required":
		return ReasonInteraction, ClassCredentials
	case "consent_required":
		return ReasonConsent, ClassCredentials
	case "invalid_client":
		return ReasonInvalidClient, ClassCredentials
	case "unauthorized_client", "access_denied":
		return ReasonUnauthorizedClient, ClassCredentials
	case "invalid_resource", "invalid_scope":
		return ReasonInvalidResource, ClassCredentials
	case "invalid_request", "unsupported_grant_type":
		return ReasonInvalidRequest, ClassCredentials
	case "temporarily_unavailable", "server_error":
		return ReasonServerError, ClassUnavailable
	default:
		return ReasonRefused, ClassCredentials
	}
}

// The login host's numbers for too many requests: by this application
// (a loop), and by the tenant.
const (
	aadstsLoop            = 50196
	aadstsTenantThrottled = 90055
)

// loginPause returns the pause that an answer of the login host asks for, or 0.
// A Retry-After is kept as stated, and prolonged by up to a tenth, so that replicas
// do not come back together. A refusal that is no complaint about too many requests
// asks for tokenPause at least.
func loginPause(header http.Header, numbers []int, now time.Time) time.Duration {
	if header.Get("Retry-After") != "" {
		stated := retryAfter(header, now)
		return stated + rand.N(stated/10) //nolint:gosec // spreads load, keeps no secret
	}
	if slices.Contains(numbers, aadstsLoop) {
		return loopPause
	}
	return 0
}

// refusalPause returns how long the login host is not asked after a refusal.
func refusalPause(fail *APIError) time.Duration {
	if fail.pause > 0 && (slices.Contains(fail.aadsts, aadstsLoop) || slices.Contains(fail.aadsts, aadstsTenantThrottled)) {
		return fail.pause
	}
	return max(fail.pause, tokenPause)
}

// GrantCause is why the login host refuses a refresh token, as far as its
// numbers and its suberror show. They serve for advice and decide nothing: they
// change.
type GrantCause uint8

// The causes.
const (
	// GrantEnded: the token has expired or was revoked, or no known cause is
	// given. A new consent cures it.
	GrantEnded GrantCause = iota
	// GrantConsentMissing: an administrator has to consent to a permission.
	GrantConsentMissing
	// GrantConditionalAccess: a Conditional Access policy or multi-factor
	// authentication stands in the way; a new consent alone meets it again.
	GrantConditionalAccess
	// GrantUnclear: a refusal that sometimes passes by itself.
	GrantUnclear
)

// GrantCause returns the cause of a failure for ReasonInvalidGrant.
//
// Source: https://learn.microsoft.com/en-us/entra/identity-platform/reference-error-codes
// (read 2026-11-27)
func (e *APIError) GrantCause() GrantCause {
	unclear := false
	for _, number := range e.aadsts {
		switch number {
		case 65001:
			return GrantConsentMissing
		case 50074, 50076, 50078, 50079, 50158, 53000, 53001, 53002, 53003, 53004, 530002, 530003:
			return GrantConditionalAccess
		case 700082, 70008, 70043, 50173:
			return GrantEnded
		case 70000:
			unclear = true
		}
	}
	switch {
	case e.suberror == "consent_required":
		return GrantConsentMissing
	case e.suberror == "basic_action", e.suberror == "additional_action", e.suberror == "message_only", e.suberror == "protection_policy_required":
		return GrantConditionalAccess
	case unclear && e.suberror != "bad_token" && e.suberror != "token_expired":
		return GrantUnclear
	default:
		return GrantEnded
	}
}

// RefusesIdentity reports whether the login host knows no federated credential of
// the application that matches the assertion of Config.ClientAssertion: neither as
// a whole (70021), nor with that issuer, audience or subject. It serves for advice
// and decides nothing.
//
// Source: https://github.com/Azure/azure-workload-identity/issues/1200, and the
// reports beside it (read 2026-11-28)
func (e *APIError) RefusesIdentity() bool {
	return slices.ContainsFunc(e.aadsts, func(number int) bool {
		switch number {
		case 70021, 700211, 700212, 700213, 7002137, 7002138:
			return true
		}
		return false
	})
}

// ByIdentity reports whether the login host refused a token request whose proof was
// the assertion of Config.ClientAssertion.
func (e *APIError) ByIdentity() bool { return e.byIdentity }

// advice is the log's message about a failure of a token request: what to do.
func advice(fail *APIError) string {
	reason := fail.Reason
	if reason == ReasonInvalidGrant {
		switch fail.GrantCause() {
		case GrantConsentMissing:
			reason = ReasonConsent
		case GrantConditionalAccess:
			reason = ReasonInteraction
		case GrantUnclear:
			return "login host refuses the refresh token, which sometimes passes by itself; will be asked again: if it lasts, run `eligibilityd login`"
		case GrantEnded:
		}
	}
	if fail.RefusesIdentity() {
		return "login host knows no federated credential of the application for the identity of this process: `eligibilityd doctor` shows its issuer, subject and audience"
	}
	if fail.byIdentity && reason == ReasonInvalidClient {
		return "login host refuses the token of the identity of this process: compare its issuer, subject and audience, which `eligibilityd doctor` shows, with the federated credentials of the application, and check the clock"
	}
	switch reason {
	case ReasonInvalidGrant:
		return "login host refuses the refresh token, which has expired or was revoked: run `eligibilityd login`"
	case ReasonInteraction:
		return "login host wants the user to sign in again: check the tenant's Conditional Access policies and run `eligibilityd login`, with multi-factor authentication"
	case ReasonConsent:
		return "login host misses a consent: have an administrator grant the API permissions and run `eligibilityd login`"
	case ReasonInvalidClient:
		return "login host refuses the client secret or certificate, which is wrong or has expired: renew it in the app registration"
	case ReasonUnauthorizedClient:
		return "login host refuses the application: check partner_center.client_id, the API permissions and their admin consent"
	case ReasonInvalidResource:
		return "login host knows no such resource for the application: check partner_center.audience and the API permissions"
	case ReasonInvalidRequest:
		return "login host does not understand the request: check partner_center.tenant_id, client_id, authority and cloud"
	case ReasonRefused:
		return "login host gives no token: run `eligibilityd doctor`, and see the sign-in log of the tenant"
	case ReasonRefreshToken:
		return "no refresh token: run `eligibilityd login`, or let the user of the service read where it is stored"
	case ReasonRefreshTokenStore:
		return "store of the refresh token cannot be asked: check the way to the vault, and its Azure credential; will be asked again"
	case ReasonClientCredential:
		return "no client secret, certificate or assertion: run `eligibilityd doctor`, and see the rights at the vault, or the identity of this process"
	case ReasonClientCredentialSource:
		return "client secret, certificate or assertion cannot be asked for: check the way to the vault, or the identity endpoint; will be asked again"
	case ReasonThrottled:
		return "login host asks for a pause; waiting for its Retry-After"
	default:
		return "login host gave no token; will be asked again"
	}
}

// Partner Center's codes of refusals that one of us can cure.
const (
	codeMFAMissing      = "900421"
	codeMFAMissingOlder = "10001"
	codeAudienceRetired = "900420"
)

// refusalAdvice is the log's message about a question that Partner Center
// refused with a 401 or 403: what to do. The one table of its codes.
//
// Source: https://learn.microsoft.com/en-us/partner-center/developer/error-codes
// (read 2026-11-21)
func refusalAdvice(fail *APIError) string {
	switch fail.Code {
	case codeMFAMissing, codeMFAMissingOlder:
		return "partner center wants proof of multi-factor authentication: require it of the service user and run `eligibilityd login`"
	case codeAudienceRetired:
		return "partner center refuses the token's audience: check partner_center.audience and cloud"
	case "900308", "900150":
		return "partner center refuses the service user: give it the role of sales agent or admin agent"
	case "900309":
		return "partner center refuses the service user by Conditional Access: exempt it there, but not from multi-factor authentication"
	case "900149", "800039", "900124":
		return "partner center refuses the partner: check its programme membership and agreements in Partner Center"
	case "900329":
		return "partner center refuses the flow: it takes app_user only"
	}
	if fail.Reason == ReasonUnauthorized {
		return "partner center refuses the token: check partner_center.audience, cloud and authority, and the service user"
	}
	return "partner center refuses the service user or the application: run `eligibilityd doctor --customer`"
}
