package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// nightly is n distinct customer IDs.
func nightly(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("cccccccc-0000-4000-8000-%012x", i)
	}
	return ids
}

func allowing(id string) *eligibilityv1.BatchCheckEligibilityResult {
	return &eligibilityv1.BatchCheckEligibilityResult{Result: &eligibilityv1.BatchCheckEligibilityResult_Response{
		Response: &eligibilityv1.CheckEligibilityResponse{CustomerId: id, Decision: eligibilityv1.Decision_DECISION_ALLOWED},
	}}
}

func refusing(code codes.Code, reason string, after time.Duration) *eligibilityv1.BatchCheckEligibilityResult {
	result := failed(code, reason, "m")
	if after > 0 {
		result.GetError().RetryAfter = durationpb.New(after)
	}
	return result
}

// undecidable is a block under policy.when_undecidable: block.
func undecidable(id string) *eligibilityv1.BatchCheckEligibilityResult {
	result := allowing(id)
	result.GetResponse().Decision = eligibilityv1.Decision_DECISION_BLOCKED
	result.GetResponse().Reasons = []*eligibilityv1.Reason{{Code: eligibilityv1.ReasonCode_REASON_CODE_UNDECIDABLE}}
	result.GetResponse().RecheckTime = timestamppb.New(time.Now().Add(time.Second))
	return result
}

// firstAsked gives some customers another answer when they are asked about first,
// and counts how often each is.
type firstAsked struct {
	mu    sync.Mutex
	asked map[string]int
	first func(id string, place int) *eligibilityv1.BatchCheckEligibilityResult // nil allows
}

func (f *firstAsked) answer(id string) *eligibilityv1.BatchCheckEligibilityResult {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked[id]++
	var place int
	_, _ = fmt.Sscanf(id[24:], "%x", &place)
	if f.asked[id] == 1 {
		if result := f.first(id, place); result != nil {
			return result
		}
	}
	return allowing(id)
}

// Those who cannot be answered for now are asked about again, and only those; each
// customer has one line, in the order of the list.
func TestCheckAsksAgainAboutThoseThatCannotBeAnsweredForNow(t *testing.T) {
	t.Parallel()
	again := map[int]func(id string) *eligibilityv1.BatchCheckEligibilityResult{
		1: func(string) *eligibilityv1.BatchCheckEligibilityResult {
			return refusing(codes.Unavailable, "PARTNER_CENTER_THROTTLED", time.Second)
		},
		2: func(string) *eligibilityv1.BatchCheckEligibilityResult {
			return refusing(codes.DeadlineExceeded, "DEADLINE_EXCEEDED", time.Second)
		},
		3: func(string) *eligibilityv1.BatchCheckEligibilityResult {
			return refusing(codes.ResourceExhausted, "OVERLOADED", time.Millisecond)
		},
		4: undecidable,
	}
	final := func(string) *eligibilityv1.BatchCheckEligibilityResult {
		return refusing(codes.Unavailable, "PARTNER_CENTER_CREDENTIALS", 0)
	}
	customers := &firstAsked{asked: make(map[string]int), first: func(id string, place int) *eligibilityv1.BatchCheckEligibilityResult {
		switch kind := place % 100; {
		case again[kind] != nil:
			return again[kind](id)
		case kind == 5:
			return final(id)
		default:
			return nil
		}
	}}
	address := serveBatchesOf(t, batchServer{fault: func() error { return nil }, answer: customers.answer})
	ids := nightly(350)
	code, out, errOut := runCommand(t, strings.Join(ids, "\n"), "check", "--json", "--address", address, "-")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != exitUndecided || errOut != "" || len(lines) != len(ids) {
		t.Fatalf("exit code %d, %d lines, %s", code, len(lines), errOut)
	}
	for place, line := range lines {
		wantAsked, want := 1, ids[place]
		switch kind := place % 100; {
		case again[kind] != nil:
			wantAsked = 2
		case kind == 5:
			want = "PARTNER_CENTER_CREDENTIALS"
		}
		if !strings.Contains(line, want) || !strings.Contains(line, ids[place]) || customers.asked[ids[place]] != wantAsked {
			t.Errorf("line %d, asked %d times: %s", place, customers.asked[ids[place]], line)
		}
	}
	// One by one, nobody waits: a person has asked.
	customers.asked = make(map[string]int)
	if code, out, _ := runCommand(t, "", "check", "--json", "--address", address, ids[1]); code != exitUndecided || !strings.Contains(out, "THROTTLED") {
		t.Errorf("exit code %d, %s", code, out)
	}
}

