//go:build acceptance

package chart_test

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const deployTools = "../../tools/deploy/"

// The tools are built at their first use, for all tests.
var (
	helmPath     = sync.OnceValues(func() (string, error) { return build("go.mod", "helm") })
	validatePath = sync.OnceValues(func() (string, error) { return build("kubectl-validate/go.mod", "kubectl-validate") })
)

// build builds a tool and returns its path.
func build(module, name string) (string, error) {
	out, err := exec.Command("go", "tool", "-modfile="+deployTools+module, "-n", name).Output() //nolint:gosec,noctx // our own names
	return strings.TrimSpace(string(out)), err
}

func tool(t *testing.T, path func() (string, error)) string {
	t.Helper()
	program, err := path()
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// helm runs Helm with a home of its own, and returns its output or its complaint.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), tool(t, helmPath), args...) //nolint:gosec // a tool of ours
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "KUBECONFIG="+os.DevNull)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return "", errors.New(complaint.String())
	}
	return out.String(), nil
}

// render renders the chart with a set of values of testdata, overlaid by a YAML text.
func render(t *testing.T, name, overlay string, args ...string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "overlay.yaml")
	if err := os.WriteFile(file, []byte(overlay), 0o600); err != nil {
		t.Fatal(err)
	}
	args = append([]string{"template", "eligibilityd", "eligibilityd", "--namespace", "shop", "--kube-version", "1.30.0"}, args...)
	if name != "" {
		args = append(args, "--values", "testdata/values/"+name+".yaml")
	}
	return helm(t, append(args, "--values", file)...)
}

func mustRender(t *testing.T, name, overlay string) []manifest {
	t.Helper()
	out, err := render(t, name, overlay)
	if err != nil {
		t.Fatal(err)
	}
	return decodeManifests(t, out)
}

func TestAcceptanceDeployChartRendersAsCommitted(t *testing.T) {
	t.Parallel()
	for _, name := range cases {
		values := "testdata/values/" + name + ".yaml"
		if out, err := helm(t, "lint", "--strict", "--namespace", "shop", "--kube-version", "1.30.0", "eligibilityd", "--values", values); err != nil {
			t.Errorf("%s: %v%s", name, err, out)
		}
		out, err := render(t, name, "")
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if out != read(t, "testdata/"+name+".yaml") {
			t.Errorf("testdata/%s.yaml is not what the chart renders: make chart", name)
		}
	}
}

// Each overlay of values makes rendering fail with these words.
func TestAcceptanceDeployChartRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	twoWays := []string{"only one replica", "replicaCount: 1 and autoscaling.enabled: false", "Azure Key Vault", "refresh_token_vault"}
	for name, c := range map[string]struct {
		base, overlay string
		want          []string
	}{
		"no values at all":       {"", "", []string{"config.server.grpc.address: :9090", "config.server.http.address: :8080", "config.server.tls", "config.auth.tokens_file", "insecure: true"}},
		"TLS without callers":    {"", "config: {server: {tls: {certificate_file: /a, key_file: /b}}}", []string{"config.server.grpc.address: :9090", "one of config.auth.certificates"}},
		"callers without TLS":    {"", "config: {auth: {tokens_file: /a}}", []string{"config.server.grpc.address: :9090", "needs config.server.tls"}},
		"insecure: false":        {"minimal", "config: {server: {insecure: false}}", []string{"can be reached from other pods"}},
		"two replicas":           {"minimal", "replicaCount: 2", append(twoWays, "config.partner_center.refresh_token_file")},
		"autoscaling":            {"minimal", "autoscaling: {enabled: true}", append(twoWays, "config.partner_center.refresh_token_file")},
		"two replicas, partners": {"partners", "replicaCount: 2", append(twoWays, "config.partners.eu.refresh_token_file", "config.partners.us.refresh_token_file")},
		"in partner_defaults":    {"azure", "config: {partner_defaults: {refresh_token_file: /var/lib/eligibilityd/token}}", append(twoWays, "config.partner_defaults.refresh_token_file")},
		"token in another place": {"minimal", "config: {partner_center: {refresh_token_file: /data/token}}", []string{"not directly in /var/lib/eligibilityd"}},
		"token in a directory":   {"minimal", "config: {partner_center: {refresh_token_file: /var/lib/eligibilityd/eu/token}}", []string{"not directly in /var/lib/eligibilityd"}},
		"a secret's value":       {"minimal", "config: {partner_center: {client_secret: hunter2}}", []string{"config.partner_center.client_secret", "no place for a secret", "client_secret_file"}},
		"a number as password":   {"minimal", "config: {cache: {redis: {password: 12345}}}", []string{"config.cache.redis.password"}},
		"a partner's secret":     {"partners", "config: {partners: {eu: {client_secret: hunter2}}}", []string{"config.partners.eu.client_secret"}},
		"a sentinel's password":  {"minimal", "config: {cache: {redis: {sentinel: {password: hunter2}}}}", []string{"config.cache.redis.sentinel.password"}},
		"a collector's headers":  {"minimal", "config: {tracing: {headers: a=b}, metrics: {otlp: {headers: a=b}}}", []string{"config.tracing.headers", "config.metrics.otlp.headers"}},
		"an unmounted secret":    {"minimal", "config: {cache: {redis: {password_file: /etc/eligibilityd/secrets/redis/password}}}", []string{`secrets has no "redis"`}},
		"a log without volume":   {"minimal", "config: {decision_log: {file: /var/log/eligibilityd/d.jsonl}}", []string{"decisionLog.volume"}},
		"a log in another place": {"full", "config: {decision_log: {file: /tmp/d.jsonl}}", []string{"not directly in /var/log/eligibilityd"}},
		"no probe":               {"minimal", "config: {server: {probe: null}}", []string{"config.server.probe.address", ":9092"}},
		"a probe on loopback":    {"minimal", "config: {server: {probe: {address: 127.0.0.1:9092}}}", []string{"the kubelet cannot reach"}},
		"any free port":          {"minimal", `config: {server: {grpc: {address: ":0"}}}`, []string{"config.server.grpc.address", "no port"}},
		"a key by environment":   {"minimal", "env: [{name: ELIGIBILITY_SERVER__DRAIN, value: 1h}]", []string{"ELIGIBILITY_SERVER__DRAIN", "override config"}},
	} {
		_, err := render(t, c.base, c.overlay)
		if err == nil {
			t.Errorf("%s: it renders", name)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: no %q in %v", name, want, err)
			}
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the complaint has the secret: %v", name, err)
		}
	}
}

