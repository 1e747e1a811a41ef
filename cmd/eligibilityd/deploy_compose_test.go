package main

import (
	"io/fs"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

const composeDir = "../../deploy/compose/"

// composeFile is what the tests read of compose.yaml.
type composeFile struct {
	Services map[string]composeService `yaml:"services"`
	Networks map[string]struct {
		Internal bool `yaml:"internal"`
	} `yaml:"networks"`
	Configs map[string]composeSource `yaml:"configs"`
	Secrets map[string]composeSource `yaml:"secrets"`
}

type composeSource struct {
	File string `yaml:"file"`
}

type composeService struct {
	Image       string            `yaml:"image"`
	PullPolicy  string            `yaml:"pull_policy"`
	Build       *composeBuild     `yaml:"build"`
	Command     []string          `yaml:"command"`
	User        string            `yaml:"user"`
	Environment map[string]string `yaml:"environment"`
	NetworkMode string            `yaml:"network_mode"`
	Networks    []string          `yaml:"networks"`
	Ports       []string          `yaml:"ports"`
	Configs     []struct {
		Source string `yaml:"source"`
		Target string `yaml:"target"`
	} `yaml:"configs"`
	Secrets     []string  `yaml:"secrets"`
	Volumes     yaml.Node `yaml:"volumes"`
	Healthcheck struct {
		Test    []string `yaml:"test"`
		Disable bool     `yaml:"disable"`
	} `yaml:"healthcheck"`
	DependsOn map[string]struct {
		Condition string `yaml:"condition"`
		Restart   bool   `yaml:"restart"`
	} `yaml:"depends_on"`
	ReadOnly    bool     `yaml:"read_only"`
	CapDrop     []string `yaml:"cap_drop"`
	SecurityOpt []string `yaml:"security_opt"`
	Deploy      struct {
		Resources struct {
			Limits map[string]string `yaml:"limits"`
		} `yaml:"resources"`
	} `yaml:"deploy"`
}

type composeBuild struct {
	Context    string `yaml:"context"`
	Dockerfile string `yaml:"dockerfile"`
}

func readCompose(t *testing.T) composeFile {
	t.Helper()
	var file composeFile
	if err := yaml.Unmarshal(readFile(t, composeDir+"compose.yaml"), &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Services) < 5 {
		t.Fatalf("%d services", len(file.Services))
	}
	return file
}

// prepareCompose runs prepare.sh and returns the directory of the files that it makes.
func prepareCompose(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	script := filepath.Join(dir, "prepare.sh")
	if err := os.WriteFile(script, readFile(t, composeDir+"prepare.sh"), 0o700); err != nil {
		t.Fatal(err)
	}
	runPrepare(t, script)
	return filepath.Join(dir, "secrets")
}

func runPrepare(t *testing.T, script string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "sh", script).CombinedOutput(); err != nil || len(out) > 0 { //nolint:gosec // our own script
		t.Fatalf("prepare.sh: %v\n%s", err, out)
	}
}

// mounted returns the files of a service that compose.yaml mounts, by their path in the
// container.
func (f composeFile) mounted(t *testing.T, name, secrets string) map[string]string {
	t.Helper()
	service := f.Services[name]
	files := map[string]string{}
	for _, c := range service.Configs {
		source, ok := f.Configs[c.Source]
		if !ok {
			t.Errorf("%s: no config %s", name, c.Source)
		}
		files[c.Target] = string(readFile(t, composeDir+source.File))
	}
	for _, s := range service.Secrets {
		source, ok := f.Secrets[s]
		below, isSecret := strings.CutPrefix(source.File, "./secrets/")
		if !ok || !isSecret {
			t.Errorf("%s: the secret %s is %q, which git does not ignore", name, s, source.File)
		}
		files["/run/secrets/"+s] = string(readFile(t, filepath.Join(secrets, below)))
	}
	return files
}

// published returns the ports of a service that the host publishes.
func (s composeService) published(t *testing.T) []int {
	t.Helper()
	var ports []int
	for _, text := range s.Ports {
		parts := strings.Split(text, ":")
		if len(parts) != 3 || parts[0] != "127.0.0.1" {
			t.Fatalf("%s is published to more than this machine", text)
		}
		port, err := strconv.Atoi(parts[2])
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, port)
	}
	return ports
}

