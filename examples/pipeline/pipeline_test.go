package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// patience bounds the wait for anything that has to happen.
const patience = time.Minute

// service is a service that answers as the test lets it.
type service struct {
	eligibilityv1.UnimplementedEligibilityServiceServer

	address string
	check   func(*eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error)
	watches chan watching // receives each stream; the test ends it
}

// watching is a stream that the pipeline has opened.
type watching struct {
	*eligibilityv1.WatchEligibilityRequest

	stream grpc.ServerStreamingServer[eligibilityv1.WatchEligibilityResponse]
	ended  chan<- error // ends it
}

func (s *service) CheckEligibility(_ context.Context, q *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
	return s.check(q)
}

func (s *service) WatchEligibility(q *eligibilityv1.WatchEligibilityRequest, stream grpc.ServerStreamingServer[eligibilityv1.WatchEligibilityResponse]) error {
	ended := make(chan error, 1)
	s.watches <- watching{q, stream, ended}
	select {
	case err := <-ended:
		return err
	case <-stream.Context().Done():
		return nil
	}
}

func startService(t *testing.T, check func(*eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error)) *service {
	t.Helper()
	on, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &service{address: on.Addr().String(), check: check, watches: make(chan watching, 100)}
	server := grpc.NewServer()
	eligibilityv1.RegisterEligibilityServiceServer(server, s)
	done := make(chan error, 1)
	go func() { done <- server.Serve(on) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// opened waits for the next stream.
func (s *service) opened(t *testing.T) watching {
	t.Helper()
	select {
	case w := <-s.watches:
		return w
	case <-time.After(patience):
		t.Fatal("no stream was opened")
		return watching{}
	}
}

func (w watching) send(t *testing.T, token string, event any) {
	t.Helper()
	message := &eligibilityv1.WatchEligibilityResponse{ResumeToken: token}
	switch event := event.(type) {
	case *eligibilityv1.EligibilityChange:
		if event.GetObserveTime() == nil {
			event.ObserveTime = event.GetAfter().GetEvidenceTime()
		}
		message.Event = &eligibilityv1.WatchEligibilityResponse_Change{Change: event}
	case *eligibilityv1.WatchProgress:
		message.Event = &eligibilityv1.WatchEligibilityResponse_Progress{Progress: event}
	case *eligibilityv1.WatchEnd:
		message.Event = &eligibilityv1.WatchEligibilityResponse_End{End: event}
	}
	if err := w.stream.Send(message); err != nil {
		t.Error(err)
	}
}

// running is the program.
type running struct {
	cmd   *exec.Cmd
	dir   string
	lines chan string // closed when it has ended
}

func startPipeline(t *testing.T, address, dir, orders string) *running {
	t.Helper()
	file := filepath.Join(t.TempDir(), "orders.jsonl")
	if err := os.WriteFile(file, []byte(orders), 0o600); err != nil {
		t.Fatal(err)
	}
	name, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.Background(), name, "--address", address, "--dir", dir, "--orders", file) //nolint:gosec // the test's own binary
	cmd.Env, cmd.Stderr = append(os.Environ(), asPipeline+"=1"), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := &running{cmd: cmd, dir: dir, lines: make(chan string, 1000)}
	go func() {
		defer close(r.lines)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			r.lines <- lines.Text()
		}
	}()
	t.Cleanup(r.kill)
	return r
}

// kill ends the program as a crash would.
func (r *running) kill() {
	_ = r.cmd.Process.Kill()
	for range r.lines { // until it has ended
	}
	_ = r.cmd.Wait()
}

// reports waits for the line that says that an order has that state.
func (r *running) reports(t *testing.T, order string, want state) {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case line, ok := <-r.lines:
			if !ok {
				t.Fatalf("the pipeline ended before order %s was %s", order, want)
			}
			if strings.HasPrefix(line, fmt.Sprintf(`{"order":%q,"state":%q,`, order, want)) {
				return
			}
		case <-deadline:
			t.Fatalf("order %s was not %s within %v", order, want, patience)
		}
	}
}

// ends waits until the program has ended by itself.
func (r *running) ends(t *testing.T) {
	t.Helper()
	killed := time.AfterFunc(patience, func() { _ = r.cmd.Process.Kill() })
	defer killed.Stop()
	for range r.lines { // until it has ended
	}
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("the pipeline ended with %v", err)
	}
}

// placements returns how often each order was placed.
func placements(t *testing.T, dir string) map[string]int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "placed.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]int)
	for line := range strings.Lines(string(text)) {
		var p placement
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			t.Fatal(err)
		}
		all[p.Key]++
	}
	return all
}

var (
	early = timestamppb.New(time.Unix(1_800_000_000, 0))
	late  = timestamppb.New(time.Unix(1_800_000_100, 0))
)

func answer(id string, code eligibilityv1.ReasonCode, at *timestamppb.Timestamp) *eligibilityv1.CheckEligibilityResponse {
	a := &eligibilityv1.CheckEligibilityResponse{
		CustomerId: id, EvidenceTime: at, Decision: eligibilityv1.Decision_DECISION_BLOCKED,
		Reasons: []*eligibilityv1.Reason{{Code: code, Message: code.String()}},
	}
	if code == allowed {
		a.Decision = eligibilityv1.Decision_DECISION_ALLOWED
	}
	if code == underReview || code == undecidable {
		a.RecheckTime = timestamppb.Now()
	}
	return a
}

