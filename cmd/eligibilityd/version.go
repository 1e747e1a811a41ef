package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/eligibilityd/eligibilityd/internal/app"
)

// version and commit are set by the linker (see the Makefile); if they are
// empty, the build information is used.
var (
	version string
	commit  string //nolint:gochecknoglobals // the linker can set nothing else
)

// buildVersion returns the version and the commit of this binary.
func buildVersion() app.Build {
	v, c := version, commit
	if info, ok := debug.ReadBuildInfo(); ok {
		if v == "" {
			v = info.Main.Version
		}
		for _, setting := range info.Settings {
			if c == "" && setting.Key == "vcs.revision" {
				c = setting.Value
			}
		}
	}
	if v == "" {
		v = "devel"
	}
	if c == "" {
		c = "unknown"
	}
	return app.Build{Version: v, Commit: c}
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version, the commit and the Go version",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			build := buildVersion()
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "eligibilityd %s\ncommit %s\n%s %s/%s\n", build.Version, build.Commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
