package pcsim_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// wireCase is one case of the wire, or several with the same script.
type wireCase struct {
	ids string
	cfg pcsim.Config

	// The scripts. If a tenant or a seed is set, it replaces the first two.
	account        []pcsim.Step
	qualifications []pcsim.Step
	tenant, seed   string
	tokens         []pcsim.Step

	// wire lists actions and expected answers in order. See player.play.
	wire []string
	// also checks what wire cannot express.
	also func(t *testing.T, p *player)
}

// Shorthand for scripts.
func status(word string) []pcsim.Step { return []pcsim.Step{{Status: word}} }

func items(q ...pcsim.Qualification) []pcsim.Step {
	return []pcsim.Step{{Items: append([]pcsim.Qualification{}, q...)}}
}

func raw(status int, body string, headers ...string) []pcsim.Step {
	return []pcsim.Step{{Raw: rawAnswer(status, body, headers...)}}
}

func rawAnswer(status int, body string, headers ...string) *pcsim.Raw {
	answer := &pcsim.Raw{Status: status, Body: body, Headers: map[string]string{}}
	for i := 0; i < len(headers); i += 2 {
		answer.Headers[headers[i]] = headers[i+1]
	}
	return answer
}

// inTurn gives each answer once, and the last one for ever.
func inTurn(steps ...[]pcsim.Step) []pcsim.Step {
	all := slices.Concat(steps...)
	for i := range all[:len(all)-1] {
		all[i].Times = 1
	}
	return all
}

func entra(codes ...int) []pcsim.Step {
	var all [][]pcsim.Step
	for _, code := range codes {
		all = append(all, []pcsim.Step{{EntraError: code}})
	}
	return inTurn(all...)
}

func education(vetting string) pcsim.Qualification {
	return pcsim.Qualification{Qualification: "Education", VettingStatus: vetting}
}

func TestCasesOnTheWire(t *testing.T) {
	t.Parallel()
	for _, c := range slices.Concat(accountCases(), qualificationCases(), headerCases(), failureCases(),
		bodyCases(), tokenCases(), tokenFailureCases(), jointCases(), sequenceCases()) {
		t.Run(c.ids, func(t *testing.T) {
			t.Parallel()
			p := startCase(t, c)
			for _, line := range c.wire {
				p.play(line)
			}
			if c.also != nil {
				c.also(t, p)
			}
		})
	}
}

// player plays one case.
type player struct {
	*rig
	id    string
	token string // of the latest token request; fetched when it is first needed
	bare  bool   // send no token at all
}

func startCase(t *testing.T, c wireCase) *player {
	t.Helper()
	p := &player{rig: start(t, c.cfg), id: customerID}
	// If each call has its own connection, net/http cannot retry it.
	p.client.Transport.(*http.Transport).DisableKeepAlives = true
	if c.seed != "" {
		p.id = c.seed
	} else {
		if c.account == nil && c.tenant == "" {
			c.account = status("Allowed")
		}
		p.set(pcsim.Customer{ID: customerID, Tenant: c.tenant, Account: c.account, Qualifications: c.qualifications})
	}
	if err := p.ScriptTokens(c.tokens...); err != nil {
		t.Fatal(err)
	}
	return p
}

// play executes a line: an action and its expected result. The result is a
// status and a part of the body (`empty` if there must be none), `broken`, or
// `timeout` if no answer must arrive before the client gives up.
func (p *player) play(line string) {
	p.t.Helper()
	act, want, _ := strings.Cut(line, " ")
	if act == "wait" {
		d, err := time.ParseDuration(want)
		if err != nil {
			p.t.Fatal(err)
		}
		p.clock.Advance(d)
		return
	}
	wantStatus, wantBody, _ := strings.Cut(want, " ")
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	if wantStatus == "timeout" {
		ctx, cancel = context.WithTimeout(p.t.Context(), 50*time.Millisecond)
	}
	defer cancel()
	got, err := p.act(ctx, act)
	switch wantStatus {
	case "broken":
		if err == nil || errors.Is(err, context.DeadlineExceeded) {
			p.t.Errorf("%s: got %d %s, %v", line, got.status, got.body, err)
		}
		return
	case "timeout":
		if !errors.Is(err, context.DeadlineExceeded) {
			p.t.Errorf("%s: got %d %s, %v", line, got.status, got.body, err)
		}
		return
	}
	fits := strings.Contains(got.body, wantBody)
	if wantBody == "empty" {
		fits = got.body == ""
	}
	if err != nil || strconv.Itoa(got.status) != wantStatus || !fits {
		p.t.Errorf("%s: got %d %s, %v", line, got.status, got.body, err)
	}
}

