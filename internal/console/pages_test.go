package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/reviews"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// site is a console over the API of a running service, for one user.
type site struct {
	*servertest.Running

	t *testing.T
	h *Handler
	u *user
}

func startSite(t *testing.T, with servertest.Setup, cfg Config, u *user) *site {
	t.Helper()
	run := servertest.Start(t, with)
	cfg.API, cfg.Stream = run.Handler.Client(), run.Handler.ServeFor
	if cfg.Partners == nil {
		cfg.Partners, cfg.DefaultPartner = []string{api.DefaultPartner}, api.DefaultPartner
	}
	s := &site{run, t, newTestHandler(t, cfg), u}
	s.h.fictive = u
	return s
}

// get opens a page, and follows one redirection.
func (s *site) get(path string) (*html.Node, *httptest.ResponseRecorder) {
	s.t.Helper()
	w := s.do(http.MethodGet, path, nil)
	if to := w.Header().Get("Location"); to != "" {
		w = s.do(http.MethodGet, to, nil)
	}
	body := w.Body.String()
	return parsePage(s.t, strings.NewReader(body)), w
}

func (s *site) do(method, path string, form url.Values) *httptest.ResponseRecorder {
	s.t.Helper()
	req := httptest.NewRequestWithContext(s.t.Context(), method, path, strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	s.h.ServeHTTP(w, req)
	return w
}

// ask presses "Ask Microsoft now", and opens the page that follows.
func (s *site) ask(id, query string) (*html.Node, *httptest.ResponseRecorder) {
	s.t.Helper()
	w := s.do(http.MethodPost, "/console/customers/"+id+"/ask"+query, url.Values{"csrf": {s.u.maskedCSRF()}})
	if w.Code != http.StatusSeeOther {
		s.t.Fatalf("asking: %d %s", w.Code, w.Body)
	}
	return s.get(w.Header().Get("Location"))
}

const support = access.Support | access.Fresh | access.Check

func TestFromTheStartPageToACustomer(t *testing.T) {
	t.Parallel()
	s := startSite(t, servertest.Setup{Source: apitest.Returns(eligibility.AccountStatusUnderReview, "UnderReview")}, Config{}, as(support))
	page, w := s.get("/console")
	if form := all(page, func(n *html.Node) bool { return attr(n, "action") == "/console/find" }); w.Code != http.StatusOK || len(form) != 1 {
		t.Errorf("%d, %d forms", w.Code, len(form))
	}
	if w := s.do(http.MethodGet, "/console/find?q="+url.QueryEscape(" https://partner.microsoft.com/commerce/customers/"+strings.ToUpper(apitest.CustomerA)+"/x"), nil); w.Code != http.StatusSeeOther ||
		w.Header().Get("Location") != "/console/customers/"+apitest.CustomerA {
		t.Errorf("%d, %v", w.Code, w.Header())
	}
	page, w = s.get("/console/find?q=" + url.QueryEscape(`"><script>`))
	if field := all(page, func(n *html.Node) bool { return attr(n, "name") == "q" }); w.Code != http.StatusBadRequest || attr(field[0], "value") != `"><script>` || !strings.Contains(mainOf(page), "There is no customer's id in this.") {
		t.Errorf("%d, %s", w.Code, mainOf(page))
	}
	if w := s.do(http.MethodGet, "/console/customers/%7B"+strings.ToUpper(apitest.CustomerA)+"%7D?partner=default", nil); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/console/customers/"+apitest.CustomerA+"?partner=default" {
		t.Errorf("another form of an id: %d, %v", w.Code, w.Header())
	}
	for path, want := range map[string]int{
		"/console/customers/x": http.StatusNotFound, "/console/customers/" + apitest.CustomerA + "?at=yesterday": http.StatusBadRequest,
		"/console/customers/" + apitest.CustomerA + "?at=2999-01-01T00:00": http.StatusBadRequest, "/console/customers/" + apitest.CustomerA + "?partner=nobody": http.StatusBadRequest,
		"/console/find?q=" + apitest.CustomerA + "&partner=nobody": http.StatusBadRequest, "/console/reviews?sort=name": http.StatusBadRequest, "/console/reviews?page_token=x": http.StatusBadRequest,
		"/console/find?q=" + strings.Repeat("x", 10_000): http.StatusBadRequest, "/console/find?q=%ff%00": http.StatusBadRequest,
	} {
		if _, w := s.get(path); w.Code != want {
			t.Errorf("%.100s: %d, want %d", path, w.Code, want)
		}
	}
}

