package app

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

// Nothing can keep the process beyond the drain, the shutdown timeout and two
// seconds.
func TestTheShutdownHasAHardEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		exited := make(chan int, 1)
		life := lifecycle{exit: func(code int) { exited <- code }}
		life.armHardEnd(ctx, config.Server{Drain: 5 * time.Second, ShutdownTimeout: 10 * time.Second}, zap.NewNop())
		time.Sleep(time.Hour)
		if len(exited) > 0 {
			t.Fatal("exited without a signal")
		}
		cancel()
		signalled := time.Now()
		code := <-exited
		if took := time.Since(signalled); code != 1 || took < 15*time.Second || took > 17*time.Second-lastRecord {
			t.Errorf("exit code %d after %v", code, took)
		}
	})
}

// lastRecord is the longest that the process waits for the log before it exits.
const lastRecord = 400 * time.Millisecond
