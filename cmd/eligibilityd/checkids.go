package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

const (
	// maxIDBytes bounds an ID; if a line of standard input is longer, the rest
	// is discarded.
	maxIDBytes = 1 << 10
	// shownIDBytes is how much is printed of an ID that exceeds maxIDBytes.
	shownIDBytes = 64
	// maxIDs bounds the IDs of one run.
	maxIDs = 1_000_000
)

// customerIDs returns the IDs of the command line; those of stdin replace "-".
// They may be anything: the service decides which are GUIDs.
func customerIDs(args []string, stdin io.Reader) ([]string, error) {
	var ids []string
	for _, arg := range args {
		if arg != "-" {
			ids = append(ids, trimID(arg))
			continue
		}
		var err error
		if ids, err = appendLines(ids, stdin); err != nil {
			return nil, fmt.Errorf("standard input, after %d customer IDs: %w", len(ids), err)
		}
	}
	if len(ids) == 0 {
		return nil, errors.New("no customer IDs given")
	}
	return ids, nil
}

// appendLines appends the lines of r that are not blank. If r begins with a
// UTF-16 byte order mark, as lists from Windows do, it is decoded.
func appendLines(ids []string, r io.Reader) ([]string, error) {
	lines := bufio.NewReaderSize(transform.NewReader(r, unicode.BOMOverride(encoding.Nop.NewDecoder())), maxIDBytes+2)
	for {
		line, err := lines.ReadSlice('\n')
		id := trimID(string(line))
		if errors.Is(err, bufio.ErrBufferFull) {
			id = string(line) // longer than any ID, so it is rejected
		}
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = lines.ReadSlice('\n')
		}
		if id != "" {
			if len(ids) == maxIDs {
				return ids, fmt.Errorf("more than %d customer IDs; check them in parts", maxIDs)
			}
			ids = append(ids, id)
		}
		switch {
		case errors.Is(err, io.EOF):
			return ids, nil
		case err != nil:
			return ids, err
		}
	}
}

// trimID drops white space around an ID, and byte order marks that remain when
// lists are concatenated.
func trimID(line string) string {
	return strings.TrimSpace(strings.Trim(strings.TrimSpace(line), "\ufeff"))
}

// unsendable returns the reason if an ID cannot be sent to the service, else
// "".
func unsendable(id string) string {
	switch {
	case len(id) > maxIDBytes:
		return fmt.Sprintf("The ID has more than %d bytes.", maxIDBytes)
	case !utf8.ValidString(id):
		return "The ID is not valid UTF-8."
	default:
		return ""
	}
}

// shownID returns the printable part of an ID.
func shownID(id string) string {
	if len(id) <= maxIDBytes {
		return id
	}
	return strings.ToValidUTF8(id[:shownIDBytes], "") + "…"
}
