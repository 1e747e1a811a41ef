//go:build !race

package rest_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/allowance"
	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"
)

// TestAllocationsOfALocalHitOverREST holds what a check costs that the local tier
// answers, from request to response writer: request and call, the request's ID, one
// string for the values of the headers, and the answer's reasons.
func TestAllocationsOfALocalHitOverREST(t *testing.T) {
	limits, err := allowance.New(allowance.Config{Default: allowance.Limit{RequestsPerSecond: 1_000_000, Burst: 1_000_000, Concurrent: 10}})
	if err != nil {
		t.Fatal(err)
	}
	run := servertest.StartWarm(t, api.Config{PlainRecords: 1, Access: apitest.EachRight(), Limits: limits})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, run.REST+"/v1/customers/"+apitest.CustomerA+"/eligibility", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", "gzip") // of a body that is too small for it
	req.Header.Set("Authorization", "check")
	req.Header.Set("Accept-Language", "de-AT,de;q=0.9,en;q=0.8")
	w := &discardWriter{header: make(http.Header)}
	got := apitest.FewestAllocations(func() {
		clear(w.header)
		run.Handler.ServeHTTP(w, req)
		if w.written == 0 {
			t.Fatal("no answer")
		}
	})
	if got > 5 {
		t.Errorf("%v allocations, want at most 5", got)
	}
}

// TestAllocationsOfABatchOverREST holds that a question of a batch adds nothing, from
// request to response writer, also if it names the partner of the one before.
func TestAllocationsOfABatchOverREST(t *testing.T) {
	run := servertest.StartWarm(t, api.Config{PlainRecords: 1})
	const n = 100
	body := bytes.ReplaceAll(holdBatch(run, n), []byte(`"}`), []byte(`","partner":"`+api.DefaultPartner+`"}`))
	req, w := newRequest(t, http.MethodPost, run.REST+batchPath), &discardWriter{header: make(http.Header)}
	sent := bytes.NewReader(nil)
	req.ContentLength, req.Body = int64(len(body)), io.NopCloser(sent)
	got := apitest.FewestAllocations(func() {
		clear(w.header)
		sent.Reset(body)
		run.Handler.ServeHTTP(w, req)
		if w.written < n*100 {
			t.Fatal("no answer")
		}
		w.written = 0
	})
	if got > 17 {
		t.Errorf("%v allocations for %d questions, want at most 17", got, n)
	}
}
