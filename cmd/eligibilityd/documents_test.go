package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const root = "../.."

// documents returns the text of every Markdown file of the project, by its path from
// the root.
func documents(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	walk(t, ".md", func(path, text string) { found[path] = text })
	if len(found) < 40 {
		t.Fatalf("%d documents", len(found))
	}
	return found
}

// walk calls visit for every file of the project whose name ends with suffix.
func walk(t *testing.T, suffix string, visit func(path, text string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch name := entry.Name(); {
		case err != nil:
			return err
		case entry.IsDir() && (name == "node_modules" || name == "bin" || strings.HasPrefix(name, ".") && name != ".."):
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(name, suffix):
			return nil
		}
		path, err = filepath.Rel(root, path)
		if err == nil {
			visit(filepath.ToSlash(path), string(readFile(t, filepath.Join(root, path))))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

var (
	fenced = regexp.MustCompile("(?ms)^ *```[^\n]*\n.*?^ *```$\n?") //nolint:gocritic // by lines
	inline = regexp.MustCompile("`[^`\n]*`")
	link   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
)

// linksOf returns the relative links of a document, those in code apart.
func linksOf(text string) []string {
	var links []string
	text = inline.ReplaceAllString(fenced.ReplaceAllString(text, ""), "")
	for _, found := range link.FindAllStringSubmatch(text, -1) {
		if !strings.Contains(found[1], "://") {
			links = append(links, found[1])
		}
	}
	return links
}

// anchorsOf returns the anchors of a document's headings by the rules of GitHub: a
// heading that occurs again gets a number.
func anchorsOf(text string) map[string]bool {
	anchors, times := map[string]bool{}, map[string]int{}
	for line := range strings.SplitSeq(fenced.ReplaceAllString(text, ""), "\n") {
		heading := strings.TrimLeft(line, "#")
		if heading == line || !strings.HasPrefix(heading, " ") {
			continue
		}
		heading = link.ReplaceAllString(heading, "]")
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			default:
				return -1
			}
		}, strings.TrimSpace(heading))
		if n := times[anchor]; n > 0 {
			anchors[anchor+"-"+strconv.Itoa(n)] = true
		} else {
			anchors[anchor] = true
		}
		times[anchor]++
	}
	return anchors
}

// Every relative link between documents leads to a file, and to a heading if it has an
// anchor; every document can be reached from the README.
func TestLinksBetweenDocumentsLeadSomewhere(t *testing.T) {
	t.Parallel()
	texts := documents(t)
	leads := map[string][]string{}
	for path, text := range texts {
		for _, to := range linksOf(text) {
			target, anchor, _ := strings.Cut(to, "#")
			file := path
			if target != "" {
				file = filepath.ToSlash(filepath.Join(filepath.Dir(path), target))
			}
			if info, err := os.Stat(filepath.Join(root, file)); err != nil {
				t.Errorf("%s links to %s, which does not exist", path, to)
				continue
			} else if info.IsDir() {
				file += "/README.md"
			}
			leads[path] = append(leads[path], file)
			if other, isDocument := texts[file]; isDocument && anchor != "" && !anchorsOf(other)[anchor] {
				t.Errorf("%s links to %s, which has no such heading", path, to)
			}
		}
	}
	reached, next := map[string]bool{"README.md": true}, []string{"README.md"}
	for len(next) > 0 {
		path := next[0]
		next = next[1:]
		for _, to := range leads[path] {
			if !reached[to] {
				reached[to], next = true, append(next, to)
			}
		}
	}
	for path := range texts {
		if !reached[path] {
			t.Errorf("no link leads from README.md to %s", path)
		}
	}
}

// The index lists each document of docs once, but for the decisions, which have an
// index of their own.
func TestTheIndexListsEachDocumentOnce(t *testing.T) {
	t.Parallel()
	texts := documents(t)
	listed := map[string]int{}
	for _, to := range linksOf(texts["docs/README.md"]) {
		listed[filepath.ToSlash(filepath.Join("docs", to))]++
	}
	for path := range texts {
		if !strings.HasPrefix(path, "docs/") || path == "docs/README.md" || strings.HasPrefix(path, "docs/adr/") && path != "docs/adr/README.md" {
			continue
		}
		if n := listed[path]; n != 1 {
			t.Errorf("docs/README.md lists %s %d times", path, n)
		}
	}
	for path, n := range listed {
		if n > 1 {
			t.Errorf("docs/README.md lists %s %d times", path, n)
		}
	}
}

