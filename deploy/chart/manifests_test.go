package chart_test

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
	"github.com/eligibilityd/eligibilityd/internal/config"
)

// manifest is the part of a Kubernetes object that the tests read.
type manifest struct {
	Kind     string `yaml:"kind"`
	Metadata struct {
		Name        string            `yaml:"name"`
		Namespace   string            `yaml:"namespace"`
		Labels      map[string]string `yaml:"labels"`
		Annotations map[string]string `yaml:"annotations"`
	} `yaml:"metadata"`
	Data map[string]string `yaml:"data"`
	Spec yaml.Node         `yaml:"spec"`
}

// podSpec is that of a pod.
type podSpec struct {
	ServiceAccountName string         `yaml:"serviceAccountName"`
	Automount          *bool          `yaml:"automountServiceAccountToken"`
	ServiceLinks       *bool          `yaml:"enableServiceLinks"`
	Grace              int            `yaml:"terminationGracePeriodSeconds"`
	SecurityContext    map[string]any `yaml:"securityContext"`
	Containers         []struct {
		Args            []string       `yaml:"args"`
		Image           string         `yaml:"image"`
		SecurityContext map[string]any `yaml:"securityContext"`
		Ports           []struct {
			Name string `yaml:"name"`
			Port int    `yaml:"containerPort"`
		} `yaml:"ports"`
		Mounts []struct {
			Name     string `yaml:"name"`
			Path     string `yaml:"mountPath"`
			ReadOnly bool   `yaml:"readOnly"`
		} `yaml:"volumeMounts"`
		Liveness  probe `yaml:"livenessProbe"`
		Readiness probe `yaml:"readinessProbe"`
		Startup   probe `yaml:"startupProbe"`
	} `yaml:"containers"`
	InitContainers []any `yaml:"initContainers"`
	Volumes        []struct {
		Name      string `yaml:"name"`
		ConfigMap struct {
			Name string `yaml:"name"`
		} `yaml:"configMap"`
		Claim struct {
			Name string `yaml:"claimName"`
		} `yaml:"persistentVolumeClaim"`
	} `yaml:"volumes"`
}

type probe struct {
	HTTP struct {
		Path string `yaml:"path"`
		Port string `yaml:"port"`
	} `yaml:"httpGet"`
}

// decodeManifests decodes documents; it fails on repeated keys, as YAML demands.
func decodeManifests(t *testing.T, text string) []manifest {
	t.Helper()
	var all []manifest
	decoder := yaml.NewDecoder(strings.NewReader(text))
	for {
		var one manifest
		if err := decoder.Decode(&one); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if one.Kind != "" {
			all = append(all, one)
		}
	}
}

func rendered(t *testing.T, name string) []manifest {
	t.Helper()
	return decodeManifests(t, read(t, "testdata/"+name+".yaml"))
}

