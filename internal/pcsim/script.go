package pcsim

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Customer is one customer and the script that the simulator plays for it.
//
// In YAML and JSON the members are `id` (optional if the key or path names it),
// `name`, `shows`, `tenant`, `account` and `qualifications`.
type Customer struct {
	// ID is the customer's tenant id, a hyphenated GUID in any case; it is
	// stored in lower case.
	ID string `json:"id" yaml:"id"`
	// Name is a short name for tables. Optional.
	Name string `json:"name,omitempty" yaml:"name"`
	// Shows is a sentence about the purpose of the customer. Optional.
	Shows string `json:"shows,omitempty" yaml:"shows"`
	// Tenant is empty for a customer of this partner. TenantUnknown and
	// TenantOtherPartner need no steps: they decide every answer.
	Tenant string `json:"tenant,omitempty" yaml:"tenant"`
	// Account holds the answers of validationStatus, played in order. At least
	// one step is needed.
	Account []Step `json:"account,omitempty" yaml:"account"`
	// Qualifications holds the answers of qualifications, played in order. If
	// there are none, the answer is always an empty list.
	Qualifications []Step `json:"qualifications,omitempty" yaml:"qualifications"`
}

// The values of Customer.Tenant, unless it is empty.
const (
	// TenantUnknown makes both resources answer 404 with code 60003, as for an
	// id without a script.
	TenantUnknown = "unknown"
	// TenantOtherPartner makes both resources answer 403 with code 20002.
	TenantOtherPartner = "other_partner"
)

// Step is one answer, and how long it is given. The answer is
// one of Status (account only), Items (qualifications only), Raw, or EntraError
// (token endpoint only); or it only fails.
//
// The last step of a script repeats for ever; each step before it ends after
// Times answers or after For.
type Step struct {
	// Status is the account's status word, sent unchanged; if it is StatusNone,
	// the answer is 404 with code 600074 instead.
	Status string `json:"status,omitempty" yaml:"status"`
	// Items is the list of qualifications. An empty list is an answer; nil
	// is not.
	Items []Qualification `json:"items,omitzero" yaml:"items"`
	// EntraError answers a token request with this AADSTS code, in Entra's
	// form, with the HTTP status and error word of the code. If a token step
	// has no EntraError, Raw or Failure, the answer is as usual.
	EntraError int `json:"entra_error,omitempty" yaml:"entra_error"`
	// ExpiresIn replaces Config.TokenLifetime in a usual token answer.
	ExpiresIn time.Duration `json:"-" yaml:"expires_in"`
	// Raw is any other answer.
	Raw *Raw `json:"raw,omitempty" yaml:"raw"`

	// Failure breaks the connection: one of the Failure constants.
	Failure string `json:"failure,omitempty" yaml:"failure"`
	// Latency is a delay before the answer or the failure, in real time.
	Latency time.Duration `json:"-" yaml:"latency"`

	// Times is how many answers are given before the next step begins.
	Times int `json:"times,omitempty" yaml:"times"`
	// For is how long the step lasts. It begins when the step before it ends:
	// if that one has For too, exactly then, else with the first request after
	// it. The first step begins with the first request for the customer,
	// whichever the resource.
	For time.Duration `json:"-" yaml:"for"`
}

// StatusNone as a Step's Status means that the account has no status.
const StatusNone = "none"

// The values of Step.Failure, if the step fails.
const (
	// FailureReset resets the connection before any answer.
	FailureReset = "reset"
	// FailureResetBody resets it after the headers and half of the body.
	FailureResetBody = "reset_body"
	// FailureHang answers nothing until the client leaves.
	FailureHang = "hang"
	// FailureHangBody sends the headers and half of the body, then nothing
	// until the client leaves.
	FailureHangBody = "hang_body"
)

// Qualification is one item as on the wire, with the same member names in
// scripts. If a member is empty, it is left out.
type Qualification struct {
	Qualification      string `json:"qualification"                yaml:"qualification"`
	VettingStatus      string `json:"vettingStatus,omitempty"      yaml:"vettingStatus"`
	VettingReason      string `json:"vettingReason,omitempty"      yaml:"vettingReason"`
	VettingCreatedDate string `json:"vettingCreatedDate,omitempty" yaml:"vettingCreatedDate"`
	// VettingCreateDate is the same date under the name that some answers use
	// instead.
	VettingCreateDate string `json:"vettingCreateDate,omitempty" yaml:"vettingCreateDate"`
}

