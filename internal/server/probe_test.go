package server_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eligibilityd/eligibilityd/internal/server/servertest"
)

// heldCollector is a collector that reports when it is asked, and then waits.
type heldCollector struct{ asked, answer chan struct{} }

func (heldCollector) Describe(chan<- *prometheus.Desc) {}

func (c heldCollector) Collect(chan<- prometheus.Metric) {
	c.asked <- struct{}{}
	<-c.answer
}

// Scrapes, each of which takes a processor, are bounded, and hold up no probe.
func TestScrapesInProgressAreBounded(t *testing.T) {
	t.Parallel()
	for _, listener := range []string{"probe", "admin"} {
		run := servertest.Start(t, servertest.Setup{})
		base := map[string]string{"probe": run.Probe, "admin": run.Admin}[listener]
		c := heldCollector{make(chan struct{}), make(chan struct{})}
		run.Registry.MustRegister(c)
		done := make(chan int)
		scrape := func() { done <- run.Do(t, http.MethodGet, base+"/metrics", "").StatusCode }
		for range 4 {
			go scrape()
			<-c.asked
		}
		go scrape()
		left := 4
		select {
		case code := <-done:
			if code != http.StatusServiceUnavailable {
				t.Errorf("one scrape too many: %d", code)
			}
		case <-c.asked:
			t.Error("one scrape too many is collected")
			left++
		}
		if got := run.Do(t, http.MethodGet, base+"/healthz", ""); got.StatusCode != http.StatusOK {
			t.Errorf("healthz: %d", got.StatusCode)
		}
		close(c.answer)
		for range left {
			if code := <-done; code != http.StatusOK {
				t.Errorf("a scrape: %d", code)
			}
		}
	}
}

// A flood of connections does not cut off an answer.
func TestAScrapeInProgressKeepsItsConnection(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{})
	c := heldCollector{make(chan struct{}), make(chan struct{})}
	run.Registry.MustRegister(c)
	for _, base := range []string{run.Probe, run.Admin} {
		done := make(chan error)
		go func() {
			resp, err := http.Get(base + "/metrics") //nolint:noctx // our own server
			if err == nil {
				err = resp.Body.Close()
			}
			done <- err
		}()
		<-c.asked
		for range 100 {
			connect(t, strings.TrimPrefix(base, "http://"), nil)
		}
		// It comes after all of them, and it is answered.
		if got := run.Do(t, http.MethodGet, base+"/healthz", ""); got.StatusCode != http.StatusOK {
			t.Errorf("healthz: %d", got.StatusCode)
		}
		c.answer <- struct{}{}
		if err := <-done; err != nil {
			t.Errorf("the scrape in progress: %v", err)
		}
	}
}
