package evidence_test

import (
	"context"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// BenchmarkCheckLocalHit is the hot path without transport: both facets fresh
// in the local tier.
func BenchmarkCheckLocalHit(b *testing.B) {
	store, err := cache.New(cache.Config{})
	if err != nil {
		b.Fatal(err)
	}
	source := &scripted{account: status(eligibility.AccountStatusAllowed), held: holding(qualification(eligibility.QualificationEducation, eligibility.VettingApproved))}
	service, err := evidence.New(source, store, evidence.Config{})
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	for name, req := range map[string]eligibility.Request{"commercial": commercial, "education": education()} {
		if _, err := service.Check(ctx, req); err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := service.Check(ctx, req); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
