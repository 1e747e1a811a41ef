package rest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// TestTheEntityTagCoversTheBody changes each field of an answer in turn, so that
// a field added later is covered too.
func TestTheEntityTagCoversTheBody(t *testing.T) {
	t.Parallel()
	full := func() *eligibilityv1.CheckEligibilityResponse {
		return &eligibilityv1.CheckEligibilityResponse{
			CustomerId: apitest.CustomerA, Decision: eligibilityv1.Decision_DECISION_ALLOWED,
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
		before, from, _ := bytes.Cut(body.Bytes(), []byte(`,"source":"`)) // the quotes of a text are escaped
		_, after, _ := bytes.Cut(from, []byte(`"`))
		tag := entityTag(eligibility.DecisionAllowed, before, after)
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

// TestTheEntityTagNamesTheDecision compares the tags of two decisions whose bodies have
// the same hash.
func TestTheEntityTagNamesTheDecision(t *testing.T) {
	t.Parallel()
	tags := make(map[string]eligibility.Decision)
	for _, decision := range []eligibility.Decision{eligibility.DecisionNone, eligibility.DecisionAllowed, eligibility.DecisionBlocked} {
		tag := entityTag(decision, []byte("{"), []byte("}"))
		if other, taken := tags[string(tag[:])]; taken {
			t.Errorf("decisions %v and %v have the tag %s", decision, other, tag)
		}
		tags[string(tag[:])] = decision
	}
}

// TestTheEntityTagOfAnAnswer changes parts of an answer on its way from the domain to the
// header, its tier first, which is no part of the tag.
func TestTheEntityTagOfAnAnswer(t *testing.T) {
	t.Parallel()
	reply := func(change func(*eligibility.Answer)) *api.CheckReply {
		answer := eligibility.Answer{
			Decision: eligibility.DecisionAllowed, Tier: eligibility.TierLocal,
			Account:      &eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed", CorrelationID: "c"},
			EvidenceTime: time.Unix(1000, 0), ExpireTime: time.Unix(1060, 0),
		}
		change(&answer)
		return &api.CheckReply{Answer: answer}
	}
	tag := writtenTag(reply(func(*eligibility.Answer) {}))
	for _, row := range []struct {
		name   string
		change func(*eligibility.Answer)
		same   bool
	}{
		{"tier", func(a *eligibility.Answer) { a.Tier = eligibility.TierPartnerCenter }, true},
		{"decision", func(a *eligibility.Answer) { a.Decision = eligibility.DecisionBlocked }, false},
		{"last member before the source", func(a *eligibility.Answer) { a.ExpireTime = time.Unix(1061, 0) }, false},
		{"first member after the source", func(a *eligibility.Answer) { a.Stale = true }, false},
		{"last member", func(a *eligibility.Answer) {
			a.Account = &eligibility.Evidence{Status: a.Account.Status, StatusText: "Allowed", CorrelationID: "d"}
		}, false},
	} {
		if got := writtenTag(reply(row.change)); (got == tag) != row.same {
			t.Errorf("%s: tags %s and %s", row.name, tag, got)
		}
	}
}

// writtenTag returns the entity tag of an answer.
func writtenTag(reply *api.CheckReply) string {
	h := &Handler{now: func() time.Time { return time.Unix(1000, 0) }}
	w := httptest.NewRecorder()
	h.write(w, &request{}, reply)
	return w.Header().Get("Etag")
}

// TestAnAnswerThatHasExpiredIsNotConfirmed moves the clock past the expiry of an
// answer on its way.
func TestAnAnswerThatHasExpiredIsNotConfirmed(t *testing.T) {
	t.Parallel()
	reply := &api.CheckReply{Answer: eligibility.Answer{EvidenceTime: time.Unix(1000, 0), ExpireTime: time.Unix(1060, 0)}}
	tag := writtenTag(reply)
	for at, want := range map[int64]int{1059: http.StatusNotModified, 1060: http.StatusOK, 2000: http.StatusOK} {
		h := &Handler{now: func() time.Time { return time.Unix(at, 0) }}
		w := httptest.NewRecorder()
		h.write(w, &request{ifNoneMatch: []string{tag}}, reply)
		if w.Code != want || w.Header().Get("Etag") != tag || w.Header().Get("Age") == "" {
			t.Errorf("at %d: %d %v, want %d", at, w.Code, w.Header(), want)
		}
	}
}
