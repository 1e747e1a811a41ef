// Package allowance bounds what each caller may ask: requests a second, calls in
// progress, and new customers a minute. What one caller spends has no effect on
// another: they share neither a lock nor a counter.
package allowance

import (
	"fmt"
	"hash/maphash"
	"maps"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// maxCallers bounds the callers that have a state of their own, those of the
	// configuration aside. Further ones share a state.
	maxCallers = 10_000
	// maxName bounds the names that are kept; callers with a longer one share a
	// state.
	maxName = 256
	// callerShards spreads the callers, so that a new one costs no copy of all.
	callerShards = 64
	// sweepPause is the least time between two sweeps of idle callers.
	sweepPause = time.Second
	// skew is by how much a time may be older than the one of another request. A
	// time that is further back is that of a clock that was set back.
	skew = 5 * time.Second
)

// Limit is what one caller may ask for. The zero value limits nothing.
type Limit struct {
	RequestsPerSecond int // 0: no limit
	// Burst is how many requests may come at once; at least 1.
	Burst int
	// Concurrent is how many calls may be in progress; 0: no limit.
	Concurrent int
	// NewCustomersPerMinute is how many new customers may be asked about within
	// any minute, if NewCustomers bounds them. 0 is none.
	NewCustomersPerMinute int
	NewCustomers          Bound
}

// Bound selects the callers whose new customers are limited.
type Bound uint8

const (
	// BoundNone limits no caller.
	BoundNone Bound = iota
	// BoundWithoutBatch limits those without the right to batches. The others have
	// a lane of their own for many customers.
	BoundWithoutBatch
	// BoundAll limits all.
	BoundAll
)

// Config tunes the [Callers]. Its zero value limits nobody.
type Config struct {
	// Default applies to every caller that Callers does not name.
	Default Limit
	// Callers are the limits of named callers.
	Callers map[string]Limit
	// Shared counts new customers for all replicas; nil means that each replica
	// counts alone.
	Shared Shared
	// Now is the clock; nil means time.Now. Set back or forward, it costs a caller
	// no more than its burst.
	Now func() time.Time
	// Registerer registers the metrics; nil means none.
	Registerer prometheus.Registerer
}

// Callers holds the state of every caller. It is safe for concurrent use.
type Callers struct {
	config  Config
	origin  time.Time
	metrics *metrics
	named   map[string]*Caller // of the configuration; never changed
	rest    *Caller            // shared by those for whom there is no room
	seed    maphash.Seed
	size    atomic.Int64 // of all shards
	swept   atomic.Int64 // the last sweep, in nanoseconds since origin
	// shards hold maps that are replaced and never changed, so that a lookup takes
	// no lock.
	shards [callerShards]atomic.Pointer[map[string]*Caller]
}

// New returns the callers of a configuration. It fails only if a metric's name is
// taken.
func New(config Config) (*Callers, error) {
	if config.Now == nil {
		config.Now = time.Now
	}
	c := &Callers{config: config, origin: config.Now(), metrics: newMetrics(), seed: maphash.MakeSeed(), named: make(map[string]*Caller)}
	c.swept.Store(-int64(sweepPause))
	for name, limit := range config.Callers {
		c.named[name] = c.newCaller(name, limit)
	}
	c.rest = c.newCaller("", config.Default) // no caller has an empty name
	if config.Registerer != nil {
		if err := config.Registerer.Register(c.metrics.newCustomers); err != nil {
			return nil, fmt.Errorf("allowance: register metrics: %w", err)
		}
	}
	return c, nil
}

// Of returns the state of the caller of that name.
func (c *Callers) Of(name string) *Caller {
	if named, ok := c.named[name]; ok {
		return named
	}
	if len(name) > maxName {
		return c.rest
	}
	shard := &c.shards[maphash.String(c.seed, name)%callerShards]
	if held := shard.Load(); held != nil {
		if caller, ok := (*held)[name]; ok {
			return caller
		}
	}
	return c.add(shard, name)
}

// add gives a caller a state of its own if there is room for one.
func (c *Callers) add(shard *atomic.Pointer[map[string]*Caller], name string) *Caller {
	if c.size.Load() >= maxCallers {
		c.sweep()
	}
	if c.size.Add(1) > maxCallers {
		c.size.Add(-1)
		return c.rest
	}
	caller := c.newCaller(strings.Clone(name), c.config.Default) // not the whole token that the name is of
	for {
		held := shard.Load()
		larger := make(map[string]*Caller)
		if held != nil {
			if other, ok := (*held)[name]; ok { // added just now
				c.size.Add(-1)
				return other
			}
			maps.Copy(larger, *held)
		}
		larger[caller.name] = caller
		if shard.CompareAndSwap(held, &larger) {
			return caller
		}
	}
}

