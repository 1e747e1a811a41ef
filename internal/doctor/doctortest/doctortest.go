// Package doctortest checks reports of the doctor in tests.
package doctortest

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// Report is a report of the doctor, as JSON.
type Report struct {
	// Text is the whole report.
	Text string
	// Failed reports whether any check failed.
	Failed bool

	tb       testing.TB
	findings map[string]finding // check → its first finding
}

type finding struct {
	Check  string `json:"check"`
	Status string `json:"status"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy"`
}

// Read decodes a report and checks the rules for all reports: every finding has a
// detail, failures and warnings have a remedy, and no secret is in it.
func Read(tb testing.TB, text []byte) Report {
	tb.Helper()
	var findings []finding
	if err := json.Unmarshal(text, &findings); err != nil {
		tb.Fatalf("%v in %s", err, text)
	}
	r := Report{Text: string(text), tb: tb, findings: make(map[string]finding)}
	for _, f := range findings {
		if _, again := r.findings[f.Check]; !again {
			r.findings[f.Check] = f
		}
		r.Failed = r.Failed || f.Status == "failure"
		if hasRemedy := f.Remedy != ""; hasRemedy != (f.Status == "failure" || f.Status == "warning") || f.Detail == "" {
			tb.Errorf("%+v", f)
		}
	}
	if strings.Contains(r.Text, pcsim.DefaultClientSecret) || strings.Contains(r.Text, pcsim.DefaultRefreshToken) {
		tb.Errorf("a secret is in the report: %s", r.Text)
	}
	return r
}

// Checks returns how many checks the report has.
func (r Report) Checks() int { return len(r.findings) }

// Has reports whether check is in the report.
func (r Report) Has(check string) bool {
	_, ok := r.findings[check]
	return ok
}

// Want fails the test unless the check has this status, and its detail and remedy
// contain words.
func (r Report) Want(check, status string, words ...string) {
	r.tb.Helper()
	got := r.findings[check]
	if got.Status != status {
		r.tb.Errorf("%s: %+v, want %s", check, got, status)
	}
	for _, word := range words {
		if !strings.Contains(got.Detail+"; "+got.Remedy, word) {
			r.tb.Errorf("%s: %+v, want %q in it; all: %s", check, got, word, r.Text)
		}
	}
}
