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

var commercial = eligibility.Request{CustomerID: customer}

func education() eligibility.Request {
	return eligibility.Request{CustomerID: customer, Segment: eligibility.SegmentEducation}
}

// bubble runs test on a service in a bubble in which time passes at once.
func bubble(t *testing.T, cfg evidence.Config, test func(t *testing.T, service *evidence.Service, source *scripted, store *memory)) {
	t.Helper()
	t.Parallel()
	bubbleOf(t, cfg, test)
}

// bubbleOf is bubble for tests that run several in one.
func bubbleOf(t *testing.T, cfg evidence.Config, test func(t *testing.T, service *evidence.Service, source *scripted, store *memory)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		source, store := &scripted{}, newMemory()
		service, stop := serve(t, source, store, cfg)
		defer stop()
		test(t, service, source, store)
	})
}

func mustCheck(t *testing.T, service *evidence.Service, req eligibility.Request) eligibility.Answer {
	t.Helper()
	answer, err := service.Check(context.Background(), req)
	if err != nil {
		t.Fatalf("Check: %v", err)
	}
	return answer
}

func wantKind(t *testing.T, err error, want eligibility.Kind) {
	t.Helper()
	var known *eligibility.Error
	if !errors.As(err, &known) || known.Kind != want {
		t.Fatalf("error %v, want kind %s", err, want)
	}
}

// percent scales an age; the jitter is ±10 %.
func percent(age time.Duration, n int) time.Duration { return age * time.Duration(n) / 100 }

func TestAgesByOutcome(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name          string
		account, held outcome
		segment       eligibility.Segment
		facet         eligibility.Facet
		fresh, usable time.Duration
	}{
		{"Allowed", status(eligibility.AccountStatusAllowed), holding(), 0, eligibility.FacetAccount, 10 * time.Minute, time.Hour},
		{"no status", status(eligibility.AccountStatusNone), holding(), 0, eligibility.FacetAccount, 2 * time.Minute, 15 * time.Minute},
		{"UnderReview", status(eligibility.AccountStatusUnderReview), holding(), 0, eligibility.FacetAccount, time.Minute, 24 * time.Hour},
		{"Unknown", status(eligibility.AccountStatusUnknown), holding(), 0, eligibility.FacetAccount, time.Minute, 24 * time.Hour},
		{"Not Ready", status(eligibility.AccountStatusNotReady), holding(), 0, eligibility.FacetAccount, time.Minute, 24 * time.Hour},
		{"unrecognised", status(eligibility.AccountStatusUnrecognized), holding(), 0, eligibility.FacetAccount, time.Minute, 24 * time.Hour},
		{"NotAllowed", status(eligibility.AccountStatusNotAllowed), holding(), 0, eligibility.FacetAccount, 10 * time.Minute, 24 * time.Hour},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
				source.set(row.account, row.held)
				mustCheck(t, service, commercial)
				source.set(failing(eligibility.KindUnavailable), failing(eligibility.KindUnavailable))

				// No check in the last half, which would renew it ahead.
				time.Sleep(percent(row.fresh, 44))
				if answer := mustCheck(t, service, commercial); answer.Stale || source.count(row.facet) != 1 {
					t.Errorf("within its fresh age: stale %t, %d fetches", answer.Stale, source.count(row.facet))
				}
				time.Sleep(percent(row.fresh, 67))
				if answer := mustCheck(t, service, commercial); !answer.Stale || source.count(row.facet) != 2 {
					t.Errorf("past its fresh age: stale %t, %d fetches", answer.Stale, source.count(row.facet))
				}
				time.Sleep(percent(row.usable, 89) - percent(row.fresh, 111))
				if answer := mustCheck(t, service, commercial); !answer.Stale {
					t.Error("within its usable age: not stale")
				}
				time.Sleep(percent(row.usable, 11))
				_, err := service.Check(context.Background(), commercial)
				wantKind(t, err, eligibility.KindUnavailable)
			})
		})
	}
}

