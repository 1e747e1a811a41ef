package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
)

// Every selector in deploy/alerts.yaml selects something: the
// metric exists, and so does a series for each label value that is named.
func TestAlertsSelectSeriesThatExist(t *testing.T) {
	t.Parallel()
	rules, err := os.ReadFile("../../deploy/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p := startDev(t)
	get(t, "http://"+p.HTTP+"/v1/customers/"+allowedID+"/eligibility")
	_, _, scraped := get(t, "http://"+p.Admin+"/metrics")
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	guarded, ca, _ := startGuarded(t, "ELIGIBILITY_CACHE__REDIS__ADDRESSES="+cachetest.StartRedis(t).Address, "ELIGIBILITY_WEBHOOKS=[{name: orders, url: 'http://127.0.0.1:9', secret_file: "+secret+"}]")
	runCommand(t, "", "check", "--address", guarded.GRPC, "--ca-file", ca, allowedID) // without credentials
	_, _, more := get(t, "http://"+guarded.Admin+"/metrics")
	for deadline := time.Now().Add(patience); !strings.Contains(more, "eligibility_webhook_lag_seconds{") && time.Now().Before(deadline); { // until it sends
		_, _, more = get(t, "http://"+guarded.Admin+"/metrics")
	}
	scraped += more
	selector := regexp.MustCompile(`(eligibility_[a-z_]+)(?:\{([^}]*)\})?`)
	matcher := regexp.MustCompile(`^([a-z_]+)(=~|=)"([^"]*)"$`)
	alerts := 0
	for line := range strings.SplitSeq(string(rules), "\n") {
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
