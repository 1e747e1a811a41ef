package changes_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const manyCursors = 10_000

// spread returns a customer whose partition and bytes depend on n.
func spread(n int) (id eligibility.CustomerID) {
	binary.LittleEndian.PutUint64(id[:], uint64(n)*0x9e3779b97f4a7c15) //nolint:gosec // counts
	binary.LittleEndian.PutUint64(id[8:], uint64(n))                   //nolint:gosec // counts
	return id
}

// BenchmarkFanOut measures the time from a change until all cursors that follow it
// have returned it.
func BenchmarkFanOut(b *testing.B) {
	feed := newFeed(64)
	l, _ := startLog(b, feed, nil)
	var woken sync.WaitGroup
	ctx, cancel := context.WithCancel(b.Context())
	var ended sync.WaitGroup
	for range manyCursors {
		c := follow(b, l, changes.Start{})
		ended.Go(func() {
			for {
				events, err := c.Next(ctx)
				if err != nil {
					return
				}
				for range events {
					woken.Done()
				}
			}
		})
	}
	time.Sleep(pollPause)
	for b.Loop() {
		b.StopTimer()
		time.Sleep(pollPause + 20*time.Millisecond) // else the pause of the log is measured
		woken.Add(manyCursors)
		feed.write(spread(1))
		b.StartTimer()
		feed.announce()
		woken.Wait()
	}
	b.StopTimer()
	cancel()
	ended.Wait()
}

const pollPause = 100 * time.Millisecond

// BenchmarkUnwanted measures what a change costs for each cursor that does not follow
// its customer.
func BenchmarkUnwanted(b *testing.B) {
	for _, customers := range []int{1, 10, 1000} {
		b.Run(fmt.Sprintf("customers=%d", customers), func(b *testing.B) {
			feed := newFeed(64)
			l, _ := startLog(b, feed, nil)
			ctx, cancel := context.WithCancel(b.Context())
			var ended sync.WaitGroup
			for i := range manyCursors {
				start := changes.Start{}
				for n := range customers {
					start.Customers = append(start.Customers, spread(1+i*7+n*13))
				}
				c := follow(b, l, start)
				ended.Go(func() { _, _ = c.Next(ctx) })
			}
			witness := follow(b, l, changes.Start{Customers: []eligibility.CustomerID{spread(0)}})
			const batch = 200
			for b.Loop() {
				b.StopTimer()
				time.Sleep(pollPause + 20*time.Millisecond)
				for range batch {
					feed.write(spread(0))
				}
				b.StartTimer()
				feed.announce()
				for n := 0; n < batch; {
					events, err := witness.Next(ctx)
					if err != nil {
						b.Fatal(err)
					}
					n += len(events)
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batch/manyCursors, "ns/change/cursor")
			cancel()
			ended.Wait()
		})
	}
}

// BenchmarkCursorMemory measures what a waiting cursor holds, its goroutine included.
func BenchmarkCursorMemory(b *testing.B) {
	for _, customers := range []int{0, 1, 100, 1000} {
		b.Run(fmt.Sprintf("customers=%d", customers), func(b *testing.B) {
			feed := newFeed(64)
			l, _ := startLog(b, feed, nil)
			follow(b, l, changes.Start{})
			start := changes.Start{}
			for n := range customers {
				start.Customers = append(start.Customers, spread(n))
			}
			for b.Loop() {
				ctx, cancel := context.WithCancel(b.Context())
				var ended sync.WaitGroup
				before := inUse()
				for range manyCursors {
					c := follow(b, l, start)
					ended.Go(func() { _, _ = c.Next(ctx) })
				}
				time.Sleep(pollPause)
				b.ReportMetric(float64(inUse()-before)/manyCursors, "B/cursor")
				cancel()
				ended.Wait()
			}
		})
	}
}

func inUse() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapInuse + stats.StackInuse) //nolint:gosec // far below
}