// A service that is overloaded, restarted or too slow in the middle of a list is
// asked again; one that was never there is not.
func TestCheckSurvivesARestartOfTheService(t *testing.T) {
	t.Parallel()
	overloaded, err := status.New(codes.ResourceExhausted, "m").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	address := serveBatches(t, func() error {
		calls++
		switch calls {
		case 2:
			return overloaded.Err()
		case 3:
			return status.Error(codes.Unavailable, "restarting")
		case 4:
			return status.Error(codes.DeadlineExceeded, "slow")
		default:
			return nil
		}
	})
	code, out, errOut := runCommand(t, strings.Join(nightly(450), "\n"), "check", "--json", "--address", address, "-")
	if n := strings.Count(out, "DECISION_ALLOWED"); code != 0 || n != 450 || errOut != "" {
		t.Errorf("exit code %d, %d of 450 allowed, %s", code, n, errOut)
	}
}

// The run gives up on a customer after --retry-for, and continues with the others.
func TestCheckGivesUpAfterRetryFor(t *testing.T) {
	t.Parallel()
	ids := nightly(150)
	address := serveBatchesOf(t, batchServer{fault: func() error { return nil }, answer: func(id string) *eligibilityv1.BatchCheckEligibilityResult {
		if id == ids[7] {
			return refusing(codes.Unavailable, "PARTNER_CENTER_UNAVAILABLE", time.Second)
		}
		return allowing(id)
	}})
	code, out, errOut := runCommand(t, strings.Join(ids, "\n"), "check", "--json", "--address", address, "--retry-for", "2s", "-")
	if n := strings.Count(out, "DECISION_ALLOWED"); code != exitUndecided || n != 149 || !strings.Contains(strings.Split(out, "\n")[7], "PARTNER_CENTER_UNAVAILABLE") || errOut != "" {
		t.Errorf("exit code %d, %d allowed, %s", code, n, errOut)
	}
}

// In an outage that lasts, a long list takes --retry-for once, not for each chunk.
func TestCheckGivesUpInAnOutage(t *testing.T) {
	t.Parallel()
	ids := nightly(3000)
	for name, server := range map[string]func() batchServer{
		"of the service": func() batchServer {
			calls := 0
			return batchServer{answer: allowing, fault: func() error {
				calls++
				if calls > 1 {
					return status.Error(codes.Unavailable, "gone")
				}
				return nil
			}}
		},
		"of Partner Center": func() batchServer {
			return batchServer{fault: func() error { return nil }, answer: func(id string) *eligibilityv1.BatchCheckEligibilityResult {
				if id < ids[checkChunk] {
					return allowing(id)
				}
				return refusing(codes.Unavailable, "PARTNER_CENTER_UNAVAILABLE", time.Second)
			}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := serveBatchesOf(t, server())
			began := time.Now()
			code, out, _ := runCommand(t, strings.Join(ids, "\n"), "check", "--json", "--address", address, "--retry-for", "2s", "-")
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
			if n := strings.Count(out, "DECISION_ALLOWED"); code != exitUndecided || n != checkChunk || strings.Count(out, "\n") != len(ids) {
				t.Errorf("exit code %d, %d allowed, %d lines", code, n, strings.Count(out, "\n"))
			}
		})
	}
}

// An interrupted run prints a line for each customer, also for those that it has not
// asked about.
func TestCheckPrintsWhatIsLeftWhenItIsInterrupted(t *testing.T) {
	t.Parallel()
	ids := nightly(1000)
	ctx, interrupt := context.WithCancel(t.Context())
	var asked int
	address := serveBatchesOf(t, batchServer{fault: func() error { return nil }, answer: func(id string) *eligibilityv1.BatchCheckEligibilityResult {
		asked++
		if asked == 250 {
			interrupt()
		}
		if id == ids[3] {
			return refusing(codes.Unavailable, "PARTNER_CENTER_THROTTLED", time.Hour)
		}
		return allowing(id)
	}})
	root := newRootCommand()
	var out, errOut bytes.Buffer
	root.SetArgs([]string{"check", "--json", "--address", address, "--retry-for", "9h", "-"})
	root.SetIn(strings.NewReader(strings.Join(ids, "\n")))
	root.SetOut(&out)
	root.SetErr(&errOut)
	code := run(ctx, root)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if code != exitUndecided || len(lines) != len(ids) || !strings.Contains(lines[3], "THROTTLED") || !strings.Contains(errOut.String(), "of 1000 customers were not answered") {
		t.Fatalf("exit code %d, %d lines, %s", code, len(lines), errOut.String())
	}
	if allowed := strings.Count(out.String(), "DECISION_ALLOWED"); allowed < 199 || allowed > 299 {
		t.Errorf("%d allowed", allowed)
	}
}

