package eligibility_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// The lifetime under another policy, derived from the one that a record has, is that
// which the ages give under that policy, with the customer known or not.
func TestALifetimeIsDerivedUnderAnotherPolicy(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		age := func(label string) eligibility.Age {
			fresh := time.Duration(rapid.Int64Range(int64(time.Second), int64(48*time.Hour)).Draw(rt, label)) // in less, two jitters may give one lifetime
			return eligibility.Age{Fresh: fresh, Usable: fresh + time.Millisecond + time.Duration(rapid.Int64Range(int64(fresh/5), int64(48*time.Hour)).Draw(rt, label))}
		}
		ages := eligibility.DefaultAges()
		if rapid.Bool().Draw(rt, "other ages") {
			ages.Allowed, ages.Pending = age("allowed"), age("pending")
		}
		policy := func() eligibility.Policy {
			return eligibility.Policy{NotReadyAllowed: rapid.Bool().Draw(rt, "not ready"), AllowReducing: rapid.Bool().Draw(rt, "reducing")}
		}
		from, to := policy(), policy()
		key := eligibility.Key{CustomerID: eligibility.CustomerID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(rt, "customer"))}
		wall, elapsed := time.Now().Round(0), time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(rt, "age"))
		setBack := rapid.SampledFrom([]time.Duration{0, 0, time.Minute, 3 * time.Hour}).Draw(rt, "set back")
		evidence := &eligibility.Evidence{Status: eligibility.AccountStatus(rapid.Uint8Range(1, 7).Draw(rt, "status"))}
		evidence.SetFetchTime(clockReading(wall, time.Hour))
		now := clockReading(wall.Add(elapsed-setBack), time.Hour+elapsed)
		operation := eligibility.Operation(rapid.Uint8Range(0, 5).Draw(rt, "operation"))
		was := ages.LifetimeOf(key, evidence, from, operation, now)
		want := ages.LifetimeOf(key, evidence, to, operation, now)
		for _, known := range []*eligibility.Key{&key, nil} {
			got, ok := ages.LifetimeUnder(from, to, was, known, evidence, operation)
			if !ok || !got.FreshUntil.Equal(want.FreshUntil) || !got.UsableUntil.Equal(want.UsableUntil) {
				rt.Fatalf("customer known: %v: %v, %v; want %v", known != nil, got, ok, want)
			}
		}
	})
}
