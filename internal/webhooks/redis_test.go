package webhooks_test

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/webhooks"
)

// fleet is several senders of one webhook that share a real Redis.
type fleet struct {
	server   *cachetest.Redis
	feed     *feed
	receiver *receiver
	stores   []*replicaStore
	senders  []*webhooks.Sender
	stops    []func()
}

// replicaStore is the store of one process, which a test can cut off.
type replicaStore struct {
	*cache.Webhooks

	cut    atomic.Bool // its process is dead, or its network
	paused chan struct{}
	stop   atomic.Bool // calls wait for paused
}

var errCut = errors.New("cut off")

func (s *replicaStore) enter() error {
	if s.stop.Load() {
		<-s.paused
	}
	if s.cut.Load() {
		return errCut
	}
	return nil
}

func (s *replicaStore) Acquire(ctx context.Context, name, holder string, life time.Duration, oldest time.Time) (webhooks.Status, error) {
	if err := s.enter(); err != nil {
		return webhooks.Status{}, err
	}
	return s.Webhooks.Acquire(ctx, name, holder, life, oldest)
}

func (s *replicaStore) Commit(ctx context.Context, name, holder string, commit webhooks.Commit) error {
	if err := s.enter(); err != nil {
		return err
	}
	return s.Webhooks.Commit(ctx, name, holder, commit)
}

func (s *replicaStore) Release(ctx context.Context, name, holder string) error {
	if err := s.enter(); err != nil {
		return err
	}
	return s.Webhooks.Release(ctx, name, holder)
}

func startFleet(t *testing.T, size int) *fleet {
	t.Helper()
	f := &fleet{server: cachetest.StartRedis(t), feed: newFeed(), receiver: &receiver{}}
	for range size {
		cfg := cache.RedisConfig{Addresses: []string{f.server.Address}, Namespace: "test", IntegrityKey: []byte("0123456789abcdef0123456789abcdef")}
		client, err := cache.NewClient(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
		w, err := cache.NewWebhooksOn(cfg, client, nil)
		if err != nil {
			t.Fatal(err)
		}
		store := &replicaStore{Webhooks: w, paused: make(chan struct{})}
		s := webhooks.New(configOf(f.feed, store))
		s.SetTransport(f.receiver)
		f.stores, f.senders = append(f.stores, store), append(f.senders, s)
		f.stops = append(f.stops, start(t, s))
	}
	await(t, "one holds the lease", func() bool { return f.holder(t) >= 0 && f.feed.followed() > 0 })
	await(t, "the first position is stored", func() bool { return f.state(t).Position != "" })
	return f
}

func (f *fleet) status(t *testing.T) webhooks.Status {
	t.Helper()
	for _, store := range f.stores {
		if !store.cut.Load() {
			status, err := store.Inspect(t.Context(), name)
			if err != nil {
				return webhooks.Status{}
			}
			return status
		}
	}
	return webhooks.Status{}
}

func (f *fleet) state(t *testing.T) webhooks.State {
	t.Helper()
	return webhooks.ParseState(f.status(t).State)
}

// holder is the place of the sender that holds the lease, or -1.
func (f *fleet) holder(t *testing.T) int {
	t.Helper()
	holder := f.status(t).Holder
	for n, s := range f.senders {
		if s.Holder() == holder {
			return n
		}
	}
	return -1
}

// expect waits until all changes written so far were accepted, and checks that the
// first times are in order for each customer.
func (f *fleet) expect(t *testing.T, what string) {
	t.Helper()
	f.feed.mu.Lock()
	want := len(f.feed.events)
	f.feed.mu.Unlock()
	await(t, what, func() bool {
		accepted := map[string]bool{}
		for _, id := range f.receiver.accepted() {
			accepted[id] = true
		}
		return len(accepted) == want
	})
	last, seen := map[string]int{}, map[string]bool{}
	for _, got := range f.receiver.all() {
		if got.status != http.StatusOK || seen[got.id] {
			continue
		}
		seen[got.id] = true
		if number(got.id) < last[got.customer] {
			t.Errorf("%s: %s came late", what, got.id)
		}
		last[got.customer] = number(got.id)
	}
}

func (f *fleet) addSome() {
	for n := range 200 {
		f.feed.add(n % 20)
	}
}

func TestOneOfTwoReplicasSendsAndTheOtherTakesOver(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 2)
	f.addSome()
	f.expect(t, "two replicas")
	if n := len(f.receiver.all()); n != 200 {
		t.Errorf("%d requests for 200 changes", n)
	}
	f.stops[f.holder(t)]()
	f.addSome()
	f.expect(t, "the holder has stopped")
	if n := len(f.receiver.all()); n != 400 {
		t.Errorf("%d requests for 400 changes: an orderly end repeats none", n)
	}
}

