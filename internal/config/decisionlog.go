package config

import (
	"errors"
	"strconv"
	"strings"
)

// DecisionLog configures the record of each answer: one line of JSON with all that it
// was derived from. Each process needs a file of its own.
type DecisionLog struct {
	// File is where records are written: a path, or "-" for standard output. Its
	// directory must exist, and be writable for rotation. A pipe or a device is not
	// rotated. If it is empty, no records are written. Optional; "".
	File string `yaml:"file"`
	// MaxBytes is the size at which the file is renamed and compressed with gzip: a
	// whole number of MiB, such as 100MiB, at least 1MiB. Optional; 100MiB.
	MaxBytes Size `yaml:"max_bytes"`
	// MaxFiles is how many renamed files are kept beside the current one. 1 to 100000.
	// Optional; 30.
	MaxFiles int `yaml:"max_files"`
	// AllowedSample is the share, 0 to 1, of plain allowed answers that are recorded.
	// Blocks, errors, stale answers and those to callers that set max_age or
	// min_evidence_time are recorded in any case. Optional; 1.
	AllowedSample float64 `yaml:"allowed_sample"`
	// OnOverflow is what happens if 10,000 records wait to be written: drop drops
	// further ones, and the next that is written states their number; block makes
	// answers wait until their record is queued, or fail with DEADLINE_EXCEEDED.
	// Optional; drop.
	OnOverflow OnOverflow `yaml:"on_overflow"`
	// CustomerIDs is how customers are named in records: plain writes their IDs,
	// hashed the HMAC-SHA-256 of these under the key in hash_key_file. Optional; plain.
	CustomerIDs CustomerIDs `yaml:"customer_ids"`
	// HashKeyFile holds the key of hashed and nothing else, but for one newline at its
	// end: 32 bytes or more. It is read again when it changes; a customer has another
	// hash then. Required by hashed.
	HashKeyFile string `yaml:"hash_key_file"`
}

// OnOverflow is a value of decision_log.on_overflow.
type OnOverflow string

// The values of decision_log.on_overflow.
const (
	OverflowDrop  OnOverflow = "drop"
	OverflowBlock OnOverflow = "block"
)

func (OnOverflow) words() []string { return []string{"drop", "block"} }

// CustomerIDs is a value of decision_log.customer_ids.
type CustomerIDs string

// The values of decision_log.customer_ids.
const (
	CustomerIDsPlain  CustomerIDs = "plain"
	CustomerIDsHashed CustomerIDs = "hashed"
)

func (CustomerIDs) words() []string { return []string{"plain", "hashed"} }

func defaultDecisionLog() DecisionLog {
	return DecisionLog{MaxBytes: 100 << 20, MaxFiles: 30, AllowedSample: 1, OnOverflow: OverflowDrop, CustomerIDs: CustomerIDsPlain}
}

// Size is a number of bytes, written as a whole number with or without KiB, MiB or GiB.
type Size int64

// sizeUnits are the units of a Size, the largest first.
func sizeUnits() []struct {
	name  string
	bytes Size
} {
	return []struct {
		name  string
		bytes Size
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}
}

// String returns the size with the largest unit that divides it.
func (s Size) String() string {
	for _, unit := range sizeUnits() {
		if s != 0 && s%unit.bytes == 0 {
			return strconv.FormatInt(int64(s/unit.bytes), 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// parseSize reads a Size; ok is false if the text is none, or too large.
func parseSize(text string) (size Size, ok bool) {
	factor := Size(1)
	for _, unit := range sizeUnits() {
		if number, has := strings.CutSuffix(text, unit.name); has {
			text, factor = number, unit.bytes
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != text || n < 0 || n > int64(largestSize/factor) {
		return 0, false
	}
	return Size(n) * factor, true
}

const (
	// largestSize bounds a Size so that no sum of them overflows.
	largestSize Size = 1 << 50
	// smallestLog is the least size of a file, the unit in which it is rotated.
	smallestLog Size = 1 << 20
	// minHashKey is how many bytes a key of hashes has at least.
	minHashKey = 32
)

func (l *loader) checkDecisionLog() {
	d := &l.cfg.DecisionLog
	if d.MaxBytes < smallestLog || d.MaxBytes%smallestLog != 0 {
		l.object("decision_log.max_bytes", "%s must be a whole number of MiB, at least 1MiB", d.MaxBytes)
	}
	l.checkCount("decision_log.max_files", d.MaxFiles, 1, 100_000)
	if !(d.AllowedSample >= 0 && d.AllowedSample <= 1) { // also rejects NaN
		l.object("decision_log.allowed_sample", "%v must be from 0 to 1", d.AllowedSample)
	}
	const key = "decision_log.hash_key_file"
	switch {
	case d.HashKeyFile == "" && d.CustomerIDs == CustomerIDsHashed:
		l.objectToEither(key, "decision_log.customer_ids", "is missing: customer_ids: hashed needs a key")
	case d.HashKeyFile == "":
	case d.CustomerIDs != CustomerIDsHashed:
		l.object(key, "has no effect without customer_ids: hashed")
	default:
		text, problem := readSecret(d.HashKeyFile)
		if problem != "" {
			l.object(key, "%s", problem)
		} else if _, err := ParseHashKey([]byte(text)); err != nil {
			l.object(key, "%v", err)
		}
	}
}

// ParseHashKey reads the contents of decision_log.hash_key_file. Its error quotes
// nothing of them.
func ParseHashKey(contents []byte) ([]byte, error) {
	key := trimLine(string(contents))
	if len(key) < minHashKey {
		return nil, errors.New("holds a key of less than 32 bytes")
	}
	return []byte(key), nil
}

// ReadHashKey reads decision_log.hash_key_file. Its errors show neither the key nor the
// path.
func ReadHashKey(path string) ([]byte, error) {
	text, problem := readSecret(path)
	if problem != "" {
		return nil, errors.New("the file " + problem)
	}
	return ParseHashKey([]byte(text))
}
