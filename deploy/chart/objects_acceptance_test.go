//go:build acceptance

package chart_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func yamlUnmarshal(text string, to any) error { return yaml.Unmarshal([]byte(text), to) }

// validate validates manifests by the schemas of a version of Kubernetes, and returns its complaints.
func validate(t *testing.T, version string, files ...string) (string, error) {
	t.Helper()
	args := append([]string{"--version", version, "--local-crds", crds(t)}, files...)
	cmd := exec.CommandContext(t.Context(), tool(t, validatePath), args...) //nolint:gosec // a tool of ours
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "KUBECONFIG="+os.DevNull)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// crds returns the directory of the Prometheus operator's CRDs.
func crds(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "../../scripts/prometheus-crds.sh").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func TestAcceptanceDeployChartIsValidKubernetes(t *testing.T) {
	t.Parallel()
	var files []string
	for _, name := range cases {
		files = append(files, "testdata/"+name+".yaml")
	}
	for _, version := range []string{"1.27", "1.28", "1.29", "1.30"} {
		if out, err := validate(t, version, files...); err != nil {
			t.Errorf("%s: %v\n%s", version, err, out)
		}
	}
}

// The validation would see a mistake in any object of the chart.
func TestAcceptanceDeployChartValidationSeesMistakes(t *testing.T) {
	t.Parallel()
	var seen []string
	for _, name := range []string{"minimal", "full"} {
		for i, document := range strings.Split(read(t, "testdata/"+name+".yaml"), "\n---\n") {
			var object map[string]any
			if err := yamlUnmarshal(document, &object); err != nil {
				t.Fatal(err)
			}
			if object == nil {
				continue
			}
			kind := object["kind"].(string)
			seen = append(seen, kind)
			if spec, ok := object["spec"].(map[string]any); ok {
				spec["invented"] = true
			} else {
				object["invented"] = true
			}
			text, err := yaml.Marshal(object)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "object.yaml")
			if err := os.WriteFile(file, text, 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := validate(t, "1.30", file); err == nil || !strings.Contains(out, "invented") {
				t.Errorf("%s %d, a %s: %v\n%s", name, i, kind, err, out)
			}
		}
	}
	for _, kind := range []string{"ConfigMap", "Deployment", "HorizontalPodAutoscaler", "NetworkPolicy", "PersistentVolumeClaim", "Pod", "PodDisruptionBudget", "PrometheusRule", "Service", "ServiceAccount", "ServiceMonitor"} {
		if !slices.Contains(seen, kind) {
			t.Errorf("no %s was tried", kind)
		}
	}
}

// What is optional is there if it is asked for, and only then.
func TestAcceptanceDeployChartOptions(t *testing.T) {
	t.Parallel()
	for overlay, want := range map[string]map[string]bool{
		"":                                   {"HorizontalPodAutoscaler": false, "PodDisruptionBudget": false, "ServiceMonitor": false, "PrometheusRule": false, "Pod": false, "PersistentVolumeClaim": true, "NetworkPolicy": true, "ServiceAccount": true},
		"persistence: {existingClaim: mine}": {"PersistentVolumeClaim": false},
		"networkPolicy: {enabled: false}":    {"NetworkPolicy": false},
		"serviceAccount: {create: false}":    {"ServiceAccount": false},
		"serviceMonitor: {enabled: true}":    {"ServiceMonitor": true, "PrometheusRule": false},
		"prometheusRule: {enabled: true}":    {"PrometheusRule": true, "ServiceMonitor": false},
		"login: {enabled: true}":             {"Pod": true},
		"replicaCount: 0":                    {"PodDisruptionBudget": false, "Deployment": true},
		"config: {partner_center: {refresh_token_file: null, refresh_token_vault: {url: https://x.vault.azure.net, secret: x}}}\nreplicaCount: 2":                                        {"PersistentVolumeClaim": false, "PodDisruptionBudget": true},
		"config: {partner_center: {refresh_token_file: null, refresh_token_vault: {url: https://x.vault.azure.net, secret: x}}}\nreplicaCount: 2\npodDisruptionBudget: {enabled: false}": {"PodDisruptionBudget": false},
		"config: {partner_center: {refresh_token_file: null, refresh_token_vault: {url: https://x.vault.azure.net, secret: x}}}\nreplicaCount: 1\nautoscaling: {enabled: true}":          {"HorizontalPodAutoscaler": true, "PodDisruptionBudget": true},
	} {
		all := mustRender(t, "minimal", overlay)
		for kind, present := range want {
			if slices.ContainsFunc(all, func(m manifest) bool { return m.Kind == kind }) != present {
				t.Errorf("%s: %s present: %v", overlay, kind, !present)
			}
		}
	}
}

// peers is a rule of a NetworkPolicy.
type peers struct {
	From  []map[string]any `yaml:"from"`
	To    []map[string]any `yaml:"to"`
	Ports []struct {
		Port any `yaml:"port"`
	} `yaml:"ports"`
}

