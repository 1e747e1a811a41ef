package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

func TestDecisionLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	existing, key, short := write("decisions.jsonl", ""), write("key", strings.Repeat("k", 32)+"\n"), write("short", "k\n")
	for name, c := range map[string]struct {
		cfg  config.DecisionLog
		want []string // of each finding
	}{
		"off":       {config.DecisionLog{}, nil},
		"to come":   {config.DecisionLog{File: filepath.Join(dir, "new.jsonl")}, []string{"can be written to"}},
		"existing":  {config.DecisionLog{File: existing}, []string{"can be written to"}},
		"stdout":    {config.DecisionLog{File: "-"}, []string{"standard output"}},
		"device":    {config.DecisionLog{File: "/dev/null"}, []string{"no regular file"}},
		"directory": {config.DecisionLog{File: dir}, []string{"is a directory"}},
		"nowhere":   {config.DecisionLog{File: filepath.Join(dir, "missing", "x")}, []string{"no file can be created"}},
		"hashed":    {config.DecisionLog{File: "-", CustomerIDs: config.CustomerIDsHashed, HashKeyFile: key}, []string{"standard output"}},
		"short key": {config.DecisionLog{File: "-", CustomerIDs: config.CustomerIDsHashed, HashKeyFile: short}, []string{"less than 32 bytes", "standard output"}},
		"no key":    {config.DecisionLog{File: "-", CustomerIDs: config.CustomerIDsHashed, HashKeyFile: dir}, []string{"cannot be read", "standard output"}},
	} {
		findings := checkDecisionLog(c.cfg)
		if len(findings) != len(c.want) {
			t.Errorf("%s: %+v", name, findings)
			continue
		}
		for i, want := range c.want {
			if !strings.Contains(findings[i].Detail, want) {
				t.Errorf("%s: %q, want %q", name, findings[i].Detail, want)
			}
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
