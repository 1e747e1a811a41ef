package cache

import (
	"crypto/rand"
	"encoding/binary"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// slot is the hash slot of a tag: CRC-16/XMODEM, modulo the number of slots.
func slot(tag string) int {
	crc := uint16(0)
	for _, b := range []byte(tag) {
		crc ^= uint16(b) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return int(crc) % 16384
}

func TestPartitionTagsAreInTheMiddleOfTheirSlots(t *testing.T) {
	t.Parallel()
	if slot("123456789") != 0x31c3 {
		t.Fatal("the test's own hash is wrong")
	}
	for i, tag := range partitionTags {
		if got, want := slot(tag), 16384/partitions*i+16384/partitions/2; got != want {
			t.Errorf("tag %d, %q, is in slot %d, want %d", i, tag, got, want)
		}
	}
}

// Random and numbered customers are spread evenly.
func TestCustomersAreSpreadOverThePartitions(t *testing.T) {
	t.Parallel()
	const each = 1000
	for what, id := range map[string]func(n int) eligibility.CustomerID{
		"random": func(int) (id eligibility.CustomerID) {
			_, _ = rand.Read(id[:])
			return id
		},
		"numbered at the end": func(n int) eligibility.CustomerID {
			id := eligibility.CustomerID{0xa0, 6: 0x40, 8: 0x80}
			binary.BigEndian.PutUint32(id[12:], uint32(n)) //nolint:gosec // n is a count
			return id
		},
		"numbered at the start": func(n int) eligibility.CustomerID {
			id := eligibility.CustomerID{6: 0x40, 8: 0x80}
			binary.BigEndian.PutUint32(id[:], uint32(n)) //nolint:gosec // n is a count
			return id
		},
	} {
		var counts [partitions]int
		for n := range each * partitions {
			counts[partitionOf(id(n))]++
		}
		for i, count := range counts {
			if count < each*8/10 || count > each*12/10 {
				t.Errorf("%s: partition %d has %d customers, want about %d", what, i, count, each)
			}
		}
	}
}
