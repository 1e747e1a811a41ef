package decisionlog_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// compared ignores what a line does not hold.
var compared = cmp.Options{
	cmpopts.IgnoreFields(eligibility.Held{}, "Call"),
	cmpopts.IgnoreUnexported(eligibility.Evidence{}, decisionlog.Policy{}),
	cmp.AllowUnexported(decisionlog.Customer{}),
	cmpopts.EquateEmpty(),
	cmpopts.EquateApproxTime(0),
	cmp.Comparer(func(a, b error) bool { return reflect.DeepEqual(a, b) }),
}

// A record that was written is read as it was, and Decide answers the same from it.
func TestARecordIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		record := drawRecord(t)
		text := record.AppendJSON(nil)
		if !json.Valid(text) || bytes.IndexByte(text, '\n') != len(text)-1 {
			t.Fatalf("no line of JSON: %s", text)
		}
		read, err := decisionlog.Parse(text)
		if err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if record.Question.Segment == eligibility.SegmentCommercial || record.Question.Invalid {
			record.Basis.Qualifications = eligibility.Held{}
		}
		if diff := cmp.Diff(record, read, compared); diff != "" {
			t.Fatalf("%s\n%s", text, diff)
		}
		if again := read.AppendJSON(nil); !bytes.Equal(text, again) {
			t.Fatalf("written again:\n%s\n%s", text, again)
		}
	})
}

