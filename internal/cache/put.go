package cache

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// maxPutTries bounds how often a put asks Redis. Each time, another replica has
// stored evidence in between, or an unreadable value was in the way.
const maxPutTries = 4

// write is evidence to store.
type write struct {
	key       eligibility.Key
	evidence  *eligibility.Evidence
	keepUntil time.Time
	lease     heldLease // that was held for it
	trail     trail
}

// trail is what preceded a piece of evidence, so that the changes that led to it can
// be written whatever Redis holds.
type trail struct {
	// stored is what Redis held when this replica last knew; nil if nothing.
	stored *eligibility.Evidence
	// passed are what this replica has fetched since then, oldest first: of fetches in a
	// row that returned the same facts, the first and the last. Their changes may not be
	// in Redis.
	passed []*eligibility.Evidence
	// unwritten reports that Redis is not known to have the last of them.
	unwritten bool
}

// changesTo returns the changes to evidence from what is stored or, if that is
// nothing, from where the trail begins.
func (t trail) changesTo(key eligibility.Key, evidence, stored *eligibility.Evidence) []*changes.Change {
	return changesAlong(key, cmp.Or(stored, t.stored), append(slices.Clip(t.passed), evidence))
}

// changesAlong returns the changes from evidence, nil if nothing was known, along what
// followed. What is not newer is left out.
func changesAlong(key eligibility.Key, from *eligibility.Evidence, followed []*eligibility.Evidence) (found []*changes.Change) {
	for _, to := range followed {
		if from != nil && !to.FetchTime.After(from.FetchTime) {
			continue
		}
		if change := newChange(key, from, to); change != nil {
			found = append(found, change)
		}
		from = to
	}
	return found
}

// leavesOut reports whether changesTo, from what is stored, leaves out facts that this
// replica has fetched: newer evidence has been stored since.
func (t trail) leavesOut(stored *eligibility.Evidence) bool {
	return stored != nil && slices.ContainsFunc(t.passed, func(passed *eligibility.Evidence) bool {
		return !passed.FetchTime.After(stored.FetchTime) && !passed.SameFacts(stored)
	})
}

// last returns the end of the trail; nil if it is empty.
func (t trail) last() *eligibility.Evidence {
	if n := len(t.passed); n > 0 {
		return t.passed[n-1]
	}
	return t.stored
}

// maxPassed bounds a trail: to 50 changes or more.
const maxPassed = 100

// with returns the trail of what follows evidence.
func (t trail) with(evidence *eligibility.Evidence) trail {
	kept := t.passed
	if n := len(kept); n > 0 && kept[n-1].SameFacts(evidence) {
		if first := (trail{stored: t.stored, passed: kept[:n-1]}).last(); first != nil && first.SameFacts(evidence) {
			kept = kept[:n-1]
		}
	}
	passed := slices.Concat(kept, []*eligibility.Evidence{evidence})
	if extra := len(passed) - maxPassed; extra > 0 {
		return trail{stored: passed[extra-1], passed: passed[extra:]}
	}
	return trail{stored: t.stored, passed: passed}
}

// holds reports whether evidence of that fetch is in the trail.
func (t trail) holds(evidence *eligibility.Evidence) bool {
	return slices.ContainsFunc(t.passed, func(e *eligibility.Evidence) bool { return e.FetchTime.Equal(evidence.FetchTime) })
}

// withEarlier returns the trail with evidence among what it holds, in the order of the
// fetches.
func (t trail) withEarlier(evidence *eligibility.Evidence) trail {
	before := t.before(evidence)
	after := t.passed[len(before.passed):]
	if t.stored != before.stored {
		after = slices.Concat([]*eligibility.Evidence{t.stored}, after)
	}
	found := before.with(evidence)
	for _, passed := range after {
		found = found.with(passed)
	}
	found.unwritten = true
	return found
}

// before returns the part of the trail that precedes evidence.
func (t trail) before(evidence *eligibility.Evidence) trail {
	isLater := func(e *eligibility.Evidence) bool { return !e.FetchTime.Before(evidence.FetchTime) }
	if t.stored != nil && isLater(t.stored) {
		t.stored = nil
	}
	if i := slices.IndexFunc(t.passed, isLater); i >= 0 {
		t.passed = t.passed[:i]
	}
	return t
}

