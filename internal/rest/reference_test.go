package rest

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/referencetest"
)

// TestTheReferenceOfErrorsIsComplete writes what the code sends for each reason, in the
// order and with the meaning of the contract.
func TestTheReferenceOfErrorsIsComplete(t *testing.T) {
	t.Parallel()
	contract, err := os.ReadFile("../../proto/eligibility/v1/eligibility.proto")
	if err != nil {
		t.Fatal(err)
	}
	comment := strings.Join(strings.Fields(regexp.MustCompile(`(?m)^\s*//`).ReplaceAllString(string(contract), "")), " ")
	_, comment, _ = strings.Cut(comment, "the same reasons.")
	comment, _, _ = strings.Cut(comment, " service EligibilityService")

	sent, sentences, details := sentReasons(), map[string][]string{}, map[string]string{}
	for _, kind := range eligibility.Kinds() {
		fault := api.FaultOf(kind)
		sentences[fault.Reason] = append(sentences[fault.Reason], fault.Message)
		details[fault.Reason] = detailsOf(kind)
	}
	for _, status := range []int{http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType} {
		fault := faultOf(status)
		sentences[fault.Reason] = append(sentences[fault.Reason], fault.Message)
	}

	var page strings.Builder
	page.WriteString("# Errors\n\nGenerated from the code by `make generate`. What a caller does about each: [integrate.md](../integrate.md#7-what-to-do-on-each-error);\n" +
		"what support answers: [support.md](../support.md#there-is-an-error). Every error has a `google.rpc.ErrorInfo` with the domain `eligibility` and\n" +
		"the reason. *Ask again* is empty if the service states no delay.\n\n" +
		"| reason | gRPC code | HTTP | ask again | further details | sentence | meaning |\n|---|---|---|---|---|---|---|\n")
	for _, item := range strings.Split(comment, " - ")[1:] {
		reason, rest, _ := strings.Cut(item, " ")
		_, meaning, _ := strings.Cut(rest, "): ")
		is, known := sent[reason]
		if !known || meaning == "" {
			t.Fatalf("cannot read %q", item)
		}
		delete(sent, reason)
		retry := ""
		if is.Retry {
			retry = "after `RetryInfo`, over REST `Retry-After`"
		}
		fmt.Fprintf(&page, "| `%s` | %s | %d | %s | %s | %s | %s |\n", reason, is.Code, is.HTTP, retry, details[reason], strings.Join(sentences[reason], " Or: "), meaning)
	}
	for reason := range sent {
		t.Errorf("the contract lacks %s", reason)
	}
	referencetest.Compare(t, "../..", "errors.md", page.String())
}

// detailsOf returns what an error of that kind has beside reason and delay.
func detailsOf(kind eligibility.Kind) string {
	failure := &eligibility.Error{Kind: kind}
	if kind == eligibility.KindInvalidArgument {
		failure.Violations = []eligibility.Violation{{Field: "customer_id", Description: "is no GUID"}}
	}
	if kind == eligibility.KindPermissionDenied {
		failure.Right = "check"
	}
	var names []string
	for _, detail := range api.StatusOf(failure).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			for key := range detail.GetMetadata() {
				names = append(names, "`metadata."+key+"`")
			}
		case *errdetails.BadRequest:
			names = append(names, "`BadRequest`")
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
