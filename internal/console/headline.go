package console

import (
	"fmt"
	"slices"
	"strings"

	"github.com/eligibilityd/eligibilityd/internal/health"
)

// Headline is one sentence about whether it is Microsoft or this service that does not
// work. Class is ok, warn or error, or empty if nothing is known.
type Headline struct{ Class, Text string }

// party is on whose side a fault is.
type party uint8

const (
	nobody    party = iota // nothing is down
	microsoft              // Partner Center, or its login host
	us                     // this service, its configuration or what it uses
	either                 // Microsoft or our network
	both                   // one for some partners, the other for others
)

// finding is a fault, or none if weight is 0. The text is a clause.
type finding struct {
	party party
	// weight orders findings: 3 stops answers from Microsoft, 2 and 1 do not. Below 0,
	// it is not known how Partner Center fares, and text begins after "this replica".
	weight int
	text   string
}

// Headline returns the sentence about f.
func (f *Fleet) Headline() Headline {
	remote, own := f.remote(), f.own()
	switch {
	case remote.weight > 0 && remote.party != nobody && own.weight > 1 && remote.party != us:
		return Headline{"error", "It is both: " + remote.text + ", and " + own.text + "."}
	case remote.weight > 0 && remote.weight >= own.weight:
		return remote.headline()
	case own.weight > 0 && remote.weight < 0:
		return Headline{own.class(), own.begin() + own.text + "; this replica " + remote.text + "."}
	case own.weight > 0 && remote.weight > 0:
		return own.headline()
	case own.weight > 0:
		return Headline{own.class(), own.begin() + "Microsoft answered when it was last asked, but " + own.text + "."}
	case remote.weight < 0:
		return Headline{"", "It is not known yet: this replica " + remote.text + "."}
	default:
		return Headline{"ok", "Neither is down: Microsoft answered when it was last asked, and everything that this replica uses works."}
	}
}

func (f finding) class() string {
	if f.weight == 3 {
		return "error"
	}
	return "warn"
}

func (f finding) headline() Headline { return Headline{f.class(), f.begin() + f.text + "."} }

// begin is how the sentence about a finding begins.
func (f finding) begin() string {
	return [...]string{
		nobody: "Neither is down: ", microsoft: "It is Microsoft: ", us: "It is us: ", either: "It is Microsoft or our network: ", both: "It is both: ",
	}[f.party]
}

// remote returns the worst findings about Microsoft as one, and about which partners
// they are if not about all.
func (f *Fleet) remote() finding {
	worst, found := finding{weight: -1, text: askedNothing}, make([]finding, len(f.Partners))
	for i := range f.Partners {
		found[i] = f.remoteOf(&f.Partners[i])
		if i == 0 || found[i].weight > worst.weight {
			worst = found[i]
		}
	}
	if worst.weight <= 0 {
		return f.unasked(found, worst)
	}
	var clauses []string
	about := make(map[finding][]string)
	for i, one := range found {
		if one.weight == worst.weight {
			about[one] = append(about[one], f.Partners[i].Name)
		}
	}
	for i, one := range found {
		names := about[one]
		if len(names) == 0 || names[0] != f.Partners[i].Name || len(names) == len(found) {
			continue
		}
		clauses = append(clauses, "for "+strings.Join(names, ", ")+", "+one.text)
		if one.party != worst.party {
			worst.party = both
		}
	}
	if len(clauses) > 0 {
		worst.text = strings.Join(clauses, ", and ")
	}
	return worst
}

const (
	askedNothing = "has asked nothing of Microsoft since it was started"
	notAsked     = "has not asked Partner Center since it was started"
)

// unasked returns for which partners it is not known how Partner Center fares; none if
// it is known for all.
func (f *Fleet) unasked(found []finding, none finding) finding {
	var names []string
	unknown := none
	for i, one := range found {
		if one.weight >= 0 {
			continue
		}
		if len(names) == 0 || one.text == notAsked {
			unknown = one
		}
		names = append(names, f.Partners[i].Name)
	}
	if len(names) > 0 && len(names) < len(found) {
		unknown.text = notAsked + " for " + strings.Join(names, ", ")
	}
	return unknown
}

// component returns the condition of a component of a partner.
func (f *Fleet) component(name, partner string) health.Condition {
	for i := range f.Components {
		if c := &f.Components[i]; c.Name == name && c.Partner == partner {
			return c.Condition
		}
	}
	return health.Condition{}
}

// fault is what a component meets at Microsoft, by the kind of its error.
type fault uint8

const (
	faultErrors    fault = iota // it answers, but not as it should
	faultSilence                // it does not answer
	faultThrottled              // it asks for a pause
	faultRefused                // it refuses our credentials
	faultOwn                    // our credentials cannot be read or stored
)

// faultOf returns the fault that a kind of pcclient.Reason stands for.
func faultOf(kind string) fault {
	switch kind {
	case "connection", "timeout", "breaker":
		return faultSilence
	case "throttled", "paused":
		return faultThrottled
	case "refresh_token", "refresh_token_store", "client_credential", "client_credential_source", "app_only":
		return faultOwn
	case "unauthorized", "forbidden", "invalid_grant", "interaction_required", "consent_required", "invalid_client",
		"unauthorized_client", "invalid_resource", "invalid_request", "refused":
		return faultRefused
	default:
		return faultErrors
	}
}

