package access

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/eligibilityd/eligibilityd/internal/remote"
)

const (
	// exchangesPerSecond bounds the requests to the token endpoint: anybody can make
	// the service send one. maxExchanges bounds those under way.
	exchangesPerSecond = 20
	maxExchanges       = 64
	// maxTokenResponseBytes bounds the answer to one.
	maxTokenResponseBytes = 256 << 10
	// maxCodeBytes bounds a code, maxErrorBytes the code of an error.
	maxCodeBytes  = 4096
	maxErrorBytes = 64
)

// ProviderError is a fault of the issuer while somebody signs in.
type ProviderError struct {
	// Code is the error that the issuer's token endpoint has returned; empty if it has
	// returned none.
	Code string
	// Err is the cause if there is no code. It holds no text of the issuer's.
	Err error
}

// Error implements error.
func (e *ProviderError) Error() string {
	if e.Code != "" {
		return "token endpoint: " + e.Code
	}
	return "token endpoint: " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *ProviderError) Unwrap() error { return e.Err }

// ErrBusy means that too many people sign in at once.
var ErrBusy = errors.New("too many sign-ins at once")

// ErrorCode returns code if it is fit for logs and pages, as the codes of OAuth 2.0 and
// OpenID Connect are, and "unknown" otherwise.
func ErrorCode(code string) string {
	for _, c := range []byte(code) {
		if (c < 'a' || c > 'z') && c != '_' {
			return unknownCode
		}
	}
	if code == "" || len(code) > maxErrorBytes {
		return unknownCode
	}
	return code
}

const unknownCode = "unknown"

// SignIn completes a sign-in for which the issuer has sent the browser back with a code.
// The error is ErrNotReady, ErrBusy, a *ProviderError, or why the ID token is refused.
func (o *OpenID) SignIn(ctx context.Context, a Attempt, code string) (Person, error) {
	known, err := o.endpoints()
	if err != nil {
		return Person{}, err
	}
	if code == "" || len(code) > maxCodeBytes {
		return Person{}, &ProviderError{Err: errors.New("the code is missing or too long")}
	}
	if !o.exchanges.Allow() {
		return Person{}, ErrBusy
	}
	select {
	case o.busy <- struct{}{}:
		defer func() { <-o.busy }()
	default:
		return Person{}, ErrBusy
	}
	token, err := o.exchange(ctx, known, a, code)
	if err != nil {
		return Person{}, err
	}
	person, failure := o.verify(token, a.Nonce)
	switch {
	case failure == nil:
		return person, nil
	case failure == errKeysMissing, failure == errKey: // it is fetched soon
		return Person{}, fmt.Errorf("%w: %w", ErrNotReady, failure)
	}
	return Person{}, fmt.Errorf("ID token: %w", failure)
}

// exchange returns the ID token for a code.
func (o *OpenID) exchange(ctx context.Context, at *endpoints, a Attempt, code string) (string, error) {
	form := url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {a.RedirectURI},
		"code_verifier": {a.Verifier}, "client_id": {o.clientID},
	}
	secret := string(o.secret())
	inForm := slices.Contains(at.AuthMethods, "client_secret_post")
	if inForm {
		form.Set("client_secret", secret)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, at.Token, strings.NewReader(form.Encode()))
	if err != nil {
		return "", &ProviderError{Err: errors.New("its address cannot be used")}
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Accept", "application/json")
	if !inForm { // RFC 6749, section 2.3.1
		request.SetBasicAuth(url.QueryEscape(o.clientID), url.QueryEscape(secret))
	}
	client := newClient()
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		return "", &ProviderError{Err: remote.Cause(ctx, err)}
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxTokenResponseBytes+1))
	switch {
	case err != nil:
		return "", &ProviderError{Err: remote.Cause(ctx, err)}
	case len(body) > maxTokenResponseBytes:
		return "", &ProviderError{Err: errors.New("the answer is larger than 256 KiB")}
	}
	var answer struct {
		IDToken string `json:"id_token"`
		Error   string `json:"error"`
	}
	err = json.Unmarshal(body, &answer)
	switch {
	case response.StatusCode != http.StatusOK && err == nil && answer.Error != "":
		return "", &ProviderError{Code: ErrorCode(answer.Error)}
	case response.StatusCode != http.StatusOK:
		return "", &ProviderError{Err: fmt.Errorf("status %d", response.StatusCode)}
	case err != nil:
		return "", &ProviderError{Err: errNotExpected}
	}
	return answer.IDToken, nil
}

// challengeOf returns the PKCE challenge of a verifier (RFC 7636, section 4.2).
func challengeOf(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
