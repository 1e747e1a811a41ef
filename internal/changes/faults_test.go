package changes_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// sorted returns the sorted ids of the changes of events, each once.
func sorted(events []changes.Event) []string {
	var all []string
	for _, e := range events {
		all = append(all, e.Change.ID())
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func TestAPartitionThatCannotBeReadForAWhileDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(4)
		l, _ := startLog(t, feed, nil)
		c := follow(t, l, changes.Start{})
		feed.set(1, func(p *fakePart) { p.down = true })
		hidden := feed.write(id(1, 1))
		time.Sleep(20 * time.Second)
		seen := feed.write(id(2, 1))
		got := next(t, c, 2*time.Second)
		check(t, "in between", got, seen.ID())
		time.Sleep(20 * time.Second)
		feed.set(1, func(p *fakePart) { p.down = false })
		check(t, "after that", next(t, c, 3*time.Second), hidden.ID())
		// The token was given while the other was hidden: it must not state that it was read.
		resumed := next(t, follow(t, l, changes.Start{Token: got[0].Token}), 3*time.Second)
		if !slices.Contains(sorted(resumed), hidden.ID()) {
			t.Errorf("resumed with %v", ids(resumed))
		}
	})
}

func TestCursorsFailIfTheirPartitionCannotBeReadForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(4)
		l, _ := startLog(t, feed, nil)
		all, one := changes.Start{}, changes.Start{Customers: []eligibility.CustomerID{id(2, 1)}}
		c, other := follow(t, l, all), follow(t, l, one)
		time.Sleep(time.Second)
		feed.set(1, func(p *fakePart) { p.down = true })
		start := time.Now()
		_, err := c.Next(t.Context())
		if took := time.Since(start); kindOf(err) != eligibility.KindFeedUnavailable || took < 58*time.Second || took > 63*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
		if _, err := c.Next(t.Context()); kindOf(err) != eligibility.KindFeedUnavailable {
			t.Errorf("once more: %v", err)
		}
		if _, err := l.Follow(t.Context(), all); kindOf(err) != eligibility.KindFeedUnavailable {
			t.Errorf("a new cursor: %v", err)
		}
		want := feed.write(id(2, 1))
		check(t, "of another partition", next(t, other, 2*time.Second), want.ID())
		follow(t, l, one)
		feed.set(1, func(p *fakePart) { p.down = false })
		time.Sleep(3 * time.Second)
		resumed := follow(t, l, changes.Start{Token: c.Progress().Token})
		want = feed.write(id(1, 1))
		if got := next(t, resumed, 2*time.Second); !slices.Contains(sorted(got), want.ID()) {
			t.Errorf("resumed with %v", ids(got))
		}
	})
}

func TestAFeedThatIsAwayAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(2)
		feed.parts[0].down, feed.parts[1].down = true, true
		l, _ := startLog(t, feed, nil)
		brief, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := l.Follow(brief, changes.Start{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("at first: %v", err)
		}
		start := time.Now()
		if _, err := l.Follow(t.Context(), changes.Start{}); kindOf(err) != eligibility.KindFeedUnavailable || time.Since(start) > time.Minute {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		feed.set(0, func(p *fakePart) { p.down = false })
		time.Sleep(3 * time.Second)
		follow(t, l, changes.Start{Customers: []eligibility.CustomerID{id(0, 1)}})
		if _, err := l.Follow(t.Context(), changes.Start{}); kindOf(err) != eligibility.KindFeedUnavailable {
			t.Errorf("with one of two partitions: %v", err)
		}
		feed.set(1, func(p *fakePart) { p.down = false })
		time.Sleep(3 * time.Second)
		c := follow(t, l, changes.Start{})
		want := feed.write(id(1, 1))
		check(t, "with both", next(t, c, 2*time.Second), want.ID())
	})
}

func TestAReadThatHangsMakesCursorsFailAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(2)
		l, stop := startLog(t, feed, nil)
		c := follow(t, l, changes.Start{})
		release := make(chan struct{})
		feed.mu.Lock()
		feed.beforeAll = func() { <-release } // it ignores its context
		feed.mu.Unlock()
		start := time.Now()
		if _, err := c.Next(t.Context()); kindOf(err) != eligibility.KindFeedUnavailable || time.Since(start) > 63*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		close(release)
		stop()
	})
}

func TestSlowReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(2)
		l, _ := startLog(t, feed, nil)
		c := follow(t, l, changes.Start{})
		feed.mu.Lock()
		feed.delay = 3 * time.Second
		feed.mu.Unlock()
		a := feed.write(id(1, 1))
		check(t, "within the limit", next(t, c, 8*time.Second), a.ID())
		feed.mu.Lock()
		feed.delay = 20 * time.Second
		feed.mu.Unlock()
		b := feed.write(id(1, 1))
		check(t, "beyond the limit", next(t, c, 30*time.Second))
		feed.mu.Lock()
		feed.delay = 0
		feed.mu.Unlock()
		check(t, "after that", next(t, c, 8*time.Second), b.ID())
	})
}

func TestTheEndOfTheLogFailsItsCursors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(2)
		l, stop := startLog(t, feed, nil)
		c := follow(t, l, changes.Start{})
		time.AfterFunc(time.Second, stop)
		if _, err := c.Next(t.Context()); kindOf(err) != eligibility.KindFeedUnavailable {
			t.Errorf("a waiting cursor: %v", err)
		}
		if _, err := l.Follow(t.Context(), changes.Start{}); kindOf(err) != eligibility.KindFeedUnavailable {
			t.Errorf("a new cursor: %v", err)
		}
	})
}

// After a failover, entries are lost, and the clock of the new server may be behind:
// what is written again has smaller positions than what was read.
func TestEntriesBeforeTheCursorAfterAFailover(t *testing.T) {
	for name, skew := range map[string]time.Duration{
		"a clock behind":              -5 * time.Second,
		"a clock that is right":       0,
		"a clock ahead":               5 * time.Second,
		"a clock an hour behind":      -time.Hour,
		"a clock a millisecond ahead": time.Millisecond,
	} {
		for _, seen := range []string{"with an error", "without an error"} {
			t.Run(name+", "+seen, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					feed := newFeed(2)
					l, _ := startLog(t, feed, nil)
					c := follow(t, l, changes.Start{})
					want := []string{feed.write(id(1, 1)).ID()}
					time.Sleep(7 * time.Second)
					for range 3 {
						want = append(want, feed.write(id(1, 1)).ID())
					}
					got := next(t, c, 3*time.Second)
					feed.set(1, func(p *fakePart) { p.down = seen == "with an error" })
					time.Sleep(2 * time.Second)
					lost := feed.lose(1, 3)
					if skew < -time.Minute {
						lost = append(feed.lose(1, 1), lost...)
					}
					feed.set(1, func(p *fakePart) { p.down, p.skew = false, skew })
					// One that was not lost is written by somebody else first.
					want = append(want, feed.write(id(1, 2)).ID())
					feed.mu.Lock()
					for _, e := range lost {
						feed.add(e.Change)
					}
					feed.mu.Unlock()
					want = append(want, feed.write(id(1, 1)).ID())
					more := next(t, c, 20*time.Second)
					slices.Sort(want)
					if diff := cmp.Diff(want, sorted(append(got, more...))); diff != "" {
						t.Errorf("(-want +got):\n%s", diff)
					}
					check(t, "after that", next(t, c, time.Minute)) // and no entry again and again
				})
			})
		}
	}
}

