package changes_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

func check(t *testing.T, what string, got []changes.Event, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, ids(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestACursorReturnsWhatIsWrittenFromThenOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(4)
		feed.write(id(1, 1))
		l, _ := startLog(t, feed, nil)
		all := follow(t, l, changes.Start{})
		some := follow(t, l, changes.Start{Customers: []eligibility.CustomerID{id(3, 1), id(1, 1), id(1, 1)}})
		a := feed.write(id(1, 1))
		time.Sleep(time.Millisecond)
		b := feed.write(id(2, 1))
		time.Sleep(time.Millisecond)
		c := feed.write(id(1, 1))
		check(t, "all", next(t, all, 2*time.Second), idsOf("", a, b, c)...)
		check(t, "two customers", next(t, some, 2*time.Second), idsOf("", a, c)...)
		d := feed.write(id(3, 1))
		check(t, "two customers, later", next(t, some, 2*time.Second), idsOf("", d)...)
	})
}

func TestACursorThatBeginsEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(2)
		l, _ := startLog(t, feed, nil)
		follow(t, l, changes.Start{})
		feed.write(id(0, 1))
		time.Sleep(8 * time.Second)
		a := feed.write(id(1, 1))
		time.Sleep(5 * time.Second)
		c := follow(t, l, changes.Start{Early: true})
		b := feed.write(id(0, 1))
		check(t, "early", next(t, c, 2*time.Second), "again "+a.ID(), b.ID())
	})
}

func TestAnEntryReachesCursorsWithinASecondAndAtOnceIfAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(2)
		l, _ := startLog(t, feed, nil)
		c := follow(t, l, changes.Start{})
		for range 3 {
			feed.write(id(1, 1))
			start := time.Now()
			if _, err := c.Next(t.Context()); err != nil || time.Since(start) > time.Second {
				t.Errorf("without an announcement: after %v, error %v", time.Since(start), err)
			}
		}
		for range 3 {
			feed.write(id(1, 1))
			feed.announce()
			start := time.Now()
			if _, err := c.Next(t.Context()); err != nil || time.Since(start) > 100*time.Millisecond {
				t.Errorf("with an announcement: after %v, error %v", time.Since(start), err)
			}
		}
	})
}

func TestAnnouncementsDoNotMakeTheLogReadWithoutPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(2)
		startLog(t, feed, nil)
		for range 1000 {
			feed.announce()
			time.Sleep(time.Millisecond)
		}
		if reads := feed.readsSoFar(); reads > 15 {
			t.Errorf("%d reads in a second", reads)
		}
	})
}

func TestNextCanBeCalledAgainAfterItsContextHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(2)
		l, _ := startLog(t, feed, nil)
		c := follow(t, l, changes.Start{Customers: []eligibility.CustomerID{id(1, 1)}})
		first := c.Progress()
		for range 20 {
			feed.write(id(0, 1))
			if got := next(t, c, 15*time.Second); len(got) > 0 {
				t.Errorf("returned %v", ids(got))
			}
		}
		last := c.Progress()
		if last.Token == first.Token || last.Through.Sub(first.Through) < 290*time.Second {
			t.Errorf("from %v to %v within 300 s", first.Through, last.Through)
		}
		if age := time.Since(last.Oldest); age > 301*time.Second || age < 290*time.Second {
			t.Errorf("the oldest entry is %v old", age)
		}
		want := feed.write(id(1, 1))
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Next(ended); !errors.Is(err, context.Canceled) {
			t.Errorf("with a context that has ended: %v", err)
		}
		check(t, "after that", next(t, c, 2*time.Second), idsOf("", want)...)
	})
}

// The log and a context race for a waiting cursor.
func TestACursorThatIsWokenAsItsContextEndsMissesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(1)
		l, _ := startLog(t, feed, nil)
		c := follow(t, l, changes.Start{})
		var want, got []string
		for range 200 {
			want = append(want, feed.write(id(0, 1)).ID())
			feed.announce()
			got = append(got, ids(next(t, c, 100*time.Millisecond))...)
		}
		got = append(got, ids(next(t, c, 2*time.Second))...)
		if !slices.Equal(want, got) {
			t.Errorf("returned %d of %d changes", len(got), len(want))
		}
	})
}

func TestATokenResumesFromTheRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(4)
		l, _ := startLog(t, feed, nil)
		c := follow(t, l, changes.Start{})
		a := feed.write(id(1, 1))
		time.Sleep(30 * time.Second)
		b := feed.write(id(2, 1))
		time.Sleep(5 * time.Second)
		d, e := feed.write(id(3, 1)), feed.write(id(3, 2))
		time.Sleep(time.Millisecond)
		f := feed.write(id(1, 1))
		got := next(t, c, 2*time.Second)
		check(t, "at first", got, idsOf("", a, b, d, e, f)...)
		g := feed.write(id(1, 1))
		time.Sleep(2 * time.Second)

		// In the middle of a batch: what follows in it was not returned yet. The state
		// of the first three is that before they were read.
		resumed := follow(t, l, changes.Start{Token: got[2].Token})
		want := append(idsOf("again ", b, d), idsOf("", e, f, g)...)
		check(t, "resumed", next(t, resumed, 2*time.Second), want...)

		again := follow(t, l, changes.Start{Token: resumed.Progress().Token, Customers: []eligibility.CustomerID{id(3, 2), id(1, 1)}})
		check(t, "resumed with some customers", next(t, again, 2*time.Second), idsOf("again ", e, f, g)...)
		time.Sleep(11 * time.Second)
		check(t, "resumed later", next(t, follow(t, l, changes.Start{Token: again.Progress().Token}), 2*time.Second))
		want = append(idsOf("again ", b, d, e, f), g.ID())
		check(t, "resumed with an old token", next(t, follow(t, l, changes.Start{Token: c.Progress().Token}), 2*time.Second), want...)
	})
}
