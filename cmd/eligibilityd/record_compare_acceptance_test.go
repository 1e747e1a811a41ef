//go:build acceptance

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// tallied counts what became of questions.
type tallied struct {
	questions, answers, lost, records, files, changed int
	kinds                                             map[string]int
}

func (y *tallied) String() string {
	return fmt.Sprintf("%d questions under two policies: one record of each, in %d files, agrees with what its caller got (%s; %d callers left before); "+
		"`replay` derives %d of %d again without a difference; with `policy.not_ready=allow`, %d differ: those that Not Ready decided",
		y.questions, y.files, y.outcomes(), y.lost, y.records, y.records, y.changed)
}

func (y *tallied) outcomes() string {
	var words []string
	for _, kind := range slices.Sorted(maps.Keys(y.kinds)) {
		words = append(words, fmt.Sprintf("%d %s", y.kinds[kind], kind))
	}
	return strings.Join(words, ", ")
}

func (y *tallied) see(a *asked) {
	if y.kinds == nil {
		y.kinds = map[string]int{}
	}
	y.questions++
	switch {
	case a.outcome == "":
		y.lost++
		return
	case a.outcome == "error":
		y.kinds[a.reason]++
	default:
		y.kinds[a.outcome]++
	}
	if a.stale {
		y.kinds["stale"]++
	}
	if strings.Contains(a.reasons, "UNDECIDABLE") {
		y.kinds["UNDECIDABLE"]++
	}
	y.answers++
}

// differs reports whether the answer would be another if Not Ready were allowed, by the
// customer's script and what its caller got. reducing is policy.under_review:
// allow_reducing.
func (v *interview) differs(a *asked, reducing bool) bool {
	if a.outcome != "blocked" || !notReady(a.word) {
		return false
	}
	segment := a.req.GetSegment()
	if reducing && a.req.GetOperation() >= eligibilityv1.Operation_OPERATION_RENEWAL {
		segment = eligibilityv1.Segment_SEGMENT_COMMERCIAL
	}
	if segment <= eligibilityv1.Segment_SEGMENT_COMMERCIAL {
		return true // becomes allowed
	}
	if !strings.Contains(a.reasons, "QUALIFICATION_") {
		return true // nothing else blocks, and nothing allows
	}
	for i, one := range v.cast {
		if one.customer.ID != canonical(a.req.GetCustomerId()) {
			continue
		}
		if a.req.GetPartner() == "us" {
			one = v.cast[i+1]
		}
		return slices.Contains(one.approved, segment)
	}
	return false
}

// canonical is a customer's id in the form of Partner Center.
func canonical(id string) string {
	id = strings.ToLower(strings.Trim(strings.TrimSpace(id), "{}"))
	if len(id) == 32 {
		id = strings.Join([]string{id[:8], id[8:12], id[12:16], id[16:20], id[20:]}, "-")
	}
	return id
}

