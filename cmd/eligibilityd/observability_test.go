package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const (
	observability = "../../deploy/observability/"
	runbookURL    = "https://github.com/eligibilityd/eligibilityd/blob/main/docs/runbook.md#"
)

// rule is a rule of rules.yaml: an alert, or a record.
type rule struct {
	Alert       string            `yaml:"alert"`
	Record      string            `yaml:"record"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func readRules(t *testing.T) []rule {
	t.Helper()
	var file struct {
		Groups []struct {
			Rules []rule `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.Unmarshal(readFile(t, observability+"rules.yaml"), &file); err != nil {
		t.Fatal(err)
	}
	var rules []rule
	for _, group := range file.Groups {
		rules = append(rules, group.Rules...)
	}
	return rules
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// promtool runs Prometheus's own checks.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput() //nolint:gosec // our own arguments
	if err != nil {
		t.Errorf("promtool %s (make test installs it): %v\n%s", strings.Join(args, " "), err, out)
	}
}

// Prometheus loads the rules, and each alert fires and stays silent as rules_test.yaml
// describes.
func TestTheRulesHold(t *testing.T) {
	t.Parallel()
	promtool(t, "check", "rules", observability+"rules.yaml")
	promtool(t, "test", "rules", observability+"rules_test.yaml")

	var file struct {
		Tests []struct {
			Exprs []struct {
				Expr    string `yaml:"expr"`
				Samples []any  `yaml:"exp_samples"`
			} `yaml:"promql_expr_test"`
		} `yaml:"tests"`
	}
	if err := yaml.Unmarshal(readFile(t, observability+"rules_test.yaml"), &file); err != nil {
		t.Fatal(err)
	}
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, one := range file.Tests {
		for _, on := range one.Exprs {
			name := strings.TrimSuffix(strings.TrimPrefix(on.Expr, `ALERTS{alertname="`), `",alertstate="firing"}`)
			fires[name] = fires[name] || len(on.Samples) > 0
			silent[name] = silent[name] || len(on.Samples) == 0
		}
	}
	for _, rule := range readRules(t) {
		if rule.Alert != "" && !(fires[rule.Alert] && silent[rule.Alert]) {
			t.Errorf("%s: a test in which it fires %t, one in which it does not %t", rule.Alert, fires[rule.Alert], silent[rule.Alert])
		}
	}
}

// Each alert has a section of the runbook, each section of the runbook an alert, and
// what somebody who is woken by it needs.
func TestTheRunbookIsThatOfTheAlerts(t *testing.T) {
	t.Parallel()
	runbook := string(readFile(t, "../../docs/runbook.md"))
	sections := map[string]string{}
	for _, section := range strings.Split(runbook, "\n## ")[1:] {
		name, text, _ := strings.Cut(section, "\n")
		sections[name] = text
	}
	delete(sections, "Objectives")
	const others = "Incidents without an alert"
	incidents := strings.Split(sections[others], "\n### ")[1:]
	if len(incidents) < 3 {
		t.Errorf("%d incidents without an alert", len(incidents))
	}
	for _, incident := range incidents {
		hasAllParts(t, incident)
	}
	delete(sections, others)
	for _, rule := range readRules(t) {
		if rule.Alert == "" {
			continue
		}
		text, ok := sections[rule.Alert]
		if !ok {
			t.Errorf("%s has no section in the runbook", rule.Alert)
		}
		delete(sections, rule.Alert)
		hasAllParts(t, rule.Alert+"\n"+text)
		if severity := rule.Labels["severity"]; severity != "critical" && severity != "warning" {
			t.Errorf("%s has the severity %q", rule.Alert, severity)
		}
		if rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
			t.Errorf("%s lacks a summary or a description", rule.Alert)
		}
		if url, want := rule.Annotations["runbook_url"], runbookURL+strings.ToLower(rule.Alert); url != want {
			t.Errorf("%s has the runbook_url %s, not %s", rule.Alert, url, want)
		}
	}
	for name := range sections {
		t.Errorf("the runbook has a section %s for no alert", name)
	}
}

