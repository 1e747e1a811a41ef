package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxFileBytes bounds the configuration file.
const maxFileBytes = 1 << 20

// namePattern is what a key may look like. What looks otherwise is not
// repeated in a fault: a secret after a forgotten blank reads as a key. The
// longest key has 24 letters, a generated secret usually 40.
var namePattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,31}$`)

// readFile takes the values of the file. It returns false if the file as a
// whole could not be read.
func (l *loader) readFile() bool {
	data, err := readFile(l.path, maxFileBytes)
	if err != nil {
		l.fault(origin{source: l.path}, "", "cannot be read: "+reason(err))
		return false
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, second yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return true
	case err != nil:
		l.unreadable(err)
		return false
	}
	switch err := decoder.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		l.unreadable(err)
		return false
	default:
		l.fault(l.at(&second), "", "holds a second document; write all keys in one")
	}
	return l.readRoot(document.Content[0])
}

// readRoot takes the values of the document whose outermost node is n.
func (l *loader) readRoot(n *yaml.Node) bool {
	problem := unsupported(n)
	switch {
	case problem != "":
		l.fault(l.at(n), "", problem)
		return false
	case isNull(n):
		return true
	case n.Kind != yaml.MappingNode:
		l.fault(l.at(n), "", "is not a configuration; write keys such as server: and partner_center:")
		return false
	}
	l.readSection("", n)
	return true
}

// at returns where n stands.
func (l *loader) at(n *yaml.Node) origin { return origin{source: l.path, line: n.Line} }

// yamlError is how the YAML library words a mistake that has a line.
var yamlError = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// unreadable notes that the file is no YAML. The library shows text of the
// file in one message only, that of an unknown alias, which a secret that
// begins with * reads as.
func (l *loader) unreadable(err error) {
	text := err.Error()
	match := yamlError.FindStringSubmatch(text)
	at, near := origin{source: l.path}, ""
	if match != nil {
		text = text[len(match[0]):]
		if line := match[1]; line != "" {
			at.line, _ = strconv.Atoi(line) // digits, by the pattern
			near = " near this line"
		}
	}
	if strings.HasPrefix(text, "unknown anchor") {
		text = "a value begins with *; put it in quotes"
	}
	l.fault(at, "", "is not valid YAML"+near+": "+text)
}

// readSection takes the keys of the mapping n, which is the section of that
// key, "" for the whole document.
func (l *loader) readSection(section string, n *yaml.Node) {
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		if name.Kind != yaml.ScalarNode || !namePattern.MatchString(name.Value) {
			l.fault(l.at(name), section, "holds something that is not the name of a key; is a blank missing after a colon, or is a value not in quotes?")
			continue
		}
		key := join(section, name.Value)
		if line, repeated := lines[key]; repeated {
			l.fault(l.at(name), key, fmt.Sprintf("is given twice; line %d has it already", line))
			continue
		}
		lines[key] = name.Line
		f, known := l.field(key)
		switch {
		case !known:
			l.fault(l.at(name), key, "unknown key"+l.suggest(key))
		case f.section:
			l.readSubsection(f, value)
		default:
			l.origins[key] = l.at(name)
			if problem := setNode(f, value); problem != "" {
				l.reject(l.at(name), key, problem)
			}
		}
	}
}

// readSubsection takes the value n of the section f. A section without keys,
// as when all of them are commented out, is as if it were absent.
func (l *loader) readSubsection(f field, n *yaml.Node) {
	switch problem := unsupported(n); {
	case problem != "":
		l.reject(l.at(n), f.key, problem)
	case isNull(n):
	case n.Kind != yaml.MappingNode:
		l.reject(l.at(n), f.key, "must hold keys, one to a line")
	default:
		l.readSection(f.key, n)
	}
}

// setNode gives the key f the value of n, or returns what is wrong with it.
func setNode(f field, n *yaml.Node) (problem string) {
	if problem := unsupported(n); problem != "" {
		return problem
	}
	if isNull(n) {
		return `has no value; leave the key out for the default`
	}
	if list, ok := reflect.TypeAssert[*[]string](f.value.Addr()); ok {
		return setList(list, n)
	}
	if n.Kind != yaml.ScalarNode {
		return "must be " + kindOf(f.value) + ", not several values; put text that holds any of []{} in quotes"
	}
	const quoted = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	if k := f.value.Kind(); n.Style&quoted != 0 && k != reflect.String && k != reflect.Struct && f.value.Type() != reflect.TypeFor[time.Duration]() {
		return "must be " + kindOf(f.value) + ", without quotes"
	}
	return set(f, n.Value)
}

// setList gives a list the value of n, or returns what is wrong with it.
func setList(list *[]string, n *yaml.Node) (problem string) {
	if n.Kind != yaml.SequenceNode {
		return "must be a list, such as [a, b]"
	}
	var items []string
	for i, item := range n.Content {
		if problem := unsupported(item); problem != "" {
			return fmt.Sprintf("item %d: %s", i+1, problem)
		}
		if item.Kind != yaml.ScalarNode || isNull(item) {
			return fmt.Sprintf("item %d is not text", i+1)
		}
		items = append(items, item.Value)
	}
	*list = items
	return ""
}

// unsupported returns which part of YAML is used in n that is not read: those
// whose only effect here would be surprise.
func unsupported(n *yaml.Node) (problem string) {
	switch {
	case n.Kind == yaml.AliasNode:
		return "is an alias, and aliases are not supported; write the value out, in quotes if it begins with *"
	case n.Anchor != "":
		return "has an anchor, and anchors are not supported; put a value that begins with & in quotes"
	case n.Style&yaml.TaggedStyle != 0:
		return "has a tag, and tags are not supported; put a value that begins with ! in quotes"
	}
	return ""
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// kindOf names the kind of value that v holds.
func kindOf(v reflect.Value) string {
	switch v.Interface().(type) {
	case time.Duration:
		return "a duration"
	case int:
		return "a whole number"
	case float64:
		return "a number"
	case bool:
		return "true or false"
	}
	return "text"
}
