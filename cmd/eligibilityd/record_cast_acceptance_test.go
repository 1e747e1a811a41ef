//go:build acceptance

package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// played is a customer of the proofs. What may be answered about it follows from its
// script alone.
type played struct {
	customer pcsim.Customer
	// approved are the segments whose qualification the customer holds.
	approved []eligibilityv1.Segment
}

const (
	education  = eligibilityv1.Segment_SEGMENT_EDUCATION
	government = eligibilityv1.Segment_SEGMENT_GOVERNMENT
	nonprofit  = eligibilityv1.Segment_SEGMENT_NONPROFIT
)

// holdings are lists of qualifications, with the segments that they satisfy.
func holdings() []played {
	item := func(words ...string) pcsim.Qualification {
		words = append(words, "", "", "")
		return pcsim.Qualification{Qualification: words[0], VettingStatus: words[1], VettingCreatedDate: words[2]}
	}
	const early, late = "2024-05-06T07:08:09.123Z", "2025-05-06T07:08:09.123Z"
	many := make([]pcsim.Qualification, 200) // longer than a record holds
	for i := range many {
		many[i] = item(fmt.Sprintf("Another%d", i), "Approved", early)
		many[i].VettingReason = strings.Repeat("for a reason ", 8)
	}
	holds := func(approved []eligibilityv1.Segment, items ...pcsim.Qualification) played {
		return played{pcsim.Customer{Qualifications: []pcsim.Step{{Items: append([]pcsim.Qualification{}, items...)}}}, approved}
	}
	denied := item("education", "Denied", late)
	denied.VettingReason = "Not an eligible Library"
	return []played{
		holds(nil),
		holds([]eligibilityv1.Segment{education}, item("Education", "Approved", early)),
		holds(nil, denied),
		holds(nil, item("Education", "InReview", early)),
		holds(nil, item("Education", "Approved", early), denied),
		holds([]eligibilityv1.Segment{education}, denied, item("Education", "Approved")),
		holds([]eligibilityv1.Segment{government}, item("GovernmentCommunityCloud", "Approved", late), item("StateOwnedEntity")),
		holds([]eligibilityv1.Segment{nonprofit}, item("Nonprofit", "Approved", late), item("Education", "Considered")),
		holds([]eligibilityv1.Segment{education, government, nonprofit},
			item("Education", "Approved"), item("Government Community Cloud", "Approved"), item("Non-Profit", "Approved")),
		holds([]eligibilityv1.Segment{education}, slices.Concat(many, []pcsim.Qualification{item("Education", "Approved", late)})...),
		holds(nil, append([]pcsim.Qualification{item("Education", "Denied", late)}, many...)...),
	}
}

// standing are the words that accounts have for as long as a proof lasts.
func standing() []string {
	return []string{"Allowed", "Allowed", "allowed", "UnderReview", "NotAllowed", "Unknown", "Not Ready", "NotReady", "not_ready", "Suspended", pcsim.StatusNone}
}

// cast returns the customers of the proofs: each word with each list, and some whose
// answers change.
func cast() (all []*played) {
	id := func() string { return coldID('5', len(all)) }
	for _, word := range standing() {
		for _, held := range holdings() {
			one := held
			one.customer.ID, one.customer.Account = id(), []pcsim.Step{{Status: word}}
			all = append(all, &one)
		}
	}
	for _, tenant := range []string{pcsim.TenantUnknown, pcsim.TenantOtherPartner} {
		all = append(all, &played{customer: pcsim.Customer{ID: id(), Tenant: tenant}})
	}
	const spell = 1700 * time.Millisecond
	for i := range 12 {
		words := []string{"Allowed", "Not Ready", "UnderReview", "NotAllowed", pcsim.StatusNone, "Allowed"}
		words = slices.Concat(words[i%len(words):], words[:i%len(words)])
		one := holdings()[i%len(holdings())]
		one.customer.ID = id()
		for range 30 {
			for _, word := range words {
				one.customer.Account = append(one.customer.Account, pcsim.Step{Status: word, For: spell})
			}
		}
		one.customer.Account[len(one.customer.Account)-1].For = 0
		all = append(all, &one)
	}
	return all
}

