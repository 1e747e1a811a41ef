//go:build acceptance

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	imageVersion = "1.2.3-rc.1"
	imageCommit  = "0123456789abcdef0123456789abcdef01234567"
	imageUser    = "65532:65532"
	// maxImageBytes bounds the files of the image, unpacked.
	maxImageBytes = 45_000_000
)

// makeTarget runs make in the root of a tree, under an umask.
func makeTarget(t *testing.T, root, umask string, environ []string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", append([]string{"-ec", `umask "$0"; exec make "$@"`, umask, //nolint:gosec // of this test
		"--no-print-directory", "VERSION=" + imageVersion, "COMMIT=" + imageCommit}, args...)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), environ...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make %q: %v\n%s", args, err, out)
	}
}

func TestAcceptanceDeployImage(t *testing.T) {
	archive := filepath.Join(t.TempDir(), "image.oci.tar")
	makeTarget(t, "../..", "022", nil, "image", "IMAGE="+archive)
	found := readImage(t, archive)
	t.Run("holds what it promises", func(t *testing.T) {
		t.Logf("the archive has %d bytes", fileSize(t, archive))
		checkImage(t, found)
	})
	t.Run("is the same each time", func(t *testing.T) {
		again := filepath.Join(t.TempDir(), "again.oci.tar")
		makeTarget(t, "../..", "077", []string{"TZ=Asia/Kathmandu"}, "image", "IMAGE="+again)
		if one, two := hashOf(t, archive), hashOf(t, again); one != two {
			t.Errorf("%s and %s", one, two)
		}
	})
	t.Run("loads as an archive of Docker", func(t *testing.T) { checkDockerArchive(t, archive, found) })
	t.Run("runs confined", func(t *testing.T) { checkImageRuns(t, archive, found) })
	t.Run("is what the Dockerfile builds", func(t *testing.T) { checkDockerfile(t, found) })
}

// image is what an archive in the layout of the OCI holds.
type image struct {
	tags   []string
	config imageConfig
	files  map[string]*imageFile
}

type imageConfig struct {
	Created      string        `json:"created"`
	Architecture string        `json:"architecture"`
	OS           string        `json:"os"`
	Config       imageSettings `json:"config"`
}

type imageSettings struct {
	User         string
	Entrypoint   []string
	Cmd          []string
	Env          []string
	Labels       map[string]string
	ExposedPorts map[string]struct{}
	Healthcheck  struct {
		Test                           []string
		Interval, Timeout, StartPeriod int64
	}
}

// imageFile is a file of a layer.
type imageFile struct {
	tar.Header

	content []byte
}

// readTar calls with for each entry.
func readTar(t *testing.T, from io.Reader, with func(*imageFile)) {
	t.Helper()
	for reader := tar.NewReader(from); ; {
		header, err := reader.Next()
		if err == io.EOF { //nolint:errorlint // as archive/tar documents it
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		with(&imageFile{*header, content})
	}
}

// readImage follows the digests of an archive from its index.
func readImage(t *testing.T, archive string) *image {
	t.Helper()
	file, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }() // only read from
	entries := make(map[string][]byte)
	readTar(t, file, func(entry *imageFile) { entries[entry.Name] = entry.content })
	type descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int               `json:"size"`
		Annotations map[string]string `json:"annotations"`
	}
	blobs := 0
	blob := func(of descriptor) []byte {
		content := entries["blobs/sha256/"+strings.TrimPrefix(of.Digest, "sha256:")]
		if len(content) != of.Size || sha256Of(content) != of.Digest {
			t.Fatalf("the blob %s has %d bytes and %s", of.Digest, len(content), sha256Of(content))
		}
		blobs++
		return content
	}
	decode := func(content []byte, into any) {
		if err := json.Unmarshal(content, into); err != nil {
			t.Fatal(err)
		}
	}
	var index struct {
		Manifests []descriptor `json:"manifests"`
	}
	decode(entries["index.json"], &index)
	if len(index.Manifests) != 1 {
		t.Fatalf("%d images", len(index.Manifests))
	}
	var manifest struct {
		Config descriptor   `json:"config"`
		Layers []descriptor `json:"layers"`
	}
	decode(blob(index.Manifests[0]), &manifest)
	found := &image{tags: []string{index.Manifests[0].Annotations["org.opencontainers.image.ref.name"]}, files: make(map[string]*imageFile)}
	if manifest.Config.MediaType != "application/vnd.oci.image.config.v1+json" {
		t.Errorf("the configuration is %s", manifest.Config.MediaType)
	}
	decode(blob(manifest.Config), &found.config)
	for _, layer := range manifest.Layers {
		unzipped, err := gzip.NewReader(bytes.NewReader(blob(layer)))
		if err != nil {
			t.Fatal(err)
		}
		readTar(t, unzipped, func(entry *imageFile) { found.files["/"+strings.Trim(entry.Name, "/")] = entry })
	}
	names := 0
	for name := range entries {
		if strings.HasPrefix(name, "blobs/sha256/") && path.Base(name) != "sha256" {
			names++
		}
	}
	if names != blobs {
		t.Errorf("%d blobs, of which the image has %d", names, blobs)
	}
	return found
}

