package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// snippet is a fenced block of a document.
type snippet struct {
	line int
	kind string // what follows the fence: "sh", "json", …
	text string
}

// snippetsOf returns the blocks of a document in their order.
func snippetsOf(t *testing.T, document string) []snippet {
	t.Helper()
	text := string(readFile(t, filepath.Join(root, document)))
	var found []snippet
	block := regexp.MustCompile("(?ms)^```([^\n]*)\n(.*?)^```$") //nolint:gocritic // by lines
	for _, at := range block.FindAllStringSubmatchIndex(text, -1) {
		found = append(found, snippet{1 + strings.Count(text[:at[0]], "\n"), text[at[2]:at[3]], text[at[4]:at[5]]})
	}
	return found
}

// reader follows a document word for word, in a directory of its own. A block "sh" is
// run; "sh dev", "sh simulate" and "sh serve" start a program that goes on; "sh watch"
// is a command that goes on; "sh soon" is run until it succeeds; "sh tools" needs what
// the fast tests do not have; "sh elsewhere" needs another machine. A block "json" or
// "text" is what the block before prints, "text watch" what the command that goes on
// has printed by then.
type reader struct {
	dir      string
	environ  []string
	ports    []string // pairs for strings.NewReplacer
	printed  string   // by the last command
	watching *output
	tools    bool // run the blocks "sh tools" too
	skipped  bool // the last block was not run
	ran      int
}

func newReader(t *testing.T) *reader {
	t.Helper()
	dir := builtTree(t)
	for _, name := range []string{"client", "gen"} {
		path, err := filepath.Abs(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return &reader{dir: dir, environ: append(append(os.Environ(), asProgram+"=1"), anyPort("ELIGIBILITY_SERVER__PROBE__ADDRESS=127.0.0.1:0")...)}
}

// command returns text as a command of the reader's shell, on the ports in use.
func (r *reader) command(ctx context.Context, text string) *exec.Cmd {
	text = strings.NewReplacer(append([]string{"make build\n", ""}, r.ports...)...).Replace(text)
	cmd := exec.CommandContext(ctx, "bash", "-ec", text) //nolint:gosec // of one of our own documents
	cmd.Dir, cmd.Env = r.dir, r.environ
	return cmd
}

// follow does what a document asks for. On the way, start is called for the blocks that
// start a program.
func (r *reader) follow(t *testing.T, document string, start func(s snippet)) {
	t.Helper()
	for _, s := range snippetsOf(t, document) {
		at := fmt.Sprintf("%s:%d", document, s.line)
		if r.skipped && (s.kind == "json" || s.kind == "text") {
			continue
		}
		r.skipped = s.kind == "sh elsewhere" || s.kind == "sh tools" && !r.tools
		switch s.kind {
		case "sh dev", "sh simulate", "sh serve":
			start(s)
		case "sh":
			r.run(t, at, s.text)
		case "sh tools":
			if r.tools {
				r.runWithin(t, at, s.text, 20*patience) // it downloads and compiles
			}
		case "sh soon":
			eventually(t, at, func() bool {
				return r.command(t.Context(), s.text).Run() == nil
			})
		case "sh watch":
			r.watch(t, s.text)
		case "json":
			r.compareJSON(t, at, s.text)
		case "text":
			if missing := lacks(r.printed, s.text); missing != "" {
				t.Errorf("%s: nothing printed is like\n%s\nin\n%s", at, missing, r.printed)
			}
		case "text watch":
			r.watching.await(t, at, func(printed string) bool { return lacks(printed, s.text) == "" })
		case "sh elsewhere", "json sample", "yaml", "nginx", "":
		case "go", "js", "csharp":
			isPartOfAFile(t, at, s)
		default:
			t.Errorf("%s: a block of the unknown kind %q", at, s.kind)
		}
	}
	if r.ran < 5 {
		t.Errorf("%s: %d blocks were run", document, r.ran)
	}
}

func (r *reader) run(t *testing.T, at, text string) {
	t.Helper()
	r.runWithin(t, at, text, 2*patience)
}

func (r *reader) runWithin(t *testing.T, at, text string, limit time.Duration) {
	t.Helper()
	r.ran++
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	out, err := r.command(ctx, text).CombinedOutput()
	if r.printed = string(out); err != nil {
		t.Fatalf("%s: %v\n%s\n%s", at, err, text, out)
	}
}

// watch starts a command that is killed when the test ends.
func (r *reader) watch(t *testing.T, text string) {
	t.Helper()
	r.watching = new(output)
	cmd := r.command(t.Context(), "exec "+text)
	cmd.Stdout, cmd.Stderr = r.watching, r.watching
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() }) // it was killed
	r.watching.await(t, text, func(printed string) bool { return printed != "" })
}

