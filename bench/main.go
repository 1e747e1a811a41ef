// Command bench measures the service against the least that its transports can
// cost. docs/performance.md explains how, and how to read what it prints.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newRootCommand().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "bench",
		Short:         "Measure eligibilityd against the floor of its transports",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(newCompareCommand(), newOwnCommand(), newPeerCommand(), newLoadCommand(), newFloorCommand())
	return root
}
