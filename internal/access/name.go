package access

import "strings"

// maxNameBytes bounds the name of a caller.
const maxNameBytes = 64

// ValidName reports whether name may name a caller: 1 to 64 visible ASCII
// characters except quotes, commas and backslashes. Such a name needs no escapes
// in logs, metrics, headers or files.
func ValidName(name string) bool {
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c > '~' || strings.IndexByte("\"'`,\\", c) >= 0 {
			return false
		}
	}
	return name != "" && len(name) <= maxNameBytes
}
