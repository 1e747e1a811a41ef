package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// printer writes results in the order in which they arrive: as JSON lines or, if
// table is set, as a table, of which so many rows at a time are aligned and printed.
type printer struct {
	out   io.Writer
	table *tabwriter.Writer
	rows  int // not printed yet
}

const rowsAtATime = 1000

func newPrinter(asJSON bool, out io.Writer) printer {
	if asJSON {
		return printer{out: out}
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CUSTOMER\tDECISION\tREASONS\tEVIDENCE\tSOURCE")
	return printer{out: out, table: table}
}

func (p *printer) add(id string, result *eligibilityv1.BatchCheckEligibilityResult) error {
	if p.table == nil {
		return p.printJSON(id, result)
	}
	if err := p.printRow(id, result); err != nil {
		return err
	}
	p.rows++
	if p.rows%rowsAtATime == 0 {
		return p.table.Flush()
	}
	return nil
}

func (p *printer) flush() error {
	if p.table == nil {
		return nil
	}
	return p.table.Flush()
}

// printJSON writes one JSON object: the response or, if the check failed, the
// ID as given and the error.
func (p *printer) printJSON(id string, result *eligibilityv1.BatchCheckEligibilityResult) error {
	if response := result.GetResponse(); response != nil {
		line, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(response)
		if err != nil {
			return fmt.Errorf("print %s: %w", id, err)
		}
		return p.line(line)
	}
	failure, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(result.GetError())
	if err != nil {
		return fmt.Errorf("print %s: %w", id, err)
	}
	line, err := json.Marshal(struct {
		CustomerID string          `json:"customerId"`
		Error      json.RawMessage `json:"error"`
	}{shownID(id), failure})
	if err != nil {
		return fmt.Errorf("print %s: %w", id, err)
	}
	return p.line(line)
}

func (p *printer) line(b []byte) error {
	_, err := p.out.Write(append(b, '\n'))
	return err
}

// printRow writes one row of the table.
func (p *printer) printRow(id string, result *eligibilityv1.BatchCheckEligibilityResult) error {
	response := result.GetResponse()
	if response == nil {
		failure := result.GetError()
		_, err := fmt.Fprintf(p.table, "%s\tundecided\t%s\t-\t-\n", printable(shownID(id)), orText(failure.GetReason(), codes.Code(failure.GetCode()).String())) //nolint:gosec // a gRPC code
		return err
	}
	var reasons []string
	for _, reason := range response.GetReasons() {
		reasons = append(reasons, strings.TrimPrefix(reason.GetCode().String(), "REASON_CODE_"))
	}
	evidence := "-"
	if at := response.GetEvidenceTime(); at != nil {
		evidence = at.AsTime().Local().Format(time.DateTime)
		if response.GetStale() {
			evidence += " (stale)"
		}
	}
	source := strings.ToLower(strings.TrimPrefix(response.GetSource().String(), "EVIDENCE_SOURCE_"))
	_, err := fmt.Fprintf(p.table, "%s\t%s\t%s\t%s\t%s\n", response.GetCustomerId(),
		strings.ToLower(strings.TrimPrefix(response.GetDecision().String(), "DECISION_")),
		strings.Join(reasons, ", "), evidence, source)
	return err
}

// printable removes the control characters of a mistyped ID, so that they do
// not reach the terminal.
func printable(id string) string {
	quoted := fmt.Sprintf("%q", id)
	return quoted[1 : len(quoted)-1]
}

func orText(text, fallback string) string {
	if text == "" {
		return fallback
	}
	return text
}
