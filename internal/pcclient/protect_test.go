package pcclient_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/pcclient"
)

//
// A 429 right after a pause says that waiting was not enough.
func TestASecond429InARowPausesLonger(t *testing.T) {
	t.Parallel()
	r := start(t, setup{api: says(http.StatusTooManyRequests, "", "Retry-After: 2")})
	first := r.askInVain(pcclient.ClassThrottled, pcclient.ReasonThrottled).RetryAfter
	if first != 2*time.Second {
		t.Fatalf("first pause %v, want what was asked for", first)
	}
	// Full jitter can add next to nothing once, but not every time.
	longest := time.Duration(0)
	for range 8 {
		r.clock.advance(10 * time.Minute)
		longest = max(longest, r.askInVain(pcclient.ClassThrottled, pcclient.ReasonThrottled).RetryAfter)
	}
	if longest < 20*time.Second || longest > 10*time.Minute {
		t.Errorf("longest of eight further pauses %v, want it to have grown and to stay within 10m", longest)
	}
}

func TestAnAnswerEndsTheRowOf429s(t *testing.T) {
	t.Parallel()
	throttled := says(http.StatusTooManyRequests, "", "Retry-After: 2")
	var script inTurn
	for range 20 {
		script = append(script, throttled, says(http.StatusOK, allowed))
	}
	r := start(t, setup{api: script.play})
	for range 20 {
		if got := r.askInVain(pcclient.ClassThrottled, pcclient.ReasonThrottled).RetryAfter; got != 2*time.Second {
			t.Fatalf("pause %v, want 2s: the 429 before it was answered since", got)
		}
		r.clock.advance(10 * time.Minute)
		r.ask()
	}
}

func TestBreakerOpensOnInfrastructureAndLetsOneProbeThrough(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	broken.Store(true)
	probing, goOn := make(chan struct{}, 1), make(chan struct{})
	r := start(t, setup{api: func(w http.ResponseWriter, q *http.Request, n int) {
		if n > 10 {
			probing <- struct{}{}
			<-goOn
		}
		if broken.Load() {
			says(http.StatusBadGateway, `{"isRetryable":false}`)(w, q, n)
			return
		}
		says(http.StatusOK, allowed)(w, q, n)
	}})
	for range 10 {
		r.askInVain(pcclient.ClassUnavailable, pcclient.ReasonServerError)
	}
	fail := r.askInVain(pcclient.ClassUnavailable, pcclient.ReasonBreaker)
	if fail.RetryAfter <= 0 || fail.Attempts != 0 {
		t.Errorf("open: retry after %v, %d attempts", fail.RetryAfter, fail.Attempts)
	}
	if !r.shows("breaker_open 1") {
		t.Error("the metric does not show it")
	}

	// The probe is under way: nobody else goes.
	r.clock.advance(time.Second)
	probe := make(chan error, 1)
	go func() {
		_, _, err := r.Client.ValidationStatus(context.Background(), customerID)
		probe <- err
	}()
	<-probing
	r.askInVain(pcclient.ClassUnavailable, pcclient.ReasonBreaker)
	goOn <- struct{}{}
	failure(t, <-probe, pcclient.ClassUnavailable, pcclient.ReasonServerError)

	// It failed: open again, for twice as long. The next one succeeds.
	r.clock.advance(time.Second)
	r.askInVain(pcclient.ClassUnavailable, pcclient.ReasonBreaker)
	r.clock.advance(time.Second)
	broken.Store(false)
	close(goOn)
	r.ask()
	<-probing
	r.ask()
	if !r.shows("breaker_open 0") {
		t.Error("the metric still shows it open")
	}
}

func TestProbesAreAtMostFiveSecondsApart(t *testing.T) {
	t.Parallel()
	r := start(t, setup{api: says(http.StatusBadGateway, `{"isRetryable":false}`)})
	for range 10 {
		r.askInVain(pcclient.ClassUnavailable, pcclient.ReasonServerError)
	}
	for range 20 {
		if fail := r.askInVain(pcclient.ClassUnavailable, pcclient.ReasonBreaker); fail.RetryAfter > 5*time.Second {
			t.Fatalf("retry after %v", fail.RetryAfter)
		}
		r.clock.advance(5 * time.Second)
		r.askInVain(pcclient.ClassUnavailable, pcclient.ReasonServerError)
	}
}

// In an outage the replays spend the budget, so that hardly a question gets to
// its last attempt.
func TestBreakerOpensWhereTheBudgetEndsTheReplays(t *testing.T) {
	t.Parallel()
	r := start(t, setup{api: says(http.StatusBadGateway, ""), config: budget(20)})
	for range 10 {
		r.clock.advance(3 * time.Second) // for one attempt, and not for another
		r.askInVain(pcclient.ClassThrottled, pcclient.ReasonBudget)
	}
	r.askInVain(pcclient.ClassUnavailable, pcclient.ReasonBreaker)
}

func TestBreakerStaysClosedWhileThereAreAnswers(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]answerer{
		"not found":        says(http.StatusNotFound, `{"code":60003}`),
		"forbidden":        says(http.StatusForbidden, `{"code":900308}`),
		"unreadable":       says(http.StatusOK, "<html>"),
		"not implemented":  says(http.StatusNotImplemented, ""),
		"every ninth well": inTurn{}.play,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "every ninth well" {
				answer = func(w http.ResponseWriter, q *http.Request, n int) {
					if n%10 == 0 {
						says(http.StatusOK, allowed)(w, q, n)
						return
					}
					says(http.StatusBadGateway, `{"isRetryable":false}`)(w, q, n)
				}
			}
			r := start(t, setup{api: answer, config: budget(100_000)})
			for range 50 {
				_, _, err := r.Client.ValidationStatus(t.Context(), customerID)
				var fail *pcclient.APIError
				if errors.As(err, &fail) && fail.Reason == pcclient.ReasonBreaker {
					t.Fatal("open")
				}
			}
		})
	}
}

// Background requests leave half of the burst alone, so an urgent one never
// queues behind them; and they get all that is left.
func TestUrgentRequestsNeverQueueBehindTheBackground(t *testing.T) {
	t.Parallel()
	r := start(t, setup{api: says(http.StatusOK, allowed), config: budget(40)}) // a burst of 4
	background := r.Client.WithPriority(eligibility.NewPriority(eligibility.LaneBackground))
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	went := 0
	for range 8 {
		if _, _, err := background.ValidationStatus(short(), customerID); err == nil {
			went++
		} else {
			failure(t, err, pcclient.ClassThrottled, pcclient.ReasonBudget)
		}
	}
	if went != 2 {
		t.Errorf("%d background requests went, want half the burst", went)
	}
	r.ask()
	r.ask()
	r.askInVain(pcclient.ClassThrottled, pcclient.ReasonBudget)
}

func TestABackgroundRequestGoesOnceItIsUrgent(t *testing.T) {
	t.Parallel()
	r := start(t, setup{api: says(http.StatusOK, allowed), config: budget(20)}) // a burst of 2
	priority := eligibility.NewPriority(eligibility.LaneBackground)
	if _, _, err := r.Client.WithPriority(priority).ValidationStatus(t.Context(), customerID); err != nil {
		t.Fatal(err)
	}
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if _, _, err := r.Client.WithPriority(priority).ValidationStatus(t.Context(), customerID); err != nil {
			t.Error(err)
		}
	})
	priority.Raise(eligibility.LaneCheckout)
	waiting.Wait() // the clock stands still: only the reserve could serve it
	r.counts(1, 2)
}
