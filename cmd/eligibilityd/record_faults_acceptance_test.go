//go:build acceptance

package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/types/known/durationpb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"

	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

// fault brings about what alerts are about, under a job of its own.
type fault struct {
	job    string
	alerts []string
	play   func(t *testing.T, w *watchtower)
}

// stage is a process of the program with a simulator of its own, which the watchtower
// scrapes.
type stage struct {
	*instance

	t      *testing.T
	w      *watchtower
	job    string
	sim    *pcsim.Server
	client eligibilityv1.EligibilityServiceClient
}

func setStage(t *testing.T, w *watchtower, job string, environ ...string) *stage {
	t.Helper()
	sim, on := pcsimtest.Start(t)
	return setStageOn(t, w, job, sim, on.URL, environ...)
}

func setStageOn(t *testing.T, w *watchtower, job string, sim *pcsim.Server, api string, environ ...string) *stage {
	t.Helper()
	environ = withDefault(append(environ, "ELIGIBILITY_SERVER__DRAIN=0s"), "ELIGIBILITY_PARTNER_CENTER__BUDGET_PER_MINUTE", "100000")
	s := &stage{instance: startInstance(t, api, environ...), t: t, w: w, job: job, sim: sim}
	s.client = eligibilityv1.NewEligibilityServiceClient(s.dial(t))
	w.scrape(t, job, s.addresses)
	return s
}

// customerNumber is the ID of a customer.
func customerNumber(n int) string { return fmt.Sprintf("d1000000-0000-4000-8000-%012x", n) }

// script makes Partner Center answer so about the first n customers.
func (s *stage) script(n int, steps ...pcsim.Step) {
	s.t.Helper()
	for i := range n {
		if err := s.sim.SetCustomer(pcsim.Customer{ID: customerNumber(i), Account: steps, Qualifications: []pcsim.Step{{Items: []pcsim.Qualification{}}}}); err != nil {
			s.t.Fatal(err)
		}
	}
}

// raw is an answer with a status.
func raw(status int, headers ...string) pcsim.Step {
	step := pcsim.Step{Raw: &pcsim.Raw{Status: status, Headers: map[string]string{}}}
	for i := 0; i < len(headers); i += 2 {
		step.Raw.Headers[headers[i]] = headers[i+1]
	}
	return step
}

// load calls do so often a second, up to 50 at once, until the test ends.
func (s *stage) load(perSecond int, do func(ctx context.Context, n int)) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	room := make(chan struct{}, 50)
	go func() {
		defer close(done)
		for n := 0; pause(ctx, time.Second/time.Duration(perSecond)); n++ {
			select {
			case room <- struct{}{}:
				go func() {
					defer func() { <-room }()
					do(ctx, n)
				}()
			default:
			}
		}
		for range cap(room) {
			room <- struct{}{}
		}
	}()
	s.t.Cleanup(func() { cancel(); <-done })
}

// check asks about one of the first n customers, with a deadline.
func (s *stage) check(n int, within time.Duration) func(ctx context.Context, i int) {
	return func(ctx context.Context, i int) {
		bounded, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		_, _ = s.client.CheckEligibility(bounded, &eligibilityv1.CheckEligibilityRequest{CustomerId: customerNumber(i % n)})
	}
}

// fetch asks Partner Center about a customer now.
func (s *stage) fetch(n int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	_, err := s.client.CheckEligibility(ctx, &eligibilityv1.CheckEligibilityRequest{CustomerId: customerNumber(n), MaxAge: durationpb.New(0)})
	if err != nil {
		s.t.Errorf("customer %d: %v", n, err)
	}
}

func secretFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// webhookTo returns variables for a webhook that calls url with every change.
func webhookTo(t *testing.T, url string) string {
	t.Helper()
	return "ELIGIBILITY_WEBHOOKS=[{name: orders, url: '" + url + "', secret_file: " + secretFile(t) + "}]"
}

