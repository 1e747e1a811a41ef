//go:build acceptance

package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/tracing/tracingtest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// canaryPrefix begins the ids of customers, in every form but those of bytes, and
// nothing else.
const canaryPrefix = "ca9a47e5"

// recordOfHashedCustomers looks for the ids of customers in all that the program writes.
func recordOfHashedCustomers(t *testing.T) string { //nolint:thelper // a test of its own
	dir, far, collector := t.TempDir(), simulateApart(t), tracingtest.Start(t)
	path, key := filepath.Join(dir, "decisions.jsonl"), filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte(strings.Repeat("0123456789abcdef", 3)), 0o600); err != nil {
		t.Fatal(err)
	}
	p := logged(t, far, path, append(onFleet(cachetest.StartRedis(t)),
		"ELIGIBILITY_DECISION_LOG__CUSTOMER_IDS=hashed", "ELIGIBILITY_DECISION_LOG__HASH_KEY_FILE="+key, "ELIGIBILITY_DECISION_LOG__MAX_BYTES=1MiB",
		"ELIGIBILITY_LOG__LEVEL=debug", "ELIGIBILITY_LOG__PLAIN_PER_SECOND=100000", "ELIGIBILITY_LOG__FAILURES_PER_SECOND=100000",
		"ELIGIBILITY_TRACING__ENDPOINT="+collector.URL, "ELIGIBILITY_TRACING__SAMPLE_RATIO=1")...)
	canaries := askOfCanaries(t, far, p)
	eventually(t, "spans", func() bool { return len(collector.Spans()) > 100 })
	_, _, metrics := get(t, "http://"+p.Admin+"/metrics")
	_, _, ready := get(t, "http://"+p.Admin+"/readyz?verbose")
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	places := map[string]string{"standard output": p.out.String(), "standard error": p.log.String(), "metrics": metrics, "readyz": ready}
	var spans strings.Builder
	for _, req := range collector.Requests() {
		spans.WriteString(protojson.Format(req))
	}
	places["traces"] = spans.String()
	records, files := 0, logFiles(t, path)
	for _, file := range files {
		places[file] = wholeFile(t, file)
		records += strings.Count(places[file], "\n")
	}
	for place, text := range places {
		if text == "" && place != "standard output" {
			t.Errorf("%s: nothing", place)
		}
		for _, form := range []string{canaryPrefix, "\xca\x9a\x47\xe5"} {
			if at := strings.Index(strings.ToLower(text), form); at >= 0 {
				t.Errorf("%s has an id: %.300s", place, text[max(0, at-150):])
			}
		}
	}
	out, log, code := runProgram(t, append([]string{"log", "--customer", canaries[0], "--hash-key-file", key, "--json"}, files...)...)
	found := strings.Count(out, "\n")
	if code != 0 || found == 0 {
		t.Errorf("log finds %d records with the key: exit code %d, %.500s", found, code, log)
	}
	if _, log, code = runProgram(t, append([]string{"replay"}, files...)...); code != 0 {
		t.Errorf("replay: exit code %d, %.500s", code, log)
	}
	return fmt.Sprintf("the ids of %d customers, in any form, are neither in %d records in %d files nor in access log, metrics, traces and standard output; `log --customer` finds them with the key, and `replay` needs none",
		len(canaries), records, len(files))
}

// askOfCanaries asks every kind of question about customers and returns their ids.
func askOfCanaries(t *testing.T, far simulated, p *process) (canaries []string) {
	t.Helper()
	all := cast()
	broken := append(brokenAnswers(), brokenConnections()[0])
	for i := range all {
		id := fmt.Sprintf("%s-0000-4000-9000-%012x", canaryPrefix, 0xfeed0000+i)
		canaries = append(canaries, id)
		all[i].customer.ID = id
		far.put(t, all[i].customer)
		if i%5 == 4 && all[i].customer.Tenant == "" {
			failing := all[i].customer
			failing.Account = []pcsim.Step{broken[i/5%len(broken)]}
			far.put(t, failing)
		}
	}
	c := newAskers(t, nil, p)
	client := eligibilityv1.NewEligibilityServiceClient(p.dial(t))
	if _, err := client.PrefetchEligibility(t.Context(), &eligibilityv1.PrefetchEligibilityRequest{CustomerIds: canaries[:20]}); err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		for i, id := range canaries {
			for _, via := range []string{"grpc", "rest"} {
				req := &eligibilityv1.CheckEligibilityRequest{CustomerId: id, Segment: eligibilityv1.Segment(i % 5)}
				switch round {
				case 1:
					req.CustomerId = strings.ToUpper(strings.ReplaceAll(id, "-", ""))
				case 2:
					req.CustomerId, req.MaxAge = "{"+id+"}", durationpb.New(0)
				}
				c.ask(t.Context(), 0, "anonymous", via, false, req)
				c.ask(t.Context(), 0, "anonymous", via, true, req, about(canaries[(i+1)%len(canaries)]))
			}
			// Refused: the id is of no customer, or the question is malformed.
			c.ask(t.Context(), 0, "anonymous", "rest", false, about(id+"0"))
			c.ask(t.Context(), 0, "anonymous", "grpc", false, &eligibilityv1.CheckEligibilityRequest{CustomerId: id, Partner: "none"})
		}
	}
	for _, id := range canaries[:30] {
		get(t, "http://"+p.HTTP+"/v1/customers/"+id+"/eligibility:explain") // whatever the answer
	}
	watching, err := client.WatchEligibility(metadata.AppendToOutgoingContext(t.Context(), "x-request-id", "watch"), &eligibilityv1.WatchEligibilityRequest{CustomerIds: canaries[:10]})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watching.Recv(); err != nil {
		t.Fatal(err)
	}
	pause(t.Context(), time.Second) // until the log is written
	return canaries
}

// wholeFile returns the contents of a file, unzipped.
func wholeFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(name, ".gz") {
		return string(text)
	}
	from, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if text, err = io.ReadAll(from); err != nil {
		t.Fatal(err)
	}
	return string(text)
}
