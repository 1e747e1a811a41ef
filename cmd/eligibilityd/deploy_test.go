package main

import (
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/loopback"
)

// container is one use of the binary by a package of deploy/.
type container struct {
	where   string            // in messages
	args    []string          // after /eligibilityd
	environ map[string]string // of the container
	files   map[string]string // path in the container → contents

	ports []int    // that others connect to
	paths []string // that others get from ports
}

// foreignVariables are the variables, other than those of the configuration, that
// libraries in the binary read.
var foreignVariables = []string{"AZURE_CLIENT_ID", "AZURE_TOKEN_CREDENTIALS", "GOMEMLIMIT"}

// Whatever deploy/ passes to the binary exists in it: commands, flags, keys, variables,
// ports and paths.
func TestWhatIsDeployedExistsInTheBinary(t *testing.T) {
	t.Parallel()
	p := startDev(t, "ELIGIBILITY_SERVER__PROBE__ADDRESS=127.0.0.1:0")
	asked := &statuses{of: map[string]int{}}
	for _, c := range deployed(t) {
		t.Run(c.where, func(t *testing.T) {
			t.Parallel()
			checkArguments(t, c.args)
			if command := c.args[0]; command != "serve" && command != "login" { // the commands with a configuration
				return
			}
			cfg := loadDeployed(t, c)
			open := map[int]string{}
			for at, base := range map[string]string{cfg.Server.GRPC.Address: "", cfg.Server.HTTP.Address: "http://" + p.HTTP, cfg.Server.Probe.Address: "http://" + p.Probe} {
				if host, port, err := net.SplitHostPort(at); err == nil && !loopback.IsHost(host) {
					number, _ := strconv.Atoi(port) // checked by Load
					open[number] = base
				}
			}
			for _, port := range c.ports {
				if _, ok := open[port]; !ok {
					t.Errorf("nothing that others reach listens on port %d: %v", port, open)
				}
			}
			for _, path := range c.paths {
				port, path, _ := strings.Cut(path, "/")
				number, _ := strconv.Atoi(port)
				if open[number] == "" {
					t.Errorf("no HTTP on port %q for /%s: %v", port, path, open)
				} else if code := asked.status(t, open[number]+"/"+path); code != http.StatusOK {
					t.Errorf("/%s on port %s: %d", path, port, code)
				}
			}
		})
	}
}

// statuses are the answers of a service, which is asked once for each URL, as it bounds
// the scrapes in progress.
type statuses struct {
	mu sync.Mutex
	of map[string]int // URL → code
}

func (s *statuses) status(t *testing.T, url string) int {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if code, ok := s.of[url]; ok {
		return code
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	// A connection that is kept, and not used, delays the end of the service.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	s.of[url] = resp.StatusCode
	return resp.StatusCode
}

// deployed returns every use of the binary by deploy/.
func deployed(t *testing.T) []container {
	t.Helper()
	return slices.Concat(composeContainers(t), imageContainers(t), unitContainers(t), chartContainers(t), bicepContainers(t))
}

// checkArguments fails the test if the program has no such command, flag or argument.
func checkArguments(t *testing.T, args []string) {
	t.Helper()
	command, rest, err := newRootCommand().Find(args)
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	if command.Parent() == nil {
		t.Fatalf("%q names no command", args)
	}
	if err := command.ParseFlags(rest); err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	if err := command.ValidateArgs(command.Flags().Args()); err != nil {
		t.Fatalf("%q: %v", args, err)
	}
}

// loadDeployed loads the configuration of serve, as it is in the container.
func loadDeployed(t *testing.T, c container) *config.Config {
	t.Helper()
	dir := t.TempDir()
	var moved []string
	for path := range c.files {
		moved = append(moved, path, filepath.Join(dir, path))
	}
	here := strings.NewReplacer(moved...)
	for path, text := range c.files {
		to := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, []byte(here.Replace(text)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var environ []string
	for _, name := range slices.Sorted(maps.Keys(c.environ)) {
		if !strings.HasPrefix(name, "ELIGIBILITY_") && !slices.Contains(foreignVariables, name) {
			t.Errorf("nothing in the binary reads %s", name)
		}
		environ = append(environ, name+"="+here.Replace(c.environ[name]))
	}
	path := ""
	if i := slices.Index(c.args, "--config"); i >= 0 && i+1 < len(c.args) {
		path = c.args[i+1]
		if _, ok := c.files[path]; !ok {
			t.Fatalf("no file is mounted at %s", path)
		}
		path = filepath.Join(dir, path)
	}
	cfg, err := config.Load(path, environ, config.Serve)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}