func TestAgesOfQualifications(t *testing.T) {
	t.Parallel()
	approved := qualification(eligibility.QualificationEducation, eligibility.VettingApproved)
	inReview := qualification(eligibility.QualificationGovernmentCommunityCloud, eligibility.VettingInReview)
	for name, row := range map[string]struct {
		held  outcome
		fresh time.Duration
	}{
		"none in review": {holding(approved), 15 * time.Minute},
		"one in review":  {holding(approved, inReview), 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
				source.set(status(eligibility.AccountStatusAllowed), row.held)
				mustCheck(t, service, education())
				source.set(status(eligibility.AccountStatusAllowed), failing(eligibility.KindUnavailable))
				time.Sleep(percent(row.fresh, 44))
				mustCheck(t, service, education())
				if n := source.count(eligibility.FacetQualifications); n != 1 {
					t.Errorf("%d fetches within the fresh age", n)
				}
				time.Sleep(percent(row.fresh, 67))
				if answer := mustCheck(t, service, education()); !answer.Stale {
					t.Error("past the fresh age: not stale")
				}
				time.Sleep(6 * time.Hour)
				_, err := service.Check(context.Background(), education())
				wantKind(t, err, eligibility.KindUnavailable)
			})
		})
	}
}

// An answer that only the policy allows must not outlive one that Partner
// Center allows.
func TestNotReadyAllowedByPolicyLivesNoLongerThanAllowed(t *testing.T) {
	bubble(t, evidence.Config{Policy: eligibility.Policy{NotReadyAllowed: true}}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		source.set(status(eligibility.AccountStatusNotReady), holding())
		mustCheck(t, service, commercial)
		source.set(failing(eligibility.KindUnavailable), holding())
		time.Sleep(time.Hour)
		_, err := service.Check(context.Background(), commercial)
		wantKind(t, err, eligibility.KindUnavailable)
	})
}

// The same holds for an account under review, for the operations that the policy
// exempts; a purchase stays blocked for as long as the evidence is usable.
func TestReviewExemptByPolicyLivesNoLongerThanAllowed(t *testing.T) {
	bubble(t, evidence.Config{Policy: eligibility.Policy{AllowReducing: true}}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		renewal := commercial
		renewal.Operation = eligibility.OperationRenewal
		source.set(status(eligibility.AccountStatusUnderReview), holding())
		if answer := mustCheck(t, service, renewal); answer.Decision != eligibility.DecisionAllowed {
			t.Fatalf("renewal: %v", answer.Decision)
		}
		source.set(failing(eligibility.KindUnavailable), holding())
		time.Sleep(time.Hour)
		if answer, err := service.Check(context.Background(), renewal); err == nil {
			t.Errorf("renewal: %v after an hour", answer.Decision)
		} else {
			wantKind(t, err, eligibility.KindUnavailable)
		}
		if answer := mustCheck(t, service, commercial); answer.Decision != eligibility.DecisionBlocked || !answer.Stale {
			t.Errorf("purchase: %v, stale %t", answer.Decision, answer.Stale)
		}
	})
}

func TestNotFoundAndNotServedAreRememberedForAMinute(t *testing.T) {
	t.Parallel()
	for absence, kind := range map[eligibility.Absence]eligibility.Kind{
		eligibility.AbsenceNotFound:  eligibility.KindNotFound,
		eligibility.AbsenceNotServed: eligibility.KindNotServed,
	} {
		t.Run(kind.String(), func(t *testing.T) {
			bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
				source.set(status(eligibility.AccountStatusAllowed), holding())
				mustCheck(t, service, commercial)
				time.Sleep(time.Second)
				source.set(absent(absence), absent(absence))
				refetch := commercial
				refetch.MaxAgeSet = true
				_, err := service.Check(context.Background(), refetch)
				wantKind(t, err, kind)

				time.Sleep(40 * time.Second)
				_, err = service.Check(context.Background(), commercial)
				wantKind(t, err, kind)
				if n := source.count(eligibility.FacetAccount); n != 2 {
					t.Errorf("%d fetches, want 2: it replaces the old evidence and is remembered", n)
				}
				time.Sleep(30 * time.Second)
				source.set(failing(eligibility.KindThrottled), holding())
				_, err = service.Check(context.Background(), commercial)
				wantKind(t, err, eligibility.KindThrottled)
			})
		})
	}
}

