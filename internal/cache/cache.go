// Package cache stores evidence in this process and, if configured, in Redis,
// which all replicas share. [Store] implements evidence.Store.
//
// It stores facts, never decisions. A fault of Redis is a miss: it is counted,
// logged at most once an interval, and never returned to a caller.
package cache

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// Config tunes a [Store]. Its zero value is an in-process store with the
// documented defaults.
type Config struct {
	// MaxEntries bounds the customers in the local tier; 0 means 100,000.
	MaxEntries int
	// MaxBytes bounds their memory, approximately; 0 means 128 MiB.
	MaxBytes int
	// LocalMaxAge is how long the local tier serves an entry without confirmation
	// if Redis is configured, since another replica may have newer evidence; 0
	// means 30 s. Without Redis, the evidence's own ages are the only limit.
	LocalMaxAge time.Duration
	// Ages are the ages of evidence. They bound the life of tombstones and of writes
	// in the outbox. The zero value means eligibility.DefaultAges.
	Ages eligibility.Ages
	// Policy decides which evidence is of a customer under review.
	Policy eligibility.Policy
	// Feed bounds the feed of changes.
	Feed FeedConfig
	// Reviews configures the list of customers under review. There is none without
	// Redis.
	Reviews ReviewsConfig
	// Redis configures the shared tier; without Addresses there is none.
	Redis RedisConfig
	// Connections are those to the Redis of that configuration, if several stores
	// share them; nil means that the store has its own, which Close ends.
	Connections *Connections
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
	// Logger receives warnings about Redis; nil means none.
	Logger *zap.Logger
	// Registerer registers the metrics; nil means none.
	Registerer prometheus.Registerer
}

// Store is the two-tier store of evidence. It is safe for concurrent use.
type Store struct {
	local     *local
	redis     *sharedTier // nil without Redis
	leases    *leases
	outbox    *outbox
	feed      changes.Feed
	connected chan struct{}
	ages      eligibility.Ages
	maxAge    time.Duration
	now       func() time.Time
	metrics   *metrics
}

var _ evidence.Store = (*Store)(nil)

// New builds a Store. It opens no connection, so that a start does not depend
// on Redis; it fails only if the Config is invalid.
func New(cfg Config) (*Store, error) {
	if cfg.MaxEntries == 0 {
		cfg.MaxEntries = 100_000
	}
	if cfg.LocalMaxAge == 0 {
		cfg.LocalMaxAge = 30 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 128 << 20
	}
	if cfg.MaxEntries < 0 || cfg.MaxBytes < 0 || cfg.LocalMaxAge < 0 {
		return nil, errors.New("cache: max entries, max bytes and local max age must not be negative")
	}
	if err := cfg.setFeedDefaults(); err != nil {
		return nil, err
	}
	if cfg.Ages == (eligibility.Ages{}) {
		cfg.Ages = eligibility.DefaultAges()
	}
	local, err := newLocal(cfg.MaxEntries, cfg.MaxBytes, cfg.Ages.LongestFresh())
	if err != nil {
		return nil, err
	}
	metrics, err := newMetrics(cfg.Registerer, local)
	if err != nil {
		return nil, err
	}
	store := &Store{
		local: local, leases: newLeases(), outbox: newOutbox(cfg.Now, metrics), connected: make(chan struct{}),
		ages: cfg.Ages, maxAge: cfg.LocalMaxAge, now: cfg.Now, metrics: metrics,
	}
	if len(cfg.Redis.Addresses) > 0 {
		if store.redis, err = newSharedTier(cfg, metrics); err != nil {
			return nil, err
		}
		store.feed = newRedisFeed(store.redis)
	} else {
		feed := newMemoryFeed(cfg.Feed.Retention, cfg.Now, metrics)
		store.feed, local.replaced = feed, feed.add
		close(store.connected)
	}
	if err := metrics.observe(store, cfg.Registerer); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return store, nil
}

// Close ends the store's own connections to Redis. The store must not be used afterwards.
func (s *Store) Close() error {
	if s.redis == nil {
		return nil
	}
	return s.redis.close()
}

// fromFuture reports whether evidence is timestamped further ahead than clock skew
// allows. It then counts as absent in both tiers, or it would keep out all that is
// fetched until then.
func fromFuture(evidence *eligibility.Evidence, now time.Time) bool {
	return evidence.FetchTime.After(now) && evidence.FetchTime.After(now.Add(eligibility.ClockTolerance))
}

// health is that of the server which holds key. There must be a Redis.
func (s *Store) health(key eligibility.Key) *partitionHealth {
	return &s.redis.health.partitions[partitionOf(key.CustomerID)]
}

// Peek implements evidence.Store.
func (s *Store) Peek(key eligibility.Key, now time.Time) evidence.Found {
	found := s.found(key, s.local.get(key.CustomerID), now)
	s.counterOf(found).Inc()
	return found
}

