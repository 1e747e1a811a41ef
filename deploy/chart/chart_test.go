// Package chart_test checks the Helm chart without Helm: its files, and the manifests that make
// chart renders into testdata. The tests that run Helm are for make acceptance-deploy.
package chart_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"go.yaml.in/yaml/v3"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// cases are the sets of values that are rendered.
var cases = []string{"minimal", "tls", "azure", "partners", "full"}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// values returns the values of a YAML file.
func values(t *testing.T, path string) map[string]any {
	t.Helper()
	var all map[string]any
	if err := yaml.Unmarshal([]byte(read(t, path)), &all); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return all
}

func TestCopiesInTheChartEqualTheirSources(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"rules.yaml", "dashboard.json"} {
		if read(t, "eligibilityd/files/"+name) != read(t, "../observability/"+name) {
			t.Errorf("eligibilityd/files/%s differs from deploy/observability/%s: make chart copies it", name, name)
		}
	}
}

func TestEverySetOfValuesIsRendered(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/values/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(file), ".yaml"))
	}
	slices.Sort(names)
	if !slices.Equal(names, slices.Sorted(slices.Values(cases))) {
		t.Errorf("testdata/values has %q, the tests have %q", names, cases)
	}
}

// The README shows complete values; they are those that the tests render.
func TestTheREADMEShowsValuesThatWereTried(t *testing.T) {
	t.Parallel()
	shown := map[string]bool{}
	for _, block := range regexp.MustCompile("(?s)( *)```yaml(\n.*?\n) *```").FindAllStringSubmatch(read(t, "eligibilityd/README.md"), -1) {
		shown[strings.ReplaceAll(block[2], "\n"+block[1], "\n")[1:]] = true
	}
	for _, name := range cases {
		if name != "full" && !shown[read(t, "testdata/values/"+name+".yaml")] {
			t.Errorf("eligibilityd/README.md does not show testdata/values/%s.yaml as it is", name)
		}
	}
}

// schema is the part of a JSON schema that the tests read.
type schema struct {
	Schema               string            `json:"$schema"`
	Ref                  string            `json:"$ref"`
	Type                 string            `json:"type"`
	Properties           map[string]schema `json:"properties"`
	AdditionalProperties any               `json:"additionalProperties"`
	Definitions          map[string]schema `json:"definitions"`
}

func TestTheSchemaHasEveryValueAndNoOther(t *testing.T) {
	t.Parallel()
	var root schema
	if err := json.Unmarshal([]byte(read(t, "eligibilityd/values.schema.json")), &root); err != nil {
		t.Fatal(err)
	}
	delete(root.Properties, "global")
	defaults := values(t, "eligibilityd/values.yaml")
	compare(t, "", root, defaults)
}

// compare compares the keys of a section that is closed to unknown keys.
func compare(t *testing.T, path string, s schema, section map[string]any) {
	t.Helper()
	if s.AdditionalProperties != false {
		return
	}
	for key, property := range s.Properties {
		value, ok := section[key]
		if !ok && path != "resources." { // whose keys are Kubernetes's
			t.Errorf("values.yaml lacks %s%s", path, key)
		}
		if inner, ok := value.(map[string]any); ok {
			compare(t, path+key+".", property, inner)
		}
	}
	for key := range section {
		if _, ok := s.Properties[key]; !ok {
			t.Errorf("the schema lacks %s%s", path, key)
		}
	}
}

// A key of config that can hold a secret has a sibling that names a file. The chart rejects the former.
func TestTheChartKnowsEveryKeyOfASecret(t *testing.T) {
	t.Parallel()
	_, settings, err := config.LoadSettings("", nil, config.Doctor)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	for _, s := range settings {
		keys[s.Key] = true
	}
	secrets := map[string]bool{}
	for key := range keys {
		if keys[key+"_file"] {
			secrets[key[strings.LastIndex(key, ".")+1:]] = true
		}
	}
	list := regexp.MustCompile(`has \.key \(list ([^)]*)\)`).FindStringSubmatch(read(t, "eligibilityd/templates/_check.tpl"))
	if list == nil {
		t.Fatal("_check.tpl has no list of keys of secrets")
	}
	var known []string
	for word := range strings.FieldsSeq(list[1]) {
		known = append(known, strings.Trim(word, `"`))
	}
	slices.Sort(known)
	if want := slices.Sorted(maps.Keys(secrets)); !slices.Equal(known, want) || len(want) < 5 {
		t.Errorf("_check.tpl knows %q, the configuration has %q", known, want)
	}
}

// The reason for enableServiceLinks: false. In a namespace with a Service called eligibility, or
// eligibility-…, the kubelet would set this variable.
func TestTheProgramRefusesTheVariablesOfServiceLinks(t *testing.T) {
	t.Parallel()
	for _, variable := range []string{"ELIGIBILITY_SERVICE_HOST", "ELIGIBILITY_ELIGIBILITYD_PORT_9090_TCP"} {
		_, err := config.Load("", []string{variable + "=10.0.0.1"}, config.Doctor)
		if err == nil || !strings.Contains(err.Error(), variable) {
			t.Errorf("%s: %v", variable, err)
		}
	}
}
