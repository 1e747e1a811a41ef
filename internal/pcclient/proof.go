package pcclient

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/identity"
	"github.com/eligibilityd/eligibilityd/internal/tokenstore"
)

// proof proves in token requests that they are the application's.
type proof interface {
	// add puts the proof into a form, and returns its generation.
	add(ctx context.Context, form url.Values) (generation int, err error)
	// replaced reports whether another proof has taken the place of the one of that
	// generation, which the login host refuses.
	replaced(ctx context.Context, generation int) bool
	// expires returns when the proof expires; zero if that is not known. It does not
	// block.
	expires() time.Time
}

// newProof returns the one that cfg, which is valid, selects. It makes no call.
func newProof(cfg Config, endpoint string, transport http.RoundTripper, read proofReader) (proof, error) { //nolint:ireturn // one of four types
	certified := func(pair *tls.Certificate) proof { return newSigner(pair, cfg.ClientID, endpoint, cfg.Now) }
	switch {
	case cfg.ClientAssertion.Kind != identity.None:
		assertions, err := identity.NewAssertions(cfg.ClientAssertion, transport)
		if err != nil {
			return nil, err
		}
		return identityProof{assertions}, nil
	case cfg.ClientCertificate != nil:
		return certified(cfg.ClientCertificate), nil
	case cfg.ClientSecretVault != tokenstore.VaultSecret{}:
		return newVaultProof(cfg, cfg.ClientSecretVault, transport, read, parseSecret)
	case cfg.ClientCertificateVault != tokenstore.VaultSecret{}:
		return newVaultProof(cfg, cfg.ClientCertificateVault, transport, read, func(stored tokenstore.Secret) (proof, error) {
			pair, err := tokenstore.KeyPair(stored)
			if err == nil {
				err = checkCertificate(pair, cfg.Now())
			}
			if err != nil {
				return nil, err
			}
			return certified(pair), nil
		})
	default:
		return secretProof(cfg.ClientSecret), nil
	}
}

// secretProof is a client secret.
type secretProof string

func (s secretProof) add(_ context.Context, form url.Values) (int, error) {
	form.Set("client_secret", string(s))
	return 0, nil
}

func (secretProof) replaced(context.Context, int) bool { return false }

func (secretProof) expires() time.Time { return time.Time{} }

// errNotSecret describes the content of a vault that cannot be a client secret.
var errNotSecret = errors.New("holds a blank, a quote, a control character or a letter beyond ASCII, which no client secret does")

func parseSecret(stored tokenstore.Secret) (proof, error) { //nolint:ireturn // as newProof
	secret := tokenstore.Trim(stored.Value)
	if secret == "" || !tokenstore.Storable(secret) {
		return nil, errNotSecret
	}
	return secretProof(secret), nil
}

// add signs a new assertion, as the login host takes each only once.
func (s *signer) add(_ context.Context, form url.Values) (int, error) {
	assertion, err := s.assertion()
	if err != nil {
		return 0, err
	}
	setAssertion(form, assertion)
	return 0, nil
}

func (*signer) replaced(context.Context, int) bool { return false }

func (s *signer) expires() time.Time { return s.ends }

func setAssertion(form url.Values, assertion string) {
	form.Set("client_assertion_type", assertionType)
	form.Set("client_assertion", assertion)
}

// identityProof is a token of the identity that is a federated credential of the
// application.
type identityProof struct{ assertions *identity.Assertions }

func (p identityProof) add(ctx context.Context, form url.Values) (int, error) {
	assertion, err := p.assertions.Get(ctx)
	if err != nil {
		return 0, err
	}
	setAssertion(form, assertion)
	return 0, nil
}

func (identityProof) replaced(context.Context, int) bool { return false }

func (identityProof) expires() time.Time { return time.Time{} }

// unproven is the failure of a token request that was not made, because there is
// no proof for it.
func unproven(ctx context.Context, err error) *APIError {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return transportFailure(ctx, OpToken, err)
	case errors.Is(err, identity.ErrRefused), errors.Is(err, tokenstore.ErrSecret), errors.Is(err, errUnusable):
		return &APIError{Op: OpToken, Class: ClassCredentials, Reason: ReasonClientCredential, Err: err}
	default:
		return &APIError{Op: OpToken, Class: ClassUnavailable, Reason: ReasonClientCredentialSource, Err: err}
	}
}

// Identity returns what the assertion says about the identity that proves who we
// are, as the login host sees it. Without Config.ClientAssertion, it returns
// none. It takes 5 s at most.
func (c *Client) Identity(ctx context.Context) (identity.Claims, error) {
	by, ok := c.tokens.login.proof.(identityProof)
	if !ok {
		return identity.Claims{}, nil
	}
	assertion, err := by.assertions.Get(ctx)
	if err != nil {
		return identity.Claims{}, err
	}
	return identity.ReadClaims(assertion)
}
