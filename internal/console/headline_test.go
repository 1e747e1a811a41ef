package console

import (
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/health"
)

// headlineAt is the time of these tests.
var headlineAt = time.Date(2026, 11, 28, 14, 2, 3, 0, time.UTC)

// aFleet returns a Fleet with a component for each condition, by "name" or
// "name partner", and partners with a budget.
func aFleet(conditions map[string]health.Condition, partners ...string) *Fleet {
	f := &Fleet{Time: headlineAt}
	for _, name := range partners {
		f.Partners = append(f.Partners, FleetPartner{Name: name, Budget: &FleetBudget{PerMinute: 400, Limit: 400, Level: 40}})
	}
	for name, condition := range conditions {
		name, partner, _ := strings.Cut(name, " ")
		if condition.Since.IsZero() {
			condition.Since = f.Time
		}
		f.Components = append(f.Components, FleetComponent{Name: name, Partner: partner, Webhook: "orders", Condition: condition})
	}
	return f
}

func TestHeadline(t *testing.T) {
	t.Parallel()
	ok := health.Condition{State: health.OK}
	failing := func(kind string) health.Condition { return health.Condition{State: health.Failing, Kind: kind} }
	degraded := func(kind string) health.Condition { return health.Condition{State: health.Degraded, Kind: kind} }
	for name, c := range map[string]struct {
		components  map[string]health.Condition
		class, text string
	}{
		"all is well": {
			map[string]health.Condition{"partner_center a": ok, "login a": ok, "redis": ok, "feed a": ok},
			"ok", "Neither is down: Microsoft answered when it was last asked, and everything that this replica uses works.",
		},
		"nothing was asked": {
			map[string]health.Condition{"redis": ok}, "", "It is not known yet: this replica has asked nothing of Microsoft since it was started.",
		},
		"errors of Partner Center": {
			map[string]health.Condition{"partner_center a": failing("server_error"), "login a": ok},
			"error", "It is Microsoft: Partner Center answers with errors (server_error since 14:02:03 UTC).",
		},
		"Partner Center is silent": {
			map[string]health.Condition{"partner_center a": failing("timeout"), "login a": ok},
			"error", "It is Microsoft or our network: Partner Center does not answer (timeout since 14:02:03 UTC), while the login host did when it was last asked.",
		},
		"Partner Center is silent, and the login host works since before": {
			map[string]health.Condition{"partner_center a": failing("timeout"), "login a": {State: health.OK, Since: headlineAt.Add(-time.Second)}},
			"error", "It is Microsoft or our network: Partner Center does not answer (timeout since 14:02:03 UTC), while the login host did when it was last asked.",
		},
		"Partner Center is silent, and the login host works since then": {
			map[string]health.Condition{"partner_center a": failing("timeout"), "login a": {State: health.OK, Since: headlineAt.Add(time.Second)}},
			"error", "It is Microsoft: Partner Center does not answer (timeout since 14:02:03 UTC), while the login host has answered since.",
		},
		"only the login host has answered": {
			map[string]health.Condition{"login a": ok, "redis": ok}, "", "It is not known yet: this replica has not asked Partner Center since it was started.",
		},
		"only the login host has answered, and Redis does not": {
			map[string]health.Condition{"login a": ok, "redis": failing("timeout")},
			"error", "It is us: our Redis does not work (timeout since 14:02:03 UTC); this replica has not asked Partner Center since it was started.",
		},
		"both hosts are silent": {
			map[string]health.Condition{"partner_center a": failing("timeout"), "login a": failing("connection")},
			"error", "It is Microsoft or our network: neither Partner Center nor the login host answers (timeout and connection since 14:02:03 UTC).",
		},
		"only the login host was asked": {
			map[string]health.Condition{"login a": failing("connection")},
			"error", "It is Microsoft or our network: the login host of Microsoft does not answer (connection since 14:02:03 UTC).",
		},
		"refused credentials": {
			map[string]health.Condition{"partner_center a": ok, "login a": failing("invalid_grant")},
			"error", "It is us: the login host of Microsoft refuses our credentials, so that somebody has to act (invalid_grant since 14:02:03 UTC).",
		},
		"a vault": {
			map[string]health.Condition{"partner_center a": ok, "login a": degraded("refresh_token_store")},
			"warn", "It is us: our credentials cannot be read or stored (refresh_token_store since 14:02:03 UTC).",
		},
		"throttled": {
			map[string]health.Condition{"partner_center a": degraded("throttled"), "login a": ok},
			"warn", "Neither is down: Partner Center limits how often we may ask (throttled since 14:02:03 UTC).",
		},
		"Redis": {
			map[string]health.Condition{"partner_center a": ok, "login a": ok, "redis": failing("connection")},
			"error", "It is us: Microsoft answered when it was last asked, but our Redis does not work (connection since 14:02:03 UTC).",
		},
		"a webhook": {
			map[string]health.Condition{"partner_center a": ok, "login a": ok, "webhook a": degraded("timeout")},
			"warn", "Neither is down: Microsoft answered when it was last asked, but the receiver of the webhook orders does not take changes (timeout since 14:02:03 UTC).",
		},
		"a webhook and the decision log": {
			map[string]health.Condition{"partner_center a": ok, "login a": ok, "webhook a": failing("timeout"), "decision_log": failing("no_space")},
			"warn", "It is us: Microsoft answered when it was last asked, but the decision log does not work (no_space since 14:02:03 UTC).",
		},
		"Redis at the start": {
			map[string]health.Condition{"redis": failing("connection")},
			"error", "It is us: our Redis does not work (connection since 14:02:03 UTC); this replica has asked nothing of Microsoft since it was started.",
		},
		"both": {
			map[string]health.Condition{"partner_center a": failing("server_error"), "login a": ok, "redis": failing("timeout")},
			"error", "It is both: Partner Center answers with errors (server_error since 14:02:03 UTC), and our Redis does not work (timeout since 14:02:03 UTC).",
		},
		"Microsoft and a webhook": {
			map[string]health.Condition{"partner_center a": degraded("server_error"), "login a": ok, "webhook a": failing("timeout")},
			"warn", "It is Microsoft: Partner Center answers with errors (server_error since 14:02:03 UTC).",
		},
		"Redis while throttled": {
			map[string]health.Condition{"partner_center a": degraded("throttled"), "login a": ok, "redis": failing("timeout")},
			"error", "It is us: our Redis does not work (timeout since 14:02:03 UTC).",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := aFleet(c.components, "a").Headline()
			if want := (Headline{c.class, c.text}); got != want {
				t.Errorf("\n got %q %s\nwant %q %s", got.Class, got.Text, want.Class, want.Text)
			}
		})
	}
}

