package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// A message on the backplane reports how a fetch ended:
//
//	version (1 byte) | kind (1 byte) | facet (1 byte) | customer (16 bytes) | body
//
// The body is a stored value with its seal or, sealed, the token of a lease and
// the failure of its holder. A heartbeat has the replica's ID in place of the
// customer and, sealed, its partition and the time at which it was sent.
const (
	messageVersion = 2
	messageHead    = 3 + 16

	kindEvidence = 'e'
	kindFailure  = 'f'
	kindBeat     = 'b'
)

var errMessage = errors.New("unreadable message")

// message is the outcome of a fetch elsewhere: evidence, or the failure of the
// holder of a lease.
type message struct {
	key      eligibility.Key
	evidence *eligibility.Evidence
	holder   token
	failure  error
	beat     *beat
}

func messageHeader(kind byte, key eligibility.Key) []byte {
	b := append(make([]byte, 0, 256), messageVersion, kind, byte(key.Facet))
	return append(b, key.CustomerID[:]...)
}

// failureMessage reports the failure of the holder of a lease.
func (s *sealer) failureMessage(key eligibility.Key, holder token, failure []byte) []byte {
	b := append(messageHeader(kindFailure, key), holder[:]...)
	return s.seal(append(b, failure...), messageHead, sealFailure, key)
}

// beat identifies a heartbeat of this replica.
type beat struct {
	partition int
	sent      int64 // Unix ns
}

func beatKey(replica token) eligibility.Key {
	return eligibility.Key{CustomerID: eligibility.CustomerID(replica)}
}

func (s *sealer) beatMessage(replica token, partition int, sent time.Time) []byte {
	key := beatKey(replica)
	b := append(messageHeader(kindBeat, key), byte(partition)) //nolint:gosec // below 64
	return s.seal(appendTime(b, sent), messageHead, sealBeat, key)
}

// decodeMessage parses a message. It returns an error if this version would not have
// sent it.
func (s *sealer) decodeMessage(b []byte) (message, error) {
	if len(b) < messageHead || b[0] != messageVersion {
		return message{}, errMessage
	}
	m := message{key: eligibility.Key{CustomerID: eligibility.CustomerID(b[3:messageHead]), Facet: eligibility.Facet(b[2])}}
	body := b[messageHead:]
	if m.key.Facet > eligibility.FacetQualifications {
		return m, errMessage
	}
	if b[1] == kindEvidence {
		var err error
		m.evidence, err = s.decode(m.key, body, known{})
		return m, err
	}
	purpose := byte(sealFailure)
	if b[1] == kindBeat {
		purpose = sealBeat
	}
	content, ok := s.open(body, purpose, m.key)
	var err error
	switch {
	case !ok:
		err = errMessage
	case b[1] == kindFailure && len(content) > len(m.holder):
		m.holder = token(content)
		m.failure, err = decodeFailure(content[len(m.holder):])
	case b[1] == kindBeat && len(content) == 1+8 && content[0] < partitions:
		m.beat = &beat{partition: int(content[0]), sent: int64(binary.BigEndian.Uint64(content[1:]))} //nolint:gosec // the same bits as sent
	default:
		err = errMessage
	}
	return m, err
}

// failureKind returns the failure that a byte stands for among replicas;
// KindInternal for any other.
func failureKind(b byte) eligibility.Kind {
	switch b {
	case 'u':
		return eligibility.KindUnavailable
	case 't':
		return eligibility.KindThrottled
	case 'c':
		return eligibility.KindCredentials
	case 'i':
		return eligibility.KindInvalidResponse
	default:
		return eligibility.KindInternal
	}
}

// encodeFailure returns the form of a failure that replicas share: its kind (1
// byte) and Retry-After (8 bytes, ns); nil if it concerns this process alone.
func encodeFailure(failure error) []byte {
	known, ok := errors.AsType[*eligibility.Error](failure)
	if !ok || known.Call.Attempts == 0 {
		return nil
	}
	for _, b := range []byte("utci") {
		if failureKind(b) == known.Kind {
			return binary.BigEndian.AppendUint64([]byte{b}, uint64(known.RetryAfter)) //nolint:gosec // never negative
		}
	}
	return nil
}

// errElsewhere is the cause of a failure that another replica met.
var errElsewhere = errors.New("another replica's fetch, waited for, failed")

func decodeFailure(b []byte) (failure, err error) {
	if len(b) != 9 || failureKind(b[0]) == eligibility.KindInternal {
		return nil, fmt.Errorf("%w: failure", errMessage)
	}
	pause := time.Duration(binary.BigEndian.Uint64(b[1:])) //nolint:gosec // bounded below
	return &eligibility.Error{Kind: failureKind(b[0]), RetryAfter: min(max(pause, 0), maxRetryAfter), Err: errElsewhere}, nil
}

// maxRetryAfter is the longest pause accepted from another replica: the longest
// that is accepted from Partner Center.
const maxRetryAfter = 10 * time.Minute
