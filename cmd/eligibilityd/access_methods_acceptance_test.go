//go:build acceptance

package main

import (
	"crypto/tls"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
)

// attackMethods calls what does not exist, or exists under another name.
func attackMethods(t *testing.T, table *attacks) { //nolint:thelper // a test of its own
	x := startTarget(t, "", "")
	valid := x.issuer.valid().token
	batchOnly := x.issuer.issue("batches", "Eligibility.Batch").token
	question := message(about(allowedID))

	table.begin("Methods and paths, without a token")
	for _, row := range []struct {
		name    string
		method  string // of gRPC
		target  string // of REST; by default GET
		headers []string
	}{
		{name: "a check", method: checkMethod, target: checkPath},
		{name: "a batch", method: batchMethod, target: "POST " + batchPath, headers: []string{"Content-Type: application/json", "Content-Length: 2"}},
		{name: "a method that does not exist", method: "/eligibility.v1.EligibilityService/Nope", target: "/v1/nope"},
		{name: "a service that does not exist", method: "/eligibility.v2.EligibilityService/CheckEligibility", target: "/v2/customers/" + allowedID + "/eligibility"},
		{name: "no slash at the start (CVE-2026-33186)", method: checkMethod[1:], target: checkPath[1:]},
		{name: "two slashes at the start (CVE-2026-33186, CVE-2026-0650)", method: "/" + checkMethod, target: "/" + checkPath},
		{name: "two slashes within (CVE-2026-0650)", method: strings.ReplaceAll(checkMethod, "e/C", "e//C"), target: strings.ReplaceAll(checkPath, "/eli", "//eli")},
		{name: "a slash at the end", method: checkMethod + "/", target: checkPath + "/"},
		{name: "another case", method: strings.ToLower(checkMethod), target: strings.ToUpper(checkPath)},
		{name: "through an open path (CVE-2026-0650)", method: "/grpc.health.v1.Health/../" + checkMethod[1:], target: "/docs/.." + checkPath},
		{name: "through `/healthz` (CVE-2026-0650)", method: "/grpc.health.v1.Health/Check/.." + checkMethod, target: "/healthz/.." + checkPath},
		{name: "through an encoded `..` (CVE-2026-0650)", method: "/grpc.health.v1.Health/%2e%2e" + checkMethod, target: "/docs/%2e%2e" + checkPath},
		{name: "through an encoded slash (CVE-2026-0650)", method: strings.ReplaceAll(checkMethod, "e/C", "e%2fC"), target: strings.ReplaceAll(checkPath, "/eli", "%2feli")},
		{name: "through a path parameter (CVE-2026-0650)", method: checkMethod + ";/grpc.health.v1.Health/Check", target: checkPath + ";/healthz"},
		{name: "with a query", method: checkMethod + "?access_token=" + valid, target: checkPath + "?access_token=" + valid},
		{name: "with the token as a parameter", method: checkMethod + "?authorization=Bearer%20" + valid, target: checkPath + "?authorization=Bearer%20" + valid},
		{name: "an absolute URI", method: "https://localhost" + checkMethod, target: "http://localhost" + checkPath},
		{name: "method override to an open one", method: checkMethod, target: "POST " + checkPath, headers: []string{"X-HTTP-Method-Override: OPTIONS", "Content-Type: application/json", "Content-Length: 0"}},
		{name: "a form as override (`X-HTTP-Method-Override: GET`)", method: checkMethod, target: "POST " + checkPath, headers: []string{"X-HTTP-Method-Override: GET", "Content-Type: application/x-www-form-urlencoded", "Content-Length: 0"}},
		{name: "`HEAD`", target: "HEAD " + checkPath},
		{name: "reflection, `/openapi.json` (CVE-2025-46332)", method: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", target: "/openapi.json"},
		{name: "reflection v1alpha, `/docs` (CVE-2025-46332)", method: "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", target: "/docs"},
		{name: "`/docs/` and below (CVE-2025-46332)", target: "/docs/docs.js"},
		{name: "`/metrics` (CVE-2025-46332)", method: "/metrics", target: "/metrics"},
		{name: "`/debug/pprof/heap` (CVE-2025-46332)", method: "/debug/pprof/heap", target: "/debug/pprof/heap"},
		{name: "channelz", method: "/grpc.channelz.v1.Channelz/GetServers", target: "/grpc.channelz.v1.Channelz/GetServers"},
	} {
		grpc, rest := "–", "–"
		if row.method != "" {
			a := x.grpc(nil, row.method, question)
			if a.code == codes.OK || a.code == codes.Unknown && a.ended == "" && a.status == http.StatusOK {
				t.Errorf("%s, over gRPC, is answered: %+v", row.name, a)
			}
			if grpc = "`" + a.String() + "`"; grpc != "`"+refused+"`" && a.code != codes.Unimplemented && a.ended == "" && a.status != http.StatusBadRequest && a.status != http.StatusNotFound {
				t.Errorf("%s, over gRPC: %+v", row.name, a)
			}
		}
		if row.target != "" {
			verb, target, ok := strings.Cut(row.target, " ")
			if !ok {
				verb, target = http.MethodGet, row.target
			}
			a := x.rest(nil, httpRequest(verb, target, row.headers...))
			if a.status < 400 || a.status >= 500 {
				t.Errorf("%s, over REST: %+v", row.name, a)
			}
			if rest = strconv.Itoa(a.status); a.reason != "" {
				rest += " `" + a.reason + "`"
			}
		}
		table.add(t, row.name, grpc, rest)
	}

	table.begin("Methods and paths, with a token for another right")
	for _, row := range []struct{ name, method, path, want string }{
		{"a check", checkMethod, checkPath, deniedFor},
		{"reflection, `/openapi.json` (CVE-2025-46332)", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/openapi.json", deniedFor},
		{"reflection v1alpha, `/docs` (CVE-2025-46332)", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "/docs", deniedFor},
	} {
		a := x.grpc(nil, row.method, nil, "authorization", "Bearer "+batchOnly)
		b := x.rest(nil, httpRequest("GET", row.path, bearerLine(batchOnly)))
		if a.String() != row.want || a.code != codes.PermissionDenied || b.String() != row.want || b.status != http.StatusForbidden {
			t.Errorf("%s: over gRPC %+v, over REST %+v", row.name, a, b)
		}
		table.add(t, row.name, a.String(), "403 "+b.String())
	}
	a := x.grpc(nil, checkMethod[1:], question, "authorization", "Bearer "+batchOnly)
	if a.code == codes.OK {
		t.Errorf("a method without its slash is answered: %+v", a)
	}
	b := x.rest(nil, httpRequest("GET", "/"+checkPath, bearerLine(batchOnly)))
	if b.status < 400 {
		t.Errorf("a path with two slashes is answered: %+v", b)
	}
	table.add(t, "a check without its slash, with one more (CVE-2026-33186, CVE-2026-0650)", a.String(), strconv.Itoa(b.status)+" "+b.String())

	table.begin("The wrong protocol")
	plain := func(address string) answer {
		return sendHTTP(address, nil, httpRequest("GET", checkPath, bearerLine(valid)))
	}
	p, q := plain(x.GRPC), plain(x.HTTP)
	if p.ended == "" || q.ended == "" {
		t.Errorf("plain text: %+v, %+v", p, q)
	}
	table.add(t, "plain text", p.String(), q.String())
	old := x.tls(nil)
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	o, n := sendHTTP(x.GRPC, old, ""), sendHTTP(x.HTTP, old, "")
	if o.ended != noTLS || n.ended != noTLS {
		t.Errorf("TLS 1.1: %+v, %+v", o, n)
	}
	table.add(t, "TLS 1.1", o.String(), n.String())
	h := sendHTTP(x.GRPC, x.tls(nil), httpRequest("GET", checkPath, bearerLine(valid)))
	if h.status == http.StatusOK {
		t.Errorf("HTTP/1.1 on the listener of gRPC is answered: %+v", h)
	}
	conn, err := openH2(x.HTTP, x.tls(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.call(false, checkMethod); err != nil {
		t.Fatal(err)
	}
	g := conn.receive()
	if g.code == codes.OK || g.status == http.StatusOK {
		t.Errorf("gRPC on the listener of REST is answered: %+v", g)
	}
	table.add(t, "HTTP/1.1 on the listener of gRPC; gRPC on the listener of REST, without a token", h.String(), g.String())
	if h := x.grpc(nil, "/grpc.health.v1.Health/Check", framed(0, nil)); h.code != codes.OK {
		t.Errorf("health needs a token: %+v", h)
	}
}
