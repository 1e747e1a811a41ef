package main

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// imageContainers are the uses of the binary by deploy/Dockerfile, with the configuration
// of compose.yaml.
func imageContainers(t *testing.T) []container {
	t.Helper()
	text := strings.ReplaceAll(string(readFile(t, "../../deploy/Dockerfile")), "\\\n", "")
	words := func(instruction string) []string {
		found := regexp.MustCompile(`(?m)^`+instruction+` (\[.*\])$`).FindAllStringSubmatch(text, -1)
		var list []string
		if len(found) != 1 || json.Unmarshal([]byte(found[0][1]), &list) != nil {
			t.Fatalf("Dockerfile: %s %q", instruction, found)
		}
		return list
	}
	if got := words("ENTRYPOINT"); !slices.Equal(got, []string{"/eligibilityd"}) {
		t.Errorf("entry point %q", got)
	}
	if !strings.Contains(text, "\nUSER 65532:65532\n") {
		t.Error("the image has another user")
	}
	if sent := string(readFile(t, "../../deploy/Dockerfile.dockerignore")); !strings.Contains(sent, "\n*\n") || strings.Contains(sent, "!deploy") {
		t.Error("the build of the image gets the secrets of Compose")
	}
	check := words(`HEALTHCHECK .*CMD`)
	if check[0] != "/eligibilityd" {
		t.Errorf("health check %q", check)
	}
	image := composeContainers(t)[0]
	image.where, image.args, image.ports, image.paths = "Dockerfile", words("CMD"), nil, nil
	exposed := regexp.MustCompile(`(?m)^EXPOSE (.*)$`).FindStringSubmatch(text)
	if exposed == nil {
		t.Fatal("no port is exposed")
	}
	for port := range strings.FieldsSeq(exposed[1]) {
		number, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		image.ports = append(image.ports, number)
	}
	return []container{image, {where: "Dockerfile: health check", args: check[1:]}}
}

// unitContainers are the uses of the binary by the systemd unit, with the configuration
// that the project ships.
func unitContainers(t *testing.T) []container {
	t.Helper()
	text := string(readFile(t, "../../deploy/systemd/eligibilityd.service"))
	const credentials = "/run/credentials/eligibilityd.service/"
	c := container{where: "systemd", environ: map[string]string{}, files: map[string]string{
		"/etc/eligibilityd/config.yaml": strings.ReplaceAll(string(readFile(t, "../../deploy/config.example.yaml")), "00000000-0000-0000-0000-000000000000", "00000000-0000-4000-8000-000000000001"),
		partnerFile:                     "refresh-token",
	}}
	for line := range strings.SplitSeq(text, "\n") {
		setting, value, _ := strings.Cut(line, "=")
		switch setting {
		case "ExecStart":
			words := strings.Fields(value)
			if filepath.Base(words[0]) != "eligibilityd" {
				t.Errorf("ExecStart=%s", value)
			}
			c.args = words[1:]
		case "Environment":
			name, value, _ := strings.Cut(value, "=")
			c.environ[name] = strings.ReplaceAll(value, "%d/", credentials)
		case "LoadCredential":
			name, _, _ := strings.Cut(value, ":")
			c.files[credentials+name] = "client-secret"
		}
	}
	return []container{c}
}
