package api

import (
	"bytes"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// TestResponseBuffersHoldWhatWasEncoded encodes texts of many sizes, larger ones than
// were expected among them, in buffers that held others before.
func TestResponseBuffersHoldWhatWasEncoded(t *testing.T) {
	t.Parallel()
	buffers := new(responseBuffers)
	var sent []mem.BufferSlice
	for round := range 200 {
		size := round * round * 40 % (1200 << 10)
		want := bytes.Repeat([]byte{byte(round)}, size)
		got := buffers.encode(round%5*300, func(b []byte) []byte {
			if len(b) != 0 {
				t.Fatalf("round %d: the buffer holds %d bytes", round, len(b))
			}
			return append(b, want...)
		})
		if !bytes.Equal(got.Materialize(), want) {
			t.Fatalf("round %d: other bytes than the %d encoded", round, size)
		}
		if sent = append(sent, got); len(sent) > 3 {
			sent[0].Free()
			sent = sent[1:]
		}
	}
	for length := range map[int]bool{0: true, 1: true, 2 << 10: true, 2<<10 + 1: true, 2 << 20: true} {
		if got := buffers.Get(length); len(*got) != length {
			t.Errorf("%d bytes, want %d", len(*got), length)
		}
	}
	large := make([]byte, maxBufferBytes+1)
	buffers.Put(&large)
	for i := range buffers {
		if kept, ok := buffers[i].Get().(*[]byte); ok && cap(*kept) > maxBufferBytes {
			t.Errorf("a buffer of %d bytes is kept", cap(*kept))
		}
	}
}

// The memory of a batch is used again: what could not be read must not stay in it.
func TestMalformedBatchesLeaveNothingInMemory(t *testing.T) {
	t.Parallel()
	item := protowire.AppendBytes(protowire.AppendTag(nil, partnerField, protowire.BytesType), bytes.Repeat([]byte("p"), 1<<20))
	wire := append(protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), item), 0xff)
	var m batchMemory
	if err := NewCodec(4<<20).Unmarshal(mem.BufferSlice{mem.SliceBuffer(wire)}, &m.batch); err != nil || m.batch.mark != markMalformed {
		t.Fatal(m.batch.mark, err)
	}
	m.reset()
	for _, q := range m.batch.Questions[:cap(m.batch.Questions)] {
		if q.Partner != "" {
			t.Errorf("a partner of %d bytes", len(q.Partner))
		}
	}
}
