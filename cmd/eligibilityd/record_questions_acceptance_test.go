//go:build acceptance

package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

var questionCount = flag.Int("questions", 100_000, "questions that are asked through every failure")

// secondPartner is a partner in the scripts of the proofs, which the simulator throttles.
const secondPartner = `
partners:
  us:
    client_id: c0000000-0000-4000-8000-000000000002
    client_secret: us-secret
    tenant_id: 70000000-0000-4000-8000-000000000002
    refresh_token: us-refresh-token
    requests_per_minute: 900
`

// recordConfig is the configuration of a replica. The numbers are the simulator, the
// files of the refresh tokens of both partners, Redis, the file of callers' tokens, the
// policy, and the section decision_log.
const recordConfig = `
server:
  grpc: {address: '127.0.0.1:0'}
  http: {address: '127.0.0.1:0'}
  admin: {address: '127.0.0.1:0'}
  drain: 0s
  limits: {concurrent: 48}
auth: {tokens_file: '%[5]s'}
limits:
  default: {requests_per_second: 1000000, burst: 1000000, concurrent: 4096, new_customers_per_minute: 1000000}
  callers:
    crowd: {requests_per_second: 20, burst: 20}
default_partner: eu
partner_defaults: {base_url: '%[1]s', authority: '%[1]s', attempt_timeout: 1s}
partners:
  eu:
    tenant_id: ` + pcsim.DefaultTenantID + `
    client_id: ` + pcsim.DefaultClientID + `
    client_secret: ` + pcsim.DefaultClientSecret + `
    refresh_token_file: '%[2]s'
    budget_per_minute: 1000000
  us:
    tenant_id: 70000000-0000-4000-8000-000000000002
    client_id: c0000000-0000-4000-8000-000000000002
    client_secret: us-secret
    refresh_token_file: '%[3]s'
    budget_per_minute: 1200
cache:
  redis: {addresses: ['%[4]s'], read_timeout: 500ms, write_timeout: 500ms}
  ages:
    allowed: {fresh: 3s, usable: 9s}
    no_status: {fresh: 3s, usable: 9s}
    pending: {fresh: 3s, usable: 9s}
    not_allowed: {fresh: 3s, usable: 9s}
    qualifications: {fresh: 4s, usable: 9s}
    qualifications_in_review: {fresh: 3s, usable: 9s}
policy: %[6]s
log: {format: json}
decision_log: %[7]s
`

// interview is two replicas that are asked, and what makes them fail.
type interview struct {
	t      *testing.T
	far    simulated
	redis  *cachetest.Redis
	askers *askers
	cast   []*played
	logs   []string // of the decision logs
}

// rights of the callers.
var rights = map[string][]string{
	"shop": {"check", "batch", "fresh"}, "orders": {"check", "batch", "fresh"}, "till": {"check"}, "crowd": {"check", "batch", "fresh"},
}

