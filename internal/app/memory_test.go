package app

import (
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"

	"go.uber.org/zap"
)

func TestContainerLimit(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "none")
	for text, want := range map[string]int64{
		"536870912\n": 512 << 20, "max\n": 0, "": 0, "9223372036854771712\n": 0,
	} {
		if got := containerLimit([]string{missing, writeTemp(t, text)}); got != want {
			t.Errorf("%q: limit %d, want %d", text, got, want)
		}
	}
	if got := containerLimit([]string{missing}); got != 0 {
		t.Errorf("without a file: limit %d", got)
	}
}

// Not parallel: the collector is the whole process's.
func TestMemoryIsTunedWhereALimitIsKnown(t *testing.T) {
	limited, unlimited := writeTemp(t, "536870912\n"), writeTemp(t, "max\n")
	for name, row := range map[string]struct {
		environ map[string]string
		file    string
		percent int
		limit   int64
	}{
		"a container's limit":     {nil, limited, gcPercent, 536870912 / 10 * 9},
		"no limit":                {nil, unlimited, 100, math.MaxInt64},
		"hardly any memory":       {nil, writeTemp(t, "33554432"), 100, math.MaxInt64},
		"GOGC is the operator's":  {map[string]string{"GOGC": "100"}, limited, 100, 536870912 / 10 * 9},
		"GOMEMLIMIT is, too":      {map[string]string{"GOMEMLIMIT": "1GiB"}, limited, gcPercent, 1 << 30},
		"GOMEMLIMIT may be off":   {map[string]string{"GOMEMLIMIT": "off"}, limited, 100, math.MaxInt64},
		"both are the operator's": {map[string]string{"GOMEMLIMIT": "1GiB", "GOGC": "100"}, unlimited, 100, 1 << 30},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GOGC", "")
			t.Setenv("GOMEMLIMIT", "")
			for variable, value := range row.environ {
				t.Setenv(variable, value)
			}
			// What the runtime makes of GOMEMLIMIT before main.
			set := int64(math.MaxInt64)
			if row.environ["GOMEMLIMIT"] == "1GiB" {
				set = 1 << 30
			}
			limitBefore, percentBefore := debug.SetMemoryLimit(set), debug.SetGCPercent(100)
			tuneMemory([]string{row.file}, zap.NewNop())
			limit, percent := debug.SetMemoryLimit(limitBefore), debug.SetGCPercent(percentBefore)
			if limit != row.limit || percent != row.percent {
				t.Errorf("limit %d and GC percent %d, want %d and %d", limit, percent, row.limit, row.percent)
			}
		})
	}
}

func writeTemp(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
