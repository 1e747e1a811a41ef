package access_test

import (
	"strings"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/access"
)

func TestValidName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"checkout":                             true,
		"a":                                    true,
		"2f1e3c52-9d1c-4c1c-8a52-1b2f3c4d5e6f": true,
		"spiffe://shop.example/checkout":       true,
		"auth0|123=[x]~!":                      true,
		strings.Repeat("a", 64):                true,
		strings.Repeat("a", 65):                false,
		"":                                     false,
		"a b":                                  false,
		"a,b":                                  false,
		`a"b`:                                  false,
		"a'b":                                  false,
		"a`b":                                  false,
		`a\b`:                                  false,
		"a\n":                                  false,
		"a\x00":                                false,
		"a\x7f":                                false,
		"ä":                                    false,
		"\xff":                                 false,
	} {
		if got := access.ValidName(name); got != want {
			t.Errorf("ValidName(%q) = %v, want %v", name, got, want)
		}
	}
}
