package console

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

const (
	// explainTimeout bounds the explanations that a page needs.
	explainTimeout = 10 * time.Second
	// explainsAtOnce is how many partners a customer is explained for at once.
	explainsAtOnce = 8
)

// customer shows what is known about a customer, now or at an earlier time.
func (h *Handler) customer(w http.ResponseWriter, r *http.Request, u *user) {
	id, ok := h.customerID(w, r, u)
	if !ok {
		return
	}
	query := r.URL.Query()
	partners, wanted, ok := h.chosenPartner(w, r, u)
	if !ok {
		return
	}
	at, err := parseAt(query.Get("at"))
	if err != nil || at.After(h.cfg.Now().Add(time.Second)) {
		h.fail(w, r, u, http.StatusBadRequest, "The time that the answers are asked for must be a date and a time in UTC, such as 2026-11-28T14:02:00, and not in the future.")
		return
	}
	ctx, cancel := context.WithTimeout(h.context(r, u), explainTimeout)
	defer cancel()
	all := h.explainForEach(ctx, id, partners, at)
	chosen := chooseHolder(all, wanted, h.cfg.DefaultPartner)
	of := &all[chosen]
	if wanted == "" && len(all) > 1 {
		query.Set("partner", of.partner) // so that the page stays with it when it is loaded again
		redirect(w, customerPath(id, query))
		return
	}
	if of.err != nil {
		p := problemOf(of.err)
		p.Partners = partnerLinks(all, id, chosen, at)
		h.failWith(w, r, u, p)
		return
	}
	in := customerInput{
		id: id, partner: of.partner, now: h.cfg.Now(), past: !at.IsZero(), explained: of.explained,
		mayAsk: u.caller.Rights.Has(access.Fresh), asked: parseOutcome(query),
	}
	if anyBlocked(of.explained) {
		req := explainRequest(id, of.partner, at)
		req.Operation = eligibilityv1.Operation_OPERATION_RENEWAL
		in.renewal, _ = h.cfg.API.ExplainEligibility(ctx, req) // the page states that it is missing
	}
	page := newCustomerPage(&in)
	page.Partners = partnerLinks(all, id, chosen, at)
	h.page(w, r, u, http.StatusOK, "customer", page)
}

// customerID returns the customer in the path of a request. If there is none, or if it
// is not in its canonical form, it answers.
func (h *Handler) customerID(w http.ResponseWriter, r *http.Request, u *user) (id string, ok bool) {
	given := r.PathValue("id")
	parsed, err := eligibility.ParseCustomerID(given)
	if err != nil {
		h.fail(w, r, u, http.StatusNotFound, "The address has no customer's id. Paste the id on the first page.")
		return "", false
	}
	id = parsed.String()
	if id != given && r.Method == http.MethodGet {
		redirect(w, customerPath(id, r.URL.Query()))
		return "", false
	}
	return id, true
}

// customerPath is the path of a customer's page.
func customerPath(id string, query url.Values) string {
	path := Path + "/customers/" + id
	if encoded := query.Encode(); encoded != "" {
		path += "?" + encoded
	}
	return path
}

// partnersOf returns the partners that a user may ask about.
func (h *Handler) partnersOf(u *user) []string {
	if u.caller.Partners == nil {
		return h.cfg.Partners
	}
	var permitted []string
	for _, name := range h.cfg.Partners {
		if slices.Contains(u.caller.Partners, name) {
			permitted = append(permitted, name)
		}
	}
	return permitted
}

// chosenPartner returns the partners that the user may ask about, at least one, and the
// one that a request names, empty if it names none. If it may not be named, it answers.
func (h *Handler) chosenPartner(w http.ResponseWriter, r *http.Request, u *user) (partners []string, chosen string, ok bool) {
	partners, chosen = h.partnersOf(u), r.URL.Query().Get("partner")
	switch {
	case len(partners) == 0:
		h.fail(w, r, u, http.StatusForbidden, "You may not see the customers of any partner. Whoever administers the service can grant it.")
	case chosen != "" && !slices.Contains(partners, chosen):
		h.fail(w, r, u, http.StatusBadRequest, "There is no such partner, or you may not see its customers.")
	default:
		return partners, chosen, true
	}
	return nil, "", false
}

// usualPartner is the partner that a request means if it names none: the default, or the
// first that the user may ask about.
func (h *Handler) usualPartner(partners []string) string {
	if slices.Contains(partners, h.cfg.DefaultPartner) {
		return h.cfg.DefaultPartner
	}
	return partners[0]
}

