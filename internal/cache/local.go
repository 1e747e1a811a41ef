package cache

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// local is the tier in this process: bounded by customers and bytes, without a
// lock that all callers share. Evidence that is no longer usable stays until it is
// evicted; the service evaluates ages at each use.
type local struct {
	customers *otter.Cache[eligibility.CustomerID, *customer]
	// places have customers as they were last looked up: a look-up there waits for less
	// memory than one in the table. Customers may share a place, and only the last has it.
	places  []atomic.Pointer[customer]
	evicted atomic.Uint64
	tombs   *tombstones
	// replaced is called with evidence that put holds from now on and what it
	// replaces, nil if nothing; for each key one call after the other. It is nil if
	// there is a Redis.
	replaced func(key eligibility.Key, before, after *eligibility.Evidence)
}

// customer is what is held about both facets of a customer. But for its confirmations
// and gone, it is never changed, only replaced.
type customer struct {
	id     eligibility.CustomerID
	gone   atomic.Bool // set before the table holds another, or none
	facets [2]half
}

// is reports whether c, which may be nil, is what the table holds about a customer.
func (c *customer) is(id eligibility.CustomerID) bool {
	return c != nil && c.id == id && !c.gone.Load()
}

// half is what is held about one facet.
type half struct {
	evidence  *eligibility.Evidence // nil if there is none
	confirmed time.Time             // as in entry
	// raised is a later confirmation, nil if there was none. What lowers it replaces the
	// customer, so that a confirmation of what was held before is lost.
	raised atomic.Pointer[time.Time]
}

// entry is what is held under a key at one moment.
type entry struct {
	evidence *eligibility.Evidence
	// confirmed is the last moment at which, as far as this process knows, nothing
	// newer was known anywhere: when Redis was read, or the fetch started. If Redis
	// confirmed nothing, it is unconfirmed. It must not be changed.
	confirmed *time.Time
}

// unconfirmed is so long ago that an entry must be revalidated.
var unconfirmed = time.Unix(0, 0) //nolint:gochecknoglobals // only read

// entry returns what c, which may be nil, holds about a facet, and whether it holds
// anything.
func (c *customer) entry(facet eligibility.Facet) (e entry, held bool) {
	if c == nil || c.facets[facet].evidence == nil {
		return entry{}, false
	}
	return entry{evidence: c.facets[facet].evidence, confirmed: c.facets[facet].confirmation()}, true
}

func (h *half) confirmation() *time.Time {
	if raised := h.raised.Load(); raised != nil {
		return raised
	}
	return &h.confirmed
}

// confirm records that evidence was confirmed at a time, unless it was later.
func (h *half) confirm(at *time.Time) {
	for {
		raised := h.raised.Load()
		if !at.After(*h.confirmation()) || h.raised.CompareAndSwap(raised, at) {
			return
		}
	}
}

// hold changes what c, of which nobody else knows yet, holds about a facet.
func (c *customer) hold(facet eligibility.Facet, e entry) {
	c.facets[facet].evidence, c.facets[facet].confirmed = e.evidence, *e.confirmed
}

// drop removes what c, of which nobody else knows yet, holds about a facet.
func (c *customer) drop(facet eligibility.Facet) { c.facets[facet].evidence = nil }

