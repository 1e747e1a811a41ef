package config

import (
	"strconv"
	"strings"
)

// Fault is one mistake in a configuration. The error of [Load] joins all of
// them; errors.As finds the first, and Unwrap() []error gives each.
type Fault struct { //nolint:errname // the manual's term; config.Fault reads well
	// Source is the source of the value: the path of the file as given to Load,
	// the name of an environment variable, or "" if the key was given nowhere.
	Source string
	// Line is the line in the file, counted from 1, or 0 if there is none.
	Line int
	// Key is the path of the key, such as partner_center.tenant_id, or "" if
	// the fault concerns the whole file or a variable without a key.
	Key string
	// Problem describes the mistake and its remedy. It never holds the value of
	// a secret.
	Problem string
}

// Error returns the fault as one line:
// `config.yaml:12: partner_center.attempt_timeout: "3 parsecs" is not a
// duration; write e.g. 3s`.
func (f Fault) Error() string {
	where := f.Source
	if f.Line > 0 {
		where += ":" + strconv.Itoa(f.Line)
	}
	parts := make([]string, 0, 3)
	for _, part := range []string{where, f.Key, f.Problem} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ": ")
}