// A failover may come and go between two reads, and the clock of the new server be so
// little behind that it has passed the last read when the next comes. What it wrote
// before the place of a lost entry must not be passed over, nor come after what follows.
func TestAFailoverBetweenTwoReads(t *testing.T) {
	for name, limit := range map[string]int{"": 0, "by pages of one": 1, "by pages of two": 2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				feed := newFeed(2)
				feed.parts[1].limit = limit
				l, _ := startLog(t, feed, nil)
				c := follow(t, l, changes.Start{})
				time.Sleep(1050 * time.Millisecond) // the log has just read all partitions
				lost := feed.write(id(1, 1))
				feed.announce()
				check(t, "at first", next(t, c, 100*time.Millisecond), lost.ID())
				feed.lose(1, 1)
				feed.set(1, func(p *fakePart) { p.skew = -150 * time.Millisecond })
				before := feed.write(id(1, 2)) // 50 ms before the lost entry
				time.Sleep(110 * time.Millisecond)
				behind := feed.write(id(1, 2))
				feed.announce()
				check(t, "after the failover", next(t, c, 3*time.Second), before.ID(), behind.ID())
			})
		})
	}
}

// A replica may have read an event that was lost before others read it. When it is
// written again, readers who come from others need it.
func TestAnEventThatIsWrittenAgainIsReturnedToThoseWhoResumeOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(2)
		l, _ := startLog(t, feed, nil)
		c := follow(t, l, changes.Start{})
		a := feed.write(id(1, 1))
		check(t, "at first", next(t, c, 2*time.Second), a.ID())
		lost := feed.lose(1, 1)
		time.Sleep(30 * time.Second)
		other, stop := startLog(t, feed, nil) // another replica, which has not read the event
		token := follow(t, other, changes.Start{}).Progress().Token
		stop()
		feed.mu.Lock()
		feed.add(lost[0].Change)
		feed.mu.Unlock()
		check(t, "of one who has it", next(t, c, 2*time.Second))
		check(t, "of one who does not", next(t, follow(t, l, changes.Start{Token: token}), 2*time.Second), "again "+a.ID())
	})
}

// The clock of a server may be ahead by less than the overlap, so that tokens state
// more than was read.
func TestAPartitionThatClaimsToHaveBeenReadFurther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(2)
		for i := range feed.parts {
			feed.parts[i].lie = 9 * time.Second
		}
		l, _ := startLog(t, feed, nil)
		c := follow(t, l, changes.Start{})
		var want, got []string
		for range 50 {
			want = append(want, feed.write(id(1, 1)).ID())
			feed.announce()
			got = append(got, sorted(next(t, c, 200*time.Millisecond))...)
			c = follow(t, l, changes.Start{Token: c.Progress().Token})
		}
		got = append(got, sorted(next(t, c, 2*time.Second))...)
		slices.Sort(got)
		if diff := cmp.Diff(want, slices.Compact(got)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestPagesThatAreWrong(t *testing.T) {
	foreign := &changes.Change{Key: eligibility.Key{CustomerID: id(0, 9)}, After: status("Allowed", fetched)}
	for name, row := range map[string]struct {
		rewrite func(*changes.Page)
		all     bool // whether the changes of the partition still arrive
	}{
		"in the wrong order":     {func(p *changes.Page) { slices.Reverse(p.Entries) }, true},
		"with an entry of none":  {func(p *changes.Page) { p.Entries = append(p.Entries, changes.Entry{Position: p.Last}) }, true},
		"with half a change":     {func(p *changes.Page) { p.Entries = append(p.Entries, changes.Entry{Change: &changes.Change{}}) }, true},
		"with a foreign change":  {func(p *changes.Page) { p.Entries = append(p.Entries, changes.Entry{Position: p.Last, Change: foreign}) }, true},
		"always full":            {func(p *changes.Page) { p.Full = true }, true},
		"that do not move":       {func(p *changes.Page) { p.Last, p.Full = changes.Position{}, true }, true},
		"without entries":        {func(p *changes.Page) { p.Entries = nil }, false},
		"through nothing":        {func(p *changes.Page) { p.Through = 0 }, true},
		"through ever less":      {func(p *changes.Page) { p.Through = -time.Now().UnixMilli() }, true},
		"older than what is old": {func(p *changes.Page) { p.Oldest = -1 }, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				feed := newFeed(2)
				l, _ := startLog(t, feed, nil)
				c := follow(t, l, changes.Start{})
				feed.set(1, func(p *fakePart) { p.rewrite = row.rewrite })
				var want []string
				for range 5 {
					want = append(want, feed.write(id(0, 1)).ID())
					if change := feed.write(id(1, 1)); row.all {
						want = append(want, change.ID())
					}
				}
				slices.Sort(want)
				if diff := cmp.Diff(want, sorted(next(t, c, 20*time.Second))); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if reads := feed.readsSoFar(); reads > 300 {
					t.Errorf("%d reads in 20 s", reads)
				}
			})
		})
	}
}

