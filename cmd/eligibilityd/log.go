package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// exitNotFound is the exit code of log if no record is selected.
const exitNotFound = 1

// logFlags are the flags of the log command.
type logFlags struct {
	customer    string
	decision    string
	from        string
	to          string
	outcome     string
	caller      string
	hashKeyFile string
	json        bool
}

func newLogCommand() *cobra.Command {
	var flags logFlags
	cmd := &cobra.Command{
		Use:   "log FILE... | -",
		Short: "Find records in decision logs",
		Long: `log prints the records of decision logs that match all flags: who asked, when, about
whom, the answer, and the evidence that it was decided by. It reads plain and gzipped
files in the order given, rotated ones only if they are named, and standard input if
the file is "-". Times are printed in UTC.

--from and --to are a timestamp (RFC 3339), a date (the UTC day), or how long ago
("2h"); both are included. --decision is a request ID; that of a batch selects all of
its questions. If the log has hashed customer IDs, --customer needs the key with which
the service hashed them.

Exit code: 0 if a record was found, 1 if none was, 2 if lines were unreadable, which
are named on standard error, or the command line is wrong. A last line that is still
being written is left out.`,
		Example: `  eligibilityd log --customer a0000000-0000-4000-8000-000000000002 --from 2026-11-27 decisions*.jsonl*
  eligibilityd log --outcome blocked --from 2h --json /var/log/eligibilityd/decisions.jsonl`,
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, files []string) error {
			filter, err := flags.filter(time.Now())
			if err != nil {
				return usageError(cmd, err)
			}
			return findRecords(cmd, files, decisionlog.NewSearch(filter), flags.json)
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.customer, "customer", "", "`ID` of the customer in question, in any form that the service accepts")
	f.StringVar(&flags.decision, "decision", "", "`ID` of the decision: the request ID, for a question of a batch with \"/\" and its place")
	f.StringVar(&flags.from, "from", "", "`TIME` of the first records")
	f.StringVar(&flags.to, "to", "", "`TIME` of the last records")
	f.StringVar(&flags.outcome, "outcome", "", "allowed, blocked or error")
	f.StringVar(&flags.caller, "caller", "", "`NAME` of the caller that asked")
	f.StringVar(&flags.hashKeyFile, "hash-key-file", "", "`FILE` with the key of hashed customer IDs (decision_log.hash_key_file)")
	f.BoolVar(&flags.json, "json", false, "print the records as they are, one a line, instead of a table")
	return cmd
}

// filter returns what the flags select.
func (flags *logFlags) filter(now time.Time) (*decisionlog.Filter, error) {
	filter := &decisionlog.Filter{DecisionID: flags.decision, Caller: flags.caller}
	if flags.customer != "" {
		id, err := eligibility.ParseCustomerID(flags.customer)
		if err != nil {
			return nil, fmt.Errorf("--customer: %w", err)
		}
		filter.Customer = &id
	}
	if flags.outcome != "" {
		outcome, err := parseOutcome(flags.outcome)
		if err != nil {
			return nil, err
		}
		filter.Outcome = &outcome
	}
	var err error
	if flags.from != "" {
		if filter.From, _, err = parseMoment(flags.from, now); err != nil {
			return nil, fmt.Errorf("--from: %w", err)
		}
	}
	if flags.to != "" {
		if _, filter.Until, err = parseMoment(flags.to, now); err != nil {
			return nil, fmt.Errorf("--to: %w", err)
		}
	}
	if flags.from != "" && flags.to != "" && !filter.From.Before(filter.Until) {
		return nil, errors.New("--to is before --from")
	}
	if flags.hashKeyFile != "" {
		if filter.Customer == nil {
			return nil, errors.New("--hash-key-file needs --customer")
		}
		if filter.HashKey, err = config.ReadHashKey(flags.hashKeyFile); err != nil {
			return nil, fmt.Errorf("--hash-key-file: %w", err)
		}
	}
	return filter, nil
}

func parseOutcome(text string) (decisionlog.Outcome, error) {
	outcomes := []decisionlog.Outcome{decisionlog.OutcomeAllowed, decisionlog.OutcomeBlocked, decisionlog.OutcomeError}
	place := slices.IndexFunc(outcomes, func(o decisionlog.Outcome) bool { return o.String() == strings.ToLower(text) })
	if place < 0 {
		return 0, fmt.Errorf("--outcome %q is none of allowed, blocked, error", text)
	}
	return outcomes[place], nil
}