// scrape is what the tests read of prometheus.yml.
type scrape struct {
	RuleFiles []string `yaml:"rule_files"`
	Scrapes   []struct {
		Job     string `yaml:"job_name"`
		Path    string `yaml:"metrics_path"`
		Targets []struct {
			Targets []string `yaml:"targets"`
		} `yaml:"static_configs"`
	} `yaml:"scrape_configs"`
}

func readScrape(t *testing.T) scrape {
	t.Helper()
	var file scrape
	if err := yaml.Unmarshal(readFile(t, composeDir+"prometheus.yml"), &file); err != nil {
		t.Fatal(err)
	}
	return file
}

// composeContainers are the uses of the binary by compose.yaml.
func composeContainers(t *testing.T) []container {
	t.Helper()
	file, secrets := readCompose(t), prepareCompose(t)
	service := file.Services["eligibilityd"]
	serve := container{where: "compose: eligibilityd", args: service.Command, environ: service.Environment, files: file.mounted(t, "eligibilityd", secrets), ports: service.published(t)}
	serve.files["/var/lib/eligibilityd/refresh-token"] = string(readFile(t, filepath.Join(secrets, "state", "refresh-token")))
	for _, one := range readScrape(t).Scrapes {
		for _, group := range one.Targets {
			for _, target := range group.Targets {
				host, port, _ := strings.Cut(target, ":")
				if host != "eligibilityd" {
					t.Errorf("prometheus.yml scrapes %s", target)
				}
				serve.paths = append(serve.paths, port+one.Path)
			}
		}
	}
	all := []container{serve, {where: "compose: simulator", args: file.Services["simulator"].Command}}
	if test := service.Healthcheck.Test; len(test) > 2 && test[0] == "CMD" && test[1] == "/eligibilityd" {
		all = append(all, container{where: "compose: health check", args: test[2:]})
	} else {
		t.Errorf("health check %q", test)
	}
	return all
}

var (
	pinned = regexp.MustCompile(`^[a-z0-9./-]+:v?\d+\.\d+\.\d+(-[a-z0-9.]+)?$`)
	inFile = regexp.MustCompile(`(/etc|/run|/var)/[\w./-]+`)
)

// Every container of compose.yaml has the least rights, and nothing of it is reachable
// from other machines.
func TestTheComposeFileKeepsToThisMachine(t *testing.T) {
	t.Parallel()
	file, secrets := readCompose(t), prepareCompose(t)
	for name, s := range file.Services {
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}) {
			t.Errorf("%s: read_only %t, cap_drop %q, security_opt %q", name, s.ReadOnly, s.CapDrop, s.SecurityOpt)
		}
		for _, limit := range []string{"cpus", "memory", "pids"} {
			if s.Deploy.Resources.Limits[limit] == "" {
				t.Errorf("%s has no limit of %s", name, limit)
			}
		}
		if s.Build == nil && !pinned.MatchString(s.Image) {
			t.Errorf("%s: the image %s has no version", name, s.Image)
		}
		if s.Build != nil && (s.PullPolicy != "build" || path.Clean(path.Join("deploy/compose", s.Build.Context)) != "." || s.Build.Dockerfile != "deploy/Dockerfile") {
			t.Errorf("%s is built from %+v, %s", name, *s.Build, s.PullPolicy)
		}
		if (len(s.Healthcheck.Test) > 0) == s.Healthcheck.Disable {
			t.Errorf("%s: health check %+v", name, s.Healthcheck)
		}
		if owner, ok := strings.CutPrefix(s.NetworkMode, "service:"); ok {
			// On the loopback of both, the image's health check would ask the other.
			if !s.Healthcheck.Disable || !s.DependsOn[owner].Restart {
				t.Errorf("%s shares the network of %s: health check %+v, depends on it %+v", name, owner, s.Healthcheck, s.DependsOn[owner])
			}
		} else if len(s.Networks) == 0 {
			t.Errorf("%s is on the default network", name)
		}
		for dependency, on := range s.DependsOn {
			if other := file.Services[dependency]; on.Condition == "service_healthy" && len(other.Healthcheck.Test) == 0 {
				t.Errorf("%s waits for the health of %s, which has no check", name, dependency)
			}
		}
		s.published(t)
		mounted := file.mounted(t, name, secrets)
		for _, word := range append(slices.Clone(s.Command), slices.Collect(maps.Values(s.Environment))...) {
			for _, found := range inFile.FindAllString(word, -1) {
				if _, ok := mounted[found]; !ok {
					t.Errorf("%s names %s, which is not mounted", name, found)
				}
			}
		}
	}
	for _, name := range []string{"cache", "metrics"} {
		if !file.Networks[name].Internal {
			t.Errorf("the network %s leads out of the machine", name)
		}
	}
	if !slices.Equal(file.Services["redis"].Networks, []string{"cache"}) {
		t.Error("more than the service reaches Redis")
	}
	if !slices.Contains(strings.Split(string(readFile(t, "../../.gitignore")), "\n"), "/deploy/compose/secrets/") {
		t.Error("git does not ignore the secrets")
	}
}

