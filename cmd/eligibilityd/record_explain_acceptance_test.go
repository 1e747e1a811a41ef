//go:build acceptance

package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// spellOfDay is what Partner Center answers about a customer for a part of the day.
type spellOfDay struct {
	account, vetting string // words
	tenant           string // in place of both
	fails            bool   // Partner Center is away, and comes back with other facts
}

// day is a customer's day: no two successive parts have the same facts.
func day() (spells []spellOfDay) {
	words := []string{"Allowed", "UnderReview", pcsim.StatusNone, "NotAllowed", "Allowed", "Not Ready", "Unknown", "Allowed", "Suspended", "UnderReview"}
	vetting := []string{"InReview", "Approved", "Denied"}
	for i := range 34 {
		one := spellOfDay{account: words[i%len(words)], vetting: vetting[i/5%len(vetting)]}
		switch i {
		case 11:
			one = spellOfDay{tenant: pcsim.TenantOtherPartner}
		case 20:
			one = spellOfDay{tenant: pcsim.TenantUnknown}
		case 7, 16, 27:
			one = spellOfDay{fails: true}
		}
		spells = append(spells, one)
	}
	return spells
}

// instant is an answer that was returned at a time, and what was asked.
type instant struct {
	at time.Time
	asked
}

// recordExplained asks about a customer all day, and then has the program explain what
// was answered.
func recordExplained(t *testing.T) string { //nolint:thelper // a test of its own
	const fresh, usable = 400 * time.Millisecond, 2500 * time.Millisecond
	far, id := simulateApart(t), coldID('7', 7)
	ages := []string{"ELIGIBILITY_POLICY__UNDER_REVIEW=allow_reducing", "ELIGIBILITY_CACHE__LOCAL__MAX_AGE=10s"}
	for _, outcome := range []string{"ALLOWED", "NO_STATUS", "PENDING", "NOT_ALLOWED", "QUALIFICATIONS", "QUALIFICATIONS_IN_REVIEW"} {
		ages = append(ages, fmt.Sprintf("ELIGIBILITY_CACHE__AGES__%s__FRESH=%v", outcome, fresh), fmt.Sprintf("ELIGIBILITY_CACHE__AGES__%s__USABLE=%v", outcome, usable))
	}
	f := startReplicasWith(t, far, 2, append(onFleet(cachetest.StartRedis(t)), ages...)...)
	c := newAskers(t, nil, f.all[0].process, f.all[1].process)
	began := time.Now()
	instants := liveADay(t, far, c, id, fresh, usable)
	lasted := time.Since(began)

	var faults []string
	outcomes := map[string]int{}
	for i, one := range instants {
		got, text := explained(t, f.all[i%2].GRPC, id, one)
		outcomes[one.outcome]++
		if one.stale {
			outcomes["stale"]++
		}
		same := got.outcome == one.outcome && got.stale == one.stale
		if got.reason != "NOT_KNOWN" || !strings.HasPrefix(one.reason, "PARTNER_CENTER_") { // only the answer had tried to fetch
			same = same && got.reason == one.reason
		}
		if one.known || one.outcome == "error" {
			same = same && got.reasons == one.reasons
		} else { // the answer did not need the qualifications
			same = same && strings.HasPrefix(got.reasons, one.reasons)
		}
		if !same {
			faults = append(faults, fmt.Sprintf("at %s, %v: answered %+v, explained %+v\n%s", one.at.Format(time.RFC3339Nano), one.req, one.got, got, text))
		}
	}
	if len(faults) > 0 {
		t.Errorf("%d of %d:\n%s", len(faults), len(instants), some(faults))
	}
	for _, outcome := range []string{"allowed", "blocked", "error", "stale"} {
		if outcomes[outcome] == 0 {
			t.Errorf("no answer was %s", outcome)
		}
	}
	return fmt.Sprintf("a customer whose facts changed %d times in %s, two replicas: the explanations of %d instants (%d allowed, %d blocked, %d errors, %d of them stale) agree with what was answered then",
		len(day()), seconds(lasted), len(instants), outcomes["allowed"], outcomes["blocked"], outcomes["error"], outcomes["stale"])
}

