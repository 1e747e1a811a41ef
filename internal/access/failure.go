package access

// cause classifies a failure for the metric.
type cause string

const (
	causeMissing     cause = "missing"
	causeMalformed   cause = "malformed"
	causeUnknown     cause = "unknown"
	causeExpired     cause = "expired"
	causeNotYetValid cause = "not_yet_valid"
	causeCertificate cause = "certificate"
	causeIssuer      cause = "issuer"
	causeAudience    cause = "audience"
	causeAlgorithm   cause = "algorithm"
	causeHeader      cause = "header"
	causeClaims      cause = "claims"
	causeKey         cause = "key"
	causeKeysMissing cause = "keys_missing"
	causeSignature   cause = "signature"
)

// causes returns all of them.
func causes() []cause {
	return []cause{
		causeMissing, causeMalformed, causeUnknown, causeExpired, causeNotYetValid, causeCertificate, causeIssuer,
		causeAudience, causeAlgorithm, causeHeader, causeClaims, causeKey, causeKeysMissing, causeSignature,
	}
}

// failure is why a caller was not authenticated. Its text is constant or names a
// claim of the configuration: nothing that a caller sends is in it.
type failure struct {
	cause cause
	text  string
}

// Error implements error.
func (f *failure) Error() string { return f.text }

var (
	errNone    = &failure{causeMissing, "no credentials"}
	errSeveral = &failure{causeMalformed, "more than one authorization"}
	errScheme  = &failure{causeMalformed, "the authorization is no bearer token"}
	errSize    = &failure{causeMalformed, "the token is too large"}

	errMalformed    = &failure{causeMalformed, "the token is malformed"}
	errUnknownToken = &failure{causeUnknown, "unknown token"}
	errTokenExpired = &failure{causeExpired, "the static token has expired"}

	errCertificateExpired = &failure{causeCertificate, "the client certificate is not valid at this time"}
	errCertificateUnnamed = &failure{causeCertificate, "auth.certificates names no caller for the client certificate"}
	errCertificateSeveral = &failure{causeCertificate, "auth.certificates names several callers for the client certificate"}

	errAlgorithm   = &failure{causeAlgorithm, "the algorithm is not accepted for the issuer"}
	errHeader      = &failure{causeHeader, "the header has a parameter that is not accepted (crit, b64, zip, enc, cty) or is malformed"}
	errType        = &failure{causeHeader, "typ is not that of an access token"}
	errIssuer      = &failure{causeIssuer, "the issuer is not accepted"}
	errAudience    = &failure{causeAudience, "the audience is missing or not accepted"}
	errExpired     = &failure{causeExpired, "the token has expired"}
	errNoExpiry    = &failure{causeClaims, "exp is missing"}
	errNotYetValid = &failure{causeNotYetValid, "the token is not valid yet"}
	errClaims      = &failure{causeClaims, "a claim has another type than it must have"}
	errKeysMissing = &failure{causeKeysMissing, "the issuer's keys are not known, or have not been confirmed for a day"}
	errKey         = &failure{causeKey, "the issuer has published no such key"}
	errSignature   = &failure{causeSignature, "the signature is wrong"}
)
