package pcclient

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/budget"
	"github.com/eligibilityd/eligibilityd/internal/remote"
	"github.com/eligibilityd/eligibilityd/internal/tokenstore"
)

// login asks the login host for tokens.
type login struct {
	endpoint     string
	form         url.Values    // of every request
	proof        proof         // added to each
	refreshToken *refreshToken // nil for FlowAppOnly
	readOnly     bool          // a rotated refresh token is dropped
	transport    http.RoundTripper
	timeout      time.Duration // of one attempt
	now          func() time.Time
	log          *zap.Logger
}

func newLogin(cfg Config, transport http.RoundTripper, metrics *metrics, notices *notices, read proofReader) (*login, error) {
	l := &login{
		endpoint:  cfg.TokenEndpoint.page(cfg, "token"),
		form:      cfg.TokenEndpoint.purpose(cfg),
		transport: transport,
		timeout:   cfg.AttemptTimeout,
		now:       cfg.Now,
		log:       cfg.Logger,
		readOnly:  cfg.ReadOnly,
	}
	l.form.Set("client_id", cfg.ClientID)
	var err error
	if l.proof, err = newProof(cfg, l.endpoint, transport, read); err != nil {
		return nil, fmt.Errorf("partner center: client credential: %w", err)
	}
	if cfg.Flow == FlowAppOnly {
		l.form.Set("grant_type", "client_credentials")
		return l, nil
	}
	l.form.Set("grant_type", "refresh_token")
	l.refreshToken = newRefreshToken(tokenstore.File(cfg.RefreshTokenFile), cfg, metrics, notices)
	if cfg.RefreshTokenVault != (tokenstore.VaultSecret{}) {
		vault, err := tokenstore.NewVault(cfg.RefreshTokenVault, cfg.VaultCredential, transport)
		if err != nil {
			return nil, fmt.Errorf("partner center: refresh token vault: %w", err)
		}
		l.refreshToken.store = vault
	}
	return l, nil
}

// token gets an access token. A rotated refresh token is stored before the
// access token counts as obtained. A probe makes one request.
func (l *login) token(ctx context.Context, probe bool) (grant, *APIError) {
	if l.refreshToken == nil {
		return l.ask(ctx, l.form, probe)
	}
	if !l.refreshToken.take(ctx) {
		return grant{}, transportFailure(ctx, OpToken, ctx.Err())
	}
	defer l.refreshToken.give()
	token, err := l.refreshToken.read(ctx)
	if err != nil {
		return grant{}, l.unread(err)
	}
	granted, fail := l.trade(ctx, token, probe)
	if fail != nil && fail.Reason == ReasonInvalidGrant && fail.pause == 0 {
		if other, ok := l.refreshToken.another(ctx, token); ok {
			token = other
			granted, fail = l.trade(ctx, token, probe)
		}
	}
	if fail == nil && !l.readOnly {
		granted.unkept = !l.refreshToken.keep(ctx, cmp.Or(granted.refresh, token))
	}
	return granted, fail
}

// unread is the failure of a renewal without a refresh token. A store that is
// away is no verdict about our credentials, and is asked again.
func (l *login) unread(err error) *APIError {
	if needsSomebody(err) {
		return &APIError{Op: OpToken, Class: ClassCredentials, Reason: ReasonRefreshToken, Err: err}
	}
	return &APIError{Op: OpToken, Class: ClassUnavailable, Reason: ReasonRefreshTokenStore, Err: err}
}

// trade asks for an access token by a refresh token.
func (l *login) trade(ctx context.Context, refreshToken string, probe bool) (grant, *APIError) {
	form := maps.Clone(l.form)
	form.Set("refresh_token", refreshToken)
	return l.ask(ctx, form, probe)
}

// ask makes one token request. If the proof of who we are is refused, and has been
// replaced in its vault, the request is made again.
func (l *login) ask(ctx context.Context, form url.Values, probe bool) (grant, *APIError) {
	granted, fail := l.replay(ctx, form, probe)
	if fail != nil && fail.Reason == ReasonInvalidClient && fail.pause == 0 && l.proof.replaced(ctx, fail.generation) {
		return l.replay(ctx, form, probe)
	}
	return granted, fail
}

// replay makes one token request, with replays as for Partner Center. A timeout
// is not replayed: all callers wait for this request, and few would wait longer.
func (l *login) replay(ctx context.Context, form url.Values, probe bool) (grant, *APIError) {
	for attempts := 1; ; attempts++ {
		granted, fail := l.attempt(ctx, form)
		if fail == nil {
			return granted, nil
		}
		final := probe || fail.Class != ClassUnavailable || fail.RetryAfter > 0 ||
			fail.Reason == ReasonTimeout || fail.Reason == ReasonClientCredentialSource || attempts >= maxAttempts
		delay := backoff(attempts)
		if final || !budget.TimeFor(ctx, delay) || !sleep(ctx, delay) {
			return grant{}, fail
		}
	}
}

// grant is what a token request brought.
type grant struct {
	access  accessToken
	refresh string // empty unless the login host rotated it
	idToken string // empty unless asked for; not verified
	unkept  bool   // the refresh token to use next is in memory only
}

