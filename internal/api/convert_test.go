package api

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// TestEveryValueOfTheAPIHasOneOfTheDomain walks each of the domain's enumerations and wants
// each value of the API to stand for exactly one of the domain's: a value added on
// one side only, or used twice, is found.
func TestEveryValueOfTheAPIHasOneOfTheDomain(t *testing.T) {
	t.Parallel()
	const most = 50 // beyond every enumeration
	for name, row := range map[string]struct {
		api   protoreflect.EnumDescriptor
		say   func(i uint8) protoreflect.EnumNumber
		other protoreflect.EnumNumber // what values beyond the domain's become
		from  uint8                   // the first value that means something
	}{
		"decision": {
			eligibilityv1.Decision(0).Descriptor(),
			func(i uint8) protoreflect.EnumNumber { return decision(eligibility.Decision(i)).Number() }, 0, 1,
		},
		"reason code": {
			eligibilityv1.ReasonCode(0).Descriptor(),
			func(i uint8) protoreflect.EnumNumber { return reasonCode(eligibility.ReasonCode(i)).Number() }, 0, 1,
		},
		"remedy": {
			eligibilityv1.Remedy(0).Descriptor(),
			func(i uint8) protoreflect.EnumNumber { return remedy(eligibility.Remedy(i)).Number() }, 0, 0,
		},
		"account status": {
			eligibilityv1.AccountStatus(0).Descriptor(),
			func(i uint8) protoreflect.EnumNumber { return accountStatus(eligibility.AccountStatus(i)).Number() }, 0, 1,
		},
		"qualification type": {
			eligibilityv1.QualificationType(0).Descriptor(),
			func(i uint8) protoreflect.EnumNumber {
				return qualificationType(eligibility.QualificationType(i)).Number()
			},
			eligibilityv1.QualificationType_QUALIFICATION_TYPE_UNRECOGNIZED.Number(), 1,
		},
		"vetting status": {
			eligibilityv1.VettingStatus(0).Descriptor(),
			func(i uint8) protoreflect.EnumNumber { return vettingStatus(eligibility.VettingStatus(i)).Number() },
			eligibilityv1.VettingStatus_VETTING_STATUS_UNRECOGNIZED.Number(), 1,
		},
		"evidence source": {
			eligibilityv1.EvidenceSource(0).Descriptor(),
			func(i uint8) protoreflect.EnumNumber { return evidenceSource(eligibility.Tier(i)).Number() }, 0, 1,
		},
	} {
		said := make(map[protoreflect.EnumNumber]int)
		for i := row.from; i < most; i++ {
			said[row.say(i)]++
		}
		for i := range row.api.Values().Len() {
			value := row.api.Values().Get(i)
			switch times := said[value.Number()]; {
			case value.Number() == row.other: // the rest
			case value.Number() == 0: // the domain has no UNSPECIFIED
			case times != 1:
				t.Errorf("%s: %s is said by %d values of the domain", name, value.Name(), times)
			}
		}
	}
}

// TestWordsMeanTheSame pins the words that decide.
func TestWordsMeanTheSame(t *testing.T) {
	t.Parallel()
	for want, got := range map[string]fmt.Stringer{
		"DECISION_UNSPECIFIED":          decision(eligibility.DecisionNone),
		"DECISION_ALLOWED":              decision(eligibility.DecisionAllowed),
		"DECISION_BLOCKED":              decision(eligibility.DecisionBlocked),
		"REMEDY_WAIT":                   remedy(eligibility.RemedyWait),
		"REMEDY_REQUEST_QUALIFICATION":  remedy(eligibility.RemedyRequestQualification),
		"EVIDENCE_SOURCE_REDIS":         evidenceSource(eligibility.TierRedis),
		"VETTING_STATUS_UNSPECIFIED":    vettingStatus(eligibility.VettingUnspecified),
		"VETTING_STATUS_IN_REVIEW":      vettingStatus(eligibility.VettingInReview),
		"ACCOUNT_STATUS_NONE":           accountStatus(eligibility.AccountStatusNone),
		"QUALIFICATION_TYPE_NONPROFIT":  qualificationType(eligibility.QualificationNonprofit),
		"REASON_CODE_ACCOUNT_NOT_READY": reasonCode(eligibility.ReasonAccountNotReady),
	} {
		if got.String() != want {
			t.Errorf("said %s, want %s", got, want)
		}
	}
}

func TestReasonsHaveOneName(t *testing.T) {
	t.Parallel()
	for code := eligibility.ReasonAccountAllowed; code <= eligibility.ReasonUndecidable; code++ {
		if got, want := "REASON_CODE_"+code.String(), reasonCode(code).String(); got != want {
			t.Errorf("the domain says %s, the API %s", got, want)
		}
	}
}

func TestSegmentsAreReadByTheirNames(t *testing.T) {
	t.Parallel()
	domain := map[string]eligibility.Segment{
		"UNSPECIFIED": eligibility.SegmentCommercial, "COMMERCIAL": eligibility.SegmentCommercial,
		"EDUCATION": eligibility.SegmentEducation, "GOVERNMENT": eligibility.SegmentGovernment,
		"NONPROFIT": eligibility.SegmentNonprofit,
	}
	for number, name := range eligibilityv1.Segment_name {
		want, listed := domain[strings.TrimPrefix(name, "SEGMENT_")]
		got, known := segment(eligibilityv1.Segment(number))
		if !listed || !known || got != want {
			t.Errorf("%s is read as %v, %v; want %v", name, got, known, want)
		}
	}
	for _, number := range []eligibilityv1.Segment{-1, 5, 99} {
		if _, known := segment(number); known {
			t.Errorf("segment %d is known", number)
		}
	}
}
