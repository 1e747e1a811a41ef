//go:build acceptance

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// got is what a caller got for one question.
type got struct {
	outcome  string // allowed, blocked or error; empty if no answer of the service arrived
	reasons  string // of an answer
	reason   string // of an error
	stale    bool
	word     string
	known    bool // the qualifications
	tier     string
	evidence int64 // Unix ms
	unread   bool  // the batch was refused before its body was read
}

// asked is a question that was sent.
type asked struct {
	id, caller, via string
	req             *eligibilityv1.CheckEligibilityRequest
	got
}

// askers send questions and record what they get. They are safe for concurrent use.
type askers struct {
	tokens  map[string]string // caller → token
	grpc    []eligibilityv1.EligibilityServiceClient
	rest    []string // base URLs
	client  *http.Client
	sent    atomic.Int64
	written sync.Mutex
	all     []asked // guarded by written
}

func newAskers(t *testing.T, tokens map[string]string, to ...*process) *askers {
	t.Helper()
	c := &askers{tokens: tokens, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}, Timeout: patience}}
	t.Cleanup(c.client.CloseIdleConnections)
	for _, p := range to {
		c.connect(t, p)
	}
	return c
}

// connect lets c ask p, too.
func (c *askers) connect(t *testing.T, p *process) {
	t.Helper()
	c.grpc = append(c.grpc, eligibilityv1.NewEligibilityServiceClient(dialReplica(t, p.GRPC)))
	c.rest = append(c.rest, "http://"+p.HTTP)
}

// ask sends questions of one caller to a replica, as a batch if there are several, and
// records what the caller gets.
func (c *askers) ask(ctx context.Context, replica int, caller, via string, batch bool, reqs ...*eligibilityv1.CheckEligibilityRequest) []asked {
	id := fmt.Sprintf("order-%d", c.sent.Add(1))
	header := map[string]string{}
	if token := c.tokens[caller]; token != "" {
		header["authorization"] = "Bearer " + token
	}
	given := via == "grpc" || rand.IntN(2) == 0 // over gRPC, a random id would not be known
	if given {
		header["x-request-id"] = id
	}
	var outcomes []got
	if via == "grpc" {
		outcomes = c.overGRPC(ctx, replica, header, batch, reqs)
	} else {
		var returned string
		outcomes, returned = c.overREST(ctx, replica, header, batch, reqs)
		if !given {
			id = returned
		}
	}
	all := make([]asked, len(reqs))
	for i, req := range reqs {
		all[i] = asked{id, caller, via, req, outcomes[i]}
		if batch && id != "" {
			all[i].id = id + "/" + strconv.Itoa(i)
		}
	}
	c.written.Lock()
	defer c.written.Unlock()
	c.all = append(c.all, all...)
	return all
}

func (c *askers) overGRPC(ctx context.Context, replica int, header map[string]string, batch bool, reqs []*eligibilityv1.CheckEligibilityRequest) []got {
	ctx = metadata.NewOutgoingContext(ctx, metadata.New(header))
	if !batch {
		resp, err := c.grpc[replica].CheckEligibility(ctx, reqs[0], grpc.WaitForReady(true))
		if err != nil {
			return failedAll(reasonOf(err), len(reqs))
		}
		return []got{answered(resp)}
	}
	resp, err := c.grpc[replica].BatchCheckEligibility(ctx, &eligibilityv1.BatchCheckEligibilityRequest{Requests: reqs}, grpc.WaitForReady(true))
	if err != nil {
		return failedAll(reasonOf(err), len(reqs))
	}
	return results(resp, len(reqs))
}