func (p peers) ports() (all []any) {
	for _, port := range p.Ports {
		all = append(all, port.Port)
	}
	return all
}

func TestAcceptanceDeployChartNetworkPolicy(t *testing.T) {
	t.Parallel()
	for overlay, want := range map[string][]any{
		"": {443},
		"config: {cache: {redis: {addresses: [redis-0:6379, 'redis-1:6380', '[fd00::1]:6379']}}}":             {443, 6379, 6380},
		"config: {cache: {redis: {mode: sentinel, addresses: [sentinel:26379]}}}":                             {443, 26379, 6379},
		"config: {cache: {redis: {addresses: ['unix:///redis.sock']}}}":                                       {443},
		"config: {tracing: {endpoint: 'http://otel:4317'}, metrics: {otlp: {endpoint: 'http://otel:4318/'}}}": {443, 4318, 4317},
		"config: {webhooks: [{url: 'https://a.example:8443/x?y=z:1'}, {url: 'https://b.example/:9'}]}":        {443, 8443},
		"config: {tracing: {endpoint: \"http://otel:4317/\\nx\"}}":                                            {443, 4317},
	} {
		policy := decode[struct {
			Ingress, Egress []peers
		}](t, the(t, mustRender(t, "minimal", overlay), "NetworkPolicy", "").Spec)
		if len(policy.Egress) != 2 || !slices.Equal(policy.Egress[0].ports(), []any{53, 53}) || !slices.Equal(policy.Egress[1].ports(), want) {
			t.Errorf("%s: %+v, want %v", overlay, policy.Egress, want)
		}
		if len(policy.Ingress) != 2 || !slices.Equal(policy.Ingress[0].ports(), []any{"grpc", "http"}) || !slices.Equal(policy.Ingress[1].ports(), []any{"probe"}) || len(policy.Ingress[0].From) != 1 || len(policy.Ingress[1].From) != 1 {
			t.Errorf("%s: %+v", overlay, policy.Ingress)
		}
	}
	// An empty list of peers would admit everybody, so there is no rule then.
	policy := decode[struct{ Ingress []peers }](t, the(t, mustRender(t, "minimal", "networkPolicy: {callers: [], monitoring: []}"), "NetworkPolicy", "").Spec)
	if len(policy.Ingress) != 0 {
		t.Errorf("%+v", policy.Ingress)
	}
}

// The metadata service of Azure, which any process could ask for tokens of the node, is admitted only
// if the program has to.
func TestAcceptanceDeployChartNetworkPolicyAdmitsTheMetadataService(t *testing.T) {
	t.Parallel()
	const identity = "workloadIdentity: {clientId: 00000000-0000-0000-0000-000000000000}\n"
	const vault = "vault: {url: https://x.vault.azure.net, secret: x}"
	for overlay, want := range map[string]bool{
		"config: {partner_center: {client_assertion: workload_identity}}":                                         false,
		identity + "config: {partner_center: {client_assertion: workload_identity, refresh_token_" + vault + "}}": false,
		"config: {partner_center: {client_assertion: managed_identity}}":                                          true,
		identity + "config: {partner_center: {client_assertion: managed_identity}}":                               true,
		"config: {partners: {eu: {client_assertion: managed_identity}}}":                                          true,
		"config: {partner_defaults: {client_assertion: managed_identity}}":                                        true,
		"config: {partner_center: {refresh_token_" + vault + "}}":                                                 true,
		"config: {partner_center: {client_secret_" + vault + "}}":                                                 true,
		"config: {partners: {eu: {client_certificate_" + vault + "}}}":                                            true,
		"config: {partner_defaults: {refresh_token_" + vault + "}}":                                               true,
		identity + "config: {partners: {eu: {client_certificate_" + vault + "}}}":                                 false,
		"config: {partner_center: {refresh_token_vault: {url: ''}}}":                                              false,
		"config: {cache: {redis: {entra_id: {enabled: true}}}}":                                                   true,
		"config: {cache: {redis: {entra_id: {enabled: false}}}}":                                                  false,
		identity + "config: {cache: {redis: {entra_id: {enabled: true}}}}":                                        false,
	} {
		rules := decode[struct{ Egress []peers }](t, the(t, mustRender(t, "minimal", overlay), "NetworkPolicy", "").Spec).Egress
		admitted := slices.ContainsFunc(rules, func(rule peers) bool {
			return len(rule.To) == 1 && fmt.Sprint(rule.To[0]) == "map[ipBlock:map[cidr:169.254.169.254/32]]" && slices.Equal(rule.ports(), []any{80})
		})
		if rest := len(rules) - 2; admitted != want || (rest == 1) != want {
			t.Errorf("%s: admitted: %v\n%+v", overlay, admitted, rules)
		}
	}
}

