package webhooks_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/webhooks"
)

func TestUnblockedAreTheEndsOfKnownBlocks(t *testing.T) {
	t.Parallel()
	allowed, blocked := &eligibility.Answer{Decision: eligibility.DecisionAllowed}, &eligibility.Answer{Decision: eligibility.DecisionBlocked}
	for name, row := range map[string]struct {
		meaning evidence.Comparison
		sent    bool
	}{
		"blocked, then allowed":                               {evidence.Comparison{Differs: true, Before: blocked, After: allowed, Passes: true}, true},
		"the other facet is too old: the receiver checks":     {evidence.Comparison{Differs: true, Before: blocked, Passes: true}, true},
		"the other facet blocks":                              {evidence.Comparison{Differs: true, Before: blocked, After: blocked, Passes: true}, false},
		"the facet itself does not permit, or is not there":   {evidence.Comparison{Differs: true, Before: blocked}, false},
		"nothing was known":                                   {evidence.Comparison{Differs: true, After: allowed, Passes: true}, false},
		"allowed before":                                      {evidence.Comparison{Differs: true, Before: allowed, After: allowed, Passes: true}, false},
		"nothing is decided, neither before nor after":        {evidence.Comparison{Differs: true, Passes: true}, false},
		"the other facet cannot be looked up for a long time": {evidence.Comparison{Differs: true, Before: blocked, Passes: true, Unread: true}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, _ := sentFor(t, func(int) evidence.Comparison { return row.meaning })
			if len(got) != 0 != row.sent {
				t.Fatalf("%d requests", len(got))
			}
			if row.sent && row.meaning.After == nil && !strings.Contains(string(got[0].body), `"decisionAfter":null`) {
				t.Errorf("sent %s", got[0].body)
			}
		})
	}
}

func TestAComparisonThatCannotBeReadIsRepeated(t *testing.T) {
	t.Parallel()
	allowed, blocked := &eligibility.Answer{Decision: eligibility.DecisionAllowed}, &eligibility.Answer{Decision: eligibility.DecisionBlocked}
	got, asked := sentFor(t, func(n int) evidence.Comparison {
		if n < 3 {
			return evidence.Comparison{Differs: true, Passes: true, Unread: true}
		}
		return evidence.Comparison{Differs: true, Before: blocked, After: allowed, Passes: true}
	})
	if len(got) != 1 || asked != 3 {
		t.Errorf("%d requests after %d comparisons", len(got), asked)
	}
}

// sentFor returns the requests for one change whose comparisons are those of meaning,
// which is passed how many there were, and how many there were in all.
func sentFor(t *testing.T, meaning func(n int) evidence.Comparison) (got []received, asked int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f, r := newFeed(), &receiver{}
		cfg := configOf(f, webhooks.NewMemory())
		cfg.OnlyUnblocked = true
		cfg.Compare = func(context.Context, *changes.Change, eligibility.Segment) evidence.Comparison {
			asked++
			return meaning(asked)
		}
		s := webhooks.New(cfg)
		s.SetTransport(r)
		stop := start(t, s)
		synctest.Wait()
		f.add(1)
		pass(20 * time.Second)
		stop()
		got = r.all()
	})
	return got, asked
}
