package rest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/rest"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// nobody authenticates no caller.
type nobody struct{}

func (nobody) Authenticate(access.Credentials) (*access.Caller, error) {
	return nil, fmt.Errorf("no credentials count")
}

// mounted serves console beside an API that authenticates nobody.
func mounted(t *testing.T, guarded bool, console func(run *servertest.Running) http.Handler) (*servertest.Running, string) {
	t.Helper()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved(), API: api.Config{Access: nobody{}}})
	handler, err := rest.New(run.Chain, rest.Config{Origins: []string{"https://shop.example"}})
	if err != nil {
		t.Fatal(err)
	}
	if guarded {
		handler.GuardLoopback()
	}
	run.Handler = handler
	handler.Mount(console(run))
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return run, server.URL
}

func do(t *testing.T, method, url string, header ...string) (status int, got http.Header, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{Transport: new(http.Transport), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(text)
}

func TestTheConsoleIsServedBeforeCredentials(t *testing.T) {
	t.Parallel()
	_, url := mounted(t, false, func(*servertest.Running) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "console of "+r.URL.Path) }) //nolint:gosec // a test's
	})
	for path, want := range map[string]int{
		"/console": 200, "/console/": 200, "/console/customers/1": 200,
		"/consoles": 401, "/consol": 401, "/v1/reviews": 401, "//console": 401,
	} {
		status, header, body := do(t, http.MethodGet, url+path)
		if status != want || (want == 200) != (body == "console of "+path) {
			t.Errorf("%s: %d %s", path, status, body)
		}
		if header.Get("X-Request-Id") == "" {
			t.Errorf("%s: no request ID", path)
		}
		if _, header, _ := do(t, http.MethodGet, url+path, "Origin", "https://shop.example"); (header.Get("Access-Control-Allow-Origin") == "") != (want == 200) {
			t.Errorf("%s: headers for a page of another origin: %v", path, header)
		}
	}
}

func TestOtherSitesMayOnlyLinkToTheConsole(t *testing.T) {
	t.Parallel()
	_, url := mounted(t, true, func(*servertest.Running) http.Handler {
		return http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	})
	link := []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}
	for _, row := range []struct {
		method, path string
		header       []string
		want         int
	}{
		{http.MethodGet, "/console/callback", link, http.StatusOK},
		{http.MethodPost, "/console/sign-out", link, http.StatusForbidden},
		{http.MethodGet, "/console", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"}, http.StatusForbidden},
		{http.MethodPost, "/console/sign-out", []string{"Sec-Fetch-Site", "same-origin"}, http.StatusOK},
	} {
		if status, _, _ := do(t, row.method, url+row.path, row.header...); status != row.want {
			t.Errorf("%s %s %v: %d, want %d", row.method, row.path, row.header, status, row.want)
		}
	}
}

// A stream or a page that the console answers by ServeFor needs no credentials, and is
// compressed once.
func TestServeForAnswersForItsCaller(t *testing.T) {
	t.Parallel()
	_, url := mounted(t, false, func(run *servertest.Running) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rights, _ := access.ParseRight(r.URL.Query().Get("right"))
			forwarded := r.Clone(r.Context())
			forwarded.URL.Path, forwarded.URL.RawQuery = "/v1/customers/"+apitest.CustomerA+"/eligibility", ""
			run.Handler.ServeFor(w, forwarded, &access.Caller{Name: "console", Person: "anna", Rights: rights})
		})
	})
	for right, want := range map[string]string{"check": "DECISION_ALLOWED", "watch": "PERMISSION_DENIED"} {
		_, header, body := do(t, http.MethodGet, url+"/console?right="+right, "Authorization", "Bearer x", "X-Request-Id", "of-the-page", "Accept-Encoding", "identity")
		if !strings.Contains(body, want) || header.Get("X-Request-Id") != "of-the-page" {
			t.Errorf("%s: %v %s", right, header, body)
		}
		if _, _, body = do(t, http.MethodGet, url+"/console?right="+right); !strings.Contains(body, want) { // net/http unpacks it once
			t.Errorf("%s, compressed: %q", right, body)
		}
	}
}

// Several calls of one page share a context.
func TestTheClientAsksForItsCaller(t *testing.T) {
	t.Parallel()
	run, url := mounted(t, false, func(run *servertest.Running) http.Handler {
		client := run.Handler.Client()
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rights, _ := access.ParseRight(r.URL.Query().Get("right"))
			in := &api.Inbound{RequestID: "of-the-page"}
			in.Admit(&access.Caller{Name: "console", Person: "anna@contoso.example", Rights: rights})
			ctx := context.WithValue(r.Context(), api.InboundKey{}, in)
			var calls sync.WaitGroup
			answers := make([]string, 4)
			for i := range answers {
				calls.Go(func() {
					resp, err := client.CheckEligibility(ctx, &eligibilityv1.CheckEligibilityRequest{CustomerId: apitest.CustomerA})
					answers[i] = fmt.Sprint(resp.GetCustomerId(), resp.GetDecision(), len(resp.GetReasons()), status.Code(err))
				})
			}
			calls.Wait()
			// Nobody knows anything about this one: the call needs a context that has not ended.
			_, err := client.CheckEligibility(ctx, &eligibilityv1.CheckEligibilityRequest{CustomerId: apitest.CustomerB})
			if got := status.Code(err).String(); !strings.HasSuffix(answers[0], got) {
				t.Errorf("the call after these: %v", err)
			}
			_, _ = io.WriteString(w, strings.Join(answers, "|"))
		})
	})
	for right, want := range map[string]string{
		"check": fmt.Sprint(apitest.CustomerA, eligibilityv1.Decision_DECISION_ALLOWED, 1, codes.OK),
		"watch": fmt.Sprint("", eligibilityv1.Decision_DECISION_UNSPECIFIED, 0, codes.PermissionDenied),
	} {
		_, _, body := do(t, http.MethodGet, url+"/console?right="+right)
		for got := range strings.SplitSeq(body, "|") {
			if got != want {
				t.Errorf("%s: %q, want %q", right, got, want)
			}
		}
	}
	persons := 0
	for _, entry := range run.Logs.FilterMessage("rpc handled").All() {
		fields := entry.ContextMap()
		if fields["caller"] == "console" && fields["person"] == "anna@contoso.example" && fields["request_id"] == "of-the-page" {
			persons++
		}
	}
	if persons == 0 {
		t.Errorf("no record names the person: %v", run.Logs.All())
	}
}

func TestTheClientNeedsACaller(t *testing.T) {
	t.Parallel()
	run, _ := mounted(t, false, func(*servertest.Running) http.Handler { return http.NotFoundHandler() })
	client := run.Handler.Client()
	if _, err := client.ExplainEligibility(t.Context(), &eligibilityv1.ExplainEligibilityRequest{}); err == nil {
		t.Error("a call without a caller was made")
	}
	ctx := context.WithValue(t.Context(), api.InboundKey{}, &api.Inbound{}) // nobody was admitted
	if _, err := client.CheckEligibility(ctx, &eligibilityv1.CheckEligibilityRequest{CustomerId: apitest.CustomerA}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("%v, want UNAUTHENTICATED", err)
	}
}
