package server

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// warm is a server that holds evidence of an age about customerA, and cannot
// get newer.
func warm(t *testing.T, age time.Duration) *running {
	t.Helper()
	run := start(t, setup{source: fails(eligibility.Error{Kind: eligibility.KindUnavailable})})
	at := time.Now().Add(-age)
	run.store.put(customerA, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed"}, at)
	run.store.put(customerA, eligibility.FacetQualifications, eligibility.Evidence{}, at)
	return run
}

func TestAFreshAnswerMayBeKeptForItsWholeFreshAge(t *testing.T) {
	t.Parallel()
	got := warm(t, 61*time.Second).get(t, customerA, "")
	answer := got.json(t)
	evidence, err := time.Parse(time.RFC3339Nano, answer["evidenceTime"].(string))
	if err != nil {
		t.Fatal(err)
	}
	expire, err := time.Parse(time.RFC3339Nano, answer["expireTime"].(string))
	if err != nil {
		t.Fatal(err)
	}
	want := "private, max-age=" + strconv.Itoa(int(expire.Sub(evidence).Seconds()))
	if cache := got.Header.Get("Cache-Control"); cache != want {
		t.Errorf("Cache-Control %q, want %q", cache, want)
	}
	if age, err := strconv.Atoi(got.Header.Get("Age")); err != nil || age < 61 || age > 90 {
		t.Errorf("Age %q, want 61 or little more", got.Header.Get("Age"))
	}
}

func TestAStaleAnswerMustNotBeKept(t *testing.T) {
	t.Parallel()
	got := warm(t, 20*time.Minute).get(t, customerA, "")
	if answer := got.json(t); answer["stale"] != true || got.Header.Get("Cache-Control") != "no-cache" {
		t.Errorf("Cache-Control %q of %s", got.Header.Get("Cache-Control"), got.body)
	}
}

func TestAnAnswerWithoutEvidenceMustNotBeKept(t *testing.T) {
	t.Parallel()
	run := start(t, setup{
		source:  fails(eligibility.Error{Kind: eligibility.KindUnavailable}),
		service: evidence.Config{Policy: eligibility.Policy{BlockUndecidable: true}},
	})
	got := run.get(t, customerA, "")
	if got.StatusCode != http.StatusOK || reasons(got.json(t)) != "UNDECIDABLE" {
		t.Fatalf("%d %s", got.StatusCode, got.body)
	}
	if got.Header.Get("Cache-Control") != "no-cache" || got.Header.Get("Age") != "" {
		t.Errorf("Cache-Control %q, Age %q", got.Header.Get("Cache-Control"), got.Header.Get("Age"))
	}
	answer := got.json(t)
	for _, name := range []string{"evidenceTime", "expireTime"} {
		if _, said := answer[name]; said {
			t.Errorf("%s is invented: %s", name, got.body)
		}
	}
	if answer["accountStatus"] != "ACCOUNT_STATUS_UNSPECIFIED" || answer["source"] != "EVIDENCE_SOURCE_UNSPECIFIED" ||
		answer["correlationId"] != "" || answer["qualificationsKnown"] != false || answer["recheckTime"] == nil {
		t.Errorf("an undecidable answer says %s", got.body)
	}
}

func TestAnAnswerThatTheCallerHoldsIsNotSentAgain(t *testing.T) {
	t.Parallel()
	run := warm(t, time.Minute)
	full := run.get(t, customerA, "")
	tag := full.Header.Get("Etag")
	if len(tag) < 5 || tag[:3] != `W/"` {
		t.Fatalf("ETag %q", tag)
	}
	for held, code := range map[string]int{
		tag:                           304,
		tag[2:]:                       304, // weak comparison
		"*":                           304,
		`"other", ` + tag + `, W/"x"`: 304,
		`"other"`:                     200,
		`W/"other"`:                   200,
		"":                            200,
	} {
		got := run.get(t, customerA, "", "If-None-Match", held, "X-Request-Id", "r1")
		if got.StatusCode != code || (len(got.body) == 0) != (code == 304) {
			t.Errorf("If-None-Match %s: %d %q", held, got.StatusCode, got.body)
		}
		for name, want := range map[string]string{
			"Etag": tag, "Cache-Control": full.Header.Get("Cache-Control"), "X-Request-Id": "r1",
		} {
			if got.Header.Get(name) != want {
				t.Errorf("If-None-Match %s: %s is %q, want %q", held, name, got.Header.Get(name), want)
			}
		}
		if got.Header.Get("Age") == "" {
			t.Errorf("If-None-Match %s: no Age", held)
		}
	}
	// Two header lines are one list.
	got := run.get(t, customerA, "", "If-None-Match", `"other"`, "If-None-Match", tag)
	if got.StatusCode != http.StatusNotModified {
		t.Errorf("two lines: %d", got.StatusCode)
	}
}

// TestAnAnswerThatHasExpiredIsNotConfirmed moves the clock past the expiry of an
// answer on its way, and asks for one that is stale.
func TestAnAnswerThatHasExpiredIsNotConfirmed(t *testing.T) {
	t.Parallel()
	run := warm(t, time.Minute)
	reply := &checkReply{answer: eligibility.Answer{EvidenceTime: time.Unix(1000, 0), ExpireTime: time.Unix(1060, 0)}}
	sum, _ := entityTag(reply.appendJSON(nil))
	tag := string(sum[:])
	for at, want := range map[int64]int{1059: http.StatusNotModified, 1060: http.StatusOK, 2000: http.StatusOK} {
		api := &Handler{chain: &Chain{cfg: ChainConfig{Now: func() time.Time { return time.Unix(at, 0) }}}}
		w := httptest.NewRecorder()
		api.write(w, &restRequest{ifNoneMatch: []string{tag}}, reply)
		if w.Code != want || w.Header().Get("Etag") != tag || w.Header().Get("Age") == "" {
			t.Errorf("at %d: %d %v, want %d", at, w.Code, w.Header(), want)
		}
	}
	run.store.put(customerA, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed}, time.Now().Add(-20*time.Minute))
	if got := run.get(t, customerA, "", "If-None-Match", "*"); got.StatusCode != http.StatusOK || got.json(t)["stale"] != true {
		t.Errorf("a stale answer: %d %s", got.StatusCode, got.body)
	}
}

