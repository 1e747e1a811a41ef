package cache

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"

	"github.com/eligibilityd/eligibilityd/internal/changes"
)

// An event in the feed has its seal as the last of its attributes, the CloudEvents
// extension integrity: hex digits, over all that is before it.
const (
	integrityStart = `,"integrity":"`
	integrityEnd   = `"}`
)

// maxEventBytes is the length of the longest event that is read. The facts in one
// that this version writes have at most maxFacts bytes on each side, of which JSON
// may need six for one.
const maxEventBytes = 128 << 10

var errEvent = errors.New("unreadable event")

// sealChange returns the stored form of a change.
func (s *sealer) sealChange(change *changes.Change, source string) []byte {
	b := change.AppendJSON(make([]byte, 0, 1024), source)
	b = b[:len(b)-1]
	seal := s.seal(b, 0, sealEvent, change.Key)[len(b):]
	b = append(slices.Clip(b), integrityStart...)
	b = hex.AppendEncode(b, seal)
	return append(b, integrityEnd...)
}

// openChange reads the stored form of a change. Anything that sealChange would not
// have written is an error.
func (s *sealer) openChange(event []byte) (*changes.Change, error) {
	digits := 2 * s.size()
	start := len(event) - len(integrityStart) - digits - len(integrityEnd)
	if start <= 0 || len(event) > maxEventBytes || !bytes.HasSuffix(event, []byte(integrityEnd)) || !bytes.HasPrefix(event[start:], []byte(integrityStart)) {
		return nil, errEvent
	}
	seal, err := hex.DecodeString(string(event[len(event)-len(integrityEnd)-digits : len(event)-len(integrityEnd)]))
	if err != nil {
		return nil, errEvent
	}
	content := event[:start:start]
	change, err := changes.Parse(append(content, '}'))
	if err != nil {
		return nil, errEvent
	}
	if _, ok := s.open(append(content, seal...), sealEvent, change.Key); !ok {
		return nil, errEvent
	}
	return change, nil
}
