package reload_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/eligibilityd/eligibilityd/internal/reload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is two files of which the second must repeat the first.
type pair struct {
	*reload.Value[string]

	dir    string
	logs   *observer.ObservedLogs
	failed atomic.Int64
}

func (p *pair) file(name string) string { return filepath.Join(p.dir, name) }

func (p *pair) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(p.file(name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p *pair) writeBoth(t *testing.T, content string) {
	t.Helper()
	p.write(t, "a", content)
	p.write(t, "b", content)
}

func (p *pair) want(t *testing.T, value string, failures int64) {
	t.Helper()
	if got := p.Get(); got != value {
		t.Errorf("the value is %q, want %q", got, value)
	}
	if got := p.failed.Load(); got != failures {
		t.Errorf("%d failures counted, want %d", got, failures)
	}
}

// inBubble runs test with a fake clock, over files that hold "one".
func inBubble(t *testing.T, test func(t *testing.T, p *pair)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.InfoLevel)
		p := &pair{dir: dir, logs: logs}
		p.writeBoth(t, "one")
		var err error
		p.Value, err = reload.Open(reload.Config[string]{
			Name: "pair", Files: []string{p.file("a"), p.file("b")}, Logger: zap.New(core),
			Parse:  parse,
			Failed: func() { p.failed.Add(1) },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		synctest.Wait()
		test(t, p)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func parse(contents [][]byte) (string, error) {
	if !bytes.Equal(contents[0], contents[1]) {
		return "", errors.New("they differ")
	}
	return string(contents[0]), nil
}

// pass lets d pass, and whatever falls due in it.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestChangesAreAdopted(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, p *pair) {
		p.writeBoth(t, "two")
		pass(9 * time.Second)
		p.want(t, "one", 0)
		pass(3 * time.Second)
		p.want(t, "two", 0)

		// The size and the time of change stay the same.
		info, err := os.Stat(p.file("a"))
		if err != nil {
			t.Fatal(err)
		}
		p.writeBoth(t, "six")
		for _, name := range []string{"a", "b"} {
			if err := os.Chtimes(p.file(name), info.ModTime(), info.ModTime()); err != nil {
				t.Fatal(err)
			}
		}
		pass(11 * time.Second)
		p.want(t, "six", 0)
	})
}

// Kubernetes mounts a secret as symlinks through ..data, which it replaces by rename.
func TestASymlinkSwapIsNoticed(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, p *pair) {
		swap := func(content string) {
			next := p.file(".." + content)
			if err := os.Mkdir(next, 0o700); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"a", "b"} {
				if err := os.WriteFile(filepath.Join(next, name), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(os.Symlink(next, p.file("..tmp")), os.Rename(p.file("..tmp"), p.file("..data"))); err != nil {
				t.Fatal(err)
			}
		}
		swap("one")
		for _, name := range []string{"a", "b"} {
			if err := errors.Join(os.Remove(p.file(name)), os.Symlink(filepath.Join("..data", name), p.file(name))); err != nil {
				t.Fatal(err)
			}
		}
		pass(10 * time.Second)
		swap("two")
		pass(11 * time.Second)
		p.want(t, "two", 0)
	})
}

func TestAHalfWrittenPairIsWaitedFor(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, p *pair) {
		pass(9 * time.Second)
		p.write(t, "a", "two")
		pass(1500 * time.Millisecond) // read once; the second reading is due in half a second
		p.write(t, "b", "two")
		pass(2 * time.Second)
		p.want(t, "two", 0)
	})
}

// What is read first is valid and not all of it.
func TestAFileThatIsBeingWrittenIsWaitedFor(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, p *pair) {
		p.writeBoth(t, "tw")
		pass(10500 * time.Millisecond)
		p.writeBoth(t, "two")
		pass(time.Second)
		p.want(t, "one", 0)
		pass(time.Second)
		p.want(t, "two", 0)
	})
}

// Files that never stay the same are judged as they are found.
func TestFilesThatKeepChangingAreAdopted(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, p *pair) {
		for i := range 30 {
			p.writeBoth(t, strings.Repeat("x", i+1))
			pass(time.Second)
		}
		if p.Get() == "one" {
			t.Error("nothing was adopted")
		}
	})
}

func TestAFaultKeepsTheValue(t *testing.T) {
	t.Parallel()
	for name, breakIt := range map[string]func(t *testing.T, p *pair){
		"does not parse": func(t *testing.T, p *pair) { t.Helper(); p.write(t, "a", "odd") },
		"is empty":       func(t *testing.T, p *pair) { t.Helper(); p.write(t, "a", "") },
		"is gone": func(t *testing.T, p *pair) {
			t.Helper()
			if err := os.Remove(p.file("a")); err != nil {
				t.Fatal(err)
			}
		},
		"is a pipe": func(t *testing.T, p *pair) {
			t.Helper()
			if err := errors.Join(os.Remove(p.file("a")), syscall.Mkfifo(p.file("a"), 0o600)); err != nil {
				t.Fatal(err)
			}
		},
		"is too large": func(t *testing.T, p *pair) { t.Helper(); p.write(t, "a", strings.Repeat("x", 5<<20)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T, p *pair) {
				breakIt(t, p)
				pass(12 * time.Second)
				p.want(t, "one", 1)
				pass(590 * time.Second)
				p.want(t, "one", 60)
				if n := p.logs.FilterLevelExact(zapcore.ErrorLevel).Len(); n != 1 {
					t.Errorf("60 failures for one reason made %d records", n)
				}
				p.Reload()
				synctest.Wait()
				if n := p.logs.FilterLevelExact(zapcore.ErrorLevel).Len(); n != 2 {
					t.Errorf("a failure on request made no record")
				}
				for _, record := range p.logs.All() {
					if strings.Contains(record.Message, "odd") {
						t.Error("a record quotes the contents")
					}
				}
				// What was in use before the fault is in use again, and the fault is over.
				_ = os.Remove(p.file("a"))
				p.writeBoth(t, "one")
				pass(12 * time.Second)
				p.want(t, "one", 61)
				pass(time.Minute)
				p.want(t, "one", 61)
			})
		})
	}
}

func TestReloadReadsAtOnce(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, p *pair) {
		p.writeBoth(t, "two")
		p.Reload()
		p.Reload()
		synctest.Wait()
		p.want(t, "two", 0)

		// Also while changed files are waited for.
		pass(9900 * time.Millisecond)
		p.writeBoth(t, "three")
		pass(200 * time.Millisecond)
		p.want(t, "two", 0)
		p.Reload()
		synctest.Wait()
		p.want(t, "three", 0)
	})
}

func TestOpenFailsUnlessTheFilesLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := reload.Open(reload.Config[string]{
		Name: "pair", Files: []string{filepath.Join(dir, "a")}, Parse: parse, Logger: zap.NewNop(),
	})
	if err == nil || !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), "pair: ") {
		t.Errorf("got %v", err)
	}
}