// Every test that a document names exists.
func TestDocumentsNameTestsThatExist(t *testing.T) {
	t.Parallel()
	exists := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example|Benchmark)\w+)\(`)
	walk(t, "_test.go", func(_, text string) {
		for _, found := range declared.FindAllStringSubmatch(text, -1) {
			exists[found[1]] = true
		}
	})
	named := regexp.MustCompile("`((?:Test|Fuzz|Example|Benchmark)[A-Z]\\w+)`")
	for path, text := range documents(t) {
		if path == "CONTRIBUTING.md" || path == "CHANGELOG.md" || strings.HasPrefix(path, "docs/adr/") { // examples of names, and the past
			continue
		}
		for _, found := range named.FindAllStringSubmatch(text, -1) {
			if !exists[found[1]] {
				t.Errorf("%s names %s, which does not exist", path, found[1])
			}
		}
	}
}

// tableOf returns the rows of the tables of a document whose first column names
// something in code.
func tableOf(text string) map[string][]string {
	rows := map[string][]string{}
	for line := range strings.SplitSeq(text, "\n") {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		for name := range strings.SplitSeq(cells[0], ",") {
			name = strings.Trim(strings.TrimSpace(name), "`")
			if _, repeated := rows[name]; !repeated {
				rows[name] = cells
			}
		}
	}
	return rows
}

// The tables for checkout teams have every reason and every error, with the remedy and
// the retries of the code. None of the texts for customers sends them to Microsoft.
func TestTheTablesForCallersAreComplete(t *testing.T) {
	t.Parallel()
	texts := documents(t)
	_, text, _ := strings.Cut(texts["docs/integrate.md"], "\n## 5 ")
	show, text, _ := strings.Cut(text, "\n## 6 ")
	_, text, _ = strings.Cut(text, "\n## 7 ")
	failures, _, _ := strings.Cut(text, "\n## 8 ")

	allowing := map[eligibility.ReasonCode]bool{
		eligibility.ReasonAccountAllowed: true, eligibility.ReasonAccountHasNoStatus: true,
		eligibility.ReasonAccountReviewExempt: true, eligibility.ReasonQualificationApproved: true,
	}
	remedies := map[eligibility.Remedy]string{
		eligibility.RemedyNone: "NONE", eligibility.RemedyWait: "WAIT", eligibility.RemedyUpdateCustomer: "UPDATE_CUSTOMER",
		eligibility.RemedyRequestQualification: "REQUEST_QUALIFICATION", eligibility.RemedyContactSupport: "CONTACT_SUPPORT",
	}
	toMicrosoft := regexp.MustCompile(`(?i)(contact|ask|call|ticket|support)[^.]*microsoft|microsoft[^.]*support`)
	rows, support := tableOf(show), tableOf(texts["docs/support.md"])
	for code := eligibility.ReasonAccountAllowed; code <= eligibility.ReasonUndecidable; code++ {
		row := rows[code.String()]
		if len(row) != 4 {
			t.Errorf("integrate.md: %s has the row %q", code, row)
			continue
		}
		if want := remedies[eligibility.Reason{Code: code, Blocks: !allowing[code]}.Remedy()]; row[1] != "`"+want+"`" {
			t.Errorf("integrate.md: %s has the remedy %s, want %s", code, row[1], want)
		}
		if toMicrosoft.MatchString(row[2]) {
			t.Errorf("integrate.md: %s sends the customer to Microsoft: %s", code, row[2])
		}
		if len(support[code.String()]) == 0 && !allowing[code] {
			t.Errorf("support.md lacks %s", code)
		}
	}

	rows = tableOf(failures)
	for _, reason := range []string{"PATH_NOT_FOUND", "METHOD_NOT_ALLOWED", "UNSUPPORTED_MEDIA_TYPE"} {
		if len(rows[reason]) == 0 {
			t.Errorf("integrate.md lacks %s", reason)
		}
	}
	for _, kind := range eligibility.Kinds() {
		fault := api.FaultOf(kind)
		row := rows[fault.Reason]
		if len(row) != 5 {
			t.Errorf("integrate.md: %s has the row %q", fault.Reason, row)
			continue
		}
		if fault.Retry && strings.Contains(row[1], "never") || !fault.Retry && strings.Contains(row[1], "RetryInfo") {
			t.Errorf("integrate.md: %s, RetryInfo %t: retry %q", fault.Reason, fault.Retry, row[1])
		}
		if toMicrosoft.MatchString(row[3]) {
			t.Errorf("integrate.md: %s sends the customer to Microsoft: %s", fault.Reason, row[3])
		}
	}
}
