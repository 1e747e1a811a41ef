package pcclient_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/pcclient"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// Answers of Partner Center change in time. The client returns the latest and
// remembers nothing. There is a minute between the steps of a script.
func TestSequencesOfTheSimulator(t *testing.T) {
	t.Parallel()
	account := func(words ...string) (steps []pcsim.Step) {
		for _, word := range words {
			steps = append(steps, pcsim.Step{Status: word, For: time.Minute})
		}
		return steps
	}
	education := func(vetting ...string) (steps []pcsim.Step) {
		for _, word := range vetting {
			step := pcsim.Step{Items: []pcsim.Qualification{}, For: time.Minute}
			for part := range strings.FieldsSeq(word) {
				kind, status, _ := strings.Cut(part, ":")
				step.Items = append(step.Items, pcsim.Qualification{Qualification: kind, VettingStatus: status})
			}
			steps = append(steps, step)
		}
		return steps
	}
	for name, test := range map[string]struct {
		account, qualifications []pcsim.Step
		want                    []string // account, then qualifications
	}{
		"Z-01 a new customer":        {account("none", "UnderReview", "Allowed"), education(""), []string{"none ", "UnderReview ", "Allowed "}},
		"Z-01 not ready at first":    {account("Not Ready", "UnderReview", "Allowed"), education(""), []string{"Not Ready ", "UnderReview ", "Allowed "}},
		"Z-02 looked at again":       {account("Allowed", "UnderReview", "NotAllowed"), education(""), []string{"Allowed ", "UnderReview ", "NotAllowed "}},
		"Z-03 education asked for":   {account("Allowed"), education("", "Education:InReview", "Education:Approved"), []string{"Allowed ", "Allowed Education:InReview", "Allowed Education:Approved"}},
		"Z-04 education asked again": {account("Allowed"), education("Education:InReview", "Education:Denied", "Education:InReview", "Education:Approved"), []string{"Allowed Education:InReview", "Allowed Education:Denied", "Allowed Education:InReview", "Allowed Education:Approved"}},
		"Z-05 education lost":        {account("Allowed"), education("Education:Approved", "Education:Denied"), []string{"Allowed Education:Approved", "Allowed Education:Denied"}},
		"Z-06 a marker more":         {account("Allowed"), education("Education:Approved", "Education:Approved StateOwnedEntity:"), []string{"Allowed Education:Approved", "Allowed Education:Approved StateOwnedEntity:"}},
		"Z-07 verdict flips":         {account("Allowed", "NotAllowed"), education("Education:Approved"), []string{"Allowed Education:Approved", "NotAllowed Education:Approved"}},
		"Q-24 GCC and education":     {account("Allowed"), education("GovernmentCommunityCloud:Approved Education:Approved"), []string{"Allowed GovernmentCommunityCloud:Approved Education:Approved"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, sim := onSimulator(t)
			if err := sim.SetCustomer(pcsim.Customer{ID: customerID, Account: forEver(test.account), Qualifications: forEver(test.qualifications)}); err != nil {
				t.Fatal(err)
			}
			for _, want := range test.want {
				if got := r.both(t); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
				r.clock.advance(time.Minute)
			}
		})
	}
}

// forEver lets the last step stay.
func forEver(steps []pcsim.Step) []pcsim.Step {
	steps = slices.Clone(steps)
	steps[len(steps)-1].For = 0
	return steps
}

// onSimulator is a client of a simulator that shares its clock.
func onSimulator(t *testing.T) (*rig, *pcsim.Server) {
	t.Helper()
	var sim *pcsim.Server
	play := func(w http.ResponseWriter, req *http.Request, _ int) { sim.Handler().ServeHTTP(w, req) }
	r := start(t, setup{login: play, api: play, config: func(cfg *pcclient.Config) {
		cfg.TenantID, cfg.ClientID, cfg.ClientSecret = pcsim.DefaultTenantID, pcsim.DefaultClientID, pcsim.DefaultClientSecret
		var err error
		if sim, err = pcsim.New(pcsim.Config{Now: cfg.Now, TokenLifetime: 24 * time.Hour}); err != nil {
			t.Fatal(err)
		}
	}})
	t.Cleanup(sim.Close)
	r.write(pcsim.DefaultRefreshToken)
	return r, sim
}

// both makes both calls and returns the answers in a line.
func (r *rig) both(t *testing.T) string {
	t.Helper()
	status, _, err := r.ValidationStatus(t.Context(), customerID)
	if err != nil {
		t.Fatal(err)
	}
	held, _, err := r.Qualifications(t.Context(), customerID)
	if err != nil {
		t.Fatal(err)
	}
	text := status.Status
	if status.None {
		text = pcsim.StatusNone
	}
	words := make([]string, len(held))
	for i, q := range held {
		words[i] = q.Type + ":" + q.VettingStatus
	}
	return text + " " + strings.Join(words, " ")
}

// H-09. TestMain sees to it that nothing is left of the connections.
func TestConnectionsThatEndWithTheirAnswer(t *testing.T) {
	t.Parallel()
	r := start(t, setup{api: responds(http.StatusOK, allowed, "Connection: close")})
	for range 20 {
		if call := r.ask(); call.Attempts != 1 {
			t.Errorf("%d attempts", call.Attempts)
		}
	}
}
