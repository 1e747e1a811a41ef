package pcclient

import "net/url"

// TokenEndpoint is the version of the login host's pages that are asked.
type TokenEndpoint uint8

const (
	// TokenEndpointV2 takes what tokens are for as a scope.
	TokenEndpointV2 TokenEndpoint = iota
	// TokenEndpointV1 takes it as a resource; Partner Center's own samples
	// use it.
	TokenEndpointV1
)

// page returns the URL of the pages "token" and "authorize" of a tenant.
func (e TokenEndpoint) page(cfg Config, name string) string {
	path := "/oauth2/v2.0/"
	if e == TokenEndpointV1 {
		path = "/oauth2/"
	}
	return cfg.Authority + "/" + url.PathEscape(cfg.TenantID) + path + name
}

// purpose returns the parameters that name the API that a token is for.
//
// Sources (read 2026-11-21):
// https://learn.microsoft.com/en-us/partner-center/developer/partner-center-authentication,
// https://learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-client-creds-grant-flow
func (e TokenEndpoint) purpose(cfg Config) url.Values {
	switch {
	case e == TokenEndpointV1:
		return url.Values{"resource": {cfg.Audience}}
	case cfg.Flow == FlowAppOnly:
		return url.Values{"scope": {cfg.Audience + "/.default"}}
	default:
		return url.Values{"scope": {cfg.Audience + "/user_impersonation offline_access"}}
	}
}
