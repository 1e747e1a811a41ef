package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/client"
	"github.com/eligibilityd/eligibilityd/eligibilitytest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

const contoso = "c0000000-0000-4000-8000-00000000000c"

// synced is a buffer that several goroutines write to.
type synced struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *synced) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *synced) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// open opens a shop that sells to customers of a real service.
func open(t *testing.T, cfg eligibilitytest.Config) (service *eligibilitytest.Service, shopURL string, staff *synced) {
	t.Helper()
	service = eligibilitytest.New(t, cfg)
	asker, err := client.New(service.Conn.Target(), client.Config{Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = asker.Close() })
	staff = new(synced)
	server := httptest.NewServer(newShop(asker, staff).handler())
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return service, server.URL, staff
}

// page is what a customer sees.
type page struct {
	code    int
	header  http.Header
	text    string // without markup
	outcome string
	order   string // the id in the form
	path    string
}

var (
	markup   = regexp.MustCompile(`(?s)<title>.*</style>|<[^>]*>`)
	outcomes = regexp.MustCompile(`data-outcome="(\w+)"`)
	orders   = regexp.MustCompile(`name="order" value="(\w+)"`)
)

func visit(t *testing.T, method, address string, header http.Header, body io.Reader) page {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	first := func(found []string) string {
		if len(found) < 2 {
			return ""
		}
		return found[1]
	}
	return page{
		code: resp.StatusCode, header: resp.Header, path: resp.Request.URL.Path,
		text:    strings.Join(strings.Fields(markup.ReplaceAllString(string(text), " ")), " "),
		outcome: first(outcomes.FindStringSubmatch(string(text))), order: first(orders.FindStringSubmatch(string(text))),
	}
}

func offerOf(t *testing.T, shopURL, customer, sku string) page {
	t.Helper()
	return visit(t, http.MethodGet, shopURL+"/offer?"+url.Values{"customer": {customer}, "sku": {sku}}.Encode(), http.Header{}, http.NoBody)
}

func order(t *testing.T, shopURL, id string) page {
	t.Helper()
	form := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	return visit(t, http.MethodPost, shopURL+"/orders", form, strings.NewReader(url.Values{"order": {id}}.Encode()))
}

// forCustomers fails if a text is not for customers: only the partner can ask Microsoft,
// or act in Partner Center, and no word of a review is given away.
func forCustomers(t *testing.T, text string) {
	t.Helper()
	for _, wrong := range []string{
		"contact microsoft", "ask microsoft", "partner center", "denied", "rejected", "not allowed", "fraud", "suspicious", "support", "correlation", "eligib", "error", "undecid", "REASON",
	} {
		if strings.Contains(strings.ToLower(text), strings.ToLower(wrong)) {
			t.Errorf("a customer reads %q in: %s", wrong, text)
		}
	}
}

