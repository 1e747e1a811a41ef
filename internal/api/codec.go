package api

import (
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// Codec is protobuf's, except for replies, which are no messages, and for
// requests that are refused.
type Codec struct {
	encoding.CodecV2

	maxBytes int // of a request
}

// NewCodec returns a codec that refuses requests of more than maxBytes.
func NewCodec(maxBytes int) Codec { return Codec{encoding.GetCodecV2(protocodec.Name), maxBytes} }

// Codec returns the codec of the gRPC server, which refuses requests of more than
// [Config.GRPCBodyBytes].
func (ch *Chain) Codec() Codec { return NewCodec(ch.cfg.GRPCBodyBytes) }

// GRPCBodyBytes is the most bytes that a message over gRPC may have.
func (ch *Chain) GRPCBodyBytes() int { return ch.cfg.GRPCBodyBytes }

// Marshal encodes a message, or the reply that stands for one.
func (c Codec) Marshal(v any) (mem.BufferSlice, error) {
	switch v := v.(type) {
	case *CheckReply:
		return pooled(1, v.appendProto), nil
	case BatchReply:
		return pooled(len(v), v.appendProto), nil
	case *WatchReply:
		return v.encode(), nil
	default:
		return c.CodecV2.Marshal(v)
	}
}

// pooled returns what appendProto appends for so many answers, in a buffer that
// returns to its pool when it was sent.
func pooled(answers int, appendProto func([]byte) []byte) mem.BufferSlice {
	pool := mem.DefaultBufferPool()
	// A smaller buffer is not pooled.
	buffer := pool.Get(max(answers*protoBytes, 4<<10))
	*buffer = appendProto((*buffer)[:0])
	return mem.BufferSlice{mem.NewBuffer(buffer, pool)}
}

// The marks of requests that are too large or malformed. An error of Unmarshal
// would reach the caller as a bare status, so a request is marked instead, in its
// unknown fields, and refused by [refusal] when errors are converted. No caller can
// send a mark: its first byte is no tag that protobuf has.
const (
	markTooLarge  = "\x07too large for " // so many bytes
	markMalformed = "\x07malformed"
)

// Unmarshal decodes a request, of a batch no more items than the handler needs
// in order to refuse it.
func (c Codec) Unmarshal(data mem.BufferSlice, v any) error {
	message, ok := v.(proto.Message)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	var err error
	switch batch, isBatch := v.(*eligibilityv1.BatchCheckEligibilityRequest); {
	case data.Len() > c.maxBytes:
		message.ProtoReflect().SetUnknown(protoreflect.RawFields(markTooLarge + strconv.Itoa(c.maxBytes)))
	case isBatch:
		err = unmarshalBatch(data, batch)
	default:
		err = c.CodecV2.Unmarshal(data, v)
	}
	if err != nil {
		proto.Reset(message)
		message.ProtoReflect().SetUnknown(protoreflect.RawFields(markMalformed))
	}
	return nil
}

// requestsField is the number of the only field of a batch.
const requestsField = 1

// unmarshalBatch decodes a batch up to one item more than it may have: the two
// bytes of an empty item become a hundred in memory.
func unmarshalBatch(data mem.BufferSlice, batch *eligibilityv1.BatchCheckEligibilityRequest) error {
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	wire := buffer.ReadOnlyData()
	end := 0
	for items := 0; end < len(wire) && items <= MaxBatch; {
		number, _, n := protowire.ConsumeField(wire[end:])
		if n < 0 {
			return fmt.Errorf("decode batch: %w", protowire.ParseError(n))
		}
		if number == requestsField {
			items++
		}
		end += n
	}
	if err := proto.Unmarshal(wire[:end], batch); err != nil {
		return fmt.Errorf("decode batch: %w", err)
	}
	return nil
}

// refusal is the error of a request that Unmarshal has marked; nil for others.
func refusal(req any) error {
	message, ok := req.(proto.Message)
	if !ok {
		return nil
	}
	var faults Violations
	unknown := message.ProtoReflect().GetUnknown()
	if len(unknown) == 0 || unknown[0] != markTooLarge[0] {
		return nil
	}
	if most, tooLarge := strings.CutPrefix(string(unknown), markTooLarge); tooLarge {
		faults.Add("message", "must fit into "+most+" bytes")
	} else {
		faults.Add("message", "must be a well-formed protobuf message")
	}
	return faults.Err()
}
