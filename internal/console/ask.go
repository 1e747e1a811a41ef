package console

import (
	"context"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/eligibilityd/eligibilityd/internal/access"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

const (
	// asksPerMinute is how often a person may ask Microsoft, in each replica.
	asksPerMinute = 10
	// askTimeout is how long a person waits; a fetch ends within 10 s.
	askTimeout = 12 * time.Second
)

// ask asks Microsoft about a customer, and opens its page. It asks for the education
// segment, because that needs both facets.
func (h *Handler) ask(w http.ResponseWriter, r *http.Request, u *user) {
	id, ok := h.customerID(w, r, u)
	if !ok {
		return
	}
	partners, partner, ok := h.chosenPartner(w, r, u)
	if !ok {
		return
	}
	if partner == "" {
		partner = h.usualPartner(partners)
	}
	if !u.caller.Rights.Has(access.Fresh) {
		h.lacks(w, r, u, access.Fresh)
		return
	}
	now := h.cfg.Now()
	query := url.Values{"partner": {partner}, askedAtParameter: {strconv.FormatInt(now.UnixMilli(), 10)}}
	if !h.asks.admit(u.caller.Person, now) {
		query.Set(askedParameter, askedTooOften)
		redirect(w, customerPath(id, query))
		return
	}
	asker := *u.caller
	asker.Rights |= access.Check // that fresh permits to ask here is decided above
	ctx, cancel := context.WithTimeout(h.context(r, &user{caller: &asker, csrf: u.csrf}), askTimeout)
	defer cancel()
	answer, err := h.cfg.API.CheckEligibility(ctx, &eligibilityv1.CheckEligibilityRequest{
		CustomerId: id, Partner: partner, Segment: eligibilityv1.Segment_SEGMENT_EDUCATION, MaxAge: durationpb.New(0),
	})
	switch {
	case err != nil:
		query.Set(askedParameter, reasonOf(err))
	case answer.GetStale() || !answer.GetQualificationsKnown():
		query.Set(askedParameter, askedInPart)
	default:
		query.Set(askedParameter, askedWell)
		query.Set(evidenceParameter, strconv.FormatInt(answer.GetEvidenceTime().AsTime().UnixMilli(), 10))
	}
	redirect(w, customerPath(id, query))
}

// reasonOf is the reason of an error of the API.
func reasonOf(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return "INTERNAL"
}

// Outcomes of asking Microsoft, beside the reasons of errors.
const (
	askedWell     = "ok"
	askedInPart   = "part"
	askedTooOften = "often"
)

// Parameters of the page that follows. Times are in milliseconds since 1970.
const (
	askedParameter    = "asked"    // the outcome
	askedAtParameter  = "asked_at" // when Microsoft was asked
	evidenceParameter = "evidence" // the evidence time of the answer
)

// outcomeAge is for how long a page states the outcome of asking Microsoft.
const outcomeAge = 5 * time.Minute

// outcome is that of asking Microsoft.
type outcome struct {
	word         string
	at, evidence int64 // in milliseconds; evidence only if word is askedWell
}

// parseOutcome reads an outcome; times that are malformed are long ago, or never come.
func parseOutcome(query url.Values) outcome {
	o := outcome{word: query.Get(askedParameter), evidence: math.MaxInt64}
	o.at, _ = strconv.ParseInt(query.Get(askedAtParameter), 10, 64)
	if evidence, err := strconv.ParseInt(query.Get(evidenceParameter), 10, 64); err == nil {
		o.evidence = evidence
	}
	return o
}

// answerIsHere reports whether the page has evidence about each facet that is at least as
// new as an answer. Another replica may have fetched it.
func (p *customerBuilder) answerIsHere(evidence int64) bool {
	for _, facet := range []eligibilityv1.Facet{eligibilityv1.Facet_FACET_ACCOUNT, eligibilityv1.Facet_FACET_QUALIFICATIONS} {
		if held := p.newest(facet); held == nil || held.GetEvidenceTime().AsTime().UnixMilli() < evidence {
			return false
		}
	}
	return true
}

// askedNotice is the sentence about the outcome of asking Microsoft. It is nil if that was
// some minutes ago, and for a word that is not known: anybody can put one into an address.
func (p *customerBuilder) askedNotice() *notice {
	word := p.asked.word
	now := p.now.UnixMilli()
	if p.past || p.asked.at < now-outcomeAge.Milliseconds() || p.asked.at > now+outcomeAge.Milliseconds() {
		return nil
	}
	text := map[string]string{
		askedWell:                         "Microsoft was asked. Its answer is below.",
		askedInPart:                       "Microsoft was asked, and has not answered all of it: compare below when each part was fetched.",
		askedTooOften:                     "Microsoft was not asked: you may ask 10 times a minute. Wait a moment.",
		"CUSTOMER_NOT_FOUND":              "Microsoft was asked: Partner Center has no such customer.",
		"CUSTOMER_NOT_SERVED":             "Microsoft was asked: the customer has no relationship with this partner.",
		"PARTNER_CENTER_UNAVAILABLE":      "Microsoft was asked, and did not answer: Partner Center or its login host fails. Ask again in a minute.",
		"PARTNER_CENTER_THROTTLED":        "Microsoft was not asked: the limit on calls to Partner Center is reached. See below until when.",
		"PARTNER_CENTER_CREDENTIALS":      "Microsoft refuses the credentials of this service. Its operator has to act.",
		"PARTNER_CENTER_INVALID_RESPONSE": "Microsoft returned something that cannot be read. Report it to the operator of this service.",
		"DEADLINE_EXCEEDED":               "Microsoft has not answered yet. The question is still open: this page shows the answer when it comes.",
		"OVERLOADED":                      "Microsoft was not asked: this service has too much to do. Ask again in a moment.",
		"CALLER_LIMITED":                  "Microsoft was not asked: the console has used up what it may ask for. Ask again in a moment.",
		"PERMISSION_DENIED":               "Microsoft was not asked: you may not do this.",
		"INTERNAL":                        "Microsoft was not asked, by a fault of this service. Report it to its operator.",
	}[word]
	switch {
	case text == "":
		return nil
	case word == askedWell && !p.answerIsHere(p.asked.evidence):
		return &notice{Class: "warn", Text: "Microsoft was asked. This replica of the service does not have the answer yet: reload the page.", Waits: true}
	case word == askedWell:
		return &notice{Class: "ok", Text: text}
	case word == askedInPart, word == askedTooOften, word == "DEADLINE_EXCEEDED":
		return &notice{Class: "warn", Text: text}
	default:
		return &notice{Class: "error", Text: text}
	}
}

// asks bounds how often each person asks. The zero value is ready.
type asks struct {
	mu     sync.Mutex
	recent map[string][]time.Time // of the last minute, by person
}

// admit reports whether a person may ask now, and counts it.
func (a *asks) admit(person string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.recent == nil {
		a.recent = map[string][]time.Time{}
	}
	for name, times := range a.recent {
		for len(times) > 0 && now.Sub(times[0]) >= time.Minute {
			times = times[1:]
		}
		if a.recent[name] = times; len(times) == 0 {
			delete(a.recent, name)
		}
	}
	if len(a.recent[person]) >= asksPerMinute {
		return false
	}
	a.recent[person] = append(a.recent[person], now)
	return true
}
