package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/eligibilityd/eligibilityd/internal/referencetest"
)

func TestTheReferenceOfCommandsIsComplete(t *testing.T) {
	t.Parallel()
	var page strings.Builder
	page.WriteString("# Commands\n\nGenerated from the code by `make generate`.\n")
	for _, command := range newRootCommand().Commands() {
		if command.Hidden || command.Name() == "help" || command.Name() == "completion" {
			continue
		}
		describeCommand(&page, command)
	}
	referencetest.Compare(t, "../..", "commands.md", page.String())
}

func describeCommand(page *strings.Builder, command *cobra.Command) {
	text := command.Long
	if text == "" {
		text = command.Short + "."
	}
	name := strings.TrimPrefix(command.CommandPath(), "eligibilityd ")
	use := strings.TrimSuffix(command.UseLine(), " [flags]")
	fmt.Fprintf(page, "\n## %s\n\n```text\n%s\n```\n\n%s\n", name, use, text)
	describeFlags(page, command)
	for _, below := range command.Commands() {
		describeCommand(page, below)
	}
}

func describeFlags(page *strings.Builder, command *cobra.Command) {
	if !command.HasAvailableLocalFlags() {
		return
	}
	page.WriteString("\n| flag | default | meaning |\n|---|---|---|\n")
	command.LocalFlags().VisitAll(func(flag *pflag.Flag) {
		value, usage := pflag.UnquoteUsage(flag)
		byDefault := "–"
		if flag.DefValue != "" && flag.DefValue != "[]" {
			byDefault = "`" + flag.DefValue + "`"
		}
		fmt.Fprintf(page, "| `%s` | %s | %s |\n", strings.TrimSpace("--"+flag.Name+" "+value), byDefault, usage)
	})
}
