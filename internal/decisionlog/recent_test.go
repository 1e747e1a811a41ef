package decisionlog_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// inQuestion is the customer that the tests of Recent search for.
var inQuestion = eligibility.CustomerID{0xa5, 0x5a}

// firstAt is the time of the first record in these tests.
var firstAt = time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)

// about returns a record about a customer, n seconds after firstAt.
func about(id eligibility.CustomerID, n int) *decisionlog.Record {
	r := numbered(n)
	r.Question.Customer, r.Time, r.Sampled = decisionlog.PlainCustomer(id), firstAt.Add(time.Duration(n)*time.Second), 1
	return r
}

// recent searches a log that nobody writes.
func recent(t *testing.T, cfg decisionlog.Config, query decisionlog.Query) decisionlog.Recent {
	t.Helper()
	found, err := tryRecent(t, cfg, query)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func tryRecent(t *testing.T, cfg decisionlog.Config, query decisionlog.Query) (decisionlog.Recent, error) {
	t.Helper()
	log, err := decisionlog.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if query.Limit == 0 {
		query.Limit = 100
	}
	query.Customer = inQuestion
	return log.Recent(t.Context(), &query)
}

// ids returns the decision IDs of the records that were found.
func ids(found *decisionlog.Recent) (all []string) {
	for i := range found.Records {
		all = append(all, found.Records[i].DecisionID)
	}
	return all
}

func save(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// In the files of a log that was rotated and compressed several times, every search
// returns what one finds who reads everything.
func TestRecentFindsWhatTheFilesHold(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	cfg := decisionlog.Config{File: path, AllowedSample: 1, Block: true, MaxBytes: 1 << 20, MaxFiles: 30}
	l := start(t, cfg)
	const records = 6000
	var mine []int
	for n := range records {
		id := eligibility.CustomerID{1}
		if n%7 == 0 {
			id, mine = inQuestion, append(mine, n)
		}
		if err := l.Write(t.Context(), about(id, n)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all are written", func() bool { return l.metric(t, "written_total") == records })
	eventually(t, "the older ones are compressed", func() bool {
		compressed := 0
		for _, name := range names(t, filepath.Dir(path)) {
			if strings.HasSuffix(name, ".gz") {
				compressed++
			}
		}
		return compressed >= 2
	})
	l.close(t)
	for _, c := range []struct{ from, until, limit int }{
		{0, 0, 100}, {0, 0, 1}, {0, 0, 10_000}, {100, 200, 100}, {5900, 0, 100}, {0, 50, 100}, {2000, 4500, 7}, {2000, 4500, 1000}, {7000, 0, 5}, {3, 4, 5},
	} {
		query := decisionlog.Query{Limit: c.limit}
		if c.from > 0 {
			query.From = firstAt.Add(time.Duration(c.from) * time.Second)
		}
		if c.until > 0 {
			query.Until = firstAt.Add(time.Duration(c.until) * time.Second)
		}
		var want []string
		for _, n := range slices.Backward(mine) {
			if n >= c.from && (c.until == 0 || n < c.until) && len(want) < c.limit {
				want = append(want, strconv.Itoa(n))
			}
		}
		found := recent(t, cfg, query)
		if got := ids(&found); !slices.Equal(got, want) {
			t.Errorf("%+v: %d records, want %d: %v", c, len(got), len(want), got)
		}
		end := decisionlog.EndOfFiles
		if len(want) == c.limit {
			end = decisionlog.EndLimit
		}
		if found.End != end || found.Unreadable > 0 || len(found.Faults) > 0 {
			t.Errorf("%+v: %v, %d unreadable, %v", c, found.End, found.Unreadable, found.Faults)
		}
		if c.from == 0 && end == decisionlog.EndOfFiles && !found.Since.Equal(firstAt) {
			t.Errorf("%+v: since %v", c, found.Since)
		}
	}
	for _, partners := range [][]string{{}, {"another"}} {
		if found := recent(t, cfg, decisionlog.Query{Partners: partners}); len(found.Records) > 0 || found.End != decisionlog.EndOfFiles {
			t.Errorf("partners %q: %v, %v", partners, ids(&found), found.End)
		}
	}
	if found := recent(t, cfg, decisionlog.Query{Partners: []string{typical().Partner}}); len(found.Records) != 100 {
		t.Errorf("its own partner: %v", ids(&found))
	}
}

// Lines of all lengths are found, whatever lies between them and wherever a step of
// reading begins.
func TestRecentFindsLinesOfAllLengths(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 4 {
		var text strings.Builder
		var want []string
		unreadable := 0
		for n := range 30 {
			line := string(about(inQuestion, n).AppendJSON(nil))
			switch random.IntN(8) {
			case 0: // a line of another kind
				line = strings.Repeat("x", random.IntN(1<<18)) + "\n"
				if line != "\n" {
					unreadable++
				}
			case 1: // too long
				line = `{"schema":"` + strings.Repeat("y", decisionlog.MaxLine+random.IntN(1<<19)) + "\n"
				unreadable++
			case 2:
				line = "\r\n\n"
			default:
				line = strings.Replace(line, "}\n", `,"pad":"`+strings.Repeat("z", random.IntN(1<<random.IntN(19)))+"\"}\n", 1)
				want = append(want, strconv.Itoa(n))
			}
			text.WriteString(line)
		}
		slices.Reverse(want)
		save(t, path, text.String()+`{"schema":"eligib`)
		found := recent(t, decisionlog.Config{File: path}, decisionlog.Query{})
		if got := ids(&found); !slices.Equal(got, want) || found.Unreadable != unreadable || found.End != decisionlog.EndOfFiles {
			t.Fatalf("round %d: %v, want %v; %d unreadable, want %d", round, got, want, found.Unreadable, unreadable)
		}
	}
}

// While records are written and files rotated, a search finds every record until it
// began, and none twice.
func TestRecentDuringRotations(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	l := start(t, decisionlog.Config{File: path, AllowedSample: 1, Block: true, MaxBytes: 1 << 20, MaxFiles: 30})
	var written atomic.Int64
	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			record := about(inQuestion, n)
			record.TraceID = strings.Repeat("f", 16<<10) // rotations are frequent
			if err := l.Write(context.Background(), record); err != nil {
				done <- err
				return
			}
			written.Add(1)
		}
	}()
	rotations := func() int { return len(names(t, filepath.Dir(path))) }
	searches := 0
	for eventually(t, "the first record is written", func() bool { return l.metric(t, "written_total") > 0 }); rotations() < 8 || searches < 20; searches++ {
		before := int(l.metric(t, "written_total"))
		found, err := l.Recent(t.Context(), &decisionlog.Query{Customer: inQuestion, Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		got := ids(&found)
		if len(found.Faults) > 0 || found.Unreadable > 0 || len(got) < min(before, 100) {
			t.Fatalf("%d of %d records, %d unreadable, %v", len(got), before, found.Unreadable, found.Faults)
		}
		newest, _ := strconv.Atoi(got[0])
		if newest < before-1 {
			t.Fatalf("the newest is %d after %d were written", newest, before)
		}
		for i, id := range got {
			if id != strconv.Itoa(newest-i) {
				t.Fatalf("record %d is %s, the newest is %d: %v", i, id, newest, got)
			}
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	l.close(t)
}

// A search that lists the files while one is rotated misses none.
func TestRecentWhileFilesAreRenamed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "decisions.jsonl")
	rotated := func(n int) string {
		return filepath.Join(dir, "decisions-"+firstAt.Add(time.Duration(n)*time.Second).Format("2006-01-02T15-04-05.000")+"-size.jsonl")
	}
	save(t, path, string(about(inQuestion, 0).AppendJSON(nil)))
	var newest atomic.Int64
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(5 * time.Millisecond) // a search takes less
		defer tick.Stop()
		for n := 1; ; n++ {
			select {
			case <-tick.C:
			case <-stop:
				return
			}
			if err := errors.Join(os.Rename(path, rotated(n-1)), os.WriteFile(path, about(inQuestion, n).AppendJSON(nil), 0o600)); err != nil {
				t.Error(err)
				return
			}
			newest.Store(int64(n))
			if n > 100 {
				_ = os.Remove(rotated(n - 100)) // or the one of another round
			}
		}
	}()
	for range 150 {
		before := int(newest.Load())
		found := recent(t, decisionlog.Config{File: path}, decisionlog.Query{Limit: 5})
		got := ids(&found)
		if len(got) < min(before+1, 5) {
			t.Fatalf("after %d: %v", before, got)
		}
		first, _ := strconv.Atoi(got[0])
		for i, id := range got {
			if id != strconv.Itoa(first-i) || first < before {
				t.Fatalf("after %d: %v", before, got)
			}
		}
	}
	close(stop)
	<-ended
}

// A search reads no more than it may, and states from when on everything was read.
func TestRecentIsBounded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	var text strings.Builder
	for n := range 3000 {
		text.Write(about(eligibility.CustomerID{1}, n).AppendJSON(nil))
	}
	save(t, path, text.String())
	save(t, filepath.Join(filepath.Dir(path), "decisions-2026-01-01T00-00-00.000-size.jsonl.gz"), gzipped(t, text.String()))
	cfg := decisionlog.Config{File: path}
	if found := recent(t, cfg, decisionlog.Query{Bytes: 600 << 10}); found.End != decisionlog.EndBytes || !found.Since.After(firstAt.Add(time.Minute)) {
		t.Errorf("bytes: %v, since %v", found.End, found.Since)
	}
	if found := recent(t, cfg, decisionlog.Query{Bytes: int64(text.Len()) + 1000}); found.End != decisionlog.EndBytes || !found.Since.Equal(firstAt) {
		t.Errorf("bytes of a compressed file: %v, since %v", found.End, found.Since)
	}
	if found := recent(t, cfg, decisionlog.Query{Deadline: time.Now()}); found.End != decisionlog.EndTime || !found.Since.IsZero() {
		t.Errorf("time: %v, since %v", found.End, found.Since)
	}
	if found := recent(t, cfg, decisionlog.Query{}); found.End != decisionlog.EndOfFiles || !found.Since.Equal(firstAt) {
		t.Errorf("no bounds: %v, since %v", found.End, found.Since)
	}
	l, err := decisionlog.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	left := errors.New("the user has left")
	ctx, leave := context.WithCancelCause(t.Context())
	leave(left)
	if _, err := l.Recent(ctx, &decisionlog.Query{Customer: inQuestion, Limit: 1}); !errors.Is(err, left) {
		t.Errorf("after the user left: %v", err)
	}
}

// A damaged file is named, and keeps nothing of the others out.
func TestRecentNamesFilesThatCannotBeRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	whole := string(about(inQuestion, 1).AppendJSON(nil))
	damaged := gzipped(t, strings.Repeat(string(about(inQuestion, 2).AppendJSON(nil)), 1000))
	for name, text := range map[string]string{
		"decisions.jsonl": string(about(inQuestion, 5).AppendJSON(nil)) + "\x00\x00\x00",
		"decisions-2026-01-04T00-00-00.000-size.jsonl.gz": "\x1f\x8b no",
		"decisions-2026-01-03T00-00-00.000-size.jsonl.gz": damaged[:len(damaged)/2],
		"decisions-2026-01-02T00-00-00.000-size.jsonl.gz": gzipped(t, ""),
		"decisions-2026-01-01T00-00-00.000-size.jsonl.gz": gzipped(t, whole+whole[:40]),
		"decisions-notes.jsonl":                           whole,
	} {
		save(t, filepath.Join(dir, name), text)
	}
	found := recent(t, decisionlog.Config{File: filepath.Join(dir, "decisions.jsonl")}, decisionlog.Query{Limit: 10_000})
	if got := ids(&found); len(got) < 3 || got[0] != "5" || got[1] != "2" || got[len(got)-1] != "1" || slices.Contains(got[2:len(got)-1], "1") {
		t.Errorf("%v", got)
	}
	var faults []string
	for _, fault := range found.Faults {
		faults = append(faults, fault.Name)
	}
	if want := []string{"decisions-2026-01-04T00-00-00.000-size.jsonl.gz", "decisions-2026-01-03T00-00-00.000-size.jsonl.gz"}; !slices.Equal(faults, want) {
		t.Errorf("faults %v, want %v", faults, want)
	}
	if found.Unreadable != 1 { // the half line of the oldest file; that of the current one is being written
		t.Errorf("%d unreadable lines", found.Unreadable)
	}
}

// Outputs that are no files are not opened: a pipe would lose records to the search.
func TestRecentOfWhatIsNoFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(pipe, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close() //nolint:errcheck // only read
	l := start(t, decisionlog.Config{File: pipe, AllowedSample: 1})
	for range 30 {
		if err := l.Write(t.Context(), about(inQuestion, 1)); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Recent(t.Context(), &decisionlog.Query{Customer: inQuestion, Limit: 1}); !errors.Is(err, decisionlog.ErrNoFile) || l.IsFile() {
			t.Fatalf("a pipe: %v", err)
		}
	}
	l.close(t)
	text, err := io.ReadAll(reader)
	if n := len(read(t, strings.NewReader(string(text)))); n != 30 || err != nil {
		t.Errorf("%d of 30 records came through, %v", n, err)
	}
	for file, want := range map[string]error{
		decisionlog.Stdout: decisionlog.ErrNoFile, "/dev/null": decisionlog.ErrNoFile, filepath.Join(dir, "gone", "decisions.jsonl"): os.ErrNotExist,
		filepath.Join(dir, "none.jsonl"): nil,
	} {
		found, err := tryRecent(t, decisionlog.Config{File: file}, decisionlog.Query{})
		if !errors.Is(err, want) || len(found.Records) > 0 || !found.Since.IsZero() {
			t.Errorf("%s: %v, %+v", file, err, found)
		}
	}
}

// A log with hashes is searched by the key in use. What it cannot find it counts.
func TestRecentOfHashedCustomers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	key := func(n byte) func() []byte {
		made := []byte(fmt.Sprintf("key %d of at least thirty-two bytes", n))
		return func() []byte { return made }
	}
	l := start(t, decisionlog.Config{File: path, AllowedSample: 1, HashKey: key(1)})
	for n := range 3 {
		if err := l.Write(t.Context(), about(inQuestion, n)); err != nil {
			t.Fatal(err)
		}
	}
	l.close(t)
	for _, c := range []struct {
		key           func() []byte
		found, hashed int
	}{{key(1), 3, 0}, {key(2), 0, 0}, {nil, 0, 3}} {
		found := recent(t, decisionlog.Config{File: path, HashKey: c.key}, decisionlog.Query{})
		if len(found.Records) != c.found || found.Hashed != c.hashed {
			t.Errorf("%d records, %d hashed; want %d, %d", len(found.Records), found.Hashed, c.found, c.hashed)
		}
	}
}
