//go:build acceptance

package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

var (
	checksASecond = flag.Int("checks", 1000, "checks a second while Redis fails")
	soakTime      = flag.Duration("soak", 15*time.Minute, "how long the soak lasts")
	outageTime    = flag.Duration("outage", time.Minute, "how long Redis and Partner Center are both away")
)

// fleet is several replicas of the service with one Partner Center that answers
// after 100 ms.
type fleet struct {
	t        *testing.T
	far      *pcsim.Server
	away     atomic.Bool // if set, Partner Center and the login host break every connection
	replicas []*process
	clients  []eligibilityv1.EligibilityServiceClient

	mu    sync.Mutex
	calls map[int64]int // Unix second → calls of Partner Center; guarded by mu
}

func startFleet(t *testing.T, replicas int, environ ...string) *fleet {
	t.Helper()
	far, err := pcsim.New(pcsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{t: t, far: far, calls: map[int64]int{}}
	on := httptest.NewServer(f)
	t.Cleanup(func() {
		far.Close()
		on.Close()
	})
	for range replicas {
		own := pcsimtest.Environ(on.URL, pcsimtest.TokenFile(t), slices.Concat(environ, []string{"ELIGIBILITY_SERVER__DRAIN=0s"})...)
		replica := start(t, func(ctx context.Context, out, log io.Writer) error {
			return serve(ctx, own, "", false, out, withoutRPCs{log})
		})
		f.replicas = append(f.replicas, replica)
		f.clients = append(f.clients, eligibilityv1.NewEligibilityServiceClient(replica.dial(t)))
	}
	return f
}

// withoutRPCs drops the records of calls, because every check would add one.
type withoutRPCs struct{ io.Writer }

func (w withoutRPCs) Write(record []byte) (int, error) {
	if strings.Contains(string(record), `"msg":"rpc handled"`) {
		return len(record), nil
	}
	return w.Writer.Write(record)
}

func (f *fleet) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if !strings.HasSuffix(req.URL.Path, "/token") {
		f.mu.Lock()
		f.calls[time.Now().Unix()]++
		f.mu.Unlock()
	}
	if f.away.Load() {
		panic(http.ErrAbortHandler)
	}
	f.far.Handler().ServeHTTP(w, req)
}

// called returns how many calls a second Partner Center received in that time,
// and in its busiest second.
func (f *fleet) called(from, to time.Time) (mean float64, busiest int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	total := 0
	for second, n := range f.calls {
		if second >= from.Unix() && second < max(to.Unix(), from.Unix()+1) {
			total, busiest = total+n, max(busiest, n)
		}
	}
	return float64(total) / float64(max(to.Unix()-from.Unix(), 1)), busiest
}

// customers creates customers with that status.
func (f *fleet) customers(family byte, n int, status string) []string {
	f.t.Helper()
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("%c0000000-0000-4000-9000-%012x", family, i)
		err := f.far.SetCustomer(pcsim.Customer{
			ID:             ids[i],
			Account:        []pcsim.Step{{Status: status, Latency: 100 * time.Millisecond}},
			Qualifications: []pcsim.Step{{Items: []pcsim.Qualification{}, Latency: 100 * time.Millisecond}},
		})
		if err != nil {
			f.t.Fatal(err)
		}
	}
	return ids
}

// checked is the outcome of one check.
type checked struct {
	replica int
	id      string
	asked   time.Time
	took    time.Duration
	resp    *eligibilityv1.CheckEligibilityResponse
	err     error
}

// check asks without a deadline, so that the service's own of two seconds
// applies.
func (f *fleet) check(ctx context.Context, replica int, id string) checked {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer time.AfterFunc(patience, cancel).Stop()
	c := checked{replica: replica, id: id, asked: time.Now()}
	c.resp, c.err = f.clients[replica].CheckEligibility(ctx, &eligibilityv1.CheckEligibilityRequest{CustomerId: id})
	c.took = time.Since(c.asked)
	return c
}

// warm asks every replica about every customer. It spreads the checks over that
// time, so that the local entries do not all expire at once.
func (f *fleet) warm(ids []string, over time.Duration) {
	f.t.Helper()
	var asking sync.WaitGroup
	for i, id := range ids {
		asking.Go(func() {
			for r := range f.replicas {
				if c := f.check(f.t.Context(), (i+r)%len(f.replicas), id); c.err != nil {
					f.t.Errorf("warming: %v", c.err)
				}
			}
		})
		pause(f.t.Context(), over/time.Duration(len(ids)))
	}
	asking.Wait()
}

// ask sends checks at a fixed rate until ctx ends, about random customers to
// random replicas, whether or not earlier ones were answered. It returns the
// greatest delay of a check that the machine caused.
func (f *fleet) ask(ctx context.Context, ids []string, aSecond int, see func(checked)) (late time.Duration) {
	var asking sync.WaitGroup
	defer asking.Wait()
	began := time.Now()
	for n := 0; ctx.Err() == nil; {
		due := began.Add(time.Duration(n) * time.Second / time.Duration(aSecond))
		if wait := time.Until(due); wait > 0 {
			pause(ctx, max(wait, 2*time.Millisecond))
			continue
		}
		late = max(late, time.Since(due))
		n++
		asking.Go(func() {
			see(f.check(context.WithoutCancel(ctx), rand.IntN(len(f.replicas)), ids[rand.IntN(len(ids))]))
		})
	}
	return late
}

// redisAt returns the variables of a service that uses that server.
func redisAt(address string) []string {
	return []string{"ELIGIBILITY_CACHE__REDIS__ADDRESSES=" + address}
}

func sentinelAt(set *cachetest.Sentinel) []string {
	return append(redisAt(strings.Join(set.Addresses, ",")),
		"ELIGIBILITY_CACHE__REDIS__MODE=sentinel", "ELIGIBILITY_CACHE__REDIS__SENTINEL__MASTER_NAME="+set.MasterName)
}

func clusterAt(cluster *cachetest.Cluster) []string {
	return append(redisAt(strings.Join(cluster.Addresses, ",")), "ELIGIBILITY_CACHE__REDIS__MODE=cluster")
}
