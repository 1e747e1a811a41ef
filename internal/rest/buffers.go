package rest

import "sync"

// maxBuffer is how large a buffer may be to be used again: as a batch with as many
// questions as it may have needs.
const maxBuffer = 1 << 20

// buffers are buffers of bodies. Each serves one request at a time.
type buffers struct {
	free sync.Pool // of *[]byte
}

// get returns a buffer of any length and capacity.
func (b *buffers) get() *[]byte {
	if buffer, ok := b.free.Get().(*[]byte); ok {
		return buffer
	}
	return new([]byte)
}

// put takes a buffer back that nothing refers to any more.
func (b *buffers) put(buffer *[]byte) {
	if cap(*buffer) <= maxBuffer {
		b.free.Put(buffer)
	}
}
