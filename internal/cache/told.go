package cache

import (
	"sync"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const (
	toldShards = 64
	// toldLife is how long an announcement keeps older evidence out: longer
	// than any fetch or look-up that began before it can take.
	toldLife = 15 * time.Second
	// maxTold bounds a shard.
	maxTold = 2048
)

// told remembers what other replicas have announced lately, so that older
// evidence which was on its way here meanwhile is not taken: the answer of a
// slow fetch, or what Redis held a moment ago.
type told struct{ shards [toldShards]toldShard }

type toldShard struct {
	mu    sync.Mutex
	known map[eligibility.Key]announced // guarded by mu
	// floor stands in for what did not fit: all keys of the shard then count
	// as announced at its time. Guarded by mu.
	floor announced
}

// announced is the time of evidence that another replica has, and when this
// process heard of it, both in Unix ns.
type announced struct{ fetched, heard int64 }

func (a announced) lasts(now int64) bool { return now-a.heard < int64(toldLife) }

func newTold() *told {
	t := new(told)
	for i := range t.shards {
		t.shards[i].known = make(map[eligibility.Key]announced)
	}
	return t
}

func (t *told) shard(key eligibility.Key) *toldShard {
	return &t.shards[key.CustomerID[15]%toldShards]
}

// put notes that evidence fetched at that time exists.
func (t *told) put(key eligibility.Key, fetched, now time.Time) {
	shard, news := t.shard(key), announced{fetched: fetched.UnixNano(), heard: now.UnixNano()}
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if shard.known[key].fetched > news.fetched {
		return
	}
	if len(shard.known) >= maxTold {
		for other, a := range shard.known {
			if !a.lasts(news.heard) {
				delete(shard.known, other)
			}
		}
	}
	if len(shard.known) >= maxTold {
		shard.floor = announced{fetched: max(shard.floor.fetched, news.fetched), heard: news.heard}
		return
	}
	shard.known[key] = news
}

// newerThan reports whether evidence newer than fetched was announced.
func (t *told) newerThan(key eligibility.Key, fetched, now time.Time) bool {
	shard, ns := t.shard(key), now.UnixNano()
	shard.mu.Lock()
	defer shard.mu.Unlock()
	of := func(a announced) bool { return a.lasts(ns) && a.fetched > fetched.UnixNano() }
	return of(shard.known[key]) || of(shard.floor)
}
