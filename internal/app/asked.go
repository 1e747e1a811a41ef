package app

import (
	"context"
	"path/filepath"
	"strings"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/console"
	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
)

const (
	// askedWithin bounds one search of the decision log, and askedBytes what it reads.
	askedWithin = 4 * time.Second
	askedBytes  = 512 << 20
	// askedPatience is how long a search waits for another to end.
	askedPatience = 2 * time.Second
)

// askedReader searches the decision log of this process for the console, one search at
// a time. It is safe for concurrent use.
type askedReader struct {
	cfg    config.DecisionLog
	isFile func() bool
	recent func(ctx context.Context, query *decisionlog.Query) (decisionlog.Recent, error)
	busy   chan struct{} // holds a value while the log is read
}

func newAskedReader(cfg config.DecisionLog, log *decisionlog.Log) *askedReader {
	return &askedReader{cfg: cfg, isFile: log.IsFile, recent: log.Recent, busy: make(chan struct{}, 1)}
}

// search returns the newest records that a query selects. If reading hangs, as it does
// when a network drive is gone, it is abandoned, and further searches are refused until
// it ends.
func (a *askedReader) search(ctx context.Context, q console.AskedQuery) (console.Asked, error) {
	asked := console.Asked{Host: host(), Command: a.command(q), Hashed: a.cfg.CustomerIDs == config.CustomerIDsHashed}
	patience := time.NewTimer(askedPatience)
	defer patience.Stop()
	select {
	case a.busy <- struct{}{}:
	case <-patience.C:
		return asked, console.ErrAskedBusy
	case <-ctx.Done():
		return asked, context.Cause(ctx)
	}
	type result struct {
		recent decisionlog.Recent
		err    error
	}
	read := make(chan result, 1)
	go func() {
		defer func() { <-a.busy }()
		var r result
		r.recent, r.err = a.recent(ctx, &decisionlog.Query{
			Customer: q.Customer, Partners: q.Partners, From: q.From, Until: q.Until,
			Limit: console.AskedLimit, Bytes: askedBytes, Deadline: time.Now().Add(askedWithin),
		})
		read <- r
	}()
	hangs := time.NewTimer(askedWithin + time.Second)
	defer hangs.Stop()
	select {
	case r := <-read:
		asked.Recent = r.recent
		return asked, r.err
	case <-hangs.C:
		return asked, context.DeadlineExceeded
	case <-ctx.Done():
		return asked, context.Cause(ctx)
	}
}

// command is the command line that searches for the same records in the files of the
// log, or in its standard input if there are none.
func (a *askedReader) command(q console.AskedQuery) string {
	words := []string{"eligibilityd", "log", "--customer", q.Customer.String()}
	if !q.From.IsZero() {
		words = append(words, "--from", q.From.UTC().Format(time.RFC3339Nano))
	}
	if !q.Until.IsZero() { // --to is included
		words = append(words, "--to", q.Until.Add(-1).UTC().Format(time.RFC3339Nano))
	}
	if a.cfg.CustomerIDs == config.CustomerIDsHashed {
		words = append(words, "--hash-key-file", shellQuoted(a.cfg.HashKeyFile))
	}
	if !a.isFile() {
		return strings.Join(append(words, "-"), " ")
	}
	ext := filepath.Ext(a.cfg.File)
	return strings.Join(append(words, shellQuoted(strings.TrimSuffix(a.cfg.File, ext))+"*"+shellQuoted(ext)+"*"), " ")
}

// shellQuoted quotes a word for a shell if it needs quotes.
func shellQuoted(word string) string {
	isPlain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("/._-", r)
	}
	if strings.IndexFunc(word, func(r rune) bool { return !isPlain(r) }) < 0 {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
