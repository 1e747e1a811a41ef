package main

import (
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

const chartDir = "../../deploy/chart/testdata/"

// manifest is what the tests read of a manifest of Kubernetes.
type manifest struct {
	Kind     string                `yaml:"kind"`
	Metadata struct{ Name string } `yaml:"metadata"`
	Data     map[string]string     `yaml:"data"`
	Spec     manifestSpec          `yaml:"spec"`
}

// manifestSpec is the spec of a Deployment, Pod, Service, ServiceMonitor or
// PrometheusRule.
type manifestSpec struct {
	Template struct {
		Spec podSpec `yaml:"spec"`
	} `yaml:"template"`
	podSpec `yaml:",inline"`
	Ports   []struct {
		TargetPort string `yaml:"targetPort"`
	} `yaml:"ports"`
	Endpoints []struct{ Port, Path string } `yaml:"endpoints"`
	Groups    []struct {
		Rules []rule `yaml:"rules"`
	} `yaml:"groups"`
}

type podSpec struct {
	Containers []struct {
		Args []string `yaml:"args"`
		Env  []struct {
			Name  string `yaml:"name"`
			Value string `yaml:"value"`
		} `yaml:"env"`
		Ports []struct {
			Name string `yaml:"name"`
			Port int    `yaml:"containerPort"`
		} `yaml:"ports"`
		Startup   podProbe `yaml:"startupProbe"`
		Liveness  podProbe `yaml:"livenessProbe"`
		Readiness podProbe `yaml:"readinessProbe"`
	} `yaml:"containers"`
}

type podProbe struct {
	Get struct{ Path, Port string } `yaml:"httpGet"`
}

// readChart returns the manifests that the chart renders with each set of values.
func readChart(t *testing.T) map[string][]manifest {
	t.Helper()
	files, err := filepath.Glob(chartDir + "*.yaml")
	if err != nil || len(files) < 2 {
		t.Fatalf("%d renders of the chart, %v", len(files), err)
	}
	all := map[string][]manifest{}
	for _, file := range files {
		decoder := yaml.NewDecoder(strings.NewReader(string(readFile(t, file))))
		for {
			var m manifest
			if err := decoder.Decode(&m); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			all[filepath.Base(file)] = append(all[filepath.Base(file)], m)
		}
	}
	return all
}

// chartContainers are the uses of the binary by the chart.
func chartContainers(t *testing.T) []container {
	t.Helper()
	var all []container
	for file, manifests := range readChart(t) {
		before := len(all)
		for _, m := range manifests {
			for _, spec := range []podSpec{m.Spec.Template.Spec, m.Spec.podSpec} {
				for i := range spec.Containers {
					all = append(all, chartContainer(t, file, m, manifests, spec, i))
				}
			}
		}
		if len(all) == before {
			t.Errorf("%s starts no container", file)
		}
	}
	return all
}

func chartContainer(t *testing.T, file string, m manifest, manifests []manifest, spec podSpec, i int) container {
	t.Helper()
	of := spec.Containers[i]
	c := container{where: "chart, " + file + ": " + m.Kind + " " + m.Metadata.Name, args: of.Args, environ: map[string]string{}, files: map[string]string{}}
	var given struct {
		Env []struct{ Name string } `yaml:"env"`
	}
	if err := yaml.Unmarshal(readFile(t, chartDir+"values/"+file), &given); err != nil {
		t.Fatal(err)
	}
	for _, variable := range of.Env {
		isGiven := slices.ContainsFunc(given.Env, func(one struct{ Name string }) bool { return one.Name == variable.Name })
		if !isGiven && variable.Value != "" { // others come from the pod, for paths of its volumes
			c.environ[variable.Name] = variable.Value
		}
	}
	named := map[string]string{}
	for _, port := range of.Ports {
		c.ports = append(c.ports, port.Port)
		named[port.Name] = strconv.Itoa(port.Port)
	}
	reach := func(port, path string) {
		if named[port] != "" {
			port = named[port]
		}
		c.paths = append(c.paths, port+path)
	}
	for _, probe := range []podProbe{of.Startup, of.Liveness, of.Readiness} {
		if probe.Get.Path != "" {
			reach(probe.Get.Port, probe.Get.Path)
		}
	}
	for _, other := range manifests {
		if other.Kind == "ConfigMap" && other.Data["config.yaml"] != "" {
			c.files["/etc/eligibilityd/config.yaml"] = strings.ReplaceAll(other.Data["config.yaml"], "00000000-0000-0000-0000-000000000000", "00000000-0000-4000-8000-000000000001")
		}
		if m.Kind != "Deployment" {
			continue
		}
		for _, endpoint := range other.Spec.Endpoints {
			reach(endpoint.Port, endpoint.Path)
		}
		for _, port := range other.Spec.Ports {
			if other.Kind == "Service" && named[port.TargetPort] == "" {
				t.Errorf("%s: a Service leads to the port %s, which the container lacks", file, port.TargetPort)
			}
		}
	}
	var parsed yaml.Node
	if err := yaml.Unmarshal([]byte(c.files["/etc/eligibilityd/config.yaml"]), &parsed); err != nil {
		t.Fatal(err)
	}
	addStubs(t, &parsed, "", c.files)
	return c
}

// addStubs adds a file for each key of a configuration that names one.
func addStubs(t *testing.T, node *yaml.Node, key string, files map[string]string) {
	t.Helper()
	if node.Kind == yaml.ScalarNode && strings.HasSuffix(key, "_file") && strings.HasPrefix(node.Value, "/") {
		files[node.Value] = stub(t, key)
	}
	for i, child := range node.Content {
		below := key
		if node.Kind == yaml.MappingNode {
			if i%2 == 0 {
				continue
			}
			below = key + "." + node.Content[i-1].Value
		}
		addStubs(t, child, below, files)
	}
}

// stub returns contents that Load accepts of the file of a key.
func stub(t *testing.T, key string) string {
	t.Helper()
	switch {
	case strings.HasPrefix(key, ".cache.redis.tls."), strings.HasSuffix(key, ".client_certificate_file"):
		file, _ := clientCertificate(t, time.Hour)
		return string(readFile(t, file))
	case strings.HasPrefix(key, ".webhooks."):
		return "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"
	case strings.HasSuffix(key, ".headers_file"):
		return "authorization=Bearer%20x\n"
	default:
		return "00112233445566778899aabbccddeeff"
	}
}

// deployedRules are the rules of the chart's PrometheusRules.
func deployedRules(t *testing.T) []rule {
	t.Helper()
	var rules []rule
	for _, manifests := range readChart(t) {
		for _, m := range manifests {
			for _, group := range m.Spec.Groups {
				rules = append(rules, group.Rules...)
			}
		}
	}
	if len(rules) == 0 {
		t.Error("the chart has no rules")
	}
	return rules
}
