//go:build acceptance && linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// network is the network of a compose file, without a container engine: a network
// namespace for each service that has a network, with the addresses, names and ports of
// containers, all in a process namespace that ends with the test.
type network struct {
	file composeFile
	dir  string // that of compose.yaml
	base string // directory of the roots
	init int    // process that holds the namespaces
}

// startNetwork joins the namespaces with a bridge. Whoever is in none of them is the host.
const startNetwork = `set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir /run/netns
ip link set lo up
ip link add compose type bridge
ip addr add 172.31.255.1/24 dev compose
ip link set compose up
cp /etc/hosts /run/hosts
n=2
for name in "$@"; do
	ip netns add "$name"
	ip link add "veth$n" type veth peer name eth0 netns "$name"
	ip link set "veth$n" master compose up
	ip -n "$name" addr add "172.31.255.$n/24" dev eth0
	ip -n "$name" link set eth0 up
	ip -n "$name" link set lo up
	echo "172.31.255.$n $name" >>/run/hosts
	n=$((n + 1))
done
mount --bind /run/hosts /etc/hosts
echo ready
exec sleep infinity
`

func newNetwork(t *testing.T) *network {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("only root can make namespaces with the users of containers: run it as root")
	}
	n := &network{file: readCompose(t), base: t.TempDir()}
	// A copy, since prepare.sh writes beside itself.
	if err := os.CopyFS(filepath.Join(n.base, "deploy"), os.DirFS("../../deploy")); err != nil {
		t.Fatal(err)
	}
	for dir := n.base; dir != "/"; dir = filepath.Dir(dir) { // the users of containers come through
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm()&0o011 != 0o011 {
			if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // a directory
				t.Fatal(err)
			}
		}
	}
	n.dir = filepath.Join(n.base, "deploy", "compose")
	script := filepath.Join(n.dir, "prepare.sh")
	if err := os.Chmod(script, 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	runPrepare(t, script)

	args := []string{"-c", startNetwork, "network"}
	for _, name := range slices.Sorted(maps.Keys(n.file.Services)) {
		if n.file.Services[name].NetworkMode == "" {
			args = append(args, name)
		}
	}
	holder := exec.CommandContext(t.Context(), "bash", args...)
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	out := new(output)
	holder.Stdout, holder.Stderr = out, out
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = holder.Process.Kill() // and with it all processes of the namespace
		_ = holder.Wait()
	})
	n.init = holder.Process.Pid
	out.await(t, "the network", func(printed string) bool { return strings.Contains(printed, "ready\n") })
	return n
}

// command returns a command in the network of a service, or of the host.
func (n *network) command(t *testing.T, service string, args ...string) *exec.Cmd {
	t.Helper()
	if owner, ok := strings.CutPrefix(n.file.Services[service].NetworkMode, "service:"); ok {
		service = owner
	}
	enter := []string{"--target", strconv.Itoa(n.init), "--net", "--mount", "--pid"}
	if service != "" {
		enter = append(enter, "ip", "netns", "exec", service)
	}
	cmd := exec.CommandContext(t.Context(), "nsenter", append(enter, args...)...) //nolint:gosec // of our own files
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	return cmd
}