// Raw is an answer in full.
type Raw struct {
	// Status is the HTTP status, 200 to 599.
	Status int `json:"status" yaml:"status"`
	// Headers are sent besides the usual ones, or in their place.
	Headers map[string]string `json:"headers,omitempty" yaml:"headers"`
	// Body is sent byte for byte.
	Body string `json:"body,omitempty" yaml:"body"`
	// BodyBase64 is the body, in base64, if Body is empty.
	BodyBase64 string `json:"body_base64,omitempty" yaml:"body_base64"`
}

// MarshalJSON writes durations as scripts do, such as "1.5s".
func (s Step) MarshalJSON() ([]byte, error) {
	type plain Step // without this method
	return json.Marshal(struct {
		plain
		ExpiresIn string `json:"expires_in,omitempty"`
		Latency   string `json:"latency,omitempty"`
		For       string `json:"for,omitempty"`
	}{plain(s), durationText(s.ExpiresIn), durationText(s.Latency), durationText(s.For)})
}

func durationText(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

// MarshalJSON writes a body that is not text in base64.
func (r Raw) MarshalJSON() ([]byte, error) {
	type plain Raw // without this method
	out := plain(r)
	if !utf8.ValidString(r.Body) {
		out.Body, out.BodyBase64 = "", base64.StdEncoding.EncodeToString([]byte(r.Body))
	}
	return json.Marshal(out)
}

// body returns the bytes to send if the script is valid.
func (r Raw) body() ([]byte, error) {
	if r.BodyBase64 == "" {
		return []byte(r.Body), nil
	}
	return base64.StdEncoding.DecodeString(r.BodyBase64)
}

// clone returns a deep copy.
func (c Customer) clone() Customer {
	c.Account = cloneSteps(c.Account)
	c.Qualifications = cloneSteps(c.Qualifications)
	return c
}

func cloneSteps(steps []Step) []Step {
	steps = slices.Clone(steps)
	for i, s := range steps {
		steps[i].Items = slices.Clone(s.Items)
		if s.Raw != nil {
			raw := *s.Raw
			raw.Headers = maps.Clone(raw.Headers)
			steps[i].Raw = &raw
		}
	}
	return steps
}

// Summary is a customer in a few words, for tables.
type Summary struct {
	ID             string `json:"id"`
	Name           string `json:"name"`
	Shows          string `json:"shows"`
	Account        string `json:"account"`
	Qualifications string `json:"qualifications"`
}

// Summary describes the whole script, such as "UnderReview for 1m0s, then
// Allowed".
func (c Customer) Summary() Summary {
	sum := Summary{ID: c.ID, Name: c.Name, Shows: c.Shows}
	switch c.Tenant {
	case TenantUnknown:
		sum.Account, sum.Qualifications = "404 code 60003", "404 code 60003"
	case TenantOtherPartner:
		sum.Account, sum.Qualifications = "403 code 20002", "403 code 20002"
	default:
		sum.Account = summarize(c.Account)
		sum.Qualifications = "none"
		if len(c.Qualifications) > 0 {
			sum.Qualifications = summarize(c.Qualifications)
		}
	}
	return sum
}

func summarize(steps []Step) string {
	texts := make([]string, len(steps))
	for i, s := range steps {
		texts[i] = s.summary()
	}
	return strings.Join(texts, ", then ")
}

func (s Step) summary() string {
	text := s.answerSummary()
	if s.Latency > 0 {
		text += " after " + s.Latency.String()
	}
	switch {
	case s.For > 0:
		text += " for " + s.For.String()
	case s.Times == 1:
		text += " once"
	case s.Times > 1:
		text += fmt.Sprintf(" %d times", s.Times)
	}
	return text
}

func (s Step) answerSummary() string {
	text := "none"
	switch {
	case s.Status != "":
		text = s.Status
	case s.Raw != nil:
		text = fmt.Sprintf("HTTP %d", s.Raw.Status)
	case len(s.Items) > 0:
		items := make([]string, len(s.Items))
		for i, q := range s.Items {
			items[i] = strings.TrimSpace(q.Qualification + " " + q.VettingStatus)
		}
		text = strings.Join(items, " + ")
	case s.Items == nil:
		return s.Failure
	}
	if s.Failure != "" {
		text += " (" + s.Failure + ")"
	}
	return text
}