const (
	allowed     = eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_ALLOWED
	underReview = eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_UNDER_REVIEW
	notAllowed  = eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_NOT_ALLOWED
	undecidable = eligibilityv1.ReasonCode_REASON_CODE_UNDECIDABLE
)

func failure(code codes.Code, reason string) error {
	s, err := status.New(code, "as the test has it").WithDetails(&errdetails.ErrorInfo{Domain: "eligibility", Reason: reason})
	if err != nil {
		return err
	}
	return s.Err()
}

// Checks decide what happens to an order: an error is neither allowed nor blocked, and a
// block that no change ends is not waited out.
func TestChecksDecide(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	times := make(map[string]int)
	s := startService(t, func(q *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
		mu.Lock()
		times[q.GetCustomerId()]++
		first := times[q.GetCustomerId()] == 1
		mu.Unlock()
		switch id := q.GetCustomerId(); id {
		case "not-allowed":
			return answer(id, notAllowed, early), nil
		case "not-found":
			return nil, failure(codes.NotFound, "CUSTOMER_NOT_FOUND")
		case "invalid":
			return nil, failure(codes.InvalidArgument, "INVALID_ARGUMENT")
		case "undecidable":
			if first {
				return answer(id, undecidable, nil), nil
			}
		case "overloaded":
			if first {
				return nil, failure(codes.ResourceExhausted, "OVERLOADED")
			}
		}
		return answer(q.GetCustomerId(), allowed, early), nil
	})
	var orders strings.Builder
	want := map[string]state{
		"allowed": placed, "undecidable": placed, "overloaded": placed,
		"not-allowed": refused, "not-found": rejected, "invalid": rejected,
	}
	for id := range want {
		fmt.Fprintf(&orders, "{\"id\":%q,\"customer_id\":%q}\n", id, id)
	}
	orders.WriteString(`{"id":"allowed","customer_id":"again"}` + "\n") // known
	orders.WriteString("no order\n" + `{"id":"segment","customer_id":"allowed","segment":"none"}` + "\n" + `{"customer_id":"allowed"}` + "\n")
	dir := t.TempDir()
	startPipeline(t, s.address, dir, orders.String()).ends(t)
	b := reopen(t, filepath.Join(dir, "journal.jsonl"))
	if len(b.open) != 0 || len(b.finished) != len(want) {
		t.Errorf("open %v, finished %v", b.open, b.finished)
	}
	for id, want := range want {
		if b.finished[id] != want {
			t.Errorf("order %s is %s, want %s", id, b.finished[id], want)
		}
	}
	got := placements(t, dir)
	if len(got) != 3 || got["allowed"] != 1 || got["undecidable"] != 1 || got["overloaded"] != 1 {
		t.Errorf("placed: %v", got)
	}
}

