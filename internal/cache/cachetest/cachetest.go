// Package cachetest starts real redis-servers for tests and holds the
// conformance suite that every evidence.Store passes.
//
// [StartRedis], [StartSentinel] and [StartCluster] start servers, the methods of
// [TLS] the same with TLS. All end with the test, and none has a fixed port.
package cachetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// startLimit is how long a server may need to reach the state that a test requires.
const startLimit = 2 * time.Minute

// Redis is a real redis-server or sentinel, without persistence. It ends with
// the test. A test controls it by a unix socket, whatever else it listens on.
type Redis struct {
	// Address is what cache.RedisConfig.Addresses takes.
	Address string

	tb     testing.TB
	dir    string
	socket string
	args   []string
	server *exec.Cmd
	ended  chan struct{} // closed when server has ended
	stalls bool
}

// StartRedis starts a redis-server on a unix socket and waits until it answers.
func StartRedis(tb testing.TB) *Redis {
	tb.Helper()
	r := newRedis(tb)
	r.Address = "unix://" + r.socket
	r.args = []string{"--port", "0"}
	r.Start()
	return r
}

// newRedis is a server that has a place and is not started.
func newRedis(tb testing.TB) *Redis {
	tb.Helper()
	// A socket's path may have no more than 108 bytes, which t.TempDir exceeds.
	dir, err := os.MkdirTemp("", "redis") //nolint:usetesting // for the reason above
	if err != nil {
		tb.Fatal(err)
	}
	r := &Redis{tb: tb, dir: dir, socket: filepath.Join(dir, "s")}
	tb.Cleanup(func() {
		r.Kill()
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	return r
}

// startOnPort starts the server on a free port: args are its arguments for a
// port.
func (r *Redis) startOnPort(args func(port string) []string) {
	r.tb.Helper()
	var err error
	for range 20 {
		port := freePort(r.tb)
		r.args = args(port)
		r.Address = "127.0.0.1:" + port
		if err = r.start(); err == nil {
			return
		}
		r.Kill() // another process has the port
	}
	r.tb.Fatal(err)
}

// Start starts the server again after Kill, empty, and waits until it answers.
// A node of a cluster is the same node as before.
func (r *Redis) Start() {
	r.tb.Helper()
	if err := r.start(); err != nil {
		r.tb.Fatal(err)
	}
}

func (r *Redis) start() error {
	args := append([]string(nil), r.args...)
	r.server = exec.CommandContext(context.Background(), "redis-server", append(args, //nolint:gosec // our own arguments
		"--unixsocket", r.socket, "--save", "", "--appendonly", "no", "--dir", r.dir)...)
	log, err := os.Create(r.logFile())
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the server has it
	r.server.Stdout, r.server.Stderr = log, log
	if err := r.server.Start(); err != nil {
		r.server = nil
		return fmt.Errorf("start redis-server (make test installs it): %w", err)
	}
	server, ended := r.server, make(chan struct{})
	r.ended = ended
	go func() {
		defer close(ended)
		_ = server.Wait()
	}()
	return r.await("answer", func(ctx context.Context, client *redis.Client) error {
		if _, err := os.Stat(r.socket); err != nil {
			return err // too early; the client would log that it cannot connect
		}
		// If another process has the port, the wrong server answers.
		info, err := client.Info(ctx, "server").Result()
		if err == nil && !strings.Contains(info, "process_id:"+strconv.Itoa(server.Process.Pid)+"\r\n") {
			err = errors.New("another server answers")
		}
		return err
	})
}

func (r *Redis) logFile() string { return filepath.Join(r.dir, "log") }

// await asks the server until it is what a test asked for, or ends, or the
// limit is over.
func (r *Redis) await(what string, is func(ctx context.Context, client *redis.Client) error) error {
	client := r.Client()
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := is(ctx, client)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
			continue
		case <-r.ended:
		case <-ctx.Done():
		}
		log, _ := os.ReadFile(r.logFile())
		return fmt.Errorf("redis-server %s ended or did not %s within %v: %w\n%s", r.Address, what, startLimit, err, log)
	}
}