// program starts a block whose last line is a program that serves. with is appended to
// it.
func (r *reader) program(t *testing.T, s snippet, with string) *process {
	t.Helper()
	return start(t, func(ctx context.Context, out, log io.Writer) error {
		cmd := r.command(ctx, "exec "+strings.TrimSpace(strings.TrimPrefix(s.text, "make build\n"))+with)
		cmd.Stdout, cmd.Stderr = out, log
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = patience
		if err := cmd.Run(); ctx.Err() == nil {
			return errors.Join(errors.New(s.text), err)
		}
		return nil
	})
}

// serves makes the reader use the ports of p in place of those of the document.
func (r *reader) serves(p *process) {
	for port, address := range map[string]string{":9090": p.GRPC, ":8080": p.HTTP, ":9091": p.Admin, ":9092": p.Probe} {
		if address != "" {
			r.ports = append(r.ports, "localhost"+port, "localhost:"+portOf(address))
		}
	}
}

// compareJSON compares what was printed with the document: "…" stands for any value, a
// member "…" for any others, and a time or an id for any other of the kind.
func (r *reader) compareJSON(t *testing.T, at, documented string) {
	t.Helper()
	var want, got any
	if err := json.Unmarshal([]byte(documented), &want); err != nil {
		t.Fatalf("%s: %v", at, err)
	}
	if err := json.NewDecoder(strings.NewReader(lastLine(r.printed))).Decode(&got); err != nil {
		t.Fatalf("%s: %v\n%s", at, err, r.printed)
	}
	if problem := differs("", want, got); problem != "" {
		t.Errorf("%s: %s\n%s", at, problem, r.printed)
	}
}

func lastLine(printed string) string {
	printed = strings.TrimSpace(printed)
	return printed[strings.LastIndex(printed, "\n")+1:]
}

var anyID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

func differs(path string, want, got any) string {
	switch want := want.(type) {
	case map[string]any:
		object, ok := got.(map[string]any)
		if !ok {
			return fmt.Sprintf("%s is %v", path, got)
		}
		_, more := want["…"]
		for name := range object {
			if _, documented := want[name]; !documented && !more {
				return fmt.Sprintf("%s.%s is not documented", path, name)
			}
		}
		for name, value := range want {
			if name == "…" {
				continue
			}
			if problem := differs(path+"."+name, value, object[name]); problem != "" {
				return problem
			}
		}
		return ""
	case []any:
		list, ok := got.([]any)
		if !ok || len(list) != len(want) {
			return fmt.Sprintf("%s is %v", path, got)
		}
		for i := range want {
			if problem := differs(fmt.Sprintf("%s[%d]", path, i), want[i], list[i]); problem != "" {
				return problem
			}
		}
		return ""
	case string:
		text, _ := got.(string)
		_, err := time.Parse(time.RFC3339, want)
		_, failure := time.Parse(time.RFC3339, text)
		if want == "…" && got != nil || err == nil && failure == nil || strings.HasSuffix(path, "correlationId") && anyID.MatchString(want) && anyID.MatchString(text) {
			return ""
		}
	}
	if want != got {
		return fmt.Sprintf("%s is %v, documented is %v", path, got, want)
	}
	return ""
}

