package pcclient

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
)

// login asks the login host for tokens.
type login struct {
	endpoint     string
	form         url.Values    // what every request says, the secret included
	refreshToken *refreshToken // nil for FlowAppOnly
	transport    http.RoundTripper
	timeout      time.Duration // of one attempt
	now          func() time.Time
	log          *zap.Logger
}

func newLogin(cfg Config, transport http.RoundTripper, metrics *metrics) *login {
	l := &login{
		endpoint:  cfg.Authority + "/" + url.PathEscape(cfg.TenantID) + "/oauth2/v2.0/token",
		form:      url.Values{"client_id": {cfg.ClientID}, "client_secret": {cfg.ClientSecret}},
		transport: transport,
		timeout:   cfg.AttemptTimeout,
		now:       cfg.Now,
		log:       cfg.Logger,
	}
	if cfg.Flow == FlowAppOnly {
		l.form.Set("grant_type", "client_credentials")
		l.form.Set("scope", cfg.Audience+"/.default")
		return l
	}
	l.form.Set("grant_type", "refresh_token")
	l.form.Set("scope", cfg.Audience+"/user_impersonation offline_access")
	l.refreshToken = &refreshToken{path: cfg.RefreshTokenFile, log: cfg.Logger, metrics: metrics}
	return l
}

// token makes one token request, with replays as for Partner Center. The
// rotated refresh token is stored before the access token counts as obtained.
func (l *login) token(ctx context.Context) (accessToken, *APIError) {
	form := l.form
	if l.refreshToken != nil {
		token, err := l.refreshToken.read()
		if err != nil {
			return accessToken{}, &APIError{Op: OpToken, Class: ClassCredentials, Reason: ReasonRefreshToken, Err: err}
		}
		form = make(url.Values, len(l.form)+1)
		for name, values := range l.form {
			form[name] = values
		}
		form.Set("refresh_token", token)
	}
	body := form.Encode()
	for attempts := 1; ; attempts++ {
		granted, fail := l.attempt(ctx, body)
		if fail == nil {
			if l.refreshToken != nil && granted.refresh != "" {
				l.refreshToken.store(granted.refresh)
			}
			return granted.access, nil
		}
		delay := replayDelay(fail, attempts)
		if fail.Class != ClassUnavailable || attempts >= maxAttempts || !timeFor(ctx, delay) || !sleep(ctx, delay) {
			return accessToken{}, fail
		}
	}
}

// grant is what a token request brought.
type grant struct {
	access  accessToken
	refresh string // empty unless the login host rotated it
}

func (l *login) attempt(ctx context.Context, form string) (grant, *APIError) {
	attemptCtx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(attemptCtx, http.MethodPost, l.endpoint, strings.NewReader(form))
	if err != nil { // Validate leaves nothing to fail
		return grant{}, &APIError{Op: OpToken, Class: ClassCredentials, Reason: ReasonRefused}
	}
	req.Header = http.Header{
		"Content-Type": {"application/x-www-form-urlencoded"},
		"Accept":       {"application/json"},
		"User-Agent":   {userAgent},
	}
	// A token's life is counted from before it was asked for.
	asked := l.now()
	resp, body, err := exchange(l.transport, req)
	if unanswered(resp, err) {
		return grant{}, transportFailure(ctx, OpToken, err)
	}
	if fail := classifyLogin(resp, body, l.now()); fail != nil {
		return grant{}, fail
	}
	granted, ok := decodeGrant(body, asked)
	if !ok {
		return grant{}, &APIError{Op: OpToken, Class: ClassCredentials, Reason: ReasonRefused, Status: resp.StatusCode}
	}
	return granted, nil
}

// classifyLogin says what an answer of the login host means; nil for a 200. It
// goes by the published `error` words and never by text or numbers, which change.
//
// Source: https://learn.microsoft.com/en-us/entra/identity-platform/reference-error-codes
// (read 2026-11-21)
func classifyLogin(resp *http.Response, body []byte, now time.Time) *APIError {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	word, numbers := decodeLoginError(body)
	fail := &APIError{Op: OpToken, Class: ClassUnavailable, Reason: ReasonServerError, Status: resp.StatusCode, Code: word, aadsts: numbers}
	switch {
	case resp.StatusCode == http.StatusTooManyRequests:
		fail.Class, fail.Reason = ClassThrottled, ReasonThrottled
		fail.RetryAfter = retryAfter(resp.Header, now)
	case serverFailed(resp.StatusCode) || word == "temporarily_unavailable":
		if resp.Header.Get("Retry-After") != "" {
			fail.RetryAfter = retryAfter(resp.Header, now)
		}
	case word != "":
		fail.Class, fail.Reason = ClassCredentials, ReasonRefused
	default:
		fail.Class, fail.Reason = ClassUnavailable, ReasonUnreadable
	}
	return fail
}

// loginErrors are the published error words. Another one is a refusal as well,
// but not repeated in errors and logs.
func loginError(word string) string {
	switch word {
	case "invalid_request", "invalid_grant", "unauthorized_client", "invalid_client", "unsupported_grant_type",
		"invalid_resource", "interaction_required", "temporarily_unavailable", "invalid_scope", "access_denied",
		"consent_required", "login_required", "server_error":
		return word
	default:
		return "unpublished"
	}
}

// maxAADSTS bounds the numbers that are kept for the log.
const maxAADSTS = 8

// decodeLoginError reads an error body of the login host: its word, and its
// numbers for the log.
func decodeLoginError(body []byte) (word string, numbers []int) {
	object, err := parseObject(body)
	if err != nil {
		return "", nil
	}
	said, _ := object["error"].(string)
	if said == "" {
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
	return loginError(said), numbers
}

// maxTokenLife bounds what a token's expires_in may say.
const maxTokenLife = 24 * time.Hour

// decodeGrant reads the body of a 200. Version 1 of the endpoint sends
// expires_in as a string.
func decodeGrant(body []byte, asked time.Time) (grant, bool) {
	object, err := parseObject(body)
	if err != nil {
		return grant{}, false
	}
	value, _ := object["access_token"].(string)
	kind, _ := object["token_type"].(string)
	refresh, _ := object["refresh_token"].(string)
	var text string
	switch expires := object["expires_in"].(type) {
	case json.Number:
		text = expires.String()
	case string:
		text = expires
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if value == "" || !headerSafe(value) || !strings.EqualFold(kind, "Bearer") || err != nil || seconds <= 0 {
		return grant{}, false
	}
	life := min(time.Duration(min(seconds, int64(maxTokenLife/time.Second)))*time.Second, maxTokenLife)
	ends := asked.Add(life)
	return grant{
		access:  accessToken{value: value, endsAt: ends, renewAt: ends.Add(-min(earlyRefresh, life/4))},
		refresh: refresh,
	}, true
}

// headerSafe reports whether a token can stand in a header as it is.
func headerSafe(token string) bool {
	for i := range len(token) {
		if token[i] <= ' ' || token[i] > '~' {
			return false
		}
	}
	return true
}