// compare compares the records with what callers got, and lets the program replay them.
func (v *interview) compare(total *tallied, reducing bool) {
	t := v.t
	t.Helper()
	expected := make(map[string]*asked, len(v.askers.all))
	refused := map[string]bool{} // batches over REST; without a record of their items they have one of the whole
	for i := range v.askers.all {
		a := &v.askers.all[i]
		if a.id == "" { // over REST, without a response
			total.see(a)
			continue
		}
		expected[a.id] = a
		if a.unread {
			batch, _, _ := strings.Cut(a.id, "/")
			refused[batch] = true
		}
	}
	v.await(len(v.askers.all))
	var files, faults []string
	found, strangers, changes := map[string]int{}, 0, map[string]bool{}
	for _, log := range v.logs {
		files = append(files, logFiles(t, log)...)
	}
	eachRecord(t, files, func(r *decided) {
		total.records++
		a := expected[r.DecisionID]
		batch, _, ofItem := strings.Cut(r.DecisionID, "/")
		switch {
		case refused[batch] && (ofItem || r.Question.CustomerID == "" && r.Outcome == "error"):
			delete(refused, batch)
			if !ofItem {
				return
			}
		case a == nil:
			strangers++
			return
		}
		found[r.DecisionID]++
		if found[r.DecisionID] > 1 {
			faults = append(faults, r.DecisionID+" has several records")
		}
		if fault := disagrees(a, r); fault != "" {
			faults = append(faults, fmt.Sprintf("%s: %s; asked %v, got %+v, recorded %+v", r.DecisionID, fault, a.req, a.got, *r))
		}
	})
	nameless := 0
	for i := range v.askers.all {
		a := &v.askers.all[i]
		if a.id == "" {
			nameless++
			continue
		}
		total.see(a)
		if found[a.id] == 0 && a.outcome != "" && !a.unread {
			faults = append(faults, fmt.Sprintf("%s has no record: asked %v by %s over %s, got %+v", a.id, a.req, a.caller, a.via, a.got))
		}
		if v.differs(a, reducing) {
			changes[a.id] = true
		}
	}
	total.files += len(files)
	if len(refused) > 0 {
		faults = append(faults, fmt.Sprintf("%d batches that were refused have no record", len(refused)))
	}
	if strangers > nameless {
		faults = append(faults, fmt.Sprintf("%d records of questions that were not asked, or by callers that got no answer (%d)", strangers, nameless))
	}
	if len(faults) > 0 {
		kinds := map[string]int{}
		for _, fault := range faults {
			_, kind, _ := strings.Cut(fault, ":")
			kind, _, _ = strings.Cut(kind, ";")
			kinds[kind]++
		}
		t.Errorf("%d faults, %v:\n%s", len(faults), kinds, some(faults))
	}
	v.replay(files, changes)
	total.changed += len(changes)
}

// await waits until the decision logs have been written.
func (v *interview) await(questions int) {
	v.t.Helper()
	v.t.Logf("%d questions, %s", questions, loadAverage())
	last, since := -1, time.Now()
	eventually(v.t, "the decision logs to be written", func() bool {
		n := 0
		for _, log := range v.logs {
			eachRecord(v.t, logFiles(v.t, log), func(*decided) { n++ })
		}
		if n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 2*time.Second // calls that their callers left may go on for 2 s
	})
}

// disagrees returns in which way a record is not that of the question and of what its
// caller got.
func disagrees(a *asked, r *decided) string {
	partner := a.req.GetPartner()
	if partner == "" {
		partner = "eu"
	}
	invalid := a.reason == "INVALID_ARGUMENT" || malformed(a.req) // which may be refused for another reason
	switch {
	case r.Caller != a.caller || r.Via != a.via || r.DecisionID != r.RequestID && !strings.HasPrefix(r.DecisionID, r.RequestID+"/"):
		return "another caller or call"
	case invalid && r.Outcome == "error" && (r.Reason == a.reason || a.outcome == ""):
		return "" // of an invalid question, nothing else is known
	case r.Question.CustomerID != canonical(a.req.GetCustomerId()) || r.Partner != partner:
		return "another customer or partner"
	case r.Question.Segment != short(a.req.GetSegment().String(), "SEGMENT_", "COMMERCIAL"):
		return "another segment"
	case r.Question.Operation != short(a.req.GetOperation().String(), "OPERATION_", "PURCHASE"):
		return "another operation"
	case !sameWishes(a, r):
		return "other wishes"
	case a.outcome == "": // the caller left: whatever the service would have answered
		return ""
	case r.Outcome != a.outcome || r.Reason != a.reason || strings.Join(r.Reasons, " ") != a.reasons || r.Stale != a.stale:
		return "another answer"
	case a.outcome == "error":
		return ""
	case r.Sampled != 1:
		return "sampled"
	default:
		return evidenceDisagrees(a, r)
	}
}

// malformed reports whether a question is one of those that question makes malformed.
func malformed(req *eligibilityv1.CheckEligibilityRequest) bool {
	return req.GetCustomerId() == "nobody" || req.GetPartner() == "elsewhere" || req.GetMaxAge().AsDuration() < 0 ||
		req.GetMinEvidenceTime().AsTime().After(time.Now().Add(time.Minute))
}

func short(name, prefix, unspecified string) string {
	if word := strings.TrimPrefix(name, prefix); word != "UNSPECIFIED" {
		return word
	}
	return unspecified
}

