package main

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

// readyComponent is a component in the answer to /readyz?verbose.
type readyComponent struct {
	Name, Partner, State string
	Since                time.Time
	LastError            *struct {
		Kind string
		Time time.Time
	} `json:"last_error"`
}

func (c *readyComponent) kind() string {
	if c.LastError == nil {
		return ""
	}
	return c.LastError.Kind
}

// components returns the components of a service, after it has compared the status
// with that of /readyz.
func components(t *testing.T, p *process) map[string]*readyComponent {
	t.Helper()
	status, _, body := get(t, "http://"+p.Admin+"/readyz?verbose")
	var answer struct {
		Status     string
		Components []*readyComponent
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if (status == http.StatusOK) != (answer.Status == "ready") {
		t.Errorf("status %d, %s", status, body)
	}
	if strings.Contains(body, pcsim.DefaultClientSecret) || strings.Contains(body, "127.0.0.1") {
		t.Errorf("it has a secret or an address: %s", body)
	}
	found := make(map[string]*readyComponent)
	for _, c := range answer.Components {
		found[c.Name] = c
	}
	return found
}

func awaitComponent(t *testing.T, p *process, name, state, kind string) *readyComponent {
	t.Helper()
	var c *readyComponent
	eventually(t, name+" "+state+" "+kind, func() bool {
		c = components(t, p)[name]
		return c != nil && c.State == state && (kind == "" || c.kind() == kind)
	})
	return c
}

// /readyz?verbose shows what is wrong since when, and a service whose dependencies fail
// stays ready.
func TestReadyzShowsTheComponents(t *testing.T) {
	t.Parallel()
	sim, partnerCenter := pcsimtest.Start(t)
	redis := cachetest.StartRedis(t)
	fifo := filepath.Join(t.TempDir(), "decisions.fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	p := startServe(t, partnerCenter.URL, "ELIGIBILITY_CACHE__REDIS__ADDRESSES="+redis.Address, "ELIGIBILITY_DECISION_LOG__FILE="+fifo)
	p.awaitReady(t)
	awaitComponent(t, p, "redis", "ok", "")
	awaitComponent(t, p, "feed", "ok", "")
	awaitComponent(t, p, "login", "ok", "")
	fine := components(t, p)
	names := []string{}
	for name, c := range fine {
		names = append(names, name)
		if partner := slices.Contains([]string{"partner_center", "login", "feed"}, name); partner != (c.Partner == "default") {
			t.Errorf("%s of partner %q", name, c.Partner)
		}
	}
	slices.Sort(names)
	if want := []string{"decision_log", "feed", "login", "partner_center", "redis"}; !slices.Equal(names, want) {
		t.Errorf("components %v, want %v", names, want)
	}
	if fine["partner_center"].State != "unknown" || fine["decision_log"].State != "unknown" {
		t.Errorf("before the first question: %+v, %+v", fine["partner_center"], fine["decision_log"])
	}
	ask := func(id string) { _, _ = p.ask(t, &eligibilityv1.CheckEligibilityRequest{CustomerId: id}) }

	ask(allowedID)
	awaitComponent(t, p, "partner_center", "ok", "")
	awaitComponent(t, p, "decision_log", "failing", "no_reader")

	before := time.Now()
	redis.Kill()
	failing := awaitComponent(t, p, "redis", "failing", "connection")
	if failing.Since.Before(before.Truncate(time.Millisecond)) || failing.Since.After(time.Now()) {
		t.Errorf("redis failing since %v, killed after %v", failing.Since, before)
	}
	awaitComponent(t, p, "feed", "degraded", "feed_unavailable")
	if again := awaitComponent(t, p, "redis", "failing", ""); !again.Since.Equal(failing.Since) {
		t.Errorf("since %v, then %v", failing.Since, again.Since)
	}
	if status, _, body := get(t, "http://"+p.Admin+"/readyz"); status != http.StatusOK || body != "{\"status\":\"ready\"}\n" {
		t.Errorf("/readyz while Redis is away: %d %s", status, body)
	}
	redis.Start()
	if back := awaitComponent(t, p, "redis", "ok", "connection"); !back.Since.After(failing.Since) {
		t.Errorf("redis ok since %v, failing since %v", back.Since, failing.Since)
	}
	awaitComponent(t, p, "feed", "ok", "")

	if err := sim.SetCustomer(pcsim.Customer{ID: nobodyID, Account: []pcsim.Step{{Raw: &pcsim.Raw{Status: http.StatusForbidden, Body: `{"code":1000,"description":"Text."}`}}}}); err != nil {
		t.Fatal(err)
	}
	ask(nobodyID)
	awaitComponent(t, p, "partner_center", "failing", "forbidden")
}

// A login host that refuses the secret is shown, and the secret is not.
func TestReadyzShowsRefusedCredentials(t *testing.T) {
	t.Parallel()
	_, partnerCenter := pcsimtest.Start(t)
	p := startServe(t, partnerCenter.URL, "ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET="+pcsim.DefaultClientSecret+"-of-last-year")
	login := awaitComponent(t, p, "login", "failing", "invalid_client")
	if login.LastError.Time.Before(login.Since) {
		t.Errorf("%+v", login)
	}
	if c := components(t, p)["partner_center"]; c.State != "unknown" {
		t.Errorf("partner center: %+v", c)
	}
	if c, ok := components(t, p)["redis"]; ok {
		t.Errorf("redis, which is not configured: %+v", c)
	}
}
