package pcsim

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Bounds of a script besides its size. The YAML library compares the names of a
// mapping in pairs, and an outline holds the key of every value.
const (
	maxDepth   = 10
	maxMembers = 100 // of any mapping except customers
	maxValues  = 100_000
	// maxScripted is the maximum number of customers in one script; several add
	// up.
	maxScripted = 10_000
)

// script is the content of a script file.
type script struct {
	Customers map[string]Customer `yaml:"customers"`
	Partners  map[string]struct {
		TenantID          string              `yaml:"tenant_id"`
		ClientID          string              `yaml:"client_id"`
		ClientSecret      string              `yaml:"client_secret"`
		RefreshToken      string              `yaml:"refresh_token"`
		RequestsPerMinute int                 `yaml:"requests_per_minute"`
		LimitPerCustomer  bool                `yaml:"limit_per_customer"`
		FixedWindows      bool                `yaml:"fixed_windows"`
		Customers         map[string]Customer `yaml:"customers"`
	} `yaml:"partners"`
}

// scripted is a partner of a script and its customers.
type scripted struct {
	name      string
	cfg       Config
	customers []Customer
}

// parseScript decodes the customers and the partners of a script, in the order of
// their lines. taken returns why a partner cannot be added, or "".
func parseScript(text []byte, taken func(name, clientID string) string) ([]Customer, []scripted, error) {
	var content script
	o, err := decode(text, &content)
	if err != nil {
		return nil, nil, err
	}
	if content.Customers == nil && content.Partners == nil {
		return nil, nil, o.report([]Fault{{Key: "customers", Problem: "is missing"}})
	}
	customers, faults := o.customers("customers", content.Customers)
	var partners []scripted
	clients := map[string]bool{}
	for _, name := range o.inOrder("partners", slices.Collect(maps.Keys(content.Partners))) {
		p, key := content.Partners[name], "partners."+cut(name)
		cfg := Config{
			TenantID: p.TenantID, ClientID: p.ClientID, ClientSecret: p.ClientSecret, RefreshToken: p.RefreshToken,
			RequestsPerMinute: p.RequestsPerMinute, LimitPerCustomer: p.LimitPerCustomer, FixedWindows: p.FixedWindows,
		}
		of, wrong := o.customers(key+".customers", p.Customers)
		faults = append(faults, wrong...)
		problem := taken(name, p.ClientID)
		if clients[p.ClientID] {
			problem = "has the client_id of another partner"
		}
		if err := cfg.Validate(); err != nil && problem == "" {
			problem = err.Error()
		}
		if problem != "" {
			faults = append(faults, Fault{Key: key, Problem: problem})
		}
		clients[p.ClientID] = true
		partners = append(partners, scripted{name, cfg, of})
	}
	return customers, partners, o.report(faults)
}

// named returns c with the ID under which it is defined, and its faults.
func (c Customer) named(key, id string) (Customer, []Fault) {
	inner := c.ID
	c.ID = strings.ToLower(id)
	faults := checkCustomer(key, c)
	if inner != "" && !strings.EqualFold(inner, id) {
		faults = append(faults, Fault{
			Key:     strings.TrimPrefix(key+".id", "."),
			Problem: fmt.Sprintf("is %q, but the script is for %s", cut(inner), cut(id)),
		})
	}
	return c, faults
}

// outline records the lines of the keys in a YAML document, and the faults of
// its structure.
type outline struct {
	lines  map[string]int   // key → its line
	keys   map[int][]string // line → the keys on it
	faults []Fault
	unsafe bool // the text must not be decoded
}

// inOrder sorts the members of key by their lines.
func (o *outline) inOrder(key string, members []string) []string {
	slices.Sort(members)
	slices.SortStableFunc(members, func(a, b string) int {
		return cmp.Compare(o.lines[key+"."+a], o.lines[key+"."+b])
	})
	return members
}

// customers returns the customers of the object under key, and their faults.
func (o *outline) customers(under string, of map[string]Customer) ([]Customer, []Fault) {
	var faults []Fault
	ids := o.inOrder(under, slices.Collect(maps.Keys(of)))
	customers := make([]Customer, len(ids))
	seen := map[string]bool{}
	for i, id := range ids {
		key := under + "." + cut(id)
		c, wrong := of[id].named(key, id)
		if seen[c.ID] {
			faults = append(faults, Fault{Key: key, Problem: "is defined twice"})
		}
		seen[c.ID] = true
		customers[i], faults = c, append(faults, wrong...)
	}
	return customers, faults
}

// decode decodes the only document of a YAML text into the struct that into
// points to. If single values are invalid, the outline holds their faults.
func decode(text []byte, into any) (*outline, error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, errors.New("script is empty")
	case err != nil:
		return nil, err
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("script has more than one YAML document")
	}
	o := &outline{lines: map[string]int{}, keys: map[int][]string{}}
	o.add("", doc.Content[0], 0)
	if o.unsafe {
		return nil, scriptError(o.faults)
	}
	dec = yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	err := dec.Decode(into)
	var wrong *yaml.TypeError
	if !errors.As(err, &wrong) {
		return o, err
	}
	for _, message := range wrong.Errors {
		o.typeFault(message)
	}
	return o, nil
}

