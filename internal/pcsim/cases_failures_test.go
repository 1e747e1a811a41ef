package pcsim_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

const emptyGzip = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x8b\x8e\x05\x00\x29\xbb\x4c\x0d\x02\x00\x00\x00" // []

func headerCases() []wireCase {
	ids := map[string]string{"MS-RequestId": uuid.NewString(), "MS-CorrelationId": uuid.NewString()}
	call := func(p *player) (reply, error) {
		req := p.request(http.MethodGet, "/v1/customers/"+p.id+"/validationStatus?type=account", p.userToken())
		for name, value := range ids {
			req.Header.Set(name, value)
		}
		return p.do(req)
	}
	return []wireCase{
		{ids: "H-01 H-07", also: func(t *testing.T, p *player) {
			got, err := call(p)
			for name, want := range ids {
				if err != nil || got.header.Get(name) != want {
					t.Errorf("%s %q, want %q; %v", name, got.header.Get(name), want, err)
				}
			}
		}},
		{ids: "H-03", also: func(t *testing.T, p *player) {
			got := p.account(p.id, p.userToken())
			for name := range ids {
				if err := uuid.Validate(got.header.Get(name)); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}},
		{ // the journal records a client's request even if the call broke
			ids: "H-04 H-05 H-06", account: inTurn([]pcsim.Step{{Failure: pcsim.FailureReset}}, raw(503, ""), status("Allowed")),
			also: func(t *testing.T, p *player) {
				for range 3 {
					_, _ = call(p) // the first has no answer
				}
				var seen []string
				for _, r := range p.Requests() {
					if r.RequestID != ids["MS-RequestId"] || r.CorrelationID != ids["MS-CorrelationId"] {
						t.Errorf("%+v", r)
					}
					seen = append(seen, fmt.Sprint(r.Status, r.Failure))
				}
				if got := strings.Join(seen, " "); got != "0reset 503 200" {
					t.Errorf("recorded %s", got)
				}
			},
		},
		{ids: "H-08", also: func(t *testing.T, p *player) {
			said := []string{p.probe(p.userToken()).header.Get("isMfaCompliant")}
			p.settings(pcsim.Settings{WithoutMFA: true, MFAPassPercent: 100})
			said = append(said, p.probe(p.userToken()).header.Get("isMfaCompliant"))
			if said[0] != "true" || said[1] != "false" {
				t.Errorf("isMfaCompliant %v", said)
			}
		}},
		{ids: "H-09", account: raw(200, "{}", "Connection", "close"), also: func(t *testing.T, p *player) {
			p.client.Transport.(*http.Transport).DisableKeepAlives = false
			resp, err := p.client.Do(p.request(http.MethodGet, "/v1/customers/"+p.id+"/validationStatus?type=account", p.userToken()))
			if err != nil {
				t.Fatal(err)
			}
			if err := resp.Body.Close(); err != nil || !resp.Close { // net/http removes the header
				t.Errorf("the connection stays open, %v", err)
			}
		}},
		{ // net/http unpacks it
			ids: "H-10", qualifications: raw(200, emptyGzip, "Content-Encoding", "gzip"), wire: []string{"qualifications 200 []"},
		},
	}
}

func failureCases() []wireCase {
	fault := func(ids string, status int, codes ...int) []wireCase {
		var cases []wireCase
		for _, code := range codes {
			body := fmt.Sprintf(`{"code":%d,"description":"Text."}`, code)
			cases = append(cases, wireCase{ids: ids, account: raw(status, body), qualifications: raw(status, body), wire: []string{
				fmt.Sprint("account ", status, " ", body), fmt.Sprint("qualifications ", status, " ", body),
			}})
		}
		return cases
	}
	const gateway = `{"statusCode":429,"message":"Rate limit is exceeded. Try again in 57 seconds."}`
	cases := []wireCase{
		{ids: "A-01", also: func(t *testing.T, p *player) {
			p.play("account " + statusBody("Allowed"))
			p.ExpireTokens()
			p.play("account 401 empty")
			p.play("token 200")
			p.play("account " + statusBody("Allowed"))
			if p.Stats().Tokens != 2 {
				t.Errorf("%+v", p.Stats())
			}
		}},
		{ids: "A-02", cfg: pcsim.Config{Settings: pcsim.Settings{WithoutMFA: true}}, wire: []string{
			`account 401 {"code":900421,`, "token 200", `account 401 {"code":900421,`, `qualifications 401 {"code":900421,`,
		}},
		{ids: "A-03", account: raw(401, "Authentication failed. MFA required. 10001"), wire: []string{"account 401 10001"}},
		{ids: "A-04 T-12", wire: []string{"token-retired 200", `account 401 {"code":900420,`, `qualifications 401 {"code":900420,`}},
		{ids: "A-05", wire: []string{"no-token 0", `account 401 {"code":800001,`}},
		{ids: "A-06 A-07", also: func(t *testing.T, p *player) {
			got := p.account(p.id, "made-up")
			challenge := got.header.Get("WWW-Authenticate")
			if got.status != 401 || code(got.body) != 400 || challenge != "OAuth realm=urn:cpsvc:cpid:"+pcsim.DefaultTenantID {
				t.Errorf("%d %s, WWW-Authenticate %q", got.status, got.body, challenge)
			}
		}},
		{ids: "A-14", account: raw(403, `{"code":900308}`), qualifications: items(), wire: []string{
			`account 403 {"code":900308}`, "qualifications 200 []",
		}},
		{ids: "A-14", qualifications: raw(401, ""), wire: []string{"account " + statusBody("Allowed"), "qualifications 401 empty"}},
		{ids: "A-15", cfg: pcsim.Config{Settings: pcsim.Settings{WithoutMFA: true, MFAPassPercent: 50}}, wire: []string{
			`account 401 {"code":900421,`, "account " + statusBody("Allowed"), `account 401 {"code":900421,`, "account " + statusBody("Allowed"),
		}},
		{ids: "R-01", account: raw(429, gateway, "Retry-After", "57"), also: func(t *testing.T, p *player) {
			got := p.account(p.id, p.userToken())
			if got.status != 429 || got.header.Get("Retry-After") != "57" || got.body != gateway {
				t.Errorf("%d, Retry-After %q, %s", got.status, got.header.Get("Retry-After"), got.body)
			}
		}},
		{
			ids: "R-02", account: inTurn(raw(429, gateway, "Retry-After", "57"), raw(429, gateway, "Retry-After", "57"), status("Allowed")),
			wire: []string{"account 429", "wait 57s", "account 429", "wait 2m", "account " + statusBody("Allowed")},
		},
		{ids: "R-03", account: raw(429, gateway), also: func(t *testing.T, p *player) {
			if got := p.account(p.id, p.userToken()); got.status != 429 || got.header["Retry-After"] != nil {
				t.Errorf("%d, Retry-After %q", got.status, got.header["Retry-After"])
			}
		}},
		{ids: "R-06 R-08", cfg: pcsim.Config{RequestsPerMinute: 1}, also: func(_ *testing.T, p *player) {
			p.play("account 200") // rejected requests count too
			p.play("wait 50s")
			p.play("account 429")
			p.play("wait 50s")
			p.play("account 429")
			p.id = "a0000000-0000-4000-8000-000000000001"
			p.play("account 429")
		}},
		{ids: "R-06", cfg: pcsim.Config{RequestsPerMinute: 1, LimitPerCustomer: true}, also: func(_ *testing.T, p *player) {
			p.play("account 200")
			p.play("account 429")
			p.id = "a0000000-0000-4000-8000-000000000001"
			p.play("account 200")
		}},
		{ids: "R-07", cfg: pcsim.Config{RequestsPerMinute: 500}, also: func(_ *testing.T, p *player) {
			for range 250 {
				p.play("account 200")
				p.play("qualifications 200")
			}
			p.play(`account 429 {"statusCode":429,"message":"Rate limit is exceeded. Try again in 60 seconds."}`)
		}},
		{ids: "S-04", account: inTurn(raw(408, ""), status("Allowed")), wire: []string{"account 408 empty", "account 200"}},
		{ids: "S-05", account: raw(409, `{"code":1,"isRetryable":true}`), wire: []string{`account 409 {"code":1,"isRetryable":true}`}},
		{ids: "S-10", account: inTurn(raw(200, `{"type":"account","stat`), raw(200, "<html>Sign in", "Content-Type", "text/html")), wire: []string{
			`account 200 {"type":"account","stat`, "account 200 <html>Sign in",
		}},
		{
			ids:     "S-11",
			account: []pcsim.Step{{Failure: pcsim.FailureReset, Times: 1}, {Status: "Allowed", Failure: pcsim.FailureResetBody}},
			wire:    []string{"account broken", "account broken"},
		},
		{
			ids:            "S-13",
			account:        []pcsim.Step{{Failure: pcsim.FailureHang, Times: 1}, {Status: "Allowed", Latency: time.Hour}},
			qualifications: []pcsim.Step{{Items: []pcsim.Qualification{}, Failure: pcsim.FailureHangBody}},
			wire:           []string{"token 200", "account timeout", "account timeout", "qualifications timeout"},
		},
	}
	cases = append(cases, fault("A-08", 403, 900308, 900150)...)
	cases = append(cases, fault("A-09", 403, 900309)...)
	cases = append(cases, fault("A-12", 403, 900149, 800039, 900124)...)
	cases = append(cases, fault("S-01", 500, 800003)...)
	cases = append(cases, fault("S-02", 500, 900192)...)
	for _, status := range []int{502, 503, 504} {
		cases = append(cases, wireCase{
			ids: "S-03", account: raw(status, "<html>Busy", "Content-Type", "text/html"), qualifications: raw(status, "", "Retry-After", "3"),
			wire: []string{fmt.Sprint("account ", status, " <html>Busy"), fmt.Sprint("qualifications ", status, " empty")},
		})
	}
	for _, status := range []int{501, 405, 406, 412, 417} {
		cases = append(cases, fault("S-07", status, status)...)
	}
	return cases
}

// bodyCases are forms of error bodies, each of which may occur with any status.
func bodyCases() []wireCase {
	var cases []wireCase
	for _, c := range [][2]string{
		{"B-01", `{"code":"2032","description":"Text."}`},
		{"B-02", `{"code":3000,"description":"Text.","data":[],"source":"PartnerFD"}`},
		{"B-03", `{"code":3000,"description":"Text.","data":["one","two"],"source":"PartnerFD"}`},
		{"B-04", `{"code":600061,"message":"Text.","description":"Text.","errorName":"Name","isRetryable":false,` +
			`"parameters":{},"errorMessageExtended":"InternalErrorCode=600061"}`},
		{"B-05", `{"statusCode":429,"message":"Text."}`},
		{"B-06", `{"code":1000,"description":"&quot;` + customerID + `&quot; &amp; ` + strings.Repeat("long ", 400) + `"}`},
		{"B-07", "Text."},
		{"B-07", ""},
		{"B-07", "null"},
		{"B-07", `[{"code":600074}]`},
	} {
		want := c[1]
		if want == "" {
			want = "empty"
		}
		cases = append(cases, wireCase{ids: c[0], account: inTurn(raw(404, c[1]), raw(500, c[1])), qualifications: raw(403, c[1]), wire: []string{
			"account 404 " + want, "account 500 " + want, "qualifications 403 " + want,
		}})
	}
	return cases
}
