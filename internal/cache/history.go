package cache

import (
	"context"
	"encoding/binary"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

const (
	// maxHistory is how many changes of each key are kept; luaHistory has it too.
	maxHistory = 50
	// maxPastBytes is the length of the longest entry that is read. The facts in one
	// that this version writes have at most maxFacts bytes.
	maxPastBytes = 16 << 10
	// historyTimeout bounds a read of the history.
	historyTimeout = 2 * time.Second
	pastHeader     = 8
	pastTrailer    = 8
	// confirmationBytes is the length of a confirmation without its seal.
	confirmationBytes = 16
)

// readHistoryScript returns the last confirmation of a key, or nothing, and the history,
// newest first. It returns an entry that is longer than any of ours as nothing.
//
// KEYS history, last confirmation; ARGV how many, the longest entry.
const readHistoryScript = `
local found = redis.pcall('LRANGE', KEYS[1], 0, ARGV[1] - 1)
if found.err then
  if string.find(found.err, 'WRONGTYPE', 1, true) then return {''} end
  return redis.call('LRANGE', KEYS[1], 0, ARGV[1] - 1)
end
for i, entry in ipairs(found) do
  if #entry > tonumber(ARGV[2]) then found[i] = '' end
end
local confirmed = redis.pcall('GETRANGE', KEYS[2], 0, 32)
table.insert(found, 1, type(confirmed) == 'string' and confirmed or '')
return found
`

// confirmation is that facts were fetched at a time. They are known by a hash, so that a
// confirmation is never taken for one of other facts. The zero value confirms nothing.
type confirmation struct {
	at    int64 // Unix ns
	facts uint64
}

// confirmationOf returns the confirmation of facts as they are kept.
func confirmationOf(e *eligibility.Evidence) confirmation {
	return confirmation{at: e.FetchTime.UnixNano(), facts: bounded(e).FactsSum()}
}

func (c confirmation) time() time.Time { return time.Unix(0, c.at) }

// confirms reports whether it is of these facts.
func (c confirmation) confirms(e *eligibility.Evidence) bool {
	return c.at != 0 && c.facts == e.FactsSum()
}

// encodeConfirmation returns a confirmation as it is stored:
//
//	time, 8 bytes | hash of the facts, 8 bytes | seal
func (s *sealer) encodeConfirmation(key eligibility.Key, c confirmation) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, confirmationBytes+macBytes), uint64(c.at)) //nolint:gosec // the same bits
	return s.seal(binary.BigEndian.AppendUint64(b, c.facts), 0, sealConfirm, key)
}

// decodeConfirmation returns the zero value of anything else.
func (s *sealer) decodeConfirmation(key eligibility.Key, value []byte) confirmation {
	body, ok := s.open(value, sealConfirm, key)
	if !ok || len(body) != confirmationBytes {
		return confirmation{}
	}
	return confirmation{at: int64(binary.BigEndian.Uint64(body)), facts: binary.BigEndian.Uint64(body[8:])} //nolint:gosec // the same bits
}

// past is an entry of the history.
type past struct {
	evidence *eligibility.Evidence
	// previous is of the evidence that was replaced; zero if none was stored.
	previous confirmation
	// earlier is of the evidence before if that was not stored any longer; zero if it was.
	earlier confirmation
}

// encodePast returns the entry of the history for a change:
//
//	the time of the evidence before, 8 bytes, or 0 | the evidence as in a value | the hash of the facts before, 8 bytes | seal
//
// [putScript] may add a confirmation.
func (s *sealer) encodePast(change *changes.Change) []byte {
	var previous confirmation
	if change.Before != nil {
		previous = confirmationOf(change.Before)
	}
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 192), uint64(previous.at)) //nolint:gosec // the same bits
	b = binary.BigEndian.AppendUint64(appendBody(b, change.After), previous.facts)
	return s.seal(b, 0, sealPast, change.Key)
}

