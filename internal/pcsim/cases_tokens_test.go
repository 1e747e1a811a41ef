package pcsim_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

func tokenCases() []wireCase {
	allowed := "account " + statusBody("Allowed")
	return []wireCase{
		{ids: "T-01", wire: []string{
			`app-token-v1 200 "expires_in":"3600"`, `app-token-v1 200 "expires_on":"1795266000"`, `app-token-v1 200 "not_before":"1795262400"`,
			`app-token-v1 200 "resource":"` + audience + `"`, "qualifications 200 []", `token-v1 200 "expires_in":"3600"`, allowed,
		}},
		{ids: "T-02", wire: []string{`app-token 200 "expires_in":3600,`, "qualifications 200 []"}},
		{ids: "T-03 T-05", also: func(t *testing.T, p *player) {
			first := p.grant(v2Path, refreshForm())["refresh_token"].(string)
			second := p.grant(v2Path, refreshForm("refresh_token", first))["refresh_token"].(string)
			if first == second || first == pcsim.DefaultRefreshToken {
				t.Error("no new refresh token came")
			}
			p.grant(v2Path, refreshForm()) // the old ones remain valid
			p.grant(v2Path, refreshForm("refresh_token", first))
		}},
		{ids: "T-06", also: func(_ *testing.T, p *player) {
			got := p.grant(v2Path, codeForm(p.accept(authorizeV2, consentQuery(), pcsim.PartnerAccount)))
			p.token = got["access_token"].(string)
			p.play(allowed)
			p.grant(v2Path, refreshForm("refresh_token", got["refresh_token"].(string)))
		}},
		{ids: "T-07", also: func(t *testing.T, p *player) {
			known := must(t, knownCredential)
			if err := p.RegisterCertificate(known.cert); err != nil {
				t.Fatal(err)
			}
			assertion := known.sign(t, known.modern(), claimSet(p.url+"/"+v2Path, p.clock.Now()))
			p.token = p.grant(v2Path, asserted(refreshForm(), assertion))["access_token"].(string)
			p.play(allowed)
		}},
		{ids: "T-08", wire: []string{"token-china 200", allowed, "token-china-v2 200", allowed}},
		{ids: "T-09", tokens: inTurn([]pcsim.Step{{ExpiresIn: time.Second}}, []pcsim.Step{{}}), wire: []string{
			`token 200 "expires_in":1,`, allowed, "wait 1s", "account 401 empty", "token 200", allowed,
		}},
		{ids: "T-10", wire: []string{"token 200", "token 200"}, also: func(t *testing.T, p *player) {
			if got := p.Stats().Tokens; got != 2 {
				t.Errorf("%d token requests counted", got)
			}
		}},
	}
}

func tokenFailureCases() []wireCase {
	refused := func(ids string, status int, word string, codes ...int) wireCase {
		c := wireCase{ids: ids, tokens: inTurn(entra(codes...), []pcsim.Step{{}})}
		for _, code := range codes {
			c.wire = append(c.wire, fmt.Sprintf(`token %d "error":%q,"error_codes":[%d],`, status, word, code))
		}
		c.wire = append(c.wire, "token 200")
		return c
	}
	spelt := func(ids string, answers ...*pcsim.Raw) wireCase {
		var steps [][]pcsim.Step
		c := wireCase{ids: ids}
		for _, a := range answers {
			steps = append(steps, []pcsim.Step{{Raw: a}})
			c.wire = append(c.wire, strings.TrimSpace(fmt.Sprint("token ", a.Status, " ", a.Body)))
		}
		c.tokens = inTurn(steps...)
		return c
	}
	error400 := func(word string) *pcsim.Raw {
		return rawAnswer(400, `{"error":"`+word+`","error_description":"AADSTS50076: Text.","error_codes":[50076]}`)
	}
	return []wireCase{
		refused("F-01", 400, "invalid_grant", 700082, 70008),
		refused("F-02", 400, "invalid_grant", 50173),
		{ids: "F-02", also: func(_ *testing.T, p *player) {
			p.RevokeTokens()
			p.play(`token 400 "error":"invalid_grant","error_codes":[50173],`)
		}},
		refused("F-03", 400, "invalid_grant", 70043),
		refused("F-04", 400, "interaction_required", 50074, 50076, 50079),
		refused("F-04", 400, "invalid_grant", 50078),
		spelt("F-04", error400("invalid_grant"), error400("interaction_required")),
		refused("F-05", 401, "invalid_client", 7000215),
		spelt("F-05", error400("invalid_client")),
		refused("F-06", 401, "invalid_client", 7000222),
		refused("F-07", 401, "invalid_client", 700027, 700024, 50012),
		refused("F-08", 400, "invalid_resource", 500011, 65005, 650057),
		refused("F-08", 400, "unauthorized_client", 700016),
		refused("F-09", 400, "invalid_request", 90002, 90038, 900432),
		refused("F-10", 503, "temporarily_unavailable", 90033, 90006, 90012, 90024, 50033),
		refused("F-11", 400, "invalid_request", 50196),
		refused("F-11", 429, "temporarily_unavailable", 90055),
		spelt("F-12", rawAnswer(429, "", "Retry-After", "17")),
		spelt("F-13", rawAnswer(500, ""), rawAnswer(502, "<html>", "Content-Type", "text/html"), rawAnswer(504, "")),
		{ids: "F-13", tokens: []pcsim.Step{{Failure: pcsim.FailureReset, Times: 1}, {Failure: pcsim.FailureHang}}, wire: []string{
			"token broken", "token timeout",
		}},
		spelt("F-14", rawAnswer(200, `{"token_type":"Bearer","expires_in":3600}`),
			rawAnswer(200, `{"token_type":"mac","access_token":"x","expires_in":3600}`)),
	}
}

