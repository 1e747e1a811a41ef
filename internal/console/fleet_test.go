package console

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/health"
)

// asScript is a text that is script if it is not escaped.
const asScript = `<script>alert("x")</script>'><img src=x onerror=alert(1)>`

// getAs returns the answer of a page to a user who is limited to some partners; nil is
// all.
func getAs(t *testing.T, cfg Config, partners []string, path string) *httptest.ResponseRecorder {
	t.Helper()
	cfg.Logger = zap.NewNop()
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.fictive = &user{caller: &access.Caller{Name: callerName, Person: "ann@example.com", Rights: access.AllRights, Partners: partners}, csrf: newCSRF()}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	if strings.Contains(w.Body.String(), "alert(") && (strings.Contains(w.Body.String(), "<script>alert") || strings.Contains(w.Body.String(), "<img")) {
		t.Errorf("%s: a text is script: %s", path, w.Body)
	}
	return w
}

// hasTexts reports each text that the body lacks, white space apart.
func hasTexts(t *testing.T, w *httptest.ResponseRecorder, texts ...string) {
	t.Helper()
	body := strings.Join(strings.Fields(w.Body.String()), " ")
	for _, text := range texts {
		if !strings.Contains(body, text) {
			t.Errorf("the page lacks %q", text)
		}
	}
	if t.Failed() {
		t.Log(body)
	}
}

// busyFleet returns a Fleet in which everything has something to show.
func busyFleet() Fleet {
	now := time.Date(2026, 11, 28, 14, 2, 3, 0, time.UTC)
	return Fleet{
		Time: now, Host: "web-1", Version: "1.2.3", Shared: true,
		Unread: []FleetUnread{{Name: "the webhook late", Partner: "contoso"}, {Name: "the webhook gone", Partner: "fabrikam"}, {Name: "the metrics of this replica"}},
		Partners: []FleetPartner{
			{
				Name: "contoso",
				Budget: &FleetBudget{
					PerMinute: 400, Limit: 280.7, Level: 12.9, PausedUntil: now.Add(30 * time.Second), LoginPausedUntil: now.Add(time.Minute),
					BreakerOpen: true, Lanes: []FleetLane{{"checkout", 3, 7}, {"batch", 0, 0}},
				},
				Credentials: &FleetCredentials{
					Flow: "app_user", Proof: "Client certificate", AccessTokenEnds: now.Add(time.Hour), RefreshTokenStored: now.AddDate(0, 0, -80),
					RefreshTokenEnd: now.AddDate(0, 0, 10), CertificateEnds: now.Add(-time.Hour), Unstored: true, Refused: []string{"token"},
				},
				Store:   &FleetStore{Writable: false, Subscribed: false, Outbox: 1, Lost: 4, FeedLag: 12 * time.Second},
				Reviews: &FleetReviews{Tracked: 40, Due: 3, Late: 400 * time.Second},
				Replicas: []FleetReplica{
					{Host: "web-1", Version: "1.2.3", PerMinute: 400, Own: true, SameBudget: true, SamePolicy: true},
					{Host: asScript, Version: asScript, PerMinute: 300},
				},
				Announced: now.Add(-3 * time.Second),
			},
			{Name: "fabrikam"},
		},
		Webhooks: []FleetWebhook{
			{Name: "orders", Partner: "contoso", Host: "hooks.example.com", State: "delivering", Sender: "web-2", Lag: time.Minute, Parked: 2, Dead: 5, Replay: "eligibilityd webhooks replay orders --all --config FILE"},
			{Name: "late", Partner: "contoso", Host: "late.example.com"},
			{Name: "gone", Partner: "fabrikam", Host: "gone.example.com", State: "disabled", Sender: asScript},
		},
		Components: []FleetComponent{
			{Name: "partner_center", Partner: "contoso", Condition: health.Condition{State: health.Failing, Since: now, Kind: "server_error", Time: now}},
			{Name: "login", Partner: "fabrikam", Condition: health.Condition{State: health.Failing, Since: now, Kind: "invalid_grant", Time: now}},
			{Name: "redis", Condition: health.Condition{State: health.OK, Since: now}},
		},
		Process: &FleetProcess{CertificateEnds: now.AddDate(0, 0, 3), DecisionLog: true, Dropped: 9, Queued: 1},
	}
}

