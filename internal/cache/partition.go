package cache

import (
	"encoding/binary"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// partitions is how many hash slots of Redis Cluster hold evidence. All keys of
// a partition share a slot, so that one script can read and write them together.
const partitions = 64

// partitionTags are the hash tags of the partitions. Each falls into the middle
// of its 64th of the 16,384 slots, so that shards of equal size get equal
// numbers of partitions.
var partitionTags = [partitions]string{ //nolint:gochecknoglobals // only read
	"53t", "j3j", "if5", "kec", "574", "74b", "akm", "6bk",
	"96a", "frw", "0ip", "oin", "d1i", "38o", "0m0", "xw",
	"he6", "box", "40w", "c9q", "hav", "7ah", "447", "67a",
	"1js", "fcu", "0xr", "m5", "1n3", "3me", "e2j", "iu",
	"712", "52d", "cmk", "4dm", "75r", "h5l", "02bb", "ice",
	"3y7", "1za", "2k6", "8ax", "wu7", "931", "yg", "8e8",
	"7d8", "5gn", "621", "41g", "jc0", "qkn", "66q", "i6o",
	"3h5", "1kc", "2z4", "0yb", "3lu", "des", "he", "802",
}

// partitionOf returns the partition of a customer: a hash of its ID.
func partitionOf(id eligibility.CustomerID) int {
	x := binary.LittleEndian.Uint64(id[:8]) ^ binary.LittleEndian.Uint64(id[8:])*0x9e3779b97f4a7c15
	x = (x ^ x>>32) * 0xd6e8feb86659fd93
	return int(x >> 58)
}
