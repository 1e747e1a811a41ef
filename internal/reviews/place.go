package reviews

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// Place is a place in the list of reviews, whose order is that of partition, time
// since which, and key. The zero Place is the beginning.
type Place struct {
	Partition int
	// Since is a time in Unix ms, as the list has it. After is false at the beginning
	// of the partition.
	After bool
	Since float64
	Key   eligibility.Key
}

const (
	placeVersion = 1
	placeBytes   = 1 + 1 + 8 + 1 + 16 + 4
)

var errPlace = errors.New("reviews: malformed place")

// String returns the place as an opaque text, which [ParsePlace] reads.
func (p Place) String() string {
	b := append(make([]byte, 0, placeBytes), placeVersion, byte(p.Partition)) //nolint:gosec // below 64
	b = binary.BigEndian.AppendUint64(b, math.Float64bits(p.Since))
	b = append(append(b, byte(p.Key.Facet)), p.Key.CustomerID[:]...)
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b)))
}

// ParsePlace reads a place. Its error repeats nothing of the text.
func ParsePlace(text string) (Place, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != placeBytes || b[0] != placeVersion {
		return Place{}, errPlace
	}
	end := placeBytes - 4
	p := Place{
		Partition: int(b[1]), After: true, Since: math.Float64frombits(binary.BigEndian.Uint64(b[2:])),
		Key: eligibility.Key{Facet: eligibility.Facet(b[10]), CustomerID: eligibility.CustomerID(b[11:])},
	}
	if crc32.ChecksumIEEE(b[:end]) != binary.BigEndian.Uint32(b[end:]) || math.IsNaN(p.Since) || p.Key.Facet > eligibility.FacetQualifications {
		return Place{}, errPlace
	}
	return p, nil
}