func TestAskMicrosoftNow(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	returns := apitest.Returns(eligibility.AccountStatusUnderReview, "UnderReview",
		eligibility.Qualification{Type: eligibility.QualificationEducation, TypeText: "Education", VettingStatus: eligibility.VettingDenied, VettingStatusText: "Denied", VettingReason: "Not an Academic Domain"})
	s := startSite(t, servertest.Setup{
		Source: func(ctx context.Context, id eligibility.CustomerID, facet eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
			calls.Add(1)
			return returns(ctx, id, facet)
		},
		Service: evidence.Config{Policy: eligibility.Policy{AllowReducing: true}},
	}, Config{}, as(support))
	page, _ := s.get("/console/customers/" + apitest.CustomerA)
	if text := mainOf(page); !strings.Contains(text, "Nothing is known about this customer") || calls.Load() != 0 {
		t.Errorf("%d calls: %s", calls.Load(), text)
	}
	page, w := s.ask(apitest.CustomerA, "?partner=default")
	text := mainOf(page)
	for _, want := range []string{
		"Microsoft was asked. Its answer is below.", "May not buy commercial licences: Microsoft is reviewing the account.",
		"May not buy education licences: Microsoft is reviewing the account; Microsoft has denied the qualification.",
		"Allowed: they sell nothing more.", "Not an Academic Domain", "MS-CorrelationId: correlation", "Nothing keeps the service from asking Microsoft.",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing: %s", want, text)
		}
	}
	if calls.Load() != 2 || w.Code != http.StatusOK {
		t.Errorf("%d, %d calls", w.Code, calls.Load())
	}
	for range asksPerMinute - 1 {
		s.ask(apitest.CustomerA, "")
	}
	before := calls.Load()
	page, _ = s.ask(apitest.CustomerA, "")
	if text := mainOf(page); !strings.Contains(text, "Microsoft was not asked: you may ask 10 times a minute.") || calls.Load() != before {
		t.Errorf("%d calls: %s", calls.Load()-before, text)
	}
	// A link to the notice that another person sends is of no use later.
	if w := s.do(http.MethodPost, "/console/customers/"+apitest.CustomerA+"/ask", url.Values{"csrf": {s.u.maskedCSRF()}}); !strings.Contains(w.Header().Get("Location"), "&asked_at=1") {
		t.Errorf("%v", w.Header())
	}
	// Without the right there is no button, and no way past that.
	s.h.fictive = as(access.Support | access.Check)
	page, _ = s.get("/console/customers/" + apitest.CustomerA)
	if len(all(page, func(n *html.Node) bool { return attr(n, "id") == "ask-button" })) != 0 || !strings.Contains(mainOf(page), "You may not ask Microsoft from here") {
		t.Error("there is a button without the right")
	}
	if w := s.do(http.MethodPost, "/console/customers/"+apitest.CustomerA+"/ask", url.Values{"csrf": {s.h.fictive.maskedCSRF()}}); w.Code != http.StatusForbidden || calls.Load() != before {
		t.Errorf("without the right: %d, %d calls", w.Code, calls.Load()-before)
	}
}

