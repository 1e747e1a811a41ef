package access

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.yaml.in/yaml/v3"

	"github.com/eligibilityd/eligibilityd/internal/reload"
)

const (
	minTokenBytes = 32
	maxTokenBytes = 4096
	maxJWTBytes   = 8192
)

// tokenTable holds the entries of a token file.
type tokenTable struct {
	// byPrefix has entries by the first bytes of their hash. A lookup reveals by its
	// duration at most something about hashes, from which no token follows.
	byPrefix map[uint64][]*tokenEntry
	entries  []*tokenEntry
}

type tokenEntry struct {
	sum      [sha256.Size]byte
	notAfter time.Time
	caller   *Caller
}

// find returns the caller of a token; neither it nor a failure if there is none. Hashes
// are compared in constant time.
func (t *tokenTable) find(token string, sum *[sha256.Size]byte, now time.Time) (*Caller, *failure) {
	if len(token) < minTokenBytes || len(token) > maxTokenBytes {
		return nil, nil
	}
	for _, entry := range t.byPrefix[binary.BigEndian.Uint64(sum[:])] {
		if subtle.ConstantTimeCompare(entry.sum[:], sum[:]) != 1 {
			continue
		}
		if !now.Before(entry.notAfter) {
			return nil, errTokenExpired
		}
		return entry.caller, nil
	}
	return nil, nil
}

// firstExpiry returns when the first caller has no valid token left; false if there are
// no tokens. A caller may have several while they are rotated.
func (t *tokenTable) firstExpiry() (time.Time, bool) {
	last := map[string]time.Time{}
	for _, entry := range t.entries {
		if entry.notAfter.After(last[entry.caller.Name]) {
			last[entry.caller.Name] = entry.notAfter
		}
	}
	var first time.Time
	for _, end := range last {
		if first.IsZero() || end.Before(first) {
			first = end
		}
	}
	return first, len(last) > 0
}

func openTokens(cfg Config, callers map[string]*Caller, a *Authenticator) (*reload.Value[*tokenTable], error) {
	return reload.Open(reload.Config[*tokenTable]{
		Name: "static tokens", Files: []string{cfg.TokensFile}, Logger: cfg.Logger,
		Failed: a.metrics.reloadFailures.Inc,
		Parse: func(contents [][]byte) (*tokenTable, error) {
			table, err := parseTokens(contents[0], callers)
			if err != nil {
				return nil, err
			}
			for n, entry := range table.entries {
				if !a.clock.now().Before(entry.notAfter) {
					cfg.Logger.Warn("a static token has expired; remove its entry",
						zap.String("caller", entry.caller.Name), zap.Int("entry", n+1), zap.Time("not_after", entry.notAfter))
				}
			}
			return table, nil
		},
	})
}

// Token is an entry of a token file.
type Token struct {
	Caller   string
	Rights   Rights
	NotAfter time.Time
}

// Tokens returns the entries of a token file, in their order, or what is wrong with its
// contents.
func Tokens(content []byte, callers map[string]Grant) ([]Token, error) {
	grants, err := parseGrants(callers)
	if err != nil {
		return nil, err
	}
	table, err := parseTokens(content, grants)
	if err != nil {
		return nil, err
	}
	tokens := make([]Token, len(table.entries))
	for i, entry := range table.entries {
		tokens[i] = Token{Caller: entry.caller.Name, Rights: entry.caller.Rights, NotAfter: entry.notAfter}
	}
	return tokens, nil
}

// parseTokens reads a token file. Its errors name the entry, and quote nothing but
// names of callers: a token may be where it does not belong.
func parseTokens(content []byte, callers map[string]*Caller) (*tokenTable, error) {
	root, err := tokenList(content)
	if err != nil {
		return nil, err
	}
	table := &tokenTable{byPrefix: map[uint64][]*tokenEntry{}}
	seen := map[[sha256.Size]byte]int{}
	for n, node := range root.Content {
		entry, err := parseEntry(node, callers)
		if err == nil && seen[entry.sum] != 0 {
			err = fmt.Errorf("has the sha256 of entry %d", seen[entry.sum])
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: entry %d%s: %w", node.Line, n+1, nameOf(node), err)
		}
		seen[entry.sum] = n + 1
		prefix := binary.BigEndian.Uint64(entry.sum[:])
		table.byPrefix[prefix] = append(table.byPrefix[prefix], entry)
		table.entries = append(table.entries, entry)
	}
	return table, nil
}

// yamlLine matches where the YAML library found a fault. What follows may quote the
// file.
var yamlLine = regexp.MustCompile(`^yaml: (line \d+): `)