func startInterview(t *testing.T, policy string) *interview {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	v := &interview{t: t, far: simulateApart(t, "--script", write("script.yaml", secondPartner)), redis: cachetest.StartRedis(t), cast: cast()}
	play(t, v.far, v.cast)
	for i := range 110 { // each with the script of the next
		other := v.cast[i+1].customer
		other.ID = v.cast[i].customer.ID
		v.far.do(t, http.MethodPut, "/v1/customers/"+other.ID+"?partner=us", other)
	}
	tokens, entries := map[string]string{}, ""
	for _, caller := range slices.Sorted(maps.Keys(rights)) {
		token, entry, err := access.NewToken(caller, rights[caller], time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		tokens[caller], entries = token, entries+entry
	}
	v.askers = newAskers(t, tokens)
	for i := range 2 {
		log := filepath.Join(dir, fmt.Sprintf("replica-%d", i), "decisions.jsonl")
		if err := os.MkdirAll(filepath.Dir(log), 0o700); err != nil {
			t.Fatal(err)
		}
		v.logs = append(v.logs, log)
		text := fmt.Sprintf(recordConfig, v.far.api, pcsimtest.TokenFile(t), write(fmt.Sprintf("us-%d", i), "us-refresh-token"),
			v.redis.Address, write("tokens.yaml", entries), policy, "{file: '"+log+"', max_bytes: 8MiB, max_files: 100}")
		p, _ := startUnder(t, nil, nil, "serve", "--config", write(fmt.Sprintf("config-%d.yaml", i), text))
		v.askers.connect(t, p)
		t.Cleanup(func() { t.Logf("replica %d logged %d bytes", i, len(p.log.String())) })
	}
	return v
}

// phase is a part of the questions, and what fails while they are asked.
type phase struct {
	name      string
	weight    int // of the questions; 0 is 1
	begin     func(v *interview)
	end       func(v *interview)
	impatient bool // callers leave
	burst     bool // of more calls than are admitted at a time
}

func phases() []phase {
	token := func(v *interview, steps ...pcsim.Step) {
		v.far.do(v.t, http.MethodPut, "/v1/token", map[string]any{"steps": append([]pcsim.Step{}, steps...)})
		v.far.do(v.t, http.MethodPost, "/v1/token/expire", nil)
	}
	settings := func(v *interview, to pcsim.Settings) {
		v.far.do(v.t, http.MethodPut, "/v1/settings", to)
		v.far.do(v.t, http.MethodPost, "/v1/token/expire", nil)
	}
	restore := func(v *interview) { play(v.t, v.far, v.cast) }
	all := []phase{
		{name: "nothing", weight: 5},
		{name: "answers", weight: 5, begin: func(v *interview) { fail(v.t, v.far, v.cast, 5, brokenAnswers()) }, end: restore},
		{name: "connections", weight: 3, begin: func(v *interview) { fail(v.t, v.far, v.cast, 5, brokenConnections()) }, end: restore},
		{name: "throttling", weight: 3, begin: func(v *interview) {
			fail(v.t, v.far, v.cast, 20, []pcsim.Step{
				{Raw: &pcsim.Raw{Status: 429, Headers: map[string]string{"Retry-After": "1"}, Body: `{"statusCode":429}`}},
				{Raw: &pcsim.Raw{Status: 429}},
			})
		}, end: restore},
		{name: "everything", begin: func(v *interview) { fail(v.t, v.far, v.cast, 1, brokenConnections()[:1]) }, end: restore},
		{
			name: "proof of MFA", begin: func(v *interview) { settings(v, pcsim.Settings{WithoutMFA: true, MFAPassPercent: 50}) },
			end: func(v *interview) { settings(v, pcsim.Settings{}) },
		},
		{
			name: "clocks", begin: func(v *interview) { settings(v, pcsim.Settings{ClockSkew: 10 * time.Minute}) },
			end: func(v *interview) { settings(v, pcsim.Settings{}) },
		},
		{name: "Redis stalls", begin: func(v *interview) { v.redis.Stall() }, end: func(v *interview) {
			v.redis.Resume()
			client := v.redis.Client()
			defer func() { _ = client.Close() }()
			// Until it has accepted the connections that were made in vain.
			eventually(v.t, "Redis to answer", func() bool { return client.Ping(v.t.Context()).Err() == nil })
		}},
		{name: "Redis refuses writes", begin: func(v *interview) { v.redis.RefuseWrites("OOM") }, end: func(v *interview) { v.redis.AcceptWrites() }},
		{name: "Redis away", begin: func(v *interview) { v.redis.Kill() }, end: func(v *interview) { v.redis.Start() }},
		{name: "Redis and Partner Center away", begin: func(v *interview) {
			v.redis.Kill()
			fail(v.t, v.far, v.cast, 1, brokenConnections()[:1])
		}, end: func(v *interview) {
			v.redis.Start()
			restore(v)
		}},
		{name: "impatience", impatient: true, begin: func(v *interview) { fail(v.t, v.far, v.cast, 3, brokenConnections()[4:6]) }, end: restore},
		{name: "overload", burst: true, begin: func(v *interview) { fail(v.t, v.far, v.cast, 2, brokenConnections()[4:5]) }, end: restore},
	}
	for i, step := range brokenLogins() {
		all = append(all, phase{
			name: fmt.Sprintf("login %d", i), begin: func(v *interview) { token(v, step) }, end: func(v *interview) { token(v) },
		})
	}
	return append(all, phase{name: "revoked consent of a partner", begin: func(v *interview) {
		v.far.do(v.t, http.MethodPost, "/v1/token/revoke?partner=us", nil)
		v.far.do(v.t, http.MethodPost, "/v1/token/expire?partner=us", nil)
	}}, phase{name: "nothing again", weight: 5})
}

// question makes a question of a caller with those rights.
func (v *interview) question() *eligibilityv1.CheckEligibilityRequest {
	id := v.cast[rand.IntN(len(v.cast))].customer.ID
	switch rand.IntN(40) {
	case 0:
		id = strings.ToUpper(id)
	case 1:
		id = "{" + id + "}"
	case 2:
		id = strings.ReplaceAll(id, "-", "")
	case 3:
		id = " " + id + " "
	}
	req := &eligibilityv1.CheckEligibilityRequest{
		CustomerId: id, Segment: eligibilityv1.Segment(rand.IntN(5)), Operation: eligibilityv1.Operation(rand.IntN(7)), //nolint:gosec // small
	}
	switch rand.IntN(20) {
	case 0:
		req.MaxAge = durationpb.New(0)
	case 1:
		req.MaxAge = durationpb.New(500 * time.Millisecond)
	case 2:
		req.MaxAge = durationpb.New(time.Minute)
	case 3:
		req.MinEvidenceTime = timestamppb.New(time.Now().Add(-time.Duration(rand.IntN(5000)) * time.Millisecond).Truncate(time.Millisecond))
	case 4:
		req.MaxAge, req.MinEvidenceTime = durationpb.New(2*time.Second), timestamppb.New(time.Now().Add(-time.Hour))
	case 5:
		req.Partner = "eu"
	case 6:
		req.Partner = "us"
	}
	switch rand.IntN(500) {
	case 0:
		req.CustomerId = "nobody"
	case 1:
		req.MaxAge = durationpb.New(-time.Second)
	case 2:
		req.MinEvidenceTime = timestamppb.New(time.Now().Add(time.Hour))
	case 3:
		req.Partner = "elsewhere"
	}
	return req
}

// ask asks n questions within about that time, at both replicas, over both transports.
func (v *interview) ask(p phase, n int, within time.Duration) {
	var (
		asking sync.WaitGroup
		count  atomic.Int64
	)
	began, workers := time.Now(), 48
	if p.burst {
		workers = 400
	}
	for range workers {
		asking.Go(func() {
			for {
				caller, size, batch := []string{"shop", "shop", "shop", "orders", "orders", "orders", "till", "till", "crowd"}[rand.IntN(9)], 1, rand.IntN(20) == 0
				if batch = batch && caller != "till"; batch {
					size = 1 + rand.IntN(60)
				}
				before := int(count.Add(int64(size))) - size
				if before >= n {
					return
				}
				if !p.burst {
					pause(v.t.Context(), time.Until(began.Add(time.Duration(float64(within)*float64(before)/float64(n)))))
				}
				v.one(p, caller, batch, min(size, n-before))
			}
		})
	}
	asking.Wait()
}

func (v *interview) one(p phase, caller string, batch bool, size int) {
	reqs := make([]*eligibilityv1.CheckEligibilityRequest, size)
	for i := range reqs {
		reqs[i] = v.question()
	}
	ctx, cancel := context.WithTimeout(v.t.Context(), 2*time.Second)
	if p.impatient {
		ctx, cancel = context.WithTimeout(v.t.Context(), time.Duration(20+rand.IntN(400))*time.Millisecond)
		if rand.IntN(4) == 0 {
			defer time.AfterFunc(time.Duration(rand.IntN(100))*time.Millisecond, cancel).Stop()
		}
	}
	defer cancel()
	v.askers.ask(ctx, rand.IntN(2), caller, []string{"grpc", "rest"}[rand.IntN(2)], batch, reqs...)
}

// recordOfQuestions asks under two policies, half of the questions each.
func recordOfQuestions(t *testing.T) string { //nolint:thelper // a test of its own
	total := new(tallied)
	for _, policy := range []struct{ name, text string }{
		{"default", "{not_ready: block}"},
		{"other", "{not_ready: block, under_review: allow_reducing, when_undecidable: block}"},
	} {
		t.Run(policy.name, func(t *testing.T) {
			v := startInterview(t, policy.text)
			began, all := time.Now(), phases()
			weights, left := 0, *questionCount/2
			for _, p := range all {
				weights += max(p.weight, 1)
			}
			for i, p := range all {
				if p.begin != nil {
					p.begin(v)
				}
				n := *questionCount / 2 * max(p.weight, 1) / weights
				if i == len(all)-1 {
					n = left
				}
				left -= n
				// Hanging failures need time; others are over at once.
				v.ask(p, n, min(2500*time.Millisecond, time.Duration(n)*time.Millisecond))
				if p.end != nil {
					p.end(v)
				}
			}
			t.Logf("asked in %v", time.Since(began).Round(time.Second))
			v.compare(total, policy.name == "other")
		})
	}
	if t.Failed() {
		return ""
	}
	for _, kind := range []string{
		"allowed", "blocked", "stale", "INVALID_ARGUMENT", "PERMISSION_DENIED", "CUSTOMER_NOT_FOUND", "CUSTOMER_NOT_SERVED", "PARTNER_CENTER_UNAVAILABLE",
		"PARTNER_CENTER_THROTTLED", "PARTNER_CENTER_CREDENTIALS", "PARTNER_CENTER_INVALID_RESPONSE", "OVERLOADED", "CALLER_LIMITED", "DEADLINE_EXCEEDED", "UNDECIDABLE",
	} {
		if total.kinds[kind] == 0 && *questionCount >= 20_000 {
			t.Errorf("no answer was %s", kind)
		}
	}
	return total.String()
}
