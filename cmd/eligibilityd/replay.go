package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
)

// exitDifferences is the exit code of replay if an answer differs.
const exitDifferences = 1

func newReplayCommand() *cobra.Command {
	var policy []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "replay FILE... | -",
		Short: "Derive the answers in decision logs again, under the same policy or another",
		Long: `replay derives the answer of each record of decision logs again from the evidence in
the record, and prints those that differ, and counts. Under the policy of the record,
none does. With --policy, the differences are what that value would have changed, so
that it can be tried on past traffic.

A question that was refused before the rule was applied is not derivable, whatever the
policy. An answer is unknown if, under the other policy, the service would have asked
Partner Center for evidence that it did not need. Files are read as by log.

Exit code: 0 if no answer differs, 1 if some do or are unknown, 2 if lines were
unreadable, which are named on standard error, or the command line is wrong.`,
		Example: `  eligibilityd replay /var/log/eligibilityd/decisions*.jsonl*
  eligibilityd replay --policy not_ready=allow --json decisions.jsonl`,
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, files []string) error {
			var overrides []decisionlog.Override
			for _, text := range policy {
				override, err := decisionlog.ParseOverride(text)
				if err != nil {
					return usageError(cmd, fmt.Errorf("--policy: %w", err))
				}
				overrides = append(overrides, override)
			}
			return replay(cmd, files, overrides, asJSON)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&policy, "policy", nil, "`KEY=VALUE` that replaces the record's: policy.not_ready, policy.under_review or policy.when_undecidable; may be repeated")
	f.BoolVar(&asJSON, "json", false, "print one JSON object a difference, and one with the counts, instead of tables")
	return cmd
}

// replay derives the answers in files again, and prints what differs.
func replay(cmd *cobra.Command, files []string, overrides []decisionlog.Override, asJSON bool) error {
	scan := newLogScan(cmd, files)
	out := &replayPrinter{out: cmd.OutOrStdout(), json: asJSON}
	if !asJSON {
		out.table = tabwriter.NewWriter(out.out, 0, 0, 2, ' ', 0)
	}
	var all replayCounts
	err := scanLogs(cmd.Context(), scan, func(block *replayedBlock, line []byte) error {
		record, err := decisionlog.Parse(line)
		if err != nil {
			return err
		}
		return block.add(&record, overrides)
	}, func(block *replayedBlock) error {
		all.merge(&block.replayCounts)
		if len(block.differences) > 0 {
			scan.progress.hide()
		}
		return out.show(block.differences)
	})
	if err != nil {
		return err
	}
	scan.progress.hide()
	all.Unreadable, all.Unfinished = scan.unreadable, scan.unfinished
	if err := out.summarize(&all); err != nil {
		return err
	}
	if all.Different+all.Unknown > 0 {
		return scan.exit(exitDifferences)
	}
	return scan.exit(0)
}

// replayedBlock is what the records of a block came to.
type replayedBlock struct {
	replayCounts

	differences []difference
}

// difference is an answer that differs.
type difference struct {
	Time     time.Time `json:"time"`
	Decision string    `json:"decision_id"`
	Caller   string    `json:"caller,omitempty"`
	Partner  string    `json:"partner,omitempty"`
	Customer string    `json:"customer_id,omitempty"`
	Was      string    `json:"was"`
	WouldBe  string    `json:"would_be"`
}

// unknownAnswer stands for an answer that the record does not suffice for.
const unknownAnswer = "unknown"

// maxTransitions bounds the kinds of difference that are counted apart: a log may
// have anything.
const maxTransitions = 1000

// transition is a kind of difference.
type transition struct{ was, wouldBe string }

// replayCounts are the counts of a replay.
type replayCounts struct {
	// Records is how many records were read, Questions about how many questions they
	// stand for, since plain allowed answers may be sampled.
	Records   int     `json:"records"`
	Questions float64 `json:"questions"`
	// Dropped is how many records the service could not write.
	Dropped      int64 `json:"dropped"`
	Unchanged    int   `json:"unchanged"`
	Different    int   `json:"different"`
	Unknown      int   `json:"unknown"`
	NotDerivable int   `json:"not_derivable"`
	Unreadable   int   `json:"unreadable"`
	Unfinished   int   `json:"unfinished"`

	transitions map[transition]int
}

