package logging

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// If nothing reads a pipe, its buffer fills after 64 KiB and every write
// blocks.
func TestAPipeThatNothingReadsBlocksNobody(t *testing.T) {
	t.Parallel()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	logger, queue := New(writer, Config{Level: zapcore.InfoLevel})
	const records = 20_000
	text := strings.Repeat("x", 200)
	for i := range records {
		logger.Info("record", zap.Int("i", i), zap.String("text", text))
	}
	if queue.Dropped() == 0 {
		t.Fatal("nothing was dropped, so nothing was blocked")
	}
	begun := time.Now()
	if err := logger.Sync(); err == nil {
		t.Error("Sync returned nil although nothing was read")
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("Sync took %v", took)
	}

	// When the reader resumes, the log contains every record or counts it.
	read := make(chan []logged)
	go func() { read <- readAll(reader) }()
	eventually(t, "the queue is empty", func() bool { return logger.Sync() == nil })
	logger.Info("after")
	eventually(t, "the last record is written", func() bool { return logger.Sync() == nil })
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	lines := <-read
	next, notes := 0, 0
	for _, line := range lines {
		switch line.Message {
		case "record":
			if line.I < next {
				t.Fatalf("record %d after %d", line.I, next)
			}
			next = line.I + 1
		case "after":
			next = records
		default:
			notes += line.Records
		}
	}
	if written := len(lines) - 2; written+notes != records || next != records || int64(notes) != queue.Dropped() {
		t.Errorf("%d records written and %d noted as dropped (%d counted) of %d, last %d", written, notes, queue.Dropped(), records, next)
	}
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
}

type logged struct {
	Message string `json:"msg"`
	I       int
	Records int
}

func readAll(r io.Reader) []logged {
	var lines []logged
	for scan := bufio.NewScanner(r); scan.Scan(); {
		var line logged
		if err := json.Unmarshal(scan.Bytes(), &line); err != nil {
			line.Message = err.Error()
		}
		lines = append(lines, line)
	}
	return lines
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// flaky is a writer that fails while fails is set.
type flaky struct {
	mu     sync.Mutex
	fails  bool
	record []string
}

func (f *flaky) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fails {
		return 0, errors.New("broken pipe")
	}
	f.record = append(f.record, strings.SplitAfter(strings.TrimSuffix(string(p), "\n"), "\n")...)
	return len(p), nil
}

func (f *flaky) set(fails bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails = fails
}

// If writes fail at any time, every record is written once or counted once.
func TestEveryRecordIsWrittenOrCounted(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		out := new(flaky)
		queue := NewQueue(out)
		queue.note = func(dropped int64) []byte { return fmt.Appendf(nil, "dropped %d\n", dropped) }
		written := 0
		write := func(size int) {
			_, _ = queue.Write([]byte(strings.Repeat("r", size) + "\n"))
			written++
		}
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) { write(rapid.IntRange(1, 100).Draw(t, "bytes")) },
			"huge":  func(*rapid.T) { write(queueBytes) },
			"break": func(*rapid.T) { out.set(true) },
			"mend":  func(*rapid.T) { out.set(false) },
			"wait":  func(*rapid.T) { _ = queue.Sync() },
		})
		out.set(false)
		write(1)
		for range 2 { // after a failed write, the next record triggers another
			_ = queue.Sync()
			write(1)
		}
		if err := queue.Sync(); err != nil {
			t.Fatal(err)
		}
		seen, noted := 0, 0
		for _, record := range out.record {
			var n int
			if _, err := fmt.Sscanf(record, "dropped %d", &n); err == nil {
				noted += n
			} else {
				seen++
			}
		}
		if seen+noted != written || int64(noted) != queue.Dropped() {
			t.Fatalf("%d written and %d noted (%d counted) of %d", seen, noted, queue.Dropped(), written)
		}
	})
}

