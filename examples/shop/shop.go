package main

import (
	"crypto/rand"
	"embed"
	"encoding/json"
	"html/template"
	"io"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/eligibilityd/eligibilityd/client"
	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// maxOffers is how many customers can be between the offer and the order.
const maxOffers = 10_000

//go:embed pages.html
var pages embed.FS

// product is what the shop sells. Its segment is that of Microsoft's catalogue.
type product struct {
	SKU, Name, Price string
	Segment          eligibilityv1.Segment
}

func products() []product {
	return []product{
		{"business", "Microsoft 365 Business", "€ 11.70 a month", eligibilityv1.Segment_SEGMENT_COMMERCIAL},
		{"school", "Microsoft 365 for schools", "€ 3.10 a month", eligibilityv1.Segment_SEGMENT_EDUCATION},
		{"government", "Microsoft 365 for government", "€ 9.80 a month", eligibilityv1.Segment_SEGMENT_GOVERNMENT},
		{"nonprofit", "Microsoft 365 for nonprofits", "€ 5.10 a month", eligibilityv1.Segment_SEGMENT_NONPROFIT},
	}
}

// offer is what a customer was shown: the order step goes on from it. Its id is the
// order's, so that an order that is sent twice is taken once.
type offer struct {
	CustomerID   string
	Product      product
	EvidenceTime time.Time
}

// shop is safe for concurrent use.
type shop struct {
	service *client.Client
	pages   *template.Template

	mu     sync.Mutex
	offers map[string]offer // by id; a shop that restarts would keep them in its sessions
	orders map[string]offer // by id; a real shop has an order system
	staff  *json.Encoder    // what the staff have to know; a real shop has tickets
}

func newShop(service *client.Client, staff io.Writer) *shop {
	return &shop{
		service: service, pages: template.Must(template.ParseFS(pages, "pages.html")),
		offers: make(map[string]offer), orders: make(map[string]offer), staff: json.NewEncoder(staff),
	}
}

// handler returns the pages of the shop. A form of another site cannot order.
func (s *shop) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { s.show(w, http.StatusOK, "shop", products()) })
	mux.HandleFunc("GET /offer", s.offer)
	mux.HandleFunc("POST /orders", s.order)
	mux.HandleFunc("GET /orders/{id}", s.ordered)
	return http.NewCrossOriginProtection().Handler(mux)
}

// offer shows whether the customer may buy a product. A real shop takes the customer from
// the session, not from the form.
func (s *shop) offer(w http.ResponseWriter, r *http.Request) {
	o := offer{CustomerID: r.FormValue("customer")}
	for _, p := range products() {
		if p.SKU == r.FormValue("sku") {
			o.Product = p
		}
	}
	if o.Product.SKU == "" {
		http.NotFound(w, r)
		return
	}
	verdict := s.service.Check(r.Context(), client.Request{CustomerID: o.CustomerID, Segment: o.Product.Segment})
	id := ""
	if verdict.Allowed() {
		o.EvidenceTime = verdict.EvidenceTime()
		id = rand.Text()
		s.keep(id, o)
	}
	s.answer(w, http.StatusOK, id, o, verdict)
}

// keep remembers an offer. If there are too many, any other is forgotten: its customer
// has to open the offer again.
func (s *shop) keep(id string, o offer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for other := range s.offers {
		if len(s.offers) < maxOffers {
			break
		}
		delete(s.offers, other)
	}
	s.offers[id] = o
}

// order takes an order. It checks again, with nothing older than what the customer was
// shown, since a review may have begun in between.
func (s *shop) order(w http.ResponseWriter, r *http.Request) {
	id := r.FormValue("order")
	s.mu.Lock()
	o, offered := s.offers[id]
	_, taken := s.orders[id]
	s.mu.Unlock()
	switch {
	case taken:
		http.Redirect(w, r, "/orders/"+id, http.StatusSeeOther) //nolint:gosec // of an order that was taken
		return
	case !offered:
		s.show(w, http.StatusGone, "expired", nil)
		return
	}
	verdict := s.service.Check(r.Context(), client.Request{
		CustomerID: o.CustomerID, Segment: o.Product.Segment, MinEvidenceTime: o.EvidenceTime,
	})
	if !verdict.Allowed() {
		s.answer(w, http.StatusConflict, "", o, verdict)
		return
	}
	s.place(id, o)
	http.Redirect(w, r, "/orders/"+id, http.StatusSeeOther) //nolint:gosec // of an order that was taken
}

// place takes an order once, however often it is sent, and at the same time.
func (s *shop) place(id string, o offer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.orders[id]; taken {
		return
	}
	s.orders[id] = o
	delete(s.offers, id)
	s.note(task{Order: id, CustomerID: o.CustomerID, SKU: o.Product.SKU})
}

func (s *shop) ordered(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	o, taken := s.orders[r.PathValue("id")]
	s.mu.Unlock()
	if !taken {
		http.NotFound(w, r)
		return
	}
	s.show(w, http.StatusOK, "ordered", o)
}

// answer shows a verdict to the customer, and what has to be done to the staff. If
// nothing is decided, the code asks crawlers and caches to come back.
func (s *shop) answer(w http.ResponseWriter, code int, id string, o offer, verdict client.Verdict) {
	shown := textOf(verdict, o.Product)
	line := task{CustomerID: o.CustomerID, SKU: o.Product.SKU, Task: shown.Task, CorrelationID: verdict.Response().GetCorrelationId()}
	if verdict.Outcome() == client.Undecided {
		code, line.Error = http.StatusServiceUnavailable, verdict.Err().Error()
	}
	if line.Task != "" || line.Error != "" {
		s.mu.Lock()
		s.note(line)
		s.mu.Unlock()
	}
	if shown.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(shown.RetryAfter.Seconds()))))
	}
	s.show(w, code, "offer", struct {
		ID      string
		Offer   offer
		Outcome string
		Text    text
	}{id, o, verdict.Outcome().String(), shown})
}

// task is a line for the staff: an order to fulfil, something to do, or an error.
type task struct {
	Order         string `json:"order,omitempty"`
	CustomerID    string `json:"customer_id"`
	SKU           string `json:"sku"`
	Task          string `json:"task,omitempty"`
	CorrelationID string `json:"correlation_id,omitempty"` // for Microsoft's support
	Error         string `json:"error,omitempty"`          // why nothing was decided
}

// note writes a task; s.mu is held.
func (s *shop) note(t task) { _ = s.staff.Encode(t) } //nolint:errchkjson // a reader who has left stops no sale

func (s *shop) show(w http.ResponseWriter, code int, page string, data any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store") // an answer is for one customer, and for now
	w.WriteHeader(code)
	_ = s.pages.ExecuteTemplate(w, page, data) // it fails only if the customer has left
}
