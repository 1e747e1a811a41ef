package api

import (
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// The functions here convert the enumerations that only explanations have, as those of
// convert.go do.

func segmentOf(s eligibility.Segment) eligibilityv1.Segment {
	switch s {
	case eligibility.SegmentCommercial:
		return eligibilityv1.Segment_SEGMENT_COMMERCIAL
	case eligibility.SegmentEducation:
		return eligibilityv1.Segment_SEGMENT_EDUCATION
	case eligibility.SegmentGovernment:
		return eligibilityv1.Segment_SEGMENT_GOVERNMENT
	case eligibility.SegmentNonprofit:
		return eligibilityv1.Segment_SEGMENT_NONPROFIT
	default:
		return eligibilityv1.Segment_SEGMENT_UNSPECIFIED
	}
}

func facetOf(f eligibility.Facet) eligibilityv1.Facet {
	if f == eligibility.FacetQualifications {
		return eligibilityv1.Facet_FACET_QUALIFICATIONS
	}
	return eligibilityv1.Facet_FACET_ACCOUNT
}

func absenceOf(a eligibility.Absence) eligibilityv1.Absence {
	switch a {
	case eligibility.AbsenceNotFound:
		return eligibilityv1.Absence_ABSENCE_NOT_FOUND
	case eligibility.AbsenceNotServed:
		return eligibilityv1.Absence_ABSENCE_NOT_SERVED
	default:
		return eligibilityv1.Absence_ABSENCE_UNSPECIFIED
	}
}

func ruleOf(r eligibility.Rule) eligibilityv1.Rule {
	switch r {
	case eligibility.RuleAccountStatus:
		return eligibilityv1.Rule_RULE_ACCOUNT_STATUS
	case eligibility.RuleNotReady:
		return eligibilityv1.Rule_RULE_NOT_READY
	case eligibility.RuleReducingOperation:
		return eligibilityv1.Rule_RULE_REDUCING_OPERATION
	case eligibility.RuleQualification:
		return eligibilityv1.Rule_RULE_QUALIFICATION
	case eligibility.RuleNoQualificationNeeded:
		return eligibilityv1.Rule_RULE_NO_QUALIFICATION_NEEDED
	case eligibility.RuleAbsent:
		return eligibilityv1.Rule_RULE_ABSENT
	case eligibility.RuleNoEvidence:
		return eligibilityv1.Rule_RULE_NO_EVIDENCE
	case eligibility.RuleUndecidable:
		return eligibilityv1.Rule_RULE_UNDECIDABLE
	default:
		return eligibilityv1.Rule_RULE_UNSPECIFIED
	}
}

func ruleOutcome(o eligibility.Outcome) eligibilityv1.AppliedRule_Outcome {
	switch o {
	case eligibility.OutcomeAllows:
		return eligibilityv1.AppliedRule_OUTCOME_ALLOWS
	case eligibility.OutcomeBlocks:
		return eligibilityv1.AppliedRule_OUTCOME_BLOCKS
	case eligibility.OutcomeUndecided:
		return eligibilityv1.AppliedRule_OUTCOME_UNDECIDED
	case eligibility.OutcomeNotNeeded:
		return eligibilityv1.AppliedRule_OUTCOME_NOT_NEEDED
	default:
		return eligibilityv1.AppliedRule_OUTCOME_UNSPECIFIED
	}
}

func obstacleKind(k evidence.ObstacleKind) eligibilityv1.Obstacle_Kind {
	switch k {
	case evidence.ObstaclePause:
		return eligibilityv1.Obstacle_KIND_PAUSE
	case evidence.ObstacleBudget:
		return eligibilityv1.Obstacle_KIND_BUDGET
	case evidence.ObstacleCircuitBreaker:
		return eligibilityv1.Obstacle_KIND_CIRCUIT_BREAKER
	case evidence.ObstacleCredentials:
		return eligibilityv1.Obstacle_KIND_CREDENTIALS
	case evidence.ObstacleSharedCache:
		return eligibilityv1.Obstacle_KIND_SHARED_CACHE
	default:
		return eligibilityv1.Obstacle_KIND_UNSPECIFIED
	}
}

func obstacleHost(h evidence.Host) eligibilityv1.Obstacle_Host {
	switch h {
	case evidence.HostPartnerCenter:
		return eligibilityv1.Obstacle_HOST_PARTNER_CENTER
	case evidence.HostLogin:
		return eligibilityv1.Obstacle_HOST_LOGIN
	default:
		return eligibilityv1.Obstacle_HOST_UNSPECIFIED
	}
}