// The page shows the right text for each reason and each error, and the staff get what
// they have to do.
func TestTheTextOfEachReasonAndError(t *testing.T) {
	t.Parallel()
	qualification := func(status string) eligibilitytest.Customer {
		return eligibilitytest.Customer{Account: eligibilitytest.Allowed, Qualifications: []eligibilitytest.Qualification{{Type: "Education", VettingStatus: status, VettingReason: "Fraud"}}}
	}
	for name, row := range map[string]struct {
		customer eligibilitytest.Customer
		sku      string
		code     int
		outcome  string
		text     string
		task     string // empty: the staff have nothing to do
		again    bool   // the page names when to come back
	}{
		"allowed":       {eligibilitytest.Customer{Account: eligibilitytest.Allowed}, "business", 200, "allowed", "You can order Microsoft 365 Business now.", "", false},
		"no status":     {eligibilitytest.Customer{Account: eligibilitytest.NoStatus}, "business", 200, "allowed", "You can order Microsoft 365 Business now.", "", false},
		"under review":  {eligibilitytest.Customer{Account: eligibilitytest.UnderReview}, "business", 200, "blocked", "still checking the details of your organization", "", true},
		"not ready":     {eligibilitytest.Customer{Account: eligibilitytest.NotReady}, "business", 200, "blocked", "has not begun to check", "", true},
		"unknown":       {eligibilitytest.Customer{Account: eligibilitytest.Unknown}, "business", 200, "blocked", "has not confirmed your organization", "", true},
		"not allowed":   {eligibilitytest.Customer{Account: eligibilitytest.NotAllowed}, "business", 200, "blocked", "our team is looking into it and will write to you", "ask Microsoft support", false},
		"another word":  {eligibilitytest.Customer{Account: "Paused"}, "business", 200, "blocked", "our team is looking into it", "ask Microsoft support", true},
		"approved":      {qualification("Approved"), "school", 200, "allowed", "You can order Microsoft 365 for schools now.", "", false},
		"in review":     {qualification("InReview"), "school", 200, "blocked", "still confirming that your organization is entitled", "", true},
		"denied":        {qualification("Denied"), "school", 200, "blocked", "could not confirm that your organization is entitled", "correct the customer's data", false},
		"missing":       {eligibilitytest.Customer{Account: eligibilitytest.Allowed}, "school", 200, "blocked", "We request it from Microsoft for you", "Request the qualification", false},
		"another state": {qualification("Paused"), "school", 200, "blocked", "could not confirm yet", "ask Microsoft support", true},

		"not found":        {eligibilitytest.Customer{Failure: eligibilitytest.CustomerNotFound}, "business", 503, "undecided", "Please check the customer number", "", false},
		"not served":       {eligibilitytest.Customer{Failure: eligibilitytest.CustomerNotServed}, "business", 503, "undecided", "We send you an invitation", "send an invitation", false},
		"unavailable":      {eligibilitytest.Customer{Failure: eligibilitytest.PartnerCenterUnavailable, RetryAfter: time.Minute}, "business", 503, "undecided", "Please try again", "", false},
		"throttled":        {eligibilitytest.Customer{Failure: eligibilitytest.PartnerCenterThrottled, RetryAfter: time.Minute}, "business", 503, "undecided", "Please try again", "", false},
		"late":             {eligibilitytest.Customer{Failure: eligibilitytest.DeadlineExceeded}, "business", 503, "undecided", "Please try again", "", false},
		"credentials":      {eligibilitytest.Customer{Failure: eligibilitytest.PartnerCenterCredentials}, "business", 503, "undecided", "We are working on it", "PARTNER_CENTER_CREDENTIALS", false},
		"invalid response": {eligibilitytest.Customer{Failure: eligibilitytest.PartnerCenterInvalidResponse}, "business", 503, "undecided", "We are working on it", "PARTNER_CENTER_INVALID_RESPONSE", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, shopURL, staff := open(t, eligibilitytest.Config{Customers: map[string]eligibilitytest.Customer{contoso: row.customer}})
			got := offerOf(t, shopURL, contoso, row.sku)
			if got.code != row.code || got.outcome != row.outcome || !strings.Contains(got.text, row.text) || (got.order != "") != (row.outcome == "allowed") {
				t.Errorf("%d, %s, order %q: %s", got.code, got.outcome, got.order, got.text)
			}
			if strings.Contains(got.text, "worth coming back after") != row.again {
				t.Errorf("when to come back: %s", got.text)
			}
			if wait := got.header.Get("Retry-After"); (name == "unavailable" || name == "throttled") != (wait == "60") && name != "late" {
				t.Errorf("Retry-After: %q", wait)
			}
			if strings.Contains(staff.String(), `"task"`) != (row.task != "") || !strings.Contains(staff.String(), row.task) {
				t.Errorf("the staff get %s", staff.String())
			}
			forCustomers(t, got.text)
		})
	}
}

// A reason that a newer service adds has a text by its remedy, and every reason that
// blocks has one of its own.
func TestEveryReasonHasAText(t *testing.T) {
	t.Parallel()
	allow := []eligibilityv1.ReasonCode{
		eligibilityv1.ReasonCode_REASON_CODE_UNSPECIFIED, eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_ALLOWED, eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_HAS_NO_STATUS,
		eligibilityv1.ReasonCode_REASON_CODE_QUALIFICATION_APPROVED, eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_REVIEW_EXEMPT,
	}
	const newer = 1000
	others := textOfReason(&eligibilityv1.Reason{Code: newer, Message: "Something new."})
	for number := range eligibilityv1.ReasonCode_name {
		code := eligibilityv1.ReasonCode(number)
		got := textOfReason(&eligibilityv1.Reason{Code: code})
		if got.sentence == others.sentence && !slices.Contains(allow, code) {
			t.Errorf("%v has no text", code)
		}
		forCustomers(t, got.sentence)
	}
	forCustomers(t, others.sentence)
	review := textOfReason(&eligibilityv1.Reason{Code: newer, Message: "Something new.", Temporary: true})
	forCustomers(t, review.sentence)
	if others.task != "Something new." || review.task != "" {
		t.Errorf("tasks: %q, and %q while it is temporary", others.task, review.task)
	}
}

