package rest

import (
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// documented is what a document states about a reason.
type documented struct {
	Code  string
	HTTP  int
	Retry bool
}

// sentReasons are the reasons that the server can send, and those of callers that
// are not authenticated, which the contract has already.
func sentReasons() map[string]documented {
	sent := map[string]documented{
		"UNAUTHENTICATED":   {"UNAUTHENTICATED", 401, false},
		"PERMISSION_DENIED": {"PERMISSION_DENIED", 403, false},
	}
	for _, kind := range eligibility.Kinds() {
		f := api.FaultOf(kind)
		sent[f.Reason] = documented{api.CodeName(f.Code), runtime.HTTPStatusFromCode(f.Code), f.Retry}
	}
	for _, status := range []int{http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType} {
		f := faultOf(status)
		sent[f.Reason] = documented{api.CodeName(f.Code), status, f.Retry}
	}
	return sent
}

// TestEveryReasonIsDocumented compares the tables of reasons in the .proto and in
// the OpenAPI description with what is sent.
func TestEveryReasonIsDocumented(t *testing.T) {
	t.Parallel()
	proto, err := os.ReadFile("../../proto/eligibility/v1/eligibility.proto")
	if err != nil {
		t.Fatal(err)
	}
	inProto := make(map[string]documented)
	for _, row := range regexp.MustCompile(`(?m)^//   - ([A-Z_]+) \(code ([A-Z_]+), HTTP (\d+)(, RetryInfo)?\):`).FindAllStringSubmatch(string(proto), -1) {
		status, _ := strconv.Atoi(row[3])
		inProto[row[1]] = documented{row[2], status, row[4] != ""}
	}
	if diff := cmp.Diff(sentReasons(), inProto); diff != "" {
		t.Errorf("eligibility.proto (-sent +documented):\n%s", diff)
	}

	description, err := docsFiles.ReadFile(openAPIFile)
	if err != nil {
		t.Fatal(err)
	}
	inOpenAPI := make(map[string]documented)
	for _, row := range regexp.MustCompile("\\| (\\d+) \\| `([A-Z_]+)` \\| `([A-Z_]+)` \\|[^|]*\\|([^|]*)\\|").FindAllStringSubmatch(string(description), -1) {
		status, _ := strconv.Atoi(row[1])
		inOpenAPI[row[3]] = documented{row[2], status, strings.Contains(row[4], "Retry-After")}
	}
	if diff := cmp.Diff(sentReasons(), inOpenAPI); diff != "" {
		t.Errorf("the OpenAPI description (-sent +documented):\n%s", diff)
	}
}

// TestReasonsHaveTheNamesOfTheirCodes holds the codes of the table to names that
// google.rpc has.
func TestReasonsHaveTheNamesOfTheirCodes(t *testing.T) {
	t.Parallel()
	for reason, is := range sentReasons() {
		number, known := code.Code_value[is.Code]
		if !known || number == int32(codes.OK) {
			t.Errorf("%s has code %q", reason, is.Code)
		}
	}
}

// TestMessagesSpeakToTheShop holds every sentence that callers are shown to what
// the shop's customers and staff can understand.
func TestMessagesSpeakToTheShop(t *testing.T) {
	t.Parallel()
	var messages []string
	for _, kind := range eligibility.Kinds() {
		messages = append(messages, api.FaultOf(kind).Message)
	}
	for _, status := range []int{http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType} {
		messages = append(messages, faultOf(status).Message)
	}
	for reason := eligibility.ReasonAccountAllowed; reason <= eligibility.ReasonUndecidable; reason++ {
		for _, blocks := range []bool{false, true} {
			messages = append(messages, eligibility.Reason{Code: reason, Blocks: blocks}.Message(eligibility.English))
		}
	}
	unfit := regexp.MustCompile(`(?i)\b(this|the) service\b|operator|configur|is set to|must not be asked|try again|wait|contact|call |retry`)
	for _, message := range messages {
		if !strings.HasSuffix(message, ".") || strings.Count(message, ".") != strings.Count(strings.TrimSuffix(message, "."), ".")+1 {
			t.Errorf("%q is no sentence", message)
		}
		if word := unfit.FindString(message); word != "" {
			t.Errorf("%q contains %q", message, word)
		}
	}
}
