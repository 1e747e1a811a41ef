package cache

import (
	"testing"
	"time"
)

// BenchmarkSeal verifies the seal of a value, without and with an integrity key.
func BenchmarkSeal(b *testing.B) {
	keys, evidence := both(1, time.Now())
	for name, seals := range map[string]*sealer{
		"checksum": newSealer(redisKeys{}),
		"mac":      newSealer(redisKeys{}, []byte("an integrity key of thirty-two bytes")),
	} {
		value := seals.encode(keys[0], evidence[0])
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := seals.open(value, sealValue, keys[0]); !ok {
					b.Fatal("does not verify")
				}
			}
		})
	}
}
