package cache

import (
	"context"
	"crypto/sha256"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const (
	// pageBytes bounds the events in a page, but for the last.
	pageBytes = 128 << 10
	// feedTimeout bounds a read of the feed: no caller waits for it.
	feedTimeout = 2 * time.Second
	// maxFeedLead is how many ms an id may be ahead of the server's clock, which a
	// failover may have set back; [putScript] begins the feed anew beyond.
	maxFeedLead = 3_600_000
)

// readFeedScript reads a part of the feed of one partition. It returns an event that
// is longer than any of ours as nothing, and in steps, so that what others have
// written to the stream costs little.
//
// KEYS feed, newest id removed from it; ARGV the first id, how many entries, the
// longest event, bytes of events, the replica's time in ms. It returns {the time in
// ms, the oldest id or nothing, the newest id removed or nothing, 1 if more may
// follow, id, event, …}.
const readFeedScript = luaShared + luaFeed + `
local function range(from, count)
  local found = redis.pcall('XRANGE', KEYS[1], from, '+', 'COUNT', count)
  if found.err and not string.find(found.err, 'WRONGTYPE', 1, true) then return redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', count) end
  return found.err and {} or found
end
local limit, longest, room = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local oldest, removed = range('-', 1)[1], read(KEYS[2])
if type(removed) ~= 'string' or #removed > 41 then removed = '' end
local page = {string.format('%.0f', millisNow(ARGV[5])), oldest and oldest[1] or '', removed, '0'}
local from, last, left = ARGV[1], nil, limit
while true do
  local found = range(from, 17) -- from the last of the step before
  for _, entry in ipairs(found) do
    if entry[1] ~= last then
      if left <= 0 or room <= 0 then
        page[4] = '1'
        return page
      end
      local event = entry[2]
      if #event == 2 and event[1] == 'event' and #event[2] <= longest then event = event[2] else event = '' end
      last = entry[1]
      page[#page + 1] = last
      page[#page + 1] = event
      room, left = room - #event, left - 1
    end
  end
  if #found < 17 then return page end
  from = last
end
`

// redisFeed is the feed that all replicas share: a stream in each partition. It is
// safe for concurrent use.
type redisFeed struct {
	tier *sharedTier
	id   changes.FeedID
	read *redis.Script
}

var _ changes.Feed = (*redisFeed)(nil)

func newRedisFeed(tier *sharedTier) *redisFeed {
	sum := sha256.Sum256([]byte(tier.keys.head))
	return &redisFeed{tier: tier, id: changes.FeedID(sum[:8]), read: redis.NewScript(readFeedScript)}
}

// ID implements changes.Feed.
func (f *redisFeed) ID() (id changes.FeedID, outlives bool) { return f.id, true }

// Partitions implements changes.Feed.
func (f *redisFeed) Partitions() int { return partitions }

// Partition implements changes.Feed.
func (f *redisFeed) Partition(id eligibility.CustomerID) int { return partitionOf(id) }

// Written implements changes.Feed.
func (f *redisFeed) Written() <-chan struct{} { return f.tier.written }

// Retention implements changes.Feed.
func (f *redisFeed) Retention() time.Duration { return f.tier.feed.Retention }

// errNotCurrent is why a partition is not read from a server that lacks the last
// heartbeat of this replica: it may lack changes too, and its clock would cover them.
var errNotCurrent = errors.New("redis server lacks what was written last")

// Read implements changes.Feed. It makes one round trip to each server, or two after
// the server has restarted.
func (f *redisFeed) Read(ctx context.Context, asked []changes.Ask, limit int) []changes.Page {
	ctx, cancel := context.WithTimeout(ctx, feedTimeout)
	defer cancel()
	pages := make([]changes.Page, len(asked))
	places := make(map[int][]int, len(asked)) // of a partition in asked
	var of []int
	for i, ask := range asked {
		if len(places[ask.Partition]) == 0 {
			of = append(of, ask.Partition)
		}
		places[ask.Partition] = append(places[ask.Partition], i)
	}
	servers := f.tier.servers(ctx, f.tier.reader, of, func(partition int, err error) {
		for _, i := range places[partition] {
			pages[i].Err = err
		}
	})
	var all sync.WaitGroup
	for _, server := range servers {
		all.Go(func() {
			var at []int
			for _, partition := range server.partitions {
				at = append(at, places[partition]...)
			}
			f.readServer(ctx, server, at, asked, pages, limit)
		})
	}
	all.Wait()
	return pages
}

// readServer reads what is asked of one server: the elements at of asked, into those
// of pages.
func (f *redisFeed) readServer(ctx context.Context, from server, at []int, asked []changes.Ask, pages []changes.Page, limit int) {
	defer func() {
		if r := recover(); r != nil { // of the client library, on a reply that it cannot parse
			for _, i := range at {
				pages[i] = changes.Page{Err: errPanic}
			}
		}
	}()
	r := f.tier
	beats := r.beats.expectedOf(slices.Values(from.partitions))
	replies, err := runAll(ctx, from.client, f.read, len(at), func(i int) (keys []string, args []any) {
		ask := asked[at[i]]
		return []string{r.keys.inPartition(ask.Partition, "feed"), r.keys.inPartition(ask.Partition, "feed:removed")},
			[]any{formatPosition(next(ask.After)), limit, maxEventBytes, pageBytes, r.now().UnixMilli()}
	}, func(pipe redis.Pipeliner) {
		for i := range beats {
			beats[i].reply = pipe.GetRange(ctx, beats[i].key, 0, maxBeatBytes)
		}
	})
	if err != nil && !hasLeft(ctx) {
		r.metrics.redisFaults.WithLabelValues("feed", faultKind(err)).Inc()
		r.faults.warn("feed", err)
	}
	current := currentPartitions(beats)
	for i, reply := range replies {
		ask, page := asked[at[i]], &pages[at[i]]
		answer, replyErr := reply.StringSlice()
		switch {
		case replyErr != nil:
			page.Err = replyErr
		case err != nil && !isReply(err):
			page.Err = err
		case !current[ask.Partition]:
			page.Err = errNotCurrent
		default:
			*page = f.page(ask, answer)
		}
	}
}

// page evaluates the reply of readFeedScript.
func (f *redisFeed) page(ask changes.Ask, answer []string) changes.Page {
	page := changes.Page{First: ask.After, Last: ask.After}
	if len(answer) < 4 || len(answer)%2 != 0 {
		return changes.Page{Err: errMessage}
	}
	now, err := strconv.ParseInt(answer[0], 10, 64)
	if err != nil {
		return changes.Page{Err: errMessage}
	}
	page.Through = now - 1 // more may be written within the millisecond
	oldest, _ := parsePosition(answer[1])
	page.Oldest = oldest.Millis
	if removed, _ := parsePosition(answer[2]); removed.Millis <= now+maxFeedLead {
		page.Removed = removed // no script writes one of the future
	}
	page.Full = answer[3] == "1"
	for i := 4; i < len(answer); i += 2 {
		at, ok := parsePosition(answer[i])
		if !ok { // none of ours; the next write begins the feed anew
			f.tier.metrics.changesUnreadable.Inc()
			page.Full = false
			return page
		}
		if !page.Last.Before(at) {
			return changes.Page{Err: errMessage}
		}
		if page.Last = at; i == 4 {
			page.First = at
		}
		change, err := f.tier.seals.openChange([]byte(answer[i+1]))
		if err != nil || partitionOf(change.Key.CustomerID) != ask.Partition {
			f.tier.metrics.changesUnreadable.Inc()
			continue
		}
		page.Entries = append(page.Entries, changes.Entry{Position: at, Change: change})
	}
	return page
}

// next returns the first position behind p.
func next(p changes.Position) changes.Position {
	if p.Seq == math.MaxUint64 {
		return changes.Position{Millis: p.Millis + 1}
	}
	p.Seq++
	return p
}

func formatPosition(p changes.Position) string {
	return strconv.FormatInt(p.Millis, 10) + "-" + strconv.FormatUint(p.Seq, 10)
}

func parsePosition(id string) (p changes.Position, ok bool) {
	millis, seq, ok := strings.Cut(id, "-")
	var err error
	if p.Millis, err = strconv.ParseInt(millis, 10, 64); err != nil || p.Millis < 0 {
		return changes.Position{}, false
	}
	if p.Seq, err = strconv.ParseUint(seq, 10, 64); err != nil {
		return changes.Position{}, false
	}
	return p, ok
}
