package app_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/app"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// mark is a text in every piece of evidence of a partner.
func mark(partner string) string { return "evidence-of-" + partner }

// partnerSource is the Partner Center of one partner: what it answers has its mark.
type partnerSource struct {
	partner string
	calls   atomic.Int64

	mu     sync.Mutex
	status map[eligibility.CustomerID]string // Partner Center's words; guarded by mu; Allowed if not set
}

func (s *partnerSource) set(id eligibility.CustomerID, status string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status[id] = status
}

// Fetch implements evidence.Source.
func (s *partnerSource) Fetch(_ context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
	query.Started()
	s.calls.Add(1)
	call := eligibility.Call{Attempts: 1, CorrelationID: mark(s.partner)}
	if query.Facet == eligibility.FacetQualifications {
		return eligibility.Evidence{CorrelationID: mark(s.partner), Qualifications: []eligibility.Qualification{{
			Type: eligibility.QualificationEducation, TypeText: "Education",
			VettingStatus: eligibility.VettingApproved, VettingStatusText: "Approved", VettingReason: mark(s.partner),
		}}}, call, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	word := cmp.Or(s.status[query.CustomerID], "Allowed")
	return eligibility.Evidence{Status: eligibility.ParseAccountStatus(word), StatusText: word, CorrelationID: mark(s.partner)}, call, nil
}

// Room implements evidence.Source.
func (s *partnerSource) Room(context.Context, evidence.Lane) int { return math.MaxInt }

func (*partnerSource) Obstacles(context.Context) []evidence.Obstacle { return nil }

// partnerFleet are replicas with several partners each and one Redis.
type partnerFleet struct {
	partners []string
	sources  map[string]*partnerSource
	ahead    atomic.Int64 // of the clock
	replicas []*partnerReplica
	raw      *redis.Client
}

type partnerReplica struct {
	client      eligibilityv1.EligibilityServiceClient
	rest, admin string
	http        *http.Client
}

func startPartnerFleet(t *testing.T, replicas int, server *cachetest.Redis, partners ...string) *partnerFleet {
	t.Helper()
	return startFleetWith(t, replicas, server, nil, partners...)
}

// startFleetWith is startPartnerFleet with further variables of the configuration.
func startFleetWith(t *testing.T, replicas int, server *cachetest.Redis, variables []string, partners ...string) *partnerFleet {
	t.Helper()
	f := &partnerFleet{partners: partners, sources: make(map[string]*partnerSource), raw: server.Client()}
	t.Cleanup(func() { _ = f.raw.Close() })
	for _, name := range partners {
		f.sources[name] = &partnerSource{partner: name, status: make(map[eligibility.CustomerID]string)}
	}
	for range replicas {
		cfg, err := config.Load("", append([]string{
			"ELIGIBILITY_SERVER__GRPC__ADDRESS=127.0.0.1:0", "ELIGIBILITY_SERVER__HTTP__ADDRESS=127.0.0.1:0",
			"ELIGIBILITY_SERVER__ADMIN__ADDRESS=127.0.0.1:0", "ELIGIBILITY_SERVER__DRAIN=0s", "ELIGIBILITY_SERVER__SHUTDOWN_TIMEOUT=1s",
			"ELIGIBILITY_CACHE__REDIS__ADDRESSES=" + server.Address, "ELIGIBILITY_CACHE__REDIS__READ_TIMEOUT=2s",
			"ELIGIBILITY_CACHE__REDIS__WRITE_TIMEOUT=2s", // a busy machine must not make replicas count alone
			"ELIGIBILITY_POLICY__UNDER_REVIEW=allow_reducing",
		}, variables...), config.Dev)
		if err != nil {
			t.Fatal(err)
		}
		one := cfg.Partners[0].PartnerCenter
		cfg.Partners, cfg.DefaultPartner = nil, partners[0]
		for _, name := range partners {
			cfg.Partners = append(cfg.Partners, config.Partner{Name: name, PartnerCenter: one}) // of one tenant at one host
		}
		ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
		built, err := app.NewWith(ctx, cfg, app.Build{}, io.Discard, app.Replacements{
			Source: func(partner string) evidence.Source { return f.sources[partner] },
			Now:    func() time.Time { return time.Now().Add(time.Duration(f.ahead.Load())) },
		})
		if err != nil {
			t.Fatal(err)
		}
		on, err := app.OpenListeners(ctx, cfg.Server)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- built.Run(ctx, on) }()
		conn, err := grpc.NewClient(on.GRPC.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		transport := new(http.Transport)
		t.Cleanup(func() {
			_ = conn.Close()
			transport.CloseIdleConnections()
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
		f.replicas = append(f.replicas, &partnerReplica{
			client: eligibilityv1.NewEligibilityServiceClient(conn),
			rest:   "http://" + on.HTTP.Addr().String(), admin: "http://" + on.Admin.Addr().String(), http: &http.Client{Transport: transport},
		})
	}
	return f
}

// do sends a request over REST.
func (r *partnerReplica) do(ctx context.Context, method, address, body string, headers ...string) (status int, header http.Header, _ []byte, _ error) {
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, data, err
}

// foreign returns the mark of another partner that text contains, if any.
func (f *partnerFleet) foreign(partner string, text []byte) string {
	for _, other := range f.partners {
		if other != partner && bytes.Contains(text, []byte(mark(other))) {
			return other
		}
	}
	return ""
}

var isolationRun atomic.Int64 // gives each run customers of its own

// TestNothingOfAPartnerAppearsUnderAnother asks two replicas with three partners,
// which all know the same customers and share a Redis, over both transports, while
// answers change and evidence ages. Every piece of evidence has its partner's mark.
func TestNothingOfAPartnerAppearsUnderAnother(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	f := startPartnerFleet(t, 2, server, "eu", "us", "a-b")
	f.watchMessages(t)
	rapid.Check(t, func(rt *rapid.T) {
		run := isolationRun.Add(1)
		ids := make([]eligibility.CustomerID, rapid.IntRange(1, 3).Draw(rt, "customers"))
		for i := range ids {
			ids[i] = eligibility.CustomerID{0: byte(i), 8: byte(run >> 8), 9: byte(run)} //nolint:gosec // any bytes
		}
		anyID := rapid.SampledFrom(ids)
		anyPartner := rapid.SampledFrom(f.partners)
		tags := make(map[string]string) // the latest entity tag → its partner
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			replica := f.replicas[rapid.IntRange(0, 1).Draw(rt, "replica")]
			switch rapid.IntRange(0, 6).Draw(rt, "step") {
			case 0:
				status := rapid.SampledFrom([]string{"Allowed", "NotAllowed", "UnderReview", "Unknown", "Not Ready", "Paused"}).Draw(rt, "status")
				f.sources[anyPartner.Draw(rt, "partner")].set(anyID.Draw(rt, "customer"), status)
			case 1:
				f.ahead.Add(int64(time.Duration(rapid.IntRange(0, 700).Draw(rt, "seconds")) * time.Second))
			case 2:
				f.checkBoth(rt, replica, anyID.Draw(rt, "customer"), anyPartner.Draw(rt, "partner"), anyPartner.Draw(rt, "another"), anyOperation(rt))
			case 3, 4:
				f.checkREST(rt, replica, anyID.Draw(rt, "customer"), anyPartner.Draw(rt, "partner"), anyOperation(rt), tags)
			case 5:
				f.checkBatch(rt, replica, rapid.SliceOfN(anyID, 1, 6).Draw(rt, "customers"), anyPartner, rapid.Bool().Draw(rt, "REST"))
			case 6:
				req := &eligibilityv1.PrefetchEligibilityRequest{Partner: anyPartner.Draw(rt, "partner"), Segment: eligibilityv1.Segment_SEGMENT_EDUCATION}
				for _, id := range ids {
					req.CustomerIds = append(req.CustomerIds, id.String())
				}
				if _, err := replica.client.PrefetchEligibility(rt.Context(), req); err != nil {
					rt.Fatal(err)
				}
			}
		}
	})
	f.checkRedis(t)
	f.checkMetrics(t)
}

func anyOperation(rt *rapid.T) eligibilityv1.Operation {
	return eligibilityv1.Operation(rapid.IntRange(0, 6).Draw(rt, "operation")) //nolint:gosec // small
}

// checkBoth asks for two partners at the same time, so that fetches are in flight
// together.
func (f *partnerFleet) checkBoth(rt *rapid.T, replica *partnerReplica, id eligibility.CustomerID, partner, another string, operation eligibilityv1.Operation) {
	answers := make([]*eligibilityv1.CheckEligibilityResponse, 2)
	var asking sync.WaitGroup
	for i, name := range []string{partner, another} {
		asking.Go(func() {
			answers[i], _ = replica.client.CheckEligibility(rt.Context(), &eligibilityv1.CheckEligibilityRequest{
				CustomerId: id.String(), Partner: name, Operation: operation, Segment: eligibilityv1.Segment_SEGMENT_EDUCATION,
			})
		})
	}
	asking.Wait()
	for i, name := range []string{partner, another} {
		f.judge(rt, name, answers[i])
	}
}

// judge wants an answer on evidence of the partner alone.
func (f *partnerFleet) judge(rt *rapid.T, partner string, answer *eligibilityv1.CheckEligibilityResponse) {
	if answer.GetCorrelationId() != mark(partner) {
		rt.Fatalf("%s is answered with evidence of %q", partner, answer.GetCorrelationId())
	}
	for _, held := range answer.GetQualifications() {
		if held.GetVettingReason() != mark(partner) {
			rt.Fatalf("%s is answered with qualifications of %q", partner, held.GetVettingReason())
		}
	}
}

func (f *partnerFleet) checkREST(rt *rapid.T, replica *partnerReplica, id eligibility.CustomerID, partner string, operation eligibilityv1.Operation, tags map[string]string) {
	address := fmt.Sprintf("%s/v1/customers/%s/eligibility?partner=%s&operation=%d&segment=education", replica.rest, id, partner, operation)
	status, header, body, err := replica.do(rt.Context(), http.MethodGet, address, "", "If-None-Match", strings.Join(slices.Collect(maps.Keys(tags)), ", "))
	if err != nil {
		rt.Fatal(err)
	}
	tag := header.Get("Etag")
	switch owner, known := tags[tag]; {
	case known && owner != partner:
		rt.Fatalf("%s gets the entity tag of %s", partner, owner)
	case status == http.StatusNotModified && !known, status != http.StatusNotModified && status != http.StatusOK:
		rt.Fatalf("%s: %d %s", partner, status, body)
	case status == http.StatusOK && (f.foreign(partner, body) != "" || !bytes.Contains(body, []byte(mark(partner)))):
		rt.Fatalf("%s: %s", partner, body)
	}
	tags[tag] = partner
}

func (f *partnerFleet) checkBatch(rt *rapid.T, replica *partnerReplica, ids []eligibility.CustomerID, anyPartner *rapid.Generator[string], overREST bool) {
	req := new(eligibilityv1.BatchCheckEligibilityRequest)
	var items []string
	for _, id := range ids {
		partner := anyPartner.Draw(rt, "partner")
		req.Requests = append(req.Requests, &eligibilityv1.CheckEligibilityRequest{CustomerId: id.String(), Partner: partner})
		items = append(items, fmt.Sprintf(`{"customerId":%q,"partner":%q}`, id, partner))
	}
	if overREST {
		_, _, body, err := replica.do(rt.Context(), http.MethodPost, replica.rest+"/v1/customers:batchCheckEligibility", `{"requests":[`+strings.Join(items, ",")+`]}`)
		results := bytes.Split(body, []byte(`{"response":`))
		if err != nil || len(results) != len(ids)+1 {
			rt.Fatalf("%v %s", err, body)
		}
		for i, result := range results[1:] {
			if partner := req.GetRequests()[i].GetPartner(); f.foreign(partner, result) != "" || !bytes.Contains(result, []byte(mark(partner))) {
				rt.Fatalf("item %d of %s: %s", i, partner, result)
			}
		}
		return
	}
	resp, err := replica.client.BatchCheckEligibility(rt.Context(), req)
	if err != nil {
		rt.Fatal(err)
	}
	for i, result := range resp.GetResults() {
		f.judge(rt, req.GetRequests()[i].GetPartner(), result.GetResponse())
	}
}

// owner returns the partner whose namespace a key or channel of Redis has.
func (f *partnerFleet) owner(key string) string {
	for _, partner := range f.partners {
		if strings.Contains(key, ":v2:"+partner+"/") {
			return partner
		}
	}
	return ""
}

// watchMessages wants every message in a channel of the partner whose evidence it
// has.
func (f *partnerFleet) watchMessages(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	subscription := f.raw.PSubscribe(ctx, "*")
	if _, err := subscription.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	var marked atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for message := range subscription.Channel() {
			owner := f.owner(message.Channel)
			if owner == "" || f.foreign(owner, []byte(message.Payload)) != "" {
				t.Errorf("%s: message %q", message.Channel, message.Payload)
			}
			if strings.Contains(message.Payload, mark(owner)) {
				marked.Add(1)
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		_ = subscription.Close()
		<-ended
		if marked.Load() == 0 {
			t.Error("no message has evidence")
		}
	})
}

// checkRedis wants every key, of evidence, leases and heartbeats, under a partner's
// namespace and without evidence of another.
func (f *partnerFleet) checkRedis(t *testing.T) {
	t.Helper()
	marked := make(map[string]int)
	keys, err := f.raw.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		owner := f.owner(key)
		if owner == "" {
			t.Errorf("key %s is of no partner", key)
		}
		dump, _ := f.raw.Get(t.Context(), key).Bytes() // nothing else than strings has evidence
		if foreign := f.foreign(owner, dump); foreign != "" {
			t.Errorf("key %s has evidence of %s", key, foreign)
		}
		if bytes.Contains(dump, []byte(mark(owner))) {
			marked[owner]++
		}
	}
	for _, partner := range f.partners {
		if marked[partner] == 0 {
			t.Errorf("no key has evidence of %s", partner)
		}
	}
}

// checkMetrics wants the calls to each Partner Center, and no others, under its
// partner's label.
func (f *partnerFleet) checkMetrics(t *testing.T) {
	t.Helper()
	series := regexp.MustCompile(`(?m)^eligibility_flights_total\{partner="([a-z-]+)",role="led"\} ([0-9.e+]+)$`)
	led := make(map[string]int64)
	for _, replica := range f.replicas {
		_, _, metrics, err := replica.do(t.Context(), http.MethodGet, replica.admin+"/metrics", "")
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range series.FindAllStringSubmatch(string(metrics), -1) {
			value, err := strconv.ParseFloat(found[2], 64)
			if err != nil {
				t.Fatal(err)
			}
			led[found[1]] += int64(value)
		}
	}
	for _, partner := range f.partners {
		if calls := f.sources[partner].calls.Load(); calls == 0 || led[partner] != calls {
			t.Errorf("%s: %d fetches by the metric, %d calls", partner, led[partner], calls)
		}
	}
}

// TestACustomerOfSeveralPartnersIsAnsweredByEach asks about customers whom three
// partners know, with different answers: in every order, over each transport, from
// Partner Center, the local tier and Redis, and without Redis.
func TestACustomerOfSeveralPartnersIsAnsweredByEach(t *testing.T) {
	t.Parallel()
	statuses := map[string]string{"eu": "Allowed", "us": "NotAllowed", "a-b": "UnderReview"}
	orders := [][]string{
		{"eu", "us", "a-b"},
		{"eu", "a-b", "us"},
		{"us", "eu", "a-b"},
		{"us", "a-b", "eu"},
		{"a-b", "eu", "us"},
		{"a-b", "us", "eu"},
	}
	for i, names := range orders {
		server := cachetest.StartRedis(t)
		f := startPartnerFleet(t, 2, server, names...) // in this order, the first by default
		tiers := make(map[eligibilityv1.EvidenceSource]int)
		ask := func(replica *partnerReplica, id eligibility.CustomerID) {
			t.Helper()
			for _, partner := range names {
				f.sources[partner].set(id, statuses[partner])
			}
			for _, order := range [][]string{names, orders[(i+1)%len(orders)]} {
				for _, partner := range order {
					f.askEach(t, replica, id, partner, statuses[partner], tiers)
				}
			}
		}
		for n := range 3 {
			id := eligibility.CustomerID{1, byte(n)}
			ask(f.replicas[0], id)
			ask(f.replicas[1], id)
		}
		server.Kill()
		for n := range 2 {
			ask(f.replicas[0], eligibility.CustomerID{1, byte(n)})
			ask(f.replicas[1], eligibility.CustomerID{2, byte(n)})
		}
		for _, tier := range []eligibilityv1.EvidenceSource{
			eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_LOCAL, eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_REDIS,
			eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_PARTNER_CENTER,
		} {
			if tiers[tier] == 0 {
				t.Errorf("%v: no answer from %v", names, tier)
			}
		}
	}
}

// askEach asks for a partner over gRPC, REST and in a batch with all others.
func (f *partnerFleet) askEach(t *testing.T, replica *partnerReplica, id eligibility.CustomerID, partner, status string, tiers map[eligibilityv1.EvidenceSource]int) {
	t.Helper()
	want := map[string]string{"Allowed": "ACCOUNT_ALLOWED", "NotAllowed": "ACCOUNT_NOT_ALLOWED", "UnderReview": "ACCOUNT_REVIEW_EXEMPT"}[status]
	operation := eligibilityv1.Operation_OPERATION_RENEWAL
	answer, err := replica.client.CheckEligibility(t.Context(), &eligibilityv1.CheckEligibilityRequest{CustomerId: id.String(), Partner: partner, Operation: operation})
	if err != nil || answer.GetReasons()[0].GetCode().String() != "REASON_CODE_"+want || answer.GetCorrelationId() != mark(partner) {
		t.Fatalf("%s over gRPC: %v, %v", partner, answer, err)
	}
	tiers[answer.GetSource()]++
	_, _, body, err := replica.do(t.Context(), http.MethodGet, replica.rest+"/v1/customers/"+id.String()+"/eligibility?operation=renewal&partner="+partner, "")
	if err != nil || !bytes.Contains(body, []byte(`"REASON_CODE_`+want+`"`)) || !bytes.Contains(body, []byte(mark(partner))) || f.foreign(partner, body) != "" {
		t.Fatalf("%s over REST: %s, %v", partner, body, err)
	}
	if partner == f.partners[0] { // the default
		answer, err := replica.client.CheckEligibility(t.Context(), &eligibilityv1.CheckEligibilityRequest{CustomerId: id.String(), Operation: operation})
		if err != nil || answer.GetCorrelationId() != mark(partner) {
			t.Fatalf("%s by default: %v, %v", partner, answer, err)
		}
	}
	batch := new(eligibilityv1.BatchCheckEligibilityRequest)
	for _, name := range append(slices.Clone(f.partners), partner) {
		batch.Requests = append(batch.Requests, &eligibilityv1.CheckEligibilityRequest{CustomerId: id.String(), Partner: name, Operation: operation})
	}
	results, err := replica.client.BatchCheckEligibility(t.Context(), batch)
	if err != nil {
		t.Fatal(err)
	}
	for i, result := range results.GetResults() {
		if name := batch.GetRequests()[i].GetPartner(); result.GetResponse().GetCorrelationId() != mark(name) {
			t.Fatalf("%s in a batch: %v", name, result)
		}
	}
}
