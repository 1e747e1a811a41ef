package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

const (
	// progressFrom is the length from which a list has progress.
	progressFrom = 2 * checkChunk
	// progressEvery is how often a terminal shows progress, progressLines how often
	// anything else gets a line.
	progressEvery = time.Second
	progressLines = time.Minute
	// rateSpan is the time over which the rate is measured.
	rateSpan = 2 * time.Minute
)

// progress shows how far a list is: how fast, how long still, and the budget of the
// service, which bounds how fast. It shows nothing for short lists.
type progress struct {
	meter

	all int
}

func newProgress(customers int, out io.Writer) *progress {
	return &progress{meter: newMeter(out), all: customers}
}

// show shows that so many customers are done and so many are to be asked about
// again, if it is time to.
func (p *progress) show(done, open, budget int) {
	now := p.now()
	if p.all < progressFrom || done == p.all || !p.due(now) {
		return
	}
	p.print(p.text(done, open, budget, now))
	p.measure(done, now)
}

func (p *progress) text(done, open, budget int, now time.Time) string {
	rate := p.rate(done, now)
	parts := []string{fmt.Sprintf("%d of %d customers", done, p.all), fmt.Sprintf("%.0f a minute", rate)}
	if rate > 0 {
		left := time.Duration(float64(p.all-done) / rate * float64(time.Minute))
		parts = append(parts, left.Round(time.Minute).String()+" left")
	}
	if budget > 0 {
		parts = append(parts, fmt.Sprintf("the service may make %d calls a minute", budget))
	}
	if open > 0 {
		parts = append(parts, fmt.Sprintf("%d to be asked about again", open))
	}
	return strings.Join(parts, ", ")
}

// end removes the line from a terminal.
func (p *progress) end() {
	if p.all >= progressFrom {
		p.clear()
	}
}

// meter measures how fast something advances, and shows a line about it: on a
// terminal always the same one.
type meter struct {
	out      io.Writer
	terminal bool
	every    time.Duration
	now      func() time.Time

	shown   time.Time
	samples []progressSample // oldest first, of rateSpan
}

// progressSample is how much was done at a time.
type progressSample struct {
	at   time.Time
	done int
}

func newMeter(out io.Writer) meter {
	m := meter{out: out, every: progressLines, now: time.Now}
	if file, isFile := out.(*os.File); isFile && term.IsTerminal(int(file.Fd())) {
		m.terminal, m.every = true, progressEvery
	}
	m.shown = m.now()
	m.samples = append(m.samples, progressSample{at: m.shown})
	return m
}

// due reports whether it is time to print, after which measure is called.
func (m *meter) due(now time.Time) bool { return now.Sub(m.shown) >= m.every }

// rate returns how much is done a minute.
func (m *meter) rate(done int, now time.Time) float64 {
	for len(m.samples) > 1 && now.Sub(m.samples[1].at) >= rateSpan {
		m.samples = m.samples[1:]
	}
	since := m.samples[0]
	return float64(done-since.done) / now.Sub(since.at).Minutes()
}

func (m *meter) measure(done int, now time.Time) {
	m.shown = now
	m.samples = append(m.samples, progressSample{now, done})
}

func (m *meter) print(text string) {
	if m.terminal {
		fmt.Fprintf(m.out, "\r%s\x1b[K", text)
		return
	}
	fmt.Fprintln(m.out, text)
}

// clear removes the line from a terminal.
func (m *meter) clear() {
	if m.terminal {
		fmt.Fprint(m.out, "\r\x1b[K")
	}
}
