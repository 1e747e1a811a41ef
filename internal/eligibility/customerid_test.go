package eligibility_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const canonical = "01234567-89ab-cdef-0123-456789abcdef"

// VS-31, VS-34.
func TestParseCustomerID(t *testing.T) {
	t.Parallel()
	for _, good := range []string{
		canonical,
		strings.ToUpper(canonical),
		"0123456789abcdef0123456789ABCDEF",
		"{" + canonical + "}",
		"{0123456789abcdef0123456789abcdef}",
		" \t" + canonical + "\r\n",
		" {" + canonical + "} ",
	} {
		id, err := eligibility.ParseCustomerID(good)
		if err != nil || id.String() != canonical {
			t.Errorf("ParseCustomerID(%q) = %s, %v", good, id, err)
		}
	}
	for _, bad := range []string{
		"", " ", "{}", "contoso.onmicrosoft.com",
		canonical[:35], canonical + "0", "x" + canonical[1:],
		"{" + canonical, canonical + "}", "{{" + canonical + "}}", "{ " + canonical + " }", "(" + canonical + ")",
		"urn:uuid:" + canonical,
		"012345678-9ab-cdef-0123-456789abcdef",
		"01234567-89abcdef-0123-456789abcdef0",
		"0123456789abcdef0123456789abcde-",
		canonical + " " + canonical,
		"\u00a0" + canonical,
		"０1234567-89ab-cdef-0123-456789abcdef",
	} {
		if id, err := eligibility.ParseCustomerID(bad); err == nil {
			t.Errorf("ParseCustomerID(%q) = %s", bad, id)
		}
	}
}

func FuzzParseCustomerID(f *testing.F) {
	f.Add(canonical)
	f.Add(" {" + canonical + "}\n")
	f.Add("0123456789abcdef0123456789abcdef")
	f.Add("{0123456789abcdef0123456789abcde}")
	form := regexp.MustCompile(`^[ \t-\r]*(?:` +
		`\{[0-9a-fA-F]{32}\}|[0-9a-fA-F]{32}|` +
		`\{[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}` +
		`)[ \t-\r]*$`)
	f.Fuzz(func(t *testing.T, s string) {
		id, err := eligibility.ParseCustomerID(s)
		if ok := form.MatchString(s); ok != (err == nil) {
			t.Fatalf("ParseCustomerID(%q): %v, want a GUID: %t", s, err, ok)
		}
		if err != nil {
			return
		}
		again, err := eligibility.ParseCustomerID(id.String())
		if err != nil || again != id {
			t.Fatalf("%q became %s, which reads as %s, %v", s, id, again, err)
		}
		digits := strings.ToLower(strings.Trim(strings.ReplaceAll(s, "-", ""), "{} \t\r\n\v\f"))
		if strings.ReplaceAll(id.String(), "-", "") != digits {
			t.Fatalf("%q became %s", s, id)
		}
	})
}