func jointCases() []wireCase {
	both := func(ids string, account, qualifications []pcsim.Step, wantAccount, wantQualifications string) wireCase {
		return wireCase{ids: ids, account: account, qualifications: qualifications, wire: []string{
			"account " + wantAccount, "qualifications " + wantQualifications,
		}}
	}
	vetted := func(q string, vetting string) string {
		return `200 [{"qualification":"` + q + `","vettingStatus":"` + vetting + `"}]`
	}
	allowed, review := statusBody("Allowed"), statusBody("UnderReview")
	return []wireCase{
		both("J-01 J-12", status("Allowed"), raw(500, ""), allowed, "500 empty"),
		both("J-02", status("none"), items(), `404 {"code":600074,`, "200 []"),
		both("J-03", status("UnderReview"), items(education("Approved")), review, vetted("Education", "Approved")),
		both("J-04", status("Allowed"), items(education("InReview")), allowed, vetted("Education", "InReview")),
		both("J-05 J-06", status("Allowed"), items(education("Denied")), allowed, vetted("Education", "Denied")),
		both("J-07", status("Allowed"), items(), allowed, "200 []"),
		both("J-08", status("Allowed"), items(pcsim.Qualification{Qualification: "StateOwnedEntity"}),
			allowed, `200 [{"qualification":"StateOwnedEntity"}]`),
		both("J-09", status("Allowed"), items(pcsim.Qualification{Qualification: "GovernmentCommunityCloud", VettingStatus: "Approved"}),
			allowed, vetted("GovernmentCommunityCloud", "Approved")),
		both("J-13 J-14", status("UnderReview"), nil, review, "200 []"),
		{ids: "J-15", account: inTurn(status("Allowed"), raw(503, "")), wire: []string{"account " + allowed, "account 503"}},
	}
}

func sequenceCases() []wireCase {
	account := func(words ...string) (wire []string) {
		for _, word := range words {
			want := "account " + statusBody(word)
			if word == "none" {
				want = `account 404 {"code":600074,`
			}
			wire = append(wire, want, "wait 1m")
		}
		return wire
	}
	vetting := func(fragments ...string) (wire []string) {
		for _, f := range fragments {
			wire = append(wire, "qualifications 200 "+f, "wait 1m")
		}
		return wire
	}
	const approved, state = `[{"qualification":"Education","vettingStatus":"Approved"}`, `{"qualification":"StateOwnedEntity"}`
	return []wireCase{
		{ids: "Z-01", seed: "d0000000-0000-4000-8000-000000000002", wire: account("none", "UnderReview", "Allowed")},
		{ids: "Z-01", account: inTurn(status("Not Ready"), status("UnderReview"), status("Allowed")), wire: account("Not Ready", "UnderReview", "Allowed")},
		{ids: "Z-02", seed: "d0000000-0000-4000-8000-000000000003", wire: account("Allowed", "UnderReview", "NotAllowed")},
		{ids: "Z-02", account: inTurn(status("Allowed"), status("UnderReview"), status("Allowed")), wire: account("Allowed", "UnderReview", "Allowed")},
		{ids: "Z-03", seed: "d0000000-0000-4000-8000-000000000004", wire: vetting("[]", `"InReview"`, `"Approved"`)},
		{ids: "Z-04", seed: "d0000000-0000-4000-8000-000000000005", wire: vetting(`"InReview"`, `"Denied"`, `"InReview"`, `"Approved"`)},
		{ids: "Z-05", seed: "d0000000-0000-4000-8000-000000000006", wire: vetting(`"Approved"`, `"No longer an Education Customer"`)},
		{
			ids: "Z-06", qualifications: inTurn(items(education("Approved")),
				items(education("Approved"), pcsim.Qualification{Qualification: "StateOwnedEntity"})),
			wire: vetting(approved+"]", approved+","+state+"]"),
		},
		{
			ids: "Z-07", account: inTurn(status("Allowed"), status("NotAllowed")), qualifications: items(education("Approved")),
			wire: []string{"account " + statusBody("Allowed"), "qualifications 200 " + approved + "]", "account " + statusBody("NotAllowed")},
		},
	}
}