// staysSilent runs two replicas with everything on, and callers, for longer than any
// alert waits.
func staysSilent(t *testing.T, w *watchtower) {
	t.Helper()
	received := new(atomic.Int64)
	receiver := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) {
		received.Add(1)
		out.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(receiver.Close)
	store := cachetest.StartRedis(t)
	environ := []string{
		"ELIGIBILITY_CACHE__REDIS__ADDRESSES=" + store.Address, webhookTo(t, receiver.URL),
		"ELIGIBILITY_DECISION_LOG__FILE=" + filepath.Join(t.TempDir(), "decisions.jsonl"),
	}
	sim, on := pcsimtest.Start(t)
	one := setStageOn(t, w, "healthy", sim, on.URL, environ...)
	other := setStageOn(t, w, "healthy", sim, on.URL, environ...)
	w.scrape(t, "healthy", one.addresses, other.addresses)
	one.script(50, pcsim.Step{Status: "UnderReview", Times: 2}, pcsim.Step{Status: "Allowed"})
	ctx, cancel := context.WithTimeout(t.Context(), 80*time.Second)
	defer cancel()
	stream, err := one.client.WatchEligibility(ctx, &eligibilityv1.WatchEligibilityRequest{})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			if _, err := stream.Recv(); err != nil {
				return
			}
		}
	}()
	one.load(20, one.check(50, 2*time.Second))
	other.load(20, other.check(50, 2*time.Second))
	one.load(1, func(ctx context.Context, n int) {
		_, _ = one.client.CheckEligibility(ctx, &eligibilityv1.CheckEligibilityRequest{CustomerId: customerNumber(n % 50), MaxAge: durationpb.New(0)})
	})
	late := lateness(ctx)
	for _, alert := range w.fired(t, "healthy") {
		if late > 0.005 && strings.HasPrefix(alert, "EligibilityLatencyBurns") {
			t.Logf("%s fired: %.1f %% of the test's own timers were late", alert, 100*late)
			continue
		}
		t.Errorf("%s fired", alert)
	}
	if _, _, up := get(t, w.url+"/api/v1/query?query=count(eligibility_build_info)"); !strings.Contains(up, `"2"`) {
		t.Errorf("not scraped: %s", up)
	}
	if received.Load() == 0 {
		t.Error("the webhook got nothing")
	}
}

// lateness returns the share of timers that fire more than 8 ms too late, until ctx ends:
// on such a machine, no program answers 99 % of its callers within 10 ms.
func lateness(ctx context.Context) float64 {
	late, all := 0, 0
	for began := time.Now(); pause(ctx, 2*time.Millisecond); began = time.Now() {
		all++
		if time.Since(began) > 10*time.Millisecond {
			late++
		}
	}
	return float64(late) / float64(max(all, 1))
}

func faults() []fault {
	return []fault{
		{"down", []string{"EligibilityRestarts", "EligibilityDown", "EligibilityAbsent"}, replicaDown},
		{"lifetimes", []string{
			"EligibilityCertificateExpires", "EligibilityTokenExpires", "EligibilityRefreshTokenExpires",
			"EligibilityIssuerKeysOld", "EligibilityFilesNotReloaded", "EligibilityAuthenticationFailures",
		}, lifetimesEnd},
		{"login", []string{"EligibilityLoginThrottled"}, loginThrottled},
		{"credentials", []string{"EligibilityCredentialsRefused"}, credentialsRefused},
		{"unstored", []string{"EligibilityRefreshTokenUnstored"}, tokenUnstored},
		{"away", []string{
			"EligibilityUndecided", "EligibilityAvailabilityBurnsFast", "EligibilityAvailabilityBurnsSlowly",
			"EligibilityFreshnessBurnsFast", "EligibilityFreshnessBurnsSlowly",
		}, partnerCenterAway},
		{"slow", []string{"EligibilityLatencyBurnsFast", "EligibilityLatencyBurnsSlowly", "EligibilityFlightStuck"}, partnerCenterSlow},
		{"throttled", []string{"EligibilityThrottled", "EligibilityBudgetCut"}, partnerCenterThrottles},
		{"budget", []string{"EligibilityBudgetSpent"}, budgetSpent},
		{"redis", []string{"EligibilityRedisAway", "EligibilityStreamsBehind", "EligibilityWebhookUnsent"}, redisGone},
		{"rights", []string{"EligibilityChangesLost", "EligibilityChangesUnreadable", "EligibilityHistoryLost"}, redisRights},
		{"reviews", []string{"EligibilityReviewsLate"}, reviewsLate},
		{"webhook", []string{"EligibilityWebhookFailing"}, webhookGone},
		{"streams", []string{"EligibilityStreamsFail"}, streamsRefused},
		{"log", []string{"EligibilityLogDropped"}, logUnread},
		{"fifo", []string{"EligibilityDecisionLogDropped", "EligibilityDecisionLogBehind"}, decisionsUnread},
		{"disk", []string{"EligibilityDecisionLogFails"}, decisionsUnwritten},
	}
}