// lacks returns the first line of documented that printed does not have after the lines
// before it; "" if it has all. "…" stands for any text, blanks for any number of them.
func lacks(printed, documented string) string {
	lines := strings.Split(printed, "\n")
	for want := range strings.SplitSeq(strings.TrimSpace(documented), "\n") {
		var pattern []string
		for part := range strings.SplitSeq(want, "…") {
			pattern = append(pattern, regexp.MustCompile(` +`).ReplaceAllString(regexp.QuoteMeta(part), ` +`))
		}
		like := regexp.MustCompile("^" + strings.Join(pattern, ".*") + " *$")
		found := false
		for !found && len(lines) > 0 {
			found, lines = like.MatchString(lines[0]), lines[1:]
		}
		if !found {
			return want
		}
	}
	return ""
}

// isPartOfAFile fails the test unless some source file, which other tests compile or
// run, has the lines of a block, whatever the indentation.
func isPartOfAFile(t *testing.T, at string, s snippet) {
	t.Helper()
	suffix := map[string]string{"go": ".go", "js": ".js", "csharp": ".cs"}[s.kind]
	plain := func(text string) string {
		var lines []string
		for line := range strings.SplitSeq(text, "\n") {
			lines = append(lines, strings.TrimSpace(line))
		}
		return strings.TrimSpace(strings.Join(lines, "\n"))
	}
	found, wanted := false, plain(s.text)
	for _, dir := range []string{"client", "examples", "eligibilitytest"} {
		_ = filepath.WalkDir(filepath.Join(root, dir), func(path string, entry os.DirEntry, err error) error {
			if err == nil && entry.IsDir() && entry.Name() == "node_modules" {
				return filepath.SkipDir
			}
			if err == nil && strings.HasSuffix(path, suffix) {
				found = found || strings.Contains(plain(string(readFile(t, path))), wanted)
			}
			return nil
		})
	}
	if !found {
		t.Errorf("%s: no file in client, examples or eligibilitytest has this block", at)
	}
}

// A developer who is new to the product follows docs/integrate.md.
func TestTheCommandsOfIntegrateWork(t *testing.T) {
	t.Parallel()
	followIntegrate(t, newReader(t))
}

func followIntegrate(t *testing.T, r *reader) {
	t.Helper()
	r.follow(t, "docs/integrate.md", func(s snippet) {
		p := r.program(t, s, " --control-address 127.0.0.1:0")
		r.serves(p)
		control := regexp.MustCompile(`simulator +http://(\S+)/v1/customers`)
		p.out.await(t, "the control API", func(printed string) bool { return control.MatchString(printed) })
		r.ports = append(r.ports, "localhost:9081", control.FindStringSubmatch(p.out.String())[1])
	})
}

// An operator who is new to the product follows docs/operate.md.
func TestTheCommandsOfOperateWork(t *testing.T) {
	t.Parallel()
	r := newReader(t)
	r.follow(t, "docs/operate.md", func(s snippet) {
		if s.kind == "sh serve" {
			r.serves(r.program(t, s, ""))
			return
		}
		simulator := r.simulator(t, s)
		r.ports = append(r.ports, "http://127.0.0.1:9080", simulator)
	})
}

// simulator starts a block that runs the simulator, which logs nothing, and returns its
// URL.
func (r *reader) simulator(t *testing.T, s snippet) string {
	t.Helper()
	out, log := new(output), new(bytes.Buffer)
	cmd := r.command(t.Context(), "exec "+strings.TrimSpace(strings.TrimPrefix(s.text, "make build\n"))+" --address 127.0.0.1:0 --control-address 127.0.0.1:0")
	cmd.Stdout, cmd.Stderr = out, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() }) // it was killed
	url := regexp.MustCompile(`authority: +(http://\S+)`)
	out.await(t, "the address of the simulator", func(printed string) bool { return url.MatchString(printed) })
	return url.FindStringSubmatch(out.String())[1]
}
