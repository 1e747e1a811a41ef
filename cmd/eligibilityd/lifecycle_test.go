package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// soon bounds the exit of a process on a busy machine. If a process exits only
// because its drain was cut off, its exit code differs.
const soon = 25 * time.Second

// program is the program as a separate process whose standard error is a pipe.
type program struct {
	addresses
	process *os.Process
	stderr  *os.File
	lines   *bufio.Scanner // of stderr
	exited  chan int       // its exit code
}

// launch starts the program and reads its standard error until it is serving.
func launch(t *testing.T, stdout *os.File, environ []string, args ...string) *program {
	t.Helper()
	name, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return launchFile(t, name, stdout, environ, args...)
}

// launchFile is launch for the program in that file.
func launchFile(t *testing.T, name string, stdout *os.File, environ []string, args ...string) *program {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.Background(), name, args...) //nolint:gosec // the test's own binary, or one that the caller names
	cmd.Env = append(os.Environ(), append(environ, asProgram+"=1")...)
	cmd.Stderr = writer
	if stdout != nil {
		cmd.Stdout = stdout
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = writer.Close()
	p := &program{process: cmd.Process, stderr: reader, lines: bufio.NewScanner(reader), exited: make(chan int, 1)}
	go func() {
		_ = cmd.Wait() // only the exit code matters
		p.exited <- cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = reader.Close()
		<-p.exited
	})
	serving := p.await(t, `"msg":"serving"`)
	if err := json.Unmarshal([]byte(serving), &p.addresses); err != nil {
		t.Fatal(err)
	}
	return p
}

// await reads standard error up to the first line that contains text.
func (p *program) await(t *testing.T, text string) string {
	t.Helper()
	_ = p.stderr.SetReadDeadline(time.Now().Add(patience)) // or it fails at the first line
	for p.lines.Scan() {
		if strings.Contains(p.lines.Text(), text) {
			return p.lines.Text()
		}
	}
	t.Fatalf("standard error ended without %s", text)
	return ""
}

func (p *program) signal(t *testing.T, signal os.Signal) {
	t.Helper()
	if err := p.process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

// exits waits for the process to end and returns its exit code.
func (p *program) exits(t *testing.T) int {
	t.Helper()
	select {
	case code := <-p.exited:
		p.exited <- code
		return code
	case <-time.After(soon):
		t.Fatalf("the process did not exit within %v", soon)
		return 0
	}
}

// answers asks n questions whose records together exceed the buffer of a pipe.
func (p *program) answers(t *testing.T, n int) {
	t.Helper()
	client := http.Client{Timeout: patience}
	defer client.CloseIdleConnections()
	for i := range n {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://%s/v1/customers/no-guid-%d/eligibility", p.HTTP, i), http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("question %d of %d: %v", i, n, err)
		}
		_ = resp.Body.Close()
	}
}

// allRecords configures the log to write a record for each question.
const allRecords = "ELIGIBILITY_LOG__FAILURES_PER_SECOND=1000000"

// The service answers and exits even if nothing reads its log.
func TestTheLogNeverStopsTheService(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		stdout func(*testing.T) *os.File
		upset  func(*testing.T, *program)
	}{
		"nothing reads":     {fullPipe, func(*testing.T, *program) {}},
		"the reader leaves": {brokenPipe, func(_ *testing.T, p *program) { _ = p.stderr.Close() }},
		"the terminal is closed": {brokenPipe, func(t *testing.T, p *program) {
			t.Helper()
			_ = p.stderr.Close()
			p.signal(t, syscall.SIGHUP)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := launch(t, row.stdout(t), anyPort(allRecords), "dev", "--control-address", "127.0.0.1:0")
			row.upset(t, p)
			p.answers(t, 500) // more than 128 KiB
			p.signal(t, syscall.SIGTERM)
			if code := p.exits(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// A crash is printed to standard error before the process exits.
func TestACrashEndsTheProcessAlthoughNothingReadsItsLog(t *testing.T) {
	t.Parallel()
	p := launch(t, nil, anyPort(allRecords), "dev", "--control-address", "127.0.0.1:0")
	p.answers(t, 500)
	p.signal(t, syscall.SIGQUIT) // the runtime prints all stacks, as after a panic
	if code := p.exits(t); code != 2 {
		t.Errorf("exit code %d", code)
	}
}

// fullPipe returns the write end of a pipe that is full and that nothing reads.
func fullPipe(t *testing.T) *os.File {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = reader.Close()
		_ = writer.Close()
	})
	if err := writer.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := writer.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("fill the pipe: %v", err)
	}
	return writer
}

// brokenPipe returns the write end of a pipe whose reader is closed.
func brokenPipe(t *testing.T) *os.File {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = reader.Close()
	t.Cleanup(func() { _ = writer.Close() })
	return writer
}

func TestASecondSignalEndsTheDrain(t *testing.T) {
	t.Parallel()
	p := launch(t, nil, anyPort("ELIGIBILITY_SERVER__DRAIN=1h"), "dev", "--control-address", "127.0.0.1:0")
	p.awaitReady(t)
	p.signal(t, os.Interrupt)
	p.await(t, `"msg":"draining"`)
	p.signal(t, syscall.SIGTERM)
	p.await(t, `"msg":"stopped"`)
	if code := p.exits(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestASignalBeforeReadySkipsTheDrain(t *testing.T) {
	t.Parallel()
	away := httptest.NewServer(http.NotFoundHandler())
	away.Close()
	p := launch(t, nil, toServe(t, away.URL, "ELIGIBILITY_SERVER__DRAIN=1h"), "serve")
	p.signal(t, syscall.SIGTERM)
	if code := p.exits(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
