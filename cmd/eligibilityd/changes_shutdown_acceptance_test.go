//go:build acceptance

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
)

// streamOverREST receives a stream over REST and returns the reason with which it ended
// and when. begun is called with the first message.
func streamOverREST(ctx context.Context, client *http.Client, url, accept string, begun func()) (reason string, at time.Time, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", at, err
	}
	req.Header.Set("Accept", accept)
	resp, err := client.Do(req)
	if err != nil {
		return "", at, err
	}
	defer func() { _ = resp.Body.Close() }()
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(got, accept) {
		return "", at, fmt.Errorf("%s with %s", resp.Status, got)
	}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		line := strings.TrimPrefix(lines.Text(), "data: ")
		if !strings.HasPrefix(line, "{") {
			continue
		}
		if begun != nil {
			begun()
			begun = nil
		}
		var message struct{ End struct{ Reason string } }
		if err := json.Unmarshal([]byte(line), &message); err != nil {
			return reason, at, fmt.Errorf("%q: %w", line, err)
		}
		if message.End.Reason != "" {
			reason, at = message.End.Reason, time.Now()
		}
	}
	return reason, at, lines.Err()
}

// changesAtShutdown ends a replica with 1,000 streams of each kind by SIGTERM.
func changesAtShutdown(t *testing.T) string { //nolint:thelper // a test of its own
	const streams, drain, slack = 1000, 5 * time.Second, 2 * time.Second
	f := startReplicas(t, 1, append(onFleet(cachetest.StartRedis(t)), "ELIGIBILITY_SERVER__DRAIN="+drain.String())...)
	one := f.all[0]
	id := coldID('1', 0)
	f.script([]string{id}, accountWords[0], 0)
	f.hammer([]string{id}, func(*eligibilityv1.CheckEligibilityResponse) {})

	var (
		clients []eligibilityv1.EligibilityServiceClient
		mu      sync.Mutex
		ends    []time.Time
		begun   sync.WaitGroup
		all     sync.WaitGroup
	)
	for range 4 {
		clients = append(clients, eligibilityv1.NewEligibilityServiceClient(dialReplica(t, one.GRPC)))
	}
	ended := func(i int, reason string, at time.Time, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil || !strings.HasSuffix(reason, "DRAINING") {
			t.Errorf("stream %d ended with %q, %v", i, reason, err)
		}
		ends = append(ends, at)
	}
	rest := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: streams}}
	defer rest.CloseIdleConnections()
	ctx, leave := context.WithTimeout(t.Context(), 2*patience)
	defer leave()
	begun.Add(streams)
	for i := range streams {
		all.Go(func() {
			begin := sync.OnceFunc(begun.Done)
			defer begin()
			if accept := map[int]string{0: "text/event-stream", 1: "application/x-ndjson"}[i%5]; accept != "" {
				reason, at, err := streamOverREST(ctx, rest, "http://"+one.HTTP+"/v1/eligibility:watch?customer_ids="+id, accept, begin)
				ended(i, reason, at, err)
				return
			}
			stream, err := clients[i%4].WatchEligibility(ctx, &eligibilityv1.WatchEligibilityRequest{CustomerIds: []string{id}})
			reason, at := "", time.Time{}
			for err == nil {
				var message *eligibilityv1.WatchEligibilityResponse
				if message, err = stream.Recv(); message.GetEnd() != nil {
					reason, at = message.GetEnd().GetReason().String(), time.Now()
				}
				begin()
			}
			if err.Error() == "EOF" {
				err = nil
			}
			ended(i, reason, at, err)
		})
	}
	begun.Wait()
	terminated := time.Now()
	took := one.terminate(t)
	all.Wait()
	if took > drain+slack {
		t.Errorf("exit after %v, want at most %v", took, drain+slack)
	}
	counts, last := make([]int, 5), time.Duration(0) // a fifth of the drain → ends in it
	for _, at := range ends {
		after := at.Sub(terminated)
		last = max(last, after)
		counts[min(max(0, int(after*5/drain)), 4)]++
	}
	for part, n := range counts {
		if n > streams/2 {
			t.Errorf("%d of %d streams ended in part %d of the drain: %v", n, streams, part, counts)
		}
	}
	if counts[0]+counts[1] == 0 || len(ends) != streams {
		t.Errorf("ends by fifths of the drain: %v", counts)
	}
	return fmt.Sprintf("600 over gRPC, 200 server-sent events, 200 NDJSON; each ended with `DRAINING` and OK, %v in the fifths of a drain of %v, the last one after %s; exit after %s",
		counts, drain, seconds(last), seconds(took))
}