// PeekBoth implements evidence.Store.
func (s *Store) PeekBoth(id eligibility.CustomerID, now time.Time) (account, qualifications evidence.Found) {
	held := s.local.get(id)
	account = s.found(eligibility.Key{CustomerID: id, Facet: eligibility.FacetAccount}, held, now)
	qualifications = s.found(eligibility.Key{CustomerID: id, Facet: eligibility.FacetQualifications}, held, now)
	if counted := s.counterOf(account); counted == s.counterOf(qualifications) {
		counted.Add(2)
	} else {
		counted.Inc()
		s.counterOf(qualifications).Inc()
	}
	return account, qualifications
}

// PeekAll implements evidence.Store.
func (s *Store) PeekAll(ids []eligibility.CustomerID, now time.Time, founds *[evidence.PeekAtOnce][2]evidence.Found) {
	// Each loop reads memory of one kind and little else, so that the processor waits for
	// all of it at once.
	var held [evidence.PeekAtOnce]*customer
	s.local.lookUp(ids, held[:])
	var entries [evidence.PeekAtOnce][2]entry
	for i := range ids {
		for facet := range entries[i] {
			entries[i][facet], _ = held[i].entry(eligibility.Facet(facet))
		}
	}
	for i := range ids {
		for facet, e := range entries[i] {
			founds[i][facet] = evidence.Found{}
			if e.evidence != nil && !fromFuture(e.evidence, now) {
				founds[i][facet].Evidence = e.evidence
			}
		}
	}
	readAhead(founds[:len(ids)])
	var hits, misses, mustRevalidate int
	for i, id := range ids {
		for facet, e := range entries[i] {
			found := &founds[i][facet]
			if found.Evidence == nil {
				misses++
				continue
			}
			*found = s.foundIn(keyOf(id, facet), e, now)
			if found.MustRevalidate {
				mustRevalidate++
			} else {
				hits++
			}
		}
	}
	s.metrics.localHit.Add(float64(hits))
	s.metrics.localMiss.Add(float64(misses))
	s.metrics.localMustRevalidate.Add(float64(mustRevalidate))
}

// readAhead makes the processor fetch what answers repeat of evidence and what lies in a
// place of its own.
func readAhead(founds [][2]evidence.Found) {
	var first byte
	for i := range founds {
		if e := founds[i][eligibility.FacetAccount].Evidence; e != nil && e.CorrelationID != "" {
			first |= e.CorrelationID[0]
		}
		if e := founds[i][eligibility.FacetQualifications].Evidence; e != nil && len(e.Qualifications) > 0 {
			first |= byte(e.Qualifications[0].VettingStatus)
		}
	}
	runtime.KeepAlive(first)
}

// found returns what the local tier holds under key, in c.
func (s *Store) found(key eligibility.Key, c *customer, now time.Time) evidence.Found {
	entry, held := c.entry(key.Facet)
	if !held || fromFuture(entry.evidence, now) {
		return evidence.Found{}
	}
	return s.foundIn(key, entry, now)
}

// foundIn returns what was found in the entry under key, whose evidence is not from
// the future.
func (s *Store) foundIn(key eligibility.Key, e entry, now time.Time) evidence.Found {
	return evidence.Found{
		Evidence:       e.evidence,
		Tier:           eligibility.TierLocal,
		MustRevalidate: s.redis != nil && !s.health(key).trusts(e.confirmed.UnixNano(), now.UnixNano(), s.maxAge),
	}
}

// counterOf returns the counter of such lookups of the local tier.
func (s *Store) counterOf(found evidence.Found) prometheus.Counter { //nolint:ireturn // the library has no other type
	switch {
	case found.Evidence == nil:
		return s.metrics.localMiss
	case found.MustRevalidate:
		return s.metrics.localMustRevalidate
	default:
		return s.metrics.localHit
	}
}

// Load implements evidence.Store. It waits for Redis no longer than the
// read timeout, and a moment for reads in flight to share a round trip.
func (s *Store) Load(ctx context.Context, keys []eligibility.Key) []evidence.Found {
	return s.load(ctx, keys, (*sharedTier).load)
}

// LoadWithin implements evidence.Store.
func (s *Store) LoadWithin(ctx context.Context, keys []eligibility.Key) []evidence.Found {
	return s.load(ctx, keys, (*sharedTier).loadWithin)
}

func (s *Store) load(ctx context.Context, keys []eligibility.Key, read func(*sharedTier, context.Context, []eligibility.Key, *local) []loaded) []evidence.Found {
	founds := make([]evidence.Found, len(keys))
	if s.redis == nil {
		now := s.now()
		for i, key := range keys {
			founds[i] = s.held(key, now)
		}
		return founds
	}
	asked := new(time.Time)
	*asked = s.now()
	loading, span := startSpan(ctx, "load", len(keys))
	shared := read(s.redis, loading, keys, s.local)
	endLoad(span, shared)
	now := s.now()
	for i := 0; i < len(keys); {
		end := endOfCustomer(keys, i)
		s.adopt(keys[i:end], shared[i:end], asked, now, founds[i:end])
		i = end
	}
	return founds
}