func tokenList(content []byte) (*yaml.Node, error) {
	var document, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	if err := decoder.Decode(&document); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("is empty; a file without tokens holds []")
		}
		if at := yamlLine.FindStringSubmatch(err.Error()); at != nil {
			return nil, errors.New(at[1] + ": is not valid YAML")
		}
		return nil, errors.New("is not valid YAML")
	}
	if !errors.Is(decoder.Decode(&second), io.EOF) {
		return nil, errors.New("holds more than one document")
	}
	root := document.Content[0]
	if root.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("line %d: must be a list of {caller, sha256, not_after, rights}", root.Line)
	}
	return root, nil
}

// nameOf returns the caller of an entry in parentheses; nothing if it has no valid one.
func nameOf(node *yaml.Node) string {
	for i := 0; node.Kind == yaml.MappingNode && i+1 < len(node.Content); i += 2 {
		if name := node.Content[i+1].Value; node.Content[i].Value == "caller" && ValidName(name) {
			return " (" + name + ")"
		}
	}
	return ""
}

func parseEntry(node *yaml.Node, callers map[string]*Caller) (*tokenEntry, error) {
	fields, err := entryFields(node)
	if err != nil {
		return nil, err
	}
	name, err := scalar(fields, "caller")
	if err != nil {
		return nil, err
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	entry := &tokenEntry{caller: &Caller{Name: name}}
	sum, err := scalar(fields, "sha256")
	if err != nil {
		return nil, err
	}
	if entry.sum, err = parseSum(sum); err != nil {
		return nil, err
	}
	end, err := scalar(fields, "not_after")
	if err != nil {
		return nil, err
	}
	if entry.notAfter, err = time.Parse(time.RFC3339, end); err != nil {
		return nil, errors.New("not_after must be a time such as 2027-03-01T00:00:00Z")
	}
	if known := callers[name]; known != nil {
		*entry.caller = *known
	}
	if rights := fields["rights"]; rights != nil {
		if entry.caller.Rights, err = entryRights(rights); err != nil {
			return nil, err
		}
	}
	if entry.caller.Rights == 0 {
		return nil, errors.New("has no rights, and neither has its caller in auth.callers")
	}
	return entry, nil
}

func entryFields(node *yaml.Node) (map[string]*yaml.Node, error) {
	if node.Kind != yaml.MappingNode {
		return nil, errors.New("must be {caller, sha256, not_after, rights}")
	}
	fields := map[string]*yaml.Node{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		switch name := node.Content[i].Value; {
		case name != "caller" && name != "sha256" && name != "not_after" && name != "rights":
			return nil, errors.New("has an unknown key; they are caller, sha256, not_after and rights")
		case fields[name] != nil:
			return nil, fmt.Errorf("has %s twice", name)
		default:
			fields[name] = node.Content[i+1]
		}
	}
	return fields, nil
}

func scalar(fields map[string]*yaml.Node, name string) (string, error) {
	node := fields[name]
	switch {
	case node == nil, node.Kind == yaml.ScalarNode && (node.Value == "" || node.Tag == "!!null"):
		return "", fmt.Errorf("has no %s", name)
	case node.Kind != yaml.ScalarNode:
		return "", fmt.Errorf("%s must be a single value", name)
	}
	return node.Value, nil
}

func entryRights(node *yaml.Node) (Rights, error) {
	if node.Kind != yaml.SequenceNode {
		return 0, errors.New("rights must be a list")
	}
	words := make([]string, 0, len(node.Content))
	for _, word := range node.Content {
		words = append(words, word.Value)
	}
	return parseRights(words)
}

// parseSum reads the hash of a token. The hash of nothing is what a script computes
// whose variable is empty.
func parseSum(text string) ([sha256.Size]byte, error) {
	var sum [sha256.Size]byte
	if len(text) != hex.EncodedLen(len(sum)) {
		return sum, errors.New("sha256 must have 64 hexadecimal digits")
	}
	if _, err := hex.Decode(sum[:], []byte(text)); err != nil {
		return sum, errors.New("sha256 must have 64 hexadecimal digits")
	}
	if sum == sha256.Sum256(nil) || sum == sha256.Sum256([]byte("\n")) || sum == [sha256.Size]byte{} {
		return sum, errors.New("sha256 is not that of a token")
	}
	return sum, nil
}

// NewToken returns a new static token and its entry for the token file. The entry is a
// line of YAML.
func NewToken(caller string, rights []string, notAfter time.Time) (token, entry string, err error) {
	if err := checkName(caller); err != nil {
		return "", "", err
	}
	parsed, err := parseRights(rights)
	if err != nil {
		return "", "", err
	}
	if parsed == 0 {
		return "", "", errors.New("a token needs rights; they are " + strings.Join(Words(), ", "))
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // it never fails
	token = base64.RawURLEncoding.EncodeToString(secret)
	sum := sha256.Sum256([]byte(token))
	entry = fmt.Sprintf("- {caller: %q, sha256: %s, not_after: %s, rights: [%s]}\n",
		caller, hex.EncodeToString(sum[:]), notAfter.UTC().Format(time.RFC3339), strings.ReplaceAll(parsed.String(), ",", ", "))
	return token, entry, nil
}