func (c *askers) overREST(ctx context.Context, replica int, header map[string]string, batch bool, reqs []*eligibilityv1.CheckEligibilityRequest) (outcomes []got, id string) {
	method, target, body := http.MethodGet, c.rest[replica]+restPath(reqs[0]), []byte(nil)
	if batch {
		method, target = http.MethodPost, c.rest[replica]+batchPath
		var err error
		if body, err = protojson.Marshal(&eligibilityv1.BatchCheckEligibilityRequest{Requests: reqs}); err != nil {
			panic(err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	if batch {
		req.Header.Set("Content-Type", "application/json")
	}
	if deadline, ok := ctx.Deadline(); ok {
		req.Header.Set("Grpc-Timeout", strconv.FormatInt(max(time.Until(deadline).Milliseconds(), 1), 10)+"m")
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return failedAll("", len(reqs)), ""
	}
	defer func() { _ = resp.Body.Close() }()
	id = resp.Header.Get("X-Request-Id")
	text, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return failedAll("", len(reqs)), id
	case resp.StatusCode != http.StatusOK:
		var failure struct{ Details []struct{ Reason string } }
		if json.Unmarshal(text, &failure) != nil || len(failure.Details) == 0 {
			return failedAll("unreadable", len(reqs)), id
		}
		for _, detail := range failure.Details {
			if detail.Reason != "" {
				all := failedAll(detail.Reason, len(reqs))
				for i := range all {
					all[i].unread = batch
				}
				return all, id
			}
		}
		return failedAll("none", len(reqs)), id
	case batch:
		answers := new(eligibilityv1.BatchCheckEligibilityResponse)
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, answers); err != nil {
			return failedAll("unreadable", len(reqs)), id
		}
		return results(answers, len(reqs)), id
	default:
		answer := new(eligibilityv1.CheckEligibilityResponse)
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, answer); err != nil {
			return failedAll("unreadable", len(reqs)), id
		}
		return []got{answered(answer)}, id
	}
}

// restPath is the path and query of a question over REST.
func restPath(req *eligibilityv1.CheckEligibilityRequest) string {
	query := url.Values{}
	if req.GetSegment() != 0 {
		query.Set("segment", strings.TrimPrefix(req.GetSegment().String(), "SEGMENT_"))
	}
	if req.GetOperation() != 0 {
		query.Set("operation", strings.TrimPrefix(req.GetOperation().String(), "OPERATION_"))
	}
	if req.GetMaxAge() != nil {
		query.Set("max_age", fmt.Sprintf("%.3fs", req.GetMaxAge().AsDuration().Seconds()))
	}
	if req.GetMinEvidenceTime() != nil {
		query.Set("min_evidence_time", req.GetMinEvidenceTime().AsTime().Format(time.RFC3339Nano))
	}
	if req.GetPartner() != "" {
		query.Set("partner", req.GetPartner())
	}
	path := "/v1/customers/" + url.PathEscape(req.GetCustomerId()) + "/eligibility"
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return path
}

// failedAll is what callers get for n questions if a call fails as a whole.
func failedAll(reason string, n int) []got {
	if reason == "" { // the client's own error
		return make([]got, n)
	}
	return slices.Repeat([]got{{outcome: "error", reason: reason}}, n)
}

func results(resp *eligibilityv1.BatchCheckEligibilityResponse, n int) []got {
	if len(resp.GetResults()) != n {
		return failedAll("unreadable", n)
	}
	all := make([]got, n)
	for i, result := range resp.GetResults() {
		if answer := result.GetResponse(); answer != nil {
			all[i] = answered(answer)
		} else {
			all[i] = got{outcome: "error", reason: result.GetError().GetReason()}
		}
	}
	return all
}

func answered(resp *eligibilityv1.CheckEligibilityResponse) got {
	g := got{
		outcome: strings.ToLower(strings.TrimPrefix(resp.GetDecision().String(), "DECISION_")),
		stale:   resp.GetStale(), word: resp.GetAccountStatusText(), known: resp.GetQualificationsKnown(),
		tier: strings.TrimPrefix(resp.GetSource().String(), "EVIDENCE_SOURCE_"),
	}
	if resp.GetEvidenceTime() != nil {
		g.evidence = resp.GetEvidenceTime().AsTime().UnixMilli()
	}
	for _, reason := range resp.GetReasons() {
		g.reasons += " " + strings.TrimPrefix(reason.GetCode().String(), "REASON_CODE_")
	}
	g.reasons = strings.TrimSpace(g.reasons)
	return g
}
