package pcsim

import "testing"

func TestAnswerToAForgottenCallIsNotRecordedElsewhere(t *testing.T) {
	t.Parallel()
	for name, forget := range map[string]func(*journal){
		"overwritten": func(j *journal) {
			for range maxRequests {
				j.begin(Request{Resource: "account"})
			}
		},
		"reset": func(j *journal) {
			j.reset()
			j.begin(Request{Resource: "account"})
		},
	} {
		var j journal
		call := j.begin(Request{Resource: "account"})
		forget(&j)
		j.answered(call, 500)
		j.failed(call, FailureResetBody)
		for _, r := range j.requests() {
			if r.Status != 0 || r.Failure != "" {
				t.Errorf("%s: call %d got it: %+v", name, r.Number, r)
			}
		}
	}
}

func TestAnswerAfterAResetIsNotCounted(t *testing.T) {
	t.Parallel()
	var j journal
	call := j.begin(Request{Resource: "account"})
	j.reset()
	j.answered(call, 429)
	if got := j.counts(); got != (Stats{}) {
		t.Errorf("%+v", got)
	}
}