// hasAllParts fails the test unless a section of the runbook has what somebody who is
// woken by it needs.
func hasAllParts(t *testing.T, section string) {
	t.Helper()
	name, text, _ := strings.Cut(section, "\n")
	for _, part := range []string{"Meaning", "Impact", "First look", "Fix", "Escalate"} {
		if strings.Count(text, "\n- **"+part+":** ") != 1 {
			t.Errorf("%s: the section of the runbook needs %s once", name, part)
		}
	}
}

// panel is a panel of dashboard.json.
type panel struct {
	ID         int    `json:"id"`
	Type       string `json:"type"`
	Title      string `json:"title"`
	Datasource *struct {
		UID string `json:"uid"`
	} `json:"datasource"`
	GridPos struct{ H, W, X, Y int } `json:"gridPos"`
	Targets []struct {
		Expr         string `json:"expr"`
		LegendFormat string `json:"legendFormat"`
	} `json:"targets"`
}

func readDashboard(t *testing.T) (panels []panel, variables map[string]string) {
	t.Helper()
	var file struct {
		SchemaVersion int     `json:"schemaVersion"`
		Panels        []panel `json:"panels"`
		Templating    struct {
			List []struct {
				Name       string `json:"name"`
				Type       string `json:"type"`
				Definition string `json:"definition"`
			} `json:"list"`
		} `json:"templating"`
	}
	if err := json.Unmarshal(readFile(t, observability+"dashboard.json"), &file); err != nil {
		t.Fatal(err)
	}
	if file.SchemaVersion < 36 || file.SchemaVersion > 39 { // Grafana 10 and 11 import these as they are
		t.Errorf("schema version %d", file.SchemaVersion)
	}
	variables = map[string]string{}
	for _, v := range file.Templating.List {
		variables[v.Name] = v.Definition
	}
	return file.Panels, variables
}

// expressions returns the queries of the dashboard as Prometheus gets them.
func expressions(panels []panel) []string {
	replaced := strings.NewReplacer("$__rate_interval", "5m", "$job", ".*", "$instance", ".*", "$partner", ".*")
	var all []string
	for _, p := range panels {
		for _, target := range p.Targets {
			all = append(all, replaced.Replace(target.Expr))
		}
	}
	return all
}