func TestFailuresAreNotRemembered(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		for _, kind := range []eligibility.Kind{eligibility.KindUnavailable, eligibility.KindThrottled, eligibility.KindCredentials, eligibility.KindInvalidResponse} {
			source.set(failing(kind), failing(kind))
			_, err := service.Check(context.Background(), commercial)
			wantKind(t, err, kind)
		}
		source.set(status(eligibility.AccountStatusAllowed), holding())
		if answer := mustCheck(t, service, commercial); answer.Decision != eligibility.DecisionAllowed {
			t.Errorf("decision %d", answer.Decision)
		}
	})
}

func TestMaxAgeIsSoft(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		source.set(status(eligibility.AccountStatusAllowed), holding())
		first := mustCheck(t, service, commercial)
		time.Sleep(5 * time.Second)
		req := commercial
		req.MaxAge, req.MaxAgeSet = 5*time.Second, true
		if answer := mustCheck(t, service, req); !answer.EvidenceTime.Equal(first.EvidenceTime) {
			t.Error("asked again within max_age")
		}
		time.Sleep(time.Nanosecond)
		source.set(status(eligibility.AccountStatusUnderReview), holding())
		if answer := mustCheck(t, service, req); answer.Decision != eligibility.DecisionBlocked || answer.Tier != eligibility.TierPartnerCenter {
			t.Errorf("past max_age: %+v", answer)
		}
		source.set(failing(eligibility.KindUnavailable), failing(eligibility.KindUnavailable))
		time.Sleep(time.Nanosecond)
		req.MaxAge = 0
		if answer := mustCheck(t, service, req); !answer.Stale || answer.Cause == nil {
			t.Errorf("the fetch failed: %+v, want usable evidence flagged stale", answer)
		}
	})
}

func TestMinEvidenceTimeIsHard(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		source.set(status(eligibility.AccountStatusAllowed), holding())
		first := mustCheck(t, service, commercial)
		time.Sleep(5 * time.Second)
		req := commercial
		req.MinEvidenceTime = first.EvidenceTime
		if answer := mustCheck(t, service, req); !answer.EvidenceTime.Equal(first.EvidenceTime) {
			t.Error("the very evidence that the caller was given does not answer")
		}
		req.MinEvidenceTime = first.EvidenceTime.Add(1)
		source.set(failing(eligibility.KindUnavailable), failing(eligibility.KindUnavailable))
		_, err := service.Check(context.Background(), req)
		wantKind(t, err, eligibility.KindUnavailable)
		source.set(status(eligibility.AccountStatusUnderReview), holding())
		if answer := mustCheck(t, service, req); answer.EvidenceTime.Before(req.MinEvidenceTime) {
			t.Error("older evidence answered")
		}
		req.MinEvidenceTime = time.Now().Add(time.Second)
		if answer := mustCheck(t, service, req); answer.EvidenceTime.Before(req.MinEvidenceTime) {
			t.Error("older evidence answered a caller whose clock is ahead")
		}
	})
}

func TestEvidenceFromTheFutureIsNotBelieved(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, store *memory) {
		source.set(status(eligibility.AccountStatusUnderReview), holding())
		store.shared[eligibility.Key{CustomerID: customer}] = &eligibility.Evidence{
			Status: eligibility.AccountStatusAllowed, FetchTime: time.Now().Add(2 * time.Second),
		}
		if answer := mustCheck(t, service, commercial); answer.Decision != eligibility.DecisionBlocked {
			t.Error("allowed by evidence that nobody can have yet")
		}
	})
}

func TestEvidenceToRevalidateAnswersOnlyIfPartnerCenterFails(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, store *memory) {
		source.set(status(eligibility.AccountStatusAllowed), holding())
		mustCheck(t, service, commercial)
		store.mustRevalidate = true
		source.set(status(eligibility.AccountStatusUnderReview), holding())
		if answer := mustCheck(t, service, commercial); answer.Decision != eligibility.DecisionBlocked {
			t.Error("evidence that must be revalidated answered although Partner Center works")
		}
		source.set(failing(eligibility.KindUnavailable), failing(eligibility.KindUnavailable))
		if answer := mustCheck(t, service, commercial); !answer.Stale {
			t.Error("evidence that must be revalidated is not flagged stale")
		}
	})
}

