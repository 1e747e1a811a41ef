package main

import (
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// visitor is somebody who uses the console.
type visitor interface {
	// start opens the start page.
	start(t *testing.T)
	// paste pastes text into the search field and presses Enter.
	paste(t *testing.T, text string)
	// click clicks the link, button or summary that is named so, or whose name begins so.
	click(t *testing.T, name string)
	// reads returns the text that the page shows, with single spaces.
	reads(t *testing.T) string
}

// httpVisitor is a visitor whose browser has no script: it follows links, and sends forms.
type httpVisitor struct {
	client *http.Client
	base   string // scheme and host

	at     *url.URL
	status int
	header http.Header
	body   string
	page   *html.Node
}

// newHTTPVisitor needs the root of the REST listener. Its requests use transport.
func newHTTPVisitor(t *testing.T, base string, transport http.RoundTripper) *httpVisitor {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &httpVisitor{client: &http.Client{Jar: jar, Transport: transport, Timeout: patience}, base: base}
}

func (v *httpVisitor) start(t *testing.T) {
	t.Helper()
	v.open(t, "/console")
}

// open loads a page of the site.
func (v *httpVisitor) open(t *testing.T, path string) {
	t.Helper()
	v.send(t, http.MethodGet, v.base+path, nil)
}

func (v *httpVisitor) send(t *testing.T, method, address string, form url.Values) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", v.base)
	}
	resp, err := v.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	page, err := html.Parse(strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	v.at, v.status, v.header, v.body, v.page = resp.Request.URL, resp.StatusCode, resp.Header, string(text), page
}

func (v *httpVisitor) paste(t *testing.T, text string) {
	t.Helper()
	for form := range elements(v.page, "form") {
		for input := range elements(form, "input") {
			if attribute(input, "name") == "q" {
				v.submit(t, form, nil, text)
				return
			}
		}
	}
	t.Fatalf("no search field on %s:\n%s", v.at, v.body)
}

// submit sends a form by one of its buttons, if any, with text in its search field.
func (v *httpVisitor) submit(t *testing.T, form, button *html.Node, text string) {
	t.Helper()
	values := url.Values{}
	for input := range elements(form, "input") {
		name, value := attribute(input, "name"), attribute(input, "value")
		if name == "q" {
			value = text
		}
		if name != "" && (attribute(input, "type") != "checkbox" || slices.ContainsFunc(input.Attr, func(a html.Attribute) bool { return a.Key == "checked" })) {
			values.Set(name, value)
		}
	}
	if button != nil && attribute(button, "name") != "" {
		values.Set(attribute(button, "name"), attribute(button, "value"))
	}
	to, err := v.at.Parse(attribute(form, "action"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.EqualFold(attribute(form, "method"), "post") {
		v.send(t, http.MethodPost, to.String(), values)
		return
	}
	to.RawQuery = values.Encode()
	v.send(t, http.MethodGet, to.String(), nil)
}

func (v *httpVisitor) click(t *testing.T, name string) {
	t.Helper()
	n := v.named(name)
	if n == nil {
		t.Fatalf("nothing on %s is called %q:\n%s", v.at, name, v.reads(t))
	}
	switch n.Data {
	case "a":
		to, err := v.at.Parse(attribute(n, "href"))
		if err != nil {
			t.Fatal(err)
		}
		v.send(t, http.MethodGet, to.String(), nil)
	case "button":
		form := n.Parent
		for form != nil && form.Data != "form" {
			form = form.Parent
		}
		if form == nil {
			return // it needs script
		}
		v.submit(t, form, n, "")
	case "summary":
		n.Parent.Attr = append(n.Parent.Attr, html.Attribute{Key: "open"})
	}
}

// named returns the first link, button or summary of that name, or else whose name begins
// with it.
func (v *httpVisitor) named(name string) (found *html.Node) {
	for n := range v.page.Descendants() {
		if n.Type != html.ElementNode || !slices.Contains([]string{"a", "button", "summary"}, n.Data) {
			continue
		}
		switch text := shownText(n); {
		case strings.EqualFold(text, name):
			return n
		case found == nil && strings.HasPrefix(strings.ToLower(text), strings.ToLower(name)+" "):
			found = n
		}
	}
	return found
}

func (v *httpVisitor) reads(t *testing.T) string {
	t.Helper()
	return shownText(v.page)
}

// elements iterates over the elements of that kind below a node.
func elements(below *html.Node, kind string) func(yield func(*html.Node) bool) {
	return func(yield func(*html.Node) bool) {
		for n := range below.Descendants() {
			if n.Type == html.ElementNode && n.Data == kind && !yield(n) {
				return
			}
		}
	}
}

func attribute(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

// shownText is the text of an element with single spaces, without what is hidden.
func shownText(n *html.Node) string {
	var all strings.Builder
	addShownText(&all, n)
	return strings.Join(strings.Fields(all.String()), " ")
}

func addShownText(to *strings.Builder, n *html.Node) {
	has := func(key string) bool {
		return slices.ContainsFunc(n.Attr, func(a html.Attribute) bool { return a.Key == key })
	}
	switch {
	case n.Type == html.TextNode:
		to.WriteString(n.Data)
		return
	case n.Type == html.ElementNode && (n.Data == "head" || n.Data == "script" || n.Data == "style" || has("hidden")):
		return
	}
	inline := n.Type == html.ElementNode && slices.Contains([]string{"a", "abbr", "b", "bdi", "code", "em", "span", "strong", "time"}, n.Data)
	if !inline {
		to.WriteByte(' ')
	}
	for child := range n.ChildNodes() {
		if n.Data == "details" && !has("open") && child.Data != "summary" {
			continue
		}
		addShownText(to, child)
	}
	if !inline {
		to.WriteByte(' ')
	}
}