func replicaDown(t *testing.T, w *watchtower) {
	t.Helper()
	s := setStage(t, w, "down")
	for range 10 {
		pause(t.Context(), 700*time.Millisecond) // in which it is scraped
		s.kill()
		s.restart(t)
	}
	w.raises(t, s.job, "EligibilityRestarts")
	s.kill()
	w.raises(t, s.job, "EligibilityDown", "EligibilityAbsent")
	s.restart(t)
	w.resolves(t, s.job, "EligibilityDown", "EligibilityAbsent")
}

func lifetimesEnd(t *testing.T, w *watchtower) {
	t.Helper()
	authority := accesstest.NewAuthority(t)
	pair := authority.Issue(t, "server", x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}) // for an hour
	issuer := accesstest.NewIssuer(t)
	issuer.Close()
	tokens := filepath.Join(t.TempDir(), "tokens.yaml")
	_, entry, code := runProgram(t, "token", "--caller", "shop", "--rights", "check", "--days", "2")
	if err := os.WriteFile(tokens, []byte(entry), 0o600); err != nil || code != 0 {
		t.Fatal(entry, err)
	}
	refresh := pcsimtest.TokenFile(t)
	before := time.Now().Add(-80 * 24 * time.Hour)
	if err := os.Chtimes(refresh, before, before); err != nil {
		t.Fatal(err)
	}
	sim, on := pcsimtest.Start(t)
	if err := sim.ScriptTokens(raw(http.StatusServiceUnavailable)); err != nil { // so that nothing renews it
		t.Fatal(err)
	}
	s := setStageOn(t, w, "lifetimes", sim, on.URL, "ELIGIBILITY_PARTNER_CENTER__REFRESH_TOKEN_FILE="+refresh,
		"ELIGIBILITY_SERVER__TLS__CERTIFICATE_FILE="+pair.CertificateFile, "ELIGIBILITY_SERVER__TLS__KEY_FILE="+pair.KeyFile,
		"ELIGIBILITY_AUTH__TOKENS_FILE="+tokens, "ELIGIBILITY_AUTH__JWT=[{issuer: "+issuer.URL+", audiences: [api://eligibilityd]}]")
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: authority.ClientTLS(nil)}}
	t.Cleanup(client.CloseIdleConnections)
	s.load(5, func(ctx context.Context, _ int) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+s.HTTP+"/v1/customers/"+allowedID+"/eligibility", http.NoBody)
		if err != nil {
			return
		}
		req.Header.Set("Authorization", "Bearer "+strings.Repeat("x", 43))
		if resp, err := client.Do(req); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	})
	if err := os.WriteFile(pair.KeyFile, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.raises(t, s.job, "EligibilityCertificateExpires", "EligibilityTokenExpires", "EligibilityRefreshTokenExpires",
		"EligibilityIssuerKeysOld", "EligibilityFilesNotReloaded", "EligibilityAuthenticationFailures")
}

func loginThrottled(t *testing.T, w *watchtower) {
	t.Helper()
	sim, on := pcsimtest.Start(t)
	if err := sim.ScriptTokens(raw(http.StatusTooManyRequests, "Retry-After", "300")); err != nil {
		t.Fatal(err)
	}
	w.raises(t, setStageOn(t, w, "login", sim, on.URL).job, "EligibilityLoginThrottled")
}

func credentialsRefused(t *testing.T, w *watchtower) {
	t.Helper()
	sim, on := pcsimtest.Start(t)
	if err := sim.ScriptTokens(pcsim.Step{EntraError: 7000222}); err != nil { // the client secret has expired
		t.Fatal(err)
	}
	s := setStageOn(t, w, "credentials", sim, on.URL)
	s.load(2, s.check(1, 2*time.Second))
	w.raises(t, s.job, "EligibilityCredentialsRefused")
	if err := sim.ScriptTokens(); err != nil {
		t.Fatal(err)
	}
	w.resolves(t, s.job, "EligibilityCredentialsRefused")
}

