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
	out      io.Writer
	all      int
	terminal bool
	every    time.Duration
	now      func() time.Time

	shown   time.Time
	samples []progressSample // oldest first, of rateSpan
}

// progressSample is how many customers were done at a time.
type progressSample struct {
	at   time.Time
	done int
}

func newProgress(customers int, out io.Writer) *progress {
	p := &progress{out: out, all: customers, every: progressLines, now: time.Now}
	if file, isFile := out.(*os.File); isFile && term.IsTerminal(int(file.Fd())) {
		p.terminal, p.every = true, progressEvery
	}
	p.shown = p.now()
	p.samples = append(p.samples, progressSample{at: p.shown})
	return p
}

// show shows that so many customers are done and so many are to be asked about
// again, if it is time to.
func (p *progress) show(done, open, budget int) {
	now := p.now()
	if p.all < progressFrom || done == p.all || now.Sub(p.shown) < p.every {
		return
	}
	p.shown = now
	for len(p.samples) > 1 && now.Sub(p.samples[1].at) >= rateSpan {
		p.samples = p.samples[1:]
	}
	text := p.text(done, open, budget, now)
	p.samples = append(p.samples, progressSample{now, done})
	if p.terminal {
		fmt.Fprintf(p.out, "\r%s\x1b[K", text)
		return
	}
	fmt.Fprintln(p.out, text)
}

func (p *progress) text(done, open, budget int, now time.Time) string {
	since := p.samples[0]
	rate := float64(done-since.done) / now.Sub(since.at).Minutes()
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
	if p.terminal && p.all >= progressFrom {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