// notPlayed holds the cases that no script can play, with the reason.
func notPlayed() map[string]string {
	why := map[string]string{
		"T-11": "a store of the client's own that fails; on the wire it is T-03",
	}
	for reason, ids := range map[string]string{
		"the service never writes; any POST is answered 405":                   "QP-01 QP-02 QP-03 QP-04 QP-05 QP-06 QP-07 QP-08 QP-09",
		"the service places no orders; these paths are answered 404 code 1000": "O-01 O-02 O-03 O-04 O-05 O-06 O-07",
		"the service takes no webhooks, and none is about eligibility":         "W-01 W-02 W-03 W-04 W-05 W-06 W-07 W-08",
	} {
		for id := range strings.FieldsSeq(ids) {
			why[id] = reason
		}
	}
	return why
}

// allCases are the ids of the cases of the wire that were collected from
// Microsoft's pages, traces and users' reports.
const allCases = `
VS-01 VS-02 VS-03 VS-04 VS-05 VS-06 VS-11 VS-12 VS-13 VS-15 VS-17 VS-20 VS-23 VS-24 VS-26 VS-29 VS-30 VS-31 VS-32 VS-33 VS-34
Q-01 Q-02 Q-03 Q-04 Q-05 Q-06 Q-07 Q-08 Q-09 Q-10 Q-11 Q-13 Q-14 Q-16 Q-18 Q-19 Q-24 Q-26 Q-28 Q-29 Q-30
QP-01 QP-02 QP-03 QP-04 QP-05 QP-06 QP-07 QP-08 QP-09 QO-01
H-01 H-03 H-04 H-05 H-06 H-07 H-08 H-09 H-10
A-01 A-02 A-03 A-04 A-05 A-06 A-07 A-08 A-09 A-11 A-12 A-14 A-15
R-01 R-02 R-03 R-06 R-07 R-08
S-01 S-02 S-03 S-04 S-05 S-07 S-10 S-11 S-13
B-01 B-02 B-03 B-04 B-05 B-06 B-07
T-01 T-02 T-03 T-05 T-06 T-07 T-08 T-09 T-10 T-11 T-12
F-01 F-02 F-03 F-04 F-05 F-06 F-07 F-08 F-09 F-10 F-11 F-12 F-13 F-14
J-01 J-02 J-03 J-04 J-05 J-06 J-07 J-08 J-09 J-12 J-13 J-14 J-15
Z-01 Z-02 Z-03 Z-04 Z-05 Z-06 Z-07
O-01 O-02 O-03 O-04 O-05 O-06 O-07
W-01 W-02 W-03 W-04 W-05 W-06 W-07 W-08
`

func TestEveryCaseIsPlayedOrHasAReason(t *testing.T) {
	t.Parallel()
	played := map[string]bool{}
	for _, c := range slices.Concat(accountCases(), qualificationCases(), headerCases(), failureCases(),
		bodyCases(), tokenCases(), tokenFailureCases(), jointCases(), sequenceCases()) {
		for id := range strings.FieldsSeq(c.ids) {
			played[id] = true
		}
	}
	missing := notPlayed()
	for id := range strings.FieldsSeq(allCases) {
		if _, absent := missing[id]; absent == played[id] {
			t.Errorf("%s: played %v, but not played because %q", id, played[id], missing[id])
		}
		delete(played, id)
		delete(missing, id)
	}
	if len(played)+len(missing) > 0 {
		t.Errorf("not among the cases: %v, %v", played, missing)
	}
}