func tokenUnstored(t *testing.T, w *watchtower) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "token")
	path := filepath.Join(dir, "refresh-token")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(pcsim.DefaultRefreshToken), 0o600); err != nil {
		t.Fatal(err)
	}
	sim, err := pcsim.New(pcsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	var armed atomic.Bool
	on := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, req *http.Request) {
		if strings.HasSuffix(req.URL.Path, "/token") && armed.CompareAndSwap(true, false) {
			_ = os.Rename(dir, dir+"-gone") // the service has read the file, and cannot write it
		}
		sim.Handler().ServeHTTP(out, req)
	}))
	t.Cleanup(func() { sim.Close(); on.Close() })
	s := setStageOn(t, w, "unstored", sim, on.URL, "ELIGIBILITY_PARTNER_CENTER__REFRESH_TOKEN_FILE="+path)
	s.script(1, pcsim.Step{Status: "Allowed"})
	s.fetch(0)
	armed.Store(true)
	s.sim.ExpireTokens()
	s.load(2, func(ctx context.Context, _ int) {
		_, _ = s.client.CheckEligibility(ctx, &eligibilityv1.CheckEligibilityRequest{CustomerId: customerNumber(0), MaxAge: durationpb.New(0)})
	})
	w.raises(t, s.job, "EligibilityRefreshTokenUnstored")
	if err := os.Rename(dir+"-gone", dir); err != nil {
		t.Fatal(err)
	}
	w.resolves(t, s.job, "EligibilityRefreshTokenUnstored") // a minute later
}

func partnerCenterAway(t *testing.T, w *watchtower) {
	t.Helper()
	s := setStage(t, w, "away", "ELIGIBILITY_CACHE__AGES__ALLOWED__FRESH=1s")
	s.script(20, pcsim.Step{Status: "Allowed"})
	for n := range 20 {
		s.fetch(n)
	}
	s.script(40, raw(http.StatusInternalServerError))
	s.load(20, s.check(40, 2*time.Second)) // half of them are stale, half undecided
	w.raises(t, s.job, "EligibilityUndecided", "EligibilityAvailabilityBurnsFast", "EligibilityAvailabilityBurnsSlowly",
		"EligibilityFreshnessBurnsFast", "EligibilityFreshnessBurnsSlowly")
	s.script(40, pcsim.Step{Status: "Allowed"})
	w.resolves(t, s.job, "EligibilityUndecided")
}

func partnerCenterSlow(t *testing.T, w *watchtower) {
	t.Helper()
	s := setStage(t, w, "slow", "ELIGIBILITY_PARTNER_CENTER__ATTEMPT_TIMEOUT=9s", "ELIGIBILITY_CACHE__AGES__ALLOWED__FRESH=100ms", "ELIGIBILITY_CACHE__AGES__ALLOWED__USABLE=100ms")
	s.script(50, pcsim.Step{Status: "Allowed", Latency: 6 * time.Second})
	s.load(10, s.check(50, 12*time.Second))
	w.raises(t, s.job, "EligibilityFlightStuck", "EligibilityLatencyBurnsFast", "EligibilityLatencyBurnsSlowly")
}

func partnerCenterThrottles(t *testing.T, w *watchtower) {
	t.Helper()
	s := setStage(t, w, "throttled", "ELIGIBILITY_PARTNER_CENTER__BUDGET_PER_MINUTE=6000")
	refused := raw(http.StatusTooManyRequests, "Retry-After", "1")
	refused.Times = 1
	s.script(200, refused, raw(http.StatusTooManyRequests, "Retry-After", "90"))
	s.load(5, s.check(200, time.Second))
	w.raises(t, s.job, "EligibilityThrottled", "EligibilityBudgetCut")
}

func budgetSpent(t *testing.T, w *watchtower) {
	t.Helper()
	s := setStage(t, w, "budget", "ELIGIBILITY_PARTNER_CENTER__BUDGET_PER_MINUTE=10")
	s.load(10, func(ctx context.Context, n int) { s.check(n+1, 2*time.Second)(ctx, n) }) // a new customer each time
	w.raises(t, s.job, "EligibilityBudgetSpent")
}

