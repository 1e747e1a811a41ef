package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// word is a text with a fixed set of values.
type word interface{ words() []string }

// set sets the key f to the value of text. If text is invalid, problem
// describes why and f is unchanged. Lists are not set here.
func set(f field, text string) (problem string) {
	switch target := f.value.Addr().Interface().(type) {
	case *Secret:
		*target = NewSecret(text)
	case *string:
		*target = text
	case *time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Sprintf("%s is not a duration; write e.g. %s", show(text), short(*target))
		}
		*target = d
	case *Size:
		size, ok := parseSize(text)
		if !ok {
			return fmt.Sprintf("%s is not a number of bytes; write e.g. %s", show(text), *target)
		}
		*target = size
	case *int:
		n, err := strconv.Atoi(text)
		if err != nil || strconv.Itoa(n) != text {
			return fmt.Sprintf("%s is not a whole number; write e.g. %d", show(text), *target)
		}
		*target = n
	case *float64:
		x, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fmt.Sprintf("%s is not a number; write e.g. %v", show(text), *target)
		}
		*target = x
	case *bool:
		if text != "true" && text != "false" {
			return show(text) + " is neither true nor false"
		}
		*target = text == "true"
	case *ClientAssertion: // an assertion itself is an easy mistake, and a secret
		if !slices.Contains(target.words(), text) {
			return "must be one of workload_identity and managed_identity; the assertion itself is never written here"
		}
		f.value.SetString(text)
	case word:
		if !slices.Contains(target.words(), text) {
			return fmt.Sprintf("%s is not one of %s", show(text), strings.Join(target.words(), ", "))
		}
		f.value.SetString(text)
	default:
		// Reached only if a new field has a type that is missing above; the
		// test that sets every key by file and by environment finds it.
		return fmt.Sprintf("holds a %s, which cannot be set", f.value.Type())
	}
	return ""
}

// show quotes a value that is not secret and shortens it to fit one line.
func show(text string) string {
	const limit = 40
	if runes := []rune(text); len(runes) > limit {
		text = string(runes[:limit]) + "…"
	}
	return strconv.Quote(text)
}

// short formats a duration as in a configuration file: 1h, not 1h0m0s.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
