package pcsim_test

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// statusWord requests the account and returns the status word, or the HTTP status.
func (r *rig) statusWord(token string) string {
	r.t.Helper()
	got := r.account(customerID, token)
	if got.status != 200 {
		return strconv.Itoa(got.status)
	}
	return decode(r.t, got.body)["status"].(string)
}

func TestTimelineStartsWithTheFirstRequest(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{TokenLifetime: 24 * time.Hour})
	token := r.userToken()
	r.set(pcsim.Customer{
		ID: customerID,
		Account: []pcsim.Step{
			{Status: "none", For: 10 * time.Second},
			{Status: "UnderReview", For: time.Minute},
			{Status: "Allowed"},
		},
		Qualifications: []pcsim.Step{
			{Items: []pcsim.Qualification{}, For: time.Minute},
			{Items: []pcsim.Qualification{{Qualification: "Education", VettingStatus: "InReview"}}},
		},
	})
	r.clock.Advance(time.Hour) // without a request, nothing starts
	for _, tc := range []struct {
		after time.Duration
		want  string
	}{
		{0, "404"},
		{10*time.Second - 1, "404"},
		{1, "UnderReview"},
		{time.Minute - 1, "UnderReview"},
		{1, "Allowed"},
		{time.Hour, "Allowed"},
	} {
		r.clock.Advance(tc.after)
		if got := r.statusWord(token); got != tc.want {
			t.Errorf("after %v: %s, want %s", tc.after, got, tc.want)
		}
	}
	// The account's first request started this timeline, too.
	if got := r.qualifications(customerID, token); !strings.Contains(got.body, "InReview") {
		t.Errorf("qualifications: %s", got.body)
	}
}

func TestTimelineGoesOnWhileNobodyAsks(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	token := r.userToken()
	r.set(pcsim.Customer{ID: customerID, Account: []pcsim.Step{
		{Status: "Allowed", For: time.Minute}, {Status: "UnderReview", For: time.Minute}, {Status: "NotAllowed"},
	}})
	r.statusWord(token)
	r.clock.Advance(2 * time.Minute)
	if got := r.statusWord(token); got != "NotAllowed" {
		t.Errorf("got %s", got)
	}
}

func TestTimesThenForThenTimes(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{TokenLifetime: 24 * time.Hour})
	token := r.userToken()
	r.set(pcsim.Customer{ID: customerID, Account: []pcsim.Step{
		{Raw: &pcsim.Raw{Status: 503}, Times: 2},
		{Status: "UnderReview", For: time.Minute}, // starts with its first request
		{Status: "Unknown", Times: 1},
		{Status: "Allowed"},
	}})
	got := []string{r.statusWord(token), r.statusWord(token)}
	r.clock.Advance(time.Hour)
	got = append(got, r.statusWord(token))
	r.clock.Advance(time.Minute - 1)
	got = append(got, r.statusWord(token))
	r.clock.Advance(1)
	got = append(got, r.statusWord(token), r.statusWord(token), r.statusWord(token))
	want := []string{"503", "503", "UnderReview", "UnderReview", "Unknown", "Allowed", "Allowed"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestRefusedCallsDoNotPlayTheScript(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	r.set(pcsim.Customer{ID: customerID, Account: []pcsim.Step{{Status: "Unknown", Times: 1}, {Status: "Allowed"}}})
	token := r.userToken()
	r.account(customerID, "made-up")
	r.get("/v1/customers/"+customerID+"/validationStatus?type=foo", token)
	r.qualifications(customerID, token)
	if got := r.statusWord(token); got != "Unknown" {
		t.Errorf("first good call: %s, want Unknown", got)
	}
}

func TestSettingACustomerRestartsItsScript(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	token := r.userToken()
	c := pcsim.Customer{ID: customerID, Account: []pcsim.Step{{Status: "Unknown", Times: 1}, {Status: "Allowed"}}}
	for range 2 {
		r.set(c)
		if got := r.statusWord(token); got != "Unknown" {
			t.Errorf("got %s", got)
		}
	}
}

func TestLimitCountsRefusedCalls(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{RequestsPerMinute: 3})
	r.set(accountWithStatus("Allowed"))
	token := r.userToken()
	var got []string
	ask := func(wait time.Duration) reply {
		r.clock.Advance(wait)
		answer := r.qualifications(customerID, token)
		got = append(got, strconv.Itoa(answer.status))
		return answer
	}
	ask(0)
	ask(10 * time.Second)
	ask(10 * time.Second)
	refused := ask(10 * time.Second) // 0:30, after calls at 0:00, 0:10, 0:20
	if after := refused.header.Get("Retry-After"); after != "40" {
		t.Errorf("Retry-After %s, want 40: until the call at 0:10 is a minute old", after)
	}
	want := `{"statusCode":429,"message":"Rate limit is exceeded. Try again in 40 seconds."}`
	if refused.body != want {
		t.Errorf("body %s, want %s", refused.body, want)
	}
	ask(39 * time.Second) // 1:09, too early, but it counts
	ask(1 * time.Second)  // 1:10, would have passed without the call before
	ask(time.Minute)
	if want := []string{"200", "200", "200", "429", "429", "429", "200"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if stats := r.Stats(); stats.Throttled != 3 || stats.Qualifications != 7 {
		t.Errorf("%+v", stats)
	}
}

func TestWaitingForRetryAfterIsEnough(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{RequestsPerMinute: 2})
	r.set(accountWithStatus("Allowed"))
	token := r.userToken()
	for range 3 {
		r.clock.Advance(7*time.Second + 300*time.Millisecond)
		got := r.qualifications(customerID, token)
		if got.status != 429 {
			continue
		}
		seconds, err := strconv.Atoi(got.header.Get("Retry-After"))
		if err != nil {
			t.Fatal(err)
		}
		r.clock.Advance(time.Duration(seconds) * time.Second)
		if got := r.qualifications(customerID, token); got.status != 200 {
			t.Errorf("after waiting: %d", got.status)
		}
	}
}

