package evidence_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

func TestConcurrentCallersShareOneFetchAFacet(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		source.set(status(eligibility.AccountStatusAllowed).after(time.Second), holding().after(time.Second))
		var callers sync.WaitGroup
		for range 1000 {
			callers.Go(func() { mustCheck(t, service, commercial) })
		}
		callers.Wait()
		for _, facet := range []eligibility.Facet{eligibility.FacetAccount, eligibility.FacetQualifications} {
			if n := source.count(facet); n != 1 {
				t.Errorf("%d fetches of the %s", n, facet)
			}
		}
	})
}

func TestCallersForFreshEvidenceCostTwoFetches(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		source.set(status(eligibility.AccountStatusAllowed).after(time.Second), holding().after(time.Second))
		req := commercial
		req.MaxAgeSet = true
		var callers sync.WaitGroup
		for i := range 100 {
			time.Sleep(time.Millisecond)
			asked := time.Now()
			callers.Go(func() {
				if answer := mustCheck(t, service, req); answer.EvidenceTime.Before(asked) {
					t.Errorf("caller %d got evidence from a fetch that started before it asked", i)
				}
			})
		}
		callers.Wait()
		if n := source.count(eligibility.FacetAccount); n != 2 {
			t.Errorf("%d fetches, want 2", n)
		}
	})
}

// A batch's fetch has background priority until a caller waits for that very
// customer: then it is raised as if the batch had not existed.
func TestAFetchIsRaisedByItsFirstInteractiveCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		urgent := make(chan struct{})
		source := fetchFunc(func(ctx context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
			if level, raised := query.Priority.Watch(); level < evidence.LaneCheckout && query.Facet == eligibility.FacetAccount {
				select {
				case <-raised:
					close(urgent)
				case <-ctx.Done():
				}
			}
			return eligibility.Evidence{Status: eligibility.AccountStatusAllowed}, eligibility.Call{}, nil
		})
		service, stop := serve(t, source, newMemory(), evidence.Config{})
		defer stop()
		batch := make(chan []result)
		go func() { batch <- checkBatch(context.Background(), service, []eligibility.Request{commercial}) }()
		synctest.Wait()
		select {
		case <-urgent:
			t.Error("a batch is urgent")
		default:
		}
		mustCheck(t, service, commercial)
		<-urgent
		if results := <-batch; results[0].err != nil {
			t.Error(results[0].err)
		}
	})
}

func TestALeavingCallerNeverEndsTheFetch(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		source.set(status(eligibility.AccountStatusAllowed).after(time.Second), holding().after(time.Second))
		ctx, cancel := context.WithCancel(context.Background())
		left := make(chan error)
		go func() {
			_, err := service.Check(ctx, commercial)
			left <- err
		}()
		synctest.Wait()
		cancel()
		wantKind(t, <-left, eligibility.KindCanceled)

		hurried, stop := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer stop()
		_, err := service.Check(hurried, commercial)
		wantKind(t, err, eligibility.KindDeadlineExceeded)
		var known *eligibility.Error
		if !errors.As(err, &known) || known.RetryAfter <= 0 {
			t.Error("no time to retry")
		}

		time.Sleep(time.Second)
		if answer := mustCheck(t, service, commercial); answer.Tier != eligibility.TierLocal || source.count(eligibility.FacetAccount) != 1 {
			t.Errorf("the retry was not served from what the fetch left: %+v", answer)
		}
	})
}

func TestAFetchIsBounded(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		source.set(status(eligibility.AccountStatusAllowed).after(time.Hour), holding())
		began := time.Now()
		_, err := service.Check(context.Background(), commercial)
		wantKind(t, err, eligibility.KindUnavailable)
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("the fetch took %v, want 10s", took)
		}
	})
}

func TestUsableEvidenceAnswersWhenTimeIsUp(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		source.set(status(eligibility.AccountStatusAllowed), holding())
		mustCheck(t, service, commercial)
		time.Sleep(20 * time.Minute)
		source.set(status(eligibility.AccountStatusAllowed).after(5*time.Second), holding().after(5*time.Second))
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		answer, err := service.Check(ctx, commercial)
		if err != nil || !answer.Stale || answer.Decision != eligibility.DecisionAllowed {
			t.Errorf("%+v, %v: want the old evidence, flagged stale", answer, err)
		}
	})
}

