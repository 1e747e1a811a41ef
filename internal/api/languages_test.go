package api_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// messagesIn returns the messages of the reasons of answers, which have some.
func messagesIn(t *testing.T, answers ...*eligibilityv1.CheckEligibilityResponse) (messages []string) {
	t.Helper()
	for _, answer := range answers {
		if len(answer.GetReasons()) == 0 {
			t.Errorf("no reason in %v", answer)
		}
		for _, reason := range answer.GetReasons() {
			messages = append(messages, reason.GetMessage())
		}
	}
	return messages
}

// overREST sends a request over REST, reads the answer into m, and checks its headers.
func overREST(t *testing.T, run *servertest.Running, in eligibility.Language, method, path, body string, m proto.Message) {
	t.Helper()
	got := run.Do(t, method, run.REST+path, body, "Accept-Language", in.String()+"-x-region, sv;q=0.1")
	if err := protojson.Unmarshal(got.Body, m); err != nil || got.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d, %v, %s", path, got.StatusCode, err, got.Body)
	}
	if got.Header.Get("Content-Language") != in.String() || got.Header.Get("Vary") != "Accept-Encoding, Accept-Language" {
		t.Errorf("%s: %v", path, got.Header)
	}
}

// Every RPC whose answers have messages has them in the language of its caller, over
// both transports, for callers of different languages at a time.
func TestMessagesAreInTheLanguageOfTheCaller(t *testing.T) {
	t.Parallel()
	run, feed := startWatching(t, servertest.Setup{})
	now := time.Now().Add(-time.Second)
	run.Store.Hold(apitest.CustomerA, eligibility.FacetAccount, *accountAt("UnderReview", now), now)
	run.Store.Hold(apitest.CustomerA, eligibility.FacetQualifications, eligibility.Evidence{}, now)
	feed.Write(apitest.CustomerA, accountAt("Allowed", now.Add(-time.Minute)))

	for in := range eligibility.Language(eligibility.LanguageCount) {
		t.Run(in.String(), func(t *testing.T) {
			t.Parallel()
			want := eligibility.Reason{Code: eligibility.ReasonAccountUnderReview, Blocks: true}.Message(in)
			check := func(rpc string, messages []string) {
				t.Helper()
				if len(messages) == 0 || slices.ContainsFunc(messages, func(message string) bool { return message != want }) {
					t.Errorf("%s: %q, want %q", rpc, messages, want)
				}
			}
			ctx := metadata.AppendToOutgoingContext(t.Context(), "accept-language", in.String()+"-x-region", "accept-language", "sv;q=0.1")
			path := "/v1/customers/" + apitest.CustomerA + "/eligibility"

			one, err := run.Client.CheckEligibility(ctx, apitest.Ask(apitest.CustomerA))
			if err != nil {
				t.Fatal(err)
			}
			check("check", messagesIn(t, one))
			one = new(eligibilityv1.CheckEligibilityResponse)
			overREST(t, run, in, http.MethodGet, path, "", one)
			check("check over REST", messagesIn(t, one))

			batch, err := run.Client.BatchCheckEligibility(ctx, &eligibilityv1.BatchCheckEligibilityRequest{Requests: []*eligibilityv1.CheckEligibilityRequest{
				apitest.Ask(apitest.CustomerA), apitest.Ask("no id"), apitest.Ask(apitest.CustomerA),
			}})
			if err != nil {
				t.Fatal(err)
			}
			check("batch", messagesIn(t, batch.GetResults()[0].GetResponse(), batch.GetResults()[2].GetResponse()))
			batch = new(eligibilityv1.BatchCheckEligibilityResponse)
			overREST(t, run, in, http.MethodPost, "/v1/customers:batchCheckEligibility", `{"requests":[{"customerId":"`+apitest.CustomerA+`"}]}`, batch)
			check("batch over REST", messagesIn(t, batch.GetResults()[0].GetResponse()))

			explanation, err := run.Client.ExplainEligibility(ctx, &eligibilityv1.ExplainEligibilityRequest{CustomerId: apitest.CustomerA})
			if err != nil {
				t.Fatal(err)
			}
			check("explanation", messagesIn(t, explanation.GetSegments()[0].GetResponse()))
			explanation = new(eligibilityv1.ExplainEligibilityResponse)
			overREST(t, run, in, http.MethodGet, path+":explain", "", explanation)
			check("explanation over REST", messagesIn(t, explanation.GetSegments()[0].GetResponse()))
		})
	}
}

// Streams in different languages share the changes, each in its own words.
func TestStreamsAreInTheLanguageOfTheirCaller(t *testing.T) {
	t.Parallel()
	eachTransport(t, func(t *testing.T, via string) {
		run, feed := startWatching(t, servertest.Setup{})
		now := time.Now().Add(-time.Second)
		run.Store.Hold(apitest.CustomerA, eligibility.FacetAccount, *accountAt("UnderReview", now), now)
		feed.Write(apitest.CustomerA, accountAt("UnderReview", now))
		open := make(map[eligibility.Language]*watching)
		for _, in := range []eligibility.Language{eligibility.English, eligibility.German, eligibility.Japanese} {
			w := watch(t, metadata.AppendToOutgoingContext(t.Context(), "accept-language", in.String()), run, via, ask(apitest.CustomerA))
			initial := w.next("change").GetChange()
			if got, want := messagesIn(t, initial.GetAfter())[0], (eligibility.Reason{Code: eligibility.ReasonAccountUnderReview}).Message(in); !initial.GetInitial() || got != want {
				t.Errorf("in %v: %q, want %q", in, got, want)
			}
			w.next("progress")
			open[in] = w
		}
		written := feed.Write(apitest.CustomerA, accountAt("NotAllowed", now.Add(time.Millisecond))).ID()
		for in, w := range open {
			change := w.change()
			for change.GetEventId() != written {
				change = w.change()
			}
			want := []string{
				eligibility.Reason{Code: eligibility.ReasonAccountUnderReview}.Message(in),
				eligibility.Reason{Code: eligibility.ReasonAccountNotAllowed}.Message(in),
			}
			if got := messagesIn(t, change.GetBefore(), change.GetAfter()); !slices.Equal(got, want) {
				t.Errorf("in %v: %q, want %q", in, got, want)
			}
		}
	})
}
