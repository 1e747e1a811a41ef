package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// ownPackages is the prefix of the packages of this project.
const ownPackages = "github.com/eligibilityd/eligibilityd/"

// transports are the prefixes of functions that any server of these transports runs:
// grpc-go, net/http and what reads and writes connections.
var transports = []string{ //nolint:gochecknoglobals // only read
	"google.golang.org/grpc", "golang.org/x/net/", "net/http.", "net.", "crypto/tls.", "internal/poll.", "syscall.", "internal/runtime/syscall.",
}

// largest is how many functions newOwnCommand prints.
const largest = 10

func newOwnCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "own FILE...",
		Short: "Print the share of this project's code in CPU profiles, and its largest functions",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, file := range args {
				traces, err := exec.CommandContext(cmd.Context(), "go", "tool", "pprof", "-traces", "-unit", "ms", file).Output() //nolint:gosec // the user names the profile
				if err != nil {
					return fmt.Errorf("%s: %w", file, err)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s\n", file)
				sharesOf(string(traces)).write(cmd.OutOrStdout())
			}
			return nil
		},
	}
}

// shares are the milliseconds of a profile by whose code spent them: a sample
// belongs to the innermost function of its stack that is the project's or a
// transport's, so that a library or the runtime counts for the one that called it.
type shares struct {
	own, transport float64
	flat           float64 // the part of own that was in the project's functions themselves
	runtime        float64 // on a stack with neither, such as the collector's
	functions      map[string]float64
}

var traceValue = regexp.MustCompile(`^([0-9.]+)ms$`)

// sharesOf reads the output of pprof -traces.
func sharesOf(traces string) shares {
	s := shares{functions: map[string]float64{}}
	var value float64
	var decided, leaf bool
	end := func() {
		if !decided {
			s.runtime += value
		}
		value, decided = 0, false
	}
	lines := bufio.NewScanner(strings.NewReader(traces))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 {
			continue
		}
		if strings.HasPrefix(fields[0], "-----") {
			end()
			continue
		}
		leaf = false
		if match := traceValue.FindStringSubmatch(fields[0]); match != nil && len(fields) > 1 {
			leaf = true
			value, _ = strconv.ParseFloat(match[1], 64) // digits
			fields = fields[1:]
		}
		switch function := fields[0]; {
		case value == 0 || decided:
		case strings.HasPrefix(function, ownPackages):
			s.own += value
			if leaf {
				s.flat += value
			}
			s.functions[strings.TrimPrefix(function, ownPackages)] += value
			decided = true
		case slices.ContainsFunc(transports, func(prefix string) bool { return strings.HasPrefix(function, prefix) }):
			s.transport += value
			decided = true
		}
	}
	end()
	return s
}

func (s shares) write(w io.Writer) {
	whole := s.own + s.transport + s.runtime
	if whole == 0 {
		fmt.Fprintln(w, "no samples")
		return
	}
	fmt.Fprintf(w, "own %.1f %% (itself %.1f %%), transport %.1f %%, runtime alone %.1f %% of %.0f ms\n",
		100*s.own/whole, 100*s.flat/whole, 100*s.transport/whole, 100*s.runtime/whole, whole)
	names := slices.SortedFunc(maps.Keys(s.functions), func(a, b string) int {
		return cmp.Or(cmp.Compare(s.functions[b], s.functions[a]), cmp.Compare(a, b))
	})
	for _, name := range names[:min(len(names), largest)] {
		fmt.Fprintf(w, "%6.1f %%  %s\n", 100*s.functions[name]/whole, name)
	}
}
