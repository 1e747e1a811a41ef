// Package cachetest starts real redis-servers for tests and holds the
// conformance suite that every eligibility.Store passes.
package cachetest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// startLimit is how long a redis-server may take to answer its first PING.
const startLimit = 20 * time.Second

// Redis is a real redis-server on a unix socket, without persistence. It ends
// with the test.
type Redis struct {
	// Address is what cache.RedisConfig.Addresses takes.
	Address string

	tb     testing.TB
	dir    string
	socket string
	server *exec.Cmd
}

// StartRedis starts a redis-server and waits until it answers.
func StartRedis(tb testing.TB) *Redis {
	tb.Helper()
	// A socket's path may have no more than 108 bytes, which t.TempDir exceeds.
	dir, err := os.MkdirTemp("", "redis") //nolint:usetesting // for the reason above
	if err != nil {
		tb.Fatal(err)
	}
	r := &Redis{tb: tb, dir: dir, socket: filepath.Join(dir, "s")}
	r.Address = "unix://" + r.socket
	tb.Cleanup(func() {
		r.Kill()
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	r.Start()
	return r
}

// Start starts the server again after Kill, empty, and waits until it answers.
func (r *Redis) Start() {
	r.tb.Helper()
	r.server = exec.CommandContext(context.Background(), "redis-server", //nolint:gosec // our own directory
		"--port", "0", "--unixsocket", r.socket, "--save", "", "--appendonly", "no", "--dir", r.dir)
	if err := r.server.Start(); err != nil {
		r.tb.Fatalf("start redis-server (make test installs it): %v", err)
	}
	if err := r.awaitPing(); err != nil {
		r.tb.Fatal(err)
	}
}

func (r *Redis) awaitPing() error {
	client := r.Client()
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := client.Ping(ctx).Err()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("redis-server did not answer within %v: %w", startLimit, err)
		}
	}
}

// Kill ends the server with SIGKILL and waits for its end.
func (r *Redis) Kill() {
	if r.server == nil {
		return
	}
	_ = r.server.Process.Kill()
	_ = r.server.Wait()
	r.server = nil
}

// Stall stops the server in its tracks: it keeps its connections and answers
// nothing until Resume.
func (r *Redis) Stall() { r.signal(syscall.SIGSTOP) }

// Resume ends a Stall.
func (r *Redis) Resume() { r.signal(syscall.SIGCONT) }

func (r *Redis) signal(sig syscall.Signal) {
	if err := r.server.Process.Signal(sig); err != nil {
		r.tb.Errorf("signal redis-server: %v", err)
	}
}

// Client connects to the server as a second application would. The caller
// closes it.
func (r *Redis) Client() *redis.Client {
	return redis.NewClient(&redis.Options{Network: "unix", Addr: r.socket, MaxRetries: -1, DialerRetries: 1})
}