// parseAt reads the time that a page is asked for, in UTC; empty means now.
func parseAt(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	var at time.Time
	var err error
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04"} {
		if at, err = time.Parse(layout, s); err == nil {
			break
		}
	}
	if err == nil {
		err = timestamppb.New(at).CheckValid()
	}
	return at.UTC(), err
}

// forPartner is what is known about the customer of one partner.
type forPartner struct {
	partner   string
	explained *eligibilityv1.ExplainEligibilityResponse
	err       error
}

// holds reports whether anything is known.
func (f *forPartner) holds() bool {
	return len(f.explained.GetEvidence()) > 0 || len(f.explained.GetHistory()) > 0
}

func explainRequest(id, partner string, at time.Time) *eligibilityv1.ExplainEligibilityRequest {
	req := &eligibilityv1.ExplainEligibilityRequest{CustomerId: id, Partner: partner}
	if !at.IsZero() {
		req.At = timestamppb.New(at)
	}
	return req
}

// explainForEach explains a customer for each partner.
func (h *Handler) explainForEach(ctx context.Context, id string, partners []string, at time.Time) []forPartner {
	all := make([]forPartner, len(partners))
	var group errgroup.Group
	group.SetLimit(explainsAtOnce)
	for i, name := range partners {
		group.Go(func() error {
			all[i].partner = name
			all[i].explained, all[i].err = h.cfg.API.ExplainEligibility(ctx, explainRequest(id, name, at))
			return nil
		})
	}
	_ = group.Wait()
	return all
}

// uncertain reports whether more may be known than could be read.
func (f *forPartner) uncertain() bool {
	unread := f.explained.GetUnread()
	return f.err != nil || slices.Contains(unread, eligibilityv1.ExplanationPart_EXPLANATION_PART_EVIDENCE) ||
		slices.Contains(unread, eligibilityv1.ExplanationPart_EXPLANATION_PART_HISTORY)
}

// chooseHolder returns the partner to show: the one that is wanted, else the usual one,
// which is the default or else the first, unless it certainly holds nothing and another
// one holds something.
func chooseHolder(all []forPartner, wanted, byDefault string) int {
	index := func(name string) int {
		return slices.IndexFunc(all, func(f forPartner) bool { return f.partner == name })
	}
	if i := index(wanted); i >= 0 {
		return i
	}
	usual := max(index(byDefault), 0)
	if all[usual].holds() || all[usual].uncertain() {
		return usual
	}
	if i := slices.IndexFunc(all, func(f forPartner) bool { return f.holds() }); i >= 0 {
		return i
	}
	return usual
}

// partnerLink leads to what one partner knows about the customer.
type partnerLink struct {
	Name, Path, State string
	Current           bool
}

// partnerLinks returns nil if there is only one partner.
func partnerLinks(all []forPartner, id string, chosen int, at time.Time) (links []partnerLink) {
	if len(all) < 2 {
		return nil
	}
	for i := range all {
		f := &all[i]
		query := url.Values{"partner": {f.partner}}
		if !at.IsZero() {
			query.Set("at", at.Format(isoMillis))
		}
		link := partnerLink{Name: f.partner, Path: customerPath(id, query), Current: i == chosen, State: "nothing known"}
		switch {
		case f.err != nil:
			link.State = "cannot be read"
		case f.holds():
			link.State = commercialBadge(f.explained, !at.IsZero())
		case len(f.explained.GetUnread()) > 0:
			link.State = "not known: parts cannot be read"
		}
		links = append(links, link)
	}
	return links
}

// commercialBadge is whether the customer may buy commercial licences, or could in the
// past, in a few words.
func commercialBadge(e *eligibilityv1.ExplainEligibilityResponse, past bool) string {
	of := commercialOf(e)
	state := stateOf(of)
	badge := strings.ToLower(badgeOf(state, past))
	switch {
	case state == undecided:
		return badge + " for commercial"
	case state == allowed && of.GetResponse().GetStale():
		return badge + " commercial (old evidence)"
	default:
		return badge + " commercial"
	}
}

func commercialOf(e *eligibilityv1.ExplainEligibilityResponse) *eligibilityv1.SegmentExplanation {
	for _, segment := range e.GetSegments() {
		if segment.GetSegment() == eligibilityv1.Segment_SEGMENT_COMMERCIAL {
			return segment
		}
	}
	return nil
}

func anyBlocked(e *eligibilityv1.ExplainEligibilityResponse) bool {
	return slices.ContainsFunc(e.GetSegments(), func(s *eligibilityv1.SegmentExplanation) bool { return stateOf(s) == blocked })
}
