//go:build acceptance

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// recordQueue is how many records wait for the writer at most.
const recordQueue = 10_000

// logged starts a replica of its own, without Redis, whose decision log is file.
func logged(t *testing.T, far simulated, file string, environ ...string) *process {
	t.Helper()
	if file != "" {
		environ = append(environ, "ELIGIBILITY_DECISION_LOG__FILE="+file)
	}
	p, _ := startUnder(t, nil, toServe(t, far.api, environ...), "serve")
	return p
}

// fifo makes a FIFO.
func fifo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "decisions.fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// drain reads a FIFO until its writer has closed it, and counts.
type drain struct {
	mu      sync.Mutex
	ids     map[string]int // decision id → records; guarded by mu
	records int            // guarded by mu
	dropped int64          // guarded by mu
	ended   sync.WaitGroup
}

func drainFifo(t *testing.T, path string) *drain {
	t.Helper()
	d := &drain{ids: map[string]int{}}
	in, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	lines, out := io.Pipe()
	d.ended.Go(func() {
		_, err := io.Copy(out, in)
		_ = out.CloseWithError(err)
	})
	d.ended.Go(func() {
		_ = decodeRecords(lines, func(record *decided) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.ids[record.DecisionID]++
			d.records++
			d.dropped += record.Dropped
		})
	})
	t.Cleanup(func() {
		_ = in.Close()
		d.ended.Wait()
	})
	return d
}

func (d *drain) count() (records int, dropped int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.records, d.dropped
}