func TestErrorsAndBatchesAreNotKept(t *testing.T) {
	t.Parallel()
	run := warm(t, time.Minute)
	for name, got := range map[string]reply{
		"an error":             run.get(t, "no-guid", ""),
		"an error with a tag":  run.get(t, customerB, "", "If-None-Match", "*"),
		"an answer to a batch": run.post(t, `{"requests":[{"customerId":"`+customerA+`"}]}`),
	} {
		if got.Header.Get("Cache-Control") != "no-store" || got.Header.Get("Etag") != "" {
			t.Errorf("%s: %d %v", name, got.StatusCode, got.Header)
		}
	}
}

// TestTheEntityTagCoversTheBody changes each field of an answer in turn, so that
// a field added later is covered too.
func TestTheEntityTagCoversTheBody(t *testing.T) {
	t.Parallel()
	full := func() *eligibilityv1.CheckEligibilityResponse {
		return &eligibilityv1.CheckEligibilityResponse{
			CustomerId: customerA, Decision: eligibilityv1.Decision_DECISION_ALLOWED,
			Reasons:       []*eligibilityv1.Reason{{Code: eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_ALLOWED}},
			AccountStatus: eligibilityv1.AccountStatus_ACCOUNT_STATUS_ALLOWED, AccountStatusText: "Allowed",
			Qualifications: []*eligibilityv1.Qualification{{
				Type: eligibilityv1.QualificationType_QUALIFICATION_TYPE_EDUCATION, TypeText: "Education",
				VettingStatus: eligibilityv1.VettingStatus_VETTING_STATUS_DENIED, VettingStatusText: "Denied",
				VettingReason: "r", VettingCreatedTime: &timestamppb.Timestamp{Seconds: 1, Nanos: 1},
			}},
			QualificationsKnown: true,
			EvidenceTime:        &timestamppb.Timestamp{Seconds: 2, Nanos: 2},
			ExpireTime:          &timestamppb.Timestamp{Seconds: 3, Nanos: 3},
			RecheckTime:         &timestamppb.Timestamp{Seconds: 4, Nanos: 4},
			Source:              eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_LOCAL, Stale: true, CorrelationId: "c",
		}
	}
	tagOf := func(answer *eligibilityv1.CheckEligibilityResponse) string {
		text, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(answer)
		if err != nil {
			t.Fatal(err)
		}
		var body bytes.Buffer
		if err := json.Compact(&body, text); err != nil {
			t.Fatal(err)
		}
		tag, _ := entityTag(body.Bytes())
		return string(tag[:])
	}
	tag := tagOf(full())
	if again := tagOf(full()); again != tag {
		t.Fatalf("the same answer has tags %s and %s", tag, again)
	}
	check := func(field protoreflect.FieldDescriptor, changed *eligibilityv1.CheckEligibilityResponse) {
		t.Helper()
		if same := tagOf(changed) == tag; same != (field.Name() == "source") {
			t.Errorf("%s: the tag stays %v", field.FullName(), same)
		}
	}
	quoting := full()
	quoting.Qualifications[0].VettingReason = `r","source":"EVIDENCE_SOURCE_LOCAL"`
	check(quoting.ProtoReflect().Descriptor().Fields().ByName("qualifications"), quoting)
	top := full().ProtoReflect().Descriptor().Fields()
	for i := range top.Len() {
		changed := full()
		changed.ProtoReflect().Clear(top.Get(i))
		check(top.Get(i), changed)
	}
	reason := (&eligibilityv1.Reason{}).ProtoReflect().Descriptor().Fields()
	for i := range reason.Len() {
		changed := full()
		alter(changed.GetReasons()[0], reason.Get(i))
		check(reason.Get(i), changed)
	}
	held := (&eligibilityv1.Qualification{}).ProtoReflect().Descriptor().Fields()
	for i := range held.Len() {
		changed := full()
		alter(changed.GetQualifications()[0], held.Get(i))
		check(held.Get(i), changed)
	}
}

// alter gives a field another value than it has.
func alter(message proto.Message, field protoreflect.FieldDescriptor) {
	reflected := message.ProtoReflect()
	if reflected.Has(field) {
		reflected.Clear(field)
		return
	}
	switch field.Kind() {
	case protoreflect.StringKind:
		reflected.Set(field, protoreflect.ValueOfString("x"))
	case protoreflect.BoolKind:
		reflected.Set(field, protoreflect.ValueOfBool(true))
	case protoreflect.EnumKind:
		reflected.Set(field, protoreflect.ValueOfEnum(1))
	default:
		panic("alter: " + field.FullName())
	}
}