// The right fresh is enough to ask, whatever else the person may do.
func TestAskingNeedsFreshAlone(t *testing.T) {
	t.Parallel()
	s := startSite(t, servertest.Setup{Source: apitest.Approved()}, Config{}, as(access.Support|access.Fresh))
	page, w := s.ask(apitest.CustomerA, "")
	if text := mainOf(page); w.Code != http.StatusOK || !strings.Contains(text, "Microsoft was asked. Its answer is below.") {
		t.Errorf("%d, %s", w.Code, text)
	}
	if s.u.caller.Rights != access.Support|access.Fresh {
		t.Errorf("the session's rights are now %v", s.u.caller.Rights)
	}
}

func TestAskingFails(t *testing.T) {
	t.Parallel()
	for kind, want := range map[eligibility.Kind]string{
		eligibility.KindThrottled: "the limit on calls to Partner Center is reached", eligibility.KindUnavailable: "did not answer", eligibility.KindCredentials: "refuses the credentials of this service",
		eligibility.KindInvalidResponse: "cannot be read",
	} {
		s := startSite(t, servertest.Setup{Source: apitest.Fails(eligibility.Error{Kind: kind, Err: errors.New("test")})}, Config{}, as(support))
		page, w := s.ask(apitest.CustomerA, "")
		if text := mainOf(page); w.Code != http.StatusOK || !strings.Contains(text, want) || !strings.Contains(text, "Nothing is known") {
			t.Errorf("%v: %d, %s", kind, w.Code, text)
		}
	}
	s := startSite(t, servertest.Setup{Source: apitest.Absent(eligibility.AbsenceNotServed)}, Config{}, as(support))
	page, _ := s.ask(apitest.CustomerA, "")
	if text := mainOf(page); !strings.Contains(text, "Not known for commercial licences: the customer has no relationship with this partner.") || !strings.Contains(text, "HTTP 403, code 20002") {
		t.Errorf("%s", text)
	}
	// Anybody can write an address: only words that are known make a notice.
	page, _ = s.get("/console/customers/" + apitest.CustomerA + "?asked=" + url.QueryEscape("Call +49 30 1"))
	if strings.Contains(mainOf(page), "+49") {
		t.Error("a link puts words on the page")
	}
}

func TestAsksAreCountedForEachPerson(t *testing.T) {
	t.Parallel()
	var a asks
	now := noon
	for i := range asksPerMinute {
		if !a.admit("one", now.Add(time.Duration(i)*time.Second)) {
			t.Fatalf("ask %d is refused", i)
		}
	}
	if a.admit("one", now.Add(59*time.Second)) || !a.admit("two", now.Add(59*time.Second)) {
		t.Error("within the minute")
	}
	if !a.admit("one", now.Add(time.Minute)) || a.admit("one", now.Add(time.Minute)) {
		t.Error("when the first is a minute ago")
	}
	for i := range 10_000 {
		a.admit(fmt.Sprint(i), now.Add(2*time.Hour+time.Duration(i)*time.Second))
	}
	if len(a.recent) > 61 {
		t.Errorf("%d persons are remembered", len(a.recent))
	}
}

