package config

import (
	"errors"
	"fmt"
	"reflect"
)

// Command is the command that a configuration is for. It decides which keys
// must be present; if a key is present, it must be valid in any case.
type Command int

const (
	// Dev needs no key: it brings its own Partner Center.
	Dev Command = iota
	// Serve needs a complete connection to Partner Center: tenant_id,
	// client_id, one credential and, if flow is app_user, a readable refresh
	// token or the name of a vault.
	Serve
	// Login needs the same keys as Serve, but the file of the refresh token
	// need not exist, because login writes it.
	Login
	// Doctor needs no key: it reports missing ones.
	Doctor
)

// Load returns the configuration of the defaults, overlaid by the YAML file at
// path ("" for none), overlaid by the variables of environ that begin with
// ELIGIBILITY_ (in the form of os.Environ), checked for command. It reads the
// files of secrets except the refresh token, which changes.
//
// If anything is wrong, the Config is nil and the error joins one [Fault] for
// every mistake found. If the file is not YAML at all, mistakes that depend on
// its contents are not reported.
func Load(path string, environ []string, command Command) (*Config, error) {
	return newLoader(path).load(environ, command)
}

// loader collects one configuration and its faults.
type loader struct {
	path     string
	cfg      *Config
	fields   []field           // every section and key; those of partners, which the input names, are last
	index    map[string]int    // key → its position in fields
	origins  map[string]origin // key → source of its value; section → source of its first value
	faults   []error           // each a Fault
	rejected map[string]bool   // keys and sections without a usable value

	partners    []partnerSection  // those of partners, later those that apply
	short       *PartnerCenter    // partner_center
	partnerKeys []string          // every key of a partner
	inherited   map[string]string // key of a partner → the one of partner_defaults
}

// origin is the source of a key's value.
type origin struct {
	source string
	line   int
}

// field is one section or key and the address of its value in the Config.
type field struct {
	key     string
	section bool
	value   reflect.Value
}

func newLoader(path string) *loader {
	l := &loader{
		path:      path,
		cfg:       Default(),
		short:     newPartnerCenter(),
		index:     map[string]int{},
		origins:   map[string]origin{},
		rejected:  map[string]bool{},
		inherited: map[string]string{},
	}
	l.cfg.DefaultPartner = ""
	l.addFields(shortSection, true, l.short)
	l.addFields("", false, l.cfg)
	l.addFields(sharedSection, true, newPartnerCenter())
	l.add(field{key: partnersSection, section: true})
	for _, f := range appendFields(nil, "", reflect.ValueOf(l.short).Elem()) {
		if !f.section {
			l.partnerKeys = append(l.partnerKeys, f.key)
		}
	}
	return l
}

// load is Load.
func (l *loader) load(environ []string, command Command) (*Config, error) {
	readable := l.path == "" || l.readFile()
	l.readEnviron(environ)
	if readable {
		l.resolvePartners()
		l.resolveLimits()
		l.applyCloud()
		l.applyRedisMode()
		l.readSecrets()
		l.check(command)
		if command == Serve || command == Login {
			l.require(command)
		}
	}
	if len(l.faults) > 0 {
		return nil, errors.Join(l.faults...)
	}
	l.keepPartners()
	return l.cfg, nil
}

// addFields adds the keys of the struct that values points to below key, and key
// itself if it is a section.
func (l *loader) addFields(key string, isSection bool, values any) {
	if isSection {
		l.add(field{key: key, section: true})
	}
	l.add(appendFields(nil, key, reflect.ValueOf(values).Elem())...)
}

func (l *loader) add(fields ...field) {
	for _, f := range fields {
		l.index[f.key] = len(l.fields)
		l.fields = append(l.fields, f)
	}
}

// appendFields appends the sections and keys of the struct v, whose own key is
// parent.
func appendFields(all []field, parent string, v reflect.Value) []field {
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("yaml")
		if name == "-" || join(parent, name) == partnersSection {
			continue
		}
		f := field{key: join(parent, name), value: v.Field(i)}
		f.section = f.value.Kind() == reflect.Struct && f.value.Type() != reflect.TypeFor[Secret]()
		all = append(all, f)
		if f.section {
			all = appendFields(all, f.key, f.value)
		}
	}
	return all
}

// join returns the key of name below parent.
func join(parent, name string) string {
	if parent == "" {
		return name
	}
	return parent + "." + name
}

// field returns the section or key of that path.
func (l *loader) field(key string) (field, bool) {
	i, ok := l.index[key]
	if !ok {
		return field{}, false
	}
	return l.fields[i], true
}

// fault records a mistake at a position.
func (l *loader) fault(at origin, key, problem string) {
	l.faults = append(l.faults, Fault{Source: at.source, Line: at.line, Key: key, Problem: problem})
}

// reject records that a key or section has no usable value, so that no other
// fault of it is reported.
func (l *loader) reject(at origin, key, problem string) {
	l.fault(at, key, problem)
	l.rejected[key] = true
}

// object records that the value of key breaks a rule, at the position of the
// value, unless the key has been rejected.
func (l *loader) object(key, format string, args ...any) {
	if key = l.source(key); !l.isRejected(key) {
		l.reject(l.origins[key], key, fmt.Sprintf(format, args...))
	}
}

// isRejected reports whether key, or what it is in, was rejected.
func (l *loader) isRejected(key string) bool {
	for ; key != ""; key = above(key) {
		if l.rejected[key] {
			return true
		}
	}
	return false
}

// readSecrets sets each secret from its file if a file is given.
func (l *loader) readSecrets() {
	for _, f := range l.fields {
		if f.section || !l.applies(f.key) {
			continue
		}
		secret, ok := reflect.TypeAssert[*Secret](f.value.Addr())
		if !ok {
			continue
		}
		file, ok := l.field(f.key + "_file")
		if !ok || file.value.String() == "" {
			continue
		}
		if !secret.IsZero() {
			l.object(file.key, "conflicts with %s: give one of the two and empty the other", l.source(f.key))
			continue
		}
		text, problem := readSecret(file.value.String())
		if problem != "" {
			l.object(file.key, "%s", problem)
			continue
		}
		*secret = NewSecret(text)
	}
}