// shortFeed returns no page for the last partition it is asked for.
type shortFeed struct{ *fakeFeed }

func (f shortFeed) Read(ctx context.Context, asked []changes.Ask, limit int) []changes.Page {
	pages := f.fakeFeed.Read(ctx, asked, limit)
	return pages[:len(pages)-1]
}

func TestAFeedThatReturnsTooFewPagesIsUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := startLog(t, shortFeed{newFeed(2)}, nil)
		if _, err := l.Follow(t.Context(), changes.Start{}); kindOf(err) != eligibility.KindFeedUnavailable {
			t.Error(err)
		}
	})
}

func TestAFeedOfNoPartitionsOrTooManyIsRefused(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 65} {
		if _, err := changes.NewLog(newFeed(n), changes.LogConfig{}); err == nil {
			t.Errorf("%d partitions", n)
		}
	}
}

func TestEntriesThatWereRemovedBeforeTheyWereRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(4)
		l, _ := startLog(t, feed, nil)
		all, concerned := follow(t, l, changes.Start{}), follow(t, l, changes.Start{Customers: []eligibility.CustomerID{id(1, 1)}})
		other := follow(t, l, changes.Start{Customers: []eligibility.CustomerID{id(2, 1)}})
		time.Sleep(time.Minute)
		a := feed.write(id(2, 1))
		time.Sleep(2 * time.Second)
		for range 3 {
			feed.write(id(1, 1))
		}
		feed.trim(1, 1)
		time.Sleep(2 * time.Second)
		events, err := all.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		check(t, "before the gap", events, a.ID())
		token := all.Progress().Token
		for what, c := range map[string]*changes.Cursor{"all": all, "the customer": concerned} {
			if _, err := c.Next(t.Context()); kindOf(err) != eligibility.KindResumeTokenExpired {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, err := l.Follow(t.Context(), changes.Start{Token: token}); kindOf(err) != eligibility.KindResumeTokenExpired {
			t.Errorf("a token from before the gap: %v", err)
		}
		check(t, "another partition", next(t, other, 2*time.Second), a.ID())
		fresh := follow(t, l, changes.Start{})
		b := feed.write(id(1, 1))
		check(t, "a new cursor", next(t, fresh, 2*time.Second), b.ID())
		follow(t, l, changes.Start{Token: fresh.Progress().Token})
		// Once the gap is older than the overlap, tokens resume from the ring again.
		time.Sleep(20 * time.Second)
		next(t, fresh, 2*time.Second)
		if _, err := l.Follow(t.Context(), changes.Start{Token: fresh.Progress().Token}); err != nil {
			t.Errorf("a token from after the gap: %v", err)
		}
	})
}

