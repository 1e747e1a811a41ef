package api

import (
	"math"
	"testing"

	"go.opentelemetry.io/otel/trace"

	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
)

func TestTheCallerDecidesWhatIsTraced(t *testing.T) {
	t.Parallel()
	sampled, unsampled := ParseTraceparent(apitest.ExampleTrace), ParseTraceparent(apitest.ExampleTrace[:len(apitest.ExampleTrace)-2]+"00")
	random := ParseTraceparent(apitest.ExampleTrace[:len(apitest.ExampleTrace)-2] + "02")
	spans, _ := apitest.RecordSpans()
	for name, row := range map[string]struct {
		spans  trace.Tracer
		ratio  float64
		parent Traceparent
		want   bool
	}{
		"off":                              {nil, 1, sampled, false},
		"the caller traces":                {spans, 0, sampled, true},
		"the caller does not":              {spans, 1, unsampled, false},
		"nor with another flag":            {spans, 1, random, false},
		"nobody decides, ratio 1":          {spans, 1, "", true},
		"nobody decides, ratio 0":          {spans, 0, "", false},
		"off, and nobody decides, ratio 1": {nil, 1, "", false},
	} {
		tracer := newTracer(row.spans, row.ratio)
		for range 1000 {
			if got := tracer.Samples(row.parent); got != row.want {
				t.Errorf("%s: %v", name, got)
				break
			}
		}
	}
}

func TestTheRatioIsKept(t *testing.T) {
	t.Parallel()
	spans, _ := apitest.RecordSpans()
	const n = 200_000
	for _, ratio := range []float64{0.01, 0.25, 0.9} {
		tracer := newTracer(spans, ratio)
		taken := 0
		for range n {
			if tracer.Samples("") {
				taken++
			}
		}
		// Six standard deviations: once in half a billion runs.
		if off := math.Abs(float64(taken) - n*ratio); off > 6*math.Sqrt(n*ratio*(1-ratio)) {
			t.Errorf("%d of %d at ratio %v", taken, n, ratio)
		}
	}
}