func TestCommercialWaitsForQualificationsNoLongerThanTheGrace(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		held := holding(qualification(eligibility.QualificationEducation, eligibility.VettingApproved))
		source.set(status(eligibility.AccountStatusAllowed).after(100*time.Millisecond), held.after(349*time.Millisecond))
		if answer := mustCheck(t, service, commercial); answer.Qualifications == nil {
			t.Error("qualifications that came within the grace are missing")
		}
		req := eligibility.Request{CustomerID: eligibility.CustomerID{9}}
		source.set(status(eligibility.AccountStatusAllowed).after(100*time.Millisecond), held.after(time.Second))
		began := time.Now()
		answer := mustCheck(t, service, req)
		if took := time.Since(began); took != 350*time.Millisecond {
			t.Errorf("waited %v, want 350ms", took)
		}
		if answer.Qualifications != nil || answer.Decision != eligibility.DecisionAllowed {
			t.Errorf("%+v: want allowed without qualifications", answer)
		}
	})
}

func TestEvidenceThatIsNotNeededHasNoPartInTheAnswersAge(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		source.set(status(eligibility.AccountStatusAllowed), holding())
		mustCheck(t, service, commercial)
		time.Sleep(20 * time.Minute)
		source.set(status(eligibility.AccountStatusAllowed), failing(eligibility.KindUnavailable))
		answer := mustCheck(t, service, commercial)
		if answer.Stale || answer.Tier != eligibility.TierPartnerCenter || time.Since(answer.EvidenceTime) != 0 {
			t.Errorf("%+v: want the account's age and source only", answer)
		}
		if answer.Qualifications == nil {
			t.Error("usable qualifications were not returned")
		}
		if asked := mustCheck(t, service, education()); !asked.Stale || asked.EvidenceTime.Equal(answer.EvidenceTime) {
			t.Errorf("%+v: want the qualifications' age where they are needed", asked)
		}
	})
}