// A change of the configuration restarts the pods, and nothing else does.
func TestAcceptanceDeployChartRestartsForItsConfiguration(t *testing.T) {
	t.Parallel()
	checksum := func(overlay string) string {
		return deployment(t, mustRender(t, "minimal", overlay)).Template.Metadata.Annotations["checksum/config"]
	}
	if checksum("") != checksum("service: {grpcPort: 443}") {
		t.Error("the port of the Service restarts the pods")
	}
	if checksum("") == checksum("config: {log: {level: debug}}") {
		t.Error("the level of the log does not restart the pods")
	}
}

func TestAcceptanceDeployChartImage(t *testing.T) {
	t.Parallel()
	for overlay, want := range map[string]string{
		"image: {repository: r.example/e}":                                                          "r.example/e:0.0.0",
		"image: {repository: r.example/e, tag: v1}":                                                 "r.example/e:v1",
		"image: {repository: r.example/e, tag: v1, digest: sha256:" + strings.Repeat("0", 64) + "}": "r.example/e@sha256:" + strings.Repeat("0", 64),
	} {
		if got := deployment(t, mustRender(t, "minimal", overlay)).Template.Spec.Containers[0].Image; got != want {
			t.Errorf("%s: %s", overlay, got)
		}
	}
}

// Names of releases are up to 53 characters long; names of Services up to 63.
func TestAcceptanceDeployChartNames(t *testing.T) {
	t.Parallel()
	for release, want := range map[string]string{
		"eligibilityd": "eligibilityd", "eu-eligibilityd": "eu-eligibilityd", "eligibility": "eligibility-eligibilityd",
		strings.Repeat("a", 53): strings.Repeat("a", 41) + "-eligibilityd",
	} {
		out, err := helm(t, "template", release, "eligibilityd", "--kube-version", "1.30.0", "--values", "testdata/values/minimal.yaml")
		if err != nil {
			t.Errorf("%s: %v", release, err)
			continue
		}
		all := decodeManifests(t, out)
		if the(t, all, "Deployment", "").Metadata.Name != want {
			t.Errorf("%s: %s", release, the(t, all, "Deployment", "").Metadata.Name)
		}
		for _, m := range all {
			if len(m.Metadata.Name) > 63 {
				t.Errorf("%s: %s", release, m.Metadata.Name)
			}
		}
	}
}

func TestAcceptanceDeployChartNotes(t *testing.T) {
	t.Parallel()
	// Helm prints notes only after it has asked a cluster, so they become a manifest.
	chart := t.TempDir()
	if err := os.CopyFS(chart, os.DirFS("eligibilityd")); err != nil {
		t.Fatal(err)
	}
	notes := "{{- define \"notes\" -}}\n" + read(t, "eligibilityd/templates/NOTES.txt") + "{{- end -}}\nkind: Notes\ndata:\n  notes: |\n    {{- include \"notes\" . | nindent 4 }}\n"
	if err := os.WriteFile(filepath.Join(chart, "templates", "notes.yaml"), []byte(notes), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{
		"minimal": {"eligibilityd.shop.svc:9090", "dns:///eligibilityd-headless.shop.svc:9090", "README.md, \"Sign in\"", "config.server.insecure is true", "doctor --config /etc/eligibilityd/config.yaml"},
		"full":    {"shop-eligibilityd.shop.svc:443", "dns:///shop-eligibilityd-headless.shop.svc:9190"},
	} {
		out, err := helm(t, "template", "eligibilityd", chart, "--namespace", "shop", "--kube-version", "1.30.0", "--values", "testdata/values/"+name+".yaml", "--show-only", "templates/notes.yaml")
		if err != nil {
			t.Error(err)
			continue
		}
		notes := the(t, decodeManifests(t, out), "Notes", "").Data["notes"]
		for _, text := range want {
			if !strings.Contains(notes, text) {
				t.Errorf("%s: no %q in %s", name, text, notes)
			}
		}
		if insecure := strings.Contains(notes, "insecure"); insecure != (name == "minimal") {
			t.Errorf("%s: %s", name, notes)
		}
	}
}

// make chart validates what it renders, and two packages of one version are equal, to the byte.
func TestAcceptanceDeployChartPackage(t *testing.T) { //nolint:paralleltest // it writes the files that the others read
	const version = "1.2.3-4-gabc1234"
	var packages [2][]byte
	for i := range packages {
		dir := t.TempDir()
		if out, err := exec.CommandContext(t.Context(), "../../scripts/chart.sh", version, dir).CombinedOutput(); err != nil { //nolint:gosec // our own script
			t.Fatalf("%v\n%s", err, out)
		}
		var err error
		if packages[i], err = os.ReadFile(filepath.Join(dir, "eligibilityd-"+version+".tgz")); err != nil {
			t.Fatal(err)
		}
		out, err := helm(t, "template", "eligibilityd", filepath.Join(dir, "eligibilityd-"+version+".tgz"), "--kube-version", "1.30.0", "--values", "testdata/values/minimal.yaml")
		if err != nil || !strings.Contains(out, "registry.example.com/eligibilityd:"+version) {
			t.Errorf("%v\n%s", err, out)
		}
	}
	if !bytes.Equal(packages[0], packages[1]) {
		t.Error("two packages differ")
	}
}