// add replays a record.
func (b *replayedBlock) add(record *decisionlog.Record, overrides []decisionlog.Override) error {
	answer, err := record.Replay(overrides...)
	was, wouldBe := record.Answer(), unknownAnswer
	switch {
	case errors.Is(err, decisionlog.ErrNotDecided):
		b.NotDerivable++
	case errors.Is(err, decisionlog.ErrNotHeld):
		b.Unknown++
	case err != nil:
		return err
	case answer.Equal(was):
		b.Unchanged++
	default:
		b.Different++
		wouldBe = answer.String()
	}
	b.Records++
	b.Dropped += record.Dropped
	if record.Sampled > 0 && record.Sampled <= 1 {
		b.Questions += 1 / record.Sampled
	}
	if err == nil && answer.Equal(was) || errors.Is(err, decisionlog.ErrNotDecided) {
		return nil
	}
	b.count(transition{was.String(), wouldBe}, 1)
	b.differences = append(b.differences, difference{
		Time: record.Time, Decision: record.DecisionID, Caller: record.Caller, Partner: record.Partner,
		Customer: record.Question.Customer.String(), Was: was.String(), WouldBe: wouldBe,
	})
	return nil
}

func (c *replayCounts) count(t transition, n int) {
	if c.transitions == nil {
		c.transitions = make(map[transition]int)
	}
	if _, known := c.transitions[t]; !known && len(c.transitions) >= maxTransitions {
		t = transition{"others", "others"}
	}
	c.transitions[t] += n
}

func (c *replayCounts) merge(other *replayCounts) {
	c.Records += other.Records
	c.Questions += other.Questions
	c.Dropped += other.Dropped
	c.Unchanged += other.Unchanged
	c.Different += other.Different
	c.Unknown += other.Unknown
	c.NotDerivable += other.NotDerivable
	for t, n := range other.transitions {
		c.count(t, n)
	}
}

// countedTransition is a kind of difference with its number.
type countedTransition struct {
	Was     string `json:"was"`
	WouldBe string `json:"would_be"`
	Count   int    `json:"count"`
}

// sorted returns the kinds of difference, the most frequent first.
func (c *replayCounts) sorted() []countedTransition {
	sorted := make([]countedTransition, 0, len(c.transitions))
	for t := range maps.Keys(c.transitions) {
		sorted = append(sorted, countedTransition{t.was, t.wouldBe, c.transitions[t]})
	}
	slices.SortFunc(sorted, func(a, b countedTransition) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Was, b.Was), cmp.Compare(a.WouldBe, b.WouldBe))
	})
	return sorted
}

// replayPrinter prints differences and counts, as tables if table is set.
type replayPrinter struct {
	out   io.Writer
	json  bool
	table *tabwriter.Writer
	begun bool
}

func (p *replayPrinter) show(differences []difference) error {
	if p.json {
		encoder := json.NewEncoder(p.out)
		encoder.SetEscapeHTML(false)
		for i := range differences {
			if err := encoder.Encode(&differences[i]); err != nil {
				return err
			}
		}
		return nil
	}
	if len(differences) == 0 {
		return nil
	}
	if !p.begun {
		p.begun = true
		fmt.Fprintln(p.table, "TIME\tDECISION\tCUSTOMER\tWAS → WOULD BE")
	}
	for i := range differences {
		d := &differences[i]
		fmt.Fprintf(p.table, "%s\t%s\t%s\t%s → %s\n", recordTime(d.Time), orText(printable(d.Decision), "-"), orText(d.Customer, "-"), d.Was, d.WouldBe)
	}
	return p.table.Flush()
}

// summarize prints the counts.
func (p *replayPrinter) summarize(c *replayCounts) error {
	if p.json {
		encoder := json.NewEncoder(p.out)
		encoder.SetEscapeHTML(false)
		return encoder.Encode(map[string]any{"summary": struct {
			*replayCounts

			Changes []countedTransition `json:"changes"`
		}{c, c.sorted()}})
	}
	if p.begun {
		fmt.Fprintln(p.table, "\nCOUNT\tWAS → WOULD BE")
	}
	for _, t := range c.sorted() {
		fmt.Fprintf(p.table, "%d\t%s → %s\n", t.Count, t.Was, t.WouldBe)
	}
	if p.begun {
		fmt.Fprintln(p.table)
	}
	for _, row := range []struct {
		n    int
		name string
	}{
		{c.Records, "records"},
		{c.Unchanged, "unchanged"},
		{c.Different, "different"},
		{c.Unknown, "unknown: the other policy needs evidence that is not in the record"},
		{c.NotDerivable, "not derivable: the question never reached the rule"},
		{c.Unreadable, "unreadable lines"},
		{int(c.Dropped), "records that the service could not write"},
	} {
		if row.n > 0 || row.name == "records" || row.name == "different" {
			fmt.Fprintf(p.table, "%d\t%s\n", row.n, row.name)
		}
	}
	if stands := int(c.Questions + 0.5); stands > c.Records {
		fmt.Fprintf(p.table, "%d\tquestions that the records stand for: plain allowed answers were sampled\n", stands)
	}
	return p.table.Flush()
}
