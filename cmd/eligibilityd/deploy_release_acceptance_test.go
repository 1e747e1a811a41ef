//go:build acceptance

package main

import (
	"archive/zip"
	"bufio"
	"bytes"
	"compress/gzip"
	"debug/buildinfo"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// hashes returns the digest of each file of a directory.
func hashes(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for _, entry := range entries {
		found[entry.Name()] = strings.TrimPrefix(hashOf(t, filepath.Join(dir, entry.Name())), "sha256:")
	}
	return found
}

// Two releases of one tree are the same to the byte, in another directory, another time
// zone and under another umask too.
func TestAcceptanceDeployReleaseIsReproducible(t *testing.T) {
	first, second, elsewhere := filepath.Join(t.TempDir(), "release"), filepath.Join(t.TempDir(), "release"), t.TempDir()
	copyTree(t, elsewhere)
	makeTarget(t, "../..", "022", []string{"SOURCE_DATE_EPOCH=1790000000"}, "release", "RELEASE="+first)
	makeTarget(t, elsewhere, "077", []string{"SOURCE_DATE_EPOCH=1790000000", "TZ=Asia/Kathmandu", "LC_ALL=C.UTF-8"}, "release", "RELEASE="+second)
	files := hashes(t, first)
	if diff := cmp.Diff(files, hashes(t, second)); diff != "" {
		t.Errorf("two releases differ: %s", diff)
	}

	names := slices.Sorted(maps.Keys(files))
	t.Logf("a release has:\n%s", strings.Join(names, "\n"))
	sums := readSums(t, filepath.Join(first, "SHA256SUMS"))
	delete(files, "SHA256SUMS")
	if diff := cmp.Diff(files, sums); diff != "" {
		t.Errorf("checksums: %s", diff)
	}
	for _, platform := range []string{"linux-amd64", "linux-arm64", "darwin-amd64", "darwin-arm64", "windows-amd64"} {
		name := "eligibilityd-" + imageVersion + "-" + platform
		packed := unpack(t, filepath.Join(first, name))
		want := []string{"CHANGELOG.md", "LICENSE", "config.example.yaml", "config.partners.example.yaml", "eligibilityd", "eligibilityd.service"}
		switch {
		case strings.HasPrefix(platform, "windows"):
			want[4] = "eligibilityd.exe"
			want = want[:5]
		case strings.HasPrefix(platform, "darwin"):
			want = want[:5]
		}
		for i := range want {
			want[i] = name + "/" + want[i]
		}
		if diff := cmp.Diff(want, slices.Sorted(maps.Keys(packed))); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		checkBOM(t, filepath.Join(first, name+".cdx.json"), packed[want[4]])
		if strings.HasPrefix(platform, "linux") {
			checkStatic(t, packed[want[4]])
			inImage := readImage(t, filepath.Join(first, name+".oci.tar"))
			if !bytes.Equal(inImage.files["/eligibilityd"].content, packed[want[4]]) {
				t.Errorf("%s: the image has another program", name)
			}
			if _, architecture, _ := strings.Cut(platform, "-"); inImage.config.Architecture != architecture {
				t.Errorf("%s: the image is for %s", name, inImage.config.Architecture)
			}
		}
	}
}

// readSums returns the digests in a file of sha256sum.
func readSums(t *testing.T, name string) map[string]string {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }() // only read from
	sums := make(map[string]string)
	for lines := bufio.NewScanner(file); lines.Scan(); {
		sum, of, _ := strings.Cut(lines.Text(), "  ")
		sums[of] = sum
	}
	return sums
}

// unpack returns the files of an archive for a platform.
func unpack(t *testing.T, name string) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	if zipped, err := zip.OpenReader(name + ".zip"); err == nil {
		defer func() { _ = zipped.Close() }() // only read from
		for _, entry := range zipped.File {
			if entry.FileInfo().IsDir() {
				continue
			}
			content, err := entry.Open()
			if err != nil {
				t.Fatal(err)
			}
			if files[entry.Name], err = io.ReadAll(content); err != nil {
				t.Fatal(err)
			}
		}
		return files
	}
	zipped, err := os.ReadFile(name + ".tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(zipped))
	if err != nil {
		t.Fatal(err)
	}
	readTar(t, unzipped, func(entry *imageFile) {
		if entry.Uid != 0 || entry.Gid != 0 || entry.Uname != "" {
			t.Errorf("%s is %s's, %d:%d", entry.Name, entry.Uname, entry.Uid, entry.Gid)
		}
		if !entry.FileInfo().IsDir() {
			files[entry.Name] = entry.content
		}
	})
	return files
}

// checkBOM compares an SBOM with the modules that Go has recorded in a program.
func checkBOM(t *testing.T, name string, program []byte) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var bom struct {
		BOMFormat    string `json:"bomFormat"`
		SpecVersion  string `json:"specVersion"`
		SerialNumber string `json:"serialNumber"`
		Metadata     struct {
			Timestamp string `json:"timestamp"`
			Component struct {
				Name    string `json:"name"`
				Version string `json:"version"`
			} `json:"component"`
		} `json:"metadata"`
		Components []struct {
			Name    string `json:"name"`
			Version string `json:"version"`
		} `json:"components"`
	}
	if err := json.Unmarshal(text, &bom); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	main := bom.Metadata.Component
	if bom.BOMFormat != "CycloneDX" || bom.SpecVersion == "" || bom.SerialNumber != "" || bom.Metadata.Timestamp != "" ||
		main.Name != "github.com/eligibilityd/eligibilityd" || main.Version != "v"+imageVersion {
		t.Errorf("%s: %+v", name, bom.Metadata)
	}
	info, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil {
		t.Fatal(err)
	}
	listed, linked := make(map[string]string), map[string]string{"std": info.GoVersion}
	for _, component := range bom.Components {
		listed[component.Name] = component.Version
	}
	for _, dep := range info.Deps {
		linked[dep.Path] = dep.Version
		if dep.Replace != nil { // by a directory: a module of this repository
			linked[dep.Path] = "v" + imageVersion
		}
	}
	if diff := cmp.Diff(linked, listed); diff != "" || len(linked) < 20 {
		t.Errorf("%s lists other modules than the %d in the program: %s", name, len(linked), diff)
	}
}