// The service of compose.yaml asks the simulator beside it, with credentials that the
// simulator knows, and finds Redis, as Grafana finds Prometheus and its dashboard.
func TestTheServicesOfTheComposeFileFindEachOther(t *testing.T) {
	t.Parallel()
	file := readCompose(t)
	containers := composeContainers(t)
	cfg := loadDeployed(t, containers[0])
	if len(cfg.Partners) != 1 {
		t.Fatalf("%d partners", len(cfg.Partners))
	}
	partner := cfg.Partners[0]
	address := newSimulateCommand().Flags().Lookup("address").DefValue
	if partner.BaseURL != "http://"+address || partner.Authority != "http://"+address || slices.Contains(file.Services["simulator"].Command, "--address") {
		t.Errorf("the service asks %s and %s; the simulator is at %s", partner.BaseURL, partner.Authority, address)
	}
	if partner.TenantID != pcsim.DefaultTenantID || partner.ClientID != pcsim.DefaultClientID || partner.ClientSecret.Reveal() != pcsim.DefaultClientSecret {
		t.Error("the simulator does not know the credentials of the service")
	}
	if got := containers[0].files[partnerFile]; got != pcsim.DefaultRefreshToken {
		t.Errorf("the refresh token is %q", got)
	}
	if file.Services["simulator"].NetworkMode != "service:eligibilityd" {
		t.Error("the simulator is not on the loopback of the service")
	}
	command := newSimulateCommand()
	if err := command.ParseFlags(file.Services["simulator"].Command[1:]); err != nil {
		t.Fatal(err)
	}
	scripts, err := command.Flags().GetStringArray("script")
	if err != nil || len(scripts) != 1 {
		t.Fatalf("%q, %v", scripts, err)
	}
	for _, c := range file.Services["simulator"].Configs {
		if c.Target == scripts[0] {
			if _, err := newSimulator(pcsim.Config{}, []string{composeDir + file.Configs[c.Source].File}); err != nil {
				t.Error(err)
			}
		}
	}
	if redis := cfg.Cache.Redis; !slices.Equal(redis.Addresses, []string{"redis:6379"}) || redis.IntegrityKey.IsZero() ||
		!strings.Contains(string(readFile(t, filepath.Join(prepareCompose(t), "redis.conf"))), "requirepass ") || redis.Password.IsZero() {
		t.Errorf("Redis at %v, integrity key %t, password %t", redis.Addresses, !redis.IntegrityKey.IsZero(), !redis.Password.IsZero())
	}

	prometheus := file.mounted(t, "prometheus", prepareCompose(t))
	for _, rules := range readScrape(t).RuleFiles {
		if text := prometheus[rules]; text != string(readFile(t, observability+"rules.yaml")) {
			t.Errorf("the rules at %s are not those of deploy/observability", rules)
		}
	}
	grafana := file.mounted(t, "grafana", prepareCompose(t))
	var sources struct {
		Datasources []struct {
			Type, URL string
			Default   bool `yaml:"isDefault"`
		} `yaml:"datasources"`
	}
	var dashboards struct {
		Providers []struct {
			Options struct{ Path string } `yaml:"options"`
		} `yaml:"providers"`
	}
	for at, into := range map[string]any{"/etc/grafana/provisioning/datasources/prometheus.yaml": &sources, "/etc/grafana/provisioning/dashboards/eligibilityd.yaml": &dashboards} {
		if err := yaml.Unmarshal([]byte(grafana[at]), into); err != nil {
			t.Fatal(err)
		}
	}
	if len(sources.Datasources) != 1 || len(dashboards.Providers) != 1 {
		t.Fatalf("%+v, %+v", sources, dashboards)
	}
	source := sources.Datasources[0]
	at, err := url.Parse(source.URL)
	if err != nil || file.Services[at.Hostname()].Image == "" || source.Type != "prometheus" || !source.Default || !slices.ContainsFunc(file.Services[at.Hostname()].Ports, func(p string) bool { return strings.HasSuffix(p, ":"+at.Port()) }) {
		t.Errorf("Grafana asks %+v, %v", source, err)
	}
	if got := grafana[dashboards.Providers[0].Options.Path+"/eligibilityd.json"]; got != string(readFile(t, observability+"dashboard.json")) {
		t.Error("Grafana does not get the dashboard of deploy/observability")
	}
}

