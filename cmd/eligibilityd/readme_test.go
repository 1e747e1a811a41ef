package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// commandsOf returns the lines of the shell blocks of a section of a document, block
// by block.
func commandsOf(t *testing.T, path, heading string) [][]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("%s has no section %q", path, heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var blocks [][]string
	for _, rest := range strings.Split(section, "```sh\n")[1:] {
		block, _, _ := strings.Cut(rest, "```")
		blocks = append(blocks, strings.Split(strings.TrimSpace(block), "\n"))
	}
	return blocks
}

// The commands of the README start the service with TLS and a token, and query it.
// They run word for word, but for the ports, the build, and the simulator's control API.
func TestTheCommandsForAnOpenNetworkWork(t *testing.T) {
	t.Parallel()
	blocks := commandsOf(t, "../../README.md", "Safe on an open network")
	if len(blocks) != 2 || len(blocks[0]) != 4 || blocks[0][0] != "make build" || len(blocks[1]) != 2 {
		t.Fatalf("%q", blocks)
	}
	dir := builtTree(t)
	run := func(ctx context.Context, line string, environ ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, "bash", "-ec", line) //nolint:gosec // of one of our own documents
		cmd.Dir, cmd.Env = dir, append(append(os.Environ(), asProgram+"=1"), environ...)
		return cmd
	}
	for _, line := range blocks[0][1:3] {
		if out, err := run(t.Context(), line).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
	p := start(t, func(ctx context.Context, out, log io.Writer) error {
		line := "exec env " + blocks[0][3] + " --control-address 127.0.0.1:0" // exec: the signal is for the service
		cmd := run(ctx, line, anyPort()...)
		cmd.Stdout, cmd.Stderr = out, log
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		err := cmd.Run()
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the test ended it
		}
		return err
	})
	for _, line := range blocks[1] {
		line = strings.NewReplacer("localhost:9090", "localhost:"+portOf(p.GRPC), "localhost:8080", "localhost:"+portOf(p.HTTP)).Replace(line)
		var stderr bytes.Buffer
		cmd := run(t.Context(), line)
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil || !strings.Contains(string(out), "ACCOUNT_ALLOWED") {
			t.Errorf("%s: %v\n%s%s", line, err, out, stderr.Bytes())
		}
	}
	// What they show is worth something: without the token there is no answer.
	if code, _, errOut := runCommand(t, "", "check", "--address", "localhost:"+portOf(p.GRPC), "--ca-file", filepath.Join(dir, "tls.crt"), allowedID); code != exitUndecided || !strings.Contains(errOut, "--token-file") {
		t.Errorf("without a token: exit code %d, %s", code, errOut)
	}
	// The commands that dev itself prints work, too.
	var printed string
	p.out.await(t, "the guide", func(all string) bool {
		for line := range strings.SplitSeq(all, "\n") {
			if strings.HasPrefix(line, "  eligibilityd check ") {
				printed = line
			}
		}
		return printed != ""
	})
	printed = strings.NewReplacer("  eligibilityd", "bin/eligibilityd", "--token-file FILE", "--token-file token").Replace(printed)
	if out, err := run(t.Context(), printed).CombinedOutput(); !strings.Contains(string(out), "ACCOUNT_ALLOWED") {
		t.Errorf("%s: %v\n%s", printed, err, out)
	}
}

// The commands for streams of docs/changes.md print the current answers and progress.
func TestTheCommandsForStreamsWork(t *testing.T) {
	t.Parallel()
	blocks := commandsOf(t, "../../docs/changes.md", "Over REST")
	if len(blocks) != 2 || len(blocks[0]) != 1 || len(blocks[1]) != 1 {
		t.Fatalf("%q", blocks)
	}
	p := startDev(t)
	for i, wants := range [][]string{
		{`{"resumeToken":"`, `"initial":true`, `"progress":{"initialComplete":true`},
		{"retry: 2000\n", "\nevent: change\ndata: {", `"initial":true`, "\nevent: progress\n"},
	} {
		line := strings.Replace(blocks[i][0], "localhost:8080", p.HTTP, 1)
		_, ids, _ := strings.Cut(line, "customer_ids=")
		for id := range strings.SplitSeq(strings.Trim(ids, "'"), ",") {
			if _, err := p.ask(t, &eligibilityv1.CheckEligibilityRequest{CustomerId: id}); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		out := new(output)
		cmd := exec.CommandContext(ctx, "bash", "-ec", "exec "+line) //nolint:gosec // of one of our own documents
		cmd.Stdout = out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		out.await(t, line, func(printed string) bool {
			return !slices.ContainsFunc(wants, func(want string) bool { return !strings.Contains(printed, want) })
		})
		cancel()
		_ = cmd.Wait() // it was killed
	}
}

func portOf(address string) string { return address[strings.LastIndex(address, ":")+1:] }

// builtTree returns a directory in which make build seems to have run. It fails if a
// program is missing that the documents use.
func builtTree(t *testing.T) (dir string) {
	t.Helper()
	for _, tool := range []string{"bash", "openssl", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%v: scripts/debian-packages.sh openssl curl installs the last two", err)
		}
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(program, filepath.Join(dir, "bin", "eligibilityd")); err != nil {
		t.Fatal(err)
	}
	return dir
}