// parseMoment parses a timestamp, a UTC date or how long ago, and returns its first
// instant, and the first after it.
func parseMoment(text string, now time.Time) (first, after time.Time, err error) {
	if at, err := time.Parse(time.RFC3339Nano, strings.ToUpper(text)); err == nil {
		return at, at.Add(time.Nanosecond), nil
	}
	if day, err := time.Parse(time.DateOnly, text); err == nil {
		return day, day.AddDate(0, 0, 1), nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), now.Add(-ago).Add(time.Nanosecond), nil
	}
	return first, after, fmt.Errorf("%q is no timestamp (2026-11-28T14:02:00Z), date (2026-11-28) or duration ago (2h)", text)
}

// foundRecords are the records of a block, as printed.
type foundRecords struct {
	text []byte
	n    int
}

// findRecords prints the records that the search selects.
func findRecords(cmd *cobra.Command, files []string, search *decisionlog.Search, asJSON bool) error {
	scan := newLogScan(cmd, files)
	out := newRecordPrinter(asJSON, cmd.OutOrStdout())
	err := scanLogs(cmd.Context(), scan, func(found *foundRecords, line []byte) error {
		record, selected, err := search.Select(line)
		if err != nil || !selected {
			return err
		}
		found.n++
		if asJSON {
			found.text = append(append(found.text, line...), '\n')
		} else {
			found.text = appendRow(found.text, &record)
		}
		return nil
	}, func(found *foundRecords) error {
		if found.n > 0 {
			scan.progress.hide()
		}
		return out.add(found.text, found.n)
	})
	if err == nil {
		err = out.flush()
	}
	if err != nil {
		return err
	}
	if out.all == 0 {
		return scan.exit(exitNotFound)
	}
	return scan.exit(0)
}

// recordPrinter prints records, as a table if table is set.
type recordPrinter struct {
	out   io.Writer
	table *tabwriter.Writer
	all   int // records
	open  int // rows that are not aligned and printed yet
}

func newRecordPrinter(asJSON bool, out io.Writer) *recordPrinter {
	if asJSON {
		return &recordPrinter{out: out}
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	return &recordPrinter{out: table, table: table}
}

func (p *recordPrinter) add(text []byte, records int) error {
	if records == 0 {
		return nil
	}
	if p.all == 0 && p.table != nil {
		fmt.Fprintln(p.table, "TIME\tDECISION\tCALLER\tPARTNER\tCUSTOMER\tSEGMENT\tOPERATION\tOUTCOME\tEVIDENCE")
	}
	p.all += records
	if _, err := p.out.Write(text); err != nil {
		return err
	}
	p.open += records
	if p.open >= rowsAtATime {
		return p.flush()
	}
	return nil
}

func (p *recordPrinter) flush() error {
	p.open = 0
	if p.table == nil {
		return nil
	}
	return p.table.Flush()
}

// appendRow appends a record as a row of the table.
func appendRow(b []byte, r *decisionlog.Record) []byte {
	caller, segment, operation := orText(printable(r.Caller), "-"), r.Question.Segment.String(), r.Question.Operation.String()
	if r.Person != "" {
		caller += " (" + printable(r.Person) + ")"
	}
	if r.Question.Invalid {
		segment, operation = "-", "-"
	}
	return fmt.Appendf(b, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", recordTime(r.Time), orText(printable(r.DecisionID), "-"), caller,
		orText(printable(r.Partner), "-"), orText(r.Question.Customer.String(), "-"), segment, operation, r.Answer(), shownBasis(&r.Basis))
}

func recordTime(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000Z") }

// shownBasis returns the words that the answer was decided by, and when they were
// fetched.
func shownBasis(basis *eligibility.Basis) string {
	var parts []string
	for _, held := range []*eligibility.Held{&basis.Account, &basis.Qualifications} {
		if held.Evidence != nil {
			parts = append(parts, shownEvidence(held.Evidence)+" at "+held.Evidence.FetchTime.UTC().Format(time.RFC3339))
		}
		if failure, failed := errors.AsType[*eligibility.Error](held.Err); failed {
			parts = append(parts, failure.Kind.String())
		}
	}
	return orText(strings.Join(parts, "; "), "-")
}

func shownEvidence(e *eligibility.Evidence) string {
	switch {
	case e.Absence == eligibility.AbsenceNotFound:
		return "not found"
	case e.Absence == eligibility.AbsenceNotServed:
		return "not served"
	case e.Facet == eligibility.FacetQualifications:
		words := make([]string, len(e.Qualifications))
		for i := range e.Qualifications {
			q := &e.Qualifications[i]
			words[i] = strings.TrimSpace(printable(q.TypeText) + " " + printable(q.VettingStatusText))
		}
		return orText(strings.Join(words, ", "), "no qualification")
	case e.Status == eligibility.AccountStatusNone:
		return "no status"
	default:
		return printable(e.StatusText)
	}
}