// prepare.sh makes files that the users of containers can read and other users of this
// machine cannot, and keeps those that exist.
func TestPrepareMakesEachSecretOnce(t *testing.T) {
	t.Parallel()
	secrets := prepareCompose(t)
	script := filepath.Join(filepath.Dir(secrets), "prepare.sh")
	read := func() map[string]string {
		files := map[string]string{}
		err := filepath.WalkDir(secrets, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := entry.Info()
			if err != nil {
				return err
			}
			want := fs.FileMode(0o644)
			switch path {
			case secrets:
				want = fs.ModeDir | 0o700
			case filepath.Join(secrets, "state"):
				want = fs.ModeDir | 0o777
			default:
				files[path] = string(readFile(t, path))
			}
			if info.Mode() != want {
				t.Errorf("%s has mode %s, not %s", path, info.Mode(), want)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	first := read()
	if len(first) != 5 {
		t.Fatalf("%d files", len(first))
	}
	random := regexp.MustCompile(`^[0-9a-f]{64}$`)
	seen := map[string]bool{}
	for _, name := range []string{"redis-password", "integrity-key", "grafana-password"} {
		text := first[filepath.Join(secrets, name)]
		if !random.MatchString(text) || seen[text] {
			t.Errorf("%s is %q", name, text)
		}
		seen[text] = true
	}
	if want := "requirepass " + first[filepath.Join(secrets, "redis-password")] + "\n"; first[filepath.Join(secrets, "redis.conf")] != want {
		t.Error("Redis has another password than the service")
	}
	// A second run changes nothing but what a first one left empty.
	key := filepath.Join(secrets, "integrity-key")
	if err := os.WriteFile(key, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	runPrepare(t, script)
	second := read()
	if !random.MatchString(second[key]) {
		t.Errorf("an empty key stays %q", second[key])
	}
	delete(first, key)
	delete(second, key)
	if !maps.Equal(first, second) {
		t.Error("a second run replaced files")
	}
}

// Without random digits there is no secret rather than an empty or a short one.
func TestPrepareFailsWithoutRandomDigits(t *testing.T) {
	t.Parallel()
	for name, od := range map[string]string{"none": "exit 1", "too few": "echo ' 00 ff'; exit 1", "none, in silence": "exit 0"} {
		secrets := prepareCompose(t)
		script := filepath.Join(filepath.Dir(secrets), "prepare.sh")
		if err := os.RemoveAll(secrets); err != nil {
			t.Fatal(err)
		}
		bin := t.TempDir()
		if err := os.WriteFile(filepath.Join(bin, "od"), []byte("#!/bin/sh\n"+od+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "sh", script) //nolint:gosec // our own script
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "no random digits for secrets/redis-password") {
			t.Errorf("%s: %v, %s", name, err, out)
		}
		if files, err := filepath.Glob(secrets + "/*"); err != nil || !slices.Equal(files, []string{filepath.Join(secrets, "state")}) {
			t.Errorf("%s: it made %q, %v", name, files, err)
		}
		// Afterwards nothing is in the way of a second run.
		runPrepare(t, script)
	}
}

// partnerFile is where the service of compose.yaml keeps the refresh token.
const partnerFile = "/var/lib/eligibilityd/refresh-token"