// liveADay plays a day and returns what was answered when.
func liveADay(t *testing.T, far simulated, c *askers, id string, fresh, usable time.Duration) (all []instant) {
	t.Helper()
	ask := func(replica int, req *eligibilityv1.CheckEligibilityRequest) int64 {
		req.CustomerId = id
		got := c.ask(t.Context(), replica, "anonymous", "grpc", false, req)[0]
		if got.outcome == "" {
			t.Fatalf("no answer to %v", req)
		}
		all = append(all, instant{time.Now(), got})
		pause(t.Context(), 20*time.Millisecond) // so that the next part of the day begins later
		return got.evidence
	}
	for i, part := range day() {
		customer := pcsim.Customer{ID: id, Tenant: part.tenant}
		switch {
		case part.fails:
			customer.Account = []pcsim.Step{{Failure: pcsim.FailureReset}}
			customer.Qualifications = customer.Account
		case part.tenant == "":
			customer.Account = []pcsim.Step{{Status: part.account}}
			customer.Qualifications = []pcsim.Step{{Items: []pcsim.Qualification{{
				Qualification: "Education", VettingStatus: part.vetting, VettingCreatedDate: fmt.Sprintf("2026-01-01T00:00:%02dZ", i%60),
			}}}}
		}
		far.put(t, customer)
		now := func() *eligibilityv1.CheckEligibilityRequest {
			return &eligibilityv1.CheckEligibilityRequest{Segment: education, MaxAge: durationpb.New(0)}
		}
		if part.fails {
			pause(t.Context(), fresh*12/10)
			ask(i%2, &eligibilityv1.CheckEligibilityRequest{Segment: education})
			pause(t.Context(), usable)
			ask(i%2, now())
			continue
		}
		evidence := ask(i%2, now())
		if evidence == 0 { // absent
			continue
		}
		receipt := timestamppb.New(time.UnixMilli(evidence))
		ask(1-i%2, &eligibilityv1.CheckEligibilityRequest{Segment: education, MinEvidenceTime: receipt})
		ask(i%2, &eligibilityv1.CheckEligibilityRequest{Operation: eligibilityv1.Operation(1 + i%6), MinEvidenceTime: receipt})
		ask(1-i%2, &eligibilityv1.CheckEligibilityRequest{Segment: nonprofit, MinEvidenceTime: receipt})
	}
	return all
}

// explained is what the program explains about the segment and the operation of an
// instant.
func explained(t *testing.T, address, id string, one instant) (got, string) {
	t.Helper()
	operation := strings.ToLower(short(one.req.GetOperation().String(), "OPERATION_", "PURCHASE"))
	out, log, code := runProgram(t, "explain", id, "--at", one.at.UTC().Format(time.RFC3339Nano), "--json", "--operation", operation, "--address", address)
	var explanation struct {
		Segments []struct {
			Segment  string
			Response *struct {
				Decision string
				Reasons  []struct{ Code string }
				Stale    bool
			}
			Error *struct{ Reason string }
		}
	}
	if err := json.Unmarshal([]byte(out), &explanation); err != nil {
		t.Fatalf("explain: exit code %d, %v\n%s\n%s", code, err, out, log)
	}
	wanted := short(one.req.GetSegment().String(), "SEGMENT_", "COMMERCIAL")
	for _, segment := range explanation.Segments {
		if strings.TrimPrefix(segment.Segment, "SEGMENT_") != wanted {
			continue
		}
		if segment.Response == nil {
			if segment.Error == nil {
				break
			}
			return got{outcome: "error", reason: segment.Error.Reason}, out
		}
		found := got{outcome: strings.ToLower(strings.TrimPrefix(segment.Response.Decision, "DECISION_")), stale: segment.Response.Stale}
		for _, reason := range segment.Response.Reasons {
			found.reasons += " " + strings.TrimPrefix(reason.Code, "REASON_CODE_")
		}
		found.reasons = strings.TrimSpace(found.reasons)
		return found, out
	}
	t.Fatalf("no answer for %s:\n%s", wanted, out)
	return got{}, ""
}
