package changes_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/changes"
)

// A server's clock was ahead, or somebody else added an entry, and the next write begins
// the feed anew: its entries are before those that were read.
func TestAnEntryOfTheFuture(t *testing.T) {
	for name, valid := range map[string]bool{"unreadable": false, "a change": true} {
		for seen, down := range map[string]bool{"with an error": true, "without an error": false} {
			t.Run(name+", "+seen, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					feed := newFeed(1)
					l, _ := startLog(t, feed, nil)
					c := follow(t, l, changes.Start{})
					feed.write(id(0, 1))
					feed.set(0, func(p *fakePart) {
						e := &p.entries[0]
						e.Position = changes.Position{Millis: time.Now().Add(2 * time.Hour).UnixMilli()}
						if !valid {
							e.Change = nil
						}
					})
					next(t, c, 3*time.Second)
					feed.set(0, func(p *fakePart) { p.down = down })
					time.Sleep(2 * time.Second)
					feed.set(0, func(p *fakePart) {
						p.entries, p.down = nil, false
						p.removed = changes.Position{Millis: time.Now().UnixMilli()}
					})
					want := feed.write(id(0, 2))
					check(t, "after the feed began anew", next(t, c, 3*time.Second), want.ID())
					want = feed.write(id(0, 2))
					check(t, "then", next(t, c, 3*time.Second), want.ID())
				})
			})
		}
	}
}

// While the entry of the future exists, new ones follow it.
func TestEntriesThatFollowOneOfTheFuture(t *testing.T) {
	for name, valid := range map[string]bool{"unreadable": false, "a change": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				feed := newFeed(2)
				feed.parts[0].skew = 2 * time.Hour
				l, _ := startLog(t, feed, nil)
				c := follow(t, l, changes.Start{})
				first := feed.write(id(0, 1))
				feed.set(0, func(p *fakePart) {
					if !valid {
						p.entries[0].Change = nil
					}
				})
				if got := next(t, c, 3*time.Second); valid {
					check(t, "at first", got, first.ID())
				}
				feed.set(0, func(p *fakePart) { p.skew = 0 })
				for range 3 {
					a, b := feed.write(id(0, 2)), feed.write(id(1, 1))
					got, want := sorted(next(t, c, 5*time.Second)), []string{a.ID(), b.ID()}
					slices.Sort(want)
					if !slices.Equal(got, want) {
						t.Errorf("got %v, want %v", got, want)
					}
				}
			})
		})
	}
}

// An entry that cannot be read makes nobody read again and again.
func TestUnreadableEntriesCauseNoMoreReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(1)
		reread := 0
		l, _ := startLog(t, feed, nil)
		c := follow(t, l, changes.Start{})
		old := feed.write(id(0, 1))
		next(t, c, 15*time.Second)
		feed.set(0, func(p *fakePart) {
			p.rewrite = func(page *changes.Page) {
				for _, e := range page.Entries {
					if e.Change != nil && e.ID() == old.ID() {
						reread++
					}
				}
			}
		})
		for range 20 {
			feed.write(id(0, 2))
			feed.set(0, func(p *fakePart) { p.entries[len(p.entries)-1].Change = nil })
			next(t, c, time.Second)
			want := feed.write(id(0, 3))
			check(t, "after one that is unreadable", next(t, c, 2*time.Second), want.ID())
		}
		feed.set(0, func(*fakePart) {
			if reread > 1 {
				t.Errorf("what was read long ago was read %d times more", reread)
			}
		})
	})
}

// The ring holds none but entries of the future, so that cursors read the feed for long.
func TestACatchUpPastEntriesOfTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(2)
		l, err := changes.NewLog(feed, changes.LogConfig{})
		if err != nil {
			t.Fatal(err)
		}
		changes.HoldEntries(l, 5)
		run(t, l)
		feed.set(0, func(p *fakePart) { p.skew, p.limit = 2*time.Hour, 8 })
		var want []string
		for range 30 {
			want = append(want, feed.write(id(0, 1)).ID())
		}
		time.Sleep(2 * time.Second)
		feed.set(0, func(p *fakePart) { p.skew = 0 })
		c := follow(t, l, changes.Start{Time: time.Now().Add(-time.Minute)})
		times := make(map[string]int)
		for range 20 {
			want = append(want, feed.write(id(1, 1)).ID(), feed.write(id(0, 2)).ID())
			for _, e := range next(t, c, 3*time.Second) {
				times[e.Change.ID()]++
			}
		}
		for _, id := range want {
			if times[id] == 0 {
				t.Errorf("%s is missing", id)
			}
			if times[id] > 4 {
				t.Errorf("%s came %d times", id, times[id])
			}
		}
		feed.lose(0, 100)
		after := []string{feed.write(id(0, 3)).ID(), feed.write(id(1, 2)).ID()}
		got := sorted(next(t, c, 20*time.Second))
		for _, id := range after {
			if !slices.Contains(got, id) {
				t.Errorf("%s is missing after the others were lost", id)
			}
		}
	})
}
