package rest_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/server/servertest"
)

func TestTheDocumentationComesFromTheBinary(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{})
	for _, path := range []string{"/docs", "/docs/"} {
		page := run.Do(t, http.MethodGet, run.REST+path, "")
		if page.StatusCode != http.StatusOK || !strings.HasPrefix(page.Header.Get("Content-Type"), "text/html") {
			t.Fatalf("%s: %d %v", path, page.StatusCode, page.Header)
		}
		if found := regexp.MustCompile(`(src|href|action)="(https?:)?//[^"]*"`).FindAllString(string(page.Body), -1); found != nil {
			t.Errorf("%s loads from other hosts: %q", path, found)
		}
		assets := regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(string(page.Body), -1)
		if len(assets) != 4 {
			t.Errorf("%s names assets %q", path, assets)
		}
		for _, asset := range assets {
			got := run.Do(t, http.MethodGet, run.REST+asset[1], "")
			if got.StatusCode != http.StatusOK || len(got.Body) == 0 {
				t.Errorf("%s: %s: %d", path, asset[1], got.StatusCode)
			}
		}
		if strings.Contains(page.Header.Get("Content-Security-Policy"), "http") ||
			!strings.Contains(page.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: policy %q", path, page.Header.Get("Content-Security-Policy"))
		}
	}
	root := run.Do(t, http.MethodGet, run.REST+"/", "")
	if root.StatusCode != http.StatusFound || root.Header.Get("Location") != "/docs" {
		t.Errorf("/: %d %v", root.StatusCode, root.Header)
	}
}

func TestTheOpenAPIDocumentDescribesTheAPI(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{})
	got := run.Do(t, http.MethodGet, run.REST+"/openapi.json", "")
	if got.StatusCode != http.StatusOK || got.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %v", got.StatusCode, got.Header)
	}
	paths, _ := got.JSON(t)["paths"].(map[string]any)
	if len(paths) != 6 {
		t.Errorf("paths %v", paths)
	}
	tag := got.Header.Get("Etag")
	again := run.Do(t, http.MethodGet, run.REST+"/openapi.json", "", "If-None-Match", tag)
	if tag == "" || again.StatusCode != http.StatusNotModified {
		t.Errorf("ETag %q: %d", tag, again.StatusCode)
	}
}
