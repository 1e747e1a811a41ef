package config

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// prefix begins the name of every variable that belongs to the configuration.
const prefix = "ELIGIBILITY_"

// variablePattern matches names that are safe to repeat in a fault.
var variablePattern = regexp.MustCompile(`^[A-Za-z0-9_]{1,128}$`)

// serviceLink matches the variables that Kubernetes sets for a Service. They
// collide with ours if the Service is called eligibility or eligibility-….
var serviceLink = regexp.MustCompile(`_SERVICE_(HOST|PORT)(_|$)|_PORT(_\d+_(TCP|UDP|SCTP)(_|$)|$)`)

// variable returns the name of the variable that overrides key.
func variable(key string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(strings.ReplaceAll(key, ".", "__"), "-", "_"))
}

// variables returns the key of every variable.
func (l *loader) variables() map[string]field {
	all := make(map[string]field, len(l.fields))
	for _, f := range l.fields {
		if !f.section {
			all[variable(f.key)] = f
		}
	}
	return all
}

// readEnviron reads the variables that begin with prefix in the order of their
// names, so that the order of faults is stable.
func (l *loader) readEnviron(environ []string) {
	environ = slices.Sorted(slices.Values(environ))
	l.declareInEnviron(environ)
	known := l.variables()
	given := map[string]bool{}
	for _, entry := range environ {
		name, text, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		f, ok := known[name]
		switch {
		case !ok:
			l.unknownVariable(name)
		case given[name]:
			l.fault(origin{source: name}, f.key, "is given twice in the environment")
		default:
			l.readVariable(f, name, text)
		}
		given[name] = true
	}
}

// readVariable sets the key f from the variable of that name.
func (l *loader) readVariable(f field, name, text string) {
	at := origin{source: name}
	l.origins[f.key] = at
	l.give(f.key, at)
	if isNested(f.value.Type()) {
		l.readNestedVariable(f, at, text)
		return
	}
	if list, ok := reflect.TypeAssert[*[]string](f.value.Addr()); ok {
		*list = splitList(text)
		return
	}
	if problem := set(f, text); problem != "" {
		l.reject(at, f.key, problem)
	}
}

// splitList splits a comma-separated list and trims its items. If text is
// blank, the list is empty.
func splitList(text string) []string {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	items := strings.Split(text, ",")
	for i := range items {
		items[i] = strings.TrimSpace(items[i])
	}
	return items
}

// unknownVariable records a fault for a variable that has our prefix and no
// key.
func (l *loader) unknownVariable(name string) {
	switch {
	case !variablePattern.MatchString(name):
		l.fault(origin{source: prefix + "…"}, "", "unknown variable, and its name is none that a key could have")
	case serviceLink.MatchString(name):
		l.fault(origin{source: name}, "", "unknown variable; Kubernetes sets it for a Service of that name: set enableServiceLinks: false in the pod, or call the Service something that does not begin with eligibility-")
	case l.nestedAbove(name) != "":
		l.fault(origin{source: name}, "", "unknown variable; "+l.nestedAbove(name)+" holds the whole value, in YAML")
	default:
		path := strings.ReplaceAll(strings.TrimPrefix(name, prefix), "__", ".")
		l.fault(origin{source: name}, "", "unknown variable"+l.suggestVariable(path))
	}
}

// nestedAbove returns the variable of the nested key that the variable name would
// be below, or "".
func (l *loader) nestedAbove(name string) string {
	for _, f := range l.fields {
		if !f.section && isNested(f.value.Type()) && strings.HasPrefix(name, variable(f.key)+"_") {
			return variable(f.key)
		}
	}
	return ""
}
