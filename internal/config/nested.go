package config

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/eligibilityd/eligibilityd/internal/access"
)

// maxEntries bounds each list and map within the value of a nested key.
const maxEntries = 1000

// isEntryName reports whether name may be one of a map: a claim, or a value of one.
func isEntryName(name string) bool {
	return name != "" && len(name) <= 256 && isVisible(name) && !strings.ContainsAny(name, "\"'`,\\")
}

// isNested reports whether values of a type consist of sections. Such a value is
// one key, which a variable holds in YAML.
func isNested(t reflect.Type) bool {
	return t.Kind() == reflect.Map || t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct
}

// nested reads the value of one nested key. It records the position of each value
// under its path, such as auth.jwt[0].audiences.
type nested struct {
	*loader
	at func(*yaml.Node) origin
}

// read sets the nested key f to the value of n, or to none if n is nil, in place of
// any earlier value.
func (r nested) read(f field, n *yaml.Node) {
	for path := range r.origins {
		if isBelow(path, f.key) {
			delete(r.origins, path)
			delete(r.rejected, path)
		}
	}
	f.value.SetZero()
	if n != nil {
		r.value(f.key, f.value, n)
	}
}

// value sets v, whose path is key, to the value of n.
func (r nested) value(key string, v reflect.Value, n *yaml.Node) {
	var problem string
	switch kind := v.Kind(); {
	case kind != reflect.Struct && !isNested(v.Type()):
		problem = setNode(field{key: key, value: v}, n)
	case unsupported(n) != "":
		problem = unsupported(n)
	case isNull(n):
		problem = noValue
	case kind == reflect.Slice && n.Kind != yaml.SequenceNode:
		problem = "must be a list, each item of which begins with a hyphen"
	case kind != reflect.Slice && n.Kind != yaml.MappingNode:
		problem = "must hold keys, one to a line"
	case kind == reflect.Slice && len(n.Content) > maxEntries, kind == reflect.Map && len(n.Content) > 2*maxEntries:
		problem = fmt.Sprintf("holds more than %d entries", maxEntries)
	case kind == reflect.Slice:
		r.list(key, v, n)
	case kind == reflect.Map:
		r.entries(key, v, n)
	default:
		r.section(key, v, n)
	}
	if problem != "" {
		r.reject(r.origins[key], key, problem)
	}
}

// list appends the items of n to v.
func (r nested) list(key string, v reflect.Value, n *yaml.Node) {
	for i, item := range n.Content {
		path := key + "[" + strconv.Itoa(i) + "]"
		r.origins[path] = r.at(item)
		v.Set(reflect.Append(v, r.element(path, v.Type().Elem(), item)))
	}
}

// entries adds the entries of n to v.
func (r nested) entries(key string, v reflect.Value, n *yaml.Node) {
	valid, rule := isEntryName, "a name of 1 to 256 visible ASCII characters except quotes, commas and backslashes"
	if v.Type().Elem().Kind() == reflect.Struct {
		valid, rule = access.ValidName, "the name of a caller: 1 to 64 visible ASCII characters except quotes, commas and backslashes"
	}
	all := reflect.MakeMap(v.Type())
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		if name.Kind != yaml.ScalarNode || isNull(name) || name.ShortTag() == "!!merge" || unsupported(name) != "" || !valid(name.Value) {
			r.fault(r.at(name), key, "holds something that is not "+rule)
			continue
		}
		path := entry(key, name.Value)
		if r.isRepeated(lines, path, name) {
			continue
		}
		r.origins[path] = r.at(name)
		all.SetMapIndex(reflect.ValueOf(name.Value), r.element(path, v.Type().Elem(), value))
	}
	if all.Len() > 0 {
		v.Set(all)
	}
}

// element returns the value of n, an item or entry of type t.
func (r nested) element(path string, t reflect.Type, n *yaml.Node) reflect.Value {
	v := reflect.New(t)
	switch value := v.Interface().(type) {
	case *JWT:
		*value = DefaultJWT()
	case *Limit:
		*value = defaultLimit()
	case *Webhook:
		*value = DefaultWebhook()
	}
	r.value(path, v.Elem(), n)
	return v.Elem()
}

// section sets the fields of v to the values of n.
func (r nested) section(key string, v reflect.Value, n *yaml.Node) {
	fields := appendFields(nil, key, v)
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		path, problem := keyOf(key, name)
		if problem != "" {
			r.fault(r.at(name), path, problem)
			continue
		}
		if r.isRepeated(lines, path, name) {
			continue
		}
		f, known := find(fields, path)
		if !known {
			r.fault(r.at(name), path, "unknown key"+suggestion(closest(fields, path)))
			continue
		}
		r.origins[path] = r.at(name)
		r.value(path, f.value, value)
	}
}

// isRepeated reports whether path is in lines, and records a fault for it or adds
// it.
func (r nested) isRepeated(lines map[string]int, path string, name *yaml.Node) bool {
	line, repeated := lines[path]
	if repeated {
		r.fault(r.at(name), path, givenTwice(line))
	}
	lines[path] = name.Line
	return repeated
}

func find(fields []field, key string) (field, bool) {
	for _, f := range fields {
		if f.key == key {
			return f, true
		}
	}
	return field{}, false
}

// simpleName matches the names that a path shows as those of keys.
var simpleName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// entry returns the path of an entry of the map key.
func entry(key, name string) string {
	if simpleName.MatchString(name) {
		return join(key, name)
	}
	return key + `["` + name + `"]`
}

// isBelow reports whether path is within the value of key.
func isBelow(path, key string) bool {
	rest, ok := strings.CutPrefix(path, key)
	return ok && rest != "" && (rest[0] == '.' || rest[0] == '[')
}

// above returns the path of what path is in, or "".
func above(path string) string {
	end := strings.LastIndexByte(path, '.')
	if strings.HasSuffix(path, `"]`) {
		end = strings.LastIndex(path, `["`) // no name holds a quote
	} else if strings.HasSuffix(path, "]") {
		end = strings.LastIndexByte(path, '[')
	}
	return path[:max(end, 0)]
}

// readNestedVariable sets the nested key f to the YAML text of a variable.
func (l *loader) readNestedVariable(f field, at origin, text string) {
	several := strings.Contains(strings.TrimSpace(text), "\n")
	r := nested{l, func(n *yaml.Node) origin {
		if several {
			return origin{at.source, n.Line}
		}
		return at
	}}
	if len(text) > maxFileBytes {
		l.reject(at, f.key, fmt.Sprintf("is longer than %d bytes", maxFileBytes))
		return
	}
	root, second, err := decodeYAML([]byte(text))
	switch {
	case err != nil:
		line, problem := notYAML(err)
		if several {
			at.line = line
		}
		l.reject(at, f.key, problem)
	case second != nil:
		l.reject(r.at(second), f.key, "holds a second document")
	default:
		r.read(f, root)
	}
}
