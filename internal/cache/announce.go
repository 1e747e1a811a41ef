package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// An announcement tells the other replicas how a fetch ended:
//
//	version (1 byte) | kind (1 byte) | facet (1 byte) | customer (16 bytes) | value, or token and failure
//
// The value is the stored one, checksum and all.
const (
	announcementVersion = 1
	announcementHead    = 3 + 16

	kindEvidence = 'e'
	kindFailure  = 'f'
)

var errAnnouncement = errors.New("unreadable announcement")

// announcement is what a fetch elsewhere came to: evidence, or the failure of
// the holder of a lease.
type announcement struct {
	key      eligibility.Key
	evidence *eligibility.Evidence
	holder   token
	failure  error
}

func encodeAnnouncement(kind byte, key eligibility.Key, body ...[]byte) []byte {
	b := append(make([]byte, 0, 256), announcementVersion, kind, byte(key.Facet))
	b = append(b, key.CustomerID[:]...)
	for _, part := range body {
		b = append(b, part...)
	}
	return b
}

// decodeAnnouncement reads an announcement. What this version would not have
// written is an error.
func decodeAnnouncement(b []byte) (announcement, error) {
	if len(b) < announcementHead || b[0] != announcementVersion {
		return announcement{}, errAnnouncement
	}
	a := announcement{key: eligibility.Key{CustomerID: eligibility.CustomerID(b[3:announcementHead]), Facet: eligibility.Facet(b[2])}}
	body := b[announcementHead:]
	var err error
	switch {
	case a.key.Facet > eligibility.FacetQualifications:
		err = errAnnouncement
	case b[1] == kindEvidence:
		a.evidence, err = decode(a.key, body)
	case b[1] == kindFailure && len(body) > len(a.holder):
		a.holder = token(body)
		a.failure, err = decodeFailure(body[len(a.holder):])
	default:
		err = errAnnouncement
	}
	return a, err
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

// encodeFailure returns how a failure is told: its kind (1 byte) and Retry-After
// (8 bytes, ns); nil where it concerns this process alone.
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
		return nil, fmt.Errorf("%w: failure", errAnnouncement)
	}
	pause := time.Duration(binary.BigEndian.Uint64(b[1:])) //nolint:gosec // bounded below
	return &eligibility.Error{Kind: failureKind(b[0]), RetryAfter: min(max(pause, 0), maxRetryAfter), Err: errElsewhere}, nil
}

// maxRetryAfter is the longest pause that is believed of another replica: the
// longest that Partner Center is believed.
const maxRetryAfter = 10 * time.Minute
