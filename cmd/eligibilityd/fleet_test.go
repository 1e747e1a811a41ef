package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

// slowID is a customer for whom Partner Center answers slowly; slowIDs are all
// such customers.
const slowID = "b0000000-0000-4000-8000-000000000001"

var slowIDs = []string{slowID, "b0000000-0000-4000-8000-000000000002", "b0000000-0000-4000-8000-000000000003", "b0000000-0000-4000-8000-000000000004"}

// slowSimulator returns a simulator that answers about slowIDs after latency.
func slowSimulator(t *testing.T, latency time.Duration) (sim *pcsim.Server, url string) {
	t.Helper()
	sim, on := pcsimtest.Start(t)
	for _, id := range slowIDs {
		if err := sim.SetCustomer(pcsim.Customer{
			ID:             id,
			Account:        []pcsim.Step{{Status: "Allowed", Latency: latency}},
			Qualifications: []pcsim.Step{{Items: []pcsim.Qualification{}, Latency: latency}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	return sim, on.URL
}

// onFleet returns the variables of replicas that share one Redis.
func onFleet(redis *cachetest.Redis) []string {
	return []string{
		"ELIGIBILITY_CACHE__REDIS__ADDRESSES=" + redis.Address,
		"ELIGIBILITY_CACHE__REDIS__READ_TIMEOUT=5s", // a loaded test machine is slow
		"ELIGIBILITY_CACHE__REDIS__WRITE_TIMEOUT=5s",
	}
}

// askAll asks every replica about a customer concurrently, and counts the
// answers that are ALLOWED.
func askAll(t *testing.T, fleet []*process, id string, callers int) (allowed int64) {
	t.Helper()
	var count atomic.Int64
	var asking sync.WaitGroup
	for _, replica := range fleet {
		conn, err := grpc.NewClient(replica.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		client := eligibilityv1.NewEligibilityServiceClient(conn)
		for range callers {
			asking.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				resp, err := client.CheckEligibility(ctx, &eligibilityv1.CheckEligibilityRequest{
					CustomerId: id, Segment: eligibilityv1.Segment_SEGMENT_EDUCATION,
				})
				if err != nil {
					t.Errorf("no answer: %v", err)
				} else if resp.GetAccountStatus() == eligibilityv1.AccountStatus_ACCOUNT_STATUS_ALLOWED && resp.GetQualificationsKnown() {
					count.Add(1)
				}
			})
		}
	}
	asking.Wait()
	return count.Load()
}

func TestTheFleetAsksOnceAboutAColdCustomer(t *testing.T) {
	t.Parallel()
	sim, partnerCenter := slowSimulator(t, 500*time.Millisecond)
	redis := cachetest.StartRedis(t)
	fleet := make([]*process, 20)
	var starting sync.WaitGroup
	for i := range fleet {
		starting.Go(func() { fleet[i] = startServe(t, partnerCenter, onFleet(redis)...) })
	}
	starting.Wait()
	// If the scheduler starves a process for a second, it loses its lease and
	// another one fetches too. So on a busy machine some customers are fetched
	// twice.
	for _, id := range slowIDs {
		before := sim.Stats()
		if n := askAll(t, fleet, id, 50); n != 1000 {
			t.Errorf("%d of 1000 callers got the answer of Partner Center", n)
		}
		stats := sim.Stats()
		account, qualifications := stats.Account-before.Account, stats.Qualifications-before.Qualifications
		if account == 1 && qualifications == 1 {
			return
		}
		t.Logf("%d account and %d qualifications calls", account, qualifications)
	}
	t.Error("no customer was asked about once")
}

// The replica that holds the lease is killed while Partner Center has not
// answered.
func TestTheFleetAsksOnceMoreWhenTheHolderIsKilled(t *testing.T) {
	t.Parallel()
	sim, partnerCenter := slowSimulator(t, 2*time.Second)
	redis := cachetest.StartRedis(t)
	fleet := []*process{startServe(t, partnerCenter, onFleet(redis)...), startServe(t, partnerCenter, onFleet(redis)...)}
	for _, id := range slowIDs { // more than one for the same reason as above
		before := sim.Stats()
		calls := func() (account, qualifications uint64) {
			stats := sim.Stats()
			return stats.Account - before.Account, stats.Qualifications - before.Qualifications
		}
		holder, kill := startProgram(t, toServe(t, partnerCenter, onFleet(redis)...), "serve")
		go func() {
			conn, err := grpc.NewClient(holder.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				return
			}
			defer func() { _ = conn.Close() }()
			_, _ = eligibilityv1.NewEligibilityServiceClient(conn).CheckEligibility(t.Context(),
				&eligibilityv1.CheckEligibilityRequest{CustomerId: id, Segment: eligibilityv1.Segment_SEGMENT_EDUCATION})
		}()
		eventually(t, "the holder's calls", func() bool {
			account, qualifications := calls()
			return account == 1 && qualifications == 1
		})
		answered := make(chan int64)
		go func() { answered <- askAll(t, fleet, id, 50) }()
		kill()
		if n := <-answered; n != 100 {
			t.Errorf("%d of 100 callers received the answer of Partner Center", n)
		}
		account, qualifications := calls()
		if account == 2 && qualifications == 2 {
			return
		}
		t.Logf("%d account and %d qualifications calls", account, qualifications)
	}
	t.Error("no customer was asked about once more")
}

// startProgram runs the program as a separate process, which kill ends with
// SIGKILL.
func startProgram(t *testing.T, environ []string, args ...string) (p *process, kill func()) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return startBinary(t, program, environ, args...)
}

// startBinary is startProgram for another program, or another release of it.
func startBinary(t *testing.T, program string, environ []string, args ...string) (p *process, kill func()) {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), program, args...) //nolint:gosec // the test's own binary, or one that it built
	cmd.Env = append(os.Environ(), append(environ, asProgram+"=1")...)
	kill = sync.OnceFunc(func() { _ = cmd.Process.Kill() })
	p = start(t, func(ctx context.Context, _, log io.Writer) error {
		cmd.Stderr = log
		if err := cmd.Start(); err != nil {
			return err
		}
		defer context.AfterFunc(ctx, kill)()
		if _, exited := errors.AsType[*exec.ExitError](cmd.Wait()); !exited {
			return errors.New("the program ended by itself")
		}
		return nil
	})
	return p, kill
}