func TestFacetsFailApart(t *testing.T) {
	t.Parallel()
	var (
		allowed     = status(eligibility.AccountStatusAllowed)
		underReview = status(eligibility.AccountStatusUnderReview)
		approved    = holding(qualification(eligibility.QualificationEducation, eligibility.VettingApproved))
		denied      = holding(qualification(eligibility.QualificationEducation, eligibility.VettingDenied))
		down        = failing(eligibility.KindUnavailable)
		refused     = failing(eligibility.KindCredentials)
	)
	const (
		none    = eligibility.DecisionNone
		blocked = eligibility.DecisionBlocked
		passes  = eligibility.DecisionAllowed
	)
	for _, row := range []struct {
		name          string
		account, held outcome
		segment       eligibility.Segment
		decision      eligibility.Decision
		kind          eligibility.Kind
		codes         []eligibility.ReasonCode
	}{
		{"commercial never fails with the qualifications", allowed, refused, eligibility.SegmentCommercial, passes, 0, []eligibility.ReasonCode{eligibility.ReasonAccountAllowed}},
		{"education needs the qualifications", allowed, refused, eligibility.SegmentEducation, none, eligibility.KindCredentials, nil},
		{"a certain block is answered without the qualifications", underReview, down, eligibility.SegmentEducation, blocked, 0, []eligibility.ReasonCode{eligibility.ReasonAccountUnderReview}},
		{"a certain block is answered without the account", down, denied, eligibility.SegmentEducation, blocked, 0, []eligibility.ReasonCode{eligibility.ReasonQualificationDenied}},
		{"an approved qualification does not stand in for the account", down, approved, eligibility.SegmentEducation, none, eligibility.KindUnavailable, nil},
		{"commercial does not look at a denied qualification", allowed, denied, eligibility.SegmentCommercial, passes, 0, []eligibility.ReasonCode{eligibility.ReasonAccountAllowed}},
		{"the account's failure is told first", refused, down, eligibility.SegmentEducation, none, eligibility.KindCredentials, nil},
		{"a tenant that is not found has no qualifications", allowed, absent(eligibility.AbsenceNotFound), eligibility.SegmentEducation, none, eligibility.KindNotFound, nil},
		{"a tenant that is not found", absent(eligibility.AbsenceNotFound), down, eligibility.SegmentCommercial, none, eligibility.KindNotFound, nil},
		{"a tenant of another partner", absent(eligibility.AbsenceNotServed), denied, eligibility.SegmentEducation, none, eligibility.KindNotServed, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			answer, err := check(t, evidence.Config{}, row.account, row.held, row.segment)
			if row.decision == none {
				wantKind(t, err, row.kind)
				return
			}
			if err != nil || answer.Decision != row.decision {
				t.Fatalf("decision %d, error %v", answer.Decision, err)
			}
			var codes []eligibility.ReasonCode
			for _, reason := range answer.Reasons {
				codes = append(codes, reason.Code)
			}
			if diff := cmp.Diff(row.codes, codes); diff != "" {
				t.Errorf("reasons (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUndecidableBlocksIfThePolicyRequiresIt(t *testing.T) {
	t.Parallel()
	cfg := evidence.Config{Policy: eligibility.Policy{BlockUndecidable: true}}
	for _, kind := range eligibility.Kinds() {
		answer, err := check(t, cfg, failing(kind), holding(), eligibility.SegmentCommercial)
		switch kind {
		case eligibility.KindUnavailable, eligibility.KindThrottled, eligibility.KindCredentials, eligibility.KindInvalidResponse:
			want := []eligibility.Reason{{Code: eligibility.ReasonUndecidable, Blocks: true}}
			if err != nil || answer.Decision != eligibility.DecisionBlocked || !cmp.Equal(want, answer.Reasons) {
				t.Errorf("%s: %+v, %v", kind, answer, err)
			}
			if answer.RecheckTime.IsZero() || !answer.EvidenceTime.IsZero() || answer.Account != nil || answer.Tier != eligibility.TierNone {
				t.Errorf("%s: %+v: want a recheck time and nothing invented beside it", kind, answer)
			}
		default:
			wantKind(t, err, kind)
		}
	}
	for _, absence := range []eligibility.Absence{eligibility.AbsenceNotFound, eligibility.AbsenceNotServed} {
		if _, err := check(t, cfg, absent(absence), holding(), eligibility.SegmentCommercial); err == nil {
			t.Errorf("absence %d became a decision", absence)
		}
	}
	answer, err := check(t, cfg, status(eligibility.AccountStatusAllowed), failing(eligibility.KindThrottled), eligibility.SegmentEducation)
	want := []eligibility.Reason{{Code: eligibility.ReasonAccountAllowed}, {Code: eligibility.ReasonUndecidable, Blocks: true}}
	if err != nil || answer.Decision != eligibility.DecisionBlocked || !cmp.Equal(want, answer.Reasons) {
		t.Errorf("with the account known: %+v, %v", answer, err)
	}
}

func TestAPanickingSourceIsAnInternalError(t *testing.T) {
	t.Parallel()
	source := fetchFunc(func(context.Context, evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
		panic("no")
	})
	service, stop := serve(t, source, newMemory(), evidence.Config{})
	defer stop()
	for range 2 {
		_, err := service.Check(context.Background(), commercial)
		wantKind(t, err, eligibility.KindInternal)
	}
}

func TestRunEndsTheFetchesUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		source, began := &scripted{}, time.Now()
		service, stop := serve(t, source, newMemory(), evidence.Config{})
		source.set(status(eligibility.AccountStatusAllowed).after(9*time.Second), holding().after(9*time.Second))
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := service.Check(ctx, commercial); err == nil {
			t.Fatal("answered without evidence")
		}
		stop()
		if took := time.Since(began); took != time.Second {
			t.Errorf("ended after %v: Run waited for the fetch", took)
		}
	})
}

func TestAfterRunHasEndedEvidenceStillAnswers(t *testing.T) {
	t.Parallel()
	source := &scripted{account: status(eligibility.AccountStatusAllowed), held: holding()}
	service, stop := serve(t, source, newMemory(), evidence.Config{})
	mustCheck(t, service, commercial)
	stop()
	mustCheck(t, service, commercial)
	_, err := service.Check(context.Background(), eligibility.Request{CustomerID: eligibility.CustomerID{9}})
	wantKind(t, err, eligibility.KindOverloaded) // Partner Center has not failed
}

func TestNewRejectsAnInvalidConfig(t *testing.T) {
	t.Parallel()
	ages := eligibility.DefaultAges()
	ages.Allowed.Usable = ages.Allowed.Fresh - 1
	ages.Pending.Fresh = 0
	_, err := evidence.New(&scripted{}, newMemory(), evidence.Config{Ages: ages, QualificationsGrace: -1, BatchConcurrency: -1})
	if err == nil {
		t.Fatal("New succeeded")
	}
	if n := len(err.(interface{ Unwrap() []error }).Unwrap()); n != 3 {
		t.Errorf("%d faults reported at once, want 3: %v", n, err)
	}
	if _, err := evidence.New(nil, nil, evidence.Config{}); err == nil {
		t.Error("New succeeded without ports")
	}
}

// Whoever asks after an answer must not get the failure that the answer was about.
func TestNobodyJoinsAFetchThatHasFinished(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		for _, id := range ids(5000) {
			req := eligibility.Request{CustomerID: id}
			source.set(failing(eligibility.KindUnavailable), holding())
			_, err := service.Check(t.Context(), req)
			wantKind(t, err, eligibility.KindUnavailable)
			source.set(status(eligibility.AccountStatusAllowed), holding())
			mustCheck(t, service, req)
		}
	})
}
