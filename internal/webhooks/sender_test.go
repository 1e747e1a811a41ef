package webhooks_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/webhooks"
)

// rig is a sender over fakes, in a bubble of its own time.
type rig struct {
	feed     *feed
	store    *webhooks.Memory
	receiver *receiver
	stop     func()
}

func inBubble(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{feed: newFeed(), store: webhooks.NewMemory(), receiver: &receiver{}}
		r.restart(t)
		synctest.Wait() // a new webhook begins with what is written from now on
		test(t, r)
		r.stop()
	})
}

// restart starts the sender, again if it runs.
func (r *rig) restart(t *testing.T) {
	t.Helper()
	if r.stop != nil {
		r.stop()
	}
	s := webhooks.New(configOf(r.feed, r.store))
	s.SetTransport(r.receiver)
	r.stop = start(t, s)
}

// pass lets time pass.
func pass(d time.Duration) {
	time.Sleep(d) // of the bubble
	synctest.Wait()
}

func TestEachChangeIsSentOnce(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *rig) {
		var want []string
		for n := range 1000 {
			want = append(want, r.feed.add(n%50))
		}
		pass(time.Second)
		got := r.receiver.accepted()
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		pass(2 * time.Second)
		if state := r.store.Current(name); state.Position != "1000" {
			t.Errorf("position %s", state.Position)
		}
		r.restart(t)
		pass(time.Minute)
		if n := len(r.receiver.all()); n != 1000 {
			t.Errorf("%d requests after a restart", n)
		}
	})
}

func TestOneRequestForEachCustomerAndSomeCustomersAtOnce(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *rig) {
		r.receiver.delay = time.Second
		for n := range 100 {
			r.feed.add(n % 10)
		}
		pass(time.Minute)
		if n := len(r.receiver.accepted()); n != 100 {
			t.Errorf("%d were sent", n)
		}
		if r.receiver.most != webhooks.Concurrency || r.receiver.overlaps != 0 {
			t.Errorf("%d at once, %d of them of one customer", r.receiver.most, r.receiver.overlaps)
		}
	})
}

func TestACustomerWhoseChangeFailsKeepsItsOrderAndDelaysNoOther(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *rig) {
		r.receiver.set(func(got received) (int, http.Header, error) {
			if got.customer == customer(1).String() {
				return http.StatusBadRequest, nil, nil
			}
			return http.StatusOK, nil, nil
		})
		first := r.feed.add(1)
		var others []string
		for n := range 20 {
			r.feed.add(1)
			others = append(others, r.feed.add(n+2))
		}
		pass(2 * time.Second)
		if got := r.receiver.accepted(); len(got) != len(others) {
			t.Errorf("%d changes of others were sent", len(got))
		}
		if parked, _ := r.store.Letters(name); len(parked) != 21 {
			t.Errorf("%d changes are parked", len(parked))
		}
		if state := r.store.Current(name); state.Position != "41" {
			t.Errorf("the position is %s: the parked changes keep it", state.Position)
		}
		for _, got := range r.receiver.all() {
			if got.customer == customer(1).String() && got.id != first {
				t.Errorf("%s was tried before %s", got.id, first)
			}
		}
		r.restart(t) // the parked changes outlive the holder
		r.receiver.set(nil)
		pass(2 * time.Hour)
		var got []string
		for _, id := range r.receiver.accepted() {
			if strings.HasPrefix(id, "1-") {
				got = append(got, id)
			}
		}
		if len(got) != 21 || !slices.IsSortedFunc(got, func(a, b string) int { return number(a) - number(b) }) {
			t.Errorf("order of the customer: %v", got)
		}
		if parked, dead := r.store.Letters(name); len(parked)+len(dead) != 0 {
			t.Errorf("%d changes are parked, %d dead", len(parked), len(dead))
		}
	})
}

func number(id string) (n int) {
	_, _ = fmt.Sscan(id[strings.IndexByte(id, '-')+1:], &n)
	return n
}

func TestRetriesBackOffForThreeDays(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *rig) {
		r.receiver.set(func(got received) (int, http.Header, error) {
			if got.customer == customer(1).String() {
				return http.StatusInternalServerError, nil, nil
			}
			return http.StatusOK, nil, nil
		})
		id := r.feed.add(1)
		for n := range 60 + 80*2 {
			r.feed.add(2) // others are delivered: only this one fails
			if n < 60 {
				pass(time.Minute)
			} else {
				pass(30 * time.Minute)
			}
		}
		var times []time.Time
		for _, got := range r.receiver.all() {
			if got.id == id {
				times = append(times, got.at)
			}
		}
		for i := 1; i < len(times); i++ {
			gap, most := times[i].Sub(times[i-1]), min(5*time.Second<<min(i-1, 12), time.Hour)
			if gap < most*8/10 || gap > most+2*time.Second {
				t.Errorf("attempt %d after %v, want about %v", i+1, gap, most)
			}
		}
		if n := len(times); n < 72 || n > 110 {
			t.Errorf("%d attempts", n)
		}
		if last := times[len(times)-1].Sub(times[0]); last < webhooks.GiveUpAfter || last > webhooks.GiveUpAfter+time.Hour {
			t.Errorf("the last attempt is %v after the first", last)
		}
		parked, dead := r.store.Letters(name)
		if len(parked) != 0 || len(dead) != 1 || dead[0].ID != id || dead[0].Attempts != len(times) || !strings.Contains(string(dead[0].Body), id) {
			t.Errorf("parked %v, dead %v", parked, dead)
		}
	})
}

