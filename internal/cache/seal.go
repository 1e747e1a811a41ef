package cache

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"sync"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// The purposes of seals. A seal for one purpose does not verify for another.
const (
	sealValue   = 'v'
	sealLease   = 'l'
	sealFailure = 'f'
	sealBeat    = 'b'
	sealWebhook = 'w'
	sealEvent   = 'e'
	sealPast    = 'p'
	sealConfirm = 'c'
)

const (
	checksumBytes = 4
	macBytes      = 16
)

// sealer ends what is stored and sent with a seal over its purpose, its key and
// its content. With an integrity key the seal is a MAC, HMAC-SHA-256 cut to 16
// bytes, which cannot be forged without the key; without one it is a CRC-32C,
// which detects damage but no forgery. It is safe for concurrent use.
type sealer struct {
	macs []*sync.Pool // of hash.Hash; the first signs, all verify
}

// newSealer derives the keys from those of the configuration, of which empty
// ones do not count, so that a seal of one installation or partner never
// verifies for another.
func newSealer(keys redisKeys, configured ...[]byte) *sealer {
	s := new(sealer)
	for _, key := range configured {
		if len(key) == 0 {
			continue
		}
		derive := hmac.New(sha256.New, key)
		derive.Write([]byte("eligibilityd redis integrity\x00" + keys.head))
		derived := derive.Sum(nil)
		s.macs = append(s.macs, &sync.Pool{New: func() any { return hmac.New(sha256.New, derived) }})
	}
	return s
}

// size returns the length of a seal.
func (s *sealer) size() int {
	if len(s.macs) == 0 {
		return checksumBytes
	}
	return macBytes
}

// seal appends the seal of content, which b ends with from start on.
func (s *sealer) seal(b []byte, start int, purpose byte, key eligibility.Key) []byte {
	if len(s.macs) == 0 {
		return binary.BigEndian.AppendUint32(b, checksum(purpose, key, b[start:]))
	}
	sum := mac(s.macs[0], purpose, key, b[start:])
	return append(b, sum[:macBytes]...)
}

// open returns what is sealed, or false if the seal does not verify.
func (s *sealer) open(sealed []byte, purpose byte, key eligibility.Key) (content []byte, ok bool) {
	end := len(sealed) - s.size()
	if end < 0 {
		return nil, false
	}
	content, seal := sealed[:end], sealed[end:]
	if len(s.macs) == 0 {
		return content, checksum(purpose, key, content) == binary.BigEndian.Uint32(seal)
	}
	for _, pool := range s.macs {
		sum := mac(pool, purpose, key, content)
		if subtle.ConstantTimeCompare(sum[:macBytes], seal) == 1 {
			return content, true
		}
	}
	return nil, false
}

func mac(pool *sync.Pool, purpose byte, key eligibility.Key, content []byte) (sum [sha256.Size]byte) {
	h := pool.Get().(hash.Hash) //nolint:forcetypeassert // the pool holds nothing else
	defer pool.Put(h)
	h.Reset()
	head := append(make([]byte, 0, 2+len(key.CustomerID)), purpose, byte(key.Facet))
	h.Write(append(head, key.CustomerID[:]...))
	h.Write(content)
	h.Sum(sum[:0])
	return sum
}

func checksum(purpose byte, key eligibility.Key, content []byte) uint32 {
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	// The head by hand: the argument of crc32.Update escapes to the heap.
	sum := ^uint32(0)
	step := func(b byte) { sum = castagnoli[byte(sum&0xff)^b] ^ sum>>8 }
	step(purpose)
	step(byte(key.Facet))
	for _, b := range key.CustomerID {
		step(b)
	}
	return crc32.Update(^sum, castagnoli, content)
}
