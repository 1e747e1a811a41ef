package evidence_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// exported returns every metric that is not 0, by name and label values.
func exported(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			name := family.GetName()
			for _, label := range metric.GetLabel() {
				name += " " + label.GetValue()
			}
			if value := metric.GetCounter().GetValue() + metric.GetGauge().GetValue(); value != 0 {
				values[name] = value
			}
		}
	}
	return values
}

func TestMetricsCountTheTiersOfAnswers(t *testing.T) {
	registry := prometheus.NewRegistry()
	bubble(t, evidence.Config{Registerer: registry}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		source.set(status(eligibility.AccountStatusAllowed).after(time.Second), holding().after(time.Second))
		for range 2 {
			go func() { _, _ = service.Check(t.Context(), commercial) }()
		}
		synctest.Wait()
		time.Sleep(time.Second / 2)
		if age := exported(t, registry)["eligibility_oldest_flight_seconds"]; age != 0.5 {
			t.Errorf("the oldest fetch is %v s old", age)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		mustCheck(t, service, commercial)
		time.Sleep(30 * time.Minute)
		source.set(failing(eligibility.KindThrottled), failing(eligibility.KindUnavailable))
		mustCheck(t, service, commercial)
		want := map[string]float64{
			"eligibility_answers_total fresh partner_center": 2,
			"eligibility_answers_total fresh local":          1,
			"eligibility_answers_total stale local":          1,
			"eligibility_stale_answers_total throttled":      1,
			"eligibility_flights_total joined":               2,
			"eligibility_flights_total led":                  4,
		}
		if diff := cmp.Diff(want, exported(t, registry)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