func TestAWebhookThatFailsAsAWholeBacksOffAndRecovers(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *rig) {
		r.receiver.set(func(received) (int, http.Header, error) { return 0, nil, errBroken })
		for n := range 1000 {
			r.feed.add(n)
		}
		pass(time.Second)
		burst := len(r.receiver.all())
		if burst < webhooks.FailuresInARow || burst > webhooks.FailuresInARow+webhooks.Concurrency {
			t.Errorf("%d requests in the first second", burst)
		}
		pass(24 * time.Hour)
		all := r.receiver.all()
		if n := len(all) - burst; n < 24 || n > 48 {
			t.Errorf("%d requests in a day", n)
		}
		for i := burst + 12; i < len(all); i++ {
			if gap := all[i].at.Sub(all[i-1].at); gap > webhooks.LastRetry+2*time.Second || gap < webhooks.LastRetry/2 {
				t.Errorf("a gap of %v", gap)
			}
		}
		r.receiver.set(nil)
		pass(webhooks.LastRetry + time.Minute)
		if n := len(r.receiver.accepted()); n != 1000 {
			t.Errorf("%d changes were sent after the recovery", n)
		}
	})
}

// A change that always fails must not be the one by which a webhook is probed forever.
func TestAPoisonousChangeDoesNotKeepTheWebhookBackedOff(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *rig) {
		r.receiver.set(always(http.StatusBadGateway))
		for n := range 20 {
			r.feed.add(n)
		}
		pass(time.Minute)
		r.receiver.set(func(got received) (int, http.Header, error) {
			if got.customer == customer(0).String() {
				return http.StatusBadGateway, nil, nil
			}
			return http.StatusOK, nil, nil
		})
		pass(10 * time.Minute)
		if n := len(r.receiver.accepted()); n != 19 {
			t.Errorf("%d changes were sent", n)
		}
	})
}

func TestRetryAfterPausesTheWebhook(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *rig) {
		r.receiver.set(func(received) (int, http.Header, error) {
			return http.StatusTooManyRequests, http.Header{"Retry-After": {"600"}}, nil
		})
		r.feed.add(1)
		pass(time.Second)
		r.feed.add(2)
		pass(9 * time.Minute)
		if n := len(r.receiver.all()); n != 1 {
			t.Errorf("%d requests during the pause", n)
		}
		r.receiver.set(nil)
		pass(time.Minute + 2*time.Second)
		if n := len(r.receiver.accepted()); n != 2 {
			t.Errorf("%d changes after the pause", n)
		}
	})
}

func TestAGoneURLDisablesTheWebhook(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *rig) {
		r.receiver.set(always(http.StatusGone))
		r.feed.add(1)
		pass(2 * time.Second)
		r.receiver.set(nil)
		r.feed.add(2)
		pass(time.Hour)
		r.restart(t)
		pass(time.Hour)
		if n := len(r.receiver.all()); n != 1 {
			t.Errorf("%d requests", n)
		}
		cfg := configOf(r.feed, r.store)
		cfg.URL += "/new"
		r.stop()
		s := webhooks.New(cfg)
		s.SetTransport(r.receiver)
		r.stop = start(t, s)
		pass(5 * time.Second)
		if diff := cmp.Diff([]string{"1-1", "2-2"}, sorted(r.receiver.accepted())); diff != "" {
			t.Errorf("another URL (-want +got):\n%s", diff)
		}
	})
}

// sorted returns ids of changes of different customers, which have no order.
func sorted(ids []string) []string { return slices.Sorted(slices.Values(ids)) }

func TestChangesThatAreNoLongerKept(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *rig) {
		r.feed.add(1)
		pass(2 * time.Second)
		r.stop()
		for n := range 10 {
			r.feed.add(n)
		}
		r.feed.trim(5)
		r.restart(t)
		pass(5 * time.Second)
		if diff := cmp.Diff([]string{"1-1", "5-7", "6-8", "7-9", "8-10", "9-11"}, sorted(r.receiver.accepted())); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestAWindowThatCouldNotBeOfferedIsBuriedAfterThreeDays(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *rig) {
		r.receiver.set(always(http.StatusServiceUnavailable))
		for n := range 1000 {
			r.feed.add(n)
		}
		pass(3 * time.Hour)
		r.stop()
		pass(webhooks.GiveUpAfter)
		r.restart(t)
		pass(3 * time.Hour)
		if _, dead := r.store.Letters(name); len(dead) < 900 {
			t.Errorf("%d dead letters", len(dead))
		}
	})
}

func TestDeadLettersAreBounded(t *testing.T) {
	t.Parallel()
	m := webhooks.NewMemory()
	if _, err := m.Acquire(t.Context(), name, "me", time.Hour, time.Time{}); err != nil {
		t.Fatal(err)
	}
	for n := range webhooks.MaxDead + 3 {
		record := webhooks.Record{ID: fmt.Sprint(n), Order: int64(n), Value: []byte("{}")}
		if err := m.Commit(t.Context(), name, "me", webhooks.Commit{Bury: []webhooks.Record{record}}); err != nil {
			t.Fatal(err)
		}
	}
	status, err := m.Acquire(t.Context(), name, "me", time.Hour, time.Time{})
	if err != nil || status.Dead != webhooks.MaxDead || status.Dropped != 3 {
		t.Errorf("%+v, error %v", status, err)
	}
}
