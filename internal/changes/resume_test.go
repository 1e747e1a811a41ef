package changes_test

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// withoutRepeated removes events that a cursor returned before, and checks that they
// are marked.
func withoutRepeated(events []changes.Event) []changes.Event {
	seen := make(map[string]bool)
	return slices.DeleteFunc(events, func(e changes.Event) bool {
		known := seen[e.Change.ID()]
		seen[e.Change.ID()] = true
		return known && e.Redelivered
	})
}

// A process that starts loads two minutes: older tokens are served by the feed.
func TestATokenResumesInAnotherProcess(t *testing.T) {
	for name, row := range map[string]struct {
		away   time.Duration
		events int
		limit  int
	}{
		"from the ring":          {away: 30 * time.Second, events: 40},
		"from the feed":          {away: 10 * time.Minute, events: 40},
		"from the feed by pages": {away: 10 * time.Minute, events: 400, limit: 7},
		"from the ring by pages": {away: 30 * time.Second, events: 400, limit: 7},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				feed := newFeed(4)
				for i := range feed.parts {
					feed.parts[i].limit = row.limit
				}
				l, stop := startLog(t, feed, nil)
				c := follow(t, l, changes.Start{})
				before := feed.write(id(1, 1))
				check(t, "at first", next(t, c, 2*time.Second), before.ID())
				token := c.Progress().Token
				stop()

				want := idsOf("again ", before)
				var ofSome []string
				for i := range row.events {
					time.Sleep(row.away / time.Duration(row.events))
					written := feed.write(id(byte(i%4), byte(i)))
					want = append(want, written.ID())
					if i%8 == 2 {
						ofSome = append(ofSome, written.ID())
					}
				}
				l, _ = startLog(t, feed, nil)
				got := next(t, follow(t, l, changes.Start{Token: token}), 5*time.Second)
				if row.limit != 0 { // the order of partitions among each other is not promised
					slices.SortFunc(got, func(a, b changes.Event) int { return a.Change.After.FetchTime.Compare(b.Change.After.FetchTime) })
				}
				check(t, "resumed", withoutRepeated(got), want...)

				some := changes.Start{Token: token}
				for i := 2; i < row.events; i += 8 {
					some.Customers = append(some.Customers, id(2, byte(i)))
				}
				c = follow(t, l, some)
				got = next(t, c, 5*time.Second)
				check(t, "resumed with some customers", withoutRepeated(slices.Clone(got)), ofSome...)
				if len(got) == 0 {
					return
				}
				// Each token on the way goes on after its event.
				for _, i := range []int{0, len(got) / 2, len(got) - 1} {
					rest := next(t, follow(t, l, changes.Start{Token: got[i].Token, Customers: some.Customers}), 5*time.Second)
					rest = slices.DeleteFunc(rest, func(e changes.Event) bool { return e.Redelivered })
					check(t, "resumed on the way", rest, ids(slices.DeleteFunc(slices.Clone(got[i+1:]), func(e changes.Event) bool { return e.Redelivered }))...)
				}
			})
		})
	}
}