// A parked order waits for a change, is checked against the evidence of the change, and
// survives each kind of end of a stream.
func TestAParkedOrderIsPlacedAfterTheChange(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var atLeast []*timestamppb.Timestamp // min_evidence_time of each check
	s := startService(t, func(q *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
		mu.Lock()
		defer mu.Unlock()
		if q.GetCustomerId() != "d" {
			atLeast = append(atLeast, q.GetMinEvidenceTime())
		}
		id := strings.ToLower(q.GetCustomerId())
		if q.GetMinEvidenceTime().AsTime().Equal(late.AsTime()) {
			return answer(id, allowed, late), nil
		}
		return answer(id, underReview, early), nil
	})
	dir := t.TempDir()
	orders := `{"id":"d","customer_id":"d"}` + "\n" + `{"id":"o","customer_id":"C"}` + "\n"
	p := startPipeline(t, s.address, dir, orders)
	p.reports(t, "o", parked)

	// Killed before all current answers have come, it begins anew.
	w := s.opened(t)
	for len(w.GetCustomerIds()) < 2 { // two orders, perhaps of two streams at first
		w = s.opened(t)
	}
	if !slices.Contains(w.GetCustomerIds(), "c") || w.GetResumeToken() != "" {
		t.Errorf("the first stream: %v", w.WatchEligibilityRequest)
	}
	w.send(t, "begin", &eligibilityv1.WatchProgress{})
	w.send(t, "part", &eligibilityv1.EligibilityChange{CustomerId: "d", After: answer("d", allowed, late), Initial: true})
	p.reports(t, "d", placed)
	p.kill()
	p = startPipeline(t, s.address, dir, orders)
	w = s.opened(t)
	if w.GetResumeToken() != "" {
		t.Errorf("goes on from %q, without the answers that have not come", w.GetResumeToken())
	}

	// A customer without a current answer is checked once.
	w.send(t, "1", &eligibilityv1.WatchProgress{InitialComplete: true})
	p.reports(t, "o", due)
	p.reports(t, "o", parked)
	w = s.opened(t) // another one, since the order was not parked for a while
	w.send(t, "2", &eligibilityv1.EligibilityChange{CustomerId: "c", After: answer("c", underReview, early), Initial: true})
	w.send(t, "3", &eligibilityv1.WatchProgress{InitialComplete: true})
	w.send(t, "4", &eligibilityv1.WatchEnd{Reason: eligibilityv1.WatchEnd_REASON_MAX_AGE})
	w.ended <- nil

	// It goes on where it was after each end, after a kill, too.
	for _, end := range []error{nil, failure(codes.Unavailable, "UNAVAILABLE"), failure(codes.ResourceExhausted, "OVERLOADED")} {
		w = s.opened(t)
		if w.GetResumeToken() != "4" {
			t.Errorf("goes on from %q", w.GetResumeToken())
		}
		w.ended <- end
	}
	p.kill()
	p = startPipeline(t, s.address, dir, orders)
	for w = s.opened(t); w.stream.Context().Err() != nil; w = s.opened(t) { // of the one that was killed
		if w.GetResumeToken() != "4" {
			t.Errorf("goes on from %q", w.GetResumeToken())
		}
	}
	if w.GetResumeToken() != "4" {
		t.Errorf("goes on from %q after a kill", w.GetResumeToken())
	}

	// A token of no use is given up, and the current answers are as good as changes.
	w.ended <- failure(codes.OutOfRange, "RESUME_TOKEN_EXPIRED")
	w = s.opened(t)
	if w.GetResumeToken() != "" {
		t.Errorf("goes on from %q, which has expired", w.GetResumeToken())
	}
	for range 3 { // as often as it may come
		w.send(t, "5", &eligibilityv1.EligibilityChange{CustomerId: "c", After: answer("c", allowed, early), Initial: true, ObserveTime: late})
	}
	p.ends(t)
	if got := placements(t, dir); len(got) != 2 || got["o"] != 1 || got["d"] != 1 {
		t.Errorf("placed: %v", got)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(atLeast) != 3 || !atLeast[2].AsTime().Equal(late.AsTime()) {
		t.Errorf("checks with min_evidence_time %v", atLeast)
	}
}

// Once the token after a change is stored, the change does not come again. The order
// that it made due is checked all the same after a crash.
func TestAChangeIsNotLostInACrash(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 10)
	var answers atomic.Bool // to checks after the change
	s := startService(t, func(q *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
		switch {
		case q.GetMinEvidenceTime() == nil:
			return answer("c", underReview, early), nil
		case answers.Load():
			return answer("c", allowed, late), nil
		}
		asked <- struct{}{}
		return nil, failure(codes.Unavailable, "PARTNER_CENTER_UNAVAILABLE")
	})
	dir := t.TempDir()
	orders := `{"id":"o","customer_id":"c"}` + "\n"
	p := startPipeline(t, s.address, dir, orders)
	w := s.opened(t)
	w.send(t, "1", &eligibilityv1.EligibilityChange{CustomerId: "c", After: answer("c", underReview, early), Initial: true})
	w.send(t, "2", &eligibilityv1.WatchProgress{InitialComplete: true})
	w.send(t, "3", &eligibilityv1.EligibilityChange{CustomerId: "c", After: answer("c", allowed, late)})
	w.send(t, "4", &eligibilityv1.WatchProgress{InitialComplete: true})
	<-asked
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); ; {
		journal, err := os.ReadFile(filepath.Join(dir, "journal.jsonl"))
		if err == nil && strings.Contains(string(journal), `"token":"4"`) {
			break
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("the token was not stored: %s", journal)
		}
	}
	p.kill()
	answers.Store(true)
	startPipeline(t, s.address, dir, orders).ends(t)
	if got := placements(t, dir); len(got) != 1 || got["o"] != 1 {
		t.Errorf("placed: %v", got)
	}
}

// The order system gets an order twice after a crash between the placing and the record
// of it, and takes it once.
func TestAnOrderIsPlacedOnceForItsKey(t *testing.T) {
	t.Parallel()
	s := startService(t, func(q *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
		return answer(q.GetCustomerId(), allowed, early), nil
	})
	dir := t.TempDir()
	orders := `{"id":"o","customer_id":"c"}` + "\n"
	startPipeline(t, s.address, dir, orders).ends(t)
	if err := os.WriteFile(filepath.Join(dir, "journal.jsonl"), []byte(`{"order":{"id":"o","customer_id":"c","state":"due"}}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	startPipeline(t, s.address, dir, orders).ends(t)
	if got := placements(t, dir); len(got) != 1 || got["o"] != 1 {
		t.Errorf("placed: %v", got)
	}
}

func TestADirectoryHasOnePipeline(t *testing.T) {
	t.Parallel()
	s := startService(t, func(*eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
		return answer("c", underReview, early), nil
	})
	dir := t.TempDir()
	p := startPipeline(t, s.address, dir, `{"id":"o","customer_id":"c"}`+"\n")
	p.reports(t, "o", parked)
	second := startPipeline(t, s.address, dir, "")
	for range second.lines { // until it has ended
	}
	if err := second.cmd.Wait(); err == nil {
		t.Error("a second one uses the same directory")
	}
}