// hot asks about customers whose answers are in the local tier, as fast as callers go,
// for that time.
func hot(t *testing.T, client eligibilityv1.EligibilityServiceClient, ids []string, callers int, length time.Duration) times {
	t.Helper()
	var (
		mu     sync.Mutex
		all    times
		asking sync.WaitGroup
	)
	began := time.Now()
	for c := range callers {
		asking.Go(func() {
			var took times
			for n := c; time.Since(began) < length; n++ {
				sent := time.Now()
				if _, err := client.CheckEligibility(t.Context(), about(ids[n%len(ids)])); err != nil {
					t.Errorf("a check: %v", err)
					return
				}
				took = append(took, time.Since(sent))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
		})
	}
	asking.Wait()
	return all
}

// recordIntoAFifo lets nobody read the decision log.
func recordIntoAFifo(t *testing.T) string { //nolint:thelper // a test of its own
	far := simulateApart(t)
	ids := changingIDs('1', 500)
	for _, id := range ids {
		far.put(t, flipping(id, accountWords[0], 0))
	}
	return recordDropped(t, far, ids) + "; " + recordBlocked(t, far, ids)
}

// recordDropped measures, in turn, a replica without a decision log and one whose log
// nobody reads.
func recordDropped(t *testing.T, far simulated, ids []string) string {
	t.Helper()
	const rounds, callers, length = 8, 4, 1500 * time.Millisecond
	path := fifo(t)
	without, with := logged(t, far, ""), logged(t, far, path)
	clients := []eligibilityv1.EligibilityServiceClient{
		eligibilityv1.NewEligibilityServiceClient(without.dial(t)), eligibilityv1.NewEligibilityServiceClient(with.dial(t)),
	}
	sent := 0
	for i, client := range clients {
		for range 2 {
			n := len(hot(t, client, ids, callers, length))
			sent += i * n
		}
	}
	took := make([]times, 2)
	for round := range rounds {
		for turn := range 2 {
			which := (turn + round) % 2
			got := hot(t, clients[which], ids, callers, length)
			took[which] = append(took[which], got...)
			sent += which * len(got)
		}
	}
	off, on := took[0].quantile(0.99), took[1].quantile(0.99)
	t.Logf("off: %v; into a FIFO: %v; %s", took[0], took[1], loadAverage())
	if on > off*3/2+2*time.Millisecond {
		t.Errorf("p99 %v, without a log %v", on, off)
	}
	dropped := with.metric(t, "eligibility_decision_log_dropped_total")
	if least := float64(sent - 2*recordQueue); dropped < least || dropped > float64(sent) {
		t.Errorf("%v of %d dropped", dropped, sent)
	}
	reader := drainFifo(t, path)
	eventually(t, "the queue to be read", func() bool { return with.metric(t, "eligibility_decision_log_queue_records") == 0 })
	if _, err := clients[1].CheckEligibility(t.Context(), about(ids[0])); err != nil { // its record reports what was dropped
		t.Fatal(err)
	}
	sent++
	eventually(t, "each question to be written or counted as dropped", func() bool {
		records, lost := reader.count()
		return records+int(lost) >= sent
	})
	records, lost := reader.count()
	if dropped = with.metric(t, "eligibility_decision_log_dropped_total"); records+int(lost) != sent || float64(lost) != dropped {
		t.Errorf("%d questions, %d records, %d dropped according to them, %v to the metric", sent, records, lost, dropped)
	}
	return fmt.Sprintf("`drop`: p99 of local answers %.2f ms, in turn with a replica without a decision log: %.2f ms (%s); %d questions are %d records and %d dropped, exactly as their `dropped` and the metric count",
		milliseconds(on), milliseconds(off), loadAverage(), sent, records, lost)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// recordBlocked asks more questions than the queue holds of a replica that must not drop
// any, and then reads its log.
func recordBlocked(t *testing.T, far simulated, ids []string) string {
	t.Helper()
	const questions, callers = recordQueue + 3000, 200
	path := fifo(t)
	p := logged(t, far, path, "ELIGIBILITY_DECISION_LOG__ON_OVERFLOW=block", "ELIGIBILITY_SERVER__MAX_TIMEOUT=2m")
	client := eligibilityv1.NewEligibilityServiceClient(p.dial(t))
	var (
		asking  sync.WaitGroup
		next    atomic.Int64
		answers sync.Map // id → true
		count   atomic.Int64
		left    atomic.Int64
	)
	check := func(id string, within time.Duration) {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		ctx = metadata.AppendToOutgoingContext(ctx, "x-request-id", id)
		_, err := client.CheckEligibility(ctx, about(ids[0]), grpc.WaitForReady(true))
		switch {
		case err == nil:
			answers.Store(id, true)
			count.Add(1)
		case within < patience && reasonOf(err) == "DEADLINE_EXCEEDED":
			left.Add(1)
		default:
			t.Errorf("%s: %v", id, err)
		}
	}
	for range callers {
		asking.Go(func() {
			for n := next.Add(1); n <= questions; n = next.Add(1) {
				check(fmt.Sprintf("patient-%d", n), 2*time.Minute)
			}
		})
	}
	eventually(t, "the queue to be full", func() bool { return count.Load() >= recordQueue })
	const impatient = 50
	var leaving sync.WaitGroup
	for n := range impatient {
		leaving.Go(func() { check(fmt.Sprintf("impatient-%d", n), 500*time.Millisecond) })
	}
	leaving.Wait()
	before := count.Load()
	if left.Load() != impatient || before > recordQueue+callers+2000 {
		t.Errorf("%d of %d callers left without an answer; %d answers in spite of a full queue", left.Load(), impatient, before)
	}
	reader := drainFifo(t, path)
	asking.Wait()
	eventually(t, "all records", func() bool {
		records, _ := reader.count()
		return records >= questions
	})
	reader.mu.Lock()
	defer reader.mu.Unlock()
	missing := 0
	answers.Range(func(id, _ any) bool {
		if name, _ := id.(string); reader.ids[name] != 1 {
			missing++
		}
		return true
	})
	// The records of those who left are counted.
	if missing > 0 || reader.dropped != impatient || count.Load() != questions {
		t.Errorf("%d of %d answers without one record, %d dropped", missing, count.Load(), reader.dropped)
	}
	return fmt.Sprintf("`block`: %d answers until the queue was full, then none, and %d impatient callers left with `DEADLINE_EXCEEDED`; once the FIFO was read, all %d questions were answered and each answer had its record",
		before, impatient, questions)
}