// leastWithoutFresh is the max_age that callers without the right fresh get at least.
const leastWithoutFresh = 30 * time.Second

func sameWishes(a *asked, r *decided) bool {
	maxAge, least := a.req.GetMaxAge(), a.req.GetMinEvidenceTime()
	if (maxAge == nil) != (r.Question.MaxAge == nil) || (least == nil) != (r.Question.MinEvidenceTime == nil) {
		return false
	}
	if maxAge != nil {
		wanted := maxAge.AsDuration()
		if !slices.Contains(rights[a.caller], "fresh") {
			wanted = max(wanted, leastWithoutFresh)
		}
		if recorded, err := time.ParseDuration(*r.Question.MaxAge); err != nil || recorded != wanted {
			return false
		}
	}
	return least == nil || r.Question.MinEvidenceTime.Equal(least.AsTime())
}

// evidenceDisagrees compares the evidence of an answer with that of its record.
func evidenceDisagrees(a *asked, r *decided) string {
	oldest, tier := int64(0), 0
	tiers := []string{"UNSPECIFIED", "LOCAL", "REDIS", "PARTNER_CENTER"}
	use := func(by *decidedBy) {
		if fetched := by.FetchedAt.UnixMilli(); oldest == 0 || fetched < oldest {
			oldest = fetched
		}
		tier = max(tier, slices.Index(tiers, by.Tier))
	}
	account, qualifications := r.Evidence.Account, r.Evidence.Qualifications
	switch {
	case a.word != "" && (account == nil || account.Word != a.word):
		return "another word"
	case strings.Contains(a.reasons, "ACCOUNT_") && account == nil:
		return "no evidence about the account"
	case strings.Contains(a.reasons, "QUALIFICATION_") && qualifications == nil:
		return "no evidence about qualifications"
	case strings.Contains(a.reasons, "ACCOUNT_HAS_NO_STATUS") && !account.NoStatus:
		return "a status"
	}
	if strings.Contains(a.reasons, "ACCOUNT_") {
		use(account)
	}
	if strings.Contains(a.reasons, "QUALIFICATION_") {
		use(qualifications)
	}
	switch {
	case oldest != a.evidence:
		return "another evidence time"
	case tiers[tier] != a.tier:
		return "another tier"
	default:
		return ""
	}
}

// replay lets the program derive the answers again. With Not Ready allowed, exactly
// those in changes must differ.
func (v *interview) replay(files []string, changes map[string]bool) {
	t := v.t
	t.Helper()
	out, log, code := runProgram(t, append([]string{"replay"}, files...)...)
	if code != 0 {
		t.Errorf("replay: exit code %d\n%.2000s\n%.2000s", code, out, log)
	}
	out, log, code = runProgram(t, append([]string{"replay", "--policy", "policy.not_ready=allow", "--json"}, files...)...)
	if want := min(len(changes), 1); code != want {
		t.Errorf("replay with Not Ready allowed: exit code %d, want %d\n%.2000s", code, want, log)
	}
	differ := map[string]bool{}
	for line := range strings.Lines(out) {
		var difference struct {
			DecisionID string `json:"decision_id"`
		}
		if err := json.Unmarshal([]byte(line), &difference); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		if difference.DecisionID != "" {
			differ[difference.DecisionID] = true
		}
	}
	var faults []string
	byID := map[string]*asked{}
	for i := range v.askers.all {
		byID[v.askers.all[i].id] = &v.askers.all[i]
	}
	for id := range differ {
		// If the caller left, nobody knows the answer but the record.
		if a := byID[id]; !changes[id] && a != nil && a.outcome != "" {
			faults = append(faults, fmt.Sprintf("%s differs: asked %v, got %+v", id, a.req, a.got))
		}
	}
	for id := range changes {
		if !differ[id] {
			faults = append(faults, fmt.Sprintf("%s does not differ: asked %v, got %+v", id, byID[id].req, byID[id].got))
		}
	}
	if len(faults) > 0 {
		t.Errorf("with Not Ready allowed, %s of %d differ, want %d:\n%s", strconv.Itoa(len(differ)), len(v.askers.all), len(changes), some(faults))
	}
}
