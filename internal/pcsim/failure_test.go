package pcsim_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// patience bounds the wait for a condition that should hold at once.
const patience = 10 * time.Second

func TestResetComesBeforeAnyAnswer(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	token := r.userToken()
	r.set(pcsim.Customer{ID: customerID, Account: []pcsim.Step{{Failure: pcsim.FailureReset}}})
	_, err := r.do(r.request(http.MethodGet, "/v1/customers/"+customerID+"/validationStatus?type=account", token))
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
	for _, call := range r.Requests() {
		if call.Status != 0 || call.Failure != "reset" {
			t.Errorf("recorded %+v", call)
		}
	}
}

func TestResetBodyComesHalfWay(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	c := accountWithStatus("Allowed")
	c.Account[0].Failure = pcsim.FailureResetBody
	r.set(c)
	got, err := r.do(r.request(http.MethodGet, "/v1/customers/"+customerID+"/validationStatus?type=account", r.userToken()))
	if err == nil || got.status != 200 {
		t.Errorf("got status %d and %v, want 200 and a broken body", got.status, err)
	}
	if whole := `{"type":"account","status":"Allowed","lastUpdateDateTime":""}`; len(got.body) >= len(whole) {
		t.Errorf("the whole body came: %s", got.body)
	}
	if call := r.Requests()[0]; call.Status != 200 || call.Failure != "reset_body" {
		t.Errorf("recorded %+v", call)
	}
}

func TestLatencyPassesBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	c := accountWithStatus("Allowed")
	c.Account[0].Latency = 30 * time.Millisecond
	r.set(c)
	token := r.userToken()
	began := time.Now()
	if got := r.account(customerID, token); got.status != 200 {
		t.Errorf("status %d", got.status)
	}
	if took := time.Since(began); took < c.Account[0].Latency {
		t.Errorf("took %v only", took)
	}
}

// waits are the steps that make a caller wait.
func waits() map[string]pcsim.Step {
	return map[string]pcsim.Step{
		"latency":   {Status: "Allowed", Latency: time.Hour},
		"hang":      {Failure: pcsim.FailureHang},
		"hang_body": {Status: "Allowed", Failure: pcsim.FailureHangBody},
	}
}

func TestWaitsEndWhenTheClientLeaves(t *testing.T) {
	t.Parallel()
	for name, step := range waits() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, arrived, ended := startWatched(t)
			r.set(pcsim.Customer{ID: customerID, Account: []pcsim.Step{step}})
			token := r.userToken()
			<-arrived
			<-ended
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				<-arrived
				cancel()
			}()
			_, err := r.do(r.request(http.MethodGet, "/v1/customers/"+customerID+"/validationStatus?type=account", token).WithContext(ctx))
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			awaitEnd(t, ended)
		})
	}
}

func TestWaitsEndWhenTheServerCloses(t *testing.T) {
	t.Parallel()
	for name, step := range waits() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, arrived, ended := startWatched(t)
			r.set(pcsim.Customer{ID: customerID, Account: []pcsim.Step{step}})
			token := r.userToken()
			<-arrived
			<-ended
			go func() {
				<-arrived
				r.Close()
				r.Close() // twice is allowed
			}()
			_, err := r.do(r.request(http.MethodGet, "/v1/customers/"+customerID+"/validationStatus?type=account", token))
			if err == nil {
				t.Error("an answer came")
			}
			awaitEnd(t, ended)
		})
	}
}

func TestTokenEndpointHangsUntilTheClientLeaves(t *testing.T) {
	t.Parallel()
	r, arrived, ended := startWatched(t)
	if err := r.ScriptTokens(pcsim.Step{Failure: pcsim.FailureHang}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	if _, err := r.postToken(ctx, v2Path, refreshForm()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	awaitEnd(t, ended)
}

func TestFailuresWithoutAConnectionOfTheirOwnAbort(t *testing.T) {
	t.Parallel()
	s, err := pcsim.New(pcsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ScriptTokens(pcsim.Step{Failure: pcsim.FailureReset}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if got := recover(); got != http.ErrAbortHandler { //nolint:errorlint // the sentinel value that net/http checks for
			t.Errorf("recovered %v", got)
		}
	}()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/"+v2Path, strings.NewReader(url.Values{}.Encode()))
	s.Handler().ServeHTTP(httptest.NewRecorder(), req) // cannot be hijacked
}

// startWatched is start with notifications when a call arrives and when it has
// ended. Its listener closes first, so that only the simulator can end a wait.
func startWatched(t *testing.T) (r *rig, arrived, ended chan struct{}) {
	t.Helper()
	s, err := pcsim.New(pcsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	arrived, ended = make(chan struct{}, 100), make(chan struct{}, 100)
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		defer func() { ended <- struct{}{} }()
		arrived <- struct{}{}
		s.Handler().ServeHTTP(w, req)
	}))
	transport := &http.Transport{DisableKeepAlives: true}
	t.Cleanup(func() {
		ts.Close()
		s.Close()
		transport.CloseIdleConnections()
	})
	return &rig{Server: s, t: t, url: ts.URL, client: &http.Client{Transport: transport}}, arrived, ended
}

func awaitEnd(t *testing.T, ended <-chan struct{}) {
	t.Helper()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("the call goes on")
	}
}
