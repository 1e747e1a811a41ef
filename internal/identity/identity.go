// Package identity obtains the tokens of the identity that the platform gives to
// this process: the managed identity of an Azure host, the service account of a
// Kubernetes cluster, or what else azidentity finds. Its errors are free of
// secrets and of the far side's text.
package identity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/eligibilityd/eligibilityd/internal/remote"
)

// ErrRefused means that the process has no such identity, or that the platform
// refuses it: somebody must act. Any other error of this package is an outage.
var ErrRefused = errors.New("no token of the service's identity")

const (
	// timeout bounds one request for a token.
	timeout = 5 * time.Second
	// maxAnswerBytes is the size beyond which an answer is not read.
	maxAnswerBytes = 1 << 20
	// maxTokenBytes bounds a token.
	maxTokenBytes = 64 << 10
)

// Default returns azidentity's default chain, which reads the environment:
// variables, workload identity, managed identity, developer tools. It makes no
// request. AZURE_TOKEN_CREDENTIALS narrows it.
func Default(of cloud.Configuration, transport *Transport) (azcore.TokenCredential, error) { //nolint:ireturn // the SDK takes it
	credential, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
		ClientOptions: azcore.ClientOptions{Cloud: of, Transport: transport},
	})
	if err != nil {
		return nil, errors.New("no Azure credential can be made of the environment: see AZURE_TOKEN_CREDENTIALS")
	}
	return credential, nil
}

// managed returns the managed identity of the host. As in the default chain,
// AZURE_CLIENT_ID selects one of several.
func managed(transport *Transport) (azcore.TokenCredential, error) { //nolint:ireturn // as Default
	options := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: azcore.ClientOptions{
		Transport: transport,
		Retry:     policy.RetryOptions{MaxRetries: -1}, // the caller retries
	}}
	if id := os.Getenv("AZURE_CLIENT_ID"); id != "" {
		options.ID = azidentity.ClientID(id)
	}
	credential, err := azidentity.NewManagedIdentityCredential(options)
	if err != nil {
		return nil, errors.New("no managed identity can be made of the environment: see AZURE_CLIENT_ID and IDENTITY_ENDPOINT")
	}
	return credential, nil
}

// get is Get for a scope.
func get(ctx context.Context, credential azcore.TokenCredential, scope string) (azcore.AccessToken, error) {
	return Get(ctx, credential, policy.TokenRequestOptions{Scopes: []string{scope}})
}

// Get returns a token of a credential that sends its requests by a Transport. It
// takes 5 s at most. The SDK keeps tokens in memory, and requests the next one five
// minutes before the end of the last. The error is ErrRefused if somebody must act,
// else an outage.
func Get(ctx context.Context, credential azcore.TokenCredential, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var last exchange
	token, err := credential.GetToken(context.WithValue(ctx, exchangeKey{}, &last), options)
	switch {
	case err != nil:
		return azcore.AccessToken{}, last.fault(ctx)
	case !plausible(token.Token):
		return azcore.AccessToken{}, errors.New("identity endpoint: its answer holds no token")
	}
	return token, nil
}

// plausible reports whether a text can be a token.
func plausible(token string) bool {
	return token != "" && len(token) <= maxTokenBytes && remote.HeaderSafe(token)
}

type exchangeKey struct{}

// exchange is the last exchange with a far side while a token is obtained. The
// errors of the SDK do not wrap their causes, and their text repeats answers.
type exchange struct {
	mu     sync.Mutex
	status int   // 0 if there was no answer; guarded by mu
	err    error // guarded by mu
}

func (e *exchange) note(status int, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.status, e.err = status, err
}

// fault returns why no token was obtained. An identity endpoint that is
// reconfigured answers 404 or 410 for a while.
//
// Source: https://learn.microsoft.com/en-us/entra/identity/managed-identities-azure-resources/how-to-use-vm-token#error-handling
// (read 2026-11-28)
func (e *exchange) fault(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("identity endpoint: %w", ctx.Err())
	case e.err != nil:
		return fmt.Errorf("identity endpoint: %w", remote.Cause(ctx, e.err))
	case e.status == 0:
		return fmt.Errorf("%w: the environment of this process has none", ErrRefused)
	case e.status == http.StatusOK:
		return errors.New("identity endpoint: its answer cannot be read")
	case e.status == http.StatusBadRequest, e.status == http.StatusUnauthorized, e.status == http.StatusForbidden:
		return fmt.Errorf("%w: authentication failed, status %d", ErrRefused, e.status)
	default:
		return fmt.Errorf("identity endpoint: status %d", e.status)
	}
}

// Transport sends the requests of Azure's SDK. It follows no redirect and limits
// the size of an answer.
type Transport struct {
	client http.Client
	plain  string
}

// NewTransport returns a Transport over a RoundTripper; nil means one that
// keeps no connection open. Requests to plainHost, if it is not empty, are sent
// in plain HTTP: the SDK sends no token by it.
func NewTransport(roundTripper http.RoundTripper, plainHost string) *Transport {
	if roundTripper == nil {
		roundTripper = &http.Transport{
			Proxy: Proxy, DisableKeepAlives: true, ResponseHeaderTimeout: timeout, TLSHandshakeTimeout: timeout, MaxResponseHeaderBytes: 64 << 10,
		}
	}
	return &Transport{http.Client{
		Transport:     roundTripper,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, plainHost}
}

// Do implements policy.Transporter.
func (t *Transport) Do(req *http.Request) (*http.Response, error) {
	if t.plain != "" && req.URL.Host == t.plain {
		req = req.Clone(req.Context())
		req.URL.Scheme = "http"
	}
	resp, err := t.client.Do(req) //nolint:gosec // the operator configures the vault, and the platform the identity endpoint
	last, _ := req.Context().Value(exchangeKey{}).(*exchange)
	if err != nil {
		if last != nil {
			last.note(0, err)
		}
		return nil, err
	}
	if last != nil {
		last.note(resp.StatusCode, nil)
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxAnswerBytes), resp.Body}
	return resp, nil
}