// newLocal bounds both at once: a customer weighs its bytes or, if that is more, its
// share of maxBytes.
func newLocal(maxEntries, maxBytes int, longestFresh time.Duration) (*local, error) {
	share := max(maxBytes/maxEntries, 1)
	l := &local{tombs: newTombstones(longestFresh), places: make([]atomic.Pointer[customer], 1<<min(bits.Len(uint(2*maxEntries)), maxPlaceBits))}
	var err error
	l.customers, err = otter.New(&otter.Options[eligibility.CustomerID, *customer]{
		MaximumWeight: uint64(share) * uint64(maxEntries), //nolint:gosec // both are positive
		Weigher: func(_ eligibility.CustomerID, c *customer) uint32 {
			return uint32(max(c.bytes(), share)) //nolint:gosec // bounded by what an answer may hold
		},
		// A recorder of statistics would run at each lookup too.
		OnAtomicDeletion: func(e otter.DeletionEvent[eligibility.CustomerID, *customer]) {
			e.Value.gone.Store(true)
			l.place(e.Key).CompareAndSwap(e.Value, nil)
			if e.WasEvicted() {
				l.evicted.Add(1)
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("cache: local tier: %w", err)
	}
	return l, nil
}

// maxPlaceBits bounds the places: to 2 MiB.
const maxPlaceBits = 18

// place returns the place of a customer. IDs need not be random for it.
func (l *local) place(id eligibility.CustomerID) *atomic.Pointer[customer] {
	const odd = 0x9e3779b97f4a7c15
	mixed := (binary.LittleEndian.Uint64(id[:8]) ^ binary.LittleEndian.Uint64(id[8:])) * odd
	mixed = (mixed ^ mixed>>32) * odd
	return &l.places[mixed>>40&uint64(len(l.places)-1)] //nolint:gosec // not negative
}

// bytes returns approximately the memory of c.
func (c *customer) bytes() int {
	const customerBytes = 192
	n := customerBytes
	for facet := range c.facets {
		if evidence := c.facets[facet].evidence; evidence != nil {
			n += bytesOf(evidence)
		}
	}
	return n
}

// bytesOf returns approximately the memory of evidence.
func bytesOf(evidence *eligibility.Evidence) int {
	const evidenceBytes, qualificationBytes = 160, 96
	n := evidenceBytes + len(evidence.StatusText) + len(evidence.CorrelationID) + len(evidence.RequestID)
	for i := range evidence.Qualifications {
		q := &evidence.Qualifications[i]
		n += qualificationBytes + len(q.TypeText) + len(q.VettingStatusText) + len(q.VettingReason)
	}
	return n
}

// get returns what is held about a customer; nil if nothing. Once a customer was evicted,
// places serve no more: the policy that chooses the next must see each look-up.
func (l *local) get(id eligibility.CustomerID) *customer {
	if l.evicted.Load() > 0 {
		held, _ := l.customers.GetIfPresent(id)
		return held
	}
	if held := l.place(id).Load(); held.is(id) {
		return held
	}
	held, ok := l.customers.GetIfPresent(id)
	if ok {
		l.place(id).Store(held)
	}
	return held
}

// lookUp puts what get returns for several customers into held, which is zero. Each loop
// reads memory of one kind. A look-up that the table records for its policy would stand in
// the way of the next, so the table is read before.
func (l *local) lookUp(ids []eligibility.CustomerID, held []*customer) {
	if l.evicted.Load() == 0 {
		for i, id := range ids {
			held[i] = l.place(id).Load()
		}
	}
	for i, id := range ids {
		if !held[i].is(id) {
			held[i] = nil
			l.customers.GetEntryQuietly(id)
		}
	}
	for i, id := range ids {
		if held[i] == nil {
			held[i] = l.get(id)
		}
	}
}

// known is evidence that this process holds, or nil.
type known struct {
	evidence *eligibility.Evidence
	fetched  int64 // its FetchTime, Unix ns
}

// knownAtOnce is how many keys are looked up before any of them is used.
const knownAtOnce = evidence.PeekAtOnce

// knowns puts what is held under keys into knowns; nothing if l is nil. It reads memory
// of one kind after the other, so that the processor waits for all of one kind at once.
func (l *local) knowns(keys []eligibility.Key, knowns *[knownAtOnce]known) {
	if l == nil {
		return
	}
	var ids [knownAtOnce]eligibility.CustomerID
	var places [knownAtOnce]int // of keys, in ids
	customers := 0
	for i, key := range keys {
		if i == 0 || key.CustomerID != keys[i-1].CustomerID {
			ids[customers] = key.CustomerID
			customers++
		}
		places[i] = customers - 1
	}
	var held [knownAtOnce]*customer
	l.lookUp(ids[:customers], held[:customers])
	for i, key := range keys {
		e, _ := held[places[i]].entry(key.Facet)
		knowns[i].evidence = e.evidence
	}
	for i := range keys {
		if e := knowns[i].evidence; e != nil {
			knowns[i].fetched = e.FetchTime.UnixNano()
		}
	}
}

// change replaces what is held about a customer by what by makes of a copy of it. If by
// returns false, nothing changes.
func (l *local) change(id eligibility.CustomerID, by func(next *customer) (changed bool)) {
	l.customers.Compute(id, func(old *customer, _ bool) (*customer, otter.ComputeOp) {
		next := &customer{id: id}
		for facet := range next.facets {
			if e, held := old.entry(eligibility.Facet(facet)); held {
				next.hold(eligibility.Facet(facet), e)
			}
		}
		switch {
		case !by(next):
			return old, otter.CancelOp
		case next.facets[0].evidence == nil && next.facets[1].evidence == nil:
			return nil, otter.InvalidateOp
		default:
			return next, otter.WriteOp
		}
	})
}

// put holds evidence about one facet, see putBoth.
func (l *local) put(key eligibility.Key, e entry, now time.Time) (newest entry, ok bool) {
	var found [2]entry
	found[key.Facet] = e
	newests, oks := l.putBoth(key.CustomerID, found, now)
	return newests[key.Facet], oks[key.Facet]
}

// putBoth holds what was found about each facet of a customer, if it has evidence,
// unless something newer is known by now. It returns the newest entry of each, which is
// held then; false if another replica has announced newer evidence that is not here.
// Evidence from the future is neither held nor in the way.
func (l *local) putBoth(id eligibility.CustomerID, found [2]entry, now time.Time) (newest [2]entry, ok [2]bool) {
	newest, ok = found, [2]bool{true, true}
	held := l.get(id) // not sooner: what arrives in between would be passed over
	known, open := l.tombs.of(id), false
	for facet := range found {
		e := &found[facet]
		if e.evidence != nil && (fromFuture(e.evidence, now) || l.confirm(facet, held, &known, &newest[facet], now)) {
			*e = entry{}
		}
		open = open || e.evidence != nil
	}
	if open {
		l.change(id, func(next *customer) (changed bool) {
			for facet, e := range found {
				if e.evidence != nil {
					changed = l.decide(keyOf(id, facet), next, e, now, &newest[facet], &ok[facet]) || changed
				}
			}
			return changed
		})
	}
	return newest, ok
}

// decide puts found into next, of which nobody else knows yet, unless something newer
// is there or was announced. It reports whether that changes next.
func (l *local) decide(key eligibility.Key, next *customer, found entry, now time.Time, newest *entry, ok *bool) (changed bool) {
	old, held := next.entry(key.Facet)
	evidence := found.evidence
	// Asked inside Compute, since applyMessage updates the entry after adding the
	// tombstone: one of the two sees the other.
	newer, doubtful := l.tombs.newer(key, evidence, now)
	if held && !fromFuture(old.evidence, now) && replaces(old.evidence, evidence) {
		// Without Redis no other clock has dated it: now was read before that fetch.
		if !old.evidence.FetchTime.After(now) || l.replaced != nil || !mayStandAgainst(evidence, old.evidence, now) {
			*newest, *ok = old, true
			return false
		}
		doubtful = true
	} else if doubtful && (evidence.Status == eligibility.AccountStatusNotReady || approves(evidence)) {
		newer = true // what was announced may be a block, and a purchase may be allowed by this
	}
	switch {
	case newer:
		*newest, *ok = entry{}, false
		next.drop(key.Facet)
		return true
	case doubtful:
		*newest = entry{evidence: evidence, confirmed: &unconfirmed}
	case held && sameFetch(old.evidence, evidence):
		*newest = old // keep the pointer that callers share
		if found.confirmed.After(*old.confirmed) {
			newest.confirmed = found.confirmed
		}
	default:
		*newest = found
	}
	*ok = true
	next.hold(key.Facet, *newest)
	if l.replaced != nil && newest.evidence == evidence {
		l.noteReplaced(key, old.evidence, evidence, now)
	}
	return true
}

// confirm confirms the entry of c about a facet if it is of the same fetch as found and
// nothing newer was announced, and makes found that entry: it does what decide would do,
// without a write to the table. It returns false if decide must do it. The entry is what
// the table held when c was looked up. If c has been replaced since, the confirmation is
// lost with it.
func (l *local) confirm(facet int, c *customer, known *announced, found *entry, now time.Time) bool {
	old, held := c.entry(eligibility.Facet(facet)) //nolint:gosec // below 2
	if !held || !sameFetch(old.evidence, found.evidence) || fromFuture(old.evidence, now) {
		return false
	}
	if newer, doubtful := known.newer(facet, found.evidence, now); newer || doubtful {
		return false
	}
	c.facets[facet].confirm(found.confirmed)
	if old.confirmed.After(*found.confirmed) {
		found.confirmed = old.confirmed
	}
	found.evidence = old.evidence
	return true
}

// sameFetch reports whether two pieces of evidence are of one fetch: neither replaces
// the other.
func sameFetch(a, b *eligibility.Evidence) bool {
	return a == b || !replaces(a, b) && !replaces(b, a)
}

// noteReplaced calls replaced. Of two fetches in one millisecond only the first
// counts, and what is from the future counts as absent.
func (l *local) noteReplaced(key eligibility.Key, before, after *eligibility.Evidence, now time.Time) {
	switch {
	case before == nil || fromFuture(before, now):
		l.replaced(key, nil, after)
	case before.FetchTime.Before(after.FetchTime):
		l.replaced(key, before, after)
	}
}

// replaces reports whether a replaces b: it is newer or, if both fetches
// started within the same millisecond, stricter.
func replaces(a, b *eligibility.Evidence) bool {
	if a.FetchTime.Equal(b.FetchTime) {
		return stricter(a, b)
	}
	return a.FetchTime.After(b.FetchTime)
}

// stricter reports whether a blocks more than b. A policy may allow a purchase if an
// account is not ready, but none does if it is under review. Of qualifications, only those
// that are approved allow one.
func stricter(a, b *eligibility.Evidence) bool {
	return strictness(a) > strictness(b) || a.Status == eligibility.AccountStatusUnderReview && b.Status == eligibility.AccountStatusNotReady ||
		approves(b) && !approves(a)
}

// approves reports whether evidence holds an approved qualification.
func approves(evidence *eligibility.Evidence) bool {
	return slices.ContainsFunc(evidence.Qualifications, func(q eligibility.Qualification) bool { return q.VettingStatus == eligibility.VettingApproved })
}

// mayStandAgainst reports whether evidence stays although another replica dates other
// ahead of this clock, and is held unconfirmed then: see mayStand.
func mayStandAgainst(evidence, other *eligibility.Evidence, now time.Time) bool {
	return mayStand(evidence, policyAllows, now.UnixNano()) && !stricter(other, evidence)
}

// applyMessage applies evidence of another replica, of which nothing newer was known
// at confirmed: older evidence is replaced if it is held, and kept out if not. If
// hold is set, the evidence is held although no caller here needed it: Redis
// does not store it. Evidence ahead of this process's clock needs confirmation; if
// this process itself has just fetched evidence that blocks a purchase and is no less
// strict, that stays and needs confirmation too.
func (l *local) applyMessage(key eligibility.Key, evidence *eligibility.Evidence, confirmed *time.Time, now time.Time, hold bool) {
	l.tombs.add(key, evidence.FetchTime, now)
	l.change(key.CustomerID, func(next *customer) (changed bool) {
		old, held := next.entry(key.Facet)
		ahead := evidence.FetchTime.After(now)
		newer, _ := l.tombs.newer(key, evidence, now)
		switch {
		case !held && (!hold || newer):
			return false
		case !held:
		case !fromFuture(old.evidence, now) && !replaces(evidence, old.evidence):
			return false
		case ahead && !fromFuture(old.evidence, now) && mayStandAgainst(old.evidence, evidence, now):
			next.hold(key.Facet, entry{evidence: old.evidence, confirmed: &unconfirmed})
			return true
		}
		if ahead {
			confirmed = &unconfirmed
		}
		next.hold(key.Facet, entry{evidence: evidence, confirmed: confirmed})
		return true
	})
}

// requireRevalidation makes an entry that is held need confirmation.
func (l *local) requireRevalidation(key eligibility.Key) {
	l.change(key.CustomerID, func(next *customer) (changed bool) {
		old, held := next.entry(key.Facet)
		if held {
			next.hold(key.Facet, entry{evidence: old.evidence, confirmed: &unconfirmed})
		}
		return held
	})
}