func checkImage(t *testing.T, found *image) {
	t.Helper()
	config := found.config.Config
	if diff := cmp.Diff(map[string]string{
		"org.opencontainers.image.title":         "eligibilityd",
		"org.opencontainers.image.description":   "The purchase gate for Microsoft CSP partners",
		"org.opencontainers.image.version":       imageVersion,
		"org.opencontainers.image.revision":      imageCommit,
		"org.opencontainers.image.licenses":      "Apache-2.0",
		"org.opencontainers.image.source":        "https://github.com/eligibilityd/eligibilityd",
		"org.opencontainers.image.url":           "https://github.com/eligibilityd/eligibilityd",
		"org.opencontainers.image.documentation": "https://github.com/eligibilityd/eligibilityd/blob/main/docs/install.md",
	}, config.Labels); diff != "" {
		t.Errorf("labels: %s", diff)
	}
	for what, pair := range map[string][2]any{
		"tag":          {found.tags, []string{"eligibilityd:" + imageVersion}},
		"created":      {found.config.Created, "1970-01-01T00:00:00Z"},
		"os":           {found.config.OS, "linux"},
		"user":         {config.User, imageUser},
		"entry point":  {config.Entrypoint, []string{"/eligibilityd"}},
		"command":      {config.Cmd, []string{"serve", "--config", "/etc/eligibilityd/config.yaml"}},
		"ports":        {config.ExposedPorts, map[string]struct{}{"9090/tcp": {}, "8080/tcp": {}, "9092/tcp": {}}},
		"health check": {config.Healthcheck.Test, []string{"CMD", "/eligibilityd", "health"}},
	} {
		if diff := cmp.Diff(pair[1], pair[0]); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	if check := config.Healthcheck; check.Interval == 0 || check.Timeout == 0 || check.StartPeriod == 0 {
		t.Errorf("the health check lacks times: %+v", check)
	}
	size := 0
	var paths []string
	for name, file := range found.files {
		size += len(file.content)
		paths = append(paths, fmt.Sprintf("%s %v %d:%d", name, file.FileInfo().Mode(), file.Uid, file.Gid))
		if file.ModTime.Unix() != 0 {
			t.Errorf("%s is of %v", name, file.ModTime)
		}
	}
	slices.Sort(paths)
	t.Logf("its files have %d bytes:\n%s", size, strings.Join(paths, "\n"))
	if diff := cmp.Diff([]string{
		"/eligibilityd -rwxr-xr-x 0:0",
		"/etc drwxr-xr-x 0:0",
		"/etc/ssl drwxr-xr-x 0:0",
		"/etc/ssl/certs drwxr-xr-x 0:0",
		"/etc/ssl/certs/ca-certificates.crt -rw-r--r-- 0:0",
		"/var drwxr-xr-x 0:0",
		"/var/lib drwxr-xr-x 0:0",
		"/var/lib/eligibilityd drwx------ 65532:65532",
	}, paths); diff != "" {
		t.Errorf("files: %s", diff)
	}
	if size > maxImageBytes {
		t.Errorf("the files have %d bytes", size)
	}
	checkStatic(t, found.files["/eligibilityd"].content)
	if certificates := bytes.Count(found.files["/etc/ssl/certs/ca-certificates.crt"].content, []byte("BEGIN CERTIFICATE")); certificates < 100 {
		t.Errorf("%d authorities", certificates)
	}
}

// docker load without containerd reads another index of the archive than the OCI's.
func checkDockerArchive(t *testing.T, archive string, found *image) {
	t.Helper()
	images := newStore(t)
	images.run("pull", "--quiet", "docker-archive:"+archive)
	var loaded struct {
		Docker struct{ Config imageSettings }
	}
	if err := json.Unmarshal([]byte(images.run("inspect", "--type", "image", "eligibilityd:"+imageVersion)), &loaded); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(found.config.Config, loaded.Docker.Config); diff != "" {
		t.Errorf("configurations: %s", diff)
	}
}

// checkStatic fails the test if a program needs a loader or a library.
func checkStatic(t *testing.T, program []byte) {
	t.Helper()
	binary, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		t.Fatal(err)
	}
	libraries, err := binary.ImportedLibraries()
	if err != nil || len(libraries) > 0 {
		t.Errorf("the program needs %q, %v", libraries, err)
	}
	for _, segment := range binary.Progs {
		if segment.Type == elf.PT_INTERP {
			t.Error("the program needs a loader")
		}
	}
}

func fileSize(t *testing.T, name string) int64 {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// store is a store of images and containers of buildah.
type store struct {
	t    *testing.T
	dirs []string
}

func newStore(t *testing.T) *store {
	t.Helper()
	dir := t.TempDir()
	s := &store{t, []string{"--storage-driver", "vfs", "--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run")}}
	t.Cleanup(func() { s.run("rm", "--all") }) // unmounts
	return s
}

