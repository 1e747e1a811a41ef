package cache_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// wantConfirmed compares the history of key with want: words, when they were first and
// last fetched and, behind "after", when the ones before were, if those are in it.
func wantConfirmed(t *testing.T, store *cache.Store, want ...string) {
	t.Helper()
	found, err := store.History(ctx, key.CustomerID)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, past := range found {
		word := fmt.Sprint(past.Evidence.StatusText, " ", past.Evidence.FetchTime.Sub(start))
		if !past.ConfirmedTime.IsZero() {
			word += fmt.Sprint(" to ", past.ConfirmedTime.Sub(start))
		}
		if !past.PreviousTime.IsZero() {
			word += fmt.Sprint(" after ", past.PreviousTime.Sub(start))
		}
		got = append(got, word)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
}

// When facts were last fetched is known for as long as the history, although the
// evidence has expired.
func TestConfirmationsOutliveTheEvidence(t *testing.T) {
	t.Parallel()
	const confirmed = ":confirmed"
	server := cachetest.StartRedis(t)
	client := server.Client()
	defer func() { _ = client.Close() }()
	store := newStore(t, at(server, start.Add(time.Hour)))
	shareAt(store, 1*time.Second, allowed)
	shareAt(store, 2*time.Second, blocked)
	client.PExpire(ctx, rawKey()+":history", time.Hour)
	for i := range 100 {
		shareAt(store, time.Duration(3+i)*time.Second, blocked)
	}
	for _, name := range []string{":history", confirmed} {
		if left := client.PTTL(ctx, rawKey()+name).Val(); left < 89*24*time.Hour || left > 90*24*time.Hour {
			t.Errorf("%s expires after %v", name, left)
		}
	}
	client.Del(ctx, rawKey())
	another := newStore(t, at(server, start.Add(time.Hour)))
	wantConfirmed(t, another, "NotAllowed 2s to 1m42s after 1s", "Allowed 1s")
	shareAt(another, 200*time.Second, blocked) // it stays known until when it was confirmed before
	shareAt(another, 201*time.Second, blocked)
	wantConfirmed(t, another, "NotAllowed 3m20s to 3m21s", "NotAllowed 2s to 1m42s after 1s", "Allowed 1s")
	shareAt(another, 202*time.Second, allowed)
	want := []string{"Allowed 3m22s after 3m21s", "NotAllowed 3m20s to 3m21s", "NotAllowed 2s to 1m42s after 1s", "Allowed 1s"}
	wantConfirmed(t, another, want...)
	good := client.Get(ctx, rawKey()+confirmed).Val()
	later := strings.Repeat("\x7f", 8) + good[8:]
	for what, bad := range map[string]string{
		"nothing": "", "another seal": good[:len(good)-1] + "x", "a time to come": later, "a short one": good[1:], "a long one": good + "x",
		"the value": client.Get(ctx, rawKey()).Val(), "a huge one": strings.Repeat("x", 1<<20),
	} {
		client.Set(ctx, rawKey()+confirmed, bad, 0)
		t.Log(what)
		wantConfirmed(t, another, want...)
	}
	client.Del(ctx, rawKey()+confirmed)
	client.LPush(ctx, rawKey()+confirmed, good)
	wantConfirmed(t, another, want...)
	client.Del(ctx, rawKey())
	shareAt(another, 203*time.Second, allowed) // over what is no string
	shareAt(another, 204*time.Second, allowed)
	want[0] = "Allowed 3m22s to 3m24s after 3m21s"
	wantConfirmed(t, another, want...)
}

// An entry that is lost makes nothing else wrong: neither are the facts before it
// confirmed by those after it, nor do they count as those that were replaced.
func TestALostEntryConfirmsNothing(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		lose func(entries []string) []string // newest first: Allowed 4, NotAllowed 2, Allowed 0
		want []string
	}{
		"none": {func(e []string) []string { return e }, []string{
			"Allowed 4s to 5s after 3s", "NotAllowed 2s to 3s after 1s", "Allowed 0s to 1s",
		}},
		"the one between":  {func(e []string) []string { return []string{e[0], e[2]} }, []string{"Allowed 4s to 5s", "Allowed 0s"}},
		"the newest":       {func(e []string) []string { return e[1:] }, []string{"NotAllowed 2s after 1s", "Allowed 0s to 1s"}},
		"the oldest":       {func(e []string) []string { return e[:2] }, []string{"Allowed 4s to 5s after 3s", "NotAllowed 2s to 3s after 1s"}},
		"all but one":      {func(e []string) []string { return e[1:2] }, []string{"NotAllowed 2s after 1s"}},
		"all but the last": {func(e []string) []string { return e[:1] }, []string{"Allowed 4s to 5s after 3s"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := cachetest.StartRedis(t)
			client := server.Client()
			defer func() { _ = client.Close() }()
			store := newStore(t, at(server, start.Add(time.Hour)))
			for i, fetched := range []func(time.Time) *eligibility.Evidence{allowed, allowed, blocked, blocked, allowed, allowed} {
				shareAt(store, time.Duration(i)*time.Second, fetched)
			}
			if name == "the newest" || name == "all but one" { // other facts than those of the newest that is left
				shareAt(store, 6*time.Second, allowed)
			}
			kept := row.lose(client.LRange(ctx, rawKey()+":history", 0, -1).Val())
			client.Del(ctx, rawKey()+":history")
			for _, entry := range kept {
				client.RPush(ctx, rawKey()+":history", entry)
			}
			wantConfirmed(t, store, row.want...)
		})
	}
}

// A confirmation that Redis does not keep is counted, and keeps no evidence out.
func TestARefusedConfirmationIsCounted(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	registry := prometheus.NewRegistry()
	cfg := at(server, start.Add(time.Hour))
	cfg.Redis.Username, cfg.Redis.Password, cfg.Registerer = "old", "word", registry
	store := newStore(t, cfg)
	setUser(t, []*cachetest.Redis{server}, []any{"old", "on", ">word", "~*", "&*", "+@all"})
	shareAt(store, 1*time.Second, allowed)
	setUser(t, []*cachetest.Redis{server}, []any{"old", "-pexpire"})
	shareAt(store, 2*time.Second, allowed)
	if found := load(newStore(t, at(server, start.Add(time.Hour)))); fetchTime(found) != "2s" {
		t.Errorf("stored: %+v", found)
	}
	if n := gathered(t, registry, historyLostTotal); n != 1 {
		t.Errorf("%v lost, want 1", n)
	}
}