// The order step asks again, with the evidence of the offer, and takes an order once.
func TestAnOrderIsTakenOnce(t *testing.T) {
	t.Parallel()
	_, shopURL, staff := open(t, eligibilitytest.Config{Customers: map[string]eligibilitytest.Customer{contoso: {Account: eligibilitytest.Allowed}}})
	id := offerOf(t, shopURL, contoso, "business").order
	var sending sync.WaitGroup
	for range 10 { // impatient
		sending.Go(func() {
			if got := order(t, shopURL, id); got.code != http.StatusOK || got.outcome != "ordered" || got.path != "/orders/"+id {
				t.Errorf("%d at %s: %s", got.code, got.path, got.text)
			}
		})
	}
	sending.Wait()
	if taken := strings.Count(staff.String(), `"order"`); taken != 1 {
		t.Errorf("taken %d times: %s", taken, staff.String())
	}
	if got := order(t, shopURL, "another"); got.code != http.StatusGone || got.outcome != "expired" {
		t.Errorf("an order without an offer: %d, %s", got.code, got.text)
	}
}

// A review that begins between the offer and the order stops the order, once it is known.
func TestAnOrderIsCheckedAgain(t *testing.T) {
	t.Parallel()
	service, shopURL, staff := open(t, eligibilitytest.Config{Customers: map[string]eligibilitytest.Customer{contoso: {Account: eligibilitytest.Allowed}}})
	id := offerOf(t, shopURL, contoso, "business").order
	if err := service.Set(contoso, eligibilitytest.Customer{Account: eligibilitytest.UnderReview}); err != nil {
		t.Fatal(err)
	}
	service.Advance(15 * time.Minute) // the evidence of the offer is no longer fresh
	if got := order(t, shopURL, id); got.code != http.StatusConflict || got.outcome != "blocked" {
		t.Errorf("%d, %s", got.code, got.text)
	}
	if err := service.Set(contoso, eligibilitytest.Customer{Failure: eligibilitytest.PartnerCenterCredentials}); err != nil {
		t.Fatal(err)
	}
	service.Advance(48 * time.Hour)
	if got := order(t, shopURL, id); got.code != http.StatusServiceUnavailable || got.outcome != "undecided" {
		t.Errorf("%d, %s", got.code, got.text)
	}
	if strings.Contains(staff.String(), `"order"`) {
		t.Errorf("taken: %s", staff.String())
	}
}

func TestWhatIsNoRequestOfACustomer(t *testing.T) {
	t.Parallel()
	_, shopURL, _ := open(t, eligibilitytest.Config{})
	for _, path := range []string{"/offer?customer=" + contoso, "/offer?sku=other", "/orders/other", "/other"} {
		if got := visit(t, http.MethodGet, shopURL+path, http.Header{}, http.NoBody); got.code != http.StatusNotFound {
			t.Errorf("%s: %d", path, got.code)
		}
	}
	if got := offerOf(t, shopURL, `"><script>`, "business"); got.code != http.StatusServiceUnavailable || !strings.Contains(got.text, "Please check the customer number") {
		t.Errorf("%d, %s", got.code, got.text)
	}
	foreign := http.Header{"Sec-Fetch-Site": {"cross-site"}}
	if got := visit(t, http.MethodPost, shopURL+"/orders", foreign, http.NoBody); got.code != http.StatusForbidden {
		t.Errorf("a form of another site: %d", got.code)
	}
}

// The offers in progress are bounded.
func TestOffersAreBounded(t *testing.T) {
	t.Parallel()
	s := newShop(nil, io.Discard)
	for range maxOffers + 100 {
		s.keep(time.Now().String(), offer{})
	}
	if len(s.offers) > maxOffers {
		t.Errorf("%d offers", len(s.offers))
	}
}
