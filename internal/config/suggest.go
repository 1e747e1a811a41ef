package config

import "strings"

// moved maps keys of earlier versions to the keys that replace them.
var moved = map[string]string{ //nolint:gochecknoglobals // only read
	"server.max_concurrent": "server.limits.concurrent",
	"server.limits.watches": "watch.max_streams",
}

// suggest returns "; did you mean …?" with the closest key, or "" if none is
// close.
func (l *loader) suggest(path string) string {
	if key, ok := moved[path]; ok {
		return "; it is " + key + " now"
	}
	return suggestion(l.closest(path, true))
}

// suggestVariable is suggest for the variable of the key path.
func (l *loader) suggestVariable(path string) string {
	if key, ok := moved[strings.ToLower(path)]; ok {
		return "; it is " + variable(key) + " now"
	}
	key := l.closest(path, false)
	if key != "" {
		key = variable(key)
	}
	return suggestion(key)
}

func suggestion(name string) string {
	if name == "" {
		return ""
	}
	return "; did you mean " + name + "?"
}

// closest returns the key of fields with the fewest letters different from path in
// its last name, or "" if none is close.
func closest(fields []field, path string) (key string) {
	name := fold(last(path))
	fewest := 2 + len(name)/4
	for _, f := range fields {
		if d := distance(name, fold(last(f.key))); d < fewest {
			key, fewest = f.key, d
		}
	}
	return key
}

// closest returns the key with the fewest letters different from path. If no
// key is close, it returns one of the same name in another section.
func (l *loader) closest(path string, sections bool) string {
	want, name := fold(path), fold(last(path))
	best, fewest := "", 1+len(name)/4
	elsewhere := ""
	for _, f := range l.fields {
		if f.section && !sections {
			continue
		}
		if d := distance(want, fold(f.key)); d <= fewest && (best == "" || d < fewest) {
			best, fewest = f.key, d
		}
		if elsewhere == "" && fold(last(f.key)) == name {
			elsewhere = f.key
		}
	}
	if best != "" {
		return best
	}
	return elsewhere
}

// last returns the last name of a key's path.
func last(key string) string { return key[strings.LastIndexByte(key, '.')+1:] }

// separators are dropped by fold.
var separators = strings.NewReplacer(".", "", "_", "", "-", "") //nolint:gochecknoglobals // only read

// fold drops case and separators, which people vary without noticing.
func fold(key string) string { return separators.Replace(strings.ToLower(key)) }

// distance returns how many bytes must be inserted, removed or replaced to turn
// a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
