package pcsim_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestControlAnswersAsDocumented sends the examples of docs/simulator.md in
// order. It fails if a documented request has no example.
func TestControlAnswersAsDocumented(t *testing.T) {
	t.Parallel()
	r := startControl(t)
	document, err := os.ReadFile("../../docs/simulator.md")
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile("(?s)```sh\n(.*?)```\n\n```json (\\d+)\n(.*?)```")
	examples := example.FindAllStringSubmatch(string(document), -1)
	if n := strings.Count(string(document), "```sh\n"); n != len(examples) {
		t.Errorf("%d of %d examples have an answer", len(examples), n)
	}
	command := regexp.MustCompile(`(?s)^curl (?:-X (\w+) )?http://127\.0\.0\.1:9081(\S+)(?: \\\n  -d '(.*)')?\n$`)
	sent := map[string]bool{}
	for _, e := range examples {
		m := command.FindStringSubmatch(e[1])
		if m == nil {
			t.Fatalf("not a command of the documented form: %s", e[1])
		}
		method := m[1]
		if method == "" {
			method = "GET"
		}
		sent[method+" "+regexp.MustCompile(`[0-9a-f-]{36}`).ReplaceAllString(m[2], "{id}")] = true
		got := r.control(method, m[2], m[3])
		if want, _ := strconv.Atoi(e[2]); got.status != want {
			t.Errorf("%s: status %d %s", e[1], got.status, got.body)
		}
		if diff := cmp.Diff(anyJSON(t, e[3]), anyJSON(t, got.body)); diff != "" {
			t.Errorf("%s (-documented +answered):\n%s", e[1], diff)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z]+ /v1/\\S+)` \\|").FindAllStringSubmatch(string(document), -1) {
		if m[1] != "GET /v1/customers" && !sent[m[1]] { // its response is long
			t.Errorf("%s has no example", m[1])
		}
	}
}

func anyJSON(t *testing.T, text string) (v any) {
	t.Helper()
	if strings.TrimSpace(text) == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}