func TestATokenExpires(t *testing.T) {
	for name, row := range map[string]struct {
		away  func(*fakeFeed)
		start changes.Start
		want  bool
	}{
		"if a later entry was removed": {away: func(feed *fakeFeed) {
			time.Sleep(5 * time.Minute)
			feed.write(id(1, 1))
			feed.trim(1, 0)
		}, want: true},
		"not if an earlier entry was removed": {away: func(feed *fakeFeed) {
			time.Sleep(5 * time.Minute)
			feed.trim(1, 0)
		}},
		"not if the entry is of another partition than its customers": {away: func(feed *fakeFeed) {
			time.Sleep(5 * time.Minute)
			feed.write(id(1, 1))
			feed.trim(1, 0)
		}, start: changes.Start{Customers: []eligibility.CustomerID{id(2, 1)}}},
		"not if the ring has the entry": {away: func(feed *fakeFeed) {
			time.Sleep(time.Minute)
			feed.write(id(1, 1))
		}},
		"if it is older than the retention":    {away: func(*fakeFeed) { time.Sleep(61 * time.Minute) }, want: true},
		"not if it is younger than that":       {away: func(*fakeFeed) { time.Sleep(59 * time.Minute) }},
		"with the process if the feed does":    {away: func(feed *fakeFeed) { feed.id, feed.outlives = changes.FeedID{2}, false }, want: true},
		"not with the process if it does not":  {away: func(*fakeFeed) {}},
		"not if all was lost with the servers": {away: func(feed *fakeFeed) { feed.lose(1, 100) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				feed := newFeed(4)
				feed.outlives = !strings.HasPrefix(name, "with the process")
				l, stop := startLog(t, feed, nil)
				c := follow(t, l, changes.Start{})
				feed.write(id(1, 1))
				next(t, c, 2*time.Second)
				row.start.Token = c.Progress().Token
				stop()
				row.away(feed)
				l, _ = startLog(t, feed, nil)
				_, err := l.Follow(t.Context(), row.start)
				if expired := kindOf(err) == eligibility.KindResumeTokenExpired; expired != row.want || err != nil && !expired {
					t.Errorf("resumed with error %v", err)
				}
			})
		})
	}
}

// A watcher of customers who never change keeps a token that resumes, however short
// the retention is.
func TestTheTokenOfSilentCustomersDoesNotExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(4)
		feed.retention = time.Minute
		silent := changes.Start{Customers: []eligibility.CustomerID{id(1, 1), id(2, 1)}}
		l, stop := startLog(t, feed, nil)
		c := follow(t, l, silent)
		for range 20 {
			feed.write(id(1, 2))
			if got := next(t, c, 15*time.Second); len(got) > 0 {
				t.Errorf("returned %v", ids(got))
			}
			feed.trim(1, 1)
		}
		stop()
		silent.Token = c.Progress().Token
		time.Sleep(30 * time.Second)
		l, _ = startLog(t, feed, nil)
		c = follow(t, l, silent)
		want := feed.write(id(2, 1))
		check(t, "resumed", next(t, c, 2*time.Second), want.ID())
	})
}

func TestTokensThatAreNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed, other, memory := newFeed(4), newFeed(4), newFeed(4)
		other.id, memory.outlives = changes.FeedID{2}, false
		tokenOf := func(feed *fakeFeed) string {
			l, stop := startLog(t, feed, nil)
			defer stop()
			return follow(t, l, changes.Start{}).Progress().Token
		}
		good := tokenOf(feed)
		b, err := base64.RawURLEncoding.DecodeString(good)
		if err != nil {
			t.Fatal(err)
		}
		l, _ := startLog(t, feed, nil)
		follow(t, l, changes.Start{Token: good})
		tokens := map[string]string{
			"of another feed":            tokenOf(other),
			"of a feed in memory":        tokenOf(memory),
			"a character":                "A",
			"truncated":                  good[:len(good)-1],
			"longer":                     good + "A",
			"with padding":               good + "=",
			"with a line break":          good[:20] + "\n" + good[21:],
			"in the other base64":        strings.Repeat("+", len(good)),
			"blanks":                     strings.Repeat(" ", len(good)),
			"bytes that are not UTF-8":   strings.Repeat("\xff", len(good)),
			"with bits beyond its bytes": good[:len(good)-1] + string(good[len(good)-1]+1),
			"huge":                       strings.Repeat("A", 16<<20),
		}
		for i := range b {
			damaged := slices.Clone(b)
			damaged[i] ^= 0x10
			tokens["damaged at "+string(rune('A'+i))] = base64.RawURLEncoding.EncodeToString(damaged)
		}
		for name, token := range tokens {
			c, err := l.Follow(t.Context(), changes.Start{Token: token})
			if kindOf(err) != eligibility.KindInvalidArgument || c != nil {
				t.Errorf("%s: error %v", name, err)
			}
			if err != nil && token != "A" && strings.Contains(err.Error(), token) {
				t.Errorf("%s: the error repeats the token", name)
			}
		}
	})
}

func TestAStartTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(4)
		var written []*changes.Change
		var times []time.Time
		for i := range 20 {
			time.Sleep(30 * time.Second)
			times = append(times, time.Now())
			written = append(written, feed.write(id(byte(i), 1)))
		}
		feed.trim(0, 3)
		feed.trim(1, 3)
		feed.trim(2, 3)
		feed.trim(3, 3)
		time.Sleep(time.Second)
		l, _ := startLog(t, feed, nil)
		for name, row := range map[string]struct {
			start time.Time
			first int
		}{
			"before the oldest":    {times[0].Add(-time.Hour), 8},
			"before 1970":          {time.Unix(-1, 0), 8},
			"the oldest":           {times[8], 8},
			"after that":           {times[8].Add(time.Millisecond), 9},
			"in the feed":          {times[12], 12},
			"in the ring":          {times[18], 18},
			"after that, too":      {times[18].Add(time.Millisecond), 19},
			"now":                  {time.Now(), 20},
			"in the future":        {time.Now().Add(time.Hour), 20},
			"at the end of time":   {time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), 20},
			"at the begin of time": {time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC), 8},
		} {
			c := follow(t, l, changes.Start{Time: row.start})
			check(t, name, next(t, c, 2*time.Second), idsOf("", written[row.first:]...)...)
			if oldest := c.Progress().Oldest; !oldest.Equal(times[8]) {
				t.Errorf("%s: the oldest is of %v, not %v", name, oldest, times[8])
			}
		}
		c := follow(t, l, changes.Start{Time: time.Now().Add(time.Hour)})
		late := feed.write(id(0, 1))
		check(t, "written before the future", next(t, c, 2*time.Second), late.ID())
	})
}

// A partition that was read to its end gets more in the same millisecond, before where
// the page of another one ends.
func TestACatchUpReadsAMillisecondToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(2)
		l, stop := startLog(t, feed, nil)
		token := follow(t, l, changes.Start{}).Progress().Token
		stop()
		time.Sleep(time.Second)
		var want []string
		write := func(partition, n byte) { want = append(want, idsOf("", feed.write(id(partition, n)))...) }
		for n := range byte(4) {
			write(0, n)
		}
		write(1, 4)
		l, err := changes.NewLog(feed, changes.LogConfig{})
		if err != nil {
			t.Fatal(err)
		}
		changes.HoldEntries(l, 1)
		run(t, l)
		feed.set(0, func(p *fakePart) { p.limit = 2 })
		c := follow(t, l, changes.Start{Token: token}) // has read a page of each
		write(1, 5)
		time.Sleep(3 * time.Second) // the ring has it before the cursor reaches the ring
		if got := withoutRepeated(next(t, c, 10*time.Second)); !slices.Equal(sorted(got), slices.Sorted(slices.Values(want))) {
			t.Errorf("returned %v, not %v", ids(got), want)
		}
	})
}

// A cursor that Follow has read ahead for returns nothing of it before Next does.
func TestTheFirstProgressOfACatchUpIsItsBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := newFeed(2)
		l, stop := startLog(t, feed, nil)
		token := follow(t, l, changes.Start{}).Progress().Token
		stop()
		want := feed.write(id(1, 1))
		time.Sleep(10 * time.Minute)
		l, _ = startLog(t, feed, nil)
		for range 3 {
			token = follow(t, l, changes.Start{Token: token}).Progress().Token
		}
		if got := next(t, follow(t, l, changes.Start{Token: token}), 2*time.Second); !slices.Equal(sorted(got), idsOf("", want)) {
			t.Errorf("returned %v", ids(got))
		}
	})
}
