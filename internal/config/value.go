package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// word is a text of which only some values exist.
type word interface{ words() []string }

// set gives the key f the value that text stands for, or returns what is
// wrong with text and leaves f alone. Lists are not set here.
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
	case word:
		if !slices.Contains(target.words(), text) {
			return fmt.Sprintf("%s is not one of %s", show(text), strings.Join(target.words(), ", "))
		}
		f.value.SetString(text)
	default:
		// Reached only by a new field of a type that is missing above; the
		// test that sets every key by file and by environment finds it.
		return fmt.Sprintf("holds a %s, which cannot be set", f.value.Type())
	}
	return ""
}

// show quotes a value that is no secret, at a length fit for one line.
func show(text string) string {
	const limit = 40
	if runes := []rune(text); len(runes) > limit {
		text = string(runes[:limit]) + "…"
	}
	return strconv.Quote(text)
}

// short writes a duration as one would in a configuration: 1h, not 1h0m0s.
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
