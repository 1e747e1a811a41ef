package console

import (
	"context"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const askedID = "a0000000-0000-4000-8000-000000000002"

// askedAt is the time of the first record in these tests.
var askedAt = time.Date(2026, 11, 28, 14, 2, 3, 123_000_000, time.UTC)

// askedRecord returns a record about the customer of these tests, n seconds after
// askedAt.
func askedRecord(t *testing.T, n int) *decisionlog.Record {
	t.Helper()
	id, err := eligibility.ParseCustomerID(askedID)
	if err != nil {
		t.Fatal(err)
	}
	at := askedAt.Add(time.Duration(n) * time.Second)
	return &decisionlog.Record{
		Time: at, DecisionID: fmt.Sprintf("decision-%d", n), Caller: "shop", Partner: "contoso", Via: "rest", RequestID: fmt.Sprintf("decision-%d", n),
		Question: decisionlog.Question{Customer: decisionlog.PlainCustomer(id)},
		Policy:   decisionlog.NewPolicy(eligibility.Policy{}, eligibility.DefaultAges()),
		Outcome:  decisionlog.OutcomeAllowed, Reasons: []eligibility.ReasonCode{eligibility.ReasonAccountAllowed}, Sampled: 1,
		Basis: eligibility.Basis{Time: at, Account: eligibility.Held{
			Evidence: &eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed", FetchTime: at.Add(-90 * time.Second)},
			Tier:     eligibility.TierLocal, Fresh: true, Lifetime: eligibility.Lifetime{FreshUntil: at.Add(time.Minute), UsableUntil: at.Add(time.Hour)},
		}},
	}
}

// written returns a configuration whose decision log, a real one, holds records.
func written(t *testing.T, records ...*decisionlog.Record) Config {
	t.Helper()
	log, err := decisionlog.New(decisionlog.Config{
		File: filepath.Join(t.TempDir(), "decisions.jsonl"), MaxBytes: 100 << 20, MaxFiles: 3, AllowedSample: 1, Block: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	go log.Run()
	for _, record := range records {
		if err := log.Write(t.Context(), record); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := log.Close(ctx); err != nil {
		t.Fatal(err)
	}
	return Config{
		Partners: []string{"contoso", "fabrikam"}, Now: func() time.Time { return askedAt.Add(time.Hour) },
		Asked: func(ctx context.Context, q AskedQuery) (Asked, error) {
			recent, err := log.Recent(ctx, &decisionlog.Query{Customer: q.Customer, Partners: q.Partners, From: q.From, Until: q.Until, Limit: AskedLimit})
			return Asked{Recent: recent, Host: "web-1", Command: "eligibilityd log --customer " + q.Customer.String() + " decisions*.jsonl*"}, err
		},
	}
}

const askedPath = "/console/customers/" + askedID + "/asked"

func TestAskedPage(t *testing.T) {
	t.Parallel()
	plain := askedRecord(t, 0)
	byConsole := askedRecord(t, 1)
	byConsole.Caller, byConsole.Person, byConsole.Via = callerName, "ann@example.com", "rest"
	byConsole.Question.MaxAgeSet, byConsole.Question.Segment = true, eligibility.SegmentEducation
	byConsole.Basis.Qualifications = eligibility.Held{Err: &eligibility.Error{Kind: eligibility.KindUnavailable}}
	blocked := askedRecord(t, 2)
	blocked.Outcome, blocked.Reasons, blocked.Stale = decisionlog.OutcomeBlocked, []eligibility.ReasonCode{eligibility.ReasonAccountUnderReview}, true
	blocked.Basis.Account.Evidence.StatusText, blocked.Basis.Account.Fresh = asScript, false
	blocked.Question.MinEvidenceTime = askedAt.Add(-time.Hour)
	failed := askedRecord(t, 3)
	failed.Outcome, failed.Kind, failed.Basis = decisionlog.OutcomeError, eligibility.KindUnavailable, eligibility.Basis{}
	failed.Caller, failed.DecisionID, failed.RequestID, failed.TraceID = asScript, asScript, asScript, "trace-1"
	malformed := askedRecord(t, 4)
	malformed.Question.Invalid, malformed.Outcome, malformed.Kind, malformed.Caller = true, decisionlog.OutcomeError, eligibility.KindInvalidArgument, ""
	cfg := written(t, plain, byConsole, blocked, failed, malformed)
	w := getAs(t, cfg, nil, askedPath)
	if w.Code != http.StatusOK {
		t.Fatalf("%d", w.Code)
	}
	hasTexts(t, w,
		"<h2>5 questions</h2>", `All records of this time that this replica keeps were searched, back to <time datetime="2026-11-28T14:02:03.123Z">2026-11-28 14:02:03 UTC</time>.`,
		`Asked by <strong><bdi>ann@example.com</bdi></strong> <span class="badge">this console</span>, rest, partner <bdi>contoso</bdi>`, ": education, purchase, with evidence no older than 0s", "qualifications could not be fetched (unavailable)",
		`<span class="badge blocked">blocked</span> <span class="badge warn">stale</span>`, "ACCOUNT_UNDER_REVIEW", "90 s old, not fresh", "Without evidence",
		`fetched at <time datetime="2026-11-28T13:02:03.123Z">2026-11-28 13:02:03.123 UTC</time> or later`,
		`<span class="badge undecided">error</span>`, "PARTNER_CENTER_UNAVAILABLE", "trace-1", "&lt;script&gt;",
		"a caller without a name", "malformed, refused", "<bdi class=\"word\">Allowed</bdi> 90 s old", "decision-0",
		"eligibilityd log --customer "+askedID+" decisions*.jsonl*", `these are of <span class="id">web-1</span>`,
		`<a href="/console/customers/`+askedID+`/asked?from=2026-11-28&#43;14%3A02%3A03">The last hour</a>`, `<a href="/console/customers/`+askedID+`">The customer</a>`,
	)
	if newest, oldest := strings.Index(w.Body.String(), "malformed, refused"), strings.Index(w.Body.String(), "decision-0"); newest > oldest {
		t.Error("the newest is not the first")
	}
}

// Times of the form select records, to the end of the second, minute or day that is
// named; others are refused and nothing is read.
func TestAskedTimes(t *testing.T) {
	t.Parallel()
	var records []*decisionlog.Record
	for n := range 180 {
		records = append(records, askedRecord(t, n))
	}
	cfg := written(t, records...)
	for _, c := range []struct {
		from, to string
		status   int
		text     string
	}{
		{"2026-11-28T14:04", "", 200, "<h2>63 questions</h2>"}, // 14:04:00.123 to 14:05:02.123
		{"2026-11-28T14:05:00", "2026-11-28T14:05:02", 200, "<h2>3 questions</h2>"},
		{" 2026-11-28 14:05z", "", 200, "<h2>3 questions</h2>"},
		{"14:05", "14:05:00", 200, "<h2>1 question</h2>"}, // of today
		{"2026-11-28 14:05:00 UTC", "", 200, "<h2>3 questions</h2>"},
		{"14:65", "", 400, "A time is not readable."},
		{"", "2026-11-28T14:02", 200, "<h2>57 questions</h2>"},
		{"2026-11-28", "2026-11-28", 200, "<h2>100 questions</h2>"},
		{"2026-11-29", "", 200, "<h2>No question was found</h2>"},
		{"2026-11-28T14:05", "2026-11-28T14:04", 400, "The end is not after the beginning. Nothing was searched."},
		{"yesterday", "", 400, "A time is not readable."},
		{"", asScript, 400, "A time is not readable."},
	} {
		w := getAs(t, cfg, nil, askedPath+"?"+url.Values{"from": {c.from}, "to": {c.to}}.Encode())
		if w.Code != c.status {
			t.Errorf("%+v: %d", c, w.Code)
		}
		hasTexts(t, w, c.text)
	}
}

// From the newest records, each link to older ones leads on to all of them, and shows
// none twice.
func TestAskedLeadsToOlderRecords(t *testing.T) {
	t.Parallel()
	var records []*decisionlog.Record
	for n := range 250 {
		records = append(records, askedRecord(t, n))
	}
	cfg, path := written(t, records...), askedPath+"?partner=contoso"
	seen, pages := map[string]int{}, 0
	link := regexp.MustCompile(`<a href="([^"]+)">Older records</a>`)
	for ; path != "" && pages < 10; pages++ {
		w := getAs(t, cfg, nil, path)
		for _, id := range regexp.MustCompile(`decision-\d+`).FindAllString(w.Body.String(), -1) {
			seen[id]++
		}
		path = ""
		if next := link.FindStringSubmatch(w.Body.String()); next != nil {
			path = html.UnescapeString(next[1])
		}
	}
	if len(seen) != 250 || pages != 3 {
		t.Errorf("%d of 250 records on %d pages", len(seen), pages)
	}
	for id, times := range seen {
		if times != 1 {
			t.Errorf("%s was shown %d times", id, times)
		}
	}
}

// A user who may ask about some partners only sees the records of these.
func TestAskedOfOtherPartners(t *testing.T) {
	t.Parallel()
	other, none := askedRecord(t, 1), askedRecord(t, 2)
	other.Partner, none.Partner = "fabrikam", ""
	cfg := written(t, askedRecord(t, 0), other, none)
	for _, c := range []struct {
		partners []string
		query    string
		status   int
		text     string
	}{
		{nil, "", 200, "<h2>3 questions</h2>"},
		{nil, "", 200, "Records of all partners are shown, and those that were refused before the partner was known."},
		{nil, "", 200, `<a href="/console/customers/` + askedID + `/asked?partner=fabrikam">Partner <bdi>fabrikam</bdi></a>`},
		{nil, "?partner=fabrikam", 200, "<h2>2 questions</h2>"},
		{nil, "?partner=fabrikam", 200, "</span>, partner <bdi>fabrikam</bdi></h1>"},
		{nil, "?partner=fabrikam", 200, "Only records of the partner <bdi>fabrikam</bdi> are shown, and those that were refused before the partner was known."},
		{nil, "?partner=fabrikam&to=2026-11-28", 200, `<a href="/console/customers/` + askedID + `/asked?partner=contoso&amp;to=2026-11-28&#43;23%3A59%3A59.999999999">Partner <bdi>contoso</bdi></a>`},
		{nil, "?partner=fabrikam", 200, `<a href="/console/customers/` + askedID + `/asked">All partners that you may use</a>`},
		{[]string{"contoso"}, "", 200, "<h2>1 question</h2>"},
		{[]string{"contoso"}, "", 200, "Only records of the partner <bdi>contoso</bdi> are shown.</p>"},
		{[]string{"contoso"}, "?partner=contoso", 200, "<h2>1 question</h2>"},
		{[]string{"contoso", "fabrikam"}, "", 200, "Only records of the partners <bdi>contoso</bdi>, <bdi>fabrikam</bdi> are shown."},
		{[]string{}, "", 200, "Records of no partner are shown."},
		{[]string{"contoso"}, "?partner=fabrikam", 404, "There is no such partner"},
		{[]string{}, "", 200, "<h2>No question was found</h2>"},
		{nil, "?partner=nobody", 404, "There is no such partner"},
	} {
		w := getAs(t, cfg, c.partners, askedPath+c.query)
		if w.Code != c.status {
			t.Errorf("%+v: %d", c, w.Code)
		}
		hasTexts(t, w, c.text)
		if c.partners != nil && !slices.Contains(c.partners, "fabrikam") && strings.Contains(w.Body.String(), "<bdi>fabrikam") {
			t.Errorf("%+v: a foreign partner is named", c)
		}
	}
	if w := getAs(t, cfg, nil, "/console/customers/x/asked"); w.Code != http.StatusNotFound {
		t.Errorf("an ID that is none: %d", w.Code)
	}
}

// Whatever keeps the log from being read is stated.
func TestAskedWithoutALog(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err    error
		status int
		text   string
	}{
		{ErrAskedBusy, 503, "Somebody else is searching the decision log"},
		{decisionlog.ErrNoFile, 200, "standard output, a pipe or a device"},
		{errors.New("open /var/log: permission denied"), 503, "The log of the service has the cause"},
	} {
		cfg := Config{Asked: func(context.Context, AskedQuery) (Asked, error) { return Asked{Command: "the command"}, c.err }}
		w := getAs(t, cfg, nil, askedPath)
		if w.Code != c.status || strings.Contains(w.Body.String(), "permission denied") {
			t.Errorf("%v: %d", c.err, w.Code)
		}
		hasTexts(t, w, c.text, `<pre id="command">the command</pre>`)
	}
	hasTexts(t, getAs(t, Config{}, nil, askedPath), "decision_log.file is empty")
	for end, text := range map[decisionlog.End]string{
		decisionlog.EndOfFiles: "hold no record", decisionlog.EndBytes: "Records since now were searched, then the limit", decisionlog.EndTime: "then the time for a search",
	} {
		cfg := Config{Asked: func(context.Context, AskedQuery) (Asked, error) {
			return Asked{Recent: decisionlog.Recent{
				End: end, Unreadable: 1, Hashed: 2, Faults: []decisionlog.FileFault{{Name: asScript, Kind: "permission"}},
			}, Hashed: true}, nil
		}}
		hasTexts(t, getAs(t, cfg, nil, askedPath), text, "1 line that may be about this customer", "2 records name their customer by a hash", "(permission)", "an earlier key")
	}
}
