package console

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// AskedLimit is the most records that the page of who asked shows.
const AskedLimit = 100

// ErrAskedBusy is the error of Config.Asked if another search did not end in time.
var ErrAskedBusy = errors.New("another search of the decision log is under way")

// AskedQuery selects records of the decision log of this replica.
type AskedQuery struct {
	Customer eligibility.CustomerID
	// Partners are those whose records are selected; nil for all. The empty name selects
	// records without a partner, which were refused before it was known.
	Partners []string
	// From and Until bound the time: not before From, and before Until. A zero time
	// sets no bound.
	From, Until time.Time
}

// Asked is what a search has found.
type Asked struct {
	decisionlog.Recent

	// Host names the machine of this replica.
	Host string
	// Command searches the same records on the command line. It is set with an error,
	// too.
	Command string
	// Hashed reports that the log names customers by a hash.
	Hashed bool
}

// askedPage is the data of templates/asked.html.
type askedPage struct {
	ID      string
	Partner string // as asked for
	// Partners are those whose records are shown, None reports that those without a
	// partner are too, and Others links to the pages of other partners.
	Partners []string
	None     bool
	Others   []askedOther
	From, To string // as the form shows them
	// Invalid is why From and To are not usable; nothing was searched then.
	Invalid string
	// Problem is why nothing was searched; empty if something was.
	Problem string
	Asked
	Rows []askedRow
	// Older is the address of the page with older records; empty if there are none, or it
	// is not known. The others are those of these pages.
	Older, LastHour, LastDay, Newest, CustomerPath string
}

// askedOther links to the same page of another partner; of all of the user's if Name is
// empty.
type askedOther struct{ Name, Path string }

// askedRow is one record.
type askedRow struct {
	decisionlog.Record

	// ByConsole marks questions of the console itself.
	ByConsole bool
	Evidence  []askedEvidence
}

// askedEvidence is what an answer was decided by, and how old it was.
type askedEvidence struct {
	Facet   string
	Word    text
	Age     time.Duration
	Fresh   bool
	Failure string // why it could not be renewed
}

// asked serves who asked about a customer.
func (h *Handler) asked(w http.ResponseWriter, r *http.Request, u *user) {
	id, err := eligibility.ParseCustomerID(r.PathValue("id"))
	if err != nil {
		h.fail(w, r, u, http.StatusNotFound, "The address has no customer ID.")
		return
	}
	query, now := r.URL.Query(), h.cfg.Now().UTC()
	page := &askedPage{ID: id.String(), Partner: query.Get("partner"), From: query.Get("from"), To: query.Get("to")}
	page.LastHour = page.path(now.Truncate(time.Second).Add(-time.Hour), time.Time{})
	page.LastDay = page.path(now.Truncate(time.Second).AddDate(0, 0, -1), time.Time{})
	page.Newest = page.path(time.Time{}, time.Time{})
	page.CustomerPath = strings.Replace(page.Newest, "/asked", "", 1)
	q := AskedQuery{Customer: id, Partners: u.caller.Partners}
	if page.Partner != "" {
		if !u.caller.MayUse(page.Partner) || !slices.Contains(h.cfg.Partners, page.Partner) {
			h.fail(w, r, u, http.StatusNotFound, "There is no such partner, or you may not ask about its customers.")
			return
		}
		q.Partners = []string{page.Partner}
		if u.caller.Partners == nil {
			q.Partners = append(q.Partners, "")
		}
	}
	h.namePartners(page, u)
	if q.From, q.Until, page.Invalid = askedRange(page.From, page.To, now); page.Invalid != "" {
		h.page(w, r, u, http.StatusBadRequest, "asked", page)
		return
	}
	last := q.Until
	if !last.IsZero() {
		last = last.Add(-1) // the time that a link names is included
	}
	for i := range page.Others {
		page.Others[i].Path = page.pathOf(page.Others[i].Name, q.From, last)
	}
	page.From, page.To = formTime(page.From, now), formTime(page.To, now)
	h.page(w, r, u, h.searchAsked(r.Context(), page, q), "asked", page)
}

// namePartners fills in whose records a page shows, and which others the user may see.
func (h *Handler) namePartners(page *askedPage, u *user) {
	page.None = u.caller.Partners == nil
	own := slices.DeleteFunc(slices.Clone(h.cfg.Partners), func(name string) bool { return !u.caller.MayUse(name) })
	if page.Partner == "" {
		page.Partners = own
	} else {
		page.Partners = []string{page.Partner}
	}
	if len(own) < 2 {
		return
	}
	for _, name := range append(own, "") {
		if name != page.Partner {
			page.Others = append(page.Others, askedOther{Name: name})
		}
	}
}