// remoteOf returns the finding about Microsoft for one partner.
func (f *Fleet) remoteOf(p *FleetPartner) finding {
	center, login := f.component("partner_center", p.Name), f.component("login", p.Name)
	silent := func(c health.Condition) bool { return isBad(c) && faultOf(c.Kind) == faultSilence }
	found := []finding{
		hostFinding(login, "the login host of Microsoft"), hostFinding(center, "Partner Center"), throttling(p.Budget),
	}
	switch {
	case silent(center) && silent(login):
		return finding{either, weightOf(center), "neither Partner Center nor the login host answers (" + kinds(center, login) + ")"}
	case silent(center) && login.State == health.OK && login.Since.After(center.Since):
		found[1].party = microsoft
		found[1].text += ", while the login host has answered since"
	case silent(center) && login.State == health.OK: // perhaps before the network failed
		found[1].text += ", while the login host did when it was last asked"
	case center.State == health.Unknown && login.State == health.Unknown:
		return finding{weight: -1, text: askedNothing}
	}
	// Of equal weight, the login host comes first: Partner Center needs its tokens.
	worst := slices.MaxFunc(found, func(a, b finding) int { return a.weight - b.weight })
	if worst.weight == 0 && center.State == health.Unknown {
		return finding{weight: -1, text: notAsked}
	}
	return worst
}

func isBad(c health.Condition) bool { return c.State >= health.Degraded }

// weightOf is 3 if a host of Microsoft does not work, and 2 if that is not certain.
func weightOf(c health.Condition) int {
	if c.State == health.Failing {
		return 3
	}
	return 2
}

// kinds joins the kinds of errors, and since when the first lasts.
func kinds(first health.Condition, others ...health.Condition) string {
	words := []string{first.Kind}
	for _, c := range others {
		words = append(words, c.Kind)
	}
	return strings.Join(slices.Compact(words), " and ") + " since " + first.Since.UTC().Format("15:04:05 UTC")
}

// hostFinding returns the finding about one host of Microsoft.
func hostFinding(c health.Condition, host string) finding {
	if !isBad(c) {
		return finding{}
	}
	found, detail := finding{weight: weightOf(c)}, " ("+kinds(c)+")"
	switch faultOf(c.Kind) {
	case faultSilence:
		found.party, found.text = either, host+" does not answer"
	case faultThrottled:
		found.party, found.weight, found.text = nobody, 1, host+" limits how often we may ask"
	case faultRefused:
		found.party, found.text = us, host+" refuses our credentials, so that somebody has to act"
	case faultOwn:
		found.party, found.text = us, "our credentials cannot be read or stored"
	default:
		found.party, found.text = microsoft, host+" answers with errors"
	}
	found.text += detail
	return found
}

// throttling returns the finding about the budget of a partner.
func throttling(b *FleetBudget) finding {
	switch {
	case b == nil:
		return finding{}
	case !b.PausedUntil.IsZero():
		return finding{nobody, 2, "Microsoft asked us to pause until " + b.PausedUntil.UTC().Format("15:04:05 UTC") + " (429)"}
	case b.waiting() > 0 && b.Level < 1:
		return finding{nobody, 1, fmt.Sprintf("our budget for Partner Center is used up, and %d calls wait for it", b.waiting())}
	default:
		return finding{}
	}
}

// waiting is how many calls wait for the budget.
func (b *FleetBudget) waiting() (waiting int) {
	for _, lane := range b.Lanes {
		waiting += lane.Waiting
	}
	return waiting
}

// own returns the worst finding about what this service uses, Microsoft apart.
func (f *Fleet) own() finding {
	var worst finding
	for i := range f.Components {
		c := &f.Components[i]
		if c.Name == "partner_center" || c.Name == "login" || !isBad(c.Condition) {
			continue
		}
		found := finding{us, 1, c.label() + " " + ownWord(c.State) + " (" + kinds(c.Condition) + ")"}
		switch {
		case c.Name == "redis" && c.State == health.Failing:
			found.weight = 3
		case c.Name == "webhook": // its receiver is neither's
			found.party, found.text = nobody, "the receiver of the webhook "+c.Webhook+" does not take changes ("+kinds(c.Condition)+")"
		}
		if found.weight > worst.weight || found.weight == worst.weight && worst.party == nobody {
			worst = found
		}
	}
	return worst
}

func ownWord(state health.State) string {
	if state == health.Failing {
		return "does not work"
	}
	return "works in part"
}

// label names a component in a sentence.
func (c *FleetComponent) label() string {
	switch c.Name {
	case "redis":
		return "our Redis"
	case "feed":
		return "the feed of changes of " + c.Partner
	case "decision_log":
		return "the decision log"
	case "issuer":
		return "the issuer " + c.Issuer
	case "traces":
		return "the export of traces"
	case "metrics":
		return "the export of metrics"
	default:
		return c.Name
	}
}
