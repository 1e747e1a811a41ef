package server_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// corpusCase is one case of testdata: what Partner Center returns, what is asked,
// and what the API answers. Each runs over gRPC and over REST against the whole
// service, on real sockets, with the simulator as Partner Center.
type corpusCase struct {
	Name string
	// Only is the one transport on which the case makes sense; empty is both.
	Only string

	// Account and Qualifications are what the two resources answer, Token the
	// login host: an Allowed account without qualifications, and tokens, if
	// a case has nothing else.
	Account        steps
	Qualifications steps
	Token          steps
	// Partners are what the account resource answers each partner, by name, and
	// DefaultPartner is who is meant by a request that names none. If a case has
	// none, the service answers for one partner, "default".
	Partners       map[string]steps
	DefaultPartner string `yaml:"default_partner"`

	// The settings of the service, as the configuration names them.
	Policy struct {
		NotReady            string        `yaml:"not_ready"`
		UnderReview         string        `yaml:"under_review"`
		WhenUndecidable     string        `yaml:"when_undecidable"`
		QualificationsGrace time.Duration `yaml:"qualifications_grace"`
	}
	Flow            string
	BudgetPerMinute int `yaml:"budget_per_minute"`

	// Warm asks the same before, without ages, and ignores the answer.
	Warm bool
	// Busy lets the service answer one call at a time, and has one in progress.
	Busy bool

	// Request is asked alone, Batch in a batch; Oversized asks one question
	// more than a batch may hold.
	Request   question
	Batch     *[]question
	Oversized bool
	Deadline  time.Duration

	Want want
}

// question is a request in the words of REST, empty members left out. Without a
// customer_id it is about the case's customer. A min_evidence_time of "now" is
// the time of the call.
type question struct {
	CustomerID      string `yaml:"customer_id"`
	Segment         string
	Partner         string
	Operation       string
	MaxAge          string `yaml:"max_age"`
	MinEvidenceTime string `yaml:"min_evidence_time"`
}

// want is the answer. One with a decision or results is OK and 200. The account is Allowed
// and the evidence Partner Center's if nothing else is given.
type want struct {
	GRPC string
	HTTP int

	Error      string        // reason of the ErrorInfo
	Retry      bool          // there is a RetryInfo, and a Retry-After
	RetryAfter time.Duration `yaml:"retry_after"` // in it, rounded up to seconds; 0 is not looked at
	Jitter     bool          // RetryAfter is up to a tenth longer
	Fields     []string      // of the violations

	Decision              string
	Reasons               []reason
	AccountStatus         string `yaml:"account_status"`
	AccountStatusText     string `yaml:"account_status_text"`
	Qualifications        []qualification
	QualificationsUnknown bool `yaml:"qualifications_unknown"`
	Source                string
	Stale                 bool

	Results []result
}

type reason struct {
	Code      string
	Temporary bool
	Remedy    string // NONE if empty
}

type qualification struct {
	Type               string
	TypeText           string `yaml:"type_text"`
	VettingStatus      string `yaml:"vetting_status"`
	VettingStatusText  string `yaml:"vetting_status_text"`
	VettingReason      string `yaml:"vetting_reason"`
	VettingCreatedTime string `yaml:"vetting_created_time"`
}

// result is what a batch returns for one item.
type result struct {
	GRPC       string
	Error      string
	Retry      bool
	RetryAfter time.Duration `yaml:"retry_after"`
	Decision   string
	Reasons    []reason
}

// withDefaults fills in what the type's comment leaves out.
func (w want) withDefaults() want {
	if w.Decision != "" || len(w.Results) > 0 {
		w.GRPC, w.HTTP = "OK", 200
	}
	if w.Decision == "" {
		return w
	}
	if w.AccountStatus == "" {
		w.AccountStatus, w.AccountStatusText = "ALLOWED", "Allowed"
	}
	if w.Source == "" {
		w.Source = "PARTNER_CENTER"
	}
	return w
}

// steps is one answer or a list of them; each but the last is given `times`.
type steps []step