func TestLimitIsOverAfterExactlyAMinute(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{RequestsPerMinute: 1})
	r.set(accountWithStatus("Allowed"))
	token := r.userToken()
	for range 3 {
		if got := r.qualifications(customerID, token); got.status != 200 {
			t.Errorf("got %d", got.status)
		}
		r.clock.Advance(time.Minute)
	}
}

func TestLimitPerCustomerKeepsCustomersApart(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{RequestsPerMinute: 1, LimitPerCustomer: true})
	other := pcsim.Customer{ID: strings.Replace(customerID, "1", "2", 1), Account: []pcsim.Step{{Status: "Allowed"}}}
	r.set(accountWithStatus("Allowed"))
	r.set(other)
	token := r.userToken()
	got := []int{
		r.qualifications(customerID, token).status, r.qualifications(other.ID, token).status,
		r.qualifications(customerID, token).status,
	}
	if want := []int{200, 200, 429}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestManyCallersShareOneScript(t *testing.T) {
	t.Parallel()
	const callers, calls = 8, 25
	r := start(t, pcsim.Config{})
	token := r.userToken()
	r.set(pcsim.Customer{ID: customerID, Account: []pcsim.Step{
		{Status: "UnderReview", Times: callers * calls / 2}, {Status: "Allowed"},
	}})
	var wg sync.WaitGroup
	var mu sync.Mutex
	said := map[string]int{}
	for n := range callers {
		wg.Go(func() {
			for range calls {
				got, err := r.do(r.request(http.MethodGet, "/v1/customers/"+customerID+"/validationStatus?type=account", token))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				said[got.body]++
				mu.Unlock()
				// Other goroutines rewrite, list and read the journal
				// concurrently.
				c := accountWithStatus("Unknown")
				c.ID = fmt.Sprintf("00000000-0000-4000-8000-%012d", n)
				if err := r.SetCustomer(c); err != nil {
					t.Error(err)
				}
				r.Customers()
				r.Requests()
				r.DeleteCustomer(c.ID)
			}
		})
	}
	wg.Wait()
	for body, n := range said {
		if n != callers*calls/2 {
			t.Errorf("%d times %s, want %d", n, body, callers*calls/2)
		}
	}
	if n := len(r.Requests()); n != callers*calls || len(said) != 2 {
		t.Errorf("%d requests recorded, %d different answers", n, len(said))
	}
}
