package console

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"
	"golang.org/x/net/html"

	"github.com/eligibilityd/eligibilityd/internal/access"
)

// newTestHandler returns a console without sign-in.
func newTestHandler(t *testing.T, cfg Config) *Handler {
	t.Helper()
	cfg.Logger = zap.NewNop()
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// rendering is a console that tests share that only render pages.
var rendering = sync.OnceValues(func() (*Handler, error) { return New(Config{Logger: zap.NewNop()}) })

func renderer(t *testing.T) *Handler {
	t.Helper()
	h, err := rendering()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// render returns a page of templates/ with data, parsed.
func render(t *testing.T, name string, data any) (*html.Node, string) {
	t.Helper()
	h := renderer(t)
	w := httptest.NewRecorder()
	h.page(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/console", nil), newFictiveUser(), http.StatusOK, name, data)
	source := w.Body.String()
	return parsePage(t, strings.NewReader(source)), source
}

// parsePage parses a page, and checks that it is well-formed and loads nothing but the
// console's own files.
func parsePage(t *testing.T, body io.Reader) *html.Node {
	t.Helper()
	page, err := html.Parse(body)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	var refers []string
	for n := range page.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		if id := attr(n, "id"); id != "" {
			if ids[id] {
				t.Errorf("two elements have the id %q", id)
			}
			ids[id] = true
		}
		for _, a := range n.Attr {
			switch {
			case a.Key == "style" || strings.HasPrefix(a.Key, "on"):
				t.Errorf("<%s> has %s=%q", n.Data, a.Key, a.Val)
			case a.Key == "for" || a.Key == "aria-labelledby" || a.Key == "aria-describedby":
				refers = append(refers, strings.Fields(a.Val)...)
			case a.Key == "href" && strings.HasPrefix(a.Val, "#"):
				refers = append(refers, a.Val[1:])
			case a.Key == "href" || a.Key == "src" || a.Key == "action" || a.Key == "data-events":
				if u, err := url.Parse(a.Val); err != nil || u.Host != "" || u.Scheme != "" || u.Path != "/console" && !strings.HasPrefix(u.Path, "/console/") {
					t.Errorf("<%s> has %s=%q", n.Data, a.Key, a.Val)
				}
			}
		}
		switch n.Data {
		case "script":
			if attr(n, "src") != "/console/script.js" || n.FirstChild != nil {
				t.Errorf("a script: %v", n.Attr)
			}
		case "style", "iframe", "img", "object", "embed", "base":
			t.Errorf("a <%s>", n.Data)
		}
	}
	for _, id := range refers {
		if !ids[id] {
			t.Errorf("nothing has the id %q", id)
		}
	}
	return page
}

func attr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func hasAttr(n *html.Node, key string) bool {
	return slices.ContainsFunc(n.Attr, func(a html.Attribute) bool { return a.Key == key })
}

// all returns the elements that a function selects.
func all(page *html.Node, is func(n *html.Node) bool) (found []*html.Node) {
	for n := range page.Descendants() {
		if n.Type == html.ElementNode && is(n) {
			found = append(found, n)
		}
	}
	return found
}

func withClass(class string) func(n *html.Node) bool {
	return func(n *html.Node) bool { return slices.Contains(strings.Fields(attr(n, "class")), class) }
}

func element(name string) func(n *html.Node) bool {
	return func(n *html.Node) bool { return n.Data == name }
}

// textOf is the text of an element, with one blank for each run of white space.
func textOf(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// mainOf is the text of a page's content.
func mainOf(page *html.Node) string { return textOf(all(page, element("main"))[0]) }

// as returns a user with rights.
func as(rights access.Rights, partners ...string) *user {
	return &user{caller: &access.Caller{Name: callerName, Person: "someone", Rights: rights, Partners: partners}, csrf: newCSRF()}
}

func TestAssets(t *testing.T) {
	t.Parallel()
	h := newTestHandler(t, Config{})
	for name, media := range map[string]string{"style.css": "text/css; charset=utf-8", "script.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml"} {
		w := httptest.NewRecorder()
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/console/"+name, nil)
		h.ServeHTTP(w, req)
		tag := w.Header().Get("Etag")
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != media || tag == "" || w.Header().Get("Cache-Control") != "no-cache" || w.Body.Len() == 0 {
			t.Errorf("%s: %d, %v", name, w.Code, w.Header())
		}
		if body := w.Body.String(); strings.Contains(strings.ReplaceAll(body, "http://www.w3.org/2000/svg", ""), "://") {
			t.Errorf("%s names another host", name)
		}
		w, req.Header = httptest.NewRecorder(), http.Header{"If-None-Match": {tag}}
		h.ServeHTTP(w, req)
		if w.Code != http.StatusNotModified || w.Body.Len() != 0 {
			t.Errorf("%s: %d again", name, w.Code)
		}
	}
}
