package evidence_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// The moment of the answer counts, not that of the question.
func TestEvidenceThatExpiresWhileTheCallerWaitsDoesNotAnswer(t *testing.T) {
	ages := eligibility.DefaultAges()
	ages.Allowed = eligibility.Age{Fresh: 300 * time.Millisecond, Usable: time.Second}
	bubble(t, evidence.Config{Ages: ages}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		source.set(status(eligibility.AccountStatusAllowed), holding())
		mustCheck(t, service, commercial)
		time.Sleep(600 * time.Millisecond)
		source.set(status(eligibility.AccountStatusAllowed).after(5*time.Second), holding())
		for _, patience := range []time.Duration{100 * time.Millisecond, 2 * time.Second} {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			answer, err := service.Check(ctx, commercial)
			cancel()
			if patience < time.Second {
				if err != nil || !answer.Stale {
					t.Errorf("within the usable age: %+v, %v", answer, err)
				}
				continue
			}
			wantKind(t, err, eligibility.KindDeadlineExceeded)
		}
	})
}

func TestEvidenceTimeIsWhenTheFetchStarted(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		source.set(status(eligibility.AccountStatusAllowed).after(2*time.Second), holding().after(time.Second))
		asked := time.Now()
		if answer := mustCheck(t, service, education()); !answer.EvidenceTime.Equal(asked) || !answer.Account.FetchTime.Equal(asked) {
			t.Errorf("evidence time %v, want %v", answer.EvidenceTime, asked)
		}
	})
}

// A fetch may finish while another caller still queries the shared tier.
func TestAFetchThatFinishesDuringALookupIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		source, store := &scripted{account: status(eligibility.AccountStatusAllowed), held: holding()}, &slowMemory{memory: newMemory()}
		service, stop := serve(t, source, store, evidence.Config{})
		defer stop()
		req := commercial
		req.MaxAgeSet = true
		late := make(chan eligibility.Answer)
		go func() {
			store.delay.Lock()
			store.wait = time.Second
			store.delay.Unlock()
			late <- mustCheck(t, service, req)
		}()
		synctest.Wait()
		store.delay.Lock()
		store.wait = 0
		store.delay.Unlock()
		time.Sleep(time.Millisecond)
		mustCheck(t, service, req)
		<-late
		if n := source.count(eligibility.FacetAccount); n != 1 {
			t.Errorf("%d fetches, want 1 for both", n)
		}
	})
}

func TestABatchAsksOnceAboutARepeatedCustomerHoweverFarApart(t *testing.T) {
	t.Parallel()
	for name, account := range map[string]outcome{
		"answered": status(eligibility.AccountStatusAllowed),
		"failing":  failing(eligibility.KindUnavailable),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
				source.set(account.after(50*time.Millisecond), holding().after(50*time.Millisecond))
				reqs := make([]eligibility.Request, 200)
				for i := range reqs {
					reqs[i].CustomerID = eligibility.CustomerID{byte(i % 100)}
				}
				checkBatch(context.Background(), service, reqs)
				if n := source.count(eligibility.FacetAccount); n != 100 {
					t.Errorf("%d fetches of the account, want 100", n)
				}
				if n := source.count(eligibility.FacetQualifications); n > 100 || n < 100 && account.err == nil {
					t.Errorf("%d fetches of the qualifications, want 100, or fewer if the account fails", n)
				}
			})
		})
	}
}

func TestABatchHasNoMoreFetchesUnderWayThanWorkers(t *testing.T) {
	bubble(t, evidence.Config{BatchConcurrency: 4}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		source.set(status(eligibility.AccountStatusAllowed), holding().after(9*time.Second))
		reqs := make([]eligibility.Request, 50)
		for i := range reqs {
			reqs[i].CustomerID = eligibility.CustomerID{byte(i)}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		checkBatch(ctx, service, reqs)
		if n := source.count(eligibility.FacetQualifications); n != 4 {
			t.Errorf("%d slow fetches under way, want 4", n)
		}
	})
}

// Qualifications that fail must neither be asked for with every commercial
// question nor keep the account's questions waiting.
func TestFailingQualificationsThatAreNotNeededCoolDown(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, store *memory) {
		source.set(status(eligibility.AccountStatusAllowed), failing(eligibility.KindInvalidResponse))
		for range 100 {
			if answer := mustCheck(t, service, commercial); answer.Qualifications != nil {
				t.Fatal("qualifications out of nowhere")
			}
		}
		if n, loads := source.count(eligibility.FacetQualifications), store.loads; n != 1 || loads != 1 {
			t.Errorf("%d fetches and %d looks into the shared tier, want 1 and 1", n, loads)
		}
		_, err := service.Check(context.Background(), education())
		wantKind(t, err, eligibility.KindInvalidResponse)
		if n := source.count(eligibility.FacetQualifications); n != 2 {
			t.Errorf("%d fetches, want another one where they are needed", n)
		}
		time.Sleep(10 * time.Second)
		source.set(status(eligibility.AccountStatusAllowed), holding())
		mustCheck(t, service, commercial) // does not wait for them
		synctest.Wait()
		if answer := mustCheck(t, service, commercial); answer.Qualifications == nil {
			t.Error("not fetched again after a while")
		}
	})
}

