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