func TestTheQueueCountsWhatItDrops(t *testing.T) {
	t.Parallel()
	out := new(flaky)
	out.set(true)
	queue, registry := NewQueue(out), prometheus.NewRegistry()
	if err := queue.Register(registry); err != nil {
		t.Fatal(err)
	}
	if err := queue.Register(registry); err == nil {
		t.Error("registered twice")
	}
	_, _ = queue.Write([]byte("x\n"))
	_ = queue.Sync()
	families, err := registry.Gather()
	if err != nil || len(families) != 1 || families[0].GetMetric()[0].GetCounter().GetValue() != 1 {
		t.Errorf("%v, %v", families, err)
	}
}

func TestFormats(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		cfg  Config
		want string
	}{
		{Config{Level: zapcore.WarnLevel}, `"level":"warn"`},
		{Config{Level: zapcore.WarnLevel, Console: true}, "\tWARN\t"},
	} {
		out := new(flaky)
		logger, _ := New(out, row.cfg)
		logger.Info("left out")
		logger.Warn("kept")
		if err := logger.Sync(); err != nil {
			t.Fatal(err)
		}
		if len(out.record) != 1 || !strings.Contains(out.record[0], row.want) {
			t.Errorf("%q, want one record with %q", out.record, row.want)
		}
	}
}

func TestALimiterCountsAnew(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		interval time.Duration
		steps    []time.Duration // from the first interval to each further one
	}{
		"each second":              {time.Second, []time.Duration{0, time.Second, 2 * time.Second}},
		"each ten seconds":         {10 * time.Second, []time.Duration{0, 10 * time.Second, 50 * time.Second}},
		"when the clock goes back": {time.Second, []time.Duration{0, -time.Hour, -2 * time.Hour}},
	} {
		limiter := NewLimiter(3, row.interval)
		for i, step := range row.steps {
			var admitted int
			var leftOut int64
			for j := range 10 {
				if left, ok := limiter.Admit(time.Unix(100_000, 0).Add(step + time.Duration(j)*time.Millisecond)); ok {
					admitted++
					leftOut += left
				}
			}
			if want := int64(min(i, 1) * 7); admitted != 3 || leftOut != want {
				t.Errorf("%s, interval %d: %d admitted, %d left out before; want 3 and %d", name, i, admitted, leftOut, want)
			}
		}
	}
}

// Callers who took the time before an interval ended, and come after the next has begun,
// neither begin theirs anew nor the next.
func TestALimiterCountsLateRecordsInTheLatestInterval(t *testing.T) {
	t.Parallel()
	limiter := NewLimiter(5, time.Second)
	second := time.Unix(100_000, 0)
	var admitted atomic.Int64
	var callers sync.WaitGroup
	for caller := range 8 {
		callers.Go(func() {
			for i := range 1000 {
				if _, ok := limiter.Admit(second.Add(time.Duration(caller+i) % 2 * -time.Millisecond)); ok {
					admitted.Add(1)
				}
			}
		})
	}
	callers.Wait()
	if n := admitted.Load(); n < 5 || n > 10 {
		t.Errorf("%d records of two intervals with a limit of 5", n)
	}
}

func TestALimitedLoggerCountsWhatItLeavesOut(t *testing.T) {
	t.Parallel()
	out := new(flaky)
	logger, queue := New(out, Config{Level: zapcore.InfoLevel})
	limiter := NewLimiter(2, time.Hour)
	limited := Limit(logger, limiter).Named("x").With(zap.String("k", "v"))
	limited.Debug("below the level")
	for range 10 {
		limited.Info("limited")
	}
	logger.Info("unlimited")
	limiter.limit += 100
	limited.Info("again")
	if err := queue.Sync(); err != nil {
		t.Fatal(err)
	}
	if len(out.record) != 4 || !strings.Contains(out.record[3], `"left_out":8`) || !strings.Contains(out.record[3], `"k":"v"`) {
		t.Errorf("%q", out.record)
	}
}
