package evidence_test

import (
	"context"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

func hold(store *memory, id byte, evidence *eligibility.Evidence) {
	evidence.SetFetchTime(evidence.FetchTime)
	store.Put(eligibility.Key{CustomerID: eligibility.CustomerID{id}, Facet: evidence.Facet}, evidence)
}

// Evidence grows older while answers wait, and is not looked up again for all that follow.
func TestAnswersOfASlowBatchAreAsOfTheirTime(t *testing.T) {
	ages := eligibility.DefaultAges()
	ages.Allowed = eligibility.Age{Fresh: 10 * time.Second, Usable: time.Minute}
	bubble(t, evidence.Config{Ages: ages}, func(t *testing.T, service *evidence.Service, source *scripted, store *memory) {
		source.set(failing(eligibility.KindUnavailable), failing(eligibility.KindUnavailable))
		const customers = 200
		reqs := make([]eligibility.Request, customers)
		for id := range byte(customers) {
			hold(store, id, accountOf(eligibility.AccountStatusAllowed, time.Now()))
			hold(store, id, qualificationsOf(time.Now()))
			reqs[id].CustomerID = eligibility.CustomerID{id}
		}
		fresh, stale := 0, 0
		service.CheckBatch(context.Background(), reqs, func(place int, answer *eligibility.Answer, err error) {
			if err != nil {
				return
			}
			if answer.Stale {
				stale++
			} else {
				fresh++
			}
			if age := time.Since(answer.EvidenceTime); !answer.Stale && !time.Now().Before(answer.ExpireTime) || age > time.Minute {
				t.Errorf("place %d: stale %t after %v", place, answer.Stale, age)
			}
			time.Sleep(500 * time.Millisecond)
		})
		if fresh < 15 || stale < 50 {
			t.Errorf("%d fresh, %d stale", fresh, stale)
		}
		if store.ahead > 2*customers+2*evidence.PeekAtOnce {
			t.Errorf("%d look-ups", store.ahead)
		}
	})
}

// However long answers wait, max_age counts from when the batch arrived.
func TestMaxAgeOfASlowBatchCountsFromItsArrival(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, store *memory) {
		source.set(failing(eligibility.KindUnavailable), failing(eligibility.KindUnavailable))
		fetched := time.Now()
		const customers = 10
		reqs := make([]eligibility.Request, customers)
		for id := range byte(customers) {
			hold(store, id, accountOf(eligibility.AccountStatusAllowed, fetched))
			hold(store, id, qualificationsOf(fetched))
			reqs[id] = eligibility.Request{CustomerID: eligibility.CustomerID{id}, MaxAge: 5 * time.Second, MaxAgeSet: true}
		}
		time.Sleep(4 * time.Second)
		service.CheckBatch(context.Background(), reqs, func(place int, answer *eligibility.Answer, err error) {
			if err != nil || answer.Stale {
				t.Errorf("place %d: %+v, %v", place, answer, err)
			}
			time.Sleep(time.Second)
		})
	})
}

// Customers are looked up ahead of their questions. If a decision log that is full
// makes one of them wait, a block that arrives meanwhile counts for those behind it.
func TestABlockWhileAnAnswerWaits(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, _ *scripted, store *memory) {
		now := time.Now().Add(-time.Second)
		for id := range byte(40) {
			hold(store, id, accountOf(eligibility.AccountStatusAllowed, now))
			hold(store, id, qualificationsOf(now))
		}
		var reqs []eligibility.Request
		for id := range byte(40) {
			reqs = append(reqs, eligibility.Request{CustomerID: eligibility.CustomerID{id}})
		}
		service.CheckBatch(context.Background(), reqs, func(place int, answer *eligibility.Answer, err error) {
			if place == 3 {
				for id := byte(4); id < 40; id++ {
					hold(store, id, accountOf(eligibility.AccountStatusNotAllowed, now.Add(500*time.Millisecond)))
				}
				time.Sleep(2 * time.Second)
			}
			if err != nil || (answer.Decision == eligibility.DecisionBlocked) != (place > 3) {
				t.Errorf("place %d: %v, %v", place, answer.Decision, err)
			}
		})
	})
}

// slowlyLoaded is a store to which something happens while Redis is read. If it is
// unread, Redis replies only to those who wait longer.
type slowlyLoaded struct {
	*memory

	meanwhile func()
	unread    bool
}

