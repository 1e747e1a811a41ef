package pcsim

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// reader turns a tree of YAML nodes, or of JSON in that form, into scripts,
// and collects what is wrong with it.
//
// It reads by hand what yaml's KnownFields would read into structs, because
// that stops at a line number and a Go type: here every mistake is to be
// named by its key, at once, and in the same words for YAML and JSON. Aliases
// are refused, so that a small file cannot blow up into a large one.
type reader struct {
	faults []Fault
	broken map[string]bool // keys whose value could not be read
	lines  map[string]int  // key → its line
}

// rootKey names the whole script in a fault.
const rootKey = "script"

func newReader() *reader {
	return &reader{broken: map[string]bool{}, lines: map[string]int{}}
}

func (d *reader) fault(key string, n *yaml.Node, format string, args ...any) {
	key = orDefault(key, rootKey)
	d.faults = append(d.faults, Fault{Key: key, Line: n.Line, Problem: fmt.Sprintf(format, args...)})
}

// bad is a fault that leaves the key without a value.
func (d *reader) bad(key string, n *yaml.Node, format string, args ...any) {
	d.fault(key, n, format, args...)
	d.broken[orDefault(key, rootKey)] = true
}

// check adds what is found in the script that has been read, with the line of
// the key or of the nearest that it stands under. It leaves out what only
// follows from a value that could not be read: that is not missing as well.
func (d *reader) check(found []finding) {
	for _, f := range found {
		if d.underBroken(f.Key) || slices.ContainsFunc(f.lacks, func(m string) bool { return d.broken[f.Key+"."+m] }) {
			continue
		}
		for key := f.Key; key != "" && f.Line == 0; key = parent(key) {
			f.Line = d.lines[key]
		}
		d.faults = append(d.faults, f.Fault)
	}
	slices.SortStableFunc(d.faults, func(a, b Fault) int { return cmp.Compare(a.Line, b.Line) })
}

func (d *reader) underBroken(key string) bool {
	for ; key != ""; key = parent(key) {
		if d.broken[key] {
			return true
		}
	}
	return d.broken[rootKey]
}

// parent returns the key that a key stands under: a for a.b and for a[0].
func parent(key string) string { return key[:max(strings.LastIndexAny(key, ".["), 0)] }

// members says how each member of an object is read.
type members map[string]func(key string, n *yaml.Node)

// object reads an object with no other members than those given.
func (d *reader) object(key string, n *yaml.Node, m members) {
	d.entries(key, n, func(name, key string, n *yaml.Node) {
		if read, ok := m[name]; ok {
			read(key, n)
			return
		}
		d.fault(key, n, "is not known here; known are %s", strings.Join(slices.Sorted(maps.Keys(m)), ", "))
	})
}

// entries reads an object with any members.
func (d *reader) entries(key string, n *yaml.Node, read func(name, key string, n *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		d.bad(key, n, "is %s, not an object", describe(n))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i].Value, n.Content[i+1]
		at := strings.TrimPrefix(key+"."+name, ".")
		if n.Content[i].Kind != yaml.ScalarNode {
			d.fault(at, n.Content[i], "has a name that is %s", describe(n.Content[i]))
			continue
		}
		if seen[name] {
			d.fault(at, n.Content[i], "is there twice")
			continue
		}
		seen[name] = true
		d.lines[at] = n.Content[i].Line
		read(name, at, value)
	}
}

// list reads a list.
func (d *reader) list(key string, n *yaml.Node, read func(key string, n *yaml.Node)) {
	if n.Kind != yaml.SequenceNode {
		d.bad(key, n, "is %s, not a list", describe(n))
		return
	}
	for i, item := range n.Content {
		at := fmt.Sprintf("%s[%d]", key, i)
		d.lines[at] = item.Line
		read(at, item)
	}
}

// text reads a string into dst. A bare YAML date is one, too; a number or a
// bare null is not.
func (d *reader) text(dst *string) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		if tag := n.ShortTag(); n.Kind != yaml.ScalarNode || (tag != "!!str" && tag != "!!timestamp") {
			d.bad(key, n, "is %s, not a string", describe(n))
			return
		}
		*dst = n.Value
	}
}

// integer reads a whole number of at least 1 into dst.
func (d *reader) integer(dst *int) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		v, err := strconv.Atoi(n.Value)
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || err != nil {
			d.bad(key, n, "is %s, not a whole number", describe(n))
			return
		}
		if v < 1 {
			d.bad(key, n, "is %d, which is less than 1", v)
			return
		}
		*dst = v
	}
}

// duration reads a length of time above zero into dst.
func (d *reader) duration(dst *time.Duration) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		v, err := time.ParseDuration(n.Value)
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" || err != nil {
			d.bad(key, n, "is %s, not a duration such as 1.5s or 2m", describe(n))
			return
		}
		if v <= 0 {
			d.bad(key, n, "is %v, which is not above zero", v)
			return
		}
		*dst = v
	}
}

// boolean reads true or false into dst.
func (d *reader) boolean(dst *bool) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		v, err := strconv.ParseBool(n.Value)
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || err != nil {
			d.bad(key, n, "is %s, not true or false", describe(n))
			return
		}
		*dst = v
	}
}

// percent reads a whole number from 0 to 100 into dst.
func (d *reader) percent(dst *int) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		v, err := strconv.Atoi(n.Value)
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || err != nil || v < 0 || v > 100 {
			d.bad(key, n, "is %s, not a whole number from 0 to 100", describe(n))
			return
		}
		*dst = v
	}
}

// skew reads a length of time in either direction into dst.
func (d *reader) skew(dst *time.Duration) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		v, err := time.ParseDuration(n.Value)
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" || err != nil {
			d.bad(key, n, "is %s, not a duration such as 10m or -90s", describe(n))
			return
		}
		*dst = v
	}
}

// describe names a value in a complaint, and never at length.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "an object"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "an alias, which scripts cannot have"
	case n.ShortTag() == "!!null":
		return "nothing"
	case n.ShortTag() == "!!str":
		return strconv.Quote(cut(n.Value))
	}
	return cut(n.Value)
}
