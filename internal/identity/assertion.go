package identity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
)

// Kind is a kind of identity that can be a federated credential of an app
// registration.
type Kind uint8

const (
	// None is the zero value.
	None Kind = iota
	// WorkloadIdentity is the service account of a Kubernetes cluster: the token
	// that the cluster projects into a file of the pod is the assertion.
	WorkloadIdentity
	// ManagedIdentity is a user-assigned managed identity of an Azure host: its
	// token for Audience is the assertion.
	ManagedIdentity
)

// Assertion selects the identity whose tokens prove, in place of a secret, that
// this process is an application. The zero value is none.
type Assertion struct {
	Kind Kind
	// Audience is the audience of a managed identity's token, by cloud. That of
	// a service account's token is decided in the cluster.
	Audience string
}

// tokenFile is the variable that names the file of a service account's token.
const tokenFile = "AZURE_FEDERATED_TOKEN_FILE"

// Assertions are the assertions of one identity. It is safe for concurrent use.
//
// For an application whose federated credential is a cluster's service account,
// Entra takes the cluster's token itself ("an assertion that your application
// gets from another identity provider, like Kubernetes"); for one whose
// federated credential is a managed identity, it takes the token of that
// identity for the audience of the token exchange.
//
// Sources (read 2026-11-28):
// https://learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-client-creds-grant-flow#third-case-access-token-request-with-a-federated-credential,
// https://learn.microsoft.com/en-us/entra/workload-id/workload-identity-federation-config-app-trust-managed-identity
type Assertions struct {
	file string // of WorkloadIdentity

	credential azcore.TokenCredential // of ManagedIdentity
	scope      string

	mu      sync.Mutex
	held    string    // what the file held when it could last be read; guarded by mu
	expires time.Time // of held; guarded by mu
}

// NewAssertions returns the assertions of an identity, which the environment
// describes. It makes no request and reads no file. A nil roundTripper means one
// of its own.
func NewAssertions(of Assertion, roundTripper http.RoundTripper) (*Assertions, error) {
	switch of.Kind {
	case WorkloadIdentity:
		file := os.Getenv(tokenFile)
		if file == "" {
			return nil, errors.New(tokenFile + " is not set: the pod needs the label azure.workload.identity/use: \"true\" and its service account the webhook of Azure Workload Identity, or a projected token that the variable names")
		}
		return &Assertions{file: file}, nil
	case ManagedIdentity:
		if of.Audience == "" {
			return nil, errors.New("audience of the managed identity's token is missing")
		}
		credential, err := managed(NewTransport(roundTripper, ""))
		if err != nil {
			return nil, err
		}
		return &Assertions{credential: credential, scope: of.Audience + "/.default"}, nil
	case None:
	}
	return nil, errors.New("no such kind of identity")
}

// Get returns an assertion that is valid for a while. It takes 5 s at most. The
// error is ErrRefused if somebody must act, else an outage.
func (a *Assertions) Get(ctx context.Context) (string, error) {
	if a.file != "" {
		return a.fromFile(time.Now())
	}
	token, err := get(ctx, a.credential, a.scope)
	return token.Token, err
}

// leeway is by how much the cluster's clock may differ from ours.
const leeway = time.Minute

// fromFile reads the file anew, as the cluster replaces it long before the token
// in it ends. If it cannot be read, or its token has ended, the token that was read
// last serves until its end.
func (a *Assertions) fromFile(now time.Time) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	token, err := readToken(a.file)
	if err == nil {
		var claims Claims
		claims, err = ReadClaims(token)
		switch {
		case err != nil:
		case !claims.Expires.IsZero() && !now.Before(claims.Expires.Add(leeway)):
			err = fmt.Errorf("holds a token that ended at %s", claims.Expires.UTC().Format(time.RFC3339))
		default:
			a.held, a.expires = token, claims.Expires
			return token, nil
		}
	}
	if now.Before(a.expires) {
		return a.held, nil
	}
	return "", fmt.Errorf("%w: file of the service account's token %w", ErrRefused, err)
}

// readToken returns the token in a file. Its errors do not repeat the path or
// the content.
func readToken(path string) (string, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", fmt.Errorf("cannot be read: %w", withoutPath(err))
	case !info.Mode().IsRegular(): // a read from a pipe may block forever
		return "", errors.New("is not a regular file")
	}
	file, err := os.Open(path) //nolint:gosec // the platform names it
	if err != nil {
		return "", fmt.Errorf("cannot be read: %w", withoutPath(err))
	}
	content, err := io.ReadAll(io.LimitReader(file, maxTokenBytes+1))
	_ = file.Close() // it was only read
	token := strings.Trim(string(content), " \t\r\n\ufeff")
	switch {
	case err != nil:
		return "", fmt.Errorf("cannot be read: %w", withoutPath(err))
	case token == "":
		return "", errors.New("is empty")
	case !plausible(token):
		return "", errors.New("holds no token")
	}
	return token, nil
}

// withoutPath removes the path from a file's error.
func withoutPath(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}
