package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
)

// Every metric, label and value that rules, dashboard, runbook and reference name is
// one that the program exports.
func TestEveryMetricThatOperatorsWatchExists(t *testing.T) {
	t.Parallel()
	have := scrapeAll(t)
	rules := readRules(t)
	alerts := map[string]map[string]bool{"alertname": {}, "alertstate": {"firing": true}, "severity": {}}
	for _, rule := range rules {
		if rule.Record != "" {
			have[rule.Record] = map[string]map[string]bool{}
		}
	}
	have["up"], have["ALERTS"] = map[string]map[string]bool{}, alerts // Prometheus's own
	labels := regexp.MustCompile(`\$labels\.(\w+)`)
	for _, rule := range rules {
		var used []string
		for _, text := range rule.Annotations {
			for _, label := range labels.FindAllStringSubmatch(text, -1) {
				used = append(used, label[1])
			}
		}
		have.check(t, "rule "+rule.Alert+rule.Record, rule.Expr, used...)
	}
	for _, rule := range deployedRules(t) {
		have.check(t, "chart, rule "+rule.Alert+rule.Record, rule.Expr)
	}

	panels, variables := readDashboard(t)
	legend := regexp.MustCompile(`\{\{(\w+)\}\}`)
	for _, p := range panels {
		for i, expr := range expressions([]panel{p}) {
			var used []string
			for _, label := range legend.FindAllStringSubmatch(p.Targets[i].LegendFormat, -1) {
				used = append(used, label[1])
			}
			have.check(t, "panel "+p.Title, expr, used...)
		}
	}
	for name, definition := range variables {
		if parts := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`).FindStringSubmatch(definition); parts != nil {
			have.check(t, "variable "+name, parts[1], parts[2])
		}
	}

	for name := range maps.Clone(have) { // prose names a histogram as a whole
		if base, ok := strings.CutSuffix(name, "_count"); ok {
			have[base] = have[name]
		}
	}
	code := regexp.MustCompile("`([^`]+)`")
	documents, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(documents) < 10 {
		t.Fatal(documents, err)
	}
	for _, path := range documents {
		for _, found := range code.FindAllStringSubmatch(string(readFile(t, path)), -1) {
			if selector.MatchString(found[1]) && !strings.Contains(found[1], "://") && found[1] != "up" {
				have.check(t, path, found[1])
			}
		}
	}

	row := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| ([^|]*) \\|")
	rows := row.FindAllStringSubmatch(string(readFile(t, "../../docs/reference/metrics.md")), -1)
	if len(rows) < 80 {
		t.Errorf("%d metrics in the reference", len(rows))
	}
	described := map[string]bool{}
	for _, parts := range rows {
		described[parts[1]] = true
		got, ok := have.labelsOf(parts[1])
		var want []string
		if parts[2] != "–" {
			want = strings.Split(parts[2], ", ")
		}
		slices.Sort(want)
		if !ok || !slices.Equal(got, want) {
			t.Errorf("reference: %s has %q, exported is %q (%t)", parts[1], want, got, ok)
		}
	}
	for name := range have {
		base := regexp.MustCompile(`_(count|sum|bucket)$`).ReplaceAllString(name, "")
		if strings.HasPrefix(name, "eligibility_") && !described[name] && !described[base] {
			t.Errorf("the reference lacks %s", name)
		}
	}
}

// scrapeAll returns what two services export after some traffic and faults: one
// without, one with Redis, TLS, every kind of credentials, a webhook, a
// decision log and people who sign in to the console.
func scrapeAll(t *testing.T) series {
	t.Helper()
	have := series{}
	p := startDev(t)
	get(t, "http://"+p.HTTP+"/v1/customers/"+allowedID+"/eligibility")
	_, _, scraped := get(t, "http://"+p.Admin+"/metrics")
	have.add(scraped)

	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	clientSecret := filepath.Join(t.TempDir(), "client-secret")
	if err := os.WriteFile(clientSecret, []byte("secret-of-the-console\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	guarded, ca, _ := startGuarded(t, "ELIGIBILITY_CONSOLE__OIDC__CLIENT_ID=console", "ELIGIBILITY_CONSOLE__OIDC__CLIENT_SECRET_FILE="+clientSecret,
		"ELIGIBILITY_CACHE__REDIS__ADDRESSES="+cachetest.StartRedis(t).Address, "ELIGIBILITY_WEBHOOKS=[{name: orders, url: 'http://127.0.0.1:9', secret_file: "+secret+"}]",
		"ELIGIBILITY_DECISION_LOG__FILE="+filepath.Join(t.TempDir(), "decisions.jsonl"))
	runCommand(t, "", "check", "--address", guarded.GRPC, "--ca-file", ca, allowedID) // without credentials
	eventually(t, "the webhook's lease and the issuer's keys", func() bool {
		_, _, scraped = get(t, "http://"+guarded.Admin+"/metrics")
		return strings.Contains(scraped, "eligibility_webhook_lag_seconds{") && strings.Contains(scraped, "eligibility_issuer_key_fetches_total{")
	})
	have.add(scraped)
	return have
}
