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
	// hardEndAfter is how long after drain and shutdown timeout the process exits
	// even if something hangs. With the last write of the log it stays
	// below the two seconds that operators are promised.
	hardEndAfter = 1500 * time.Millisecond
	// leastFlush is what the store and the traces get to flush even if calls in
	// progress have used up the shutdown timeout.
	leastFlush = time.Second
)

// lifecycle connects the signals of the process to a command that serves. The
// zero lifecycle is for a command inside another program, such as a test: only
// its context ends it.
type lifecycle struct {
	serves   *atomic.Bool
	endDrain <-chan struct{} // closed by the second signal
	reload   chan os.Signal  // gets SIGHUP while the command serves
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
	life := lifecycle{serves: new(atomic.Bool), endDrain: endDrain, reload: make(chan os.Signal, 1), exit: os.Exit}
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

// Serving prepares the process for a command that serves: SIGHUP, which the end of
// its terminal also sends, reloads its files, and it ignores the end of the reader of
// its output. It returns the writer for the
// command's log, which replaces errOut. If ctx is not from WithSignals, it
// returns errOut and changes nothing.
func Serving(ctx context.Context, errOut io.Writer) (logOut io.Writer) {
	l := lifecycleOf(ctx)
	if l.serves == nil {
		return errOut
	}
	l.serves.Store(true)
	signal.Notify(l.reload, syscall.SIGHUP)
	signal.Ignore(syscall.SIGPIPE)
	if pipe := unblockStandardError(); pipe != nil {
		return pipe
	}
	return errOut
}

// ArmHardEnd makes the process exit if, after ctx has ended, an orderly shutdown
// takes too long because a log, Redis, a collector or a call hangs. Nothing
// disarms it. If ctx is not from WithSignals, it does nothing.
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
