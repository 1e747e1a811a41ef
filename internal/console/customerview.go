package console

import (
	"net/url"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// customerInput is what a customer's page is made of.
type customerInput struct {
	id, partner string
	now         time.Time
	past        bool // an earlier time is asked about
	explained   *eligibilityv1.ExplainEligibilityResponse
	renewal     *eligibilityv1.ExplainEligibilityResponse // the same for a renewal, if purchases are blocked
	mayAsk      bool
	asked       outcome // of asking Microsoft, if the page follows that
}

// customerPage is the data of templates/customer.html.
type customerPage struct {
	ID, Partner string
	Partners    []partnerLink
	// Self is the page's path without a time, At the time that is asked about, if it is an
	// earlier one, AtValue the same for the form, and MaxAt the latest that it accepts.
	Self, AskedPath, AskPath string
	At                       *moment
	AtValue, MaxAt           string
	Earlier                  []earlier
	Notice                   *notice
	// Unread are the parts that could not be read.
	Unread        []string
	HistoryUnread bool
	// Nothing is set if nothing at all is known.
	Nothing   bool
	MayAsk    bool
	Verdicts  []verdict
	Returned  []returned
	Ages      []age
	Obstacles []obstacle
	// CannotAsk is set if an obstacle keeps the service from asking; others only slow it
	// down.
	CannotAsk bool
	Reviews   []pending
	Block     string
	History   []change
	Events    string
}

// earlier leads to the page at an earlier time.
type earlier struct{ Name, Path string }

// notice is a sentence about what the user has just done.
type notice struct {
	Class, Text string
	// Waits is set if the page does not have the answer yet.
	Waits bool
}

// obstacle is what keeps the service from asking Partner Center.
type obstacle struct {
	Text  string
	Until *moment
}

// pending is a review that has not ended.
type pending struct {
	Facet             string
	Word              text
	Since, Last, Next *moment
}

// customerBuilder makes a page of its input.
type customerBuilder struct {
	customerInput

	asOf  time.Time // that the answers are for
	texts texts
}

// newCustomerPage makes the page of a customer.
func newCustomerPage(in *customerInput) *customerPage {
	b := &customerBuilder{customerInput: *in, asOf: in.now}
	if in.past {
		b.asOf = in.explained.GetExplainTime().AsTime()
	}
	query := url.Values{"partner": {in.partner}}
	self := customerPath(in.id, query)
	page := &customerPage{
		ID: in.id, Partner: in.partner, Self: self, MayAsk: in.mayAsk,
		AskedPath: Path + "/customers/" + in.id + "/asked?" + query.Encode(),
		AskPath:   Path + "/customers/" + in.id + "/ask?" + query.Encode(),
		MaxAt:     in.now.UTC().Format(fieldMillis), Notice: b.askedNotice(),
		Nothing: len(in.explained.GetEvidence()) == 0 && len(in.explained.GetHistory()) == 0 && len(in.explained.GetUnread()) == 0,
	}
	if in.past {
		page.At = momentOf(in.explained.GetExplainTime(), in.now)
		page.AtValue = b.asOf.UTC().Format(fieldMillis)
	} else {
		page.Events = Path + "/events?" + url.Values{"customer_ids": {in.id}, "partner": {in.partner}, "segment": {"EDUCATION"}}.Encode()
	}
	for _, ago := range []struct {
		name string
		d    time.Duration
	}{{"1 hour ago", time.Hour}, {"1 day ago", 24 * time.Hour}, {"7 days ago", 7 * 24 * time.Hour}} {
		page.Earlier = append(page.Earlier, earlier{ago.name, b.pathAt(in.now.Add(-ago.d))})
	}
	for _, part := range in.explained.GetUnread() {
		page.Unread = append(page.Unread, unreadText(part))
	}
	page.HistoryUnread = b.unread(eligibilityv1.ExplanationPart_EXPLANATION_PART_HISTORY)
	for _, segment := range in.explained.GetSegments() {
		page.Verdicts = append(page.Verdicts, b.verdictOf(segment))
	}
	page.Returned = []returned{b.returnedOf(eligibilityv1.Facet_FACET_ACCOUNT), b.returnedOf(eligibilityv1.Facet_FACET_QUALIFICATIONS)}
	page.Ages = b.ages()
	for _, o := range in.explained.GetObstacles() {
		page.Obstacles = append(page.Obstacles, obstacle{obstacleText(o), momentOf(o.GetUntilTime(), in.now)})
		page.CannotAsk = page.CannotAsk || o.GetKind() != eligibilityv1.Obstacle_KIND_SHARED_CACHE
	}
	for _, r := range in.explained.GetReviews() {
		page.Reviews = append(page.Reviews, pending{
			Facet: facetName(r.GetFacet()), Word: b.texts.brief(r.GetStatusText()),
			Since: momentOf(r.GetPendingSinceTime(), in.now), Last: momentOf(r.GetLastCheckTime(), in.now), Next: momentOf(r.GetNextCheckTime(), in.now),
		})
	}
	page.Block = b.supportBlock()
	page.History = b.history()
	return page
}

// pathAt is the path of the page at an earlier time.
func (p *customerBuilder) pathAt(at time.Time) string {
	return customerPath(p.id, url.Values{"partner": {p.partner}, "at": {at.UTC().Format(isoMillis)}})
}

// newest returns the newest evidence about a facet that any tier holds, nil if none does.
// If several hold it, it is that of one which need not have it confirmed.
func (p *customerBuilder) newest(facet eligibilityv1.Facet) (newest *eligibilityv1.HeldEvidence) {
	for _, held := range p.explained.GetEvidence() {
		if held.GetFacet() != facet {
			continue
		}
		if newest != nil {
			later := held.GetEvidenceTime().AsTime().Compare(newest.GetEvidenceTime().AsTime())
			if later < 0 || later == 0 && (held.GetMustRevalidate() || !newest.GetMustRevalidate()) {
				continue
			}
		}
		newest = held
	}
	return newest
}

func (p *customerBuilder) unread(part eligibilityv1.ExplanationPart) bool {
	return slices.Contains(p.explained.GetUnread(), part)
}

func unreadText(part eligibilityv1.ExplanationPart) string {
	switch part {
	case eligibilityv1.ExplanationPart_EXPLANATION_PART_EVIDENCE:
		return "The shared cache could not be read: it may hold newer evidence than this page shows."
	case eligibilityv1.ExplanationPart_EXPLANATION_PART_REVIEWS:
		return "The list of reviews could not be read: the customer may be under review without this page showing it."
	case eligibilityv1.ExplanationPart_EXPLANATION_PART_HISTORY:
		return "The history could not be read: there may be changes that this page does not show."
	case eligibilityv1.ExplanationPart_EXPLANATION_PART_UNSPECIFIED:
	}
	return "A part could not be read: more may be known than this page shows."
}

func facetName(f eligibilityv1.Facet) string {
	if f == eligibilityv1.Facet_FACET_QUALIFICATIONS {
		return "Qualifications"
	}
	return "Account"
}

func obstacleText(o *eligibilityv1.Obstacle) string {
	host := "Partner Center"
	if o.GetHost() == eligibilityv1.Obstacle_HOST_LOGIN {
		host = "Microsoft's login host"
	}
	switch o.GetKind() {
	case eligibilityv1.Obstacle_KIND_PAUSE:
		return host + " has asked for a pause."
	case eligibilityv1.Obstacle_KIND_BUDGET:
		return "This service's own budget of calls to Partner Center is spent."
	case eligibilityv1.Obstacle_KIND_CIRCUIT_BREAKER:
		return host + " fails, and is not called for a while (circuit breaker)."
	case eligibilityv1.Obstacle_KIND_CREDENTIALS:
		return host + " refuses the credentials of this service. Its operator has to act."
	case eligibilityv1.Obstacle_KIND_SHARED_CACHE:
		return "The shared cache is out of reach: this replica has only a share of the budget."
	case eligibilityv1.Obstacle_KIND_UNSPECIFIED:
	}
	return "Something that this page does not know keeps the service from calling " + host + "."
}

// returned is what Microsoft returned about one facet.
type returned struct {
	Name string
	// Missing is why there is nothing; the other members then are empty.
	Missing string
	// Plain is what was returned if that is no word.
	Plain          string
	Word           *text
	Qualifications []qualification
	More           int // qualifications that are not shown
	// Fetched is when; First is set if that was the first of several fetches, of which
	// Confirmed is the last.
	Fetched, Confirmed *moment
	First              bool
	// State is how old it is, Class the class of its badge.
	State, Class string
	Correlation  string
}

// qualification is an entry of the list that Microsoft returned.
type qualification struct {
	Type, Vetting, Reason text
	Class                 string
	Created               *moment
}

// maxQualifications is how many qualifications a page shows.
const maxQualifications = 50

func (p *customerBuilder) returnedOf(facet eligibilityv1.Facet) returned {
	r := returned{Name: facetName(facet)}
	held := p.newest(facet)
	if held == nil {
		r.Missing = upperFirst(p.missing(facet)) + "."
		return r
	}
	facts := held.GetFacts()
	switch r.Plain = absenceText(facts.GetAbsence()); {
	case r.Plain != "":
	case facet == eligibilityv1.Facet_FACET_QUALIFICATIONS:
		r.Qualifications, r.More = p.qualificationsOf(facts.GetQualifications())
		if len(r.Qualifications) == 0 {
			r.Plain = "no qualification"
		}
	case facts.GetAccountStatus() == eligibilityv1.AccountStatus_ACCOUNT_STATUS_NONE:
		r.Plain = "no status"
	default:
		word := p.texts.of(facts.GetAccountStatusText())
		r.Word = &word
	}
	r.Fetched = momentOf(held.GetEvidenceTime(), p.now)
	if p.past {
		r.First = true
		r.Confirmed = momentOf(p.confirmed(held), p.now)
	}
	r.State, r.Class = p.stateOfAge(held)
	r.Correlation = p.texts.brief(held.GetCorrelationId()).Short
	return r
}

func (p *customerBuilder) qualificationsOf(all []*eligibilityv1.Qualification) (shown []qualification, more int) {
	for _, q := range all[:min(len(all), maxQualifications)] {
		shown = append(shown, qualification{
			Type: p.texts.of(q.GetTypeText()), Vetting: p.texts.of(q.GetVettingStatusText()), Reason: p.texts.of(q.GetVettingReason()),
			Class: vettingClass(q.GetVettingStatus()), Created: momentOf(q.GetVettingCreatedTime(), p.now),
		})
	}
	return shown, len(all) - len(shown)
}

func vettingClass(s eligibilityv1.VettingStatus) string {
	switch s {
	case eligibilityv1.VettingStatus_VETTING_STATUS_APPROVED:
		return allowed
	case eligibilityv1.VettingStatus_VETTING_STATUS_DENIED:
		return blocked
	case eligibilityv1.VettingStatus_VETTING_STATUS_IN_REVIEW, eligibilityv1.VettingStatus_VETTING_STATUS_UNRECOGNIZED:
		return undecided
	case eligibilityv1.VettingStatus_VETTING_STATUS_UNSPECIFIED:
	}
	return ""
}

// absenceText is empty if the customer is not absent.
func absenceText(a eligibilityv1.Absence) string {
	switch a {
	case eligibilityv1.Absence_ABSENCE_NOT_FOUND:
		return "no such customer"
	case eligibilityv1.Absence_ABSENCE_NOT_SERVED:
		return "the customer is not served by this partner"
	case eligibilityv1.Absence_ABSENCE_UNSPECIFIED:
	}
	return ""
}

// confirmed is when the facts of evidence were last fetched, by the history.
func (p *customerBuilder) confirmed(held *eligibilityv1.HeldEvidence) (at *timestamp) {
	for _, entry := range p.explained.GetHistory() {
		if entry.GetFacet() == held.GetFacet() && proto.Equal(entry.GetEvidenceTime(), held.GetEvidenceTime()) {
			return entry.GetConfirmedTime()
		}
	}
	return nil
}

// stateOfAge is how old evidence is, and the class of its badge.
func (p *customerBuilder) stateOfAge(held *eligibilityv1.HeldEvidence) (state, class string) {
	switch {
	case p.asOf.Before(held.GetExpireTime().AsTime()) && held.GetMustRevalidate():
		return "fresh, to be confirmed", undecided
	case p.asOf.Before(held.GetExpireTime().AsTime()):
		return "fresh", allowed
	case p.asOf.Before(held.GetUsableUntilTime().AsTime()):
		return "usable, no longer fresh", undecided
	default:
		return "expired", blocked
	}
}
