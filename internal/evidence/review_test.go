package evidence_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

func TestReview(t *testing.T) {
	t.Parallel()
	account, held := eligibility.Key{CustomerID: customer}, eligibility.Key{CustomerID: customer, Facet: eligibility.FacetQualifications}
	underReview := status(eligibility.AccountStatusUnderReview).after(time.Second)
	review := func(t *testing.T, service *evidence.Service, key eligibility.Key) evidence.Reviewed {
		t.Helper()
		got, err := service.Review(t.Context(), key)
		if err != nil || got.Evidence == nil {
			t.Fatalf("%+v, %v", got, err)
		}
		return got
	}
	for name, test := range map[string]func(t *testing.T, service *evidence.Service, source *unsent){
		"fetches, although the evidence is fresh": func(t *testing.T, service *evidence.Service, source *unsent) {
			mustCheck(t, service, commercial)
			time.Sleep(30 * time.Second)
			if got := review(t, service, account); !got.UnderReview {
				t.Errorf("%+v", got)
			}
			if n := source.count(eligibility.FacetAccount); n != 2 {
				t.Errorf("%d calls, want 2", n)
			}
			if lane := source.lanes[account]; lane != evidence.LaneReview {
				t.Errorf("lane %v", lane)
			}
		},
		"what was fetched just now serves": func(t *testing.T, service *evidence.Service, source *unsent) {
			mustCheck(t, service, commercial)
			time.Sleep(28 * time.Second)
			if got := review(t, service, account); !got.UnderReview {
				t.Errorf("%+v", got)
			}
			if n := source.count(eligibility.FacetAccount); n != 1 {
				t.Errorf("%d calls, want 1", n)
			}
		},
		"the review ended": func(t *testing.T, service *evidence.Service, source *unsent) {
			for _, end := range []outcome{status(eligibility.AccountStatusAllowed), status(eligibility.AccountStatusNotAllowed), absent(eligibility.AbsenceNotFound)} {
				source.set(end, holding())
				if got := review(t, service, account); got.UnderReview {
					t.Errorf("%+v", got.Evidence)
				}
				time.Sleep(time.Minute)
			}
		},
		"qualifications": func(t *testing.T, service *evidence.Service, source *unsent) {
			source.set(underReview, holding(qualification(eligibility.QualificationEducation, eligibility.VettingInReview)))
			if got := review(t, service, held); !got.UnderReview {
				t.Errorf("%+v", got.Evidence)
			}
			if n := source.count(eligibility.FacetAccount); n != 0 {
				t.Errorf("%d calls about the account", n)
			}
		},
		"many at once share one call": func(t *testing.T, service *evidence.Service, source *unsent) {
			done := make(chan error, 10)
			for range cap(done) {
				go func() {
					_, err := service.Review(context.Background(), account)
					done <- err
				}()
			}
			for range cap(done) {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
			if n := source.count(eligibility.FacetAccount); n != 1 {
				t.Errorf("%d calls, want 1", n)
			}
		},
		"a caller who waits raises its lane": func(t *testing.T, service *evidence.Service, source *unsent) {
			blocked := make(chan struct{})
			source.release = blocked
			reviewed := make(chan error, 1)
			go func() {
				_, err := service.Review(context.Background(), account)
				reviewed <- err
			}()
			synctest.Wait()
			if room := service.ReviewRoom(t.Context()); room != 99 {
				t.Errorf("room for %d beside the one that waits", room)
			}
			checked := make(chan error, 1)
			go func() {
				_, err := service.Check(context.Background(), commercial)
				checked <- err
			}()
			synctest.Wait()
			close(blocked)
			if err := errors.Join(<-checked, <-reviewed); err != nil {
				t.Error(err)
			}
			if lane, n := source.lanes[account], source.count(eligibility.FacetAccount); lane != evidence.LaneCheckout || n != 1 {
				t.Errorf("lane %v, %d calls", lane, n)
			}
		},
		"a failure": func(t *testing.T, service *evidence.Service, source *unsent) {
			mustCheck(t, service, commercial)
			time.Sleep(time.Minute)
			for _, kind := range []eligibility.Kind{eligibility.KindUnavailable, eligibility.KindThrottled, eligibility.KindCredentials, eligibility.KindInvalidResponse} {
				source.set(failing(kind), holding())
				_, err := service.Review(t.Context(), account)
				wantKind(t, err, kind)
			}
		},
		"a caller who leaves": func(t *testing.T, service *evidence.Service, source *unsent) {
			ctx, leave := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer leave()
			if _, err := service.Review(ctx, account); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
			time.Sleep(time.Second)
			if n := source.count(eligibility.FacetAccount); n != 1 {
				t.Errorf("%d calls, want one that goes on", n)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				released := make(chan struct{})
				close(released)
				source := &unsent{narrow: narrow{room: 100}, release: released}
				source.set(underReview, holding().after(time.Second))
				service, stop := serve(t, source, newMemory(), evidence.Config{})
				defer stop()
				test(t, service, source)
			})
		})
	}
}

func TestReviewDuringTheShutdown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		source := &narrow{room: 100}
		service, stop := serve(t, source, newMemory(), evidence.Config{})
		stop()
		_, err := service.Review(t.Context(), eligibility.Key{CustomerID: customer})
		wantKind(t, err, eligibility.KindOverloaded)
		if n := source.count(eligibility.FacetAccount); n != 0 {
			t.Errorf("%d calls", n)
		}
	})
}
