package webhooks_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/eligibilityd/eligibilityd/internal/webhooks"
)

// hangingStore is a store whose lease can be renewed until it hangs.
type hangingStore struct {
	*webhooks.Memory

	hangs   atomic.Bool
	renewed atomic.Int64 // when, in Unix ms
}

func (s *hangingStore) Acquire(ctx context.Context, name, holder string, life time.Duration, oldest time.Time) (webhooks.Status, error) {
	if s.hangs.Load() {
		time.Sleep(3 * time.Second) // of the bubble
		return webhooks.Status{}, errBroken
	}
	s.renewed.Store(time.Now().UnixMilli())
	return s.Memory.Acquire(ctx, name, holder, life, oldest)
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A request of a holder that cannot renew its lease must not reach the receiver after
// those of the next holder.
func TestRequestsEndWithTheLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, store := newFeed(), &hangingStore{Memory: webhooks.NewMemory()}
		s := webhooks.New(configOf(f, store))
		var late atomic.Int64
		var ended atomic.Int32
		var answers atomic.Bool
		last := &receiver{}
		s.SetTransport(transport(func(r *http.Request) (*http.Response, error) {
			if answers.Load() {
				return last.RoundTrip(r)
			}
			store.hangs.Store(true)
			<-r.Context().Done()
			late.Store(time.Now().UnixMilli() - store.renewed.Load() - webhooks.LeaseLife.Milliseconds())
			ended.Add(1)
			return nil, r.Context().Err()
		}))
		stop := start(t, s)
		synctest.Wait()
		f.add(1)
		pass(9 * time.Second) // an attempt may last 10 s
		if ended.Load() != 1 || late.Load() > 0 {
			t.Errorf("%d requests ended, %d ms after the lease", ended.Load(), late.Load())
		}
		answers.Store(true)
		store.hangs.Store(false)
		pass(20 * time.Second)
		if got := last.accepted(); len(got) != 1 {
			t.Errorf("with the lease again: accepted %v", got)
		}
		stop()
	})
}

func TestAWebhookThatNobodySendsIsSeen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		metrics, err := webhooks.NewMetrics(registry)
		if err != nil {
			t.Fatal(err)
		}
		f, store := newFeed(), &hangingStore{Memory: webhooks.NewMemory()}
		cfg := configOf(f, store)
		cfg.Metrics = metrics
		held := func(want string) {
			t.Helper()
			text := "# HELP eligibility_webhook_held 1 if this replica sends the changes of the webhook; one replica in the fleet does.\n" +
				"# TYPE eligibility_webhook_held gauge\neligibility_webhook_held{webhook=\"orders\"} " + want + "\n"
			if err := testutil.GatherAndCompare(registry, strings.NewReader(text), "eligibility_webhook_held"); err != nil {
				t.Error(err)
			}
		}
		s := webhooks.New(cfg)
		s.SetTransport(&receiver{})
		held("0")
		stop := start(t, s)
		pass(3 * time.Second)
		held("1")
		f.mu.Lock()
		f.err = errBroken
		close(f.grown)
		f.grown = make(chan struct{})
		f.mu.Unlock()
		pass(20 * time.Minute)
		if lag := gauge(t, registry, "eligibility_webhook_lag_seconds"); lag < 900 {
			t.Errorf("the feed has not been readable for 20 min, and the lag is %v s", lag)
		}
		store.hangs.Store(true)
		pass(20 * time.Second)
		held("0")
		store.hangs.Store(false)
		stop()
	})
}

func gauge(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			return family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return -1
}
