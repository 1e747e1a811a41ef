package app

import (
	"context"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

const (
	// hardEndAfter is when the process exits whatever hangs, counted from the
	// end of drain and shutdown timeout. With the last write of the log it stays
	// below the two seconds that operators are promised.
	hardEndAfter = 1500 * time.Millisecond
	// leastFlush is what the store and the traces get to flush even if calls in
	// progress have used up the shutdown timeout.
	leastFlush = time.Second
)

// lifecycle is how the signals of the process reach a command that serves. The
// zero lifecycle is that of a command that does not run as the process: only its
// context ends it.
type lifecycle struct {
	serves   *atomic.Bool
	endDrain <-chan struct{} // closed by the second signal
	exit     func(code int)
}

type lifecycleKey struct{}

func lifecycleOf(ctx context.Context) lifecycle {
	life, _ := ctx.Value(lifecycleKey{}).(lifecycle)
	return life
}

// WithSignals returns a context that ends with the first SIGINT or SIGTERM. The
// second kills the process, but ends the drain of a command that serves, which the
// third kills.
func WithSignals(parent context.Context) context.Context {
	endDrain := make(chan struct{})
	life := lifecycle{serves: new(atomic.Bool), endDrain: endDrain, exit: os.Exit}
	ctx, cancel := context.WithCancel(context.WithValue(parent, lifecycleKey{}, life))
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		if life.serves.Load() {
			<-signals
			close(endDrain)
		}
		signal.Stop(signals)
	}()
	return ctx
}

// Serving prepares the process for a command that serves: it outlives its terminal
// and the reader of its output. It returns where the command's log goes in place
// of errOut.
func Serving(ctx context.Context, errOut io.Writer) (logOut io.Writer) {
	l := lifecycleOf(ctx)
	if l.serves == nil {
		return errOut
	}
	l.serves.Store(true)
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	if pipe := unblockStandardError(); pipe != nil {
		return pipe
	}
	return errOut
}

// ArmHardEnd makes the process exit, once ctx has ended, when the time for an
// orderly shutdown is over: a log, a Redis, a collector or a call that hangs
// must not keep it. Only the end of the process disarms it.
func ArmHardEnd(ctx context.Context, cfg config.Server, logger *zap.Logger) {
	lifecycleOf(ctx).armHardEnd(ctx, cfg, logger)
}

func (l lifecycle) armHardEnd(ctx context.Context, cfg config.Server, logger *zap.Logger) {
	if l.exit == nil {
		return
	}
	context.AfterFunc(ctx, func() {
		time.AfterFunc(cfg.Drain+cfg.ShutdownTimeout+hardEndAfter, func() {
			logger.Error("shutdown did not end in time; exiting")
			_ = logger.Sync()
			l.exit(1)
		})
	})
}
