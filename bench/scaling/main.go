// Command scaling computes the resources of the service at scale, and fills the
// tables of docs/scaling.md.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	document := flag.String("document", "docs/scaling.md", "the document whose tables are filled")
	flag.Parse()
	if err := run(*document); err != nil {
		fmt.Fprintln(os.Stderr, "scaling:", err)
		os.Exit(1)
	}
}

func run(path string) error {
	document, err := os.ReadFile(path) //nolint:gosec // the user names the file
	if err != nil {
		return err
	}
	if document, err = fill(document, tables()); err != nil {
		return err
	}
	return os.WriteFile(path, document, 0o644) //nolint:gosec // a document, for everyone to read
}