// add records the keys under n. It rejects aliases, because with them a small
// text can become a large script, and fractions, which the YAML library would
// truncate.
func (o *outline) add(key string, n *yaml.Node, depth int) {
	limit := maxMembers
	if key == "customers" || strings.HasPrefix(key, "partners.") && strings.HasSuffix(key, ".customers") {
		limit = maxScripted
	}
	switch {
	case depth > maxDepth:
		o.reject(key, n.Line, "is nested too deeply")
	case n.Kind == yaml.AliasNode:
		o.reject(key, n.Line, "is an alias: scripts cannot have aliases")
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!float":
		o.faults = append(o.faults, Fault{Key: orDefault(key, rootKey), Line: n.Line, Problem: "is " + cut(n.Value) + ", not a whole number or text"})
	case n.Kind == yaml.MappingNode && len(n.Content) > 2*limit:
		o.reject(key, n.Line, fmt.Sprintf("has more than %d members", limit))
	case n.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			name := n.Content[i]
			o.addAt(strings.TrimPrefix(key+"."+cut(name.Value), "."), name.Line, n.Content[i+1], depth)
		}
	case n.Kind == yaml.SequenceNode:
		for i, item := range n.Content {
			o.addAt(fmt.Sprintf("%s[%d]", key, i), item.Line, item, depth)
		}
	}
}

func (o *outline) addAt(key string, line int, n *yaml.Node, depth int) {
	_, repeated := o.lines[key]
	switch {
	case repeated:
		o.reject(key, line, "is defined twice")
	case len(o.lines) == maxValues:
		o.reject(key, line, fmt.Sprintf("follows %d other values, which is the limit", maxValues))
		o.lines[key] = line // the next value adds no other fault
	case len(o.lines) < maxValues:
		o.lines[key] = line
		if len(o.keys[line]) < maxMembers {
			o.keys[line] = append(o.keys[line], key)
		}
		o.add(key, n, depth+1)
	}
}

// reject adds a fault and prevents the text from being decoded.
func (o *outline) reject(key string, line int, problem string) {
	o.unsafe = true
	o.faults = append(o.faults, Fault{Key: orDefault(key, rootKey), Line: line, Problem: problem})
}

// The errors of the YAML library. They contain the line, but not the key.
var (
	typeError    = regexp.MustCompile(`(?s)^line (\d+): (.*)$`)
	wrongType    = regexp.MustCompile("(?s)^cannot unmarshal !!(\\w+)(?: (`.*`))? into (.*)$")
	unknownField = regexp.MustCompile(`(?s)^field (.*) not found in type .*$`)
)

// typeFault adds an error of the YAML library.
func (o *outline) typeFault(message string) {
	f := Fault{Key: rootKey, Problem: message}
	var keys []string
	if m := typeError.FindStringSubmatch(message); m != nil {
		f.Line, _ = strconv.Atoi(m[1]) // the pattern matches digits only
		f.Problem = m[2]
		if keys = o.keys[f.Line]; len(keys) > 0 {
			f.Key = keys[0]
		}
	}
	name := ""
	if m := wrongType.FindStringSubmatch(f.Problem); m != nil {
		f.Problem = fmt.Sprintf("is %s, not %s", cmp.Or(m[2], map[string]string{"seq": "a list", "map": "an object"}[m[1]]), expected(m[3]))
	} else if m := unknownField.FindStringSubmatch(f.Problem); m != nil {
		name, f.Problem = cut(m[1]), "is not known here"
	}
	for _, key := range keys {
		if name != "" && (key == name || strings.HasSuffix(key, "."+name)) {
			f.Key = key
			break
		}
	}
	o.faults = append(o.faults, f)
}

// expected describes a value of a Go type.
func expected(goType string) string {
	switch {
	case goType == "time.Duration":
		return "a duration such as 1.5s or -2m"
	case goType == "int":
		return "a whole number"
	case goType == "bool":
		return "true or false"
	case goType == "string":
		return "text"
	case strings.HasPrefix(goType, "[]"):
		return "a list"
	}
	return "an object"
}

// report returns all faults as a *ScriptError in the order of their lines, or
// nil. If a fault may only follow from a value that could not be decoded, it is
// omitted.
func (o *outline) report(found []Fault) error {
	faults := slices.Clone(o.faults)
	unread, above := map[string]bool{"": len(faults) > 0 && faults[0].Key == rootKey}, map[string]bool{}
	for _, f := range faults {
		unread[f.Key] = true
		for key := f.Key; key != ""; key = parent(key) {
			above[key] = true
		}
	}
	for _, f := range found {
		dependent := above[f.Key] || unread[""]
		for key := f.Key; key != ""; key = parent(key) {
			dependent = dependent || unread[key]
			f.Line = cmp.Or(f.Line, o.lines[key])
		}
		if !dependent {
			faults = append(faults, f)
		}
	}
	slices.SortStableFunc(faults, func(a, b Fault) int { return cmp.Compare(a.Line, b.Line) })
	return scriptError(faults)
}

// parent returns the key that contains a key: a for a.b and for a[0].
func parent(key string) string { return key[:max(strings.LastIndexAny(key, ".["), 0)] }

var jsonString = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

// yamlOf converts a JSON text to YAML with one value on each line. The YAML
// library accepts most JSON, but neither tabs nor surrogate pairs.
func yamlOf(text []byte) ([]byte, error) {
	if !utf8.Valid(text) { // encoding/json would replace it silently
		return nil, errors.New("body is not UTF-8")
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, text, "", ""); err != nil {
		return nil, fmt.Errorf("body is not JSON: %w", err)
	}
	return jsonString.ReplaceAllFunc(indented.Bytes(), func(literal []byte) []byte {
		var s string
		if err := json.Unmarshal(literal, &s); err != nil {
			return literal // unreachable: the text is JSON
		}
		return strconv.AppendQuoteToASCII(nil, s)
	}), nil
}