// storedValue is what Redis holds under a key. The zero value is nothing.
type storedValue struct {
	evidence *eligibility.Evidence
	// stamp is what [putScript] knows the value by: two fetches may have started in one
	// millisecond.
	stamp []byte
}

// decodeStored reads a value in the reply of a script, "" if there is none.
func (r *sharedTier) decodeStored(key eligibility.Key, value string) (storedValue, error) {
	if value == "" {
		return storedValue{}, nil
	}
	evidence, err := r.seals.decode(key, []byte(value), known{})
	if err != nil {
		return storedValue{}, err
	}
	return storedValue{evidence: evidence, stamp: stampOf([]byte(value))}, nil
}

// asStored returns what Redis holds if it holds evidence, nil if nothing.
func (r *sharedTier) asStored(key eligibility.Key, evidence *eligibility.Evidence) storedValue {
	if evidence == nil {
		return storedValue{}
	}
	return storedValue{evidence: evidence, stamp: stampOf(r.seals.encode(key, evidence))}
}

func stampOf(value []byte) []byte {
	return slices.Concat(value[1:headerBytes], value[len(value)-checksumBytes:])
}

// putResult is what became of a write.
type putResult struct {
	stored bool                  // Redis has this evidence, or newer
	newer  *eligibility.Evidence // which Redis has; nil if it has none
	// replaced is what Redis held before, if it has stored the evidence.
	replaced storedValue
	// again reports that Redis holds replaced, and not what the writer believed.
	again bool
	// missing are changes to add although replaced stays, and head is the time of the
	// newest entry of the history, or "-", for which they are missing.
	missing []*changes.Change
	head    string
	// checked reports that no change is missing, whatever preceded the evidence.
	checked bool
	// unreadable is a value in the way.
	unreadable []byte
}

// put publishes evidence and stores it, unless newer is stored, with the changes
// that it brings about, and ends the lease that was held for it.
func (r *sharedTier) put(caller context.Context, w write) putResult {
	permit, _, ok := r.writes.Allow()
	if !ok && !r.health.partitions[partitionOf(w.key.CustomerID)].responds(r.now().UnixNano()) {
		return putResult{}
	}
	if !ok { // another server of a cluster hangs
		permit = r.writes.Force()
	}
	ctx, cancel := context.WithTimeout(caller, r.writeTimeout)
	defer cancel()
	now, value := r.now(), r.seals.encode(w.key, w.evidence)
	left := w.keepUntil.Sub(now).Milliseconds()
	if left <= 0 || fromFuture(w.evidence, now) {
		// By this clock, which may have moved since the fetch started. The outbox
		// stores it once the clock is right.
		r.report(caller, "put", permit, r.publish(ctx, w.key, value))
		r.release(caller, w.key, w.lease, nil)
		return putResult{}
	}
	sent, from := now.UnixNano(), basis{believed: w.lease.stored}
	if w.lease.token == (token{}) {
		from.believed = r.asStored(w.key, w.trail.last()) // for want of a better guess
	}
	var newer *eligibility.Evidence
	for range maxPutTries {
		put := r.newPut(w, value, left, from)
		answer, err := r.scripts.put.Run(ctx, r.writer, put.keys, put.args...).StringSlice()
		r.report(caller, "put", permit, err)
		result := r.putReply(put, answer, err, sent)
		newer = cmp.Or(result.newer, newer)
		switch {
		case isReply(err):
			_ = r.publish(ctx, w.key, value) // the script cannot run, but others must know nevertheless
			return result
		case result.unreadable != nil:
			r.remove(caller, removal{key: w.key, value: result.unreadable})
			from = basis{}
		case result.again:
			from = result.basis()
		default:
			result.newer = newer
			return result
		}
	}
	_ = r.publish(ctx, w.key, value)
	return putResult{newer: newer}
}

// publish sends evidence to the other replicas without storing it.
func (r *sharedTier) publish(ctx context.Context, key eligibility.Key, value []byte) error {
	return r.writer.Publish(ctx, r.keys.channel(), append(messageHeader(kindEvidence, key), value...)).Err()
}

