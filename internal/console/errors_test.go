package console

import (
	"net/http"
	"strings"
	"testing"

	"go.uber.org/zap"
)

func TestPagesThatDoNotExist(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.browser(t)
	for name, row := range map[string]struct {
		method, path  string
		status        int
		allow, leadTo string
	}{
		"nothing":          {http.MethodGet, "/console/nothing", http.StatusNotFound, "", ""},
		"below a page":     {http.MethodGet, "/console/test/x", http.StatusNotFound, "", ""},
		"hostile":          {http.MethodGet, "/console/%3Cscript%3Ealert(1)%3C/script%3E", http.StatusNotFound, "", ""},
		"by another way":   {http.MethodDelete, "/console/test", http.StatusMethodNotAllowed, "GET, HEAD, POST", ""},
		"a form by a link": {http.MethodGet, "/console/sign-out", http.StatusMethodNotAllowed, "POST", ""},
		"a slash too many": {http.MethodGet, "/console/test/?x=/", http.StatusSeeOther, "", "/console/test?x=/"},
		"two slashes":      {http.MethodGet, "/console//", http.StatusSeeOther, "", "/console"},
	} {
		got := b.send(row.method, row.path, nil)
		if got.status != row.status || got.header.Get("Allow") != row.allow || got.location != row.leadTo {
			t.Errorf("%s: %d %q %q", name, got.status, got.header.Get("Allow"), got.location)
		}
		if row.leadTo == "" && (!strings.Contains(got.body, "<main") || strings.Contains(got.body, "<script>")) {
			t.Errorf("%s: %s", name, got.body)
		}
	}
}

func TestEveryResponseHasTheHeadersOfSafety(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.browser(t)
	for range 2 {
		for _, path := range []string{"/console", "/console/sign-in", "/console/callback", "/console/signed-out", "/console/nothing", "/console/panic", "/console/test", "/console/events"} {
			got := b.get(path)
			for name, want := range map[string]string{
				"Content-Security-Policy": policy, "Referrer-Policy": "same-origin", "X-Content-Type-Options": "nosniff",
				"Cache-Control": "no-store", "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
			} {
				if have := got.header.Get(name); have != want && !(path == "/console/events" && name == "Cache-Control") {
					t.Errorf("%s: %s: %q", path, name, have)
				}
			}
			if strings.Contains(got.body, "style=") || strings.Contains(got.body, "onclick") || strings.Contains(got.body, "<style") {
				t.Errorf("%s: %s", path, got.body)
			}
		}
		b.signIn(anna)
	}
}

func TestAPanicIsAPage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.browser(t)
	got := b.get("/console/panic")
	if got.status != http.StatusInternalServerError || strings.Contains(got.body, "canary") || !strings.Contains(got.body, "<main") {
		t.Errorf("%d %s", got.status, got.body)
	}
	if logged := s.logs.FilterMessage("page panicked").FilterField(zap.String("panic", "canary of a panic")); logged.Len() != 1 {
		t.Errorf("%v", s.logs.All())
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/console/panic?late", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := b.client.Do(request); err == nil {
		_ = resp.Body.Close()
		if resp.ContentLength >= 0 {
			t.Errorf("a response that was cut off looks complete: %d, %d bytes", resp.StatusCode, resp.ContentLength)
		}
	}
}

// Without sign-in, as in dev, there is one user, and forms are protected all the same.
func TestWithoutSignIn(t *testing.T) {
	t.Parallel()
	h, err := New(Config{Logger: zap.NewNop(), Version: "dev"})
	if err != nil {
		t.Fatal(err)
	}
	s := &gatedSite{Handler: h}
	s.addPages()
	s.serve(t)
	b := s.browser(t)
	page := b.get("/console/test")
	if page.status != http.StatusOK || !strings.Contains(page.body, "developer") {
		t.Errorf("%d %s", page.status, page.body)
	}
	if got := b.send(http.MethodPost, "/console/test", map[string][]string{"text": {"x"}}); got.status != http.StatusForbidden || s.posted.Load() != 0 {
		t.Errorf("%d", got.status)
	}
	if got := b.send(http.MethodPost, "/console/test", map[string][]string{"csrf": {page.csrf(t)}}); got.status != http.StatusOK {
		t.Errorf("%d", got.status)
	}
	for path, want := range map[string]string{"/console/sign-in?to=/console/fleet": "/console/fleet", "/console/callback?code=x": "/console"} {
		if got := b.get(path); got.location != want {
			t.Errorf("%s: %d %s", path, got.status, got.location)
		}
	}
	if got := b.get("/console/signed-out"); got.status != http.StatusOK {
		t.Errorf("%d %s", got.status, got.body)
	}
}