// endOfCustomer returns the end of the keys from start on that are of one customer, of
// different facets.
func endOfCustomer(keys []eligibility.Key, start int) (end int) {
	if end = start + 1; end < len(keys) && keys[end].CustomerID == keys[start].CustomerID && keys[end].Facet != keys[start].Facet {
		end++
	}
	return end
}

// adopt keeps what was read from Redis at asked about one customer, and returns the
// newest in founds.
func (s *Store) adopt(keys []eligibility.Key, shared []loaded, asked *time.Time, now time.Time, founds []evidence.Found) {
	var read [2]entry
	for i, key := range keys {
		if shared[i].evidence == nil {
			continue
		}
		read[key.Facet] = entry{evidence: shared[i].evidence, confirmed: &unconfirmed}
		if s.confirms(key, shared[i], now) {
			read[key.Facet].confirmed = asked
		}
	}
	newest, ok := s.local.putBoth(keys[0].CustomerID, read, now)
	for i, key := range keys {
		if shared[i].evidence == nil {
			founds[i] = s.held(key, now)
		} else if ok[key.Facet] { // if not, newer evidence was announced, and is not here
			founds[i] = s.adopted(key, shared[i].evidence, newest[key.Facet], *asked, now)
		}
		founds[i].Unread = !shared[i].read
	}
}

// adopted returns what was found under key if Redis holds evidence. If that is older
// than the newest entry of this process, Redis has lost the newer.
func (s *Store) adopted(key eligibility.Key, read *eligibility.Evidence, newest entry, asked, now time.Time) evidence.Found {
	if newest.evidence.FetchTime.After(read.FetchTime) {
		s.writeBack(key, newest.evidence)
		return s.held(key, now)
	}
	// If this read did not confirm it, an earlier confirmation lasts for the local
	// tier's own age.
	return evidence.Found{
		Evidence: newest.evidence, Tier: eligibility.TierRedis,
		MustRevalidate: newest.confirmed.Before(asked) && !within(int64(now.Sub(*newest.confirmed)), s.maxAge),
	}
}

// confirms reports whether Redis confirms that evidence that was read from it is the
// newest.
func (s *Store) confirms(key eligibility.Key, loaded loaded, now time.Time) bool {
	return loaded.current && s.health(key).confirms(loaded.evidence.FetchTime, now)
}

// writeBack stores evidence of this process in place of older evidence in Redis.
func (s *Store) writeBack(key eligibility.Key, evidence *eligibility.Evidence) {
	s.metrics.writeBacks.Inc()
	s.addToOutbox(key, evidence, s.ages.KeepUntil(evidence), false, nil)
}

// held is what the local tier holds under key when Redis has nothing newer.
func (s *Store) held(key eligibility.Key, now time.Time) evidence.Found {
	entry, held := s.local.get(key.CustomerID).entry(key.Facet)
	if !held || fromFuture(entry.evidence, now) {
		return evidence.Found{}
	}
	return evidence.Found{
		Evidence:       entry.evidence,
		Tier:           eligibility.TierLocal,
		MustRevalidate: s.redis != nil && !within(int64(now.Sub(*entry.confirmed)), s.maxAge),
	}
}

// Put implements evidence.Store.
func (s *Store) Put(key eligibility.Key, evidence *eligibility.Evidence) *eligibility.Evidence {
	// If this process fetched the evidence, nothing newer was known when the fetch
	// started. If it came from elsewhere, storing it confirms nothing.
	confirmed := &unconfirmed
	if evidence.FetchedHere() {
		confirmed = &evidence.FetchTime
	}
	newest, _ := s.local.put(key, entry{evidence: evidence, confirmed: confirmed}, s.now())
	return newest.evidence
}

// Share implements evidence.Store. It waits for Redis no longer than the
// write timeout; Run repeats what Redis does not store.
func (s *Store) Share(ctx context.Context, key eligibility.Key, evidence *eligibility.Evidence, keepUntil time.Time) {
	if s.redis == nil {
		return
	}
	ctx, span := startSpan(ctx, "put", 1)
	defer span.End()
	lease, _ := s.leases.forget(key)
	trail := s.outbox.trailTo(key, evidence)
	result := s.redis.put(ctx, write{key: key, evidence: evidence, keepUntil: keepUntil, lease: lease, trail: trail})
	stored := result.stored && (result.checked || !trail.unwritten)
	s.addToOutbox(key, evidence, keepUntil, stored, cmp.Or(result.replaced.evidence, lease.stored.evidence))
	if now := s.now(); result.newer != nil && !fromFuture(result.newer, now) {
		// Nothing shows that the connection reached the server that has the newest.
		s.local.applyMessage(key, result.newer, &unconfirmed, now, false)
	}
	s.leases.wake(message{key: key, evidence: evidence})
}

func (s *Store) addToOutbox(key eligibility.Key, evidence *eligibility.Evidence, keepUntil time.Time, stored bool, replaced *eligibility.Evidence) {
	if !s.outbox.add(key, evidence, keepUntil, stored, replaced) {
		s.redis.faults.outboxFull()
	}
}
