package api

import (
	"sync"

	"google.golang.org/grpc/mem"
)

// responseBuffers are buffers for encoded answers, used again once they were sent.
// Unlike grpc-go's, they are not zeroed, which for a thousand answers would be a
// mebibyte: an answer overwrites what it sends. They are safe for concurrent use.
type responseBuffers [3]sync.Pool // of *[]byte, by size

// bufferBytes is the least capacity of the buffers in each pool. grpc-go returns none of
// less than a kibibyte.
var bufferBytes = [len(responseBuffers{})]int{2 << 10, 64 << 10, 512 << 10} //nolint:gochecknoglobals // never changed

// maxBufferBytes is the largest capacity that is kept.
const maxBufferBytes = 1 << 20

var _ mem.BufferPool = (*responseBuffers)(nil)

// encode returns what appendProto appends for so many answers.
func (p *responseBuffers) encode(answers int, appendProto func([]byte) []byte) mem.BufferSlice {
	buffer := p.Get(answers * protoBytes)
	*buffer = appendProto((*buffer)[:0])
	return mem.BufferSlice{mem.NewBuffer(buffer, p)}
}

// Get returns a buffer of that length, whose contents are those of an earlier one.
func (p *responseBuffers) Get(length int) *[]byte {
	for i, size := range bufferBytes {
		if length > size {
			continue
		}
		buffer, ok := p[i].Get().(*[]byte)
		if !ok {
			buffer = new(make([]byte, size))
		}
		*buffer = (*buffer)[:length]
		return buffer
	}
	return new(make([]byte, length))
}

// Put takes a buffer back.
func (p *responseBuffers) Put(buffer *[]byte) {
	for i := len(bufferBytes) - 1; i >= 0; i-- {
		if size := cap(*buffer); size >= bufferBytes[i] && size <= maxBufferBytes {
			p[i].Put(buffer)
			return
		}
	}
}
