package cache

import (
	"time"

	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/logging"
)

// faultInterval is how often faults of Redis are worth a line in the log.
const faultInterval = 10 * time.Second

// faultLog warns of Redis faults at most once an interval; the metrics count
// all of them. It never logs the text of an error: a server may repeat the
// password in it.
type faultLog struct {
	logger  *zap.Logger
	now     func() time.Time
	limiter *logging.Limiter
	drops   *logging.Limiter
	losses  *logging.Limiter
	pasts   *logging.Limiter
}

func newFaultLog(logger *zap.Logger, now func() time.Time) *faultLog {
	newLimiter := func() *logging.Limiter { return logging.NewLimiter(1, faultInterval) }
	return &faultLog{logger: logger, now: now, limiter: newLimiter(), drops: newLimiter(), losses: newLimiter(), pasts: newLimiter()}
}

func (f *faultLog) warn(op string, err error) {
	leftOut, ok := f.limiter.Admit(f.now())
	if !ok {
		return
	}
	f.logger.Warn("redis unavailable; continuing without the shared cache",
		zap.String("op", op), zap.String("cause", ErrorText(err)), zap.Int64("left_out", leftOut))
}

// outboxFull reports that evidence was dropped.
func (f *faultLog) outboxFull() {
	if leftOut, ok := f.drops.Admit(f.now()); ok {
		f.logger.Error("outbox full; contents of redis count as not fresh when it accepts writes again", zap.Int64("left_out", leftOut))
	}
}

// changeLost reports that Redis stored evidence but not its change.
func (f *faultLog) changeLost(err error) {
	if leftOut, ok := f.losses.Admit(f.now()); ok {
		f.logger.Error("redis refused a change of the feed; watchers do not receive it", zap.String("cause", ErrorText(err)), zap.Int64("left_out", leftOut))
	}
}

// historyLost reports that Redis stored evidence but did not add its change to the
// history.
func (f *faultLog) historyLost(err error) {
	if leftOut, ok := f.pasts.Admit(f.now()); ok {
		f.logger.Warn("redis refused an entry of a customer's history; explanations lack it", zap.String("cause", ErrorText(err)), zap.Int64("left_out", leftOut))
	}
}
