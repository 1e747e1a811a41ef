package console

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// reviewsPageSize is how many reviews a page has.
const reviewsPageSize = 1000

// reviewsPage is the data of templates/reviews.html.
type reviewsPage struct {
	Partner  string
	Partners []partnerLink
	Columns  []column
	Sorted   string // the column and the direction, in words
	Rows     []reviewRow
	// Next is the path of the next page, empty on the last; First that of the first page,
	// empty on that.
	Next, First string
	Events      string
}

// column is a column of the table.
type column struct {
	Name string
	// Path sorts the page by the column, or the other way round if it is.
	Path string
	// Sort is ascending or descending if the page is sorted by the column.
	Sort string
}

// reviewRow is a customer under review.
type reviewRow struct {
	ID, Path          string
	Facet             string
	Word              text
	Since, Last, Next *moment
}

// reviewOrder is an order of reviews: by a column, which the parameter sort names by key.
type reviewOrder struct {
	key, name string
	compare   func(a, b *eligibilityv1.Review) int
}

// reviewOrders are those of all columns.
//
//nolint:gochecknoglobals // constant
var reviewOrders = []reviewOrder{
	{"customer", "Customer", func(a, b *eligibilityv1.Review) int { return cmp.Compare(a.GetCustomerId(), b.GetCustomerId()) }},
	{"facet", "Under review", func(a, b *eligibilityv1.Review) int { return cmp.Compare(a.GetFacet(), b.GetFacet()) }},
	{"word", "Microsoft's word", func(a, b *eligibilityv1.Review) int {
		return cmp.Compare(strings.ToLower(a.GetStatusText()), strings.ToLower(b.GetStatusText()))
	}},
	{"since", "Since", func(a, b *eligibilityv1.Review) int {
		return compareTimes(a.GetPendingSinceTime(), b.GetPendingSinceTime())
	}},
	{"last", "Last check", func(a, b *eligibilityv1.Review) int { return compareTimes(a.GetLastCheckTime(), b.GetLastCheckTime()) }},
	{"next", "Next check", func(a, b *eligibilityv1.Review) int { return compareTimes(a.GetNextCheckTime(), b.GetNextCheckTime()) }},
}

// defaultReviewOrder has the one first that has waited for longest.
const defaultReviewOrder = "since"

func compareTimes(a, b *timestamp) int { return a.AsTime().Compare(b.AsTime()) }

// reviews shows a page of the customers under review.
func (h *Handler) reviews(w http.ResponseWriter, r *http.Request, u *user) {
	partners, partner, ok := h.chosenPartner(w, r, u)
	if !ok {
		return
	}
	if partner == "" {
		partner = h.usualPartner(partners)
	}
	query := r.URL.Query()
	sort := cmp.Or(query.Get("sort"), defaultReviewOrder)
	if !slices.ContainsFunc(reviewOrders, func(o reviewOrder) bool { return o.key == strings.TrimPrefix(sort, "-") }) {
		h.fail(w, r, u, http.StatusBadRequest, "The reviews cannot be sorted by that.")
		return
	}
	ctx, cancel := context.WithTimeout(h.context(r, u), explainTimeout)
	defer cancel()
	token := query.Get("page_token")
	list, err := h.cfg.API.ListReviews(ctx, &eligibilityv1.ListReviewsRequest{Partner: partner, PageSize: reviewsPageSize, PageToken: token})
	if err != nil {
		h.failAPI(w, r, u, err)
		return
	}
	page := newReviewsPage(list, partner, sort, token, h.cfg.Now())
	if len(partners) > 1 {
		for _, name := range partners {
			page.Partners = append(page.Partners, partnerLink{Name: name, Path: reviewsPath(name, sort, ""), Current: name == partner})
		}
	}
	h.page(w, r, u, http.StatusOK, "reviews", page)
}

// newReviewsPage makes a page of a list, in an order: sort is the key of a column, after
// a hyphen if it is descending.
func newReviewsPage(list *eligibilityv1.ListReviewsResponse, partner, sort, token string, now time.Time) *reviewsPage {
	page := &reviewsPage{
		Partner: partner,
		Events:  Path + "/events?" + url.Values{"partner": {partner}, "segment": {"EDUCATION"}}.Encode(),
	}
	all := slices.Clone(list.GetReviews())
	key, descending := strings.CutPrefix(sort, "-")
	for _, order := range reviewOrders {
		c := column{Name: order.name, Path: reviewsPath(partner, order.key, token)}
		if order.key == key {
			slices.SortStableFunc(all, func(a, b *eligibilityv1.Review) int {
				by := order.compare(a, b)
				if descending {
					by = -by
				}
				return cmp.Or(by, cmp.Compare(a.GetCustomerId(), b.GetCustomerId()), cmp.Compare(a.GetFacet(), b.GetFacet()))
			})
			c.Sort = "descending"
			if !descending {
				c.Sort, c.Path = "ascending", reviewsPath(partner, "-"+order.key, token)
			}
			page.Sorted = strings.ToLower(order.name) + ", " + c.Sort
		}
		page.Columns = append(page.Columns, c)
	}
	var bounded texts
	for _, review := range all {
		page.Rows = append(page.Rows, reviewRow{
			ID: review.GetCustomerId(), Path: customerPath(review.GetCustomerId(), url.Values{"partner": {partner}}),
			Facet: facetName(review.GetFacet()), Word: bounded.brief(review.GetStatusText()),
			Since: momentOf(review.GetPendingSinceTime(), now), Last: momentOf(review.GetLastCheckTime(), now), Next: momentOf(review.GetNextCheckTime(), now),
		})
	}
	if next := list.GetNextPageToken(); next != "" {
		page.Next = reviewsPath(partner, sort, next)
	}
	if token != "" {
		page.First = reviewsPath(partner, sort, "")
	}
	return page
}

func reviewsPath(partner, sort, token string) string {
	query := url.Values{"partner": {partner}}
	if sort != defaultReviewOrder {
		query.Set("sort", sort)
	}
	if token != "" {
		query.Set("page_token", token)
	}
	return Path + "/reviews?" + query.Encode()
}
