package app_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// A caller that guesses IDs at two replicas reaches Partner Center for no more
// customers than its allowance, and none of its checks of known ones is refused.
func TestTheFleetSharesTheNewCustomersOfACaller(t *testing.T) {
	t.Parallel()
	f := startFleetWith(t, 2, cachetest.StartRedis(t), []string{
		"ELIGIBILITY_LIMITS__CALLERS=anonymous: {new_customers_per_minute: 10, requests_per_second: 100000, burst: 100000}",
	}, "eu")
	check := func(i int) (status int, header http.Header, body string) {
		t.Helper()
		id := eligibility.CustomerID{14: byte(i >> 8), 15: byte(i)} //nolint:gosec // its low bytes
		address := fmt.Sprintf("%s/v1/customers/%s/eligibility", f.replicas[i%2].rest, id)
		status, header, text, err := f.replicas[i%2].do(t.Context(), http.MethodGet, address, "")
		if err != nil {
			t.Fatal(err)
		}
		return status, header, string(text)
	}
	var known []int
	refused := 0
	for i := range 400 {
		switch status, header, body := check(i); {
		case status == http.StatusOK:
			known = append(known, i)
		case status == http.StatusTooManyRequests && strings.Contains(body, "CALLER_LIMITED") && header.Get("Retry-After") != "":
			refused++
		default:
			t.Fatalf("%d: %d %s", i, status, body)
		}
	}
	if calls := f.sources["eu"].calls.Load(); calls > 20 || refused < 300 {
		t.Errorf("%d calls to Partner Center for an allowance of 10, %d refused", calls, refused)
	}
	for _, i := range known {
		if status, _, body := check(i); status != http.StatusOK {
			t.Errorf("a known customer: %d %s", status, body)
		}
	}
}