func (p *player) act(ctx context.Context, act string) (reply, error) {
	switch act {
	case "token": // app+user
		return p.ask(ctx, v2Path, "scope", audience+"/user_impersonation offline_access")
	case "token-v1":
		return p.ask(ctx, v1Path, "resource", audience)
	case "token-retired":
		return p.ask(ctx, v1Path, "resource", "https://graph.windows.net")
	case "token-china":
		return p.ask(ctx, v1Path, "resource", "https://partner.partnercenterapi.microsoftonline.cn")
	case "token-china-v2":
		return p.ask(ctx, v2Path, "scope", "https://partner.partnercenterapi.microsoftonline.cn/user_impersonation")
	case "app-token":
		return p.ask(ctx, v2Path, "grant_type", "client_credentials", "scope", audience+"/.default")
	case "app-token-v1":
		return p.ask(ctx, v1Path, "grant_type", "client_credentials", "resource", audience)
	case "no-token":
		p.bare = true
		return reply{}, nil
	}
	if p.token == "" && !p.bare {
		p.token = p.userToken()
	}
	path := map[string]string{
		"account": "/validationStatus?type=account", "account-Account": "/validationStatus?type=Account",
		"account-foo": "/validationStatus?type=foo", "account-untyped": "/validationStatus",
		"qualifications": "/qualifications", "qualification": "/qualification",
	}
	suffix, known := path[act]
	if !known {
		p.t.Fatalf("no act %s", act)
	}
	return p.do(p.request(http.MethodGet, "/v1/customers/"+p.id+suffix, p.token).WithContext(ctx))
}

// ask requests a token and keeps it.
func (p *player) ask(ctx context.Context, path string, changes ...string) (reply, error) {
	got, err := p.postToken(ctx, path, refreshForm(changes...))
	if err == nil && got.status == 200 && strings.HasPrefix(got.body, "{") {
		p.token, _ = decode(p.t, got.body)["access_token"].(string)
	}
	return got, err
}

func statusBody(word string) string {
	return `200 {"type":"account","status":"` + word + `","lastUpdateDateTime":""}`
}

func accountCases() []wireCase {
	said := func(id, body string) wireCase {
		return wireCase{ids: id, account: raw(200, body), wire: []string{"account 200 " + body}}
	}
	word := func(id, word string) wireCase {
		return wireCase{ids: id, account: status(word), wire: []string{"account " + statusBody(word)}}
	}
	refused := func(id string, httpStatus, code int) wireCase {
		body := fmt.Sprintf(`{"code":%d,"description":"Text."}`, code)
		return wireCase{ids: id, account: raw(httpStatus, body), wire: []string{fmt.Sprint("account ", httpStatus, " ", body)}}
	}
	return []wireCase{
		word("VS-01", "Allowed"), word("VS-02", "UnderReview"), word("VS-03", "NotAllowed"),
		word("VS-04", "Unknown"), word("VS-05", "Not Ready"),
		{ids: "VS-06", seed: "a0000000-0000-4000-8000-000000000007", wire: []string{
			`account 200 {"type":"account","status":"Allowed","lastUpdateDateTime":"2021-07-14T18:02:00"}`,
		}},
		{ids: "VS-11", account: inTurn(status("allowed"), status("ALLOWED"), status("underreview"), status("Under Review")), wire: []string{
			"account " + statusBody("allowed"), "account " + statusBody("ALLOWED"),
			"account " + statusBody("underreview"), "account " + statusBody("Under Review"),
		}},
		word("VS-12", "Approved"), word("VS-12", "Suspended"),
		said("VS-13", `{"type":"account","status":null}`), said("VS-13", `{"type":"account","status":""}`),
		said("VS-13", `{"type":"account"}`),
		said("VS-15", `{"type":"Account","status":"Allowed"}`), said("VS-15", `{"status":"Allowed"}`),
		said("VS-15", `{"type":"address","status":"Allowed"}`),
		word("VS-17", "許可"),
		{ids: "VS-20", account: status("none"), wire: []string{
			`account 404 {"code":600074,"message":"Account Status for the customer, ` + customerID,
		}},
		refused("VS-23", 404, 1000),
		{ids: "VS-24", tenant: "unknown", wire: []string{`account 404 {"code":60003,`, `qualifications 404 {"code":60003,`}},
		{ids: "VS-26", account: inTurn(raw(404, "<html>", "Content-Type", "text/html"), raw(404, "")), wire: []string{
			"account 404 <html>", "account 404 empty",
		}},
		{ids: "VS-29", wire: []string{`account-untyped 400 {"code":3000,`, `account-foo 400 {"code":3000,`}},
		{ids: "VS-30", wire: []string{"account-Account " + statusBody("Allowed")}},
		{ids: "VS-31", seed: "contoso", wire: []string{`account 400 {"code":900118,`, `qualifications 400 {"code":900118,`}},
		{ids: "VS-32 A-11", tenant: "other_partner", wire: []string{`account 403 {"code":20002,`, `qualifications 403 {"code":20002,`}},
		{ids: "VS-33", wire: []string{"app-token 200", `account 403 {"code":900329,`}},
		{ids: "VS-34", seed: "A0000000-0000-4000-8000-000000000001", wire: []string{"account " + statusBody("Allowed")}},
		{ids: "VS-34", seed: "%7Ba0000000-0000-4000-8000-000000000001%7D", wire: []string{`account 400 {"code":900118,`}},
		{ids: "VS-34", seed: "%20a0000000-0000-4000-8000-000000000001", wire: []string{`account 400 {"code":900118,`}},
	}
}