// decodePast parses an entry of the history of key. Anything that encodePast and
// [putScript] would not have written is an error.
func (s *sealer) decodePast(key eligibility.Key, entry []byte) (found past, err error) {
	if len(entry) > maxPastBytes {
		return past{}, errValue
	}
	body, ok := s.open(entry, sealPast, key)
	if end := len(entry) - confirmationBytes - s.size(); !ok && end >= 0 {
		found.earlier = s.decodeConfirmation(key, entry[end:])
		body, ok = s.open(entry[:end], sealPast, key)
		ok = ok && found.earlier != confirmation{}
	}
	if !ok || len(body) < pastHeader+headerBytes+pastTrailer || body[pastHeader] != valueVersion {
		return past{}, errValue
	}
	end := len(body) - pastTrailer
	found.evidence, err = decodeBody(key, body[pastHeader:end])
	if err != nil {
		return past{}, err
	}
	found.previous = confirmation{at: int64(binary.BigEndian.Uint64(body)), facts: binary.BigEndian.Uint64(body[end:])} //nolint:gosec // the same bits as written
	if found.previous.at != 0 && !found.previous.time().Before(found.evidence.FetchTime) {
		return past{}, errValue
	}
	return found, nil
}

// History implements evidence.Store. It takes one round trip, within 2 s.
func (s *Store) History(ctx context.Context, id eligibility.CustomerID) ([]evidence.Past, error) {
	if feed, ok := s.feed.(*memoryFeed); ok {
		var latest [2]*eligibility.Evidence
		for facet := range latest {
			latest[facet] = s.held(eligibility.Key{CustomerID: id, Facet: eligibility.Facet(facet)}, s.now()).Evidence
		}
		return feed.history(id, latest), nil
	}
	return s.redis.history(ctx, id)
}

// history reads the history of both facets of a customer. It is an error if the server
// lacks the last heartbeat of this replica: it may lack changes too.
func (r *sharedTier) history(caller context.Context, id eligibility.CustomerID) (pasts []evidence.Past, err error) {
	defer func() {
		if recover() != nil { // of the client library, on a reply that it cannot parse
			pasts, err = nil, errPanic
		}
	}()
	ctx, cancel := context.WithTimeout(caller, historyTimeout)
	defer cancel()
	pasts, err = r.readHistory(ctx, id)
	if err != nil && !hasLeft(caller) {
		r.metrics.redisFaults.WithLabelValues("history", faultKind(err)).Inc()
		r.faults.warn("history", err)
	}
	return pasts, err
}

// readHistory makes one round trip, or two if Redis does not have the script yet.
func (r *sharedTier) readHistory(ctx context.Context, id eligibility.CustomerID) ([]evidence.Past, error) {
	beats := r.beats.expectedOf(slices.Values([]int{partitionOf(id)}))
	keys := []eligibility.Key{{CustomerID: id, Facet: eligibility.FacetAccount}, {CustomerID: id, Facet: eligibility.FacetQualifications}}
	replies, err := runAll(ctx, r.reader, r.scripts.history, len(keys), func(i int) ([]string, []any) {
		return []string{r.keys.history(keys[i]), r.keys.confirmed(keys[i])}, []any{maxHistory, maxPastBytes}
	}, func(pipe redis.Pipeliner) {
		for i := range beats {
			beats[i].reply = pipe.GetRange(ctx, beats[i].key, 0, maxBeatBytes)
		}
	})
	if err != nil {
		return nil, err
	}
	if !currentPartitions(beats)[partitionOf(id)] {
		return nil, errNotCurrent
	}
	var pasts []evidence.Past
	for i, reply := range replies {
		entries, err := reply.StringSlice()
		if err != nil {
			return nil, err
		}
		pasts = append(pasts, r.pastsOf(keys[i], entries)...)
	}
	sortPasts(pasts)
	return pasts, nil
}

