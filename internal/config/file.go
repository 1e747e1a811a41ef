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

// namePattern matches the names of keys. If a name does not match, a fault does
// not repeat it: a secret after a forgotten blank parses as a key. The longest
// key has 24 letters, a generated secret usually 40.
var namePattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,31}$`)

// readFile reads the values of the file. It returns false if the file as a
// whole could not be read.
func (l *loader) readFile() bool {
	data, err := readFile(l.path, maxFileBytes)
	if err != nil {
		l.fault(origin{source: l.path}, "", "cannot be read: "+reason(err))
		return false
	}
	root, second, err := decodeYAML(data)
	if err != nil {
		line, problem := notYAML(err)
		l.fault(origin{l.path, line}, "", problem)
		return false
	}
	if second != nil {
		l.fault(l.at(second), "", "holds a second document; write all keys in one")
	}
	return root == nil || l.readRoot(root)
}

// decodeYAML returns the root of the document in data, or nil if there is none,
// and the second document if there is one.
func decodeYAML(data []byte) (root, second *yaml.Node, err error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var documents [2]yaml.Node
	for i := range documents {
		switch err := decoder.Decode(&documents[i]); {
		case errors.Is(err, io.EOF):
			if i == 1 {
				root = documents[0].Content[0]
			}
			return root, nil, nil
		case err != nil:
			return nil, nil, err
		}
	}
	return documents[0].Content[0], &documents[1], nil
}

// readRoot reads the values of the document whose root node is n.
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
	l.declareInFile(n)
	l.readSection("", n)
	return true
}

// at returns the position of n.
func (l *loader) at(n *yaml.Node) origin { return origin{source: l.path, line: n.Line} }

// yamlError matches the prefix of the YAML library's errors.
var yamlError = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// notYAML describes an error of the YAML library and returns its line, or 0. The
// library shows text of the input only if an alias is unknown, and a secret that
// begins with * parses as one.
func notYAML(err error) (line int, problem string) {
	text := err.Error()
	near := ""
	if match := yamlError.FindStringSubmatch(text); match != nil {
		text = text[len(match[0]):]
		if match[1] != "" {
			line, _ = strconv.Atoi(match[1]) // the pattern matches digits only
			near = " near this line"
		}
	}
	if strings.HasPrefix(text, "unknown anchor") {
		text = "a value begins with *; put it in quotes"
	}
	return line, "is not valid YAML" + near + ": " + text
}

// readSection reads the keys of the mapping n into that section; "" is the
// whole document.
func (l *loader) readSection(section string, n *yaml.Node) {
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		key, problem := keyOf(section, name)
		if problem != "" {
			l.fault(l.at(name), key, problem)
			continue
		}
		if line, repeated := lines[key]; repeated {
			l.fault(l.at(name), key, givenTwice(line))
			continue
		}
		lines[key] = name.Line
		f, known := l.field(key)
		switch {
		case !known:
			l.fault(l.at(name), key, "unknown key"+l.suggest(key))
		case f.section:
			l.readSubsection(f, l.at(name), value)
		case isNested(f.value.Type()):
			l.origins[key] = l.at(name)
			nested{l, l.at}.read(f, value)
		default:
			l.origins[key] = l.at(name)
			if problem := setNode(f, value); problem != "" {
				l.reject(l.at(name), key, problem)
			}
		}
	}
}

func givenTwice(line int) string { return fmt.Sprintf("is given twice; line %d has it already", line) }

// keyOf returns the key of name in a section. If name cannot be one, problem
// describes why, and key is what is safe to repeat.
func keyOf(section string, name *yaml.Node) (key, problem string) {
	switch safe := name.Kind == yaml.ScalarNode && namePattern.MatchString(name.Value); {
	case section == partnersSection && name.Kind == yaml.ScalarNode && partnerName.MatchString(name.Value):
	case !safe:
		return section, "holds something that is not the name of a key; is a blank missing after a colon, or is a value not in quotes?"
	case section == partnersSection:
		return join(section, name.Value), "is not the name of a partner: 1 to 32 of a-z, 0-9 and hyphens"
	}
	return join(section, name.Value), ""
}

// readSubsection reads the value n of the section f. If the section has no
// keys, for example because all are commented out, it counts as absent.
func (l *loader) readSubsection(f field, at origin, n *yaml.Node) {
	if !isNull(n) && (n.Kind != yaml.MappingNode || len(n.Content) > 0 || f.key == partnersSection) {
		l.give(f.key, at)
	}
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

const noValue = "has no value; leave the key out for the default"

// setNode sets the key f to the value of n. If n is invalid, problem describes
// why.
func setNode(f field, n *yaml.Node) (problem string) {
	if problem := unsupported(n); problem != "" {
		return problem
	}
	if isNull(n) {
		return noValue
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

// setList sets a list to the value of n. If n is invalid, problem describes
// why.
func setList(list *[]string, n *yaml.Node) (problem string) {
	if n.Kind != yaml.SequenceNode {
		return "must be a list, such as [a, b]"
	}
	if len(n.Content) > maxEntries {
		return fmt.Sprintf("holds more than %d items", maxEntries)
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

// unsupported returns a problem if n uses a part of YAML that would only cause
// surprises here.
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

// kindOf names the kind of value that v accepts.
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
