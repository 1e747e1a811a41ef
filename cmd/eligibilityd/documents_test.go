package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestLinksBetweenDocumentsLeadSomewhere(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && entry.Name() != ".." {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".md" {
			return nil
		}
		text, err := os.ReadFile(path) //nolint:gosec // one of our own documents
		if err != nil {
			return err
		}
		for _, found := range link.FindAllStringSubmatch(string(text), -1) {
			target, anchor, _ := strings.Cut(found[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			to := path
			if target != "" {
				to = filepath.Join(filepath.Dir(path), target)
			}
			if _, err := os.Stat(to); err != nil { //nolint:gosec // named by one of our own documents
				t.Errorf("%s links to %s, which does not exist", path, found[1])
			} else if anchor != "" && filepath.Ext(to) == ".md" && !hasHeading(t, to, anchor) {
				t.Errorf("%s links to %s, which has no such heading", path, found[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// hasHeading reports whether a document has a heading with this anchor, by the
// rules of GitHub for headings of ASCII text.
func hasHeading(t *testing.T, path, anchor string) bool {
	t.Helper()
	text, err := os.ReadFile(path) //nolint:gosec // one of our own documents
	if err != nil {
		t.Fatal(err)
	}
	dropped := regexp.MustCompile(`[^a-z0-9 _-]`)
	for line := range strings.SplitSeq(string(text), "\n") {
		heading := strings.TrimLeft(line, "#")
		if heading == line {
			continue
		}
		if strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(strings.TrimSpace(heading)), ""), " ", "-") == anchor {
			return true
		}
	}
	return false
}