// A customer who stays open holds back no more answers than the run keeps.
func TestCheckKeepsNoMoreThanItMay(t *testing.T) {
	t.Parallel()
	r := &checkRun{
		ids: nightly(maxAhead + 5000), retryFor: time.Hour, finished: make(map[int]outcome),
		printer: newPrinter(true, io.Discard), progress: newProgress(1, io.Discard),
	}
	address := serveBatchesOf(t, batchServer{fault: func() error { return nil }, answer: func(id string) *eligibilityv1.BatchCheckEligibilityResult {
		if id == r.ids[0] {
			return refusing(codes.Unavailable, "PARTNER_CENTER_UNAVAILABLE", time.Hour-time.Minute)
		}
		return allowing(id)
	}})
	conn := dialCheck(t, address)
	r.asker = asker{client: conn, timeout: time.Minute, question: &eligibilityv1.CheckEligibilityRequest{}}
	for r.next < maxAhead {
		if err := r.step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // a step that waits returns at once
	if err := r.step(ctx); err != nil || r.next != maxAhead || len(r.finished) != maxAhead-1 || r.printed != 0 {
		t.Errorf("%v: asked about %d, %d held back, %d printed", err, r.next, len(r.finished), r.printed)
	}
}

// A customer about whom Partner Center never answers does not hold up the list, as
// long as it answers about others.
func TestCheckGivesUpOnACustomerWhoAlwaysFails(t *testing.T) {
	t.Parallel()
	for name, others := range map[string]bool{"others are answered": true, "an outage": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &checkRun{
				ids: nightly(2), retryFor: time.Hour, finished: make(map[int]outcome),
				printer: newPrinter(true, io.Discard), progress: newProgress(1, io.Discard),
			}
			address := serveBatchesOf(t, batchServer{fault: func() error { return nil }, answer: func(id string) *eligibilityv1.BatchCheckEligibilityResult {
				if id == r.ids[0] || !others {
					return refusing(codes.Unavailable, "PARTNER_CENTER_UNAVAILABLE", time.Second)
				}
				return allowing(id)
			}})
			r.asker = asker{client: dialCheck(t, address), timeout: time.Minute, question: &eligibilityv1.CheckEligibilityRequest{}}
			var pause time.Duration
			for range maxTries {
				if r.printed == len(r.ids) {
					t.Fatal("given up too early")
				}
				for i := range r.open {
					pause = time.Until(r.open[i].due)
					r.open[i].due = time.Now()
				}
				if err := r.step(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if done := r.printed == len(r.ids); done != others || pause < time.Minute {
				t.Errorf("given up: %v; the last pause was %v", done, pause)
			}
		})
	}
}

func TestProgressShowsRateTimeLeftAndBudget(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var out bytes.Buffer
	p := newProgress(200_000, &out)
	p.now = func() time.Time { return now }
	p.samples[0].at, p.shown = now, now
	for minute := range 4 {
		now = now.Add(30 * time.Second)
		p.show(minute*390+200, 0, 400)
		now = now.Add(30 * time.Second)
		p.show((minute+1)*390, 7*minute, 400)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if want := "1560 of 200000 customers, 390 a minute, 8h29m0s left, the service may make 400 calls a minute, 21 to be asked about again"; len(lines) != 4 || lines[3] != want {
		t.Errorf("%d lines, the last %q, want %q", len(lines), lines[len(lines)-1], want)
	}
}

func TestCheckAsksForThePartnerAndTheOperation(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"--operation renewal":                      "OPERATION_RENEWAL",
		"--operation Seat-Reduction --partner eu":  "OPERATION_SEAT_REDUCTION eu",
		"--operation OPERATION_UPGRADE":            "OPERATION_UPGRADE",
		"--partner eu":                             "OPERATION_PURCHASE eu",
		"--operation unspecified":                  "exit 2",
		"--operation sale":                         "exit 2",
		"--partner us --operation=CANCELLATION":    "OPERATION_CANCELLATION us",
		"--segment education --operation purchase": "OPERATION_PURCHASE",
	} {
		var got string
		address := serveBatchesOf(t, batchServer{fault: func() error { return nil }, asked: func(q *eligibilityv1.CheckEligibilityRequest) {
			got = strings.TrimSpace(q.GetOperation().String() + " " + q.GetPartner())
		}})
		if code, _, _ := runCommand(t, "", append([]string{"check", "--address", address, allowedID}, strings.Fields(args)...)...); code != 0 {
			got = fmt.Sprintf("exit %d", code)
		}
		if got != want {
			t.Errorf("%s: asked %q, want %q", args, got, want)
		}
	}
}