// Grafana draws every panel with what it is delivered with, from the data source that
// the reader chooses, and Prometheus parses every query.
func TestTheDashboardHolds(t *testing.T) {
	t.Parallel()
	panels, variables := readDashboard(t)
	for _, name := range []string{"datasource", "job", "instance", "partner"} {
		if _, ok := variables[name]; !ok {
			t.Errorf("no variable %s", name)
		}
	}
	ids := map[int]bool{}
	rows := map[string]bool{}
	taken := map[[2]int]string{}
	for _, p := range panels {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("%s: id %d", p.Title, p.ID)
		}
		ids[p.ID] = true
		switch p.Type {
		case "row":
			rows[p.Title] = true
		case "timeseries", "stat": // in the core of Grafana
			if p.Datasource == nil || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
				t.Errorf("%s: data source %v, %d queries", p.Title, p.Datasource, len(p.Targets))
			}
		default:
			t.Errorf("%s is a %s", p.Title, p.Type)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s is drawn over %s, or beyond the edge", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
	for _, row := range []string{
		"Objectives", "Traffic and outcome", "Latency", "Freshness and tiers", "Budget of calls to Partner Center",
		"Lifetimes of tokens and certificates", "Changes and reviews", "Callers", "Decision log and history",
	} {
		if !rows[row] {
			t.Errorf("no row %s", row)
		}
	}
	var rules strings.Builder
	rules.WriteString("groups:\n- name: dashboard\n  rules:\n")
	for i, expr := range expressions(panels) {
		fmt.Fprintf(&rules, "  - {record: \"panel:%d\", expr: %q}\n", i, expr)
	}
	path := filepath.Join(t.TempDir(), "dashboard.yaml")
	if err := os.WriteFile(path, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", path)
}

// series are the names, labels and values of a scrape.
type series map[string]map[string]map[string]bool // metric → label → values

var (
	sample      = regexp.MustCompile(`^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+$`)
	sampleLabel = regexp.MustCompile(`(\w+)="((?:[^"\\]|\\.)*)"`)
)

// add adds what /metrics returned.
func (s series) add(scraped string) {
	for line := range strings.SplitSeq(scraped, "\n") {
		parts := sample.FindStringSubmatch(line)
		if parts == nil {
			continue
		}
		labels := s[parts[1]]
		if labels == nil {
			labels = map[string]map[string]bool{}
			s[parts[1]] = labels
		}
		for _, label := range sampleLabel.FindAllStringSubmatch(parts[2], -1) {
			if labels[label[1]] == nil {
				labels[label[1]] = map[string]bool{}
			}
			labels[label[1]][label[2]] = true
		}
	}
}

// labelsOf returns the labels of a metric, which may be a histogram.
func (s series) labelsOf(metric string) ([]string, bool) {
	for _, name := range []string{metric, metric + "_count"} {
		if labels, ok := s[name]; ok {
			return slices.Sorted(maps.Keys(labels)), true
		}
	}
	return nil, false
}

var (
	selector = regexp.MustCompile(`\b((?:job:)?(?:eligibility|process|go)_\w+(?::\w+)?|up|ALERTS)\b(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`^\s*(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"\s*$`)
	grouping = regexp.MustCompile(`\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)`)
)

// check reports what an expression names and the scrape does not have. of names the
// expression; used are the labels that somebody expects of its result.
func (s series) check(t *testing.T, of, expr string, used ...string) {
	t.Helper()
	// Prometheus adds these to every series.
	known := map[string]bool{"job": true, "instance": true}
	found := selector.FindAllStringSubmatch(expr, -1)
	if len(found) == 0 {
		t.Errorf("%s: no metric in %s", of, expr)
	}
	for _, one := range found {
		name, matchers := one[1], one[2]
		labels, ok := s[name]
		if !ok {
			t.Errorf("%s: no metric %s", of, name)
			continue
		}
		for label := range labels {
			known[label] = true
		}
		for m := range strings.SplitSeq(matchers, ",") {
			if m == "" {
				continue
			}
			parts := matcher.FindStringSubmatch(m)
			if parts == nil {
				t.Errorf("%s: cannot read the matcher %s", of, m)
				continue
			}
			label, is, value := parts[1], parts[2], parts[3]
			if label == "job" || label == "instance" {
				continue
			}
			if labels[label] == nil {
				t.Errorf("%s: %s has no label %s", of, name, label)
				continue
			}
			values := []string{value}
			if strings.HasSuffix(is, "~") {
				values = strings.Split(value, "|")
			}
			for _, value := range values {
				value = strings.TrimSuffix(value, ".0") // a bound in the OpenMetrics format
				if !strings.Contains(value, ".*") && !labels[label][value] {
					t.Errorf("%s: no series of %s has %s=%q", of, name, label, value)
				}
			}
		}
	}
	for _, by := range grouping.FindAllStringSubmatch(expr, -1) {
		for label := range strings.SplitSeq(by[1], ",") {
			if label = strings.TrimSpace(label); label != "" && !known[label] {
				t.Errorf("%s groups by %s, which no metric of it has", of, label)
			}
		}
	}
	kept := regexp.MustCompile(`\bby\s*\(([^)]*)\)`).FindAllStringSubmatch(expr, -1)
	for _, label := range used {
		has := known[label]
		for _, by := range kept {
			has = has && slices.Contains(strings.Split(strings.ReplaceAll(by[1], " ", ""), ","), label)
		}
		if !has {
			t.Errorf("%s uses the label %s, which its result lacks", of, label)
		}
	}
}
