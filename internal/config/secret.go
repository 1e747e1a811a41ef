package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// redacted replaces every secret, set or not, when it is printed.
const redacted = "[redacted]"

// maxSecretBytes bounds a file of a secret; a refresh token, the longest of
// them, has about two thousand.
const maxSecretBytes = 64 << 10

// Secret is a text that must not be seen. If it is printed, logged or encoded
// (fmt with any verb, JSON, YAML, zap, slog) it reads "[redacted]". The zero
// Secret is none. It is safe for concurrent use.
type Secret struct {
	// A pointer: if a reflecting printer cannot call the methods below, as fmt
	// for an unexported field, it shows an address at worst.
	text *string
}

// NewSecret returns text as a Secret; if text is empty, the zero Secret.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{text: &text}
}

// Reveal returns the secret itself, "" for the zero Secret. Use the result at
// once and keep it nowhere.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s.text == nil }

// Equal reports whether s and other hold the same text. It is not
// constant-time.
func (s Secret) Equal(other Secret) bool { return s.Reveal() == other.Reveal() }

// String returns "[redacted]".
func (Secret) String() string { return redacted }

// Format writes "[redacted]" for every verb and flag.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText returns "[redacted]"; it serves JSON, YAML and slog alike.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// bom is the byte order mark that some editors put in front of a text.
const bom = "\ufeff"

// trimLine drops a byte order mark and one trailing newline. Anything else may
// be part of a password.
func trimLine(text string) string {
	text = strings.TrimPrefix(text, bom)
	if line, ok := strings.CutSuffix(text, "\n"); ok {
		return strings.TrimSuffix(line, "\r")
	}
	return text
}

// trimToken drops the byte order mark and the blanks that copying adds to a
// secret issued by Microsoft. If the rest cannot be one, problem describes why.
func trimToken(secret Secret) (trimmed Secret, problem string) {
	text := strings.Trim(secret.Reveal(), " \t\r\n\v\f"+bom)
	for i := range len(text) {
		if char := text[i]; char <= ' ' || char > '~' || strings.IndexByte("\"'`", char) >= 0 {
			return Secret{}, "holds a blank, a quote, a control character or a letter beyond ASCII, which none that Microsoft hands out does; copy it again"
		}
	}
	return NewSecret(text), ""
}

// readSecret returns the secret in a file without a byte order mark and one
// trailing newline. If that fails, problem describes why; it never shows the
// path, because a secret in place of its file's name is an easy mistake.
func readSecret(path string) (text, problem string) { return readText(path, maxSecretBytes) }

// readText is readSecret for a file of at most limit bytes.
func readText(path string, limit int64) (text, problem string) {
	info, err := os.Stat(path)
	if err != nil {
		return "", "cannot be read: " + reason(err)
	}
	if !info.Mode().IsRegular() {
		return "", "is not a regular file"
	}
	data, err := readFile(path, limit)
	if err != nil {
		return "", "cannot be read: " + reason(err)
	}
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return "", "is in UTF-16; save it as UTF-8"
	}
	text = trimLine(string(data))
	if strings.TrimSpace(text) == "" {
		return "", "is an empty file"
	}
	return text, ""
}

// readFile returns the contents of a file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read from
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("larger than %d bytes", limit)
	}
	return data, nil
}

// reason returns the text of err without the path.
func reason(err error) string {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err.Error()
	}
	return err.Error()
}