// must is await, and fails the test.
func (r *Redis) must(what string, is func(ctx context.Context, client *redis.Client) error) {
	r.tb.Helper()
	if err := r.await(what, is); err != nil {
		r.tb.Fatal(err)
	}
}

// Kill ends the server with SIGKILL and waits for its end.
func (r *Redis) Kill() {
	if r.server == nil {
		return
	}
	_ = r.server.Process.Kill()
	<-r.ended
	r.server, r.stalls = nil, false
	_ = os.Remove(r.socket)
}

// Stall stops the server in its tracks: it keeps its connections and answers
// nothing until Resume.
func (r *Redis) Stall() {
	r.signal(syscall.SIGSTOP)
	r.stalls = true
}

// Resume ends a Stall.
func (r *Redis) Resume() {
	r.signal(syscall.SIGCONT)
	r.stalls = false
}

// works reports whether the server can answer, as far as the test's doing goes.
func (r *Redis) works() bool { return r.server != nil && !r.stalls }

func (r *Redis) signal(sig syscall.Signal) {
	if err := r.server.Process.Signal(sig); err != nil {
		r.tb.Errorf("signal redis-server: %v", err)
	}
}

// Flush removes every key.
func (r *Redis) Flush() {
	r.tb.Helper()
	client := r.Client()
	defer func() { _ = client.Close() }()
	if err := client.FlushAll(context.Background()).Err(); err != nil {
		r.tb.Error(err)
	}
}

// Client connects to the server as a second application would, with all rights
// and without TLS. The caller closes it.
func (r *Redis) Client() *redis.Client {
	return redis.NewClient(&redis.Options{
		Network: "unix", Addr: r.socket, MaxRetries: -1, DialerRetries: 1, DisableIdentity: true,
		ReadTimeout: time.Second, // a server that stalls must not delay the next try
	})
}

// Refusals are the ways in which a server refuses writes but serves reads, by the
// error code of the refusal.
func Refusals() []string { return []string{"MISCONF", "OOM", "NOREPLICAS", "READONLY"} }

// RefuseWrites makes the server refuse writes with an error code of [Refusals],
// until AcceptWrites.
func (r *Redis) RefuseWrites(code string) {
	r.tb.Helper()
	switch code {
	case "MISCONF": // it cannot rename what it has saved
		if err := os.MkdirAll(filepath.Join(r.dir, "dump.rdb", "in the way"), 0o700); err != nil {
			r.tb.Fatal(err)
		}
		r.do("CONFIG", "SET", "save", "3600 1000")
		r.do("BGSAVE")
	case "OOM":
		r.do("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1")
	case "NOREPLICAS":
		r.do("CONFIG", "SET", "min-replicas-to-write", "1")
	case "READONLY":
		r.do("REPLICAOF", "127.0.0.1", "1")
	default:
		r.tb.Fatalf("no refusal %q", code)
	}
	r.must("refuse writes", func(ctx context.Context, client *redis.Client) error {
		if err := client.Set(ctx, "a write", "1", 0).Err(); !redis.HasErrorPrefix(err, code) {
			return fmt.Errorf("a write: %w", err)
		}
		return nil
	})
}

// AcceptWrites ends all that RefuseWrites did.
func (r *Redis) AcceptWrites() {
	r.tb.Helper()
	r.do("CONFIG", "SET", "save", "", "maxmemory", "0", "min-replicas-to-write", "0")
	r.do("REPLICAOF", "NO", "ONE")
	r.must("accept writes", func(ctx context.Context, client *redis.Client) error {
		return client.Set(ctx, "a write", "1", time.Millisecond).Err()
	})
}

func (r *Redis) do(args ...any) {
	r.tb.Helper()
	client := r.Client()
	defer func() { _ = client.Close() }()
	if err := client.Do(context.Background(), args...).Err(); err != nil {
		r.tb.Fatalf("%v: %v", args, err)
	}
}