// sweep drops the callers whose state is that of a caller who has asked nothing:
// they lose nothing by it.
func (c *Callers) sweep() {
	now := c.config.Now()
	at, last := int64(now.Sub(c.origin)), c.swept.Load()
	if at >= last && at-last < int64(sweepPause) || !c.swept.CompareAndSwap(last, at) {
		return
	}
	for i := range c.shards {
		shard := &c.shards[i]
		for {
			held := shard.Load()
			if held == nil {
				break
			}
			busy := make(map[string]*Caller)
			for name, caller := range *held {
				if !caller.unused(now) {
					busy[name] = caller
				}
			}
			if shard.CompareAndSwap(held, &busy) {
				c.size.Add(int64(len(busy) - len(*held)))
				break
			}
		}
	}
}

// Caller is the state of one caller. It is safe for concurrent use.
type Caller struct {
	name         string
	limit        Limit
	origin       time.Time
	interval     int64 // between requests in the long run, in nanoseconds; 0: no limit
	depth        int64 // the burst times the interval
	newCustomers *NewCustomers

	// arrival is when the whole burst is there again, in nanoseconds since origin
	// (GCRA).
	arrival    atomic.Int64
	inProgress atomic.Int64
}

func (c *Callers) newCaller(name string, limit Limit) *Caller {
	caller := &Caller{name: name, limit: limit, origin: c.origin}
	if limit.RequestsPerSecond > 0 {
		perSecond := int64(limit.RequestsPerSecond)
		caller.interval = max((int64(time.Second)+perSecond-1)/perSecond, 1) // rounded up: never more than the limit
		caller.depth = int64(max(limit.Burst, 1)) * caller.interval
	}
	if limit.NewCustomers != BoundNone {
		caller.newCustomers = &NewCustomers{
			caller: name, perMinute: limit.NewCustomersPerMinute, shared: c.config.Shared,
			now: c.config.Now, origin: c.origin, metrics: c.metrics,
		}
	}
	return caller
}

// Burst is how many requests the caller may make at once; false if nothing bounds it.
func (c *Caller) Burst() (requests int, bounded bool) {
	if c.interval == 0 {
		return 0, false
	}
	return int(c.depth / c.interval), true
}

// Requests takes n requests at now, or as many of them as the caller may make. If
// that is fewer, retryAfter is when it may make the others or, if they are more
// than its burst, as many as that.
func (c *Caller) Requests(now time.Time, n int) (granted int, retryAfter time.Duration) {
	if c.interval == 0 || n <= 0 {
		return n, 0
	}
	at := int64(now.Sub(c.origin))
	for {
		was := c.arrival.Load()
		start := max(was, at)
		if start > at+c.depth+int64(skew) { // the clock was set back
			start = at + c.depth
		}
		granted = int(min(int64(n), max(at+c.depth-start, 0)/c.interval))
		next := start + int64(granted)*c.interval
		if (granted > 0 || start < was) && !c.arrival.CompareAndSwap(was, next) {
			continue
		}
		if granted == n {
			return n, 0
		}
		missing := min(int64(n-granted)*c.interval, c.depth)
		return granted, time.Duration(next + missing - c.depth - at)
	}
}

// Enter counts a call in progress, which ends with [Caller.Leave]; false if the
// caller has too many.
func (c *Caller) Enter() bool {
	if c.limit.Concurrent > 0 && c.inProgress.Add(1) > int64(c.limit.Concurrent) {
		c.inProgress.Add(-1)
		return false
	}
	return true
}

// Leave ends a call for which Enter returned true.
func (c *Caller) Leave() {
	if c.limit.Concurrent > 0 {
		c.inProgress.Add(-1)
	}
}

// NewCustomers returns the new customers that the caller may ask about one by one;
// nil if that is not limited. batch is whether it has the right to batches.
func (c *Caller) NewCustomers(batch bool) *NewCustomers {
	if batch && c.limit.NewCustomers != BoundAll {
		return nil
	}
	return c.newCustomers
}

// unused reports whether the state is that of a caller who has asked nothing.
func (c *Caller) unused(now time.Time) bool {
	return c.inProgress.Load() == 0 && c.arrival.Load() <= int64(now.Sub(c.origin)) && c.newCustomers.unused()
}
