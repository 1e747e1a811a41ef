package webhooks

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/loopback"
	"github.com/eligibilityd/eligibilityd/internal/remote"
)

var errPanic = errors.New("panicked")

const (
	contentType = "application/cloudevents+json; charset=utf-8"
	// maxResponseHeader, maxDrained and drainTime bound what is read of a response. A
	// longer or slower body costs the connection.
	maxResponseHeader = 64 << 10
	maxDrained        = 4 << 10
	drainTime         = 250 * time.Millisecond
	idleConnections   = 30 * time.Second
)

// outcome is how an attempt ended, in the words of the metrics.
type outcome string

const (
	outcomeDelivered   outcome = "delivered"
	outcomeRedirected  outcome = "redirected"
	outcomeRefused     outcome = "refused"
	outcomeThrottled   outcome = "throttled"
	outcomeFailed      outcome = "failed"
	outcomeGone        outcome = "gone"
	outcomeTimeout     outcome = "timeout"
	outcomeUnreachable outcome = "unreachable"
	outcomeAddress     outcome = "address_not_permitted"
	outcomeCanceled    outcome = "canceled"
)

// reply is the result of an attempt.
type reply struct {
	outcome outcome
	status  int // 0 if there was none
	// retryAfter is how long the receiver asks to wait; 0 if it does not.
	retryAfter time.Duration
	err        error // why there was no status; without text of the receiver
}

// RuleFor returns the rule for the addresses of a URL.
func RuleFor(target string, allowPrivate bool) AddressRule {
	u, err := url.Parse(target)
	return AddressRule{Loopback: err == nil && loopback.IsHost(u.Hostname()), Private: allowPrivate}
}

// newClient returns a client that follows no redirects, uses no proxy, and connects
// to addresses that rule permits only.
func newClient(cfg Config, resolver *net.Resolver) *http.Client {
	dialer := &net.Dialer{Timeout: attemptTimeout, Control: RuleFor(cfg.URL, cfg.AllowPrivate).Control, Resolver: resolver}
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.Roots},
			ForceAttemptHTTP2:      true,
			DisableCompression:     true,
			MaxIdleConnsPerHost:    concurrency,
			MaxConnsPerHost:        concurrency,
			IdleConnTimeout:        idleConnections,
			MaxResponseHeaderBytes: maxResponseHeader,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// attemptSafely is attempt; a panic is a failure.
func (s *Sender) attemptSafely(ctx context.Context, id string, body []byte) (r reply) {
	defer func() {
		if cause := recover(); cause != nil {
			s.logger.Error("request panicked", zap.Any("cause", cause), zap.ByteString("stack", debug.Stack()))
			r = reply{outcome: outcomeUnreachable, err: errPanic}
		}
	}()
	return s.attempt(ctx, id, body)
}

// attempt sends a change once.
func (s *Sender) attempt(caller context.Context, id string, body []byte) reply {
	ctx, cancel := context.WithTimeout(caller, s.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.cfg.URL, bytes.NewReader(body))
	if err != nil { // the configuration was checked
		return reply{outcome: outcomeUnreachable, err: errors.New("malformed URL")}
	}
	now := time.Now()
	request.Header.Set("Content-Type", contentType)
	request.Header.Set("User-Agent", "eligibilityd")
	request.Header.Set(headerID, id)
	request.Header.Set(headerTimestamp, strconv.FormatInt(now.Unix(), 10))
	request.Header.Set(headerSignature, signature(s.cfg.Secrets(), id, now, body))
	response, err := s.client.Do(request)
	if err != nil {
		return failure(caller, err)
	}
	if n := response.ContentLength; n >= 0 && n <= maxDrained {
		stalled := time.AfterFunc(drainTime, cancel)
		_, _ = io.Copy(io.Discard, response.Body) // so that the connection can be used again
		stalled.Stop()
	}
	_ = response.Body.Close()
	return judge(response.StatusCode, response.Header.Get("Retry-After"), time.Now())
}

// failure describes an attempt without a response.
func failure(caller context.Context, err error) reply {
	if errors.Is(err, ErrAddress) {
		return reply{outcome: outcomeAddress, err: ErrAddress}
	}
	cause := remote.Cause(caller, err)
	switch {
	case errors.Is(cause, context.Canceled):
		return reply{outcome: outcomeCanceled, err: cause}
	case errors.Is(cause, context.DeadlineExceeded):
		return reply{outcome: outcomeTimeout, err: cause}
	default:
		return reply{outcome: outcomeUnreachable, err: cause}
	}
}

// judge evaluates a status.
func judge(status int, retryAfter string, now time.Time) reply {
	r := reply{status: status}
	switch {
	case status >= 200 && status <= 299:
		r.outcome = outcomeDelivered
		return r
	case status == http.StatusGone:
		r.outcome = outcomeGone
		return r
	case status >= 300 && status <= 399:
		r.outcome = outcomeRedirected
	case status == http.StatusTooManyRequests:
		r.outcome = outcomeThrottled
	case status >= 500:
		r.outcome = outcomeFailed
	default:
		r.outcome = outcomeRefused
	}
	r.retryAfter = parseRetryAfter(retryAfter, now)
	return r
}

// parseRetryAfter returns how long a Retry-After asks to wait, at most lastRetry; 0
// if it is absent or malformed.
func parseRetryAfter(text string, now time.Time) time.Duration {
	if text == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(text, 10, 63); err == nil {
		return time.Duration(min(seconds, uint64(lastRetry/time.Second))) * time.Second
	} else if errors.Is(err, strconv.ErrRange) {
		return lastRetry
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), lastRetry)
}
