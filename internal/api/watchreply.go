package api

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/jsontext"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// WatchReply is one message of a stream of changes. Its event, the same for all streams,
// is encoded once in each form and language that callers asked for.
type WatchReply struct {
	// Token is where to go on after the message.
	Token string
	// Language is that of the messages of reasons.
	Language eligibility.Language

	event watchEvent
}

// watchEvent is the part of a message that has no token.
type watchEvent interface {
	// name is the member of the message, and the name of the server-sent event.
	name() string
	// encodedProto returns the field of the message; encodedJSON the value of its
	// member. Nobody changes them.
	encodedProto(in eligibility.Language) []byte
	encodedJSON(in eligibility.Language) []byte
}

// Event returns what happened: change, progress or end.
func (r *WatchReply) Event() string { return r.event.name() }

// AppendJSON appends the message as proto JSON, in one line.
func (r *WatchReply) AppendJSON(b []byte) []byte {
	b = jsontext.AppendString(append(b, `{"resumeToken":`...), r.Token)
	b = append(append(append(b, `,"`...), r.event.name()...), `":`...)
	return append(append(b, r.event.encodedJSON(r.Language)...), '}')
}

// encode returns the message in protobuf's wire format.
func (r *WatchReply) encode() mem.BufferSlice {
	return mem.BufferSlice{mem.SliceBuffer(appendTextField(nil, 1, r.Token)), mem.SliceBuffer(r.event.encodedProto(r.Language))}
}

// changeEvent is a change, or a current answer.
type changeEvent struct {
	id            string
	customer      eligibility.CustomerID
	before, after *CheckReply // nil if unknown
	initial       bool
	redelivered   bool
	observed      time.Time

	encoded [eligibility.LanguageCount]atomic.Pointer[encodedChange]
}

// encodedChange is a change in one language.
type encodedChange struct {
	onceProto, onceJSON sync.Once
	proto, json         []byte
}

// in returns the change in a language, not encoded yet if no stream in that language has
// had it.
func (e *changeEvent) in(l eligibility.Language) *encodedChange {
	if of := e.encoded[l].Load(); of != nil {
		return of
	}
	e.encoded[l].CompareAndSwap(nil, new(encodedChange))
	return e.encoded[l].Load()
}

func (*changeEvent) name() string { return "change" }

func (e *changeEvent) encodedProto(in eligibility.Language) []byte {
	encoded := e.in(in)
	encoded.onceProto.Do(func() {
		b, start := openMessage(nil, 2)
		b = appendTextField(b, 1, e.id)
		b, customer := openMessage(b, 2)
		b = closeMessage(e.customer.Append(b), customer)
		for number, answer := range []*CheckReply{3: e.before, 4: e.after} {
			if answer != nil {
				var inner int
				b, inner = openMessage(b, protowire.Number(number))
				b = closeMessage(answer.inLanguage(in).appendProto(b), inner)
			}
		}
		b = appendFlagField(b, 5, e.initial)
		b = appendFlagField(b, 6, e.redelivered)
		encoded.proto = closeMessage(appendTimeField(b, 7, e.observed), start)
	})
	return encoded.proto
}

func (e *changeEvent) encodedJSON(in eligibility.Language) []byte {
	encoded := e.in(in)
	encoded.onceJSON.Do(func() {
		b := jsontext.AppendString([]byte(`{"eventId":`), e.id)
		b = append(e.customer.Append(append(b, `,"customerId":"`...)), '"')
		if e.before != nil {
			b = e.before.inLanguage(in).AppendJSON(append(b, `,"before":`...))
		}
		if e.after != nil {
			b = e.after.inLanguage(in).AppendJSON(append(b, `,"after":`...))
		}
		b = strconv.AppendBool(append(b, `,"initial":`...), e.initial)
		b = strconv.AppendBool(append(b, `,"redelivered":`...), e.redelivered)
		encoded.json = append(appendTime(b, `,"observeTime":`, e.observed), '}')
	})
	return encoded.json
}

// watchProgress is how far a stream has come. All current answers were sent.
type watchProgress changes.Progress

func (watchProgress) name() string { return "progress" }