func TestFleetPage(t *testing.T) {
	t.Parallel()
	cfg := Config{Partners: []string{"contoso", "fabrikam"}, Fleet: func(context.Context) Fleet { return busyFleet() }}
	w := getAs(t, cfg, nil, "/console/fleet")
	if w.Code != http.StatusOK {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	hasTexts(t, w,
		`data-refresh="5"`,
		"It is both: for contoso, Partner Center answers with errors (server_error since 14:02:03 UTC), and for fabrikam, the login host of Microsoft refuses our credentials",
		"<li>the webhook late</li>",
		`<span class="badge warn">reduced</span> to 280 of 400 calls a minute, because Microsoft answered 429`, "12 calls could be made at once",
		`calls to Partner Center until <time datetime="2026-11-28T14:02:33.000Z">2026-11-28 14:02:33 UTC</time>, as a 429 asked`,
		`calls to the login host until <time datetime="2026-11-28T14:03:03.000Z">`,
		`<span class="badge error">open</span> before Partner Center`,
		`<th role="rowheader" scope="row">checkout</th><td role="cell" data-label="Waiting">3</td><td role="cell" data-label="Refused">7</td>`,
		`<dt>Client certificate</dt><dd><span class="badge error">expired</span> since`,
		`stored 80`+" "+`days ago; <span class="badge warn">soon</span> valid until`, "The newest one is in memory only",
		`<dt>Refused</dt><dd><span class="badge error">token</span>`,
		`<span class="badge error">refuses writes</span>`, `<span class="badge warn">no messages</span>`, "1 write waits", "4 lost", "12 s behind",
		"40 tracked, 3 due", "6 min late",
		"2 replicas share the budget", `300 a minute <span class="badge warn">differs</span>`, `&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;`,
		"eligibilityd webhooks replay orders --all --config FILE", `<span class="badge error">5</span>`, "not read", "The URL answered 410", "the oldest change is 60 s old, 2 wait for a further attempt",
		`<span class="badge error">9 dropped</span>`, "1 record waits",
		`<span class="badge error">failing</span>`, `<span class="id">server_error</span> at <time datetime="2026-11-28T14:02:03.000Z">`,
	)
}

// A user who may ask about some partners only sees nothing of the others.
func TestFleetPageOfOnePartner(t *testing.T) {
	t.Parallel()
	whole := busyFleet()
	cfg := Config{Partners: []string{"contoso", "fabrikam"}, Fleet: func(context.Context) Fleet { return whole }}
	w := getAs(t, cfg, []string{"contoso"}, "/console/fleet")
	hasTexts(t, w, "It is Microsoft: Partner Center answers with errors", "orders", "redis", "<li>the webhook late</li><li>the metrics of this replica</li></ul>")
	for _, foreign := range []string{"fabrikam", "invalid_grant", "gone.example.com", "the webhook gone"} {
		if strings.Contains(w.Body.String(), foreign) {
			t.Errorf("the page has %q of another partner", foreign)
		}
	}
	if len(whole.Partners) != 2 || whole.Components[1].Partner != "fabrikam" || whole.Webhooks[2].Name != "gone" || len(whole.Unread) != 3 {
		t.Error("the fleet of others was changed")
	}
}

// Without Redis the replica is alone; what could not be read is not shown as zero.
func TestFleetPageWithoutRedisAndMetrics(t *testing.T) {
	t.Parallel()
	cfg := Config{Fleet: func(context.Context) Fleet {
		return Fleet{Host: "web-1", Unread: []FleetUnread{{Name: "the metrics of this replica"}}, Partners: []FleetPartner{{
			Name: "default", Budget: &FleetBudget{PerMinute: 400, Limit: 400, Level: 40, Lanes: []FleetLane{{Name: "checkout"}}},
			Replicas: []FleetReplica{{Host: "web-1", PerMinute: 400, Own: true, SameBudget: true, SamePolicy: true}},
		}}}
	}}
	w := getAs(t, cfg, nil, "/console/fleet")
	hasTexts(t, w, "This replica is alone", "<li>the metrics of this replica</li>", `data-label="Refused">not read</td>`, "400 of 400 calls a minute.", "None.")
	for _, absent := range []string{"refuses writes", "dropped", "tracked", "Access token"} {
		if strings.Contains(w.Body.String(), absent) {
			t.Errorf("the page has %q", absent)
		}
	}
}
