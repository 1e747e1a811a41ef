package webhooks

import (
	"context"
	"net"
	"net/http"
	"time"
)

// NewWithResolver is New with another resolver.
func NewWithResolver(cfg Config, resolver *net.Resolver) *Sender { return newSender(cfg, resolver) }

// SetTransport replaces the connections of a sender.
func (s *Sender) SetTransport(transport http.RoundTripper) { s.client.Transport = transport }

// SetTimeout replaces the limit of an attempt.
func (s *Sender) SetTimeout(timeout time.Duration) { s.timeout = timeout }

// Holder is what the sender passes to its Store.
func (s *Sender) Holder() string { return s.holder }

// The bounds and times of a webhook.
const (
	Concurrency    = concurrency
	FailuresInARow = failuresInARow
	MaxWindow      = maxWindow
	MaxBody        = maxBody
	LeaseLife      = leaseLife
	BeatInterval   = beatInterval
	GiveUpAfter    = giveUpAfter
	LastRetry      = lastRetry
)

// RetryDelay is the delay after so many failures in a row.
func RetryDelay(failures int) time.Duration { return retryDelay(failures) }

// ParseRetryAfter reads a Retry-After.
func ParseRetryAfter(text string, now time.Time) time.Duration { return parseRetryAfter(text, now) }

// Letters are the parked and the dead letters.
func (m *Memory) Letters(name string) (parked, dead []Letter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, record := range m.of(name).parked {
		letter, _ := ParseLetter(record.Value)
		parked = append(parked, letter)
	}
	for _, record := range m.of(name).dead {
		letter, _ := ParseLetter(record.Value)
		dead = append(dead, letter)
	}
	return parked, dead
}

// Current is the state that was committed last.
func (m *Memory) Current(name string) State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return ParseState(m.of(name).state)
}

// Attempt sends a change once, and returns how that ended.
func (s *Sender) Attempt(ctx context.Context, id string, body []byte) (outcome string, status int, retryAfter time.Duration, err error) {
	r := s.attempt(ctx, id, body)
	return string(r.outcome), r.status, r.retryAfter, r.err
}

// AddDecisions adds the decisions to an event.
func AddDecisions(event, before, after []byte) (id string, body []byte, err error) {
	return addDecisions(event, before, after)
}
