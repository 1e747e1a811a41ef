package decisionlog_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what a loaded machine may take.
const patience = 60 * time.Second

type started struct {
	*decisionlog.Log

	registry *prometheus.Registry
	closed   bool
}

// start runs a log. The test closes it, or its end does.
func start(t *testing.T, cfg decisionlog.Config) *started {
	t.Helper()
	s := &started{registry: prometheus.NewRegistry()}
	cfg.Registerer = s.registry
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes, cfg.MaxFiles = 100<<20, 30
	}
	var err error
	if s.Log, err = decisionlog.New(cfg); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Run()
	}()
	t.Cleanup(func() {
		if !s.closed { // the test has failed
			s.abort(t)
		}
		<-ended
	})
	return s
}

// Close is that of the log.
func (s *started) Close(ctx context.Context) error {
	s.closed = true
	return s.Log.Close(ctx)
}

func (s *started) close(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
}

// abort closes the log without time.
func (s *started) abort(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Close(ctx); err == nil {
		t.Error("no records were lost")
	}
}

func (s *started) metric(t *testing.T, name string) float64 {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "eligibility_decision_log_"+name {
			m := family.GetMetric()[0]
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// numbered is a record that a test can recognize.
func numbered(n int) *decisionlog.Record {
	r := typical()
	r.DecisionID = strconv.Itoa(n)
	return &r
}

// read parses every line.
func read(t *testing.T, text io.Reader) []decisionlog.Record {
	t.Helper()
	var records []decisionlog.Record
	lines := bufio.NewReader(text)
	var p decisionlog.Parser
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			return records
		}
		r, failed := p.Parse(line)
		if err != nil || failed != nil {
			t.Fatalf("line %d: %v, %v: %q", len(records), err, failed, line)
		}
		records = append(records, r)
	}
}

