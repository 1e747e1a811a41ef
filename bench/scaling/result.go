package main

import (
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// tenMinutes is how finely calls are kept and plotted.
const tenMinutes = 10

// result is what became of a day.
type result struct {
	name    string
	sum     minute
	busiest int       // calls in the busiest minute
	tens    []float64 // calls a minute, mean of ten minutes each
}

func newResult(name string, minutes []minute) result {
	r := result{name: name, tens: make([]float64, len(minutes)/tenMinutes)}
	for i, m := range minutes {
		r.sum.add(m)
		r.busiest = max(r.busiest, m.calls)
		r.tens[i/tenMinutes] += float64(m.calls) / tenMinutes
	}
	return r
}

// numbers are the columns of the days' file behind the name.
func (r *result) numbers() []*int {
	return []*int{&r.sum.checks, &r.sum.waited, &r.sum.stale, &r.sum.failed, &r.sum.calls, &r.sum.reads, &r.busiest}
}

func writeResults(files files, results []result) error {
	days := [][]string{{"day", "checks", "waited", "stale", "failed", "calls", "redis_reads", "calls_in_busiest_minute"}}
	tens := [][]string{{"minute"}}
	for i := range results {
		row := []string{results[i].name}
		for _, n := range results[i].numbers() {
			row = append(row, strconv.Itoa(*n))
		}
		days = append(days, row)
		tens[0] = append(tens[0], results[i].name)
		for at, calls := range results[i].tens {
			if i == 0 {
				tens = append(tens, []string{strconv.Itoa(at * tenMinutes)})
			}
			tens[at+1] = append(tens[at+1], strconv.FormatFloat(calls, 'f', 1, 64))
		}
	}
	if err := writeCSV(files.days, days); err != nil {
		return err
	}
	return writeCSV(files.tens, tens)
}

func writeCSV(path string, rows [][]string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // documents, for all to read
		return err
	}
	file, err := os.Create(path) //nolint:gosec // where the user wants it
	if err != nil {
		return err
	}
	if err := csv.NewWriter(file).WriteAll(rows); err != nil {
		_ = file.Close()
		return fmt.Errorf("%s: %w", path, err)
	}
	return file.Close()
}

// readResults reads what writeResults has written.
func readResults(files files) ([]result, error) {
	days, err := readCSV(files.days)
	if err != nil {
		return nil, err
	}
	tens, err := readCSV(files.tens)
	if err != nil {
		return nil, err
	}
	results := make([]result, len(days)-1)
	for i := range results {
		results[i].name = days[i+1][0]
		for column, n := range results[i].numbers() {
			if *n, err = strconv.Atoi(days[i+1][column+1]); err != nil {
				return nil, fmt.Errorf("%s: %w", files.days, err)
			}
		}
		for _, row := range tens[1:] {
			calls, err := strconv.ParseFloat(row[i+1], 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", files.tens, err)
			}
			results[i].tens = append(results[i].tens, calls)
		}
	}
	return results, nil
}

func readCSV(path string) ([][]string, error) {
	file, err := os.Open(path) //nolint:gosec // where the user wants it
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // only read
	rows, err := csv.NewReader(file).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return rows, nil
}
