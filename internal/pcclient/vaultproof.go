package pcclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/tokenstore"
)

const (
	// proofLife is how long a secret or certificate from a vault is used until it
	// is read again.
	proofLife = time.Hour
	// opProof names the reading of it among notices.
	opProof Op = "client_credential"
)

// errUnusable means that a vault holds something that proves nothing.
var errUnusable = errors.New("the secret of the vault is not usable")

// vaultProof is a proof that is kept in a vault. It is read with the first token
// request, and again with the first one after proofLife, after a refusal, and on
// request. If that fails, what was read before stays in use. A token request in
// flight keeps the turn from others.
type vaultProof struct {
	vault *tokenstore.Vault
	parse func(tokenstore.Secret) (proof, error)
	now   func() time.Time
	read  proofReader
	turn  chan struct{} // full while a goroutine has the turn, which the fields below need

	stored  tokenstore.Secret     // what current was made of
	current proof                 // nil: none yet
	made    int                   // how many there have been: the generation of current
	shown   atomic.Pointer[proof] // current, for those who do not wait for the turn
	again   pause                 // until the vault is read again
}

// proofReader is called after each attempt to read a vault. held is whether there
// is something that was read before.
type proofReader func(err error, held bool)

func newVaultProof(cfg Config, of tokenstore.VaultSecret, transport http.RoundTripper, read proofReader, parse func(tokenstore.Secret) (proof, error)) (*vaultProof, error) {
	vault, err := tokenstore.NewVault(of, cfg.VaultCredential, transport)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	return &vaultProof{vault: vault, parse: parse, now: cfg.Now, read: read, turn: make(chan struct{}, 1)}, nil
}

func (v *vaultProof) add(ctx context.Context, form url.Values) (generation int, err error) {
	if err := v.take(ctx); err != nil {
		return 0, err
	}
	defer v.give()
	if v.current == nil || v.again.left(v.now()) == 0 {
		if err := v.load(ctx); err != nil && v.current == nil {
			return 0, err
		}
	}
	_, err = v.current.add(ctx, form)
	return v.made, err
}

// replaced reads the vault at once, unless that has happened since.
func (v *vaultProof) replaced(ctx context.Context, generation int) bool {
	if v.take(ctx) != nil {
		return false
	}
	defer v.give()
	if v.made == generation {
		_ = v.load(ctx) // which reports its error
	}
	return v.made != generation
}

func (v *vaultProof) expires() time.Time {
	if shown := v.shown.Load(); shown != nil {
		return (*shown).expires()
	}
	return time.Time{}
}

// reload reads the vault at once.
func (v *vaultProof) reload(ctx context.Context) {
	if v.take(ctx) != nil {
		return
	}
	defer v.give()
	_ = v.load(ctx) // which reports its error
}

func (v *vaultProof) take(ctx context.Context) error {
	select {
	case v.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (v *vaultProof) give() { <-v.turn }

// load reads the vault, and makes a proof of another secret. It needs the turn.
func (v *vaultProof) load(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	defer func() {
		life := proofLife
		if err != nil {
			life = storePause
		}
		v.again = pause{v.now(), life}
		if !errors.Is(ctx.Err(), context.Canceled) {
			v.read(err, v.current != nil)
		}
	}()
	stored, err := v.vault.Read(ctx)
	if err != nil || stored == v.stored {
		return err
	}
	made, err := v.parse(stored)
	if err != nil {
		return fmt.Errorf("%w: %w", errUnusable, err)
	}
	v.stored, v.current = stored, made
	v.shown.Store(&made)
	v.made++
	return nil
}

// Reload reads a secret or certificate that is kept in a vault again, in the
// background.
func (c *Client) Reload() {
	kept, ok := c.tokens.login.proof.(*vaultProof)
	if !ok {
		return
	}
	t := c.tokens
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open.Err() == nil {
		t.running.Go(func() { kept.reload(t.open) })
	}
}

// CheckCredential reads a secret or certificate that is kept in a vault. It
// returns an *APIError if there is none to use: of ClassCredentials if somebody
// must act. It takes 5 s at most.
func (c *Client) CheckCredential(ctx context.Context) error {
	kept, ok := c.tokens.login.proof.(*vaultProof)
	if !ok {
		return nil
	}
	if _, err := kept.add(ctx, url.Values{}); err != nil {
		return unproven(ctx, err)
	}
	return nil
}

// reportProofs returns a function that records the attempts to read a vault.
func reportProofs(cfg Config, metrics *metrics, notices *notices, conditions *conditions) proofReader {
	return func(err error, held bool) {
		if err == nil {
			notices.over(opProof)
			conditions.proof.OK()
			return
		}
		reason := unproven(context.Background(), err).Reason
		metrics.proofFaults.Inc()
		conditions.proof.Degraded(string(reason))
		if held && notices.due(notice{opProof, reason, ""}) {
			cfg.Logger.Error("client secret or certificate cannot be read from its vault; continuing with what was read before", zap.Error(err))
		}
	}
}
