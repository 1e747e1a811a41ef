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

// printer writes results in the order they come.
type printer interface {
	print(id string, result *eligibilityv1.BatchCheckEligibilityResult) error
	flush() error
}

func newPrinter(asJSON bool, out io.Writer) printer {
	if asJSON {
		return jsonPrinter{out}
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CUSTOMER\tDECISION\tREASONS\tEVIDENCE\tSOURCE")
	return tablePrinter{table}
}

// jsonPrinter writes one JSON object a line: the response, or the customer's
// ID as it was given with the error.
type jsonPrinter struct{ out io.Writer }

func (p jsonPrinter) print(id string, result *eligibilityv1.BatchCheckEligibilityResult) error {
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
	}{id, failure})
	if err != nil {
		return fmt.Errorf("print %s: %w", id, err)
	}
	return p.line(line)
}

func (p jsonPrinter) line(b []byte) error {
	_, err := p.out.Write(append(b, '\n'))
	return err
}

func (jsonPrinter) flush() error { return nil }

// tablePrinter writes aligned columns.
type tablePrinter struct{ table *tabwriter.Writer }

func (p tablePrinter) print(id string, result *eligibilityv1.BatchCheckEligibilityResult) error {
	response := result.GetResponse()
	if response == nil {
		failure := result.GetError()
		_, err := fmt.Fprintf(p.table, "%s\tundecided\t%s\t-\t-\n", printable(id), orText(failure.GetReason(), codes.Code(failure.GetCode()).String())) //nolint:gosec // a gRPC code
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

func (p tablePrinter) flush() error { return p.table.Flush() }

// printable keeps control characters of a mistyped ID off the terminal.
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
