package access

import "strings"

// Rights is a set of rights. The zero value is none.
type Rights uint8

// The rights.
const (
	// Check permits single checks, reflection and the documentation.
	Check Rights = 1 << iota
	// Batch permits batches.
	Batch
	// Fresh permits a check to demand evidence that is younger than 30 s.
	Fresh
	// Prefetch permits prefetches.
	Prefetch
	// Watch permits streams of changes about customers that the caller lists.
	Watch
	// WatchAll permits them about all customers.
	WatchAll
	// Support permits what support staff need: explanations, history, reviews.
	Support

	// AllRights are all of them.
	AllRights = Check | Batch | Fresh | Prefetch | Watch | WatchAll | Support
)

// words are the names of the rights in configurations and errors, in the order of
// their bits.
var words = [...]string{"check", "batch", "fresh", "prefetch", "watch", "watch_all", "support"} //nolint:gochecknoglobals // constants

// Words returns the names of all rights.
func Words() []string { return append([]string(nil), words[:]...) }

// ParseRight returns the right of that name.
func ParseRight(word string) (Rights, bool) {
	for i, name := range words {
		if name == word {
			return 1 << i, true
		}
	}
	return 0, false
}

// Has reports whether the set has every right of wanted.
func (r Rights) Has(wanted Rights) bool { return r&wanted == wanted }

// String returns the names of the rights, separated by commas.
func (r Rights) String() string {
	var names []string
	for i, name := range words {
		if r.Has(1 << i) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}