// basis is what a run of putScript starts from: what the writer believes to be stored,
// or nothing, and the changes to add although that stays, if there are any.
type basis struct {
	believed storedValue
	missing  []*changes.Change
	head     string // of the history; "" if there are none
}

func (r putResult) basis() basis { return basis{r.replaced, r.missing, r.head} }

// put is one run of putScript.
type put struct {
	write
	basis

	changes int
	keys    []string
	args    []any
}

func (r *sharedTier) newPut(w write, value []byte, left int64, from basis) put {
	var holder []byte
	if w.lease.token != (token{}) {
		holder = w.lease.token[:]
	}
	underReview := 0
	if r.reviews.Enabled && r.policy.UnderReview(w.evidence) {
		// The end of a review shows the evidence before it, however long ago that was
		// fetched. It answers no longer for that: its ages decide.
		underReview, left = 1, max(left, r.reviews.GiveUpAfter.Milliseconds())
	}
	partition := partitionOf(w.key.CustomerID)
	r.metrics.published.Inc()
	p := put{
		write: w, basis: from,
		keys: []string{
			r.keys.of(w.key), r.keys.lease(w.key),
			r.keys.inPartition(partition, "feed"), r.keys.inPartition(partition, "feed:removed"),
			r.keys.inPartition(partition, "reviews"), r.keys.inPartition(partition, "reviews:since"),
			r.keys.history(w.key), r.keys.confirmed(w.key),
		},
		args: []any{
			value, left, timeBytes(r.now().Add(eligibility.ClockTolerance)), holder, r.keys.channel(), messageHeader(kindEvidence, w.key),
			from.believed.stamp, r.feed.Retention.Milliseconds(), share(r.feed.MaxEvents),
			reviewMember(w.key), underReview, 0.9 + 0.2*rand.Float64(), //nolint:gosec // no secret
			r.reviews.GiveUpAfter.Milliseconds(), share(r.reviews.MaxTracked), r.now().UnixMilli(), from.head,
			r.seals.encodeConfirmation(w.key, confirmationOf(w.evidence)),
		},
	}
	found := from.missing
	if len(found) == 0 {
		found = w.trail.changesTo(w.key, w.evidence, from.believed.evidence)
	}
	for _, change := range found {
		p.args = append(p.args, r.seals.sealChange(change, r.source))
	}
	for _, change := range found {
		p.args = append(p.args, r.seals.encodePast(change))
	}
	p.changes = len(found)
	return p
}

// putReplyLen is how many elements the reply of putScript to a put has.
const putReplyLen = 7

// share returns the part of a bound that a partition has.
func share(bound int) int { return (bound + partitions - 1) / partitions }

// putReply evaluates the reply to a put that was sent then.
func (r *sharedTier) putReply(p put, answer []string, err error, sent int64) (result putResult) {
	health := &r.health.partitions[partitionOf(p.key.CustomerID)]
	switch {
	case isReply(err):
		health.refused()
	case err != nil:
	case len(answer) == 2, len(answer) == 3:
		found, err := r.decodeStored(p.key, answer[1])
		if err != nil {
			result.unreadable = []byte(answer[1])
			return result
		}
		result.replaced = found
		if answer[0] == "newer" {
			result.newer = found.evidence
		}
		if len(answer) == 3 {
			result.missing, result.head = r.missing(p.write, found.evidence, answer[2])
		}
		result.again = len(answer) == 2 || len(result.missing) > 0
		result.stored, result.checked = !result.again, !result.again
	case len(answer) == putReplyLen && answer[1] != "":
		health.refused()
		r.metrics.redisFaults.WithLabelValues("put", faultRefused).Inc()
		r.faults.warn("put", replyError(answer[1]))
	case len(answer) == putReplyLen:
		health.accepted(sent)
		result.stored, result.replaced = true, p.believed
		result.checked = len(p.missing) > 0 || !p.trail.leavesOut(p.believed.evidence)
		r.countChanges(p, answer[3], answer[4], answer[5], answer[6])
	}
	return result
}

