package webhooks

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/health"
	"github.com/eligibilityd/eligibilityd/internal/logging"
)

// failureRecords is how many records of failed attempts are logged each minute.
const failureRecords = 10

// Sender sends the changes of one webhook while its process holds the lease. Make it
// with [New].
type Sender struct {
	cfg       Config
	holder    string
	client    *http.Client
	timeout   time.Duration // of an attempt
	logger    *zap.Logger
	failures  *zap.Logger // limited
	condition *health.Component

	// patience is until when comparisons of a batch are repeated. It belongs to the
	// reader.
	patience time.Time

	// The memory of the process, for a Store that loses its state. The fields belong to Run.
	position string  // the last one seen
	parked   []*item // of its own lease, until another process has held it
	// held reports that no other process is known to have held the lease since this
	// one; yieldUntil is until when it is left to the one that has.
	held       bool
	yieldUntil time.Time
}

// New returns the Sender of a webhook, for which Run must be called.
func New(cfg Config) *Sender { return newSender(cfg, nil) }

func newSender(cfg Config, resolver *net.Resolver) *Sender {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	cfg.Metrics.begin(cfg.Name)
	logger := cfg.Logger.With(zap.String("webhook", cfg.Name))
	return &Sender{
		cfg:       cfg,
		holder:    hex.EncodeToString(id[:]) + " " + cfg.Host,
		client:    newClient(cfg, resolver),
		timeout:   attemptTimeout,
		logger:    logger,
		failures:  logging.Limit(logger, logging.NewLimiter(failureRecords, time.Minute)),
		condition: health.New(nil),
	}
}

// Health returns how the webhook fares, by the last requests of this process: degraded
// if the last failed, failing if it fails as a whole or is disabled, unknown if another
// process sends its changes. The kind of an error is its outcome. It does not block.
func (s *Sender) Health() health.Condition { return s.condition.Read() }

// Run holds the lease whenever it is free, and sends changes while it does, until ctx
// ends. Requests under way may then end within Config.Grace; a change whose request
// did not is sent again by the next holder.
func (s *Sender) Run(ctx context.Context) error {
	defer s.client.CloseIdleConnections()
	for ctx.Err() == nil {
		if !s.tryHold(ctx) {
			wait(ctx, beatInterval)
		}
	}
	return nil
}

// tryHold sends changes as long as the lease is held. It reports whether it was.
func (s *Sender) tryHold(ctx context.Context) (held bool) {
	defer func() {
		if cause := recover(); cause != nil {
			s.logger.Error("sender panicked; it starts anew", zap.Any("cause", cause), zap.ByteString("stack", debug.Stack()))
			held = false
		}
	}()
	asked := time.Now()
	status, err := s.cfg.Store.Acquire(ctx, s.cfg.Name, s.holder, leaseLife, time.Time{})
	if err != nil {
		return false // the store counts and logs it
	}
	state := ParseState(status.State)
	if !status.Held {
		if state.Position != "" {
			s.parked, s.position, s.held, s.yieldUntil = nil, state.Position, false, time.Time{}
		}
		return false
	}
	if state.Position == "" && s.position != "" && !s.held && s.yields(asked) {
		_ = s.cfg.Store.Release(ctx, s.cfg.Name, s.holder)
		return false
	}
	s.held, s.yieldUntil = true, time.Time{}
	records, err := s.cfg.Store.Parked(ctx, s.cfg.Name)
	if err != nil {
		_ = s.cfg.Store.Release(ctx, s.cfg.Name, s.holder)
		return false
	}
	h := newHold(s, status, state, records, asked.Add(leaseLife))
	h.run(ctx)
	return true
}

// yields reports whether the process leaves the lease of a store that was emptied to
// the holder from before: that knows what was parked.
func (s *Sender) yields(now time.Time) bool {
	if s.yieldUntil.IsZero() {
		s.yieldUntil = now.Add(leaseLife)
	}
	return now.Before(s.yieldUntil)
}

// wait waits for a duration or the end of ctx.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