// step is one raw answer, or a failure of the connection (see pcsim.Step).
type step struct {
	Status   int
	Headers  map[string]string
	Body     string
	PadBytes int `yaml:"pad_bytes"` // so many x are added to the body
	Failure  string
	Times    int
}

// UnmarshalYAML reads one mapping, or a list of them.
func (s *steps) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.MappingNode {
		*s = steps{{}}
		return node.Decode(&(*s)[0])
	}
	return node.Decode((*[]step)(s))
}

// script is the steps as the simulator plays them; other if there are none.
func (s steps) script(other ...pcsim.Step) []pcsim.Step {
	if len(s) == 0 {
		return other
	}
	var script []pcsim.Step
	for _, step := range s {
		played := pcsim.Step{Failure: step.Failure, Times: step.Times}
		if step.Status != 0 {
			played.Raw = &pcsim.Raw{
				Status: step.Status, Headers: step.Headers, Body: step.Body + strings.Repeat("x", step.PadBytes),
			}
		}
		script = append(script, played)
	}
	return script
}

// corpus reads every case of testdata.
func corpus(t *testing.T) []corpusCase {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("corpus: %d files, %v", len(files), err)
	}
	var cases []corpusCase
	for _, name := range files {
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		decoder := yaml.NewDecoder(file)
		decoder.KnownFields(true)
		var read []corpusCase
		err = decoder.Decode(&read)
		_ = file.Close()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i := range read {
			read[i].Name = strings.TrimSuffix(filepath.Base(name), ".yaml") + "/" + read[i].Name
		}
		cases = append(cases, read...)
	}
	return cases
}

// TestCorpus asks what the corpus asks, over each transport.
func TestCorpus(t *testing.T) {
	t.Parallel()
	for _, c := range corpus(t) {
		for _, transport := range []string{"grpc", "rest"} {
			if c.Only != "" && c.Only != transport {
				continue
			}
			t.Run(c.Name+"/"+transport, func(t *testing.T) {
				t.Parallel()
				stack := newStack(t, &c)
				ask := stack.overGRPC
				if transport == "rest" {
					ask = stack.overREST
				}
				if c.Warm {
					ask(t, &corpusCase{Request: question{CustomerID: c.Request.CustomerID, Segment: c.Request.Segment}})
				}
				seen, expected := ask(t, &c), c.Want.withDefaults()
				blur(&seen, &expected, transport)
				if seen.QualificationsUnknown {
					// A decision that does not need them does not wait for a fetch that a busy machine has not started.
					seen.QualificationsUnknown, seen.Qualifications = expected.QualificationsUnknown, expected.Qualifications
				}
				if diff := cmp.Diff(expected, seen); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		}
	}
}

// blur drops from what was seen that which the case does not ask for.
func blur(seen, expected *want, transport string) {
	if expected.RetryAfter == 0 {
		seen.RetryAfter = 0
	}
	seen.Jitter = expected.Jitter
	if longest := (expected.RetryAfter*11/10 + time.Second - 1).Truncate(time.Second); expected.Jitter && seen.RetryAfter >= expected.RetryAfter && seen.RetryAfter <= longest {
		seen.RetryAfter = expected.RetryAfter
	}
	if transport == "grpc" {
		seen.HTTP = expected.HTTP
		if seen.GRPC == "DEADLINE_EXCEEDED" {
			seen.Error = expected.Error // the client may have made it itself
		}
	}
	for i := range seen.Results {
		if i < len(expected.Results) && expected.Results[i].RetryAfter == 0 {
			seen.Results[i].RetryAfter = 0
		}
	}
}

// TestTheCorpusIsComplete wants every reason and every error of the API in it.
func TestTheCorpusIsComplete(t *testing.T) {
	t.Parallel()
	var seen []string
	for _, c := range corpus(t) {
		seen = append(seen, c.Want.Error)
		for _, reason := range c.Want.Reasons {
			seen = append(seen, reason.Code)
		}
	}
	for _, word := range allWords() {
		if !slices.Contains(seen, word) {
			t.Errorf("no case is about %s", word)
		}
	}
}
