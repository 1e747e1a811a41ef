// Command scaling reckons what the service needs at scale. It simulates days of
// traffic with the service's own code under a clock that runs ahead, writes what
// happened as CSV, plots it, and fills the tables of docs/scaling.md.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

func main() {
	docs := flag.String("docs", "docs", "directory of scaling.md")
	tables := flag.Bool("tables", false, "simulate nothing: plot and fill tables from the CSV that is there")
	flag.Parse()
	if err := run(*docs, *tables); err != nil {
		fmt.Fprintln(os.Stderr, "scaling:", err)
		os.Exit(1)
	}
}

// files are what the program writes, but for the tables.
type files struct{ document, days, tens, plot string }

func filesIn(docs string) files {
	return files{
		document: filepath.Join(docs, "scaling.md"),
		days:     filepath.Join(docs, "scaling", "days.csv"),
		tens:     filepath.Join(docs, "scaling", "calls.csv"),
		plot:     filepath.Join(docs, "scaling", "calls.svg"),
	}
}

func run(docs string, tablesOnly bool) error {
	files := filesIn(docs)
	if !tablesOnly {
		if err := simulateAll(files); err != nil {
			return err
		}
	}
	results, err := readResults(files)
	if err != nil {
		return err
	}
	if err := os.WriteFile(files.plot, plotCalls(results), 0o644); err != nil { //nolint:gosec // a document, for all to read
		return err
	}
	document, err := os.ReadFile(files.document)
	if err != nil {
		return err
	}
	if document, err = fill(document, tablesOf(results)); err != nil {
		return err
	}
	return os.WriteFile(files.document, document, 0o644) //nolint:gosec // a document, for all to read
}

// simulateAll plays all days and writes the CSV.
func simulateAll(files files) error {
	// A check and the fetches that it begins take turns: handing them from core to
	// core takes longer than they do.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var results []result
	for _, d := range days() {
		began := time.Now()
		minutes, err := simulate(d, 24*time.Hour)
		if err != nil {
			return err
		}
		results = append(results, newResult(d.name, minutes))
		fmt.Fprintf(os.Stderr, "%-20s %6.1fs\n", d.name, time.Since(began).Seconds())
	}
	return writeResults(files, results)
}
