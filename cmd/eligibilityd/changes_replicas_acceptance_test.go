//go:build acceptance

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

// instance is a process of the program that is killed and started again, at the same
// addresses.
type instance struct {
	*process

	environ []string
	cmd     *exec.Cmd
	killed  atomic.Bool   // whether the test has ended cmd by SIGKILL
	exited  chan struct{} // closed when cmd has
}

// startInstance starts the program with the simulator at api.
func startInstance(t *testing.T, api string, environ ...string) *instance {
	t.Helper()
	r := &instance{environ: pcsimtest.Environ(api, pcsimtest.TokenFile(t), environ...)}
	r.restart(t)
	return r
}

// restart starts the process again. It must have ended.
func (r *instance) restart(t *testing.T) {
	t.Helper()
	if r.process != nil {
		for name, address := range map[string]string{"GRPC": r.GRPC, "HTTP": r.HTTP, "ADMIN": r.Admin} {
			entry := "ELIGIBILITY_SERVER__" + name + "__ADDRESS="
			r.environ = append(slices.DeleteFunc(r.environ, func(set string) bool { return strings.HasPrefix(set, entry) }), entry+address)
			awaitFree(t, address)
		}
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd, exited := exec.CommandContext(context.Background(), program, "serve"), make(chan struct{}) //nolint:gosec // the test's own binary
	cmd.Env = slices.Concat(os.Environ(), r.environ, []string{asProgram + "=1"})
	r.cmd, r.exited = cmd, exited
	r.killed.Store(false)
	r.process = start(t, func(ctx context.Context, _, log io.Writer) error {
		defer close(exited)
		cmd.Stderr = &rpcsLeftOut{to: log}
		if err := cmd.Start(); err != nil {
			return err
		}
		defer context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })()
		err := cmd.Wait()
		if _, ended := errors.AsType[*exec.ExitError](err); ended && r.killed.Load() {
			return nil
		}
		return err
	})
}

// kill ends the process by SIGKILL and waits until it has ended.
func (r *instance) kill() {
	r.killed.Store(true)
	_ = r.cmd.Process.Kill()
	<-r.exited
}

// terminate sends SIGTERM and returns how long the process took to exit.
func (r *instance) terminate(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.exited:
	case <-time.After(2 * patience):
		t.Fatal("the process does not exit")
	}
	return time.Since(began)
}

// awaitFree waits until nothing listens at address.
func awaitFree(t *testing.T, address string) {
	t.Helper()
	eventually(t, address+" to be free", func() bool {
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
		if err != nil {
			return false
		}
		return listener.Close() == nil
	})
}

// rpcsLeftOut writes the records of a log except those of calls.
type rpcsLeftOut struct {
	to   io.Writer
	rest []byte // of an incomplete line
}

func (w *rpcsLeftOut) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	for {
		end := bytes.IndexByte(w.rest, '\n')
		if end < 0 {
			return len(p), nil
		}
		if line := w.rest[:end+1]; !bytes.Contains(line, []byte(`"msg":"rpc handled"`)) {
			if _, err := w.to.Write(line); err != nil {
				return 0, err
			}
		}
		w.rest = w.rest[end+1:]
	}
}

// replicas are processes with one Redis and one simulator, and a client of each.
type replicas struct {
	t       *testing.T
	far     simulated
	all     []*instance
	clients []eligibilityv1.EligibilityServiceClient
}

// startReplicas starts n replicas that may call Partner Center as often as they like,
// unless environ limits it.
func startReplicas(t *testing.T, n int, environ ...string) *replicas {
	t.Helper()
	return startReplicasWith(t, simulateApart(t), n, environ...)
}

func startReplicasWith(t *testing.T, far simulated, n int, environ ...string) *replicas {
	t.Helper()
	environ = withDefault(environ, "ELIGIBILITY_PARTNER_CENTER__BUDGET_PER_MINUTE", "1000000")
	environ = withDefault(environ, "ELIGIBILITY_SERVER__DRAIN", "0s")
	f := &replicas{t: t, far: far, all: make([]*instance, n)}
	for i := range f.all {
		f.all[i] = startInstance(t, far.api, environ...)
		f.clients = append(f.clients, eligibilityv1.NewEligibilityServiceClient(dialReplica(t, f.all[i].GRPC)))
	}
	return f
}

// dialReplica returns a connection that soon connects again to a replica that was away.
func dialReplica(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	again := backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 500 * time.Millisecond}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: again, MinConnectTimeout: time.Second}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// some is the index of a random replica.
func (f *replicas) some() int { return rand.IntN(len(f.clients)) }

// now asks a replica about a customer, which asks Partner Center. A replica that was
// started again may not have been connected to yet.
func (f *replicas) now(ctx context.Context, client eligibilityv1.EligibilityServiceClient, id string) (*eligibilityv1.CheckEligibilityResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return client.CheckEligibility(ctx, &eligibilityv1.CheckEligibilityRequest{CustomerId: id, MaxAge: durationpb.New(0)}, grpc.WaitForReady(true))
}

// script gives customers a status.
func (f *replicas) script(ids []string, status string, latency time.Duration) {
	f.t.Helper()
	for _, id := range ids {
		f.far.put(f.t, flipping(id, status, latency))
	}
}

// load asks about customers in turn at a fixed rate, at random replicas, until ctx ends,
// and gives see every answer.
func (f *replicas) load(ctx context.Context, ids []string, aSecond int, see func(*eligibilityv1.CheckEligibilityResponse)) (failed int64) {
	var (
		asking sync.WaitGroup
		errs   atomic.Int64
	)
	began := time.Now()
	for n := 0; pause(ctx, time.Until(began.Add(time.Duration(n)*time.Second/time.Duration(aSecond)))); n++ {
		asking.Go(func() {
			resp, err := f.now(context.WithoutCancel(ctx), f.clients[f.some()], ids[n%len(ids)])
			if err != nil {
				errs.Add(1)
				return
			}
			see(resp)
		})
	}
	asking.Wait()
	return errs.Load()
}

// hammer is load without a rate: each customer once.
func (f *replicas) hammer(ids []string, see func(*eligibilityv1.CheckEligibilityResponse)) {
	f.t.Helper()
	next := make(chan string)
	var asking sync.WaitGroup
	for range 32 {
		asking.Go(func() {
			for id := range next {
				resp, err := f.now(f.t.Context(), f.clients[f.some()], id)
				if err != nil {
					f.t.Errorf("a check of %s: %v", id, err)
					continue
				}
				see(resp)
			}
		})
	}
	for _, id := range ids {
		next <- id
	}
	close(next)
	asking.Wait()
}

// seconds is a duration for a table.
func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