// That one partner's Partner Center answers says nothing of another's.
func TestHeadlineOfPartnersThatWereNotAsked(t *testing.T) {
	t.Parallel()
	ok := health.Condition{State: health.OK}
	for text, conditions := range map[string]map[string]health.Condition{
		"has not asked Partner Center since it was started for b.": {"partner_center a": ok, "login a": ok, "login b": ok},
		"has not asked Partner Center since it was started for a.": {"partner_center b": ok, "login b": ok},
		"has not asked Partner Center since it was started.":       {"login b": ok},
		"has asked nothing of Microsoft since it was started.":     {},
	} {
		if got, want := aFleet(conditions, "a", "b").Headline(), (Headline{"", "It is not known yet: this replica " + text}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}

// A pause and a budget that is used up are no outage, and the sentence names the
// partners if it is not about all.
func TestHeadlineOfBudgets(t *testing.T) {
	t.Parallel()
	ok := health.Condition{State: health.OK}
	f := aFleet(map[string]health.Condition{"partner_center a": ok, "login a": ok, "partner_center b": ok, "login b": ok}, "a", "b")
	f.Partners[1].Budget.Level, f.Partners[1].Budget.Lanes = 0.4, []FleetLane{{Waiting: 2}, {Waiting: 1}}
	if got, want := f.Headline(), (Headline{"warn", "Neither is down: for b, our budget for Partner Center is used up, and 3 calls wait for it."}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	for i := range f.Partners {
		f.Partners[i].Budget.PausedUntil = f.Time.Add(time.Minute)
	}
	if got, want := f.Headline(), (Headline{"warn", "Neither is down: Microsoft asked us to pause until 14:03:03 UTC (429)."}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	f.Partners[0].Budget = nil // it could not be read
	if got := f.Headline(); !strings.Contains(got.Text, "for b, Microsoft asked us to pause") {
		t.Errorf("%+v", got)
	}
}