func (m slowlyLoaded) Load(ctx context.Context, keys []eligibility.Key) []evidence.Found {
	if m.unread {
		founds := make([]evidence.Found, len(keys))
		for i := range founds {
			founds[i].Unread = true
		}
		return founds
	}
	return m.LoadWithin(ctx, keys)
}

func (m slowlyLoaded) LoadWithin(ctx context.Context, keys []eligibility.Key) []evidence.Found {
	founds := m.memory.Load(ctx, keys)
	m.meanwhile()
	return founds
}

// A question that needs Redis for one facet only looks at the other again.
func TestABlockWhileRedisIsRead(t *testing.T) {
	t.Parallel()
	now := time.Now().Add(-10 * time.Second).Truncate(time.Millisecond)
	plain := eligibility.Request{CustomerID: eligibility.CustomerID{1}}
	refused := eligibility.Request{CustomerID: eligibility.CustomerID{1}, Segment: eligibility.SegmentEducation, MinEvidenceTime: now, LacksFresh: true}
	approved := eligibility.Qualification{Type: eligibility.QualificationEducation, VettingStatus: eligibility.VettingApproved}
	alone := func(service *evidence.Service, req eligibility.Request) (eligibility.Answer, error) {
		return service.Check(context.Background(), req)
	}
	batch := func(service *evidence.Service, req eligibility.Request) (eligibility.Answer, error) {
		got := checkBatch(context.Background(), service, []eligibility.Request{req})
		return got[0].answer, got[0].err
	}
	for name, row := range map[string]struct {
		req    eligibility.Request
		ask    func(*evidence.Service, eligibility.Request) (eligibility.Answer, error)
		later  time.Duration // the block's fetch
		unread bool
	}{
		"alone":                                 {plain, alone, 500 * time.Millisecond, false},
		"in a batch":                            {plain, batch, 500 * time.Millisecond, false},
		"alone, of the same millisecond":        {plain, alone, 0, false},
		"in a batch, of the same millisecond":   {plain, batch, 0, false},
		"alone, if Redis is read a second time": {refused, alone, 500 * time.Millisecond, true},
		"in a batch, if it is":                  {refused, batch, 500 * time.Millisecond, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			held := newMemory()
			hold(held, 1, accountOf(eligibility.AccountStatusAllowed, now))
			if row.unread {
				hold(held, 1, qualificationsOf(now.Add(-time.Second)))
			}
			held.shared[eligibility.Key{CustomerID: row.req.CustomerID, Facet: eligibility.FacetQualifications}] = qualificationsOf(now, approved)
			store := slowlyLoaded{held, func() {
				hold(held, 1, accountOf(eligibility.AccountStatusNotAllowed, now.Add(row.later)))
			}, row.unread}
			service, stop := serve(t, &scripted{}, store, evidence.Config{Ages: eligibility.DefaultAges()})
			defer stop()
			if answer, err := row.ask(service, row.req); err != nil || answer.Decision != eligibility.DecisionBlocked {
				t.Errorf("%v, %v", answer.Decision, err)
			}
		})
	}
}

// rival is a store that receives another replica's block, of the same millisecond, just
// before what was fetched.
type rival struct{ *memory }

func (m rival) Put(key eligibility.Key, fetched *eligibility.Evidence) *eligibility.Evidence {
	if key.Facet == eligibility.FacetAccount && fetched.Status == eligibility.AccountStatusAllowed {
		hold(m.memory, key.CustomerID[0], accountOf(eligibility.AccountStatusNotAllowed, fetched.FetchTime))
	}
	return m.memory.Put(key, fetched)
}

func TestABlockOfTheMillisecondOfAFetch(t *testing.T) {
	t.Parallel()
	source := &scripted{account: outcome{evidence: eligibility.Evidence{Status: eligibility.AccountStatusAllowed}}}
	service, stop := serve(t, source, rival{newMemory()}, evidence.Config{Ages: eligibility.DefaultAges()})
	defer stop()
	answer, err := service.Check(context.Background(), eligibility.Request{CustomerID: eligibility.CustomerID{1}})
	if err != nil || answer.Decision != eligibility.DecisionBlocked {
		t.Errorf("%v, %v", answer.Decision, err)
	}
}