// shell runs a line on the host, or in the network of a service.
func (n *network) shell(t *testing.T, service, line string) (string, error) {
	t.Helper()
	cmd := n.command(t, service, "bash", "-c", line)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// mountRoot makes the root of a container: of nothing but the program, if the image is
// ours, else of this machine. The mounts of compose.yaml are mounted, the rest is
// read-only.
const mountRoot = `set -eu
root=$1 own=$2 user=$3
shift 3
if [ "$own" = true ]; then
	mount --bind "$root" "$root"
else
	mkdir "$root.rw"
	mount -t tmpfs tmpfs "$root.rw"
	mkdir "$root.rw/upper" "$root.rw/work"
	mount -t overlay overlay -o "lowerdir=/,upperdir=$root.rw/upper,workdir=$root.rw/work" "$root"
	mount --bind /dev "$root/dev"
	mount -t tmpfs tmpfs "$root/run"
fi
mkdir -p "$root/etc" "$root/proc"
mount --bind /proc "$root/proc"
touch "$root/etc/hosts"
mount --bind /etc/hosts "$root/etc/hosts"
while [ $# -gt 0 ]; do
	case $1 in
	file) mkdir -p "$(dirname "$root$3")"; touch "$root$3"; mount --bind -o ro "$2" "$root$3" ;;
	dir) mkdir -p "$root$3"; mount --bind "$2" "$root$3" ;;
	volume) mkdir -p "$root$3"; mount -t tmpfs tmpfs "$root$3"; chown "$user" "$root$3" ;;
	esac
	shift 3
done
mount -o remount,ro,bind "$root"
`

// root makes the root of a service and returns its path.
func (n *network) root(t *testing.T, name, user string, program []byte) string {
	t.Helper()
	root := filepath.Join(n.base, "roots", name)
	if err := os.MkdirAll(root, 0o755); err != nil { //nolint:gosec // the root of a container
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(root), 0o711); err != nil { //nolint:gosec // a directory
		t.Fatal(err)
	}
	if program != nil {
		if err := os.WriteFile(filepath.Join(root, "eligibilityd"), program, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"bash", "-c", mountRoot, "root", root, strconv.FormatBool(program != nil), user}
	service := n.file.Services[name]
	for _, c := range service.Configs {
		args = append(args, "file", filepath.Join(n.dir, n.file.Configs[c.Source].File), c.Target)
	}
	for _, s := range service.Secrets {
		args = append(args, "file", filepath.Join(n.dir, n.file.Secrets[s].File), "/run/secrets/"+s)
	}
	var volumes []any
	if err := service.Volumes.Decode(&volumes); err != nil {
		t.Fatal(err)
	}
	for _, volume := range volumes {
		switch v := volume.(type) {
		case string:
			_, target, _ := strings.Cut(v, ":")
			args = append(args, "volume", "-", target)
		case map[string]any:
			args = append(args, "dir", filepath.Join(n.dir, fmt.Sprint(v["source"])), fmt.Sprint(v["target"]))
		}
	}
	if out, err := n.command(t, "", args...).CombinedOutput(); err != nil {
		t.Fatalf("root of %s: %v\n%s", name, err, out)
	}
	return root
}

// inside returns the arguments that run a command in a root as its user, without rights.
func inside(root, user string, args ...string) []string {
	uid, gid, _ := strings.Cut(user, ":")
	return append([]string{"setpriv", "--no-new-privs", "chroot", "--userspec=" + uid + ":" + gid, "--groups=", root}, args...)
}

// running is a container that was started.
type running struct {
	log *output
	end func() // and wait until it has ended
}

// run starts a command of a service and ends it with the test.
func (n *network) run(t *testing.T, name string, args []string) *running {
	t.Helper()
	r := &running{log: new(output)}
	cmd := n.command(t, name, args...)
	cmd.Stdout, cmd.Stderr = r.log, r.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	r.end = func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
	}
	t.Cleanup(func() {
		r.end()
		if t.Failed() {
			t.Logf("%s: %s", name, r.log)
		}
	})
	return r
}

// healthy waits until the health check of a service passes.
func (n *network) healthy(t *testing.T, name, root, user string) {
	t.Helper()
	check := n.file.Services[name].Healthcheck.Test
	args := check[1:]
	if check[0] == "CMD-SHELL" {
		args = []string{"sh", "-c", strings.ReplaceAll(check[1], "$$", "$")}
	}
	eventually(t, "the health of "+name, func() bool {
		return n.command(t, name, inside(root, user, args...)...).Run() == nil
	})
}

// The processes of compose.yaml answer the README's curl: with the arguments, users,
// files, host names and ports of their containers, in the order in which Compose starts
// them, without rights, in roots that they cannot write to. Debian's redis-server and
// Prometheus stand for those of the images.
func TestAcceptanceDeployComposeServesTheReadme(t *testing.T) {
	n := newNetwork(t)
	binary := filepath.Join(n.base, "eligibilityd")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-o", binary, ".") //nolint:gosec // our own arguments
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	program := readFile(t, binary)
	service, simulate, redis, prometheus := n.file.Services["eligibilityd"], n.file.Services["simulator"], n.file.Services["redis"], n.file.Services["prometheus"]

	redisRoot := n.root(t, "redis", redis.User, nil)
	n.run(t, "redis", inside(redisRoot, redis.User, redis.Command...))
	n.healthy(t, "redis", redisRoot, redis.User)
	if out, _ := n.shell(t, "", "redis-cli -h redis ping"); !strings.Contains(out, "NOAUTH") {
		t.Errorf("Redis answers without its password: %s", out)
	}

	root := n.root(t, "eligibilityd", service.User, program)
	serve := n.run(t, "eligibilityd", inside(root, service.User, append([]string{"/eligibilityd"}, service.Command...)...))
	// Compose starts the simulator once the service runs, before it is healthy.
	serve.log.await(t, "the record that it serves", func(printed string) bool {
		return strings.Contains(printed, `"msg":"serving"`)
	})
	simulatorRoot := n.root(t, "simulator", simulate.User, program)
	simulator := inside(simulatorRoot, simulate.User, append([]string{"/eligibilityd"}, simulate.Command...)...)
	simulating := n.run(t, "simulator", simulator)
	n.healthy(t, "eligibilityd", root, service.User)

	documented := commandsOf(t, "../../README.md", "Try it")[1][0]
	if own := string(readFile(t, composeDir+"README.md")); !strings.Contains(own, "\n"+documented+"\n") {
		t.Fatalf("the README of compose does not have %q", documented)
	}
	out, err := n.shell(t, "eligibilityd", documented)
	if err != nil || !strings.Contains(out, "ACCOUNT_ALLOWED") {
		t.Errorf("%s: %v\n%s", documented, err, out)
	}
	// As the engine forwards it, from the host's loopback to the address of the container.
	forwarded := strings.Replace(documented, "curl ", "curl --connect-to localhost:8080:eligibilityd:8080 ", 1)
	if out, err := n.shell(t, "", forwarded); err != nil || !strings.Contains(out, "ACCOUNT_ALLOWED") {
		t.Errorf("%s: %v\n%s", forwarded, err, out)
	}
	// Of simulator.example.yaml.
	if out, err := n.shell(t, "", "curl -s http://eligibilityd:8080/v1/customers/11111111-1111-4111-8111-111111111111/eligibility?segment=EDUCATION"); err != nil || !strings.Contains(out, "QUALIFICATION_APPROVED") {
		t.Errorf("a customer of the script: %v\n%s", err, out)
	}
	// No other container reaches the simulator, nor its control API.
	for _, port := range []string{"9080", "9081", "9091"} {
		if out, err := n.shell(t, "", "curl -s -m 3 http://eligibilityd:"+port+"/"); err == nil {
			t.Errorf("port %s answers others: %s", port, out)
		}
	}

	password := strings.TrimSpace(string(readFile(t, filepath.Join(n.dir, "secrets", "redis-password"))))
	eventually(t, "evidence in Redis", func() bool {
		cmd := n.command(t, "", "redis-cli", "-h", "redis", "--raw", "keys", "eligibility:*")
		cmd.Env = append(cmd.Env, "REDISCLI_AUTH="+password)
		keys, err := cmd.Output()
		return err == nil && bytes.Contains(keys, []byte(":a0000000000040008000000000000001:account"))
	})
	stored := filepath.Join(n.dir, "secrets", "state", "refresh-token")
	eventually(t, "the successor of the refresh token", func() bool {
		return string(readFile(t, stored)) != pcsim.DefaultRefreshToken
	})
	if info, err := os.Stat(stored); err != nil || info.Mode() != 0o600 {
		t.Errorf("the refresh token is stored with %v, %v", info, err)
	}

	// All is well, in the words of the service itself.
	out, err = n.shell(t, "", "curl -s http://eligibilityd:9092/readyz?verbose")
	var ready struct {
		Status     string
		Components []struct{ Name, State string }
	}
	if err != nil || json.Unmarshal([]byte(out), &ready) != nil || ready.Status != "ready" || len(ready.Components) < 4 {
		t.Errorf("readyz: %v\n%s", err, out)
	}
	for _, c := range ready.Components {
		if c.State != "ok" {
			t.Errorf("%s is %s", c.Name, c.State)
		}
	}

	// The simulator's restart loses nothing: it knows the token that the service stored.
	simulating.end()
	n.run(t, "simulator", simulator)
	eventually(t, "an answer that the new simulator gave", func() bool {
		out, err := n.shell(t, "", "curl -s 'http://eligibilityd:8080/v1/customers/a0000000-0000-4000-8000-000000000002/eligibility?max_age=0s'")
		return err == nil && strings.Contains(out, "ACCOUNT_UNDER_REVIEW")
	})

	// Prometheus scrapes the service, and has the rules.
	const nobody = "65534:65534"
	prometheusRoot := n.root(t, "prometheus", nobody, nil)
	n.run(t, "prometheus", inside(prometheusRoot, nobody, append([]string{"prometheus"}, prometheus.Command...)...))
	eventually(t, "a scrape of the service", func() bool {
		out, err := n.shell(t, "", "curl -s http://prometheus:9090/api/v1/targets")
		var targets struct {
			Data struct {
				ActiveTargets []struct {
					Health, ScrapeURL string
				}
			}
		}
		return err == nil && json.NewDecoder(strings.NewReader(out)).Decode(&targets) == nil && len(targets.Data.ActiveTargets) == 1 &&
			targets.Data.ActiveTargets[0].Health == "up" && targets.Data.ActiveTargets[0].ScrapeURL == "http://eligibilityd:9092/metrics"
	})
	out, err = n.shell(t, "", "curl -s http://prometheus:9090/api/v1/rules")
	for _, rule := range readRules(t) {
		if name := rule.Alert + rule.Record; err != nil || !strings.Contains(out, `"name":"`+name+`"`) {
			t.Fatalf("Prometheus has no rule %s: %v\n%s", name, err, out)
		}
	}
	if out, err := n.command(t, "prometheus", inside(prometheusRoot, nobody, "promtool", "check", "config", "/etc/prometheus/prometheus.yml")...).CombinedOutput(); err != nil {
		t.Errorf("promtool check config: %v\n%s", err, out)
	}
}
