package load

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"
)

// maxUnderWay bounds the unanswered requests of an open loop. If another is
// due, it fails: the server has long been overrun by then.
const maxUnderWay = 20_000

var errOverrun = errors.New("too many requests without an answer")

// openLoop sends cfg.Rate requests a second for d and waits for the answers.
// Each is timed from when it was due, so that if the server or the driver falls
// behind, every delayed request shows it: no coordinated omission.
func openLoop(ctx context.Context, caller Caller, cfg Config, d time.Duration) samples {
	// The sender locks its thread for sleep, which blocks it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var (
		mu       sync.Mutex
		all      = samples{took: make([]time.Duration, 0, int(cfg.Rate*d.Seconds())+1)}
		answers  sync.WaitGroup
		underWay = make(chan struct{}, maxUnderWay)
	)
	draw := drawFrom(cfg)
	start := time.Now()
	for i := 0; ctx.Err() == nil; i++ {
		offset := time.Duration(float64(i) / cfg.Rate * float64(time.Second))
		if offset >= d {
			break
		}
		due := start.Add(offset)
		if wait := time.Until(due); wait > 0 {
			sleep(wait)
		}
		select {
		case underWay <- struct{}{}:
		default:
			mu.Lock()
			all.add(0, errOverrun)
			mu.Unlock()
			continue
		}
		request := draw()
		answers.Go(func() {
			err := caller.Call(ctx, request)
			took := time.Since(due)
			<-underWay
			mu.Lock()
			all.add(took, err)
			mu.Unlock()
		})
	}
	answers.Wait()
	return all
}