// countChanges counts what became of the changes of a put whose evidence was stored.
func (r *sharedTier) countChanges(p put, refused, trimmed, untracked, forgotten string) {
	if refused == "" {
		r.metrics.changesWritten.Add(float64(p.changes))
		r.written.send()
	} else {
		r.metrics.changesLost.Add(float64(p.changes))
		r.faults.changeLost(replyError(refused))
	}
	if n, err := strconv.Atoi(trimmed); err == nil {
		r.metrics.changesTrimmed.Add(float64(n))
	}
	if forgotten != "" {
		r.metrics.historyLost.Add(float64(max(p.changes, 1)))
		r.faults.historyLost(replyError(forgotten))
	}
	if untracked == "1" {
		r.metrics.reviewsUntracked.Inc()
	}
}

// putAll repeats writes to servers that respond, in as few round trips as it takes, and
// calls stored for those that are. It returns how many are stored. A write that
// another replica overtakes is left for the next call.
func (r *sharedTier) putAll(caller context.Context, writes []outboxWrite, stored func(outboxWrite)) (n int) {
	permit := r.writes.Force() // the circuit breaker may be open because of other servers
	ctx, cancel := context.WithTimeout(caller, r.writeTimeout)
	defer cancel()
	sent := r.now()
	from := make([]basis, len(writes))
	for i, write := range writes {
		from[i].believed = r.asStored(write.key, write.trail.last())
	}
	for range maxPutTries {
		puts := make([]put, len(writes))
		for i, w := range writes {
			left := w.keepUntil.Sub(sent).Milliseconds()
			puts[i] = r.newPut(write{key: w.key, evidence: w.evidence, trail: w.trail}, r.seals.encode(w.key, w.evidence), max(left, 1), from[i])
		}
		replies, err := runAll(ctx, r.writer, r.scripts.put, len(puts), func(i int) ([]string, []any) { return puts[i].keys, puts[i].args })
		r.report(caller, "put", permit, err)
		writes, from = r.putReplies(caller, puts, writes, replies, sent.UnixNano(), func(w outboxWrite) {
			stored(w)
			n++
		})
		if len(writes) == 0 {
			break
		}
	}
	return n
}

// putReplies evaluates the replies to puts of writes, and returns those to make again
// and what they start from.
func (r *sharedTier) putReplies(caller context.Context, puts []put, writes []outboxWrite, replies []*redis.Cmd, sent int64, stored func(outboxWrite)) (again []outboxWrite, from []basis) {
	for i, reply := range replies {
		answer, err := reply.StringSlice()
		result := r.putReply(puts[i], answer, err, sent)
		if result.unreadable != nil {
			r.remove(caller, removal{key: writes[i].key, value: result.unreadable})
			result.again = true
		}
		switch {
		case result.stored && result.checked:
			stored(writes[i])
		case result.stored: // and asked again whether changes are missing
			again, from = append(again, writes[i]), append(from, basis{believed: r.asStored(writes[i].key, writes[i].evidence)})
		case result.again:
			again, from = append(again, writes[i]), append(from, result.basis())
		}
	}
	return again, from
}

// runAll runs a script n times in one round trip, or in two if Redis does not have
// it yet, each time after the commands that first adds. The error is the first that a
// command has.
func runAll(ctx context.Context, client redis.UniversalClient, script *redis.Script, n int, of func(i int) (keys []string, args []any), first ...func(redis.Pipeliner)) (replies []*redis.Cmd, err error) {
	replies = make([]*redis.Cmd, n)
	_, err = client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, add := range first {
			add(pipe)
		}
		for i := range replies {
			keys, args := of(i)
			replies[i] = script.EvalSha(ctx, pipe, keys, args...)
		}
		return nil
	})
	isUnknown := func(reply *redis.Cmd) bool { return redis.HasErrorPrefix(reply.Err(), "NOSCRIPT") }
	if !slices.ContainsFunc(replies, isUnknown) {
		return replies, err
	}
	_, err = client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, add := range first {
			add(pipe)
		}
		for i := range replies {
			if isUnknown(replies[i]) {
				keys, args := of(i)
				replies[i] = script.Eval(ctx, pipe, keys, args...)
			}
		}
		return nil
	})
	return replies, err
}