// The clock of a new server is behind, so that what was removed seems to be old.
func TestEntriesThatWereRemovedAfterAFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(1)
		l, _ := startLog(t, feed, nil)
		c := follow(t, l, changes.Start{})
		feed.set(0, func(p *fakePart) { p.skew = -5 * time.Second })
		feed.write(id(0, 1))
		feed.write(id(0, 1))
		feed.trim(0, 1)
		if _, err := c.Next(t.Context()); kindOf(err) != eligibility.KindResumeTokenExpired {
			t.Error(err)
		}
	})
}

func TestACursorThatFallsBehindTheRingCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(4)
		l, _ := startLog(t, feed, nil)
		all, some := follow(t, l, changes.Start{}), follow(t, l, changes.Start{Customers: []eligibility.CustomerID{id(1, 1)}})
		var want, ofSome []string
		for i := range 25_000 {
			change := feed.write(id(byte(i%4), byte(i%8)))
			want = append(want, change.ID())
			if i%8 == 1 {
				ofSome = append(ofSome, change.ID())
			}
			if i%100 == 0 {
				time.Sleep(50 * time.Millisecond)
			}
		}
		time.Sleep(2 * time.Second)
		for what, row := range map[string]struct {
			c    *changes.Cursor
			want []string
		}{"all": {all, want}, "one customer": {some, ofSome}} {
			got := next(t, row.c, 30*time.Second)
			slices.Sort(row.want)
			if diff := cmp.Diff(row.want, sorted(got)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
			newest := make(map[eligibility.CustomerID]time.Time)
			seen := make(map[string]bool)
			for _, e := range got {
				at := e.Change.After.FetchTime
				switch {
				case seen[e.Change.ID()]:
					if !e.Redelivered {
						t.Errorf("%s: %s is returned twice", what, e.Change.ID())
					}
				case at.Before(newest[e.Change.Key.CustomerID]):
					t.Errorf("%s: out of order", what)
				}
				seen[e.Change.ID()] = true
				newest[e.Change.Key.CustomerID] = at
			}
		}
		feed.mu.Lock()
		defer feed.mu.Unlock()
		if feed.largest > 512 {
			t.Errorf("pages of %d entries", feed.largest)
		}
	})
}

func TestFewCursorsCatchUpAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(4)
		l, stop := startLog(t, feed, nil)
		token := follow(t, l, changes.Start{}).Progress().Token
		stop()
		for range 300 {
			time.Sleep(time.Second)
			feed.write(id(1, 1))
		}
		l, _ = startLog(t, feed, nil)
		follow(t, l, changes.Start{})
		feed.mu.Lock()
		feed.delay = time.Second
		feed.mu.Unlock()
		ended := make(chan int)
		for range 100 {
			go func() {
				c, err := l.Follow(t.Context(), changes.Start{Token: token})
				if err != nil {
					t.Error(err)
					ended <- 0
					return
				}
				ended <- len(withoutRepeated(next(t, c, 60*time.Second)))
			}()
		}
		for range 100 {
			if n := <-ended; n != 300 {
				t.Errorf("returned %d changes", n)
			}
		}
		feed.mu.Lock()
		if feed.atOnce > 9 {
			t.Errorf("%d reads at once", feed.atOnce)
		}
		feed.mu.Unlock()
		// A caller who leaves while it waits for its turn.
		brief, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := l.Follow(brief, changes.Start{Token: token}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("left while reading: %v", err)
		}
	})
}

func TestACatchUpDuringAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(4)
		l, stop := startLog(t, feed, nil)
		token := follow(t, l, changes.Start{}).Progress().Token
		stop()
		want := feed.write(id(1, 1))
		time.Sleep(10 * time.Minute)
		l, _ = startLog(t, feed, nil)
		follow(t, l, changes.Start{})
		feed.set(1, func(p *fakePart) { p.down = true })
		time.AfterFunc(20*time.Second, func() { feed.set(1, func(p *fakePart) { p.down = false }) })
		c := follow(t, l, changes.Start{Token: token})
		check(t, "after the failure", next(t, c, 30*time.Second), want.ID())
		feed.set(1, func(p *fakePart) { p.rewrite = func(p *changes.Page) { p.Full, p.Last = true, changes.Position{} } })
		c = follow(t, l, changes.Start{Token: token}) // a feed that never moves
		start := time.Now()
		for {
			if _, err := c.Next(t.Context()); err != nil {
				if kindOf(err) != eligibility.KindFeedUnavailable || time.Since(start) > 63*time.Second {
					t.Errorf("after %v: %v", time.Since(start), err)
				}
				return
			}
		}
	})
}

