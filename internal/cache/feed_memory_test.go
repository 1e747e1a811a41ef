package cache_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// readAll reads a whole feed by pages of two.
func readAll(t *testing.T, feed changes.Feed) (entries []changes.Entry) {
	t.Helper()
	for partition := range feed.Partitions() {
		ask := changes.Ask{Partition: partition}
		for full := true; full; {
			page := feed.Read(context.Background(), []changes.Ask{ask}, 2)[0]
			if page.Err != nil {
				t.Fatal(page.Err)
			}
			for _, entry := range page.Entries {
				if !ask.After.Before(entry.Position) || page.Last.Before(entry.Position) {
					t.Fatalf("asked after %v, read %v, last %v", ask.After, entry.Position, page.Last)
				}
				ask.After = entry.Position
			}
			ask.After, full = page.Last, page.Full
			entries = append(entries, page.Entries...)
		}
	}
	return entries
}

// steps names the facts before and after each change.
func steps(entries []changes.Entry) (steps []string) {
	word := func(evidence *eligibility.Evidence) string {
		if evidence == nil {
			return "-"
		}
		return fmt.Sprint(evidence.StatusText, evidence.FetchTime.Sub(start))
	}
	for _, entry := range entries {
		steps = append(steps, word(entry.Change.Before)+">"+word(entry.Change.After))
	}
	return steps
}

func TestTheFeedInTheProcessHasTheChangesOfFacts(t *testing.T) {
	t.Parallel()
	var clock clock
	cfg := cache.Config{}
	clock.in(&cfg)
	store := newStore(t, cfg)
	put := func(at time.Duration, evidence *eligibility.Evidence) {
		clock.set(at)
		store.Put(key, evidence)
	}
	put(1*time.Second, allowed(start.Add(time.Second)))
	put(2*time.Second, allowed(start.Add(2*time.Second)))
	put(3*time.Second, blocked(start.Add(3*time.Second)))
	put(4*time.Second, allowed(start.Add(2500*time.Millisecond))) // older
	put(5*time.Second, allowed(start.Add(time.Hour)))             // from the future
	put(2*time.Second, allowed(start.Add(4*time.Second)))         // the clock was set back
	put(6*time.Second, allowed(start.Add(6*time.Second)))
	if diff := cmp.Diff([]string{"->Allowed1s", "Allowed2s>NotAllowed3s", "NotAllowed3s>Allowed6s"}, steps(readAll(t, store.Feed()))); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	select {
	case <-store.Feed().Written():
	default:
		t.Error("no signal")
	}
}

func TestTheFeedInTheProcessIsBounded(t *testing.T) {
	t.Parallel()
	const most, more = 10_000, 10
	store := newStore(t, cache.Config{Now: func() time.Time { return start }})
	for i := range most + more {
		store.Put(eligibility.Key{CustomerID: eligibility.CustomerID{1, byte(i), byte(i >> 8)}}, allowed(start))
	}
	page := store.Feed().Read(context.Background(), []changes.Ask{{}}, 1)[0]
	if want := (changes.Position{Millis: start.UnixMilli(), Seq: more - 1}); page.Removed != want || !page.Full || page.Oldest != start.UnixMilli() {
		t.Errorf("%+v, want %+v removed", page, want)
	}
	if got := len(readAll(t, store.Feed())); got != most {
		t.Errorf("%d kept, want %d", got, most)
	}
}

// Facts that no real customer has must not fill the memory, nor change what they
// decide.
func TestTheFeedInTheProcessIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	store := newStore(t, cache.Config{Now: func() time.Time { return start }, MaxBytes: 1 << 30})
	for i := range 100 {
		store.Put(eligibility.Key{CustomerID: eligibility.CustomerID{byte(i)}, Facet: eligibility.FacetQualifications}, huge(start))
	}
	entries := readAll(t, store.Feed())
	if len(entries) != 100 {
		t.Fatalf("%d entries", len(entries))
	}
	if got := entries[0].After; len(got.Qualifications) != 1 || got.Qualifications[0].VettingStatus != eligibility.VettingDenied || len(got.Qualifications[0].VettingReason) > 256 {
		t.Errorf("%d qualifications, first %.100v", len(got.Qualifications), got.Qualifications[0])
	}
	for i := range 10_000 {
		store.Put(eligibility.Key{CustomerID: eligibility.CustomerID{1, byte(i), byte(i >> 8)}, Facet: eligibility.FacetQualifications}, large(start))
	}
	if got := len(readAll(t, store.Feed())); got > 6_000 || got < 3_000 {
		t.Errorf("%d entries of 7 KiB", got)
	}
}

// huge is evidence of about a MiB: a denial, an earlier approval, and noise.
func huge(fetched time.Time) *eligibility.Evidence {
	evidence := &eligibility.Evidence{Facet: eligibility.FacetQualifications, FetchTime: fetched}
	for i := range 300 {
		kind := eligibility.QualificationUnrecognized
		if i == 299 {
			kind = eligibility.QualificationEducation
		}
		evidence.Qualifications = append(evidence.Qualifications, eligibility.Qualification{
			Type: kind, TypeText: map[bool]string{true: "Education", false: "Other"}[i == 299], VettingStatus: eligibility.VettingDenied, VettingStatusText: "Denied",
			VettingReason: strings.Repeat("<ö\x01", 1000), VettingCreatedTime: start.Add(time.Duration(i) * time.Second),
		})
	}
	return evidence
}

// large is evidence that is just not abridged.
func large(fetched time.Time) *eligibility.Evidence {
	return &eligibility.Evidence{Facet: eligibility.FacetQualifications, FetchTime: fetched, CorrelationID: strings.Repeat("c", 7<<10)}
}

func TestTheFeedInTheProcessOfManyWriters(t *testing.T) {
	t.Parallel()
	store := newStore(t, cache.Config{})
	var all sync.WaitGroup
	for writer := range 8 {
		all.Go(func() {
			for i := range 200 {
				evidence := []func(time.Time) *eligibility.Evidence{allowed, blocked}[(i+writer)%2]
				store.Put(key, evidence(time.Now()))
			}
		})
	}
	all.Wait()
	assertLinked(t, readAll(t, store.Feed()))
}

// assertLinked expects that the changes of each key link without a gap, and that
// evidence times increase.
func assertLinked(t rapid.TB, entries []changes.Entry) {
	t.Helper()
	last := make(map[eligibility.Key]*changes.Change)
	for _, entry := range entries {
		if before := last[entry.Key]; before != nil {
			if entry.Change.Before == nil || !entry.Change.Before.SameFacts(before.After) {
				t.Fatalf("%v: %+v follows %+v", entry.Key, entry.Change.Before, before.After)
			}
			if !entry.Change.After.FetchTime.After(before.After.FetchTime) || entry.Change.Before.FetchTime.Before(before.After.FetchTime) {
				t.Fatalf("%v: times %v, %v, %v", entry.Key, before.After.FetchTime, entry.Change.Before.FetchTime, entry.Change.After.FetchTime)
			}
		} else if entry.Change.Before != nil {
			t.Fatalf("%v: the first has %+v before", entry.Key, entry.Change.Before)
		}
		last[entry.Key] = entry.Change
	}
}