// pastsOf decodes the last confirmation and the history of a key, newest first. It
// leaves out what cannot be read, is from the future or is there twice.
func (r *sharedTier) pastsOf(key eligibility.Key, reply []string) []evidence.Past {
	now := r.now()
	var confirmed []confirmation
	var found []past
	for i, entry := range reply[:min(len(reply), 1+maxHistory)] {
		if i == 0 {
			confirmed = append(confirmed, r.seals.decodeConfirmation(key, []byte(entry)))
			continue
		}
		past, err := r.seals.decodePast(key, []byte(entry))
		switch {
		case err != nil:
			r.metrics.unreadable.Inc()
		case !fromFuture(past.evidence, now):
			found, confirmed = append(found, past), append(confirmed, past.earlier)
		}
	}
	slices.SortStableFunc(found, func(a, b past) int { return b.evidence.FetchTime.Compare(a.evidence.FetchTime) })
	found = slices.CompactFunc(found, func(a, b past) bool { return a.evidence.FetchTime.Equal(b.evidence.FetchTime) })
	pasts := make([]evidence.Past, len(found))
	for i, past := range found {
		pasts[i].Evidence = past.evidence
		if past.previous.at == 0 {
			continue
		}
		confirmed = append(confirmed, past.previous)
		if i+1 == len(found) || confirmedBy(found[i+1:], past.previous) == 0 {
			pasts[i].PreviousTime = past.previous.time()
		}
	}
	for _, c := range confirmed {
		i := confirmedBy(found, c)
		if i < 0 || c.time().After(now.Add(eligibility.ClockTolerance)) {
			continue
		}
		if at := c.time(); at.After(found[i].evidence.FetchTime) && at.After(pasts[i].ConfirmedTime) {
			pasts[i].ConfirmedTime = at
		}
	}
	return pasts
}

// confirmedBy returns which entry, newest first, a confirmation is of: the last one
// until then, if that has its facts. If it does not, the entry between is lost. It
// returns -1 if there is none.
func confirmedBy(pasts []past, c confirmation) int {
	i := slices.IndexFunc(pasts, func(p past) bool { return p.evidence.FetchTime.UnixNano() <= c.at })
	if i < 0 || !c.confirms(pasts[i].evidence) {
		return -1
	}
	return i
}

// missing returns the changes that a write finds missing which is not newer than what is
// stored: those to the facts that this replica has answered by, and back to what is
// stored, if no change was written since, as the newest entry of the history shows.
// Whoever saw such an answer would never get the change back. It also returns the time of
// that entry as the script wants it.
func (r *sharedTier) missing(w write, stored *eligibility.Evidence, newest string) (found []*changes.Change, head string) {
	shown := append(slices.Clip(w.trail.passed), w.evidence)
	same := func(e *eligibility.Evidence) bool { return bounded(e).SameFacts(bounded(stored)) }
	var from *eligibility.Evidence
	switch newest {
	case "!": // it may not be read: a change may have been written since
		return nil, ""
	case "":
		head, from = "-", w.trail.stored
		for i, e := range shown { // the last that led away from what is stored
			if i > 0 && same(shown[i-1]) && !same(e) {
				from = shown[i-1]
			}
		}
	default:
		past, err := r.seals.decodePast(w.key, []byte(newest))
		if err != nil {
			return nil, ""
		}
		head, from = string(timeBytes(past.evidence.FetchTime)), past.evidence
		if before := w.trail.stored; before != nil && before.FetchTime.After(from.FetchTime) && same(before) {
			from = before
		}
	}
	if from != nil && !same(from) {
		return nil, "" // the change to what is stored is in no history
	}
	if !slices.ContainsFunc(shown, func(e *eligibility.Evidence) bool {
		return (from == nil || e.FetchTime.After(from.FetchTime)) && !same(e)
	}) {
		return nil, ""
	}
	found = changesAlong(w.key, from, append(shown, stored))
	if len(found) == 0 || !same(found[len(found)-1].After) {
		return nil, "" // both were fetched in the same millisecond
	}
	return found, head
}

// sortPasts sorts entries, the newest first.
func sortPasts(pasts []evidence.Past) {
	slices.SortStableFunc(pasts, func(a, b evidence.Past) int { return b.Evidence.FetchTime.Compare(a.Evidence.FetchTime) })
}