// attempt makes one request of that form, which it leaves as it is, with a proof
// of its own.
func (l *login) attempt(ctx context.Context, form url.Values) (grant, *APIError) {
	form = maps.Clone(form)
	generation, err := l.proof.add(ctx, form)
	if err != nil {
		return grant{}, unproven(ctx, err)
	}
	attemptCtx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	req, err := l.request(attemptCtx, form)
	if err != nil { // Validate leaves nothing to fail
		return grant{}, &APIError{Op: OpToken, Class: ClassCredentials, Reason: ReasonRefused}
	}
	// A token's life is counted from before it was asked for.
	asked := l.now()
	got, err := exchange(l.transport, req)
	if unanswered(got, err) {
		return grant{}, transportFailure(ctx, OpToken, err)
	}
	granted, fail := readLogin(got, asked, l.now())
	if fail != nil {
		fail.generation = generation
		_, fail.byIdentity = l.proof.(identityProof)
	}
	return granted, fail
}

func (l *login) request(ctx context.Context, form url.Values) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header = http.Header{
		"Content-Type": {"application/x-www-form-urlencoded"},
		"Accept":       {"application/json"},
		"User-Agent":   {userAgent},
	}
	return req, nil
}

// readLogin converts an answer of the login host. It decides by the published
// `error` words and never by text or numbers, which change. If the answer is not
// the login host's own, a proxy's page for example, it is no verdict about the
// credentials.
//
// Source: https://learn.microsoft.com/en-us/entra/identity-platform/reference-error-codes
// (read 2026-11-21)
func readLogin(got answer, asked, now time.Time) (grant, *APIError) {
	status := got.status
	object, err := parseObject(got.body)
	if err != nil && (status == http.StatusBadRequest || status == http.StatusUnauthorized) {
		object = leadingRefusal(got.body)
	}
	if status == http.StatusOK && err == nil {
		if granted, ok := readGrant(object, asked); ok {
			return granted, nil
		}
	}
	word, numbers := readLoginError(object)
	suberror, _ := object["suberror"].(string)
	fail := &APIError{Op: OpToken, Status: status, Code: word, aadsts: numbers, suberror: suberror, pause: loginPause(got.header, numbers, now)}
	fail.Reason, fail.Class = loginReason(word)
	switch {
	case status == http.StatusTooManyRequests:
		fail.Class, fail.Reason = ClassThrottled, ReasonThrottled
		fail.RetryAfter = cmp.Or(fail.pause, defaultRetryAfter)
	case remote.ServerFailed(status), fail.Reason == ReasonServerError:
		fail.Class, fail.Reason = ClassUnavailable, ReasonServerError
		fail.RetryAfter = fail.pause
	case word != "", status == http.StatusOK && err == nil:
		// A refusal, or a grant that is none.
	case status == http.StatusNotImplemented, status >= 300 && status <= 399:
		fail.Class, fail.Reason = ClassInvalidResponse, ReasonUnexpected
	default:
		fail.Class, fail.Reason = ClassUnavailable, ReasonUnreadable
	}
	return grant{}, fail
}

// leadingRefusal returns the object that a body begins with, whatever follows,
// if it is a refusal by a published word. Proxies and the login host itself
// append pages of HTML.
func leadingRefusal(body []byte) map[string]any {
	var first json.RawMessage
	if json.NewDecoder(bytes.NewReader(withoutBOM(body))).Decode(&first) != nil {
		return nil
	}
	object, err := parseObject(first)
	if err != nil {
		return nil
	}
	word, _ := object["error"].(string)
	if reason, _ := loginReason(word); reason == ReasonRefused {
		return nil
	}
	return object
}

// maxAADSTS bounds the numbers that are kept for the log.
const maxAADSTS = 8

// readLoginError reads the login host's error word, and its numbers for the log.
func readLoginError(object map[string]any) (word string, numbers []int) {
	word, _ = object["error"].(string)
	if word == "" {
		return "", nil
	}
	codes, _ := object["error_codes"].([]any)
	for _, code := range codes[:min(len(codes), maxAADSTS)] {
		if number, ok := code.(json.Number); ok {
			if n, err := strconv.Atoi(number.String()); err == nil {
				numbers = append(numbers, n)
			}
		}
	}
	if reason, _ := loginReason(word); reason == ReasonRefused {
		word = "unpublished" // and not to be repeated in errors and logs
	}
	return word, numbers
}

// maxTokenLife bounds a token's expires_in.
const maxTokenLife = 24 * time.Hour

// readGrant reads a grant that can be used: a bearer token with a life. Version
// 1 of the endpoint sends expires_in as a string.
func readGrant(object map[string]any, asked time.Time) (grant, bool) {
	value, _ := object["access_token"].(string)
	kind, _ := object["token_type"].(string)
	refresh, _ := object["refresh_token"].(string)
	idToken, _ := object["id_token"].(string)
	if !tokenstore.Storable(refresh) {
		refresh = "" // it could not be read back from its store
	}
	var life string
	switch expires := object["expires_in"].(type) {
	case json.Number:
		life = wholeNumber(expires.String())
	case string:
		life = expires
	}
	seconds, err := strconv.ParseInt(life, 10, 64)
	if value == "" || !remote.HeaderSafe(value) || !strings.EqualFold(kind, "Bearer") || err != nil || seconds <= 0 {
		return grant{}, false
	}
	lasts := time.Duration(min(seconds, int64(maxTokenLife/time.Second))) * time.Second
	return grant{
		access:  accessToken{value: value, endsAt: asked.Add(lasts), early: pause{asked, lasts - min(earlyRefresh, lasts/4)}},
		refresh: refresh,
		idToken: idToken,
	}, true
}
