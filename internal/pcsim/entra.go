package pcsim

import (
	"fmt"
	"net/http"

	"github.com/google/uuid"
)

// AADSTS codes that the token endpoints return unless a script overrides them.
const (
	aadTenantNotFound   = 90002
	aadGrantExpired     = 70008
	aadTransient        = 90033
	aadGrantRevoked     = 50173
	aadGrantMalformed   = 9002313
	aadMalformed        = 900910
	aadGrantUnsupported = 70003
	aadScopeInvalid     = 70011
	aadResourceUnknown  = 500011
	aadClientUnknown    = 700016
	aadParameterMissing = 900144
	aadPostOnly         = 900561
	aadSecretWrong      = 7000215
	aadSecretMissing    = 7000218

	aadNotSignedIn     = 50058
	aadRedirectUnknown = 50011
	aadRedirectDiffers = 500112
	aadVerifierWrong   = 501481
	aadCodeUsed        = 54005
	aadConsentDenied   = 65004
	aadPromptUnknown   = 90023
	aadResponseType    = 700054

	aadAssertionMalformed = 50027
	aadAssertionReplayed  = 50013
	aadAssertionClient    = 700021
	aadAssertionAudience  = 700023
	aadAssertionTime      = 700024
	aadAssertionSignature = 700027

	aadFederatedUnknown  = 70021
	aadFederatedIssuer   = 700211
	aadFederatedAudience = 700212
	aadFederatedSubject  = 700213
)

// entraError holds the attributes of an AADSTS code.
type entraError struct {
	status int
	word   string // `error`: the only member that a client may act on
	text   string
}

// entraErrorFor returns the error of a code. If HTTP status and error word are
// published, they are Microsoft's; if not, the likely ones.
//
// Source: https://learn.microsoft.com/en-us/entra/identity-platform/reference-error-codes
// (read 2026-11-21)
func entraErrorFor(code int) (entraError, bool) {
	refused := func(word, text string) (entraError, bool) {
		return entraError{http.StatusBadRequest, word, text}, true
	}
	busy := func(text string) (entraError, bool) {
		return entraError{http.StatusServiceUnavailable, "temporarily_unavailable", text}, true
	}
	if text := badClient(code); text != "" {
		return entraError{http.StatusUnauthorized, "invalid_client", text}, true
	}
	if word, text := consentError(code); text != "" {
		return refused(word, text)
	}
	switch code {
	case aadGrantExpired:
		return refused("invalid_grant", "The authorization code or refresh token has expired.")
	case 700082:
		return refused("invalid_grant", "The refresh token has expired due to inactivity.")
	case aadGrantRevoked:
		return refused("invalid_grant", "The provided grant has expired due to it being revoked.")
	case 70043:
		return refused("invalid_grant", "The refresh token has expired due to the sign-in frequency policy.")
	case aadGrantMalformed:
		return refused("invalid_grant", "The request is malformed or not valid.")
	case 50078:
		return refused("invalid_grant", "The presented multi-factor authentication has expired.")
	case 70000:
		return refused("invalid_grant", "The provided grant is invalid.")
	case 65001:
		return refused("invalid_grant", "The user or administrator has not consented to use the application.")
	case 53003:
		return refused("invalid_grant", "Access has been blocked by Conditional Access policies.")
	case 50074, 50076, 50079:
		return refused("interaction_required", "Multi-factor authentication is needed.")
	case aadClientUnknown:
		return refused("unauthorized_client", "The application was not found in the directory.")
	case aadResourceUnknown:
		return refused("invalid_resource", "The resource principal was not found in the tenant.")
	case 65005, 650057:
		return refused("invalid_resource", "The resource is not among the application's permissions.")
	case aadTenantNotFound:
		return refused("invalid_request", "The tenant was not found.")
	case 90038, 900432:
		return refused("invalid_request", "The client is not known in this cloud.")
	case aadParameterMissing:
		return refused("invalid_request", "The request body lacks a parameter.")
	case aadMalformed, aadPostOnly:
		return refused("invalid_request", "The endpoint takes a POST request with a form.")
	case aadGrantUnsupported:
		return refused("unsupported_grant_type", "The grant type is not supported.")
	case aadScopeInvalid:
		return refused("invalid_scope", "The scope is not valid.")
	case 50196:
		return refused("invalid_request", "The server found a client request loop.")
	case 50033, 90006, 90012, 90024, aadTransient:
		return busy("A transient error has occurred.")
	case 90055:
		return entraError{http.StatusTooManyRequests, "temporarily_unavailable", "The tenant is throttled."}, true
	}
	return entraError{}, false
}