func redisGone(t *testing.T, w *watchtower) {
	t.Helper()
	store := cachetest.StartRedis(t)
	s := setStage(t, w, "redis", "ELIGIBILITY_CACHE__REDIS__ADDRESSES="+store.Address, webhookTo(t, "http://127.0.0.1:9"))
	s.script(50, pcsim.Step{Status: "Allowed"})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, err := s.client.WatchEligibility(ctx, &eligibilityv1.WatchEligibilityRequest{}); err != nil {
		t.Fatal(err)
	}
	s.load(20, s.check(50, 2*time.Second))
	store.Kill()
	w.raises(t, s.job, "EligibilityRedisAway", "EligibilityStreamsBehind", "EligibilityWebhookUnsent")
	store.Start()
	w.resolves(t, s.job, "EligibilityRedisAway", "EligibilityStreamsBehind", "EligibilityWebhookUnsent")
}

func redisRights(t *testing.T, w *watchtower) {
	t.Helper()
	store := cachetest.StartRedis(t)
	s := setStage(t, w, "rights", "ELIGIBILITY_CACHE__REDIS__ADDRESSES="+store.Address)
	watching, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, err := s.client.WatchEligibility(watching, &eligibilityv1.WatchEligibilityRequest{}); err != nil {
		t.Fatal(err)
	}
	s.script(1, pcsim.Step{Status: "UnderReview"})
	s.fetch(0)
	s.script(1, pcsim.Step{Status: "Allowed"})
	s.fetch(0)
	client := store.Client()
	defer func() { _ = client.Close() }()
	var feeds []string
	eventually(t, "a change in the feed", func() bool {
		for scan := client.ScanType(t.Context(), 0, "*", 1000, "stream").Iterator(); scan.Next(t.Context()); {
			feeds = append(feeds, scan.Val())
		}
		return len(feeds) > 0
	})
	s.load(2, func(ctx context.Context, _ int) {
		client.XAdd(ctx, &redis.XAddArgs{Stream: feeds[0], Values: []string{"x", "from a stranger"}})
	})
	w.raises(t, s.job, "EligibilityChangesUnreadable")
	if err := client.Do(t.Context(), "ACL", "SETUSER", "default", "-xadd", "-lpush").Err(); err != nil {
		t.Fatal(err)
	}
	var words atomic.Int64
	s.load(2, func(context.Context, int) {
		_ = s.sim.SetCustomer(pcsim.Customer{ID: customerNumber(0), Account: []pcsim.Step{{Status: []string{"UnderReview", "Allowed"}[words.Add(1)%2]}}})
		bounded, cancel := context.WithTimeout(watching, 2*time.Second)
		defer cancel()
		_, _ = s.client.CheckEligibility(bounded, &eligibilityv1.CheckEligibilityRequest{CustomerId: customerNumber(0), MaxAge: durationpb.New(0)})
	})
	w.raises(t, s.job, "EligibilityChangesLost", "EligibilityHistoryLost")
	if err := client.Do(t.Context(), "ACL", "SETUSER", "default", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	w.resolves(t, s.job, "EligibilityChangesLost", "EligibilityHistoryLost")
}

// The list of reviews is what a fleet leaves behind that was down for two hours, and the
// share of the budget is too small to catch up.
func reviewsLate(t *testing.T, w *watchtower) {
	t.Helper()
	store := cachetest.StartRedis(t)
	s := setStage(t, w, "reviews", "ELIGIBILITY_CACHE__REDIS__ADDRESSES="+store.Address,
		"ELIGIBILITY_PARTNER_CENTER__BUDGET_PER_MINUTE=6000", "ELIGIBILITY_REVIEWS__BUDGET_SHARE=0.0005")
	s.script(40, pcsim.Step{Status: "UnderReview"})
	for n := range 40 {
		s.fetch(n)
	}
	client := store.Client()
	defer func() { _ = client.Close() }()
	due := float64(time.Now().Add(-2 * time.Hour).UnixMilli())
	moved := 0
	for scan := client.ScanType(t.Context(), 0, "*}:reviews", 1000, "zset").Iterator(); scan.Next(t.Context()); {
		for _, member := range client.ZRange(t.Context(), scan.Val(), 0, -1).Val() {
			client.ZAdd(t.Context(), scan.Val(), redis.Z{Score: due, Member: member})
			moved++
		}
	}
	if moved < 40 {
		t.Fatalf("%d reviews are listed", moved)
	}
	w.raises(t, s.job, "EligibilityReviewsLate")
}

func webhookGone(t *testing.T, w *watchtower) {
	t.Helper()
	gone := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) { out.WriteHeader(http.StatusGone) }))
	t.Cleanup(gone.Close)
	s := setStage(t, w, "webhook", webhookTo(t, gone.URL))
	s.script(1, pcsim.Step{Status: "UnderReview"})
	s.fetch(0)
	s.load(1, func(ctx context.Context, n int) {
		_ = s.sim.SetCustomer(pcsim.Customer{ID: customerNumber(0), Account: []pcsim.Step{{Status: []string{"Allowed", "UnderReview"}[n%2]}}})
		_, _ = s.client.CheckEligibility(ctx, &eligibilityv1.CheckEligibilityRequest{CustomerId: customerNumber(0), MaxAge: durationpb.New(0)})
	})
	w.raises(t, s.job, "EligibilityWebhookFailing")
}