func qualificationCases() []wireCase {
	said := func(ids string, body string, headers ...string) wireCase {
		return wireCase{ids: ids, qualifications: raw(200, body, headers...), wire: []string{"qualifications 200 " + body}}
	}
	const denied = `{"qualification":"Education","vettingStatus":"Denied"`
	reason := func(ids, reason string) wireCase {
		q := education("Denied")
		q.VettingReason, q.VettingCreatedDate = reason, "2020-12-03T10:37:38.885Z"
		return wireCase{ids: ids, qualifications: items(q), wire: []string{
			"qualifications 200 [" + denied + `,"vettingReason":"` + reason + `","vettingCreatedDate":"2020-12-03T10:37:38.885Z"}]`,
		}}
	}
	list := func(ids, body string) wireCase { return said(ids, "["+body+"]") }
	return []wireCase{
		{ids: "Q-01", qualifications: items(), wire: []string{"qualifications 200 []"}},
		{ids: "Q-02", qualifications: items(education("Approved")), wire: []string{
			`qualifications 200 [{"qualification":"Education","vettingStatus":"Approved"}]`,
		}},
		{ids: "Q-03", seed: "e0000000-0000-4000-8000-000000000002", wire: []string{
			`qualifications 200 [{"qualification":"Education","vettingStatus":"InReview","vettingCreatedDate":"2020-12-03T10:37:38.885Z"}]`,
		}},
		reason("Q-04", "Not an Education Customer"),
		reason("Q-05", "No longer an Education Customer"), reason("Q-05", "Not an Education Customer - After Review"),
		reason("Q-05", "Restricted being an Education Customer"), reason("Q-05", "Not an Academic Domain"),
		reason("Q-05", "Not an eligible Library"), reason("Q-05", "Not an eligible museum"),
		reason("Q-06", "Something else"), list("Q-06", denied+"}"),
		list("Q-07", `{"qualification":"StateOwnedEntity"}`),
		{ids: "Q-08", seed: "e0000000-0000-4000-8000-000000000007", wire: []string{
			`qualifications 200 [{"qualification":"Education","vettingStatus":"Approved"},{"qualification":"StateOwnedEntity"}]`,
		}},
		{ids: "Q-09", seed: "c0000000-0000-4000-8000-000000000001", wire: []string{
			`qualifications 200 [{"qualification":"GovernmentCommunityCloud","vettingStatus":"Approved",` +
				`"vettingCreateDate":"2021-05-06T19:59:56.6832021+00:00"},{"qualification":"StateOwnedEntity"}]`,
		}},
		said("Q-10", `{"qualifications":[{"qualification":"Education","vettingStatus":"Approved"}]}`),
		said("Q-11", `{"qualifications":[]}`), said("Q-11", `{"qualifications":null}`), said("Q-11", `{}`),
		list("Q-13", `{"qualification":"None"}`), list("Q-13", `{"qualification":"None","vettingStatus":"Approved"}`),
		list("Q-14", `{"qualification":"Nonprofit"}`), list("Q-14", `{"qualification":"Nonprofit","vettingStatus":"Approved"}`),
		list("Q-16", `{"qualification":"government_community_cloud","vettingStatus":"Approved"}`),
		list("Q-16", `{"qualification":"GCC","vettingStatus":"Approved"}`),
		list("Q-18", `{"qualification":"Education","vettingStatus":"Expired"}`),
		list("Q-18", `{"qualification":"Education","vettingStatus":"Pending"}`),
		list("Q-19", `{"qualification":"Education"}`),
		{
			ids:            "Q-24",
			qualifications: items(pcsim.Qualification{Qualification: "GovernmentCommunityCloud", VettingStatus: "Approved"}, education("Approved")),
			wire: []string{
				`qualifications 200 [{"qualification":"GovernmentCommunityCloud","vettingStatus":"Approved"},{"qualification":"Education","vettingStatus":"Approved"}]`,
			},
		},
		said("Q-26", "<ArrayOfCustomerQualification/>", "Content-Type", "application/xml"),
		list("Q-28", `{"qualification":"Education","vettingStatus":"Approved",}`),
		list("Q-28", "{\"qualification\":\"Education\"} // UTC\n"),
		{
			ids:            "Q-29",
			qualifications: inTurn(raw(404, `{"code":600074,"description":"Text."}`), raw(404, `{"code":1000}`), raw(404, "")),
			wire:           []string{`qualifications 404 {"code":600074,`, `qualifications 404 {"code":1000}`, "qualifications 404 empty"},
		},
		{ids: "Q-30", wire: []string{"app-token 200", "qualifications 200 []", "token 200", "qualifications 200 []"}},
		{ids: "QO-01", wire: []string{`qualification 404 {"code":1000,`}},
	}
}
