package console

import (
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/health"
)

// Fleet is what this replica knows about itself, the other replicas and what they
// depend on.
type Fleet struct {
	// Time is when it was read.
	Time time.Time
	// Host and Version are this replica's.
	Host, Version string
	// Shared reports that replicas share a Redis, by which they know each other.
	Shared   bool
	Partners []FleetPartner // sorted by name
	Webhooks []FleetWebhook
	// Components are those of /readyz?verbose.
	Components []FleetComponent
	// Process is nil if it could not be read.
	Process *FleetProcess
	// Unread is what could not be read in time.
	Unread []FleetUnread
}

// FleetUnread names something that could not be read. Partner is empty if it is about
// none.
type FleetUnread struct{ Name, Partner string }

// FleetPartner is the part of a Fleet that is about one partner.
type FleetPartner struct {
	Name string
	// Budget, Credentials, Store and Reviews are nil if there is none, or it could not
	// be read.
	Budget      *FleetBudget
	Credentials *FleetCredentials
	Store       *FleetStore
	Reviews     *FleetReviews
	// Replicas are those that share the budget and announced themselves within a minute
	// of Announced, which is zero if none ever did. Without Redis there is this one.
	Replicas  []FleetReplica
	Announced time.Time
}

// FleetReplica is a process that shares the budget of a partner.
type FleetReplica struct {
	Host, Version string
	PerMinute     int
	// Own is this replica. SameBudget and SamePolicy compare with it.
	Own, SameBudget, SamePolicy bool
}

// FleetBudget is the budget for calls to Partner Center.
type FleetBudget struct {
	// PerMinute is the configured number of calls. Limit is how many there may be now:
	// of all replicas or, if Alone, of this one.
	PerMinute, Limit float64
	// Level is how many calls could be made at once.
	Level float64
	// Alone reports that Redis is out of reach, so that this replica has its part only.
	Alone bool
	// PausedUntil and LoginPausedUntil are when calls to Partner Center and to the login
	// host may be made again; zero if they may.
	PausedUntil, LoginPausedUntil time.Time
	// BreakerOpen and LoginBreakerOpen report the circuit breakers.
	BreakerOpen, LoginBreakerOpen bool
	// Lanes are the highest first.
	Lanes []FleetLane
}

// FleetLane is what waits for the budget in one lane of this replica, and how many calls
// it refused since it was started.
type FleetLane struct {
	Name    string
	Waiting int
	Refused float64
}

// FleetCredentials are how long what authenticates us at Microsoft lasts. A zero time is
// not known.
type FleetCredentials struct {
	// Flow is that of the configuration, and Proof is what proves who we are.
	Flow, Proof                                          string
	AccessTokenEnds, RefreshTokenStored, RefreshTokenEnd time.Time
	// CertificateEnds is the end of the client certificate; there is none if Proof is
	// another.
	CertificateEnds time.Time
	// Unstored reports that a restart would lose the newest refresh token.
	Unstored bool
	// Refused are the operations for which our credentials were refused when last used.
	Refused []string
}

// FleetStore is what the evidence of a partner is kept in beside this process.
type FleetStore struct {
	Writable, Subscribed bool
	// Outbox is how much evidence waits to be written, and Lost how much had no room
	// there.
	Outbox, Lost float64
	// FeedLag is how far this replica is behind the feed of changes.
	FeedLag time.Duration
}

// FleetReviews are the customers of a partner that are checked without a caller.
type FleetReviews struct {
	Tracked, Due float64
	Late         time.Duration
}

// FleetWebhook is a webhook of the configuration.
type FleetWebhook struct {
	Name, Partner, Host string
	// State is delivering, backing_off, disabled or no_sender; empty if it could not be
	// read.
	State        string
	PausedUntil  time.Time
	Sender       string
	Lag          time.Duration
	Parked, Dead int64
	// Replay is the command that sends dead letters again; empty if there is none.
	Replay string
}

// FleetComponent is a component of /readyz?verbose.
type FleetComponent struct {
	Name, Partner, Webhook, Issuer string
	health.Condition
}

// FleetProcess is about this replica alone. A zero time is none.
type FleetProcess struct {
	CertificateEnds, TokensEnd time.Time
	// DecisionLog reports that there is one. Dropped is how many of its records were
	// lost, and Queued how many wait to be written.
	DecisionLog     bool
	Dropped, Queued float64
}

// limitedTo returns the part of f that is about the partners of a caller, or about
// none.
func (f *Fleet) limitedTo(caller *access.Caller) Fleet {
	limited := *f
	hidden := func(partner string) bool { return partner != "" && !caller.MayUse(partner) }
	limited.Partners = slices.DeleteFunc(slices.Clone(f.Partners), func(p FleetPartner) bool { return hidden(p.Name) })
	limited.Webhooks = slices.DeleteFunc(slices.Clone(f.Webhooks), func(w FleetWebhook) bool { return hidden(w.Partner) })
	limited.Components = slices.DeleteFunc(slices.Clone(f.Components), func(c FleetComponent) bool { return hidden(c.Partner) })
	limited.Unread = slices.DeleteFunc(slices.Clone(f.Unread), func(u FleetUnread) bool { return hidden(u.Partner) })
	return limited
}

// fleetPage is the data of templates/fleet.html.
type fleetPage struct {
	Fleet

	Headline Headline
}

// fleetOf returns the part of the fleet that a user may see.
func (h *Handler) fleetOf(r *http.Request, u *user) Fleet {
	fleet := h.cfg.Fleet(r.Context())
	return fleet.limitedTo(u.caller)
}

// fleet serves the state of this replica and of the others.
func (h *Handler) fleet(w http.ResponseWriter, r *http.Request, u *user) {
	fleet := h.fleetOf(r, u)
	h.page(w, r, u, http.StatusOK, "fleet", &fleetPage{Fleet: fleet, Headline: fleet.Headline()})
}

// fleetFunctions are those of the templates of the fleet and of who asked.
func fleetFunctions() template.FuncMap {
	return template.FuncMap{
		"isoTime": isoTime, "utcTime": utcTime, "utcMillis": utcMillis, "span": span, "shown": shown,
		"outcomeClass": outcomeClass, "errorReason": errorReason, "stateClass": stateClass, "whole": whole, "percent": percent, "ends": ends, "lower": strings.ToLower,
	}
}

// stateClass is the class of a state's badge.
func stateClass(state health.State) string {
	switch state {
	case health.OK:
		return "ok"
	case health.Degraded:
		return "warn"
	case health.Failing:
		return "error"
	default:
		return ""
	}
}
