package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

const (
	startLimit = time.Minute     // how long a process may take to answer
	stopLimit  = 5 * time.Second // how long it may take to end once asked to
	lastWords  = 4 << 10         // how much of its output is kept for an error
)

// process is a server that runs beside the driver.
type process struct {
	name   string
	cmd    *exec.Cmd
	output tail
	ended  chan struct{} // closed once it has ended
}

// start starts a program. Its output, such as its log, is written to a pipe
// that this process reads, as in a container.
func start(name, path string, environ []string, args ...string) (*process, error) {
	p := &process{name: name, ended: make(chan struct{})}
	// stop ends it, and not a context, so that it can shut down in order.
	p.cmd = exec.CommandContext(context.Background(), path, args...) //nolint:gosec // the user names the program to measure
	p.cmd.Env = append(os.Environ(), environ...)
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // await or stop reports the failure with its last output
		close(p.ended)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop asks the process to end, and kills it if it has not after stopLimit.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // if it has ended, it needs no signal
	select {
	case <-p.ended:
	case <-time.After(stopLimit):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// await polls until the process is ready.
func (p *process) await(ctx context.Context, every time.Duration, ready func(context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for !ready(ctx) {
		select {
		case <-tick.C:
		case <-p.ended:
			return fmt.Errorf("%s has ended:\n%s", p.name, p.output.String())
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w\n%s", p.name, ctx.Err(), p.output.String())
		}
	}
	return nil
}

// accepts reports whether something listens at address.
func accepts(address string) func(context.Context) bool {
	return func(ctx context.Context) bool {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		return err == nil && conn.Close() == nil
	}
}

// answers reports whether a GET returns 200.
func answers(url string) func(context.Context) bool {
	return func(ctx context.Context) bool {
		_, err := get(ctx, url)
		return err == nil
	}
}

// get returns the body of a URL if the status is 200.
func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	return body, nil
}

// freeAddresses sets each to a different loopback address on which nothing
// listened just now.
func freeAddresses(ctx context.Context, addresses ...*string) (err error) {
	for _, address := range addresses {
		listener, listenErr := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if listenErr != nil {
			return fmt.Errorf("free address: %w", listenErr)
		}
		// Close none until all are known, or the next might be the same.
		defer func() { err = errors.Join(err, listener.Close()) }() //nolint:gocritic,revive // four at most
		*address = listener.Addr().String()
	}
	return nil
}

// tail keeps the end of the text that is written to it.
type tail struct {
	mu  sync.Mutex
	end []byte
}

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = append(t.end, b[max(0, len(b)-lastWords):]...)
	if extra := len(t.end) - lastWords; extra > 0 {
		t.end = append(t.end[:0], t.end[extra:]...)
	}
	return len(b), nil
}

// String returns what is kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.end)
}
