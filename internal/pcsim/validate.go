package pcsim

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// Fault is one mistake in a script.
type Fault struct {
	// Key is the path of the member, such as
	// customers.a0000000-0000-4000-8000-000000000001.account[0].latency.
	Key string `json:"key"`
	// Line is its line in a YAML script, or 0 if there is none.
	Line int `json:"line,omitempty"`
	// Problem describes the mistake.
	Problem string `json:"problem"`
}

// rootKey is the key of a fault of the whole script.
const rootKey = "script"

// ScriptError holds every mistake that was found in a script.
type ScriptError struct{ Faults []Fault }

// Error writes one mistake per line.
func (e *ScriptError) Error() string {
	lines := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		if f.Line > 0 {
			lines[i] = fmt.Sprintf("line %d: ", f.Line)
		}
		lines[i] += f.Key + ": " + f.Problem
	}
	return strings.Join(lines, "\n")
}

// scriptError returns nil if there is no fault.
func scriptError(faults []Fault) error {
	if len(faults) == 0 {
		return nil
	}
	return &ScriptError{Faults: faults}
}

// role is the endpoint of a list of steps.
type role string

const (
	roleAccount        role = "account"
	roleQualifications role = "qualifications"
	roleToken          role = "token"
	roleOther          role = "other" // any path that is none of these
)

// checker collects the faults of one script.
type checker struct{ faults []Fault }

func (c *checker) fault(key, format string, args ...any) {
	key = strings.TrimPrefix(key, ".") // a script without a parent key
	c.faults = append(c.faults, Fault{Key: key, Problem: fmt.Sprintf(format, args...)})
}

// checkCustomer finds the faults of one customer under the given key. If the
// key is empty, the customer is the whole script.
func checkCustomer(key string, cust Customer) []Fault {
	var c checker
	if !isGUID(cust.ID) {
		c.fault(orDefault(key, "id"), "%q is not a GUID of the form 8-4-4-4-12", cut(cust.ID))
	}
	switch cust.Tenant {
	case "":
		if len(cust.Account) == 0 {
			c.fault(key+".account", "is missing: it needs at least one step")
		}
	case TenantUnknown, TenantOtherPartner:
		if len(cust.Account)+len(cust.Qualifications) > 0 {
			c.fault(key+".tenant", "%s leaves no room for account and qualifications", cust.Tenant)
		}
	default:
		c.fault(key+".tenant", "%q is neither %s nor %s", cut(cust.Tenant), TenantUnknown, TenantOtherPartner)
	}
	c.steps(key+".account", cust.Account, roleAccount)
	c.steps(key+".qualifications", cust.Qualifications, roleQualifications)
	return c.faults
}

// checkSteps finds the faults of one list of steps, under the given key.
func checkSteps(key string, steps []Step, r role) []Fault {
	var c checker
	c.steps(key, steps, r)
	return c.faults
}

func (c *checker) steps(key string, steps []Step, r role) {
	for i, s := range steps {
		at := fmt.Sprintf("%s[%d]", key, i)
		c.answer(at, s, r)
		c.progression(at, s, i == len(steps)-1)
		if s.Latency < 0 {
			c.fault(at+".latency", "%v is negative", s.Latency)
		}
		if s.ExpiresIn < 0 {
			c.fault(at+".expires_in", "%v is negative", s.ExpiresIn)
		}
		if s.Raw != nil {
			c.raw(at+".raw", *s.Raw)
		}
		for j, q := range s.Items {
			if q.Qualification == "" {
				c.fault(fmt.Sprintf("%s.items[%d].qualification", at, j), "is missing")
			}
		}
	}
}

