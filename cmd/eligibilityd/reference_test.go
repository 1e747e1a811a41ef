package main

import (
	"fmt"
	"os"
	"regexp"
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
	fmt.Fprintf(page, "\n## %s\n\n```text\neligibilityd %s\n```\n\n%s\n", command.Name(), command.Use, text)
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

// The comment of the service in the contract is the source of the table, and tests
// of the API compare it with what is sent.
func TestTheReferenceOfErrorsIsComplete(t *testing.T) {
	t.Parallel()
	contract, err := os.ReadFile("../../proto/eligibility/v1/eligibility.proto")
	if err != nil {
		t.Fatal(err)
	}
	comment := strings.Join(strings.Fields(regexp.MustCompile(`(?m)^\s*//`).ReplaceAllString(string(contract), "")), " ")
	_, comment, _ = strings.Cut(comment, "the same reasons.")
	comment, _, _ = strings.Cut(comment, " service EligibilityService")
	var page strings.Builder
	page.WriteString("# Errors\n\nGenerated from the contract by `make generate`. What to do about each: [support.md](../support.md).\n\n" +
		"| reason | gRPC code | HTTP | RetryInfo | meaning |\n|---|---|---|---|---|\n")
	row := regexp.MustCompile(`^([A-Z_]+) \(code ([A-Z_]+), HTTP (\d+)(, RetryInfo)?\): (.*)$`)
	rows := 0
	for _, item := range strings.Split(comment, " - ")[1:] {
		parts := row.FindStringSubmatch(item)
		if parts == nil {
			t.Fatalf("cannot read %q", item)
		}
		retry := "–"
		if parts[4] != "" {
			retry = "yes"
		}
		fmt.Fprintf(&page, "| `%s` | %s | %s | %s | %s |\n", parts[1], parts[2], parts[3], retry, parts[5])
		rows++
	}
	if rows < 10 {
		t.Errorf("%d reasons found", rows)
	}
	referencetest.Compare(t, "../..", "errors.md", page.String())
}