// try runs buildah and returns what it has printed on both outputs.
func (s *store) try(args ...string) (string, error) {
	out, err := exec.Command("buildah", append(slices.Clone(s.dirs), args...)...).CombinedOutput() //nolint:gosec,noctx // of this test, whose cleanup runs it too
	return strings.TrimSpace(string(out)), err
}

func (s *store) run(args ...string) string {
	s.t.Helper()
	out, err := s.try(args...)
	if err != nil {
		s.t.Fatalf("buildah %q: %v\n%s", args, err, out)
	}
	return out
}

// The image runs as it would in production: its own command, as its user, without
// capabilities, with a root that it cannot write to, and without a network.
func checkImageRuns(t *testing.T, archive string, found *image) {
	t.Helper()
	config := found.config.Config
	images := newStore(t)
	container := images.run("from", "--quiet", "oci-archive:"+archive)
	if out, err := images.try("run", "--isolation", "chroot", container, "--", "/bin/sh", "-c", "true"); err == nil {
		t.Errorf("it has a shell: %s", out)
	}

	root := images.run("mount", container)
	inside := []string{"chroot", "--userspec=" + imageUser, root}
	version := slices.Concat(inside, config.Entrypoint, []string{"version"})
	out, err := exec.CommandContext(t.Context(), version[0], version[1:]...).CombinedOutput() //nolint:gosec // of this test
	if err != nil || !strings.Contains(string(out), "eligibilityd "+imageVersion+"\ncommit "+imageCommit) {
		t.Errorf("the version is %s, %v", out, err)
	}
	if err := os.MkdirAll(filepath.Join(root, "etc", "eligibilityd"), 0o755); err != nil { //nolint:gosec // the user of the image reads it
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "etc", "eligibilityd", "config.yaml"), []byte(`
partner_center:
  tenant_id: 70000000-0000-4000-8000-000000000001
  client_id: 80000000-0000-4000-8000-000000000001
  client_secret: not-a-secret
  flow: app_only
`), 0o644); err != nil {
		t.Fatal(err)
	}
	var log output
	server := exec.CommandContext(t.Context(), "unshare", append([]string{"--mount", "--net", "sh", "-ec", //nolint:gosec // of this test
		`ip link set lo up; mount --bind -o ro "$0" "$0"; exec "$@"`, root}, slices.Concat(inside, config.Entrypoint, config.Cmd)...)...)
	server.Stdout, server.Stderr = &log, &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	t.Cleanup(func() { _ = server.Process.Kill() })
	health := func() (string, error) {
		enter := []string{"--target", fmt.Sprint(server.Process.Pid), "--mount", "--net", "--"}
		out, err := exec.CommandContext(t.Context(), "nsenter", slices.Concat(enter, inside, config.Healthcheck.Test[1:])...).CombinedOutput() //nolint:gosec // of this test
		return string(out), err
	}
	eventually(t, "the health check of the image", func() bool {
		select {
		case err := <-ended:
			t.Fatalf("it ended: %v\n%s", err, log.String())
		default:
		}
		_, err := health()
		return err == nil
	})
	if out, err := health(); err != nil || out != "SERVING\n" {
		t.Errorf("%v %q", err, out)
	}
	checkConfined(t, server.Process.Pid)

	if err := server.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a health check that fails in the drain", func() bool {
		out, err := health()
		return err != nil && strings.Contains(out, "NOT_SERVING")
	})
	if err := server.Process.Signal(syscall.SIGTERM); err != nil { // ends the drain
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v\n%s", err, log.String())
	}
}

// checkConfined fails the test if a process is root, has a capability, or can write to
// its root.
func checkConfined(t *testing.T, pid int) {
	t.Helper()
	read := func(name string) string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	status := read("status")
	for _, want := range []string{"Uid:\t65532\t65532\t65532\t65532", "Gid:\t65532\t65532\t65532\t65532", "CapEff:\t0000000000000000"} {
		if !strings.Contains(status, want) {
			t.Errorf("no %q in %s", want, status)
		}
	}
	for line := range strings.Lines(read("mountinfo")) {
		if fields := strings.Fields(line); fields[4] == "/" {
			if !slices.Contains(strings.Split(fields[5], ","), "ro") {
				t.Errorf("its root can be written to: %s", line)
			}
			return
		}
	}
	t.Error("it has no root")
}

func hashOf(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return sha256Of(content)
}

func sha256Of(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// copyTree copies the files that git knows, or would add, into an empty directory.
func copyTree(t *testing.T, to string) {
	t.Helper()
	copying := exec.CommandContext(t.Context(), "bash", "-ec", //nolint:gosec // of this test
		`set -o pipefail; git ls-files -z --cached --others --exclude-standard | while IFS= read -rd '' f; do [[ ! -e $f ]] || printf '%s\0' "$f"; done | tar --create --null --no-recursion --files-from - | tar --extract --directory "$0"`, to)
	copying.Dir = "../.."
	if out, err := copying.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