// the returns the only manifest of a kind and, unless it is "", with a suffix of its name.
func the(t *testing.T, all []manifest, kind, suffix string) manifest {
	t.Helper()
	var found []manifest
	for _, m := range all {
		if m.Kind == kind && strings.HasSuffix(m.Metadata.Name, suffix) {
			found = append(found, m)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d objects %s …%s", len(found), kind, suffix)
	}
	return found[0]
}

func decode[T any](t *testing.T, node yaml.Node) T {
	t.Helper()
	var value T
	if err := node.Decode(&value); err != nil {
		t.Fatal(err)
	}
	return value
}

// workload is the spec of a Deployment.
type workload struct {
	Selector struct {
		MatchLabels map[string]string `yaml:"matchLabels"`
	} `yaml:"selector"`
	Strategy struct {
		Type string `yaml:"type"`
	} `yaml:"strategy"`
	Template struct {
		Metadata struct {
			Labels      map[string]string `yaml:"labels"`
			Annotations map[string]string `yaml:"annotations"`
		} `yaml:"metadata"`
		Spec podSpec `yaml:"spec"`
	} `yaml:"template"`
}

func deployment(t *testing.T, all []manifest) workload {
	t.Helper()
	return decode[workload](t, the(t, all, "Deployment", "").Spec)
}

// configOf returns the rendered configuration.
func configOf(t *testing.T, all []manifest) string {
	t.Helper()
	for _, m := range all {
		if text, ok := m.Data["config.yaml"]; ok {
			return text
		}
	}
	t.Fatal("no ConfigMap has config.yaml")
	return ""
}

// load loads a rendered configuration as the program in the pod does. Files of secrets, and the
// placeholders that the program rejects, are replaced by others.
func load(t *testing.T, text string) (*config.Config, error) {
	t.Helper()
	dir := t.TempDir()
	text = strings.ReplaceAll(text, "00000000-0000-0000-0000-000000000000", "11111111-2222-3333-4444-555555555555")
	text = strings.ReplaceAll(text, "https://NAME.", "https://shop.") // of a vault
	file := regexp.MustCompile(`([a-z_]+_file): /etc/eligibilityd/([a-z0-9./-]+)`)
	text = file.ReplaceAllStringFunc(text, func(line string) string {
		found := file.FindStringSubmatch(line)
		path := filepath.Join(dir, found[2])
		content := rand.Text() + rand.Text()
		switch found[1] {
		case "secret_file": // of a webhook
			content = "whsec_" + strings.Repeat("MTIz", 10)
		case "headers_file":
			content = "name=value"
		case "ca_file":
			content = read(t, accesstest.NewAuthority(t).File)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return found[1] + ": " + path
	})
	path := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Load(path, nil, config.Login) // serve's keys, but for the token that login writes
}

func TestRenderedConfigurationsLoad(t *testing.T) {
	t.Parallel()
	for _, name := range cases {
		all := rendered(t, name)
		cfg, err := load(t, configOf(t, all))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		pod := deployment(t, all).Template.Spec
		if want := (cfg.Server.Drain + cfg.Server.ShutdownTimeout + 5*time.Second + time.Second - 1).Truncate(time.Second); time.Duration(pod.Grace)*time.Second != want {
			t.Errorf("%s: grace period %d s, drain %v and shutdown %v", name, pod.Grace, cfg.Server.Drain, cfg.Server.ShutdownTimeout)
		}
		addresses := map[string]string{"grpc": cfg.Server.GRPC.Address, "http": cfg.Server.HTTP.Address, "probe": cfg.Server.Probe.Address}
		for _, port := range pod.Containers[0].Ports {
			if _, want, _ := net.SplitHostPort(addresses[port.Name]); want != fmt.Sprint(port.Port) {
				t.Errorf("%s: port %s is %d, its listener has %s", name, port.Name, port.Port, addresses[port.Name])
			}
		}
	}
}

// values.yaml's own configuration is what the program's example would have in a cluster.
func TestTheDefaultConfigurationLoads(t *testing.T) {
	t.Parallel()
	defaults, minimal := values(t, "eligibilityd/values.yaml"), values(t, "testdata/values/minimal.yaml")
	section := defaults["config"].(map[string]any)["server"].(map[string]any)
	section["insecure"] = true
	minimal["config"].(map[string]any)["server"] = section
	text, err := yaml.Marshal(minimal["config"])
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := load(t, string(text))
	if err != nil {
		t.Fatal(err)
	}
	if usual := config.Default().Server; cfg.Server.Drain != usual.Drain || cfg.Server.ShutdownTimeout != usual.ShutdownTimeout {
		t.Errorf("drain %v, shutdown_timeout %v, but the program's defaults are %v and %v", cfg.Server.Drain, cfg.Server.ShutdownTimeout, usual.Drain, usual.ShutdownTimeout)
	}
}

// pods returns the specs of all pods, and their labels.
func pods(t *testing.T, all []manifest) (specs []podSpec, labels []map[string]string) {
	t.Helper()
	d := deployment(t, all)
	specs, labels = append(specs, d.Template.Spec), append(labels, d.Template.Metadata.Labels)
	for _, m := range all {
		if m.Kind == "Pod" {
			specs, labels = append(specs, decode[podSpec](t, m.Spec)), append(labels, m.Metadata.Labels)
		}
	}
	return specs, labels
}

func TestPodsAreLockedDown(t *testing.T) {
	t.Parallel()
	for _, name := range cases {
		specs, _ := pods(t, rendered(t, name))
		for _, pod := range specs {
			if pod.Automount == nil || *pod.Automount || pod.ServiceLinks == nil || *pod.ServiceLinks {
				t.Errorf("%s: automountServiceAccountToken and enableServiceLinks must be false", name)
			}
			if len(pod.Containers) != 1 || pod.InitContainers != nil {
				t.Fatalf("%s: more than one container", name)
			}
			if want := map[string]any{"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": map[string]any{"drop": []any{"ALL"}}}; !reflect.DeepEqual(pod.Containers[0].SecurityContext, want) {
				t.Errorf("%s: container: %v", name, pod.Containers[0].SecurityContext)
			}
			if want := map[string]any{"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532, "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": map[string]any{"type": "RuntimeDefault"}}; !reflect.DeepEqual(pod.SecurityContext, want) {
				t.Errorf("%s: pod: %v", name, pod.SecurityContext)
			}
			for _, mount := range pod.Containers[0].Mounts {
				if writable := mount.Name == "state" || mount.Name == "decision-log"; writable == mount.ReadOnly {
					t.Errorf("%s: %s is mounted with readOnly %v", name, mount.Path, mount.ReadOnly)
				}
			}
		}
	}
}

func TestProbesAreThoseOfTheProbeListener(t *testing.T) {
	t.Parallel()
	for _, name := range cases {
		container := deployment(t, rendered(t, name)).Template.Spec.Containers[0]
		for _, probe := range []struct {
			probe
			want string
		}{{container.Startup, "/healthz"}, {container.Liveness, "/healthz"}, {container.Readiness, "/readyz"}} {
			if probe.HTTP.Path != probe.want || probe.HTTP.Port != "probe" {
				t.Errorf("%s: %+v", name, probe)
			}
		}
	}
}

// selects reports whether a selector matches labels.
func selects(selector, labels map[string]string) bool {
	for key, value := range selector {
		if labels[key] != value {
			return false
		}
	}
	return len(selector) > 0
}

// Objects of the chart refer to each other by labels and names, which no schema checks.
func TestManifestsFitTogether(t *testing.T) {
	t.Parallel()
	type service struct {
		Selector  map[string]string `yaml:"selector"`
		ClusterIP string            `yaml:"clusterIP"`
		Ports     []struct {
			Name       string `yaml:"name"`
			TargetPort string `yaml:"targetPort"`
		} `yaml:"ports"`
	}
	for _, name := range cases {
		all := rendered(t, name)
		d := deployment(t, all)
		specs, labels := pods(t, all)
		ports := map[string]bool{}
		for _, port := range specs[0].Containers[0].Ports {
			ports[port.Name] = true
		}
		headless := 0
		for _, m := range all {
			if m.Metadata.Namespace != "shop" {
				t.Errorf("%s: %s %s is in namespace %q", name, m.Kind, m.Metadata.Name, m.Metadata.Namespace)
			}
			var selector map[string]string
			switch m.Kind {
			case "Service":
				s := decode[service](t, m.Spec)
				selector = s.Selector
				for _, port := range s.Ports {
					if !ports[port.TargetPort] {
						t.Errorf("%s: %s: no port %s", name, m.Metadata.Name, port.TargetPort)
					}
					if port.TargetPort == "probe" && s.ClusterIP != "None" {
						t.Errorf("%s: %s exposes the probe port", name, m.Metadata.Name)
					}
				}
				if s.ClusterIP == "None" {
					headless++
				}
			case "PodDisruptionBudget":
				selector = decode[workload](t, m.Spec).Selector.MatchLabels
			case "NetworkPolicy":
				selector = decode[struct {
					Selector struct {
						MatchLabels map[string]string `yaml:"matchLabels"`
					} `yaml:"podSelector"`
				}](t, m.Spec).Selector.MatchLabels
			case "Deployment":
				selector = d.Selector.MatchLabels
			default:
				continue
			}
			if !selects(selector, labels[0]) {
				t.Errorf("%s: %s %s does not select the pods", name, m.Kind, m.Metadata.Name)
			}
			for _, other := range labels[1:] {
				if selects(selector, other) {
					t.Errorf("%s: %s %s selects the pod of login", name, m.Kind, m.Metadata.Name)
				}
			}
		}
		if headless != 1 {
			t.Errorf("%s: %d headless Services", name, headless)
		}
		if !regexp.MustCompile("^[0-9a-f]{64}$").MatchString(d.Template.Metadata.Annotations["checksum/config"]) {
			t.Errorf("%s: no checksum of the configuration: %v", name, d.Template.Metadata.Annotations)
		}
		for _, pod := range specs {
			for _, volume := range pod.Volumes {
				if volume.Name == "config" && !strings.Contains(the(t, all, "ConfigMap", volume.ConfigMap.Name).Data["config.yaml"], "server:") {
					t.Errorf("%s: the ConfigMap %s has no configuration", name, volume.ConfigMap.Name)
				}
				if volume.Name == "state" {
					the(t, all, "PersistentVolumeClaim", volume.Claim.Name)
				}
			}
		}
	}
}

// The rules reach Prometheus as promtool has checked them.
func TestTheRenderedRulesAreThoseOfObservability(t *testing.T) {
	t.Parallel()
	all := rendered(t, "full")
	got := decode[map[string]any](t, the(t, all, "PrometheusRule", "").Spec)
	if want := values(t, "../observability/rules.yaml"); !reflect.DeepEqual(got, want) {
		t.Errorf("%d bytes of rules differ", len(fmt.Sprint(want)))
	}
	dashboard := the(t, all, "ConfigMap", "-dashboard").Data["eligibilityd.json"]
	if want := read(t, "../observability/dashboard.json"); sha256.Sum256([]byte(strings.TrimSpace(dashboard))) != sha256.Sum256([]byte(strings.TrimSpace(want))) {
		t.Error("the dashboard differs")
	}
}

// With the token in a file there is one pod at a time, and without one several.
func TestTheTokensFileAllowsOnePod(t *testing.T) {
	t.Parallel()
	for _, name := range cases {
		all := rendered(t, name)
		want := "RollingUpdate"
		if strings.Contains(configOf(t, all), "refresh_token_file") {
			want = "Recreate"
		}
		if got := deployment(t, all).Strategy.Type; got != want {
			t.Errorf("%s: strategy %s, want %s", name, got, want)
		}
	}
}