func readFile(t *testing.T, path string) []decisionlog.Record {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(path, ".gz") {
		unzip, err := gzip.NewReader(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return read(t, unzip)
	}
	return read(t, bytes.NewReader(text))
}

func dropped(records []decisionlog.Record) (sum int) {
	for _, r := range records {
		sum += int(r.Dropped)
	}
	return sum
}

func TestAnOrderlyStopLosesNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	l := start(t, decisionlog.Config{File: path, AllowedSample: 1, Block: true})
	const writers, each = 8, 2500
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				if err := l.Write(t.Context(), numbered(w*each+i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writing.Wait()
	l.close(t)
	seen := make(map[string]bool)
	for _, r := range readFile(t, path) {
		seen[r.DecisionID] = true
	}
	if len(seen) != writers*each || l.metric(t, "written_total") != writers*each || l.metric(t, "queue_records") != 0 {
		t.Errorf("%d records, want %d; counted %v, queued %v", len(seen), writers*each, l.metric(t, "written_total"), l.metric(t, "queue_records"))
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func fifo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// readPipe reads the pipe until the log closes it.
func readPipe(t *testing.T, path string) (records func() []decisionlog.Record) {
	t.Helper()
	result := make(chan []decisionlog.Record, 1)
	go func() {
		f, err := os.Open(path)
		if err != nil {
			t.Error(err)
			result <- nil
			return
		}
		defer f.Close() //nolint:errcheck // only read
		text, err := io.ReadAll(f)
		if err != nil {
			t.Error(err)
		}
		result <- read(t, bytes.NewReader(text))
	}()
	return func() []decisionlog.Record { return <-result }
}

// If nothing reads a pipe, no caller waits, and what is lost is counted to the
// record.
func TestAPipeWithoutAReaderDelaysNobody(t *testing.T) {
	t.Parallel()
	path := fifo(t)
	l := start(t, decisionlog.Config{File: path, AllowedSample: 1})
	const records = 15_000
	begun := time.Now()
	for i := range records {
		if err := l.Write(t.Context(), numbered(i)); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(begun); took > 15*time.Second { // 1 ms each
		t.Errorf("%d records took %v", records, took)
	}
	lost := l.metric(t, "dropped_total")
	if lost != records-10_000 {
		t.Errorf("%v dropped, want those beyond 10,000", lost)
	}
	received := readPipe(t, path)
	eventually(t, "there is room", func() bool { return l.metric(t, "queue_records") < 10_000 })
	if err := l.Write(t.Context(), numbered(records)); err != nil {
		t.Fatal(err)
	}
	l.close(t)
	got := received()
	if len(got) != 10_001 || dropped(got) != int(lost) || got[10_000].Dropped != int64(lost) || l.metric(t, "errors_total") == 0 {
		t.Errorf("%d records, %d dropped in them; %v counted, %v errors", len(got), dropped(got), lost, l.metric(t, "errors_total"))
	}
}

// With block, a caller whose record is not queued in time gets an error, and each
// other record arrives.
func TestBlockLosesNoRecordOfAnAnswer(t *testing.T) {
	t.Parallel()
	path := fifo(t)
	l := start(t, decisionlog.Config{File: path, AllowedSample: 1, Block: true})
	for i := range 10_000 {
		if err := l.Write(t.Context(), numbered(i)); err != nil {
			t.Fatal(err)
		}
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := l.Write(short, numbered(-1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no room: %v", err)
	}
	refusal := numbered(-1) // does not wait, or overload would grow
	refusal.Outcome, refusal.Kind = decisionlog.OutcomeError, eligibility.KindOverloaded
	bounded, cancelBounded := context.WithTimeout(t.Context(), patience)
	defer cancelBounded()
	if err := l.Write(bounded, refusal); err != nil || l.metric(t, "dropped_total") != 2 {
		t.Errorf("a refusal: %v; %v dropped, want 2", err, l.metric(t, "dropped_total"))
	}
	var answered atomic.Int64
	var writing sync.WaitGroup
	for i := range 500 {
		writing.Go(func() {
			if err := l.Write(t.Context(), numbered(10_000+i)); err == nil {
				answered.Add(1)
			}
		})
	}
	received := readPipe(t, path)
	writing.Wait()
	l.close(t)
	got := received()
	ids := make(map[string]bool)
	for _, r := range got {
		ids[r.DecisionID] = true
	}
	if len(got) != 10_500 || len(ids) != len(got) || ids["-1"] || answered.Load() != 500 || dropped(got) != 2 || l.metric(t, "dropped_total") != 2 {
		t.Errorf("%d records of %d answers", len(got), answered.Load())
	}
}

// A reader that stops reading does not keep the process from ending.
func TestCloseDoesNotWaitForAReader(t *testing.T) {
	t.Parallel()
	path := fifo(t)
	reader, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close() //nolint:errcheck // only read
	l := start(t, decisionlog.Config{File: path, AllowedSample: 1})
	for i := range 5000 {
		if err := l.Write(t.Context(), numbered(i)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "something is written", func() bool { return l.metric(t, "queue_records") < 5001 })
	l.abort(t)
	eventually(t, "what is lost is counted", func() bool {
		return l.metric(t, "dropped_total")+l.metric(t, "written_total") == 5000
	})
}

func TestHashedCustomersAreNowhereInTheFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	keys := [][]byte{bytes.Repeat([]byte("a"), 32), bytes.Repeat([]byte("b"), 40)}
	var current atomic.Pointer[[]byte]
	current.Store(&keys[0])
	l := start(t, decisionlog.Config{File: path, AllowedSample: 1, HashKey: func() []byte { return *current.Load() }})
	id := func(n byte) eligibility.CustomerID { return eligibility.CustomerID{0xca, 0x0a, n, 0xfe} }
	for n := range byte(2) {
		for range 2 {
			r := numbered(int(n))
			r.Question.Customer = decisionlog.PlainCustomer(id(n))
			if err := l.Write(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		current.Store(&keys[1])
	}
	l.close(t)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range byte(2) {
		full := id(n).String()
		for _, canary := range []string{full, strings.ReplaceAll(full, "-", ""), full[:8]} {
			if bytes.Contains(bytes.ToLower(text), []byte(canary)) {
				t.Errorf("%s is in the file", canary)
			}
		}
	}
	for i, r := range readFile(t, path) {
		if want := decisionlog.HashedCustomer(keys[i/2], id(byte(i/2))); r.Question.Customer != want {
			t.Errorf("record %d: %s, want %s", i, r.Question.Customer, want)
		}
	}
}

// Sampling leaves out plain allowed answers only.
func TestSamplingLeavesOutPlainAnswersOnly(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	changes := map[string]func(*decisionlog.Record){
		"blocked": func(r *decisionlog.Record) { r.Outcome = decisionlog.OutcomeBlocked },
		"error":   func(r *decisionlog.Record) { r.Outcome, r.Kind = decisionlog.OutcomeError, eligibility.KindNotFound },
		"stale":   func(r *decisionlog.Record) { r.Stale = true },
		"forced":  func(r *decisionlog.Record) { r.Question.MaxAgeSet = true },
		"receipt": func(r *decisionlog.Record) { r.Question.MinEvidenceTime = r.Time },
	}
	for _, share := range []float64{0, 0.25} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		l := start(t, decisionlog.Config{File: path, AllowedSample: share, Block: true})
		const rounds = 400
		for range rounds {
			for name, change := range changes {
				r := numbered(0)
				r.DecisionID = name
				change(r)
				if err := l.Write(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			}
			if err := l.Write(t.Context(), numbered(1)); err != nil {
				t.Fatal(err)
			}
		}
		l.close(t)
		written := make(map[string]int)
		for _, r := range readFile(t, path) {
			written[r.DecisionID]++
			if want := map[bool]float64{true: share, false: 1}[r.DecisionID == "1"]; r.Sampled != want {
				t.Errorf("%s: sampled %v, want %v", r.DecisionID, r.Sampled, want)
			}
		}
		for name := range changes {
			if written[name] != rounds {
				t.Errorf("share %v: %d of %s, want %d", share, written[name], name, rounds)
			}
		}
		if plain := written["1"]; float64(plain) < rounds*(share-0.15) || float64(plain) > rounds*(share*2) || l.metric(t, "left_out_total") != float64(rounds-plain) {
			t.Errorf("share %v: %d plain ones, %v left out", share, plain, l.metric(t, "left_out_total"))
		}
	}
}

func TestWriteDoesNotAllocate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	key := make([]byte, 32)
	l := start(t, decisionlog.Config{File: path, AllowedSample: 1, HashKey: func() []byte { return key }})
	defer l.close(t)
	plain := typical()
	r := plain
	if got := testing.AllocsPerRun(2000, func() {
		r.Question = plain.Question
		if err := l.Write(t.Context(), &r); err != nil {
			t.Fatal(err)
		}
	}); got > 0 && !raceEnabled {
		t.Errorf("%v allocations", got)
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, hashed := range []bool{false, true} {
		b.Run(fmt.Sprintf("hashed=%v", hashed), func(b *testing.B) {
			cfg := decisionlog.Config{File: filepath.Join(b.TempDir(), "decisions.jsonl"), AllowedSample: 1, Block: true, MaxBytes: 100 << 20, MaxFiles: 2}
			if hashed {
				key := make([]byte, 32)
				cfg.HashKey = func() []byte { return key }
			}
			l, err := decisionlog.New(cfg)
			if err != nil {
				b.Fatal(err)
			}
			go l.Run()
			plain := typical()
			r := plain
			b.ReportAllocs()
			for b.Loop() {
				r.Question = plain.Question
				if err := l.Write(b.Context(), &r); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			if err := l.Close(context.Background()); err != nil {
				b.Fatal(err)
			}
		})
	}
}
