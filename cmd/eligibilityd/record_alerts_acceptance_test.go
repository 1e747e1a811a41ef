//go:build acceptance

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// shorter is how many times shorter than in rules.yaml every duration of the rules is
// here, while thresholds stay: a minute is a second.
const shorter = 60

// thresholds are those in seconds that would take too long to reach, by alert.
var thresholds = map[string][2]string{
	"EligibilityFlightStuck": {"> 25", "> 2"}, // no fetch of ours lasts longer; Partner Center hangs for 10 s
}

// unplayable are the alerts whose fault cannot be brought about from outside, and why.
var unplayable = map[string]string{
	"EligibilityPanic":              "no request is known that makes the service panic",
	"EligibilityWebhookDeadLetters": "a change becomes a dead letter after 72 h",
}

// watchtower is a Prometheus with the rules of rules.yaml.
type watchtower struct{ url, dir string }

func startWatchtower(t *testing.T) *watchtower {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	w := &watchtower{url: "http://" + address, dir: t.TempDir()}
	w.write(t, "rules.yaml", shortened(t))
	// A scrape that times out ends every alert: on a busy machine, 200 ms are too few.
	w.write(t, "prometheus.yaml", "global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 200ms}\nrule_files: [rules.yaml]\n"+
		"scrape_configs:\n- {job_name: eligibilityd, file_sd_configs: [{files: ['job-*.json'], refresh_interval: 1s}]}\n")
	cmd := exec.CommandContext(context.Background(), "prometheus", "--config.file="+w.dir+"/prometheus.yaml", "--storage.tsdb.path="+w.dir+"/data", //nolint:gosec // our own arguments
		"--web.listen-address="+address, "--log.level=warn")
	var log output
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatalf("start prometheus (make acceptance-record installs it): %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("prometheus:\n%s", log.String())
		}
	})
	eventually(t, "Prometheus to be ready", func() bool {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/-/ready", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return w
}

// shortened returns the rules with shorter durations.
func shortened(t *testing.T) string {
	t.Helper()
	text := string(readFile(t, observability+"rules.yaml"))
	for alert, by := range thresholds {
		before, after, ok := strings.Cut(text, "- alert: "+alert+"\n")
		changed := strings.Replace(after, by[0], by[1], 1)
		if !ok || changed == after {
			t.Fatalf("%s has no threshold %s", alert, by[0])
		}
		text = before + "- alert: " + alert + "\n" + changed
	}
	text = regexp.MustCompile(`\[\d+[smhd]\]`).ReplaceAllStringFunc(text, func(window string) string {
		return "[" + shorten(t, window[1:len(window)-1]) + "]"
	})
	return regexp.MustCompile(`for: \d+[smhd]`).ReplaceAllStringFunc(text, func(pending string) string {
		return "for: " + shorten(t, pending[len("for: "):])
	})
}

func shorten(t *testing.T, duration string) string {
	t.Helper()
	n, err := strconv.Atoi(duration[:len(duration)-1])
	unit, ok := map[byte]int{'s': 1000, 'm': 60_000, 'h': 3_600_000, 'd': 86_400_000}[duration[len(duration)-1]]
	if err != nil || !ok {
		t.Fatalf("no duration: %s", duration)
	}
	return strconv.Itoa(n*unit/shorter) + "ms"
}

func (w *watchtower) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(w.dir, name) // replaced as a whole: Prometheus watches
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// scrape makes processes the targets of a job until the test ends.
func (w *watchtower) scrape(t *testing.T, job string, processes ...addresses) {
	t.Helper()
	var targets []string
	for _, p := range processes {
		targets = append(targets, strconv.Quote(p.Admin))
	}
	name := "job-" + job + ".json"
	w.write(t, name, fmt.Sprintf(`[{"targets": [%s], "labels": {"job": %q}}]`, strings.Join(targets, ","), job))
	t.Cleanup(func() { _ = os.Remove(filepath.Join(w.dir, name)) })
}

// firing returns the alerts of a job that fire. Those of no job are everybody's.
func (w *watchtower) firing(t *testing.T, job string) []string {
	t.Helper()
	var reply struct {
		Data struct {
			Alerts []struct {
				State  string            `json:"state"`
				Labels map[string]string `json:"labels"`
			} `json:"alerts"`
		} `json:"data"`
	}
	_, _, body := get(t, w.url+"/api/v1/alerts")
	if err := json.Unmarshal([]byte(body), &reply); err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, alert := range reply.Data.Alerts {
		if of, has := alert.Labels["job"]; alert.State == "firing" && (of == job || !has) {
			found[alert.Labels["alertname"]] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// fired returns the alerts of a job that have ever fired.
func (w *watchtower) fired(t *testing.T, job string) []string {
	t.Helper()
	var reply struct {
		Status string `json:"status"`
		Data   struct {
			Result []struct {
				Metric map[string]string `json:"metric"`
			} `json:"result"`
		} `json:"data"`
	}
	_, _, body := get(t, w.url+"/api/v1/query?query="+url.QueryEscape(`count by (alertname) (count_over_time(ALERTS{job="`+job+`",alertstate="firing"}[1h]))`))
	if err := json.Unmarshal([]byte(body), &reply); err != nil || reply.Status != "success" {
		t.Fatal(body, err)
	}
	var alerts []string
	for _, one := range reply.Data.Result {
		alerts = append(alerts, one.Metric["alertname"])
	}
	return alerts
}

// raises waits until all the alerts fire for a job.
func (w *watchtower) raises(t *testing.T, job string, alerts ...string) {
	t.Helper()
	began, missing := time.Now(), alerts
	for len(missing) > 0 {
		firing := w.firing(t, job)
		missing = slices.DeleteFunc(slices.Clone(missing), func(alert string) bool {
			if !slices.Contains(firing, alert) {
				return false
			}
			t.Logf("%s fires after %v", alert, time.Since(began).Round(time.Second))
			return true
		})
		if time.Since(began) > 4*time.Minute {
			t.Errorf("%q do not fire; these do: %q", missing, firing)
			return
		}
		pause(t.Context(), 200*time.Millisecond)
	}
}

// resolves waits until none of the alerts fires any longer.
func (w *watchtower) resolves(t *testing.T, job string, alerts ...string) {
	t.Helper()
	began := time.Now()
	for {
		firing := w.firing(t, job)
		left := slices.DeleteFunc(slices.Clone(alerts), func(alert string) bool { return !slices.Contains(firing, alert) })
		if len(left) == 0 {
			t.Logf("%q resolved after %v", alerts, time.Since(began).Round(time.Second))
			return
		}
		if time.Since(began) > 4*time.Minute {
			t.Errorf("%q still fire", left)
			return
		}
		pause(t.Context(), 200*time.Millisecond)
	}
}

// Prometheus scrapes the real program, and every alert is raised by its fault. Beside
// them, a healthy program raises none.
func TestAcceptanceRecordAlerts(t *testing.T) { //nolint:paralleltest // it measures; its faults run together
	w := startWatchtower(t)
	t.Run("Healthy", func(t *testing.T) { staysSilent(t, w) }) //nolint:paralleltest // alone: it needs the machine
	raised := map[string]bool{}
	for _, one := range faults() {
		for _, alert := range one.alerts {
			raised[alert] = true
		}
	}
	t.Run("Faults", func(t *testing.T) { //nolint:paralleltest // as above
		for _, one := range faults() {
			t.Run(one.job, func(t *testing.T) {
				t.Parallel()
				one.play(t, w)
			})
		}
	})
	for _, rule := range readRules(t) {
		if why := unplayable[rule.Alert]; rule.Alert != "" && raised[rule.Alert] == (why != "") {
			t.Errorf("%s is raised by a fault: %t; that it cannot be: %q", rule.Alert, raised[rule.Alert], why)
		}
	}
}