// answer checks that a step has exactly one answer, of a kind that its role
// allows.
func (c *checker) answer(key string, s Step, r role) {
	var given []string
	for _, m := range []struct {
		name string
		set  bool
		of   role // "" means any
	}{
		{"status", s.Status != "", roleAccount},
		{"items", s.Items != nil, roleQualifications},
		{"entra_error", s.EntraError != 0, roleToken},
		{"expires_in", s.ExpiresIn != 0, roleToken},
		{"raw", s.Raw != nil, ""},
	} {
		if !m.set {
			continue
		}
		if m.of != "" && m.of != r {
			c.fault(key+"."+m.name, "is for %s steps only", m.of)
		}
		given = append(given, m.name)
	}
	if len(given) > 1 {
		c.fault(key, "has both %s: only one is possible", strings.Join(given, " and "))
	}
	c.failure(key, s, r, given)
	if s.EntraError != 0 {
		if _, known := entraErrorFor(s.EntraError); !known {
			c.fault(key+".entra_error", "%d is not a code that the simulator knows", s.EntraError)
		}
	}
	if _, err := strconv.Atoi(s.Status); err == nil {
		c.fault(key+".status", "is %s, which is not an account status; raw has the HTTP status", cut(s.Status))
	}
	if s.Status != StatusNone && strings.EqualFold(s.Status, StatusNone) {
		c.fault(key+".status", "write %s in lower case for an account without status", StatusNone)
	}
}

// failure checks that a step has an answer if, and only if, it needs one.
func (c *checker) failure(key string, s Step, r role, given []string) {
	word := map[role]string{roleAccount: "status", roleQualifications: "items"}[r]
	switch s.Failure {
	case "":
		if len(given) == 0 && r != roleToken {
			c.fault(key, "needs %s, raw or failure", word)
		}
	case FailureReset, FailureHang:
		if len(given) > 0 {
			c.fault(key+".failure", "%s sends nothing: remove %s", s.Failure, given[0])
		}
	case FailureResetBody, FailureHangBody:
		if len(given) == 0 && r != roleToken {
			c.fault(key, "needs an answer for %s to break", s.Failure)
		}
	default:
		c.fault(key+".failure", "%q is none of %s, %s, %s, %s", s.Failure,
			FailureReset, FailureResetBody, FailureHang, FailureHangBody)
	}
}

func (c *checker) progression(key string, s Step, last bool) {
	if s.Times < 0 {
		c.fault(key+".times", "%d is negative", s.Times)
	}
	if s.For < 0 {
		c.fault(key+".for", "%v is negative", s.For)
	}
	switch {
	case s.Times != 0 && s.For != 0:
		c.fault(key, "has both times and for: only one is possible")
	case last && (s.Times != 0 || s.For != 0):
		c.fault(key, "is the last step, which repeats: remove times and for, or add a step")
	case !last && s.Times == 0 && s.For == 0:
		c.fault(key, "needs times or for: another step follows")
	}
}

func (c *checker) raw(key string, r Raw) {
	if r.Status < 200 || r.Status > 599 {
		c.fault(key+".status", "%d is not a status from 200 to 599", r.Status)
	}
	body, err := r.body()
	if err != nil {
		c.fault(key+".body_base64", "is not base64")
	}
	if r.Body != "" && r.BodyBase64 != "" {
		c.fault(key, "has both body and body_base64: only one is possible")
	}
	if (r.Status == 204 || r.Status == 304) && len(body) > 0 {
		c.fault(key+".body", "status %d has no body", r.Status)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		at := key + ".headers." + name
		if name == "" || strings.ContainsFunc(name, notToken) {
			c.fault(at, "is not a header name")
		}
		if strings.ContainsFunc(r.Headers[name], isControl) {
			c.fault(at, "has a control character in its value")
		}
	}
}

func notToken(r rune) bool {
	return r <= ' ' || r >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?={}`, r)
}

func isControl(r rune) bool { return (r < ' ' && r != '\t') || r == 0x7f }

// isGUID accepts the hyphenated form in any case, the only form in Partner
// Center's paths.
func isGUID(s string) bool { return len(s) == 36 && uuid.Validate(s) == nil }
