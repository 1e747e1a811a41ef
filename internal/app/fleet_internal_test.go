package app

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/console"
	"github.com/eligibilityd/eligibilityd/internal/webhooks"
)

// hangingMetrics are metrics that are read for as long as a test wants.
type hangingMetrics struct{ begun, end chan struct{} }

func (m *hangingMetrics) Gather() ([]*dto.MetricFamily, error) {
	m.begun <- struct{}{}
	<-m.end
	return nil, nil
}

// Metrics that hang delay the page by a second, and are read by one goroutine however
// many pages are opened. The page states that they are missing.
func TestTheFleetIsReadWithinASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		metrics := &hangingMetrics{begun: make(chan struct{}, 100), end: make(chan struct{})}
		reader := (&App{}).newFleetReader(Build{Version: "1.2.3"}, metrics)
		for range 3 {
			began := time.Now()
			fleet := reader.read(t.Context())
			if took := time.Since(began); took != fleetWithin || fleet.Process != nil || !slices.Equal(fleet.Unread, []console.FleetUnread{{Name: "the metrics of this replica"}}) {
				t.Errorf("after %v: %+v", took, fleet)
			}
		}
		if n := len(metrics.begun); n != 1 {
			t.Errorf("the metrics are read %d times", n)
		}
		close(metrics.end)
		synctest.Wait()
		if fleet := reader.read(t.Context()); fleet.Process == nil || len(fleet.Unread) > 0 || fleet.Version != "1.2.3" {
			t.Errorf("afterwards: %+v", fleet)
		}
	})
}

// hangingStore is a store of webhooks that does not answer.
type hangingStore struct{ webhooks.Store }

func (hangingStore) Inspect(ctx context.Context, _ string) (webhooks.Status, error) {
	<-ctx.Done()
	return webhooks.Status{}, ctx.Err()
}

// A Redis that hangs delays the page by a second, however many webhooks there are. Each
// is named as not read.
func TestTheFleetIsReadWithinASecondIfRedisHangs(t *testing.T) {
	t.Parallel()
	metrics, err := webhooks.NewMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	a := &App{cfg: new(config.Config)}
	for _, name := range []string{"orders", "audit"} {
		sender := webhooks.New(webhooks.Config{Name: name, Metrics: metrics, Logger: zap.NewNop()})
		a.cfg.Webhooks = append(a.cfg.Webhooks, config.Webhook{Name: name, URL: "https://hooks.example.com/x"})
		a.webhooks = append(a.webhooks, webhook{partner: "default", store: hangingStore{}, sender: sender})
	}
	synctest.Test(t, func(t *testing.T) {
		ready := &hangingMetrics{begun: make(chan struct{}, 1), end: make(chan struct{})}
		close(ready.end)
		began := time.Now()
		fleet := a.newFleetReader(Build{}, ready).read(t.Context())
		want := []console.FleetUnread{{Name: "the webhook orders", Partner: "default"}, {Name: "the webhook audit", Partner: "default"}}
		if took := time.Since(began); took != fleetWithin || !slices.Equal(fleet.Unread, want) || fleet.Process == nil || fleet.Webhooks[1].Host != "hooks.example.com" {
			t.Errorf("after %v: %+v", took, fleet)
		}
	})
}