func drawRecord(t *rapid.T) decisionlog.Record {
	text := rapid.OneOf(rapid.Just(""), rapid.StringMatching(`[ -~]{1,20}`), rapid.String())
	draw := func(label string) string { return strings.ToValidUTF8(text.Draw(t, label), "\ufffd") }
	moment := rapid.Custom(func(t *rapid.T) time.Time {
		return time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "seconds"), rapid.Int64Range(0, 1e9-1).Draw(t, "ns")).UTC()
	})
	r := decisionlog.Record{
		Time: moment.Draw(t, "time"), DecisionID: draw("decision"), Caller: draw("caller"), Person: draw("person"), Partner: draw("partner"),
		Via: "grpc", RequestID: draw("request"), TraceID: draw("trace"), Version: draw("version"),
		Sampled: rapid.Float64Range(0, 1).Draw(t, "sampled"), Dropped: rapid.Int64Range(0, 1e6).Draw(t, "dropped"),
	}
	var id eligibility.CustomerID
	copy(id[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
	switch rapid.IntRange(0, 2).Draw(t, "customer") {
	case 0:
		r.Question.Customer = decisionlog.PlainCustomer(id)
	case 1:
		r.Question.Customer = decisionlog.HashedCustomer([]byte("key"), id)
	}
	if r.Question.Invalid = rapid.Bool().Draw(t, "invalid"); !r.Question.Invalid {
		r.Question.Segment = eligibility.Segment(rapid.Uint8Range(0, 3).Draw(t, "segment"))
		r.Question.Operation = eligibility.Operation(rapid.Uint8Range(0, 5).Draw(t, "operation"))
		if r.Question.MaxAgeSet = rapid.Bool().Draw(t, "max age set"); r.Question.MaxAgeSet {
			r.Question.MaxAge = time.Duration(rapid.Int64Min(0).Draw(t, "max age"))
		}
		if rapid.Bool().Draw(t, "bounded") {
			r.Question.MinEvidenceTime = moment.Draw(t, "min evidence time")
		}
	}
	if rapid.Bool().Draw(t, "decided") {
		r.Basis.Time = r.Time
		r.Basis.Account = drawHeld(t, moment, draw, eligibility.FacetAccount)
		r.Basis.Qualifications = drawHeld(t, moment, draw, eligibility.FacetQualifications)
	}
	if rapid.Bool().Draw(t, "policy") {
		ages := eligibility.DefaultAges()
		ages.Allowed.Fresh = time.Duration(rapid.Int64Range(1, int64(ages.Allowed.Usable)).Draw(t, "age"))
		r.Policy = decisionlog.NewPolicy(eligibility.Policy{
			NotReadyAllowed: rapid.Bool().Draw(t, "not ready"), AllowReducing: rapid.Bool().Draw(t, "reducing"), BlockUndecidable: rapid.Bool().Draw(t, "undecidable"),
		}, ages)
	}
	r.Outcome = decisionlog.Outcome(rapid.Uint8Range(0, 2).Draw(t, "outcome"))
	if r.Outcome == decisionlog.OutcomeError {
		r.Kind = rapid.SampledFrom(eligibility.Kinds()).Draw(t, "kind")
		return r
	}
	r.Stale = rapid.Bool().Draw(t, "stale")
	for range rapid.IntRange(0, 3).Draw(t, "reasons") {
		r.Reasons = append(r.Reasons, eligibility.ReasonCode(rapid.Uint8Range(1, uint8(eligibility.ReasonUndecidable)).Draw(t, "reason")))
	}
	return r
}

func drawHeld(t *rapid.T, moment *rapid.Generator[time.Time], text func(string) string, facet eligibility.Facet) eligibility.Held {
	var h eligibility.Held
	if rapid.Bool().Draw(t, "failed") {
		h.Err = &eligibility.Error{Kind: rapid.SampledFrom(eligibility.Kinds()).Draw(t, "failure")}
	}
	if rapid.Bool().Draw(t, "no evidence") {
		return h
	}
	h.Tier = eligibility.Tier(rapid.Uint8Range(0, 3).Draw(t, "tier"))
	h.Fresh, h.Fetched = rapid.Bool().Draw(t, "fresh"), rapid.Bool().Draw(t, "fetched")
	h.Lifetime = eligibility.Lifetime{FreshUntil: moment.Draw(t, "fresh until"), UsableUntil: moment.Draw(t, "usable until")}
	e := &eligibility.Evidence{Facet: facet, FetchTime: moment.Draw(t, "fetched at"), CorrelationID: text("correlation id")}
	h.Evidence = e
	switch {
	case rapid.Bool().Draw(t, "absent"):
		e.Absence = eligibility.Absence(rapid.Uint8Range(1, 2).Draw(t, "absence"))
	case facet == eligibility.FacetQualifications:
		for range rapid.IntRange(0, 3).Draw(t, "qualifications") {
			created := time.Time{}
			if rapid.Bool().Draw(t, "dated") {
				created = moment.Draw(t, "created")
			}
			kind := rapid.SampledFrom([]string{"Education", "nonprofit", "Government Community Cloud", "StateOwnedEntity", "Ödland"}).Draw(t, "type")
			if q, held := eligibility.ParseQualification(kind, rapid.SampledFrom([]string{"", "Approved", "in_review", "Denied", "x"}).Draw(t, "vetting"), text("reason"), created); held {
				e.Qualifications = append(e.Qualifications, q)
			}
		}
	case rapid.Bool().Draw(t, "no status"):
		e.Status = eligibility.AccountStatusNone
	default:
		e.StatusText = rapid.SampledFrom([]string{"Allowed", "UnderReview", "not allowed", "Not Ready", "unknown", "Neu\u0000", ""}).Draw(t, "word")
		e.Status = eligibility.ParseAccountStatus(e.StatusText)
	}
	return h
}

// Texts of any length end in a line of bounded size, which the rule reads alike.
func TestLongTextsAreAbridged(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("\x00", 1<<20)
	held := make([]eligibility.Qualification, 5000)
	for i := range held {
		held[i], _ = eligibility.ParseQualification("Education", "InReview", long, time.Unix(int64(i), 0))
	}
	held[17].VettingStatus, held[17].VettingStatusText = eligibility.VettingApproved, "Approved"
	forever := eligibility.Lifetime{FreshUntil: time.Unix(1e10, 0), UsableUntil: time.Unix(1e10, 0)}
	r := decisionlog.Record{Time: time.Unix(5, 0)}
	r.Basis.Time = r.Time
	r.Question.Segment = eligibility.SegmentEducation
	r.Basis.Account = eligibility.Held{Lifetime: forever, Evidence: &eligibility.Evidence{
		Status: eligibility.AccountStatusUnrecognized, StatusText: "Allowed" + long + "x", CorrelationID: long, FetchTime: time.Unix(1, 0),
	}}
	r.Basis.Qualifications = eligibility.Held{Lifetime: forever, Evidence: &eligibility.Evidence{
		Facet: eligibility.FacetQualifications, Qualifications: held, FetchTime: time.Unix(1, 0),
	}}
	text := r.AppendJSON(nil)
	if len(text) > 64<<10 {
		t.Errorf("a line of %d bytes", len(text))
	}
	read, err := decisionlog.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	decide := func(b eligibility.Basis) []eligibility.Reason {
		answer, err := eligibility.Decide(eligibility.Policy{}, r.Question.Segment, r.Question.Operation, b.Account, b.Qualifications, b.Time)
		if err != nil {
			t.Error(err)
		}
		return answer.Reasons
	}
	if got, want := decide(read.Basis), decide(r.Basis); !slices.Equal(got, want) {
		t.Errorf("reasons %v, want %v", got, want)
	}
}

// The form of a line is a contract with those who read it.
func TestALine(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 28, 14, 2, 3, 123456789, time.UTC)
	id, err := eligibility.ParseCustomerID("0b5e3b2c-0000-4000-8000-000000000001")
	if err != nil {
		t.Fatal(err)
	}
	held, _ := eligibility.ParseQualification("Education", "Approved", "", at.Add(-time.Hour))
	r := decisionlog.Record{
		Time: at, DecisionID: "order-17/0", Caller: "shop", Partner: "default", Via: "grpc", RequestID: "order-17",
		Question: decisionlog.Question{
			Customer: decisionlog.PlainCustomer(id), Segment: eligibility.SegmentEducation, MaxAgeSet: true, MinEvidenceTime: at.Add(-time.Second),
		},
		Policy:  decisionlog.NewPolicy(eligibility.Policy{}, eligibility.DefaultAges()),
		Outcome: decisionlog.OutcomeBlocked, Reasons: []eligibility.ReasonCode{eligibility.ReasonAccountUnderReview, eligibility.ReasonQualificationApproved},
		Sampled: 1, Version: "1.2.3", Dropped: 3,
	}
	r.Basis = eligibility.Basis{
		Time: at,
		Account: eligibility.Held{
			Evidence: &eligibility.Evidence{Status: eligibility.AccountStatusUnderReview, StatusText: "UnderReview", FetchTime: at.Truncate(time.Second), CorrelationID: "c1"},
			Tier:     eligibility.TierLocal, Fresh: true, Lifetime: eligibility.Lifetime{FreshUntil: at.Add(time.Minute), UsableUntil: at.Add(time.Hour)},
		},
		Qualifications: eligibility.Held{
			Evidence: &eligibility.Evidence{Facet: eligibility.FacetQualifications, Qualifications: []eligibility.Qualification{held}, FetchTime: at.Truncate(time.Second)},
			Tier:     eligibility.TierRedis, Lifetime: eligibility.Lifetime{FreshUntil: at.Add(time.Minute), UsableUntil: at.Add(time.Hour)},
			Err: &eligibility.Error{Kind: eligibility.KindThrottled},
		},
	}
	const want = `{"schema":"eligibilityd.decision.v1","time":"2026-11-28T14:02:03.123456789Z","decision_id":"order-17/0","caller":"shop","partner":"default","via":"grpc","request_id":"order-17",` +
		`"question":{"customer_id":"0b5e3b2c-0000-4000-8000-000000000001","segment":"EDUCATION","operation":"PURCHASE","max_age":"0s","min_evidence_time":"2026-11-28T14:02:02.123456789Z"},` +
		`"evidence":{"account":{"word":"UnderReview","fetched_at":"2026-11-28T14:02:03Z","correlation_id":"c1","fresh_until":"2026-11-28T14:03:03.123456789Z","usable_until":"2026-11-28T15:02:03.123456789Z","tier":"LOCAL","fresh":true,"fetched":false},` +
		`"qualifications":{"qualifications":[{"type":"Education","vetting_status":"Approved","vetting_created_time":"2026-11-28T13:02:03.123456789Z"}],"fetched_at":"2026-11-28T14:02:03Z","fresh_until":"2026-11-28T14:03:03.123456789Z","usable_until":"2026-11-28T15:02:03.123456789Z","tier":"REDIS","fresh":false,"fetched":false,"error":"throttled"}},` +
		`"policy":{"not_ready":"block","under_review":"block_all","when_undecidable":"error","ages":{"allowed":{"fresh":"10m0s","usable":"1h0m0s"},"no_status":{"fresh":"2m0s","usable":"15m0s"},"pending":{"fresh":"1m0s","usable":"24h0m0s"},"not_allowed":{"fresh":"10m0s","usable":"24h0m0s"},"qualifications":{"fresh":"15m0s","usable":"6h0m0s"},"qualifications_in_review":{"fresh":"2m0s","usable":"6h0m0s"}},"digest":"sha256:bd78a05bb4154e3c3bd22b5cbd355c1ec325e788d59ec3665d6e9c530364f2de"},` +
		`"outcome":"blocked","reasons":["ACCOUNT_UNDER_REVIEW","QUALIFICATION_APPROVED"],"stale":false,"sampled":1,"version":"1.2.3","dropped":3}` + "\n"
	if diff := cmp.Diff(want, string(r.AppendJSON(nil))); diff != "" {
		t.Error(diff)
	}
	const refused = `{"schema":"eligibilityd.decision.v1","time":"2026-11-28T14:02:03.123456789Z","decision_id":"x","via":"rest","request_id":"x","question":{},"outcome":"error","reason":"INVALID_ARGUMENT","sampled":1}` + "\n"
	r = decisionlog.Record{Time: at, DecisionID: "x", RequestID: "x", Via: "rest", Question: decisionlog.Question{Invalid: true}, Kind: eligibility.KindInvalidArgument, Sampled: 1}
	if diff := cmp.Diff(refused, string(r.AppendJSON(nil))); diff != "" {
		t.Error(diff)
	}
	hashed := decisionlog.HashedCustomer([]byte("0123456789abcdef0123456789abcdef"), id)
	if got := hashed.String(); got != "hmac-sha256:aeac8e9ed1068d0b0a0f1bb188cfb031e50e6115cfce8be76e0e7e5694f9205f" {
		t.Error(got)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	const good = `{"schema":"eligibilityd.decision.v1","time":"2026-11-28T14:02:03Z","decision_id":"x","question":{"segment":"COMMERCIAL","operation":"PURCHASE"},` +
		`"evidence":{"account":{"word":"Allowed","fetched_at":"2026-11-28T14:02:03Z","fresh_until":"2026-11-28T14:02:03Z","usable_until":"2026-11-28T14:02:03Z","tier":"LOCAL"}},"outcome":"allowed","reasons":["ACCOUNT_ALLOWED"],"new":{"member":[1]}}`
	if _, err := decisionlog.Parse([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{
		{good, ``},
		{good, good[:len(good)-1]},
		{good, good + good},
		{good, `[]`},
		{good, `{}`},
		{`"new":{"member":[1]}`, `"new":"` + strings.Repeat("x", decisionlog.MaxLine) + `"`},
		{`.v1"`, `.v2"`},
		{`"time":"2026-11-28T14:02:03Z"`, `"time":"yesterday"`},
		{`"time":"2026-11-28T14:02:03Z"`, `"time":"0001-01-01T00:00:00Z"`},
		{`"time":"2026-11-28T14:02:03Z",`, ``},
		{`"COMMERCIAL"`, `"EDUCATIONAL"`},
		{`"PURCHASE"`, `""`},
		{`"segment"`, `"customer_id":"nobody","segment"`},
		{`"segment"`, `"customer_id":"hmac-sha256:00","segment"`},
		{`"segment"`, `"max_age":"young","segment"`},
		{`"word":"Allowed",`, ``},
		{`"word":"Allowed"`, `"absence":"AWAY"`},
		{`"word":"Allowed"`, `"error":"broken","word":"Allowed"`},
		{`"tier":"LOCAL"`, `"tier":"TAPE"`},
		{`"usable_until":"2026-11-28T14:02:03Z"`, `"usable_until":"soon"`},
		{`"outcome":"allowed"`, `"outcome":"perhaps"`},
		{`"outcome":"allowed"`, `"outcome":"error"`},
		{`"ACCOUNT_ALLOWED"`, `"NONE"`},
		{`"outcome"`, `"policy":{},"outcome"`},
		{`"outcome"`, `"policy":3,"outcome"`},
		{`"outcome"`, `"dropped":"3","outcome"`},
	} {
		text := strings.Replace(good, change[0], change[1], 1)
		if text == good {
			t.Fatalf("%s is not in the line", change[0])
		}
		if read, err := decisionlog.Parse([]byte(text)); err == nil {
			t.Errorf("%.60s → %.60s: read as %+v", change[0], change[1], read)
		}
	}
}

// FuzzParse holds that no line does harm, and that what was read is written so that
// it is read alike.
func FuzzParse(f *testing.F) {
	for seed := range 20 {
		r := rapid.Custom(drawRecord).Example(seed)
		f.Add(r.AppendJSON(nil))
	}
	f.Add([]byte(`{"schema":"eligibilityd.decision.v1","time":"2026-11-28T14:02:03+14:00","question":{"min_evidence_time":"0000-01-01T00:00:00-23:59"},"outcome":"blocked","sampled":1e999}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		read, err := decisionlog.Parse(text)
		if err != nil {
			return
		}
		again, err := decisionlog.Parse(read.AppendJSON(nil))
		if err != nil {
			t.Fatalf("%v: %s", err, read.AppendJSON(nil))
		}
		if read.Question.Segment == eligibility.SegmentCommercial {
			read.Basis.Qualifications = eligibility.Held{}
		}
		if diff := cmp.Diff(read, again, compared); diff != "" {
			t.Fatal(diff)
		}
	})
}

func BenchmarkAppendJSON(b *testing.B) {
	r := typical()
	var line []byte
	b.ReportAllocs()
	for b.Loop() {
		line = r.AppendJSON(line[:0])
	}
	b.SetBytes(int64(len(line)))
}

func BenchmarkParse(b *testing.B) {
	r := typical()
	line := r.AppendJSON(nil)
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	var p decisionlog.Parser
	for b.Loop() {
		if _, err := p.Parse(line); err != nil {
			b.Fatal(err)
		}
	}
}

// typical is the record of a purchase that local evidence allows.
func typical() decisionlog.Record {
	at := time.Date(2026, 11, 28, 14, 2, 3, 123456789, time.UTC)
	r := decisionlog.Record{
		Time: at, DecisionID: "2f0c9c7e-6c7b-4b3e-9a0e-0d4f5b1f2a3c", Caller: "shop", Partner: "default", Via: "grpc", RequestID: "2f0c9c7e-6c7b-4b3e-9a0e-0d4f5b1f2a3c",
		Question: decisionlog.Question{Customer: decisionlog.PlainCustomer(eligibility.CustomerID{1, 2, 3})},
		Policy:   decisionlog.NewPolicy(eligibility.Policy{}, eligibility.DefaultAges()),
		Outcome:  decisionlog.OutcomeAllowed, Reasons: []eligibility.ReasonCode{eligibility.ReasonAccountAllowed}, Sampled: 1, Version: "1.2.3",
	}
	r.Basis = eligibility.Basis{Time: at, Account: eligibility.Held{
		Evidence: &eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed", FetchTime: at.Truncate(time.Second), CorrelationID: "2f0c9c7e-6c7b-4b3e-9a0e-0d4f5b1f2a3c"},
		Tier:     eligibility.TierLocal, Fresh: true, Lifetime: eligibility.Lifetime{FreshUntil: at.Add(time.Minute), UsableUntil: at.Add(time.Hour)},
	}}
	return r
}