func TestQualificationsThatAreNotNeededAreNotUrgent(t *testing.T) {
	t.Parallel()
	urgency := make(chan bool, 2)
	source := fetchFunc(func(_ context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
		if query.Facet == eligibility.FacetQualifications {
			time.Sleep(time.Second)
			urgency <- query.Priority.Lane() == evidence.LaneCheckout
		}
		return eligibility.Evidence{Status: eligibility.AccountStatusAllowed}, eligibility.Call{}, nil
	})
	synctest.Test(t, func(t *testing.T) {
		urgency = make(chan bool, 2)
		service, stop := serve(t, source, newMemory(), evidence.Config{})
		defer stop()
		mustCheck(t, service, commercial)
		if <-urgency {
			t.Error("a commercial question made them urgent")
		}
		mustCheck(t, service, eligibility.Request{CustomerID: eligibility.CustomerID{9}, Segment: eligibility.SegmentEducation})
		if !<-urgency {
			t.Error("a question that needs them did not")
		}
	})
}

func TestNobodyWaitsForQualificationsThatCannotMatter(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		account outcome
		segment eligibility.Segment
	}{
		"no such customer":     {absent(eligibility.AbsenceNotFound), eligibility.SegmentEducation},
		"not our customer":     {absent(eligibility.AbsenceNotServed), eligibility.SegmentCommercial},
		"a commercial failure": {failing(eligibility.KindCredentials), eligibility.SegmentCommercial},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
				source.set(row.account, holding().after(time.Second))
				began := time.Now()
				if _, err := service.Check(context.Background(), eligibility.Request{CustomerID: customer, Segment: row.segment}); err == nil {
					t.Error("answered")
				}
				if took := time.Since(began); took != 0 {
					t.Errorf("waited %v", took)
				}
			})
		})
	}
}

// A clock that is slewed while a caller waits for min_evidence_time must not
// make an error of it.
func TestASlowClockStillReachesMinEvidenceTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		born := time.Now()
		slow := func() time.Time { return born.Add(time.Since(born) * 9 / 10) }
		source := &scripted{account: status(eligibility.AccountStatusAllowed), held: holding()}
		service, stop := serve(t, source, newMemory(), evidence.Config{Now: slow})
		defer stop()
		req := commercial
		req.MinEvidenceTime = slow().Add(time.Second)
		if answer := mustCheck(t, service, req); answer.EvidenceTime.Before(req.MinEvidenceTime) {
			t.Errorf("evidence of %v, want none before %v", answer.EvidenceTime, req.MinEvidenceTime)
		}
	})
}

// An undecidable block is true for no time: nothing may keep it.
func TestUndecidableHasNoExpiryAndIsWorthAskingAgainLater(t *testing.T) {
	bubble(t, evidence.Config{Policy: eligibility.Policy{BlockUndecidable: true}}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		source.set(status(eligibility.AccountStatusAllowed), failing(eligibility.KindUnavailable).after(3*time.Second))
		answer := mustCheck(t, service, education())
		if !answer.ExpireTime.IsZero() || !answer.RecheckTime.After(time.Now()) {
			t.Errorf("expires %v, recheck %v at %v", answer.ExpireTime, answer.RecheckTime, time.Now())
		}
		source.set(failing(eligibility.KindThrottled).after(3*time.Second), holding())
		answer = mustCheck(t, service, eligibility.Request{CustomerID: eligibility.CustomerID{9}})
		if time.Until(answer.RecheckTime) != time.Minute {
			t.Errorf("recheck in %v, want a minute where nobody knows better", time.Until(answer.RecheckTime))
		}
	})
}

func TestAnswersOfTwoFacetsAreAsOldAndAsFarAsTheWorse(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		approved := holding(qualification(eligibility.QualificationEducation, eligibility.VettingApproved))
		source.set(status(eligibility.AccountStatusAllowed), approved)
		first := mustCheck(t, service, education())
		if !first.ExpireTime.Before(first.EvidenceTime.Add(12 * time.Minute)) {
			t.Errorf("expires %v after the fetch, want the account's ten minutes", first.ExpireTime.Sub(first.EvidenceTime))
		}
		time.Sleep(12 * time.Minute) // the account is stale, the qualifications are fresh
		source.set(failing(eligibility.KindUnavailable), failing(eligibility.KindUnavailable))
		if answer := mustCheck(t, service, education()); !answer.Stale || answer.Tier != eligibility.TierLocal {
			t.Errorf("%+v: want stale, as the account is", answer)
		}
		source.set(status(eligibility.AccountStatusAllowed), failing(eligibility.KindUnavailable))
		answer := mustCheck(t, service, education())
		if answer.Stale || answer.Tier != eligibility.TierPartnerCenter || !answer.EvidenceTime.Equal(first.EvidenceTime) {
			t.Errorf("%+v: want the slower tier and the older evidence", answer)
		}
		if answer.Call.Attempts != 1 {
			t.Errorf("call %+v, want the account's", answer.Call)
		}
	})
}

func TestRenewalsGoOnForEver(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		source.set(status(eligibility.AccountStatusAllowed), holding())
		for i := range 40 {
			req := eligibility.Request{CustomerID: eligibility.CustomerID{byte(i)}}
			answer := mustCheck(t, service, req)
			fresh := answer.ExpireTime.Sub(answer.EvidenceTime)
			time.Sleep(fresh - fresh/25)
			mustCheck(t, service, req)
			synctest.Wait()
		}
		if n := source.count(eligibility.FacetAccount); n != 80 {
			t.Errorf("%d fetches, want each of 40 customers fetched and renewed", n)
		}
	})
}

func TestEvenAHurriedCallerFillsTheCache(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		source.set(status(eligibility.AccountStatusAllowed).after(time.Second), holding())
		ctx, cancel := context.WithTimeout(context.Background(), 0)
		defer cancel()
		_, err := service.Check(ctx, commercial)
		wantKind(t, err, eligibility.KindDeadlineExceeded)
		time.Sleep(2 * time.Second)
		if answer := mustCheck(t, service, commercial); answer.Tier != eligibility.TierLocal {
			t.Errorf("%+v: want the retry served from the cache", answer)
		}
	})
}
