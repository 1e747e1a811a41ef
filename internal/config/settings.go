package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Setting is the effective value of one key.
type Setting struct {
	// Key is its path, such as server.grpc.address or webhooks[0].url.
	Key string
	// Value is a string, bool, int, float64 or []string. It shows no secret: one that
	// is set is "[redacted]", one that is not is "". So is the part of a URL that can
	// hold one, and the name of a file if there is neither such a file nor its
	// directory: it may be the secret itself.
	Value any
	// Source is where the value was given: a line of the file, as "config.yaml:12", or
	// the name of a variable. It is empty if the value is the default, or follows from
	// other keys.
	Source string
}

// Text returns the value in one line.
func (s Setting) Text() string {
	switch value := s.Value.(type) {
	case string:
		if value == "" || !isVisible(value) {
			return strconv.Quote(value)
		}
		return value
	case []string:
		items := make([]string, len(value))
		for i, item := range value {
			items[i] = Setting{Value: item}.Text()
		}
		return "[" + strings.Join(items, ", ") + "]"
	default:
		return fmt.Sprint(value)
	}
}

// LoadSettings is Load that also returns every key with its source, in the order of
// the documentation.
func LoadSettings(path string, environ []string, command Command) (*Config, []Setting, error) {
	l := newLoader(path)
	cfg, err := l.load(environ, command)
	if err != nil {
		return nil, nil, err
	}
	sections := make([]string, len(l.partners))
	for i, s := range l.partners {
		sections[i] = s.key
	}
	settings := appendSettings(nil, "", reflect.ValueOf(cfg).Elem(), sections)
	for i := range settings {
		s := &settings[i]
		if s.Source = l.given(s.Key); s.Source == "" && s.Value == redacted {
			s.Source = l.given(s.Key + "_file")
		}
		s.Value = shown(s.Key, s.Value)
	}
	return cfg, settings, nil
}

// given returns where the value of key was given, or "".
func (l *loader) given(key string) string {
	at, ok := l.origins[l.source(key)]
	switch {
	case !ok:
		return ""
	case at.line == 0:
		return at.source
	default:
		return at.source + ":" + strconv.Itoa(at.line)
	}
}

// Digest returns "sha256:" and a hash over all effective values, but for those of
// secrets: two processes with the same digest differ in these at most.
func (c *Config) Digest() string {
	hash := sha256.New()
	for _, s := range appendSettings(nil, "", reflect.ValueOf(c).Elem(), nil) {
		fmt.Fprintf(hash, "%s=%#v\n", s.Key, s.Value)
	}
	return "sha256:" + hex.EncodeToString(hash.Sum(nil))
}

// appendSettings appends the keys in the value v of key, secrets redacted. The
// partners are in those sections, or under their names if it is nil.
func appendSettings(all []Setting, key string, v reflect.Value, partners []string) []Setting {
	switch value := v.Interface().(type) {
	case Secret:
		if value.IsZero() {
			return append(all, Setting{Key: key, Value: ""})
		}
		return append(all, Setting{Key: key, Value: redacted})
	case time.Duration:
		return append(all, Setting{Key: key, Value: short(value)})
	case Size:
		return append(all, Setting{Key: key, Value: value.String()})
	case []string:
		return append(all, Setting{Key: key, Value: append([]string{}, value...)})
	case []Partner:
		for i, partner := range value {
			section := join(partnersSection, partner.Name)
			if partners != nil {
				section = partners[i]
			}
			all = appendSettings(all, section, reflect.ValueOf(partner.PartnerCenter), nil)
		}
		return all
	}
	if isNested(v.Type()) && v.Len() == 0 {
		return append(all, Setting{Key: key, Value: []string{}})
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if name := v.Type().Field(i).Tag.Get("yaml"); name != "-" {
				all = appendSettings(all, join(key, name), v.Field(i), partners)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			all = appendSettings(all, key+"["+strconv.Itoa(i)+"]", v.Index(i), nil)
		}
	case reflect.Map:
		entries := make(map[string]reflect.Value, v.Len())
		for _, name := range v.MapKeys() {
			entries[name.String()] = v.MapIndex(name)
		}
		for _, name := range slices.Sorted(maps.Keys(entries)) {
			all = appendSettings(all, entry(key, name), entries[name], nil)
		}
	case reflect.String: // a word
		return append(all, Setting{Key: key, Value: v.String()})
	default:
		return append(all, Setting{Key: key, Value: v.Interface()})
	}
	return all
}

// shown returns the part of a value that certainly is no secret.
func shown(key string, value any) any {
	if items, isList := value.([]string); isList {
		for i, item := range items {
			items[i] = shownURL(item, false)
		}
	}
	text, isText := value.(string)
	switch {
	case !isText || text == "" || text == redacted:
		return value
	case strings.HasSuffix(key, "_file"):
		return shownPath(text)
	default:
		return shownURL(text, strings.HasPrefix(key, "webhooks["))
	}
}

// shownPath returns the path of a file that exists, or could.
func shownPath(path string) string {
	_, err := os.Stat(path)
	if err != nil && strings.ContainsRune(path, filepath.Separator) {
		_, err = os.Stat(filepath.Dir(path))
	}
	if err != nil {
		return redacted
	}
	return path
}

// shownURL returns a URL without user and query, and without path if that may be a
// secret, too. Other text is returned as it is.
func shownURL(text string, secretPath bool) string {
	if !strings.Contains(text, "://") {
		return text
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return redacted
	case u.Host == "":
		return text
	case u.User == nil && u.RawQuery == "" && u.Fragment == "" && (!secretPath || strings.Trim(u.Path, "/") == ""):
		return text
	case secretPath:
		return u.Scheme + "://" + u.Host + "/" + redacted
	case u.RawQuery != "":
		return u.Scheme + "://" + u.Host + u.EscapedPath() + "?" + redacted
	default:
		return u.Scheme + "://" + u.Host + u.EscapedPath()
	}
}