func TestAnotherTakesOverWithinSecondsWhenTheHolderIsKilled(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 2)
	first := f.holder(t)
	f.addSome()
	f.expect(t, "before")
	f.stores[first].cut.Store(true) // what it does in Redis from now on does not happen
	f.stops[first]()
	killed := time.Now()
	f.addSome()
	f.expect(t, "the holder was killed")
	if took := time.Since(killed); took > webhooks.LeaseLife+20*time.Second {
		t.Errorf("the other took over after %v", took)
	}
	if second := f.holder(t); second == first {
		t.Error("the holder is dead")
	}
}

// A process that is paused for longer than the lease finds another holder when it
// goes on. What it has sent meanwhile may come twice; its position does not count.
func TestAPausedHolderDoesNotMoveThePosition(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 2)
	first := f.holder(t)
	f.stores[first].stop.Store(true)
	await(t, "the other holds the lease", func() bool { return f.other(t, first) })
	f.addSome()
	f.expect(t, "the holder is paused")
	await(t, "the position is stored", func() bool { return f.positionBy(t, 1-first) == "200" })
	f.stores[first].stop.Store(false)
	close(f.stores[first].paused)
	f.addSome()
	f.expect(t, "the paused one goes on")
	await(t, "the position is stored", func() bool { return f.positionBy(t, 1-first) == "400" })
	if f.other(t, first) == false {
		t.Error("the paused one has the lease again")
	}
}

// other reports whether another sender than first holds the lease.
func (f *fleet) other(t *testing.T, first int) bool {
	t.Helper()
	status, err := f.stores[1-first].Inspect(t.Context(), name)
	return err == nil && status.Holder == f.senders[1-first].Holder()
}

func (f *fleet) positionBy(t *testing.T, n int) string {
	t.Helper()
	status, err := f.stores[n].Inspect(t.Context(), name)
	if err != nil {
		return ""
	}
	return webhooks.ParseState(status.State).Position
}

func TestRedisIsKilledAndComesBackEmpty(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 2)
	f.receiver.set(func(got received) (int, http.Header, error) {
		if got.customer == customer(19).String() {
			return http.StatusInternalServerError, nil, nil
		}
		return http.StatusOK, nil, nil
	})
	f.addSome()
	await(t, "the changes of one customer are parked", func() bool { return f.status(t).Parked == 10 })
	await(t, "and the position has passed them", func() bool { return f.state(t).Position == "200" })
	f.server.Kill()
	f.addSome()
	f.server.Start()
	await(t, "the parked changes are stored again", func() bool { return f.status(t).Parked >= 10 })
	f.receiver.set(nil)
	f.expect(t, "redis is back")
	await(t, "the position is stored", func() bool {
		n, _ := strconv.Atoi(f.state(t).Position)
		return n == 400
	})
}

func TestRedisStallsForLongerThanALease(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 2)
	f.addSome()
	f.expect(t, "before")
	f.server.Stall()
	f.addSome()
	stalled := time.Now()
	await(t, "the lease is over", func() bool { return time.Since(stalled) > webhooks.LeaseLife+time.Second })
	f.server.Resume()
	f.expect(t, "redis goes on")
}