func (p watchProgress) encodedProto(eligibility.Language) []byte {
	b, start := openMessage(nil, 3)
	b = appendFlagField(b, 1, true)
	b = appendTimeField(b, 2, p.Through)
	return closeMessage(appendTimeField(b, 3, p.Oldest), start)
}

func (p watchProgress) encodedJSON(eligibility.Language) []byte {
	b := appendTime([]byte(`{"initialComplete":true`), `,"throughTime":`, p.Through)
	return append(appendTime(b, `,"oldestTime":`, p.Oldest), '}')
}

// watchEnd is why a stream ends.
type watchEnd eligibilityv1.WatchEnd_Reason

func (watchEnd) name() string { return "end" }

func (e watchEnd) encodedProto(eligibility.Language) []byte {
	b, start := openMessage(nil, 4)
	return closeMessage(appendNumberField(b, 1, int32(e)), start)
}

func (e watchEnd) encodedJSON(eligibility.Language) []byte {
	return append(appendEnum([]byte(`{"reason":`), watchEndNames, int32(e)), '}')
}

const (
	// maxComparisons is how many comparisons are kept: of the changes that the streams
	// which are not behind have not all received.
	maxComparisons = 2048
	// compareTimeout ends the look for the other facet of a change.
	compareTimeout = time.Second
)

// comparisons are the newest changes as streams send them, so that each is compared once
// for all streams of a segment, and encoded once for those of them in a language. It is safe for concurrent use; its zero
// value is empty.
type comparisons struct {
	mu     sync.Mutex
	kept   map[comparisonKey]func() *compared
	oldest []comparisonKey // a ring, once it is full
	next   int
}

type comparisonKey struct {
	change  *changes.Change // of one partner: its place in memory names it
	segment eligibility.Segment
}

// compared is a change as streams send it.
type compared struct {
	differs bool
	first   *changeEvent // nil unless it differs
	again   *changeEvent // the same, redelivered
	unread  bool         // another comparison may find more
}

// of returns a change as streams of a segment send it. One whose comparison lacked the
// shared tier is compared anew for the next stream, and at once for the first.
func (c *comparisons) of(change *changes.Change, segment eligibility.Segment, service *evidence.Service) *compared {
	key := comparisonKey{change, segment}
	c.mu.Lock()
	compare := c.kept[key]
	if compare == nil {
		compare = sync.OnceValue(func() *compared {
			found := compareChange(change, segment, service)
			if found.unread {
				if found = compareChange(change, segment, service); found.unread {
					c.forget(key)
				}
			}
			return found
		})
		c.keep(key, compare)
	}
	c.mu.Unlock()
	return compare()
}

// forget makes the next stream compare anew.
func (c *comparisons) forget(key comparisonKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.kept, key)
}

// keep keeps a comparison in place of the oldest; c.mu is held.
func (c *comparisons) keep(key comparisonKey, compare func() *compared) {
	if c.kept == nil {
		c.kept = make(map[comparisonKey]func() *compared)
	}
	if len(c.oldest) < maxComparisons {
		c.oldest = append(c.oldest, key)
	} else {
		delete(c.kept, c.oldest[c.next])
		c.oldest[c.next] = key
		c.next = (c.next + 1) % maxComparisons
	}
	c.kept[key] = compare
}

func compareChange(change *changes.Change, segment eligibility.Segment, service *evidence.Service) *compared {
	ctx, cancel := context.WithTimeout(context.Background(), compareTimeout) // no stream's: others wait for it
	defer cancel()
	found := service.Compare(ctx, change.Key, change.Before, change.After, segment)
	if !found.Differs {
		return new(compared)
	}
	event := func(redelivered bool) *changeEvent {
		return &changeEvent{
			id: change.ID(), customer: change.Key.CustomerID, observed: change.After.FetchTime, redelivered: redelivered,
			before: replyOf(change.Key.CustomerID, found.Before), after: replyOf(change.Key.CustomerID, found.After),
		}
	}
	return &compared{differs: true, unread: found.Unread, first: event(false), again: event(true)}
}

func replyOf(id eligibility.CustomerID, answer *eligibility.Answer) *CheckReply {
	if answer == nil {
		return nil
	}
	return &CheckReply{CustomerID: id, Answer: *answer}
}
