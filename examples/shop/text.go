package main

import (
	"errors"
	"strings"
	"time"

	"github.com/eligibilityd/eligibilityd/client"
	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// text is what a customer reads about a verdict, and what the staff have to do.
type text struct {
	Title      string
	Sentences  []string
	Again      time.Time     // when it is worth coming back; zero if that is not known
	RetryAfter time.Duration // after how long the page can be loaded again; 0 if that does not help
	Task       string        // for the staff; empty if there is nothing to do
}

// The texts address the customer, who can neither read Partner Center nor ask Microsoft
// about it: the partner does that. They blame nobody, and give no word of a review away
// that the customer's own people may not know about.
const (
	weWrite      = "You do not have to do anything: our team is looking into it and will write to you."
	weAreWorking = "We cannot take orders at the moment. We are working on it, and nothing was ordered."
	tryAgain     = "We cannot check your account at the moment. Nothing was ordered. Please try again."
)

// of a reason: what the customer reads, and the task of the staff.
type reasonText struct{ sentence, task string }

// textOfReason returns the text for each reason that blocks.
func textOfReason(reason *eligibilityv1.Reason) reasonText {
	switch reason.GetCode() {
	case eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_UNDER_REVIEW:
		return reasonText{
			sentence: "Microsoft is still checking the details of your organization. You do not have to do anything.",
		}
	case eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_NOT_READY:
		return reasonText{
			sentence: "Microsoft has not begun to check the details of your organization. You do not have to do anything.",
		}
	case eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_UNKNOWN:
		return reasonText{
			sentence: "Microsoft has not confirmed your organization as a customer yet. You do not have to do anything.",
		}
	case eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_NOT_ALLOWED:
		return reasonText{
			sentence: "We cannot sell you Microsoft products at the moment. " + weWrite,
			task:     "Microsoft does not allow this customer to buy: ask Microsoft support, with the correlation id.",
		}
	case eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_STATUS_UNRECOGNIZED:
		return reasonText{
			sentence: "We could not confirm your organization with Microsoft yet. " + weWrite,
			task:     "Partner Center has an account status that is not known here: look at it there, and ask Microsoft support, with the correlation id.",
		}
	case eligibilityv1.ReasonCode_REASON_CODE_QUALIFICATION_IN_REVIEW:
		return reasonText{
			sentence: "Microsoft is still confirming that your organization is entitled to this offer. You do not have to do anything.",
		}
	case eligibilityv1.ReasonCode_REASON_CODE_QUALIFICATION_DENIED:
		return reasonText{
			sentence: "Microsoft could not confirm that your organization is entitled to this offer. " + weWrite,
			task:     "Microsoft denied the qualification: read its reason in Partner Center, correct the customer's data, and submit it again.",
		}
	case eligibilityv1.ReasonCode_REASON_CODE_QUALIFICATION_MISSING:
		return reasonText{
			sentence: "This offer needs a confirmation that your organization is entitled to it. We request it from Microsoft for you, and write to you if we need anything.",
			task:     "Request the qualification for this customer in Partner Center.",
		}
	case eligibilityv1.ReasonCode_REASON_CODE_QUALIFICATION_UNRECOGNIZED:
		return reasonText{
			sentence: "We could not confirm yet that your organization is entitled to this offer. " + weWrite,
			task:     "Partner Center has a vetting status that is not known here: look at it there, and ask Microsoft support, with the correlation id.",
		}
	case eligibilityv1.ReasonCode_REASON_CODE_UNDECIDABLE:
		return reasonText{sentence: tryAgain}
	default: // of a newer service
		if reason.GetTemporary() {
			return reasonText{sentence: "Microsoft is still checking something about your organization. You do not have to do anything."}
		}
		return reasonText{sentence: "We cannot sell you this at the moment. " + weWrite, task: reason.GetMessage()}
	}
}

// textOf returns the text for a verdict about a product.
func textOf(verdict client.Verdict, p product) text {
	switch verdict.Outcome() {
	case client.Allowed:
		return text{Title: "You can order " + p.Name + " now."}
	case client.Blocked:
		return blockedText(verdict, p)
	default:
		return undecidedText(verdict.Err())
	}
}

func blockedText(verdict client.Verdict, p product) text {
	t := text{Title: "You cannot order " + p.Name + " yet.", Again: verdict.RecheckTime()}
	for _, reason := range verdict.Reasons() {
		if reason.GetRemedy() == eligibilityv1.Remedy_REMEDY_NONE {
			continue // it allows
		}
		known := textOfReason(reason)
		t.Sentences = append(t.Sentences, known.sentence)
		t.Task = strings.TrimSpace(t.Task + " " + known.task)
	}
	return t
}

// undecidedText distinguishes what the customer can do something about, what goes away,
// and what somebody has to repair.
func undecidedText(err error) text {
	failure, _ := errors.AsType[*client.Error](err)
	if failure == nil {
		failure = new(client.Error)
	}
	t := text{Title: "Your order has to wait.", RetryAfter: failure.RetryAfter}
	switch failure.Reason {
	case "INVALID_ARGUMENT", "CUSTOMER_NOT_FOUND":
		t.Title, t.Sentences = "We do not know this customer number.", []string{"Please check the customer number: it is the tenant id of your Microsoft organization."}
	case "CUSTOMER_NOT_SERVED":
		t.Title, t.Sentences = "Your organization is not connected to our shop yet.", []string{"We send you an invitation. Once you have accepted it, you can order."}
		t.Task = "This customer has no reseller relationship with us: send an invitation from Partner Center."
	case "PARTNER_CENTER_UNAVAILABLE", "PARTNER_CENTER_THROTTLED", "OVERLOADED", "CALLER_LIMITED", "DEADLINE_EXCEEDED", "UNAVAILABLE", "CANCELLED":
		t.Sentences = []string{tryAgain}
	default: // of the shop or the service: credentials, rights, an answer that cannot be read
		t.Sentences = []string{weAreWorking}
		t.Task = "The shop cannot ask whether customers may buy. The operator has to act: " + failure.Reason
	}
	return t
}
