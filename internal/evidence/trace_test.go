package evidence_test

import (
	"context"
	"sync"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// traced checks as a child of a span of that name, and returns the span's context.
func traced(t *testing.T, tracer trace.Tracer, service *evidence.Service, name string, req eligibility.Request) trace.SpanContext {
	t.Helper()
	ctx, span := tracer.Start(context.Background(), name)
	defer span.End()
	_, err := service.Check(ctx, req)
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	return span.SpanContext()
}

func newTracer() (trace.Tracer, *tracetest.SpanRecorder) {
	recorder := tracetest.NewSpanRecorder()
	return sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder)).Tracer("test"), recorder
}

// named returns the ended spans of a name.
func named(recorder *tracetest.SpanRecorder, name string) []sdktrace.ReadOnlySpan {
	var spans []sdktrace.ReadOnlySpan
	for _, span := range recorder.Ended() {
		if span.Name() == name {
			spans = append(spans, span)
		}
	}
	return spans
}

// A fetch is its first caller's; the others are linked to it. The next fetch is
// of who needed it first, not of who started the one before.
func TestAFetchStandsBelowItsFirstCallerAndIsLinkedFromTheOthers(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		tracer, recorder := newTracer()
		source.set(status(eligibility.AccountStatusAllowed).after(time.Second), holding())
		fresh := commercial
		fresh.MaxAgeSet = true
		var callers sync.WaitGroup
		spans := make(map[string]trace.SpanContext)
		var mu sync.Mutex
		for _, caller := range []struct {
			name string
			req  eligibility.Request
		}{{"first", commercial}, {"second", commercial}, {"fresh", fresh}} {
			callers.Go(func() {
				span := traced(t, tracer, service, caller.name, caller.req)
				mu.Lock()
				defer mu.Unlock()
				spans[caller.name] = span
			})
			time.Sleep(time.Millisecond)
		}
		callers.Wait()

		fetches := named(recorder, "fetch account")
		if len(fetches) != 2 || fetches[0].Parent().SpanID() != spans["first"].SpanID() || fetches[1].Parent().SpanID() != spans["fresh"].SpanID() {
			t.Fatalf("fetches %v of callers %v", fetches, spans)
		}
		for name, want := range map[string]int{"first": 0, "second": 1, "fresh": 0} {
			links := 0
			for _, link := range named(recorder, name)[0].Links() {
				if link.SpanContext.SpanID() == fetches[0].SpanContext().SpanID() {
					links++
				}
			}
			if links != want {
				t.Errorf("the %s caller has %d links to the first fetch, want %d", name, links, want)
			}
		}
	})
}

// A fetch whose caller has left is still its caller's, and has an end.
func TestAFetchThatOutlivesItsCallerStaysBelowIt(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		tracer, recorder := newTracer()
		source.set(failing(eligibility.KindThrottled).after(2*time.Second), holding())
		ctx, span := tracer.Start(context.Background(), "leaver")
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := service.Check(short, commercial)
		wantKind(t, err, eligibility.KindDeadlineExceeded)
		span.End()
		time.Sleep(2 * time.Second)
		fetches := named(recorder, "fetch account")
		if len(fetches) != 1 || fetches[0].Parent().SpanID() != span.SpanContext().SpanID() || fetches[0].Status().Description != "throttled" {
			t.Errorf("fetches %v", fetches)
		}
	})
}

// A renewal is nobody's: a trace of its own, linked to the check that saw that
// it was due.
func TestARenewalIsATraceOfItsOwn(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		tracer, recorder := newTracer()
		source.set(status(eligibility.AccountStatusAllowed), holding())
		mustCheck(t, service, commercial)
		time.Sleep(8*time.Minute + 50*time.Second)
		noticing := traced(t, tracer, service, "noticing", commercial)
		time.Sleep(2 * time.Minute)
		renewals, fetches := named(recorder, "renew account"), named(recorder, "fetch account")
		if len(renewals) != 1 || len(fetches) != 1 {
			t.Fatalf("%d renewals and %d fetches", len(renewals), len(fetches))
		}
		renewal := renewals[0]
		if renewal.Parent().IsValid() || renewal.SpanContext().TraceID() == noticing.TraceID() ||
			len(renewal.Links()) != 1 || !renewal.Links()[0].SpanContext.Equal(noticing) {
			t.Errorf("renewal %v", renewal)
		}
		if fetches[0].Parent().SpanID() != renewal.SpanContext().SpanID() {
			t.Errorf("the fetch stands below %v", fetches[0].Parent())
		}
	})
}