// A customer of several partners is shown for the one that knows something.
func TestSeveralPartners(t *testing.T) {
	t.Parallel()
	setup := servertest.Setup{Partners: map[string]apitest.Source{
		"eu": apitest.Returns(eligibility.AccountStatusAllowed, "Allowed"), "us": apitest.Returns(eligibility.AccountStatusNotAllowed, "NotAllowed"), "asia": apitest.Absent(eligibility.AbsenceNotFound),
	}, DefaultPartner: "eu"}
	cfg := Config{Partners: []string{"asia", "eu", "us"}, DefaultPartner: "eu"}
	s := startSite(t, setup, cfg, as(support))
	shown := func(path string) (current string, links []string) {
		page, w := s.get(path)
		if w.Code != http.StatusOK {
			t.Fatalf("%s: %d", path, w.Code)
		}
		for _, tabs := range all(page, withClass("tabs")) {
			for _, link := range all(tabs, element("a")) {
				links = append(links, textOf(link))
				if attr(link, "aria-current") != "" {
					current = textOf(link)
				}
			}
		}
		return current, links
	}
	at := "/console/customers/" + apitest.CustomerA
	if current, links := shown(at); current != "eu nothing known" || len(links) != 3 {
		t.Errorf("nothing is known: %s of %v", current, links)
	}
	s.ask(apitest.CustomerA, "?partner=us")
	if current, links := shown(at); current != "us may not buy commercial" || !slices.Equal(links, []string{"asia nothing known", "eu nothing known", "us may not buy commercial"}) {
		t.Errorf("us knows: %s of %v", current, links)
	}
	s.ask(apitest.CustomerA, "")
	if current, _ := shown(at); current != "eu may buy commercial" {
		t.Errorf("eu knows too: %s", current)
	}
	if current, _ := shown(at + "?partner=us"); current != "us may not buy commercial" {
		t.Errorf("asked for us: %s", current)
	}
	s.u = as(support, "us", "gone")
	s.h.fictive = s.u
	page, _ := s.get(at)
	if text := mainOf(page); strings.Contains(text, "asia") || !strings.Contains(text, "NotAllowed") {
		t.Errorf("a user of us: %s", text)
	}
	for _, path := range []string{at + "?partner=eu", "/console/reviews?partner=eu"} {
		if _, w := s.get(path); w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	s.h.fictive = &user{caller: &access.Caller{Name: callerName, Rights: support, Partners: []string{}}, csrf: newCSRF()}
	if _, w := s.get(at); w.Code != http.StatusForbidden {
		t.Errorf("a user of no partner: %d", w.Code)
	}
}

// waiting is a reviews.List.
type waiting struct {
	reviews.List

	all []reviews.Review
}

func (l *waiting) Page(_ context.Context, _ reviews.Place, size int) ([]reviews.Review, *reviews.Place, error) {
	return l.all[:min(size, len(l.all))], nil, nil
}

func TestReviewsAreSorted(t *testing.T) {
	t.Parallel()
	list := new(waiting)
	for i, word := range []string{"UnderReview", "InReview", "<b>\u202e"} {
		id, err := eligibility.ParseCustomerID(fmt.Sprintf("%032d", i))
		if err != nil {
			t.Fatal(err)
		}
		list.all = append(list.all, reviews.Review{
			Key: eligibility.Key{CustomerID: id, Facet: eligibility.Facet(i % 2)}, StatusText: word,
			Since: noon.Add(time.Duration((i+1)%3) * time.Hour), Last: noon.Add(time.Duration((i+2)%3) * time.Hour), Next: noon.Add(time.Duration(3-i) * time.Hour),
		})
	}
	s := startSite(t, servertest.Setup{API: api.Config{Reviews: map[string]reviews.List{api.DefaultPartner: list}}}, Config{}, as(support))
	for sort, want := range map[string]string{
		"": "201", "since": "201", "-since": "102", "customer": "012", "-customer": "210", "facet": "021", "word": "210", "last": "120", "next": "210", "-next": "012",
	} {
		page, w := s.get("/console/reviews?sort=" + sort)
		got := ""
		for _, link := range all(page, withClass("id")) {
			got += textOf(link)[35:]
		}
		if w.Code != http.StatusOK || got != want {
			t.Errorf("%q: %d, %s, want %s", sort, w.Code, got, want)
		}
		sorted := all(page, func(n *html.Node) bool { return attr(n, "aria-sort") != "" })
		if descending := strings.HasPrefix(sort, "-"); len(sorted) != 1 || (attr(sorted[0], "aria-sort") == "descending") != descending {
			t.Errorf("%q: %d columns are sorted", sort, len(sorted))
		}
		link := all(sorted[0], element("a"))[0]
		if u, err := url.Parse(attr(link, "href")); err != nil || strings.HasPrefix(u.Query().Get("sort"), "-") == strings.HasPrefix(sort, "-") {
			t.Errorf("%q: the link is %s", sort, attr(link, "href"))
		}
	}
	none := startSite(t, servertest.Setup{}, Config{}, as(support))
	page, _ := none.get("/console/reviews")
	if text := mainOf(page); !strings.Contains(text, "No customer of partner default is listed.") || len(all(all(page, element("main"))[0], element("strong"))) != 0 {
		t.Errorf("%s", text)
	}
}

func TestPagesOfReviews(t *testing.T) {
	t.Parallel()
	list := &eligibilityv1.ListReviewsResponse{Reviews: []*eligibilityv1.Review{{CustomerId: testCustomer, StatusText: "UnderReview"}}, NextPageToken: "a&b"}
	first := newReviewsPage(list, "eu", "-next", "", noon)
	if first.Next != "/console/reviews?page_token=a%26b&partner=eu&sort=-next" || first.First != "" {
		t.Errorf("%+v", first)
	}
	list.NextPageToken = ""
	last := newReviewsPage(list, "eu", "since", "a&b", noon)
	if last.Next != "" || last.First != "/console/reviews?partner=eu" || last.Columns[0].Path != "/console/reviews?page_token=a%26b&partner=eu&sort=customer" {
		t.Errorf("%+v", last)
	}
	page, _ := render(t, "reviews", first)
	if links := all(page, func(n *html.Node) bool { return attr(n, "rel") == "next" && attr(n, "href") == first.Next }); len(links) != 1 || !strings.Contains(mainOf(page), "1 review on this page of partner eu.") {
		t.Errorf("%d links, %s", len(links), mainOf(page))
	}
}

func TestThePageOfReviewsIsBounded(t *testing.T) {
	t.Parallel()
	list := new(waiting)
	for i := range reviewsPageSize {
		id, _ := eligibility.ParseCustomerID(fmt.Sprintf("%032d", i))
		list.all = append(list.all, reviews.Review{Key: eligibility.Key{CustomerID: id}, StatusText: strings.Repeat("<", 10_000), Since: noon, Last: noon, Next: noon})
	}
	s := startSite(t, servertest.Setup{API: api.Config{Reviews: map[string]reviews.List{api.DefaultPartner: list}}}, Config{}, as(support))
	page, w := s.get("/console/reviews")
	if rows := all(page, element("tr")); len(rows) != reviewsPageSize+1 {
		t.Errorf("%d rows", len(rows))
	}
	if w.Body.Len() > 3<<19 {
		t.Errorf("%d bytes", w.Body.Len())
	}
}

// Events are the API's stream, for the user and with no more than three parameters.
func TestEvents(t *testing.T) {
	t.Parallel()
	feed := apitest.NewFeed('a')
	s := startSite(t, servertest.Setup{Source: apitest.Approved(), Feeds: map[string]changes.Feed{api.DefaultPartner: feed}}, Config{}, as(access.Support))
	for _, query := range []string{"resume_token=x", "start_time=2026-01-01T00:00:00Z", "customer_ids=x", "Segment=EDUCATION", "segment=X", "partner=nobody", "%zz", "a;b"} {
		if w := s.do(http.MethodGet, "/console/events?"+query, nil); w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
		}
	}
	server := httptest.NewServer(s.h)
	defer server.Close()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/console/events?segment=EDUCATION&customer_ids="+apitest.CustomerA+"&partner=default", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer x") // is of no use
	req.Header.Set("Accept", "application/x-ndjson")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s, %v", resp.Status, resp.Header)
	}
	read := make([]byte, 4096)
	var got strings.Builder
	wrote := false
	for !strings.Contains(got.String(), "event: change") {
		n, err := resp.Body.Read(read)
		if err != nil {
			t.Fatalf("%v after %s", err, got.String())
		}
		got.Write(read[:n])
		if strings.Contains(got.String(), "event: progress") && !wrote {
			wrote = true
			feed.Write(apitest.CustomerA, &eligibility.Evidence{Facet: eligibility.FacetAccount, FetchTime: time.Now(), Status: eligibility.AccountStatusNotAllowed, StatusText: "NotAllowed"})
		}
	}
}
