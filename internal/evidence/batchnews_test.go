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

// slowlyLoaded is a store to which something happens while Redis is read.
type slowlyLoaded struct {
	*memory

	meanwhile func()
}

func (m slowlyLoaded) Load(ctx context.Context, keys []eligibility.Key) []evidence.Found {
	founds := m.memory.Load(ctx, keys)
	m.meanwhile()
	return founds
}

// A question that needs Redis for one facet only looks at the other again.
func TestABlockWhileRedisIsRead(t *testing.T) {
	t.Parallel()
	req := eligibility.Request{CustomerID: eligibility.CustomerID{1}}
	for name, ask := range map[string]func(*evidence.Service) (eligibility.Answer, error){
		"alone": func(service *evidence.Service) (eligibility.Answer, error) {
			return service.Check(context.Background(), req)
		},
		"in a batch": func(service *evidence.Service) (eligibility.Answer, error) {
			got := checkBatch(context.Background(), service, []eligibility.Request{req})
			return got[0].answer, got[0].err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := time.Now().Add(-time.Second)
			held := newMemory()
			hold(held, 1, accountOf(eligibility.AccountStatusAllowed, now))
			held.shared[eligibility.Key{CustomerID: req.CustomerID, Facet: eligibility.FacetQualifications}] = qualificationsOf(now)
			store := slowlyLoaded{held, func() {
				hold(held, 1, accountOf(eligibility.AccountStatusNotAllowed, now.Add(500*time.Millisecond)))
			}}
			service, stop := serve(t, &scripted{}, store, evidence.Config{Ages: eligibility.DefaultAges()})
			defer stop()
			if answer, err := ask(service); err != nil || answer.Decision != eligibility.DecisionBlocked {
				t.Errorf("%v, %v", answer.Decision, err)
			}
		})
	}
}