func streamsRefused(t *testing.T, w *watchtower) {
	t.Helper()
	s := setStage(t, w, "streams", "ELIGIBILITY_WATCH__MAX_STREAMS=1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 2 { // the second makes sure that the first is open
		stream, err := s.client.WatchEligibility(ctx, &eligibilityv1.WatchEligibilityRequest{})
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = stream.Recv() }()
	}
	s.load(5, func(ctx context.Context, _ int) {
		bounded, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if stream, err := s.client.WatchEligibility(bounded, &eligibilityv1.WatchEligibilityRequest{}); err == nil {
			_, _ = stream.Recv()
		}
	})
	w.raises(t, s.job, "EligibilityStreamsFail")
}

// The reader of standard error stops reading.
func logUnread(t *testing.T, w *watchtower) {
	t.Helper()
	_, on := pcsimtest.Start(t)
	p, _ := startProgram(t, pcsimtest.Environ(on.URL, pcsimtest.TokenFile(t), "ELIGIBILITY_LOG__FAILURES_PER_SECOND=1000000"), "serve")
	s := &stage{t: t, w: w, job: "log", client: eligibilityv1.NewEligibilityServiceClient(p.dial(t))}
	w.scrape(t, s.job, p.addresses)
	p.log.mu.Lock() // the copy of its output waits for this
	defer p.log.mu.Unlock()
	s.load(200, func(ctx context.Context, _ int) {
		for range 10 {
			_, _ = s.client.CheckEligibility(ctx, &eligibilityv1.CheckEligibilityRequest{CustomerId: "no-guid"})
		}
	})
	w.raises(t, s.job, "EligibilityLogDropped")
}

// The decision log is a FIFO without a reader.
func decisionsUnread(t *testing.T, w *watchtower) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "decisions")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	s := setStage(t, w, "fifo", "ELIGIBILITY_DECISION_LOG__FILE="+path)
	s.script(1, pcsim.Step{Status: "Allowed"})
	questions := make([]*eligibilityv1.CheckEligibilityRequest, 1000)
	for i := range questions {
		questions[i] = &eligibilityv1.CheckEligibilityRequest{CustomerId: customerNumber(0)}
	}
	s.load(5, func(ctx context.Context, _ int) { // the queue holds 10,000
		_, _ = s.client.BatchCheckEligibility(ctx, &eligibilityv1.BatchCheckEligibilityRequest{Requests: questions})
	})
	w.raises(t, s.job, "EligibilityDecisionLogDropped", "EligibilityDecisionLogBehind")
}

// The directory of the decision log vanishes when the file is rotated, and is not there
// for a while.
func decisionsUnwritten(t *testing.T, w *watchtower) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "log")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := setStage(t, w, "disk", "ELIGIBILITY_DECISION_LOG__FILE="+filepath.Join(dir, "decisions.jsonl"))
	s.script(1, pcsim.Step{Status: "Allowed"})
	if err := os.Rename(dir, dir+"-gone"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // so that nobody makes it again
		t.Fatal(err)
	}
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil { // as logrotate does
		t.Fatal(err)
	}
	s.load(10, s.check(1, 2*time.Second))
	w.raises(t, s.job, "EligibilityDecisionLogFails")
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir+"-gone", dir); err != nil {
		t.Fatal(err)
	}
	w.resolves(t, s.job, "EligibilityDecisionLogFails")
}
