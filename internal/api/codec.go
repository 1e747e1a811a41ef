package api

import (
	"strconv"
	"strings"

	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Codec is protobuf's, except for replies, which are no messages, and for
// requests that are refused.
type Codec struct {
	encoding.CodecV2

	maxBytes int // of a request
	buffers  *responseBuffers
}

// NewCodec returns a codec that refuses requests of more than maxBytes.
func NewCodec(maxBytes int) Codec {
	return Codec{encoding.GetCodecV2(protocodec.Name), maxBytes, new(responseBuffers)}
}

// Codec returns the codec of the gRPC server, which refuses requests of more than
// [Config.GRPCBodyBytes].
func (ch *Chain) Codec() Codec { return ch.codec }

// GRPCBodyBytes is the most bytes that a message over gRPC may have.
func (ch *Chain) GRPCBodyBytes() int { return ch.cfg.GRPCBodyBytes }

// Marshal encodes a message, or the reply that stands for one.
func (c Codec) Marshal(v any) (mem.BufferSlice, error) {
	switch v := v.(type) {
	case *CheckReply:
		return c.buffers.encode(1, v.appendProto), nil
	case BatchReply:
		return c.buffers.encode(len(v), v.appendProto), nil
	case *WatchReply:
		return v.encode(), nil
	case encoded:
		return mem.BufferSlice(v), nil
	default:
		return c.CodecV2.Marshal(v)
	}
}

// The marks of requests that are too large or malformed. An error of Unmarshal
// would reach the caller as a bare status, so a request is marked instead, a message
// in its unknown fields, and refused by [refusal] when errors are converted. No caller
// can send a mark: its first byte is no tag that protobuf has.
const (
	markTooLarge  = "\x07too large for " // so many bytes
	markMalformed = "\x07malformed"
)

// Unmarshal decodes a request, of a batch no more items than the handler needs
// in order to refuse it.
func (c Codec) Unmarshal(data mem.BufferSlice, v any) error {
	mark := ""
	if data.Len() > c.maxBytes {
		mark = markTooLarge + strconv.Itoa(c.maxBytes)
	}
	switch v := v.(type) {
	case *Question:
		if mark == "" && !decoded(data, v.decode) {
			mark = markMalformed
		}
		if mark != "" {
			*v = Question{mark: mark}
		}
	case *Batch:
		if mark == "" && !decoded(data, v.decode) {
			mark = markMalformed
		}
		if mark != "" {
			clear(v.Questions) // the memory is used again
			*v = Batch{Questions: v.Questions[:0], mark: mark}
		}
	case proto.Message:
		if mark == "" && c.CodecV2.Unmarshal(data, v) != nil {
			mark = markMalformed
		}
		if mark != "" {
			proto.Reset(v)
			v.ProtoReflect().SetUnknown(protoreflect.RawFields(mark))
		}
	default:
		return c.CodecV2.Unmarshal(data, v)
	}
	return nil
}

// decoded reports whether decode could read data, which it must not keep.
func decoded(data mem.BufferSlice, decode func(wire []byte) bool) bool {
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	return decode(buffer.ReadOnlyData())
}

// refusal is the error of a request that Unmarshal has marked; nil for others.
func refusal(req any) error {
	var mark string
	switch req := req.(type) {
	case *Question:
		mark = req.mark
	case *Batch:
		mark = req.mark
	case proto.Message:
		if unknown := req.ProtoReflect().GetUnknown(); len(unknown) > 0 && unknown[0] == markTooLarge[0] {
			mark = string(unknown)
		}
	}
	if mark == "" {
		return nil
	}
	var faults Violations
	if most, tooLarge := strings.CutPrefix(mark, markTooLarge); tooLarge {
		faults.Add("message", "must fit into "+most+" bytes")
	} else {
		faults.Add("message", "must be a well-formed protobuf message")
	}
	return faults.Err()
}
