package server

import (
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// renderedBatch is the answer to a batch, put together from the forms of its
// items that are remembered.
type renderedBatch struct {
	message *eligibilityv1.BatchCheckEligibilityResponse
	known   []*rendered // by place in message; nil where an item is not remembered
}

func newRenderedBatch(items int) *renderedBatch {
	return &renderedBatch{
		message: &eligibilityv1.BatchCheckEligibilityResponse{Results: make([]*eligibilityv1.BatchCheckEligibilityResult, items)},
		known:   make([]*rendered, items),
	}
}

// alone is a batch of the one item at place i. Batches of one, written one after
// the other, are a batch: that is how protobuf repeats a field.
func (b *renderedBatch) alone(i int) *eligibilityv1.BatchCheckEligibilityResponse {
	return &eligibilityv1.BatchCheckEligibilityResponse{Results: b.message.GetResults()[i : i+1]}
}

// marshal returns the batch encoded for gRPC, in a buffer that goes back to its
// pool when it was sent.
func (b *renderedBatch) marshal() (mem.BufferSlice, error) {
	size := 0
	for i, known := range b.known {
		if known != nil {
			size += len(known.batch)
		} else {
			size += proto.Size(b.alone(i))
		}
	}
	pool := mem.DefaultBufferPool()
	buffer := pool.Get(size)
	wire := (*buffer)[:0]
	for i, known := range b.known {
		if known != nil {
			wire = append(wire, known.batch...)
			continue
		}
		var err error
		if wire, err = (proto.MarshalOptions{}).MarshalAppend(wire, b.alone(i)); err != nil {
			pool.Put(buffer)
			return nil, fmt.Errorf("encode result %d: %w", i, err)
		}
	}
	*buffer = wire
	return mem.BufferSlice{mem.NewBuffer(buffer, pool)}, nil
}

// appendJSON appends the batch as proto JSON.
func (b *renderedBatch) appendJSON(body []byte) []byte {
	body = append(body, `{"results":[`...)
	for i, result := range b.message.GetResults() {
		body = append(appendComma(body, i), '{')
		switch known := b.known[i]; {
		case known != nil:
			body = append(append(body, `"response":`...), known.rest.body...)
		case result.GetResponse() != nil:
			body = appendAnswerJSON(append(body, `"response":`...), result.GetResponse())
		case result.GetError() != nil:
			body = appendItemError(append(body, `"error":`...), result.GetError())
		}
		body = append(body, '}')
	}
	return append(body, "]}"...)
}