// searchAsked fills a page with what the decision log has, and returns the status of
// the page.
func (h *Handler) searchAsked(ctx context.Context, page *askedPage, q AskedQuery) int {
	if h.cfg.Asked == nil {
		page.Problem = "This service keeps no decision log: decision_log.file is empty in its configuration."
		return http.StatusOK
	}
	var err error
	page.Asked, err = h.cfg.Asked(ctx, q)
	switch {
	case err == nil:
	case errors.Is(err, ErrAskedBusy):
		page.Problem = "Somebody else is searching the decision log of this replica at the moment. Nothing was read. Try again in a few seconds."
		return http.StatusServiceUnavailable
	case errors.Is(err, decisionlog.ErrNoFile):
		page.Problem = "This replica writes its decision log to standard output, a pipe or a device, which it cannot read again. " +
			"Search the records where they are collected; the command reads them from its standard input."
		return http.StatusOK
	default:
		if ctx.Err() == nil {
			h.cfg.Logger.Error("decision log cannot be searched for the console", zap.Error(err))
		}
		page.Problem = "The decision log of this replica cannot be read. The log of the service has the cause."
		return http.StatusServiceUnavailable
	}
	var words texts
	for i := range page.Records {
		page.Rows = append(page.Rows, newAskedRow(&page.Records[i], &words))
	}
	if n := len(page.Records); n > 0 && page.End == decisionlog.EndLimit {
		page.Older = page.path(q.From, page.Records[n-1].Time.Add(-1))
	}
	return http.StatusOK
}

// path returns the address of the page for a time; a zero time is no bound.
func (p *askedPage) path(from, to time.Time) string { return p.pathOf(p.Partner, from, to) }

// pathOf is path for another partner.
func (p *askedPage) pathOf(partner string, from, to time.Time) string {
	values := make(url.Values)
	if partner != "" {
		values.Set("partner", partner)
	}
	for name, at := range map[string]time.Time{"from": from, "to": to} {
		if !at.IsZero() {
			values.Set(name, at.UTC().Format(askedFormat+".999999999"))
		}
	}
	return (&url.URL{Path: Path + "/customers/" + p.ID + "/asked", RawQuery: values.Encode()}).String()
}

const (
	// askedFormat is that of the form. Links have fractions of a second, too.
	askedFormat = "2006-01-02 15:04:05"
	badRange    = "The end is not after the beginning."
	badTime     = "A time is not readable. Write it as 2026-11-28 14:02 or 14:02, in UTC."
)

// askedRange reads the times of the form, in UTC. The minute, second or day that to
// names is included, with a fraction of a second the nanosecond. problem is a sentence if they are not usable.
func askedRange(from, to string, now time.Time) (first, after time.Time, problem string) {
	ok := true
	if from != "" {
		first, _, ok = askedTime(from, now)
	}
	if to != "" && ok {
		_, after, ok = askedTime(to, now)
	}
	switch {
	case !ok:
		return first, after, badTime
	case from != "" && to != "" && !first.Before(after):
		return first, after, badRange
	default:
		return first, after, ""
	}
}

// askedTime reads a time, and returns its first instant and the first after it. A time
// without a date is of the day of now.
func askedTime(text string, now time.Time) (first, after time.Time, ok bool) {
	text = strings.Replace(strings.ToUpper(strings.TrimSpace(text)), " ", "T", 1)
	text = strings.TrimSpace(strings.TrimSuffix(strings.TrimSuffix(text, "UTC"), "Z"))
	if _, err := time.Parse("15:04", text[:min(len(text), len("15:04"))]); err == nil {
		text = now.Format(time.DateOnly) + "T" + text
	}
	for _, known := range []struct {
		layout string
		lasts  time.Duration
	}{
		{"2006-01-02T15:04", time.Minute}, {"2006-01-02T15:04:05", time.Second}, {time.DateOnly, 24 * time.Hour},
	} {
		if at, err := time.Parse(known.layout, text); err == nil {
			if at.Nanosecond() != 0 {
				known.lasts = 1
			}
			return at, at.Add(known.lasts), true
		}
	}
	return first, after, false
}

// formTime returns a readable time as a form shows it.
func formTime(text string, now time.Time) string {
	at, _, ok := askedTime(text, now)
	if !ok {
		return ""
	}
	return at.Format(askedFormat)
}

func newAskedRow(record *decisionlog.Record, words *texts) askedRow {
	row := askedRow{Record: *record, ByConsole: record.Caller == callerName && record.Person != ""}
	for _, held := range []struct {
		facet string
		*eligibility.Held
	}{{"account", &record.Basis.Account}, {"qualifications", &record.Basis.Qualifications}} {
		of := askedEvidence{Facet: held.facet}
		if e := held.Evidence; e != nil {
			of.Word, of.Age, of.Fresh = words.of(evidenceWord(e)), max(record.Time.Sub(e.FetchTime), 0), held.Fresh
		}
		if failure, failed := errors.AsType[*eligibility.Error](held.Err); failed {
			of.Failure = failure.Kind.String()
		}
		if of.Word.Short != "" || of.Failure != "" {
			row.Evidence = append(row.Evidence, of)
		}
	}
	return row
}

// evidenceWord returns what Partner Center answered, in its words.
func evidenceWord(e *eligibility.Evidence) string {
	switch {
	case e.Absence == eligibility.AbsenceNotFound:
		return "customer not found"
	case e.Absence == eligibility.AbsenceNotServed:
		return "customer not served by the partner"
	case e.Facet == eligibility.FacetAccount && e.Status == eligibility.AccountStatusNone:
		return "no status"
	case e.Facet == eligibility.FacetAccount:
		return e.StatusText
	case len(e.Qualifications) == 0:
		return "none"
	}
	words := make([]string, len(e.Qualifications))
	for i := range e.Qualifications {
		q := &e.Qualifications[i]
		words[i] = strings.TrimSpace(q.TypeText + " " + q.VettingStatusText)
	}
	return strings.Join(words, ", ")
}
