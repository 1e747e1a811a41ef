package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// The operators' table of metrics and the metrics are the same set.
func TestDocumentedMetricsExist(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../deploy/README.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]bool)
	for line := range strings.SplitSeq(string(readme), "\n") {
		if !strings.HasPrefix(line, "| `eligibility_") {
			continue
		}
		for _, name := range regexp.MustCompile("`(eligibility_[a-z_]+)`").FindAllStringSubmatch(strings.SplitN(line, "|", 3)[1], -1) {
			documented[name[1]] = true
		}
	}
	p := startDev(t)
	get(t, "http://"+p.HTTP+"/v1/customers/"+allowedID+"/eligibility")
	_, _, scraped := get(t, "http://"+p.Admin+"/metrics")
	exported := make(map[string]bool)
	for _, name := range regexp.MustCompile(`(?m)^# TYPE (eligibility_\w+)`).FindAllStringSubmatch(scraped, -1) {
		exported[name[1]] = true
	}
	for name := range documented {
		if !exported[name] {
			t.Errorf("%s is documented and not exported", name)
		}
	}
	for name := range exported {
		if !documented[name] {
			t.Errorf("%s is exported and not documented", name)
		}
	}
}

// Every selector in the alerts of the operators' manual selects something: the
// metric exists, and so does a series for each label value that is named.
func TestAlertsSelectSeriesThatExist(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../deploy/README.md")
	if err != nil {
		t.Fatal(err)
	}
	p := startDev(t)
	get(t, "http://"+p.HTTP+"/v1/customers/"+allowedID+"/eligibility")
	_, _, scraped := get(t, "http://"+p.Admin+"/metrics")
	selector := regexp.MustCompile(`(eligibility_[a-z_]+)(?:\{([^}]*)\})?`)
	matcher := regexp.MustCompile(`^([a-z_]+)(=~|=)"([^"]*)"$`)
	alerts := 0
	for line := range strings.SplitSeq(string(readme), "\n") {
		expression, isExpression := strings.CutPrefix(strings.TrimSpace(line), "expr: ")
		if !isExpression {
			continue
		}
		alerts++
		for _, found := range selector.FindAllStringSubmatch(expression, -1) {
			name, matchers := found[1], found[2]
			if !strings.Contains(scraped, "\n"+name+"{") && !strings.Contains(scraped, "\n"+name+" ") {
				t.Errorf("%s: no metric %s", expression, name)
			}
			if matchers == "" {
				continue
			}
			for one := range strings.SplitSeq(matchers, ",") {
				parts := matcher.FindStringSubmatch(one)
				if parts == nil {
					t.Errorf("%s: cannot read the matcher %s", expression, one)
					continue
				}
				for value := range strings.SplitSeq(parts[3], "|") {
					series := regexp.MustCompile(`(?m)^` + name + `\{[^}]*\b` + parts[1] + `="` + value + `"`)
					if !series.MatchString(scraped) {
						t.Errorf("%s: no series of %s has %s=%q", expression, name, parts[1], value)
					}
				}
			}
		}
	}
	if alerts < 9 {
		t.Errorf("%d alerts found", alerts)
	}
}
