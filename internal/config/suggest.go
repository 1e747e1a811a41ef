package config

import "strings"

// suggest returns "; did you mean …?" with the key that somebody who wrote
// path may have meant, or "" if none is close.
func (l *loader) suggest(path string) string {
	return suggestion(l.closest(path, true))
}

// suggestVariable is suggest for a variable, of which path is the key.
func (l *loader) suggestVariable(path string) string {
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

// closest returns the key with the fewest letters different from path, if
// they are few, and otherwise one of the same name at another place.
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

// fold drops what people vary without noticing: case and what joins words.
func fold(key string) string {
	return strings.NewReplacer(".", "", "_", "", "-", "").Replace(strings.ToLower(key))
}

// distance returns how many bytes must be inserted, removed or replaced to
// make b of a.
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
