package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/tracing/tracingtest"
)

const (
	traceOfCaller = "0af7651916cd43dd8448eb211c80319c"
	spanOfCaller  = "b7ad6b7169203331"
)

// headerRecorder is a Partner Center that records the headers it receives.
type headerRecorder struct {
	http.Handler
	mu      sync.Mutex
	headers []http.Header
}

func (h *headerRecorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	h.headers = append(h.headers, r.Header.Clone())
	h.mu.Unlock()
	h.Handler.ServeHTTP(w, r)
}

// A traced question is one tree from the caller to Partner Center, over either
// transport. Partner Center receives no trace header.
func TestATraceLeadsFromTheCallerToPartnerCenter(t *testing.T) {
	t.Parallel()
	sim, err := pcsim.New(pcsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	partnerCenter := &headerRecorder{Handler: sim.Handler()}
	upstream := httptest.NewServer(partnerCenter)
	defer upstream.Close()
	defer sim.Close()
	collector := tracingtest.Start(t)
	p := startServe(t, upstream.URL,
		"ELIGIBILITY_CACHE__REDIS__ADDRESSES="+cachetest.StartRedis(t).Address,
		"ELIGIBILITY_POLICY__QUALIFICATIONS_GRACE=20s",
		"ELIGIBILITY_SERVER__DEFAULT_TIMEOUT=30s",
		"ELIGIBILITY_TRACING__ENDPOINT="+collector.URL,
		"ELIGIBILITY_TRACING__SAMPLE_RATIO=0")

	traced := "00-" + traceOfCaller + "-" + spanOfCaller + "-01"
	askTraced(t, p, allowedID, traced)
	getTraced(t, p, underReviewID, traced)
	// Neither is traced: the caller decided against it, or sent no decision.
	askTraced(t, p, notAllowedID, "00-"+traceOfCaller+"-"+spanOfCaller+"-00")
	getTraced(t, p, notAllowedID, "")
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}

	below := `
  check
    fetch account [request request.resend_count=0 status=200 ok]
      redis put
    fetch qualifications [request request.resend_count=0 status=200 ok]
      redis put
    redis load`
	want := "GET /v1/customers/{customer_id}/eligibility" + below +
		"\neligibility.v1.EligibilityService/CheckEligibility" + below + "\n"
	if diff := cmp.Diff(want, tree(collector.Spans())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, span := range collector.Spans() {
		if got := hex.EncodeToString(span.GetTraceId()); got != traceOfCaller {
			t.Errorf("%s is of trace %s", span.GetName(), got)
		}
		if span.GetKind() == tracev1.Span_SPAN_KIND_SERVER && hex.EncodeToString(span.GetParentSpanId()) != spanOfCaller {
			t.Errorf("%s does not stand below the caller's span", span.GetName())
		}
	}
	for _, header := range partnerCenter.headers {
		for name := range header {
			if strings.HasPrefix(strings.ToLower(name), "trace") {
				t.Errorf("Partner Center was sent %s", name)
			}
		}
	}
}

// If the caller sent no traceparent, a service that samples returns its own.
func TestATraceOfOurOwnIsReturnedToTheCaller(t *testing.T) {
	t.Parallel()
	sim, err := pcsim.New(pcsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	upstream := httptest.NewServer(sim.Handler())
	defer upstream.Close()
	defer sim.Close()
	collector := tracingtest.Start(t)
	p := startServe(t, upstream.URL, "ELIGIBILITY_TRACING__ENDPOINT="+collector.URL, "ELIGIBILITY_TRACING__SAMPLE_RATIO=1")
	returned := []string{askTraced(t, p, allowedID, ""), getTraced(t, p, underReviewID, "")}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, span := range collector.Spans() {
		if len(span.GetParentSpanId()) == 0 {
			want = append(want, fmt.Sprintf("00-%x-%x-01", span.GetTraceId(), span.GetSpanId()))
		}
	}
	slices.Sort(want)
	slices.Sort(returned)
	if diff := cmp.Diff(want, returned); diff != "" {
		t.Errorf("traceparents (-sent to the collector +returned to the caller):\n%s", diff)
	}
	for _, parent := range returned {
		if id := strings.Split(parent, "-")[1]; !strings.Contains(p.log.String(), `"trace_id":"`+id+`"`) {
			t.Errorf("trace %s is not in the log", id)
		}
	}
}

// askTraced asks over gRPC and returns the traceparent of the response.
func askTraced(t *testing.T, p *process, customer, traceparent string) string {
	t.Helper()
	conn, err := grpc.NewClient(p.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if traceparent != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", traceparent)
	}
	var header metadata.MD
	if _, err := eligibilityv1.NewEligibilityServiceClient(conn).CheckEligibility(ctx,
		&eligibilityv1.CheckEligibilityRequest{CustomerId: customer}, grpc.Header(&header)); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(header.Get("traceparent"), ",")
	if traceparent != "" && got != traceparent {
		t.Errorf("gRPC: traceparent %q came back as %q", traceparent, got)
	}
	return got
}

// getTraced asks over REST and returns the traceparent of the response.
func getTraced(t *testing.T, p *process, customer, traceparent string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.HTTP+"/v1/customers/"+customer+"/eligibility", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if traceparent != "" {
		req.Header.Set("Traceparent", traceparent)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	got := strings.Join(resp.Header.Values("Traceparent"), ",")
	if resp.StatusCode != http.StatusOK || traceparent != "" && got != traceparent {
		t.Errorf("REST: status %d, traceparent %q came back as %q", resp.StatusCode, traceparent, got)
	}
	return got
}

// tree draws each span below its parent, with every level sorted.
func tree(spans []*tracev1.Span) string {
	known := make(map[string]bool)
	for _, span := range spans {
		known[string(span.GetSpanId())] = true
	}
	var draw func(parent, indent string) string
	draw = func(parent, indent string) string {
		var lines []string
		for _, span := range spans {
			above := string(span.GetParentSpanId())
			if !known[above] {
				above = ""
			}
			if above == parent {
				lines = append(lines, indent+span.GetName()+events(span)+"\n"+draw(string(span.GetSpanId()), indent+"  "))
			}
		}
		slices.Sort(lines)
		return strings.Join(lines, "")
	}
	return draw("", "")
}

// events returns a span's events, with the attributes that never vary.
func events(span *tracev1.Span) string {
	var text strings.Builder
	for _, event := range span.GetEvents() {
		fmt.Fprintf(&text, " [%s", event.GetName())
		for _, attribute := range event.GetAttributes() {
			switch attribute.GetKey() {
			case "http.request.resend_count":
				fmt.Fprintf(&text, " request.resend_count=%d", attribute.GetValue().GetIntValue())
			case "http.response.status_code":
				fmt.Fprintf(&text, " status=%d", attribute.GetValue().GetIntValue())
			case "eligibility.outcome":
				text.WriteString(" " + attribute.GetValue().GetStringValue())
			}
		}
		text.WriteString("]")
	}
	return text.String()
}