// Evidence that has become too old answers nothing, but still replaces older
// evidence.
func TestNothingOlderAnswersInPlaceOfWhatIsTooOld(t *testing.T) {
	t.Parallel()
	account := eligibility.Key{CustomerID: customer}
	replaced := func(store *memory, where map[eligibility.Key]*eligibility.Evidence, by eligibility.AccountStatus, age time.Duration) {
		store.mu.Lock()
		defer store.mu.Unlock()
		where[account] = &eligibility.Evidence{Status: by, FetchTime: time.Now().Add(-age)}
	}
	for what, test := range map[string]func(store *memory){
		"in the shared tier": func(store *memory) {
			replaced(store, store.shared, eligibility.AccountStatusNone, 20*time.Minute)
		},
		"while the check waits": func(store *memory) {
			time.AfterFunc(500*time.Millisecond, func() {
				replaced(store, store.held, eligibility.AccountStatusNone, 20*time.Minute)
			})
		},
	} {
		t.Run(what, func(t *testing.T) {
			bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, store *memory) {
				source.set(failing(eligibility.KindUnavailable).after(time.Second), failing(eligibility.KindUnavailable))
				store.mustRevalidate = true
				replaced(store, store.held, eligibility.AccountStatusUnderReview, 30*time.Minute)
				if answer := mustCheck(t, service, commercial); !answer.Stale {
					t.Error("usable evidence is not flagged stale")
				}
				test(store)
				_, err := service.Check(t.Context(), commercial)
				wantKind(t, err, eligibility.KindUnavailable)
			})
		})
	}
}

// sharing is a memory that notes until when evidence is to be kept.
type sharing struct {
	*memory
	kept chan time.Duration
}

func (s *sharing) Share(_ context.Context, _ eligibility.Key, evidence *eligibility.Evidence, keepUntil time.Time) {
	s.kept <- keepUntil.Sub(evidence.FetchTime)
}

func TestEvidenceIsKeptAsLongAsAnythingOlderMightAnswer(t *testing.T) {
	for _, test := range []struct {
		account, qualifications outcome
	}{
		{status(eligibility.AccountStatusAllowed), holding()},
		{status(eligibility.AccountStatusNone), absent(eligibility.AbsenceNotFound)},
		{absent(eligibility.AbsenceNotFound), holding(qualification(eligibility.QualificationEducation, eligibility.VettingInReview))},
	} {
		synctest.Test(t, func(t *testing.T) {
			source, store := new(scripted), &sharing{memory: newMemory(), kept: make(chan time.Duration, 2)}
			source.set(test.account.after(time.Second), test.qualifications) // so that the qualifications are shared first
			service, stop := serve(t, source, store, evidence.Config{})
			defer stop()
			_, _ = service.Check(t.Context(), education())
			if first, second := <-store.kept, <-store.kept; first != 6*time.Hour || second != 24*time.Hour {
				t.Errorf("qualifications are kept for %v and the account for %v, want 6h and 24h", first, second)
			}
		})
	}
}

func TestJitterSpreadsExpiryWithinATenth(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		source.set(status(eligibility.AccountStatusAllowed), holding())
		shortest, longest := time.Hour, time.Duration(0)
		for i := range 1000 {
			answer := mustCheck(t, service, eligibility.Request{CustomerID: eligibility.CustomerID{byte(i), byte(i >> 8)}})
			fresh := answer.ExpireTime.Sub(answer.EvidenceTime)
			shortest, longest = min(shortest, fresh), max(longest, fresh)
		}
		if shortest < 9*time.Minute || longest > 11*time.Minute {
			t.Errorf("fresh ages from %v to %v, want within 9m to 11m", shortest, longest)
		}
		if longest-shortest < 110*time.Second {
			t.Errorf("fresh ages from %v to %v: hardly spread", shortest, longest)
		}
	})
}
