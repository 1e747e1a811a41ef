package config

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The sections that partners are read from.
const (
	shortSection    = "partner_center"
	sharedSection   = "partner_defaults"
	partnersSection = "partners"
)

var (
	partnerName = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)
	// partnerVariable matches the name in a variable of a partner that the file
	// does not define. An underscore at an end is usually one too many.
	partnerVariable = regexp.MustCompile(`^[A-Z0-9]+(_[A-Z0-9]+)*$`)
)

// partnerSection is one section with the keys of a partner.
type partnerSection struct {
	key    string // its path
	values *PartnerCenter
	name   string // of the partner
}

// at returns the path of a key of the section.
func (s partnerSection) at(name string) string { return s.key + "." + name }

// declare adds a partner, unless there is one of that name.
func (l *loader) declare(name string) {
	key := join(partnersSection, name)
	if _, known := l.field(key); known {
		return
	}
	values := newPartnerCenter()
	l.partners = append(l.partners, partnerSection{key: key, values: values, name: name})
	l.addFields(key, true, values)
}

// declareInFile adds the partners of the file whose root is n, before any value
// is read.
func (l *loader) declareInFile(n *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if name, value := n.Content[i], n.Content[i+1]; name.Value == partnersSection && value.Kind == yaml.MappingNode {
			for j := 0; j+1 < len(value.Content); j += 2 {
				if partner := value.Content[j]; partner.Kind == yaml.ScalarNode && partnerName.MatchString(partner.Value) {
					l.declare(partner.Value)
				}
			}
		}
	}
}

// declareInEnviron adds the partners that only variables define.
func (l *loader) declareInEnviron(environ []string) {
	known := l.variables()
	for _, entry := range environ {
		given, _, _ := strings.Cut(entry, "=")
		rest, ours := strings.CutPrefix(given, variable(partnersSection)+"__")
		if _, defined := known[given]; !ours || defined {
			continue
		}
		name, key, ok := strings.Cut(rest, "__")
		name = partnerOf(name)
		if ok && slices.ContainsFunc(l.partnerKeys, func(k string) bool { return variable(k) == prefix+key }) && name != "" {
			l.declare(name)
		}
	}
}

// partnerOf returns the name of the partner that a variable defines, or "" if it
// cannot be one.
func partnerOf(text string) string {
	name := strings.ToLower(strings.ReplaceAll(text, "_", "-"))
	if !partnerVariable.MatchString(text) || !partnerName.MatchString(name) {
		return ""
	}
	return name
}

// resolvePartners sets Config.Partners from the sections that were given. Keys
// that a partner does not have are those of partner_defaults.
func (l *loader) resolvePartners() {
	_, isShort := l.origins[shortSection]
	_, isSeveral := l.origins[partnersSection]
	_, isShared := l.origins[sharedSection]
	if isShort && isSeveral {
		l.object(shortSection, "conflicts with partners: it is the short form of one partner; move that partner to partners, under a name")
	}
	if isShared && !isSeveral {
		l.object(sharedSection, "has no effect without partners")
	}
	switch {
	case len(l.partners) > 0:
	case isSeveral:
		l.object(partnersSection, "names no partner; write the name of each, and its keys below the name")
		return
	default:
		l.partners = []partnerSection{{key: shortSection, values: l.short, name: onlyPartner}}
		return
	}
	slices.SortFunc(l.partners, func(a, b partnerSection) int { return strings.Compare(a.name, b.name) })
	for _, s := range l.partners {
		l.inherit(s)
	}
}

// give records that a section, or the one that a key is in, has a value.
func (l *loader) give(key string, at origin) {
	section, _, _ := strings.Cut(key, ".")
	if _, given := l.origins[section]; !given {
		l.origins[section] = at
	}
}

// applies reports whether the value of a key has a meaning of its own: those of
// partner_defaults are the partners', and partner_center is not read beside
// partners.
func (l *loader) applies(key string) bool {
	section, _, _ := strings.Cut(key, ".")
	return section != sharedSection && (section != shortSection || slices.ContainsFunc(l.partners, func(s partnerSection) bool { return s.key == shortSection }))
}

// inherit sets the keys of s that were not given from partner_defaults.
func (l *loader) inherit(s partnerSection) {
	for _, name := range l.partnerKeys {
		from, to := join(sharedSection, name), s.at(name)
		if _, own := l.origins[to]; own {
			continue
		}
		if _, shared := l.origins[from]; shared {
			target, _ := l.field(to)
			value, _ := l.field(from)
			target.value.Set(value.value)
			l.inherited[to] = from
		}
	}
}

// source returns the key that was given for key: its own, or the one of
// partner_defaults.
func (l *loader) source(key string) string {
	if from, ok := l.inherited[key]; ok {
		return from
	}
	return key
}

// keepPartners puts the partners into the configuration, once every check has
// passed over them.
func (l *loader) keepPartners() {
	l.cfg.Partners = l.cfg.Partners[:0]
	for _, s := range l.partners {
		l.cfg.Partners = append(l.cfg.Partners, Partner{Name: s.name, PartnerCenter: *s.values})
	}
	if len(l.partners) == 1 {
		l.cfg.DefaultPartner = l.partners[0].name
	}
}

// checkDefaultPartner rejects a default that is none of the partners.
func (l *loader) checkDefaultPartner() {
	const key = "default_partner"
	name := l.cfg.DefaultPartner
	if name != "" && !slices.ContainsFunc(l.partners, func(s partnerSection) bool { return s.name == name }) {
		l.object(key, "names none of the partners")
	}
}

// checkRefreshTokens rejects a place that two partners would store their refresh
// tokens in.
func (l *loader) checkRefreshTokens() {
	type place struct{ file, vault string }
	taken := map[place]partnerSection{}
	for _, s := range l.partners {
		if s.values.Flow != FlowAppUser {
			continue
		}
		at, key := place{}, s.at("refresh_token_file")
		switch vault := s.values.RefreshTokenVault; {
		case !vault.IsZero():
			key = s.at("refresh_token_vault.secret")
			at.vault = strings.ToLower(vault.URL + "/" + vault.Secret)
		case s.values.RefreshTokenFile != "":
			at.file = realPath(s.values.RefreshTokenFile)
		default:
			continue
		}
		if other, ok := taken[at]; ok {
			l.object(key, "is the same for the partners %s and %s: each needs its own, because a renewal for one replaces the token of the other", other.name, s.name)
			continue
		}
		taken[at] = s
	}
}

// realPath returns path in one form, symbolic links resolved as far as they
// exist.
func realPath(path string) string {
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path))
	}
	return path
}

// Partner returns the partner of that name; "" means the default.
func (c *Config) Partner(name string) (Partner, bool) {
	if name == "" {
		name = c.DefaultPartner
	}
	for _, p := range c.Partners {
		if p.Name == name {
			return p, true
		}
	}
	return Partner{}, false
}
