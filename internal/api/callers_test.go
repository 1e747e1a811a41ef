package api

import (
	"fmt"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"github.com/eligibilityd/eligibilityd/internal/access"
)

// However many names callers come with, metrics hold a hundred of them, those of the
// configuration before all others.
func TestMetricsNameAHundredCallers(t *testing.T) {
	t.Parallel()
	m := newCallerMetrics([]string{"configured", "also"})
	var calls sync.WaitGroup
	for worker := range 4 {
		calls.Go(func() {
			for i := range 5000 {
				m.of(&access.Caller{Name: fmt.Sprintf("hostile-%d", i*(worker+1))}).count(codes.OK)
			}
		})
	}
	calls.Wait()
	for _, caller := range []*access.Caller{{Name: "configured"}, {Name: "also"}, {Name: "bad \xff"}, nil} {
		m.of(caller).count(codes.PermissionDenied)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(m.requests)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	total, seen := 0.0, make(map[string]float64)
	for _, metric := range families[0].GetMetric() {
		name := metric.GetLabel()[0].GetValue()
		total, seen[name] = total+metric.GetCounter().GetValue(), seen[name]+metric.GetCounter().GetValue()
	}
	if total != 20_004 || len(seen) != maxNamedCallers+2 || seen["configured"] != 1 || seen["also"] != 1 || seen[unknownCallers] != 1 || seen[otherCallers] < 10_000 {
		t.Errorf("%v requests of %d callers: %v", total, len(seen), seen)
	}
	if size := len(*m.named.Load()); size != maxNamedCallers {
		t.Errorf("%d names are kept", size)
	}
}