// Without a port and behind a proxy in the same pod nothing has to be permitted.
func TestAcceptanceDeployChartRendersWithListenersOnLoopback(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"127.0.0.1:9090", "localhost:9090", `"[::1]:9090"`} {
		if _, err := render(t, "", "config: {server: {grpc: {address: "+address+"}, http: {address: 127.0.0.1:8080}}}"); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// The schema names the value that is wrong.
func TestAcceptanceDeployChartSchemaRejects(t *testing.T) {
	t.Parallel()
	for overlay, want := range map[string]string{
		"replicas: 2":                                                "replicas",
		"image: {name: x}":                                           "name",
		"secrets: {tls: {secretName: x}}":                            "/secrets/tls",
		"secrets: {../tls: x}":                                       "../tls",
		"secrets: {tls: 'x\nevil: true'}":                            "/secrets/tls",
		"replicaCount: two":                                          "/replicaCount",
		"replicaCount: -1":                                           "/replicaCount",
		"replicaCount: 1.5":                                          "/replicaCount",
		"replicaCount: 100000000000000000000":                        "/replicaCount",
		"image: {repository: 'x\n  evil: true'}":                     "/image/repository",
		"image: {tag: \"1\\\"\\nprivileged: true\"}":                 "/image/tag",
		"image: {digest: sha256:abc}":                                "/image/digest",
		"image: {pullPolicy: Sometimes}":                             "/image/pullPolicy",
		"fullnameOverride: Upper":                                    "/fullnameOverride",
		"fullnameOverride: " + strings.Repeat("a", 55):               "/fullnameOverride",
		"config: []":                                                 "/config",
		"config: text":                                               "/config",
		"config: {server: text}":                                     "/config/server",
		"config: {server: {drain: 5}}":                               "/config/server/drain",
		"config: {server: {drain: 5 s}}":                             "/config/server/drain",
		"config: {server: {drain: -5s}}":                             "/config/server/drain",
		"config: {server: {insecure: 'true'}}":                       "/config/server/insecure",
		"config: {server: {grpc: {address: 9090}}}":                  "/config/server/grpc/address",
		"workloadIdentity: {clientId: me}":                           "/workloadIdentity/clientId",
		"service: {type: ExternalName}":                              "/service/type",
		"service: {grpcPort: 70000}":                                 "/service/grpcPort",
		"persistence: {size: big}":                                   "/persistence/size",
		"decisionLog: {volume: {emptyDir: {}, hostPath: {path: /}}}": "/decisionLog/volume",
		"podLabels: {a: 'x\ny'}":                                     "/podLabels/a",
		"podAnnotations: {a: 1}":                                     "/podAnnotations/a",
		"env: {A: b}":                                                "/env",
		"env: [{name: A-B}]":                                         "/env/0/name",
		"env: [{name: A, value: 1}]":                                 "/env/0/value",
		"networkPolicy: {callers: all}":                              "/networkPolicy/callers",
		"login: {partner: EU}":                                       "/login/partner",
		"autoscaling: {maxReplicas: 0}":                              "/autoscaling/maxReplicas",
		"serviceMonitor: {interval: often}":                          "/serviceMonitor/interval",
		"topologySpread: {whenUnsatisfiable: Never}":                 "/topologySpread/whenUnsatisfiable",
		"securityContext: {privileged: true}":                        "securityContext",
		"podDisruptionBudget: {minAvailable: 1}":                     "minAvailable",
		"resources: {limit: {}}":                                     "limit",
		"extraVolumes: [text]":                                       "/extraVolumes/0",
		"tolerations: text":                                          "/tolerations",
		"priorityClassName: 'x\ny'":                                  "/priorityClassName",
		"imagePullSecrets: [registry]":                               "/imagePullSecrets/0",
		"dashboard: {labels: {a: " + strings.Repeat("a", 64) + "}}":  "/dashboard/labels/a",
		"serviceAccount: {name: 'x: y'}":                             "/serviceAccount/name",
	} {
		_, err := render(t, "minimal", overlay)
		if err == nil {
			t.Errorf("%q renders", overlay)
			continue
		}
		// Helm writes the place with slashes or dots, by its version.
		if text := err.Error(); !strings.Contains(text, "schema") || !strings.Contains(text, want) && !strings.Contains(text, strings.ReplaceAll(want[1:], "/", ".")) {
			t.Errorf("%q: no %q in %v", overlay, want, err)
		}
	}
}

// evil are strings that end YAML's and the template's own constructs.
var evil = []string{
	"\"", "'", "a: b", "a #b", "- a", "\n---\nkind: Pod\n", "{{ .Release.Name }}", "{{ fail \"x\" }}", "a\n  b: c", "\n", " \t", "yes", "null", "~", "0x10", "1e3", "*a", "&a", "!!binary a", "|", ">", "%",
	"a\\n", "\u00e9\U0001F600", "${1}", "$(POD_NAME)", strings.Repeat("x", 1<<16),
}

// Wherever a value may be any text, it remains that text.
func TestAcceptanceDeployChartHostileStrings(t *testing.T) {
	t.Parallel()
	var texts strings.Builder
	for i, text := range evil {
		texts.WriteString("    key" + strconv.Itoa(i) + ": " + strconv.QuoteToASCII(text) + "\n")
	}
	all := mustRender(t, "full", "podAnnotations:\n"+texts.String()+"service:\n  annotations:\n"+texts.String()+"serviceAccount:\n  annotations:\n"+texts.String()+"config:\n  hostile:\n"+texts.String()+"  hostile_keys:\n    "+strconv.QuoteToASCII(evil[5])+": 1\n")
	if got, want := kinds(all), kinds(rendered(t, "full")); !slices.Equal(got, want) {
		t.Errorf("kinds %q, want %q", got, want)
	}
	var cfg map[string]any
	if err := yamlUnmarshal(configOf(t, all), &cfg); err != nil {
		t.Fatal(err)
	}
	hostile, _ := cfg["hostile"].(map[string]any)
	for i, want := range evil {
		key := "key" + strconv.Itoa(i)
		for place, got := range map[string]any{
			"config":          hostile[key],
			"podAnnotations":  deployment(t, all).Template.Metadata.Annotations[key],
			"service":         the(t, all, "Service", "shop-eligibilityd").Metadata.Annotations[key],
			"service account": the(t, all, "ServiceAccount", "").Metadata.Annotations[key],
		} {
			if got != want {
				t.Errorf("%s: %.40q became %.40q", place, want, got)
			}
		}
	}
	// What the chart itself writes cannot be replaced.
	all = mustRender(t, "minimal", "podLabels: {app.kubernetes.io/name: other}\npodAnnotations: {checksum/config: none}\nserviceMonitor: {enabled: true, labels: {app.kubernetes.io/instance: other}}")
	if d := deployment(t, all); !selects(d.Selector.MatchLabels, d.Template.Metadata.Labels) || d.Template.Metadata.Annotations["checksum/config"] == "none" {
		t.Errorf("%+v", d.Template.Metadata)
	}
	if labels := the(t, all, "ServiceMonitor", "").Metadata.Labels; labels["app.kubernetes.io/instance"] != "eligibilityd" {
		t.Error(labels)
	}
}

func kinds(all []manifest) []string {
	names := map[string]bool{}
	for _, m := range all {
		names[m.Kind+" "+m.Metadata.Name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// A configuration of a megabyte is rendered, although Kubernetes takes less, and one that nests too
// deeply is refused without harm.
func TestAcceptanceDeployChartHugeValues(t *testing.T) {
	t.Parallel()
	all := mustRender(t, "minimal", "config: {webhooks: ["+strings.Repeat("{name: "+strings.Repeat("x", 1000)+"},", 1000)+"]}")
	if n := len(configOf(t, all)); n < 1_000_000 {
		t.Errorf("%d bytes", n)
	}
	if _, err := render(t, "minimal", "config: {a: "+strings.Repeat("[", 2000)+strings.Repeat("]", 2000)+"}"); err == nil {
		t.Error("2,000 levels render")
	}
}

func TestAcceptanceDeployChartGracePeriod(t *testing.T) {
	t.Parallel()
	for durations, want := range map[[2]string]int{
		{"5s", "10s"}: 20, {"0s", "1ms"}: 6, {"1m30s", "1h"}: 3695, {"1.5s", "250ms"}: 7, {"500ms", "500ms"}: 6, {"0", "1s"}: 6, {"24h", "1ns"}: 86406,
	} {
		all := mustRender(t, "minimal", "config: {server: {drain: \""+durations[0]+"\", shutdown_timeout: "+durations[1]+"}}")
		if got := deployment(t, all).Template.Spec.Grace; got != want {
			t.Errorf("%s + %s: %d s, want %d", durations[0], durations[1], got, want)
		}
	}
}
