//go:build acceptance

package main

import (
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

func changesRows() []proof {
	return []proof{
		{"Flips", "1,000 customers flip while three replicas are killed in turn and 50 watchers reconnect by token", changesOfFlips},
		{"Failover", "Sentinel replaces a primary whose last writes no replica has", changesAfterFailover},
		{"Watchers", "10,000 watchers at one replica", changesToManyWatchers},
		{"Retention", "a watcher of silent customers, with a retention of 60 s", changesOfSilentCustomers},
		{"Browser", "`EventSource` in Chromium on a page of another origin, behind nginx with an idle timeout of 60 s", changesInABrowser},
		{"Shutdown", "SIGTERM with 1,000 streams", changesAtShutdown},
		{"Reviews", "500 customers under review that no caller checks, of whom 50 flip; one of three replicas is killed", changesByReviews},
		{"Share", "20,000 tracked reviews and a budget of 600 a minute", changesWithASmallBudget},
		{"Pipeline", "`examples/pipeline` with the orders of 200 customers under review", changesForAPipeline},
	}
}

// Each row runs the real program, a real Redis and the simulator. The figures go into
// the table of docs/changes.md.
func TestAcceptanceChanges(t *testing.T) { //nolint:paralleltest // it measures
	prove(t, "changes", changesRows())
}

// flipping is a customer with that status and without qualifications.
func flipping(id, status string, latency time.Duration) pcsim.Customer {
	return pcsim.Customer{
		ID:             id,
		Account:        []pcsim.Step{{Status: status, Latency: latency}},
		Qualifications: []pcsim.Step{{Items: []pcsim.Qualification{}, Latency: latency}},
	}
}

func changingIDs(family byte, n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = coldID(family, i)
	}
	return ids
}