// brokenAnswers are steps in which Partner Center answers what is no evidence.
func brokenAnswers() (steps []pcsim.Step) {
	answer := func(status int, body string, headers ...string) {
		raw := &pcsim.Raw{Status: status, Body: body, Headers: map[string]string{}}
		for i := 0; i < len(headers); i += 2 {
			raw.Headers[headers[i]] = headers[i+1]
		}
		steps = append(steps, pcsim.Step{Raw: raw})
	}
	answer(200, "")
	answer(200, "null")
	answer(200, `{"status":5}`)
	answer(200, `{"type":"account","stat`)
	answer(200, "{\"type\":\"account\",\"status\":\"Allowed\xff\"}")
	answer(200, "\x1f\x8b\x08", "Content-Encoding", "gzip")
	answer(200, "<html>Sign in</html>", "Content-Type", "text/html")
	answer(200, strings.Repeat(" ", 1<<20)+`{"type":"account","status":"Allowed"}`)
	answer(204, "")
	answer(302, "", "Location", "https://example.com/")
	answer(400, `{"code":2000,"description":"Text."}`)
	answer(401, "")
	answer(401, `{"code":900420,"description":"Text."}`)
	answer(403, `{"code":1000,"description":"Text."}`)
	answer(404, "")
	answer(404, `{"code":600074`)
	answer(404, `{"code":600009,"description":"Text."}`)
	answer(409, "{}")
	answer(500, "<html>500</html>", "Content-Type", "text/html")
	answer(501, "")
	answer(502, "")
	answer(503, "", "Retry-After", "1")
	answer(504, "")
	return steps
}

// brokenConnections are steps in which the connection to Partner Center breaks.
func brokenConnections() []pcsim.Step {
	allowed := func(failure string, latency time.Duration) pcsim.Step {
		return pcsim.Step{Status: "Allowed", Failure: failure, Latency: latency}
	}
	return []pcsim.Step{
		{Failure: pcsim.FailureReset},
		{Failure: pcsim.FailureHang},
		allowed(pcsim.FailureResetBody, 0),
		allowed(pcsim.FailureHangBody, 0),
		allowed("", 300*time.Millisecond),
		allowed("", 3*time.Second),
		{Failure: pcsim.FailureReset, Latency: 200 * time.Millisecond},
	}
}

// brokenLogins are steps of the token endpoint that fail: each stands for another way in
// which the program has to react.
func brokenLogins() (steps []pcsim.Step) {
	for _, code := range []int{90033, 90055, 700082, 50173, 50076, 65001, 53003, 7000215, 700016, 90002, 500011} {
		steps = append(steps, pcsim.Step{EntraError: code})
	}
	return append(steps,
		pcsim.Step{Raw: &pcsim.Raw{Status: 500}},
		pcsim.Step{Raw: &pcsim.Raw{Status: 503, Headers: map[string]string{"Retry-After": "1"}}},
		pcsim.Step{Raw: &pcsim.Raw{Status: 200, Body: "<html>"}},
		pcsim.Step{Failure: pcsim.FailureReset},
		pcsim.Step{Failure: pcsim.FailureHang},
		pcsim.Step{Failure: pcsim.FailureResetBody},
		pcsim.Step{Failure: pcsim.FailureHangBody},
		pcsim.Step{Latency: time.Second, ExpiresIn: time.Second},
	)
}

// fail makes every so many customers fail with the steps in turn, for ever or until play.
func fail(t *testing.T, far simulated, all []*played, each int, steps []pcsim.Step) {
	t.Helper()
	for i := 0; i < len(all); i += each {
		if all[i].customer.Tenant != "" {
			continue
		}
		broken, step := all[i].customer, steps[i/each%len(steps)]
		broken.Account = brokenLike(broken.Account, step)
		if i%2 == 0 {
			broken.Qualifications = brokenLike(broken.Qualifications, step)
		}
		far.put(t, broken)
	}
}

// brokenLike is a step that fails, with the facts of a customer if it has any.
func brokenLike(own []pcsim.Step, step pcsim.Step) []pcsim.Step {
	if step.Status != "" {
		step.Status, step.Items = own[0].Status, own[0].Items
	}
	return []pcsim.Step{step}
}

// play gives every customer its own script.
func play(t *testing.T, far simulated, all []*played) {
	t.Helper()
	for _, one := range all {
		far.put(t, one.customer)
	}
}

// notReady reports whether a word of Partner Center is Not Ready, in any spelling.
func notReady(word string) bool {
	return strings.EqualFold(strings.NewReplacer(" ", "", "_", "", "-", "").Replace(word), "notready")
}
