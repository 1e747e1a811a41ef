//go:build acceptance

package main

import (
	"encoding/json"
	goversion "go/version"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// baseOfThisMachine puts an image into a store, as a base for builds, that has nothing
// but this machine's programs, Go among them, and returns the flags to use it with.
func baseOfThisMachine(t *testing.T, images *store, name string) (flags []string) {
	t.Helper()
	where := func(variable string) string {
		out, err := exec.CommandContext(t.Context(), "go", "env", variable).Output() //nolint:gosec // of this test
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	container := images.run("from", "--quiet", "scratch")
	root := images.run("mount", container)
	for _, dir := range []string{"bin", "lib", "lib64", "sbin"} {
		if err := os.Symlink("usr/"+dir, filepath.Join(root, dir)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "tmp"), 0o777); err != nil { //nolint:gosec // as in any image
		t.Fatal(err)
	}
	flags = []string{"--volume", "/usr:/usr:ro"}
	if !strings.HasPrefix(where("GOROOT"), "/usr/") {
		flags = append(flags, "--volume", where("GOROOT")+":"+where("GOROOT")+":ro")
	}
	environ := []string{"--env", "PATH=" + where("GOROOT") + "/bin:/usr/bin:/bin"}
	for _, cache := range []string{"GOMODCACHE", "GOCACHE"} {
		flags = append(flags, "--volume", where(cache)+":/host/"+cache)
		environ = append(environ, "--env", cache+"=/host/"+cache)
	}
	images.run(append(append([]string{"config"}, environ...), container)...)
	images.run("commit", "--quiet", container, name)
	images.run("rm", container)
	return flags
}

// A container engine builds the image of `make image` from the Dockerfile.
func checkDockerfile(t *testing.T, ours *image) {
	t.Helper()
	dockerfile, err := os.ReadFile("../../deploy/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	base := regexp.MustCompile(`(?m)^FROM --platform=\$BUILDPLATFORM (golang:(\S+)) AS build$`).FindSubmatch(dockerfile)
	needed := goVersionOf(t, "../../go.mod")
	if len(base) == 0 || goversion.Compare("go"+string(base[2]), needed) < 0 {
		t.Fatalf("the first stage has %q, go.mod wants %s", base, needed)
	}
	tree := t.TempDir()
	copyTree(t, tree)
	images := newStore(t)
	flags := baseOfThisMachine(t, images, "docker.io/library/"+string(base[1]))
	images.run(append(append([]string{"build", "--quiet", "--pull-never", "--format", "docker", "--isolation", "chroot", "--timestamp", "0", "--identity-label=false", "--layers=false"}, flags...),
		"--build-arg", "VERSION="+imageVersion, "--build-arg", "COMMIT="+imageCommit, "--ignorefile", filepath.Join(tree, "deploy", "Dockerfile.dockerignore"),
		"--file", filepath.Join(tree, "deploy", "Dockerfile"), "--tag", "eligibilityd:"+imageVersion, tree)...)
	archive := filepath.Join(t.TempDir(), "image.oci.tar")
	images.run("push", "--quiet", "eligibilityd:"+imageVersion, "oci-archive:"+archive+":eligibilityd:"+imageVersion)
	byEngine := readImage(t, archive)
	var inspected struct {
		Docker struct{ Config imageSettings }
	}
	if err := json.Unmarshal([]byte(images.run("inspect", "--type", "image", "eligibilityd:"+imageVersion)), &inspected); err != nil {
		t.Fatal(err)
	}
	byEngine.config.Config.Healthcheck = inspected.Docker.Config.Healthcheck // which the archive of buildah lacks
	if diff := cmp.Diff(byEngine.config, ours.config); diff != "" {
		t.Errorf("configurations: %s", diff)
	}
	summary := func(of *image) map[string]string {
		digests := make(map[string]string)
		for name, file := range of.files {
			digests[name] = file.FileInfo().Mode().String() + " " + sha256Of(file.content)
		}
		return digests
	}
	if diff := cmp.Diff(summary(byEngine), summary(ours)); diff != "" {
		t.Errorf("files: %s", diff)
	}
}

// goVersionOf returns the oldest version of Go that a go.mod accepts.
func goVersionOf(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^go (\S+)$`).FindSubmatch(text)
	if line == nil {
		t.Fatalf("%s names no version of Go", file)
	}
	return "go" + string(line[1])
}