// consentError returns the error of a code if it concerns consent, or the lack of a
// federated credential.
func consentError(code int) (word, text string) {
	switch code {
	case aadFederatedUnknown:
		return "invalid_request", "No matching federated identity record found for presented assertion."
	case aadConsentDenied:
		return "access_denied", "The user declined to consent to access the app."
	case aadNotSignedIn:
		return "login_required", "The request asked for no page, but nobody is signed in."
	case aadRedirectUnknown:
		return "invalid_request", "The redirect_uri is not one of the application's: http to a loopback host."
	case aadPromptUnknown:
		return "invalid_request", "The prompt is not one that is known."
	case aadResponseType:
		return "unsupported_response_type", "The response type is not enabled for the application."
	case aadRedirectDiffers:
		return "invalid_grant", "The redirect_uri is not the one that the code was sent to."
	case aadVerifierWrong:
		return "invalid_grant", "The code_verifier does not match the code_challenge."
	case aadCodeUsed:
		return "invalid_grant", "The authorization code was already redeemed."
	}
	return "", ""
}

// badClient returns the error of a code if it concerns a client's credentials.
func badClient(code int) string {
	switch code {
	case aadSecretWrong:
		return "The client secret is not valid."
	case 7000222:
		return "The client secret has expired."
	case aadSecretMissing:
		return "The request must contain client_assertion or client_secret."
	case aadAssertionSignature, 50012:
		return "The client assertion's signature is not valid, or its certificate is not the application's."
	case aadAssertionTime:
		return "The client assertion is not within its valid time range."
	case aadAssertionAudience:
		return "The client assertion's audience is not this endpoint."
	case aadAssertionClient:
		return "The client assertion's issuer or subject is not the application."
	case aadAssertionReplayed:
		return "The client assertion has been used before."
	case aadAssertionMalformed:
		return "The client assertion is malformed."
	case aadFederatedIssuer, aadFederatedAudience, aadFederatedSubject:
		return "No matching federated identity record found for presented assertion: check Subject, Audience and Issuer of the federated identity credential."
	}
	return ""
}

// description returns the text of an error, with the ids that support asks for.
type description struct{ text, trace, correlation, stamp string }

func (s *Server) describe(code int) description {
	e, _ := entraErrorFor(code)
	d := description{
		trace: uuid.NewString(), correlation: uuid.NewString(),
		stamp: s.microsoftNow().UTC().Format("2006-01-02 15:04:05Z"),
	}
	d.text = fmt.Sprintf("AADSTS%d: %s Trace ID: %s Correlation ID: %s Timestamp: %s",
		code, e.text, d.trace, d.correlation, d.stamp)
	return d
}

// refuseToken encodes the error of a known code in Entra's form.
func (s *Server) refuseToken(code int) answer {
	e, _ := entraErrorFor(code)
	d := s.describe(code)
	return jsonAnswer(e.status, map[string]any{
		"error":             e.word,
		"error_description": d.text,
		"error_codes":       []int{code},
		"timestamp":         d.stamp,
		"trace_id":          d.trace,
		"correlation_id":    d.correlation,
		"error_uri":         fmt.Sprintf("https://login.microsoftonline.com/error?code=%d", code),
	})
}
