package changes

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
)

// A resume token is, in base64url,
//
//	version, 1 byte | 1 if the feed outlives the process, 1 byte | id of the feed, 8 bytes |
//	place, 24 bytes, big endian | CRC-32C, 4 bytes
//
// The checksum detects damage. A token proves nothing and needs no proof: it names
// only where in the feed to go on.
const (
	tokenVersion = 1
	tokenBytes   = 2 + len(FeedID{}) + 24 + 4
)

// maxMillis bounds times in tokens, so that arithmetic on them does not overflow.
const maxMillis = 1 << 52

var tokenEncoding = base64.RawURLEncoding.Strict() //nolint:gochecknoglobals // only read

// place is how far the feed was read.
type place struct {
	// through is a time in Unix ms up to which all was read in every partition.
	through int64
	// last is the latest entry that was read in any partition: none of those after it
	// was.
	last Position
}

// token returns the resume token of a place in the log's feed.
func (l *Log) token(at place) string {
	b := make([]byte, 0, tokenBytes)
	b = append(b, tokenVersion, 0)
	if l.outlives {
		b[1] = 1
	}
	b = append(b, l.id[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(at.through))     //nolint:gosec // the same bits when read
	b = binary.BigEndian.AppendUint64(b, uint64(at.last.Millis)) //nolint:gosec // the same
	b = binary.BigEndian.AppendUint64(b, at.last.Seq)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return tokenEncoding.EncodeToString(b)
}

// parseToken reads a token of the log's feed. ended reports that it is of a feed in
// memory that ended with its process; ok is false if the token is malformed or of
// another feed.
func (l *Log) parseToken(token string) (at place, ended, ok bool) {
	if len(token) != tokenEncoding.EncodedLen(tokenBytes) {
		return place{}, false, false
	}
	b, err := tokenEncoding.DecodeString(token)
	if err != nil || len(b) != tokenBytes || b[0] != tokenVersion || b[1] > 1 {
		return place{}, false, false
	}
	sealed := b[:tokenBytes-4]
	if binary.BigEndian.Uint32(b[tokenBytes-4:]) != crc32.Checksum(sealed, crc32.MakeTable(crc32.Castagnoli)) {
		return place{}, false, false
	}
	id, b := FeedID(b[2:2+len(FeedID{})]), b[2+len(FeedID{}):]
	through, millis := binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	if through > maxMillis || millis > maxMillis {
		return place{}, false, false
	}
	at = place{through: int64(through), last: Position{Millis: int64(millis), Seq: binary.BigEndian.Uint64(b[16:])}}
	outlives := sealed[1] == 1
	switch {
	case outlives != l.outlives || outlives && id != l.id:
		return place{}, false, false
	default:
		return at, id != l.id, true
	}
}