// Clocks of servers that differ by more than the ring holds.
func TestACatchUpThatDoesNotReachTheRingDoesNotReadWithoutPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(2)
		feed.parts[0].skew = -10 * time.Minute
		l, _ := startLog(t, feed, nil)
		c := follow(t, l, changes.Start{Time: time.Now().Add(-time.Hour)})
		a := feed.write(id(0, 1))
		check(t, "at first", next(t, c, 30*time.Second), a.ID())
		b := feed.write(id(1, 1))
		if got := next(t, c, 30*time.Second); !slices.Equal(sorted(got), []string{b.ID()}) {
			t.Errorf("then %v", ids(got))
		}
		if reads := feed.readsSoFar(); reads > 200 {
			t.Errorf("%d reads in a minute", reads)
		}
	})
}

func TestTheRingIsBoundedInBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(1)
		l, _ := startLog(t, feed, nil)
		c, late := follow(t, l, changes.Start{}), follow(t, l, changes.Start{})
		reason := strings.Repeat("x", 1<<20)
		var want []string
		for i := range 200 {
			change := &changes.Change{
				Key: eligibility.Key{CustomerID: id(0, byte(i)), Facet: eligibility.FacetQualifications},
				After: &eligibility.Evidence{
					Facet: eligibility.FacetQualifications, FetchTime: time.Now(),
					Qualifications: []eligibility.Qualification{{TypeText: "Education", VettingReason: reason}},
				},
			}
			feed.mu.Lock()
			feed.add(change)
			feed.mu.Unlock()
			want = append(want, change.ID())
			time.Sleep(time.Second)
			next(t, c, time.Millisecond)
		}
		reads := feed.readsSoFar()
		// It has fallen behind the ring, though by few entries.
		got := sorted(next(t, late, 10*time.Second))
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("returned %d of %d changes", len(got), len(want))
		}
		if feed.readsSoFar()-reads <= 10 {
			t.Error("the ring had all of 200 MB")
		}
	})
}

func TestTheMetricsOfTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewPedanticRegistry()
		feed := newFeed(2)
		l, _ := startLog(t, feed, registry)
		c := follow(t, l, changes.Start{})
		feed.write(id(1, 1))
		feed.write(id(0, 1))
		next(t, c, 2*time.Second)
		next(t, follow(t, l, changes.Start{Token: c.Progress().Token}), 2*time.Second)
		time.Sleep(100 * time.Millisecond)
		feed.set(1, func(p *fakePart) { p.down = true })
		time.Sleep(10 * time.Second)
		const want = `
# HELP eligibility_changes_delivered_total Changes of facts that were handed to watchers and webhooks, once for each, before they compare decisions.
# TYPE eligibility_changes_delivered_total counter
eligibility_changes_delivered_total 4
# HELP eligibility_changes_redelivered_total Changes among those delivered that the reader may have had before: it resumed with a token, or part of the feed was read again.
# TYPE eligibility_changes_redelivered_total counter
eligibility_changes_redelivered_total 2
`
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "eligibility_changes_delivered_total", "eligibility_changes_redelivered_total"); err != nil {
			t.Error(err)
		}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			if family.GetName() == "eligibility_watch_lag_seconds" {
				if lag := family.GetMetric()[0].GetGauge().GetValue(); lag < 9 || lag > 12 {
					t.Errorf("a lag of %v", lag)
				}
			}
		}
	})
}
