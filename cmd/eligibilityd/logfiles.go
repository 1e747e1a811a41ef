package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
)

// maxFaultsShown bounds the unreadable lines that are named.
const maxFaultsShown = 20

// logScan is one run over decision logs.
type logScan struct {
	scanner    *decisionlog.Scanner
	notes      io.Writer
	progress   *scanProgress
	unreadable int
	unfinished int
}

func newLogScan(cmd *cobra.Command, files []string) *logScan {
	files, leftOut := decisionlog.OneOfEach(files)
	for _, name := range leftOut {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: left out, its records are in another file\n", printable(name))
	}
	scanner := &decisionlog.Scanner{Files: files, Stdin: cmd.InOrStdin()}
	return &logScan{scanner: scanner, notes: cmd.ErrOrStderr(), progress: newScanProgress(scanner, cmd.ErrOrStderr())}
}

// scanLogs calls each for every line, and done for what it has collected, as
// [decisionlog.Scan] does. Lines that cannot be read are named, and counted in s. It
// fails if done does, ctx ends, or the log has hashed customers and there is no key.
func scanLogs[T any](ctx context.Context, s *logScan, each func(*T, []byte) error, done func(*T) error) error {
	defer s.progress.end()
	return decisionlog.Scan(ctx, s.scanner, each, func(collected *T, faults []decisionlog.LineError) error {
		for i := range faults {
			if err := s.note(&faults[i]); err != nil {
				return err
			}
		}
		if err := done(collected); err != nil {
			return err
		}
		s.progress.show()
		return nil
	})
}

// note counts a line that cannot be read, and names the first ones.
func (s *logScan) note(fault *decisionlog.LineError) error {
	s.progress.hide()
	switch {
	case errors.Is(fault, decisionlog.ErrHashed):
		return &exitError{code: exitUsage, err: fmt.Errorf("%w; give --hash-key-file", fault)}
	case errors.Is(fault, decisionlog.ErrUnfinished):
		s.unfinished++
		fmt.Fprintf(s.notes, "%s; left out\n", printable(fault.Error()))
		return nil
	}
	s.unreadable++
	if s.unreadable <= maxFaultsShown {
		fmt.Fprintf(s.notes, "unreadable: %s\n", printable(fault.Error()))
	}
	return nil
}

// exit returns the error for the exit code: failed if lines are unreadable, else the
// one given, 0 for none.
func (s *logScan) exit(code int) error {
	if s.unreadable > maxFaultsShown {
		fmt.Fprintf(s.notes, "unreadable: %d more\n", s.unreadable-maxFaultsShown)
	}
	if s.unreadable > 0 {
		code = exitUnreadable
	}
	if code == 0 {
		return nil
	}
	return &exitError{code: code}
}

// exitUnreadable is the exit code if lines of a log cannot be read.
const exitUnreadable = 2

// scanProgress shows on a terminal how much of the files is read.
type scanProgress struct {
	meter

	scanner *decisionlog.Scanner
	all     int // bytes; 0 if that is not known
	visible bool
}

func newScanProgress(scanner *decisionlog.Scanner, out io.Writer) *scanProgress {
	p := &scanProgress{meter: newMeter(out), scanner: scanner}
	for _, name := range scanner.Files {
		info, err := os.Stat(name)
		if name == "-" || err == nil && !info.Mode().IsRegular() {
			p.all = 0
			break
		}
		if err == nil {
			p.all += int(info.Size())
		}
	}
	return p
}

func (p *scanProgress) show() {
	now := p.now()
	if !p.terminal || !p.due(now) {
		return
	}
	done := int(p.scanner.Read())
	p.print(p.text(done, now))
	p.measure(done, now)
	p.visible = true
}

func (p *scanProgress) text(done int, now time.Time) string {
	const mega = 1e6
	rate := p.rate(done, now) / time.Minute.Seconds()
	text := fmt.Sprintf("%.0f MB, %.0f MB a second", float64(done)/mega, rate/mega)
	if p.all == 0 {
		return text
	}
	text = fmt.Sprintf("%.0f of %.0f MB, %.0f MB a second", float64(done)/mega, float64(p.all)/mega, rate/mega)
	if left := float64(p.all - done); rate > 0 && left > 0 {
		text += fmt.Sprintf(", %s left", time.Duration(left/rate*float64(time.Second)).Round(time.Second))
	}
	return text
}

// hide removes the line before something else is printed.
func (p *scanProgress) hide() {
	if p.visible {
		p.clear()
		p.visible = false
	}
}

func (p *scanProgress) end() { p.hide() }
