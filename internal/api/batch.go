package api

import (
	"context"
	"slices"
	"sync"

	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// batch is a batch while it is being answered: its valid questions, by partner, and
// what became of all. Nearly all batches are for one partner, and cost no more than
// its questions then.
type batch struct {
	handler *handler
	call    *call
	memory  *batchMemory
	first   group
	further []*group

	recording sync.Mutex // held to record an answer if there are several groups
	tally     tally
}

// group is the part of a batch that is for one partner.
type group struct {
	in        *batch
	of        *partner            // nil in a group without questions
	record    *decisionlog.Record // of one question after the other; nil if none is written
	questions []eligibility.Request
	places    []int // place in questions → place in the batch
}

// batchMemory is the memory in which a batch is read and answered; over gRPC, one batch
// after the other. Its zero value is empty.
type batchMemory struct {
	batch     Batch
	questions []eligibility.Request // of the first group
	places    []int                 // of the first group
	reply     BatchReply
	wire      *[]byte // of the first results; nil if the reply is not encoded on the way
	encoded   int     // how many results wire has
}

// reset empties m, which keeps nothing that a batch pointed to.
func (m *batchMemory) reset() {
	clear(m.batch.Questions)
	clear(m.questions)
	clear(m.reply)
	*m = batchMemory{batch: Batch{Questions: m.batch.Questions[:0]}, questions: m.questions[:0], places: m.places[:0], reply: m.reply[:0]}
}

// add adds the question that stands at place in the batch.
func (b *batch) add(of *partner, question eligibility.Request, place int) {
	into := &b.first
	switch into.of {
	case of:
	case nil:
		open := len(b.call.batch) - place
		*into = group{in: b, of: of, questions: slices.Grow(b.memory.questions, open), places: slices.Grow(b.memory.places, open)}
		b.memory.questions, b.memory.places = into.questions[:open], into.places[:open]
	default:
		into = b.furtherOf(of)
	}
	into.questions, into.places = append(into.questions, question), append(into.places, place)
}

func (b *batch) furtherOf(of *partner) *group {
	for _, g := range b.further {
		if g.of == of {
			return g
		}
	}
	g := &group{in: b, of: of}
	b.further = append(b.further, g)
	return g
}

// partners returns for how many partners the batch has valid questions.
func (b *batch) partners() int {
	if b.first.of == nil {
		return 0
	}
	return 1 + len(b.further)
}

// check answers all questions.
func (b *batch) check(ctx context.Context) {
	switch b.partners() {
	case 0:
	case 1:
		b.first.check(ctx)
	default:
		b.checkConcurrently(ctx)
	}
}

// checkConcurrently checks each group in a goroutine of its own, so that a partner
// whose Partner Center hangs takes no time from another. A panic in one is raised
// here, where the chain recovers it.
func (b *batch) checkConcurrently(ctx context.Context) {
	panics := make(chan any, 1+len(b.further))
	var checking sync.WaitGroup
	for _, g := range append(b.further, &b.first) {
		checking.Go(func() {
			defer func() {
				if r := recover(); r != nil {
					panics <- r
				}
			}()
			g.check(ctx)
		})
	}
	checking.Wait()
	select {
	case r := <-panics:
		panic(r)
	default:
	}
}

func (g *group) check(ctx context.Context) {
	var basis *eligibility.Basis
	g.record, basis = g.in.handler.decisions.begin()
	for i := range g.questions {
		g.questions[i].Basis = basis
	}
	g.of.service.CheckBatch(ctx, g.questions, g.answered)
	g.in.handler.decisions.end(g.record)
}

// answered records the answer to the question at i.
func (g *group) answered(i int, answer *eligibility.Answer, err error) {
	if len(g.in.further) > 0 {
		g.in.recording.Lock()
		defer g.in.recording.Unlock()
	}
	h, c, place := g.in.handler, g.in.call, g.places[i]
	failure := h.decisions.decided(c, g.record, place, g.of, &g.questions[i], answer, err)
	c.batch[place].recorded = g.record != nil
	c.batch[place].CustomerID = g.questions[i].CustomerID
	switch {
	case failure != nil:
		h.refuse(c, place, failure)
	case err != nil:
		h.refuse(c, place, domainError(err))
	default:
		h.accept(c, place, g.questions[i].CustomerID, answer)
	}
	if g.in.memory.wire != nil {
		g.in.memory.encodeDone()
	}
}

// encodeDone encodes the results up to the first that is still open: at once, while the
// processor's cache has their evidence.
func (m *batchMemory) encodeDone() {
	for m.encoded < len(m.reply) && m.reply[m.encoded].done() {
		m.encodeNext()
	}
}

func (m *batchMemory) encodeNext() {
	*m.wire = m.reply[m.encoded].appendProto(*m.wire)
	m.encoded++
}
