package console

import (
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// maxQuery is how many bytes the text may have that a customer is found by.
const maxQuery = 4 << 10

// startPage is the data of templates/start.html.
type startPage struct {
	Query, Error string
	Partner      string
}

// start shows the first page.
func (h *Handler) start(w http.ResponseWriter, r *http.Request, u *user) {
	h.page(w, r, u, http.StatusOK, "start", &startPage{})
}

// find opens the page of the customer that a text names.
func (h *Handler) find(w http.ResponseWriter, r *http.Request, u *user) {
	_, partner, ok := h.chosenPartner(w, r, u)
	if !ok {
		return
	}
	given := r.URL.Query().Get("q")
	id, err := findCustomer(given)
	if err != nil {
		page := &startPage{Query: given, Error: err.Error(), Partner: partner}
		if len(given) > maxQuery || !utf8.ValidString(given) {
			page.Query = ""
		}
		h.page(w, r, u, http.StatusBadRequest, "start", page)
		return
	}
	query := url.Values{}
	if partner != "" {
		query.Set("partner", partner)
	}
	redirect(w, customerPath(id.String(), query))
}

// The errors of findCustomer are sentences for the user.
var (
	errNothingGiven = errors.New("Paste a customer's id, or a Partner Center address that has one.")                                                                                                                                              //nolint:revive,staticcheck // a sentence
	errTooLong      = errors.New("This is too long. Paste the id alone.")                                                                                                                                                                         //nolint:revive,staticcheck // a sentence
	errNoID         = errors.New("There is no customer's id in this. An id looks like 11111111-2222-3333-4444-555555555555; in Partner Center it is the Microsoft ID on the customer's account page, or what follows customers/ in the address.") //nolint:revive,staticcheck // a sentence
	errSeveralIDs   = errors.New("There are several ids in this. Paste the customer's alone.")                                                                                                                                                    //nolint:revive,staticcheck // a sentence
	errNotCustomers = errors.New("This address has an id, but it does not follow customers/: it may be that of your own tenant. Paste the customer's id.")                                                                                        //nolint:revive,staticcheck // a sentence
)

var (
	// afterCustomers is the id of a customer in an address of Partner Center or its API.
	// Subscriptions, orders and the partner's own tenant have ids too, elsewhere in it.
	afterCustomers = regexp.MustCompile(`(?i)\bcustomers/([0-9a-z{}-]+)`)
	// customerParameter is the same in addresses that have it in the query.
	customerParameter = regexp.MustCompile(`(?i)[?&](?:ctid|customer_?-?id|customer_?-?tenant_?-?id)=([0-9a-z{}-]+)`)
	// address is how addresses begin.
	address = regexp.MustCompile(`(?i)^(?:https?://|[a-z0-9-]+(?:\.[a-z0-9-]+)+/)`)
)

// findCustomer returns the customer that a text names: by an id, by the address of one
// of the customer's pages in Partner Center, or by one id within other words.
func findCustomer(given string) (id eligibility.CustomerID, err error) {
	switch {
	case len(given) > maxQuery:
		return id, errTooLong
	case strings.TrimSpace(given) == "":
		return id, errNothingGiven
	}
	if id, err = eligibility.ParseCustomerID(given); err == nil {
		return id, nil
	}
	given = strings.TrimSpace(given)
	for range 2 { // links in mails hold addresses that are escaped twice
		if plain, err := url.PathUnescape(given); err == nil {
			given = plain
		}
	}
	for _, pattern := range []*regexp.Regexp{afterCustomers, customerParameter} {
		var found []string
		for _, match := range pattern.FindAllStringSubmatch(given, -1) {
			found = append(found, match[1])
		}
		if id, err := theOnly(found); !errors.Is(err, errNoID) {
			return id, err
		}
	}
	id, err = theOnly(words(given))
	if err == nil && address.MatchString(given) {
		return eligibility.CustomerID{}, errNotCustomers
	}
	return id, err
}

// words returns the parts of a text that may be ids.
func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool {
		return !('0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || r == '-' || r == '{' || r == '}')
	})
}

// theOnly returns the only customer that is among words.
func theOnly(words []string) (eligibility.CustomerID, error) {
	var found []eligibility.CustomerID
	for _, word := range words {
		id, err := eligibility.ParseCustomerID(word)
		if err == nil && !slices.Contains(found, id) {
			found = append(found, id)
		}
	}
	switch len(found) {
	case 0:
		return eligibility.CustomerID{}, errNoID
	case 1:
		return found[0], nil
	default:
		return eligibility.CustomerID{}, errSeveralIDs
	}
}
