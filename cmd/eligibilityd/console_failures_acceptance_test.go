//go:build acceptance

package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
)

// failureBound is how long a page may need while something that it is about hangs.
const failureBound = 5 * time.Second

// halfFailure is something that fails while the console is used.
type halfFailure struct {
	name   string
	begin  func()
	end    func()
	states []failedPage
}

// failedPage is a page during a half-failure.
type failedPage struct {
	path  string
	click string   // what is clicked there; empty if nothing is
	want  []string // any of them
}

// While Redis hangs, Partner Center is away, or the decision log is gone, each page answers
// within a bound and reports it. The same holds for the sign-in while the provider is slow,
// or fails.
func TestAcceptanceConsoleHalfFailures(t *testing.T) {
	s := startConsoleServe(t)
	v := startVisitor(t, s.base)
	s.far.put(t, flipping(blockedByMicrosoft, "NotAllowed", 0))
	s.far.put(t, flipping(workedBefore, "UnderReview", 0))
	s.signIn(t, v, "/console/customers/"+blockedByMicrosoft, everyRight)
	v.click(t, "Ask Microsoft now")
	v.open(s.base + "/console/customers/" + workedBefore)
	v.click(t, "Ask Microsoft now")
	const customer = "/console/customers/" + blockedByMicrosoft
	moved := filepath.Dir(s.records) + "-away"
	failures := []halfFailure{
		{"Redis hangs", s.redis.Stall, s.redis.Resume, []failedPage{
			{customer, "", []string{"could not be read"}},
			{"/console/reviews", "", []string{"could not be read", "cannot be read", "not available"}},
			{"/console/fleet", "", []string{"our Redis does not work", "our Redis works in part", "Redis is out of reach", "refuses writes"}},
			{customer + "/asked", "", []string{everyRight}},
			{customer, "Ask Microsoft now", []string{"Microsoft was asked. Its answer is below.", "Microsoft was asked, and has not answered all of it"}},
		}},
		{"Partner Center is away", s.between.cut, s.between.mend, []failedPage{
			{customer, "", []string{"May not buy"}},
			{customer, "Ask Microsoft now", []string{"Microsoft was asked, and did not answer", "Microsoft was asked, and has not answered all of it", "Microsoft has not answered yet"}},
			{"/console/fleet", "", []string{"It is Microsoft or our network: "}},
			{"/console/reviews", "", []string{workedBefore}},
		}},
		{"the decision log is gone", func() { rename(t, filepath.Dir(s.records), moved) }, func() { rename(t, moved, filepath.Dir(s.records)) }, []failedPage{
			{customer + "/asked", "", []string{"could not be read", "cannot be read", "The files of this replica hold no record"}},
			{customer, "", []string{"May not buy"}},
			{"/console/fleet", "", []string{"accepts writes"}},
		}},
	}
	for _, failure := range failures {
		t.Run(strings.ReplaceAll(failure.name, " ", "-"), func(t *testing.T) {
			failure.begin()
			defer failure.end()
			for _, page := range failure.states {
				began := time.Now()
				v.open(s.base + page.path)
				if page.click != "" {
					began = time.Now()
					v.click(t, page.click)
				}
				took, text := time.Since(began), v.reads(t)
				if took > failureBound {
					t.Errorf("%s %s took %v", page.path, page.click, took)
				}
				if !containsAny(text, page.want) {
					t.Errorf("%s %s: none of %q in\n%s", page.path, page.click, page.want, text)
				}
				t.Logf("%s %s: %v", page.path, page.click, took.Round(time.Millisecond))
				name := strings.ReplaceAll(failure.name, " ", "-") + strings.ReplaceAll(strings.TrimPrefix(page.path, "/console"), "/", "-")
				if page.click != "" {
					name += "-asked"
				}
				v.show(consoleWidths[0], "light")
				v.check(t, name)
				v.keep(t, name+".png")
			}
		})
	}
	v.open(s.base + "/console")
	v.click(t, "Sign out")
	refusals := map[string]string{
		"fails": "You cannot sign in at the moment", "hangs": "You cannot sign in at the moment", "floods": "You cannot sign in at the moment",
		"lies": "You were not signed in",
	}
	for name, answer := range map[string]http.HandlerFunc{
		"fails": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "secret of the provider", http.StatusInternalServerError)
		},
		"hangs": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // or the server does not notice that the client has left
			<-r.Context().Done()
		},
		"lies": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"id_token":"e30.e30.e30"}`)) },
		"floods": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		},
	} {
		s.provider.Change(func(p *accesstest.Provider) { p.Token = answer })
		began := time.Now()
		s.signIn(t, v, "/console", everyRight)
		took, text := time.Since(began), v.reads(t)
		t.Logf("the provider %s: %v: %s", name, took.Round(time.Millisecond), text)
		if took > 3*failureBound || strings.Contains(text, "secret of the provider") || !strings.Contains(text, refusals[name]) {
			t.Errorf("the provider %s: after %v: %s", name, took, text)
		}
		if _, found := v.session(t); found {
			t.Errorf("the provider %s: somebody has signed in", name)
		}
		v.check(t, "provider-"+name)
		v.keep(t, "provider-"+name+".png")
	}
	s.provider.Change(func(p *accesstest.Provider) { p.Token = nil })
	s.signIn(t, v, customer, everyRight)
	if text := v.reads(t); !strings.Contains(text, "May not buy") {
		t.Errorf("after all failures: %s", text)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func containsAny(text string, wanted []string) bool {
	for _, one := range wanted {
		if strings.Contains(text, one) {
			return true
		}
	}
	return false
}
