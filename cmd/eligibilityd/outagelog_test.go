package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
)

// With Redis, Partner Center, the login host, the feed and both collectors failing at
// once, and callers who ask as fast as they can, no kind of record exceeds its limit.
func TestAnOutageDoesNotFillTheDisk(t *testing.T) {
	t.Parallel()
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "canary text of the far side", http.StatusServiceUnavailable)
	}))
	defer broken.Close()
	redis := cachetest.StartRedis(t)
	const limit = 5
	p := startServe(t, broken.URL,
		"ELIGIBILITY_CACHE__REDIS__ADDRESSES="+redis.Address, fmt.Sprint("ELIGIBILITY_LOG__FAILURES_PER_SECOND=", limit),
		"ELIGIBILITY_METRICS__OTLP__ENDPOINT=http://127.0.0.1:1", "ELIGIBILITY_METRICS__OTLP__INTERVAL=1s",
		"ELIGIBILITY_TRACING__ENDPOINT=http://127.0.0.1:1")
	redis.Kill()
	conn, err := grpc.NewClient(p.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	client := eligibilityv1.NewEligibilityServiceClient(conn)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // as long as it asks
	defer cancel()
	var asking sync.WaitGroup
	for caller := range 8 {
		asking.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				_, _ = client.CheckEligibility(ctx, &eligibilityv1.CheckEligibilityRequest{CustomerId: fmt.Sprintf("%08x-0000-4000-8000-%012x", caller, i)})
				_, _ = client.BatchCheckEligibility(ctx, &eligibilityv1.BatchCheckEligibilityRequest{Requests: []*eligibilityv1.CheckEligibilityRequest{{CustomerId: "x"}}})
			}
		})
	}
	asking.Wait()
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	written, leftOut := make(map[string]int), 0
	for line := range strings.Lines(p.log.String()) {
		var record struct {
			Time, Level, Logger, Msg, Error string
			RPC                             string `json:"rpc"`
			LeftOut                         int    `json:"left_out"`
		}
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if strings.Contains(line, "canary") {
			t.Errorf("text of the far side: %s", line)
		}
		leftOut += record.LeftOut
		if record.Level == "info" && record.Msg != "rpc handled" || record.Error == "" && record.Msg == "rpc handled" {
			continue
		}
		reason, _, _ := strings.Cut(strings.TrimPrefix(record.Error, "eligibility: "), ":")
		if record.Msg != "rpc handled" {
			reason = record.Logger
		}
		written[record.Time[:len("2026-11-28T14:02:03")]+" "+record.Msg+" "+reason]++
	}
	for kind, n := range written {
		if n > 2*limit { // those admitted at the end of a second may be written in the next
			t.Errorf("%d records: %s", n, kind)
		}
	}
	if len(written) < 3 || leftOut < 10 {
		t.Errorf("%d kinds of record, %d left out: the outage is none", len(written), leftOut)
	}
	t.Logf("%d left out; written each second: %v", leftOut, written)
}
