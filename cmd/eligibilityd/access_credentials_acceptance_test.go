//go:build acceptance

package main

import (
	"bytes"
	"compress/flate"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
)

const sha256Hash = crypto.SHA256

// credential is an attack by what a caller presents.
type credential struct {
	name          string
	authorization []string // values of the header; none: no header
	fields        []string // further headers, which alternate between name and value
	with          *pair
	want          string // as answer.String; by default not authenticated
	wantREST      string // if it differs
}

const (
	refused   = "UNAUTHENTICATED"
	deniedFor = "PERMISSION_DENIED, right `check`"
	accepted  = "OK"
	noTLS     = "TLS alert"
)

// attackCredentials sends each credential with a check over both transports. Whatever
// is refused gets the same answer, byte for byte, whether the customer exists or
// not, before the body is sent.
func attackCredentials(t *testing.T, table *attacks) { //nolint:thelper // a test of its own
	x := startTarget(t, "", "")
	v := x.issuer.valid()
	sections := []struct {
		title string
		rows  []credential
	}{
		{"Credentials: absent or in the wrong place", misplaced(v)},
		{"Credentials: tokens of an issuer", jwtAttacks(t, x, v)},
		{"Credentials: static tokens", staticAttacks(t, x)},
		{"Credentials: certificates", certificateAttacks(t, x, v)},
	}
	for _, section := range sections {
		table.begin(section.title)
		for _, row := range section.rows {
			grpc, rest := x.present(t, row)
			table.add(t, row.name, grpc, rest)
		}
	}
	if err := x.answers(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	tokens := []string{v.token}
	for _, section := range sections {
		for _, row := range section.rows {
			for _, value := range row.authorization {
				tokens = append(tokens, strings.Split(value, " ")...)
			}
		}
	}
	x.revealsNothing(t, tokens)
}

// present sends one credential and returns what came back.
func (x *target) present(t *testing.T, row credential) (grpc, rest string) {
	t.Helper()
	want := row.want
	if want == "" {
		want = refused
	}
	var fields, headers []string
	for _, value := range row.authorization {
		fields, headers = append(fields, "authorization", value), append(headers, "Authorization: "+value)
	}
	for i := 0; i+1 < len(row.fields); i += 2 {
		fields, headers = append(fields, row.fields[i], row.fields[i+1]), append(headers, row.fields[i]+": "+row.fields[i+1])
	}
	var question []byte // none: the refusal must come before it
	if want == accepted {
		question = message(about(allowedID))
	}
	a := x.grpc(row.with, checkMethod, question, fields...).as(want)
	if grpc = a.String(); grpc != want {
		t.Errorf("%s, over gRPC: %s, want %s: %+v", row.name, grpc, want, a)
	}
	wantREST := want
	if row.wantREST != "" {
		wantREST = row.wantREST
	}
	b := x.rest(row.with, httpRequest("GET", checkPath, headers...)).as(want)
	if rest = b.String(); wantREST == accepted {
		wantREST = "200"
	}
	if rest != wantREST {
		t.Errorf("%s, over REST: %s, want %s: %+v", row.name, rest, wantREST, b)
	}
	if want != refused && want != deniedFor || wantREST != want {
		return grpc, rest
	}
	wantCode, wantText, status, challenge := codes.Unauthenticated, fixedRefuse, http.StatusUnauthorized, `Bearer error="invalid_token"`
	if want == deniedFor {
		wantCode, wantText, status, challenge = codes.PermissionDenied, fixedDeny, http.StatusForbidden, ""
	}
	if a.code != wantCode || a.message != wantText {
		t.Errorf("%s, over gRPC: %+v", row.name, a)
	}
	if b.status != status || b.code != wantCode || b.message != wantText || b.challenge != challenge {
		t.Errorf("%s, over REST: %+v", row.name, b)
	}
	for what, request := range map[string]string{
		"an unknown customer":   httpRequest("GET", "/v1/customers/"+nobodyID+"/eligibility", headers...),
		"a malformed question":  httpRequest("GET", "/v1/customers/x/eligibility?segment=NONE", headers...),
		"a blocked customer":    httpRequest("GET", "/v1/customers/"+notAllowedID+"/eligibility", headers...),
		"a body that is absent": httpRequest("POST", batchPath, append(headers, "Content-Type: application/json", "Content-Length: 1000")...),
	} {
		if strings.HasPrefix(request, "POST") && want == deniedFor {
			continue // needs another right
		}
		if c := x.rest(row.with, request); !bytes.Equal(c.body, b.body) || c.status != b.status || c.challenge != b.challenge {
			t.Errorf("%s, over REST, for %s: %+v, not %+v", row.name, what, c, b)
		}
	}
	c := x.grpc(row.with, checkMethod, message(about(nobodyID)), fields...)
	if c.header["grpc-status-details-bin"] != a.header["grpc-status-details-bin"] || c.message != a.message || c.code != a.code {
		t.Errorf("%s, over gRPC, for an unknown customer: %+v, not %+v", row.name, c, a)
	}
	return fmt.Sprintf("%#q", grpc), fmt.Sprintf("%d %#q", b.status, rest)
}

// as returns an answer that is want if both are an end without an answer: whether the
// alert of TLS arrives before the end depends on who writes first.
func (a answer) as(want string) answer {
	if a.ended != "" && a.ended != "no answer" && (want == noTLS || want == tooLarge) {
		a.ended = want
	}
	return a
}

func bearers(tokens ...string) []string {
	values := make([]string, len(tokens))
	for i, token := range tokens {
		values[i] = "Bearer " + token
	}
	return values
}

func misplaced(v issued) []credential {
	return []credential{
		{name: "none"},
		{name: "an empty header", authorization: []string{""}},
		{name: "`Bearer` without a token", authorization: []string{"Bearer"}},
		{name: "`Bearer` and a blank", authorization: []string{"Bearer "}},
		{name: "the token without a scheme", authorization: []string{v.token}},
		{name: "scheme `Basic`", authorization: []string{"Basic " + v.token}},
		{name: "scheme `DPoP`", authorization: []string{"DPoP " + v.token}},
		{name: "a valid token twice, in two headers", authorization: bearers(v.token, v.token)},
		{name: "a valid token twice, in one header", authorization: []string{"Bearer " + v.token + ", Bearer " + v.token}},
		{name: "a valid token and an invalid one", authorization: bearers(v.token, "x"), wantREST: refused},
		{name: "two tokens after one scheme", authorization: []string{"Bearer " + v.token + " " + v.token}},
		{name: "a tab after the scheme", authorization: []string{"Bearer\t" + v.token}},
		{name: "in a cookie", fields: []string{"cookie", "access_token=" + v.token + "; Authorization=Bearer " + v.token}},
		{name: "in `Proxy-Authorization`", fields: []string{"proxy-authorization", "Bearer " + v.token}},
		{name: "in `Grpc-Metadata-Authorization`", fields: []string{"grpc-metadata-authorization", "Bearer " + v.token}},
		{name: "in `X-Forwarded-Authorization`", fields: []string{"x-forwarded-authorization", "Bearer " + v.token}},
		{name: "in `authorization-bin`", fields: []string{"authorization-bin", base64url([]byte("Bearer " + v.token))}},
		{name: "headers of a proxy about a client's certificate", fields: []string{"x-forwarded-client-cert", "URI=spiffe://shop.example/checkout", "x-ssl-client-verify", "SUCCESS"}},
	}
}

func jwtAttacks(t *testing.T, x *target, v issued) []credential {
	t.Helper()
	other, _ := accesstest.NewKey(t, "evil", "RS256").Private.(*rsa.PrivateKey)
	der, err := x509.MarshalPKIXPublicKey(&v.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	pkcs1 := x509.MarshalPKCS1PublicKey(&v.key.PublicKey)
	now := time.Now()
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	payload := func(changes claims) []string { return bearers(v.signed(v.header, v.claims.with(changes))) }
	header := func(changes claims) []string { return bearers(v.signed(v.header.with(changes), v.claims)) }
	confused := func(secret []byte) []string {
		return bearers(forged(v.header.with(claims{"alg": "HS256"}).String(), v.claims.String(), hs256(secret)))
	}
	none := func(alg string) []string {
		return bearers(forged(v.header.with(claims{"alg": alg}).String(), v.claims.String(), unsigned))
	}
	algorithm := func(alg string, sign func([]byte) []byte) []string {
		return bearers(forged(v.header.with(claims{"alg": alg}).String(), v.claims.String(), sign))
	}
	raw := func(header, payload string) []string { return bearers(forged(header, payload, rs(v.key, sha256Hash))) }
	ours := v.header.String()
	parts := strings.Split(v.token, ".")
	evil := jwk("evil", &other.PublicKey)
	rows := []credential{
		{name: "valid", authorization: bearers(v.token), want: accepted},
		{name: "no audience (CVE-2026-55689)", authorization: payload(claims{"aud": nil})},
		{name: "an empty list of audiences (CVE-2026-55689)", authorization: payload(claims{"aud": []string{}})},
		{name: "audience `null` (CVE-2026-55689)", authorization: raw(ours, strings.Replace(v.claims.String(), `"`+audience+`"`, "null", 1))},
		{name: "another audience", authorization: payload(claims{"aud": "api://another"})},
		{name: "an audience that begins alike", authorization: payload(claims{"aud": audience + "2"})},
		{name: "an audience in another case (CVE-2026-55170)", authorization: payload(claims{"aud": strings.ToUpper(audience)})},
		{name: "an audience that is an object", authorization: payload(claims{"aud": claims{audience: true}})},
		{name: "no issuer", authorization: payload(claims{"iss": nil})},
		{name: "another issuer", authorization: payload(claims{"iss": "https://login.example"})},
		{name: "issuer with a trailing slash", authorization: payload(claims{"iss": x.issuer.URL + "/"})},
		{name: "issuer in another case (CVE-2026-55170)", authorization: payload(claims{"iss": strings.ToUpper(x.issuer.URL)})},
		{name: "issuer as a list", authorization: payload(claims{"iss": []string{x.issuer.URL}})},
		{name: "another tenant", authorization: payload(claims{"tid": "70000000-0000-4000-8000-00000000000b"})},
		{name: "a tenant in another case (CVE-2026-55170)", authorization: payload(claims{"tid": strings.ToUpper(tenant)})},
		{name: "no tenant", authorization: payload(claims{"tid": nil})},
		{name: "a user's token (`idtyp: user`)", authorization: payload(claims{"idtyp": "user"})},
		{name: "no name of a caller", authorization: payload(claims{"azp": nil})},
		{name: "an empty name of a caller", authorization: payload(claims{"azp": ""})},
		{name: "a name of a caller that is a number", authorization: payload(claims{"azp": 1})},
		{name: "expired", authorization: payload(claims{"exp": at(-2 * time.Minute)})},
		{name: "expired within the leeway of 60 s", authorization: payload(claims{"exp": at(-20 * time.Second)}), want: accepted},
		{name: "without `exp`", authorization: payload(claims{"exp": nil})},
		{name: "`exp` 0", authorization: payload(claims{"exp": 0})},
		{name: "`exp` as text", authorization: payload(claims{"exp": fmt.Sprint(at(time.Hour))})},
		{name: "`exp` of 10^400", authorization: raw(ours, strings.Replace(v.claims.String(), `"exp":`, `"exp":1e400,"x":`, 1))},
		{name: "`exp` negative and huge", authorization: raw(ours, strings.Replace(v.claims.String(), `"exp":`, `"exp":-9223372036854775809,"x":`, 1))},
		{name: "not yet valid", authorization: payload(claims{"nbf": at(2 * time.Minute)})},
		{name: "issued in the future", authorization: payload(claims{"iat": at(2 * time.Minute)})},
		{name: "signed by another key", authorization: bearers(forged(ours, v.claims.String(), rs(other, sha256Hash)))},
		{name: "signature of another token", authorization: bearers(parts[0] + "." + base64url([]byte(v.claims.with(claims{"azp": "root"}).String())) + "." + parts[2])},
		{name: "no signature", authorization: bearers(parts[0] + "." + parts[1] + ".")},
		{name: "two parts", authorization: bearers(parts[0] + "." + parts[1])},
		{name: "a cut signature", authorization: bearers(v.token[:len(v.token)-4])},
		{name: "one bit of the signature", authorization: bearers(flipped(v.token))},
		{name: "padded base64", authorization: bearers(parts[0] + "." + parts[1] + "." + parts[2] + "==")},
		{name: "a line break in the token", authorization: bearers(parts[0] + "." + parts[1] + ".%0A" + parts[2])},
		{name: "`alg: none`", authorization: none("none")},
		{name: "`alg: None`", authorization: none("None")},
		{name: "`alg: nOnE`", authorization: none("nOnE")},
		{name: "empty `alg`", authorization: none("")},
		{name: "no `alg`", authorization: bearers(forged(v.header.with(claims{"alg": nil}).String(), v.claims.String(), rs(v.key, sha256Hash)))},
		{name: "HS256 with the public key as secret, PEM", authorization: confused(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))},
		{name: "HS256 with the public key as secret, DER", authorization: confused(der)},
		{name: "HS256 with the public key as secret, PKCS #1", authorization: confused(pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: pkcs1}))},
		{name: "HS256 with the public key as secret, JWK", authorization: confused([]byte(jwk(v.kid, &v.key.PublicKey)))},
		{name: "HS256 with the modulus as secret", authorization: confused(v.key.N.Bytes())},
		{name: "HS256 with an empty secret", authorization: confused(nil)},
		{name: "RS384 by the right key (CVE-2026-55165)", authorization: algorithm("RS384", rs(v.key, crypto.SHA384))},
		{name: "PS256 by the right key (CVE-2026-55165)", authorization: algorithm("PS256", ps256(v.key))},
		{name: "ES256 with the signature of RS256", authorization: algorithm("ES256", rs(v.key, sha256Hash))},
		{name: "`alg: rs256`", authorization: algorithm("rs256", rs(v.key, sha256Hash))},
		{name: "`crit`", authorization: header(claims{"crit": []string{"exp"}})},
		{name: "`crit`, empty", authorization: header(claims{"crit": []string{}})},
		{name: "`b64: false` with `crit`", authorization: header(claims{"crit": []string{"b64"}, "b64": false})},
		{name: "a key in the header (`jwk`)", authorization: bearers(forged(fmt.Sprintf(`{"alg":"RS256","kid":"evil","jwk":%s}`, evil), v.claims.String(), rs(other, sha256Hash)))},
		{name: "an address of keys in the header (`jku`)", authorization: bearers(forged(fmt.Sprintf(`{"alg":"RS256","kid":"evil","jku":%q}`, x.issuer.URL+"/evil"), v.claims.String(), rs(other, sha256Hash)))},
		{name: "an address of a certificate in the header (`x5u`)", authorization: bearers(forged(fmt.Sprintf(`{"alg":"RS256","kid":"evil","x5u":%q}`, x.issuer.URL+"/evil"), v.claims.String(), rs(other, sha256Hash)))},
		{name: "a certificate in the header (`x5c`)", authorization: bearers(forged(fmt.Sprintf(`{"alg":"RS256","x5c":[%q]}`, base64url(der)), v.claims.String(), rs(other, sha256Hash)))},
		{name: "without `kid`, by another key", authorization: bearers(forged(`{"alg":"RS256"}`, v.claims.String(), rs(other, sha256Hash)))},
		{name: "`kid` as a list", authorization: bearers(forged(`{"alg":"RS256","kid":["first"]}`, v.claims.String(), rs(v.key, sha256Hash)))},
		{name: "compressed (`zip: DEF`, CVE-2024-28180)", authorization: bearers(compressed(v))},
		{name: "five parts (JWE, CVE-2024-28180)", authorization: bearers(base64url([]byte(`{"alg":"RSA-OAEP","enc":"A128GCM","zip":"DEF","p2c":2147483647}`)) + ".QUFB.QUFB.QUFB.QUFB")},
		{name: "thousands of dots (CVE-2025-30204, CVE-2025-27144)", authorization: bearers(strings.Repeat(".", 12_000))},
		{name: "10,000 levels of JSON in the payload", authorization: raw(ours, strings.Repeat("[", 10_000)[:9_000])},
		{name: "deep JSON in the header", authorization: bearers(base64url([]byte(strings.Repeat(`{"a":`, 1_700))) + ".e30.AA")},
		{name: "a payload that is `null`", authorization: raw(ours, "null")},
		{name: "a payload that is a list", authorization: raw(ours, "[]")},
		{name: "a header that is `null`", authorization: raw("null", v.claims.String())},
		{name: "a second `alg`", authorization: raw(`{"alg":"none","alg":"RS256","kid":"`+v.kid+`"}`, v.claims.String())},
		{name: "a second `aud`, the last one ours", authorization: raw(ours, `{"aud":"api://another",`+v.claims.String()[1:])},
		{name: "a second `aud`, the first one ours", authorization: raw(ours, v.claims.String()[:len(v.claims.String())-1]+`,"aud":"api://another"}`)},
		{name: "claims in another case (`AUD`, `ISS`)", authorization: raw(ours, strings.NewReplacer(`"aud"`, `"AUD"`, `"iss"`, `"ISS"`).Replace(v.claims.String()))},
		{name: "text after the payload", authorization: raw(ours, v.claims.String()+"{}")},
		{name: "invalid UTF-8", authorization: raw(ours, strings.Replace(v.claims.String(), `"shop"`, "\"\xff\"", 2))},
		{name: "without roles", authorization: payload(claims{"roles": nil}), want: deniedFor},
		{name: "an empty list of roles", authorization: payload(claims{"roles": []string{}}), want: deniedFor},
		{name: "a role that gives another right", authorization: payload(claims{"roles": []string{"Eligibility.Batch"}}), want: deniedFor},
		{name: "a role that the configuration does not name", authorization: payload(claims{"roles": []string{"*", "Eligibility", "CHECK", "check "}}), want: deniedFor},
		{name: "a role in another case (CVE-2026-55170)", authorization: payload(claims{"roles": []string{"eligibility.check"}}), want: deniedFor},
		{name: "64 KiB (CVE-2026-34986)", authorization: bearers(strings.Repeat("A", 64<<10)), want: tooLarge, wantREST: "431"},
		{name: "a megabyte (CVE-2026-34986)", authorization: bearers(strings.Repeat("A", 1<<20)), want: tooLarge, wantREST: "431"},
		{name: "100,000 levels of JSON", authorization: bearers(base64url([]byte(strings.Repeat("[", 100_000))) + ".e30.AA"), want: tooLarge, wantREST: "431"},
	}
	for _, odd := range []struct{ name, kid string }{
		{"a path", "../../../../dev/null"}, {"SQL", "x' UNION SELECT 'key"}, {"a URL", x.issuer.URL + "/evil"}, {"7,000 letters", strings.Repeat("k", 7_000)},
	} {
		rows = append(rows, credential{name: "`kid`: " + odd.name, authorization: bearers(forged(asJSON(claims{"alg": "RS256", "kid": odd.kid}), v.claims.String(), rs(other, sha256Hash)))})
	}
	return rows
}

const tooLarge = "connection ended"

// flipped returns a token whose signature differs in one bit.
func flipped(token string) string {
	at := strings.LastIndexByte(token, '.') + 10
	other := byte('A')
	if token[at] == other {
		other = 'B'
	}
	return token[:at] + string(other) + token[at+1:]
}

// compressed returns a token whose payload of 100 MB is deflated.
func compressed(v issued) string {
	var zipped bytes.Buffer
	w, _ := flate.NewWriter(&zipped, flate.BestCompression)
	for range 8 << 10 {
		_, _ = w.Write(make([]byte, 1<<10))
	}
	_ = w.Close()
	return forged(v.header.with(claims{"zip": "DEF"}).String(), zipped.String(), rs(v.key, sha256Hash))
}

// staticAttacks writes tokens.yaml and returns attacks on it.
func staticAttacks(t *testing.T, x *target) []credential {
	t.Helper()
	good, entry := mint(t, "--caller", "shop", "--rights", "check", "--days", "1")
	idle, idleEntry := mint(t, "--caller", "idle", "--rights", "batch", "--days", "1")
	old, oldEntry := mint(t, "--caller", "shop", "--rights", "check", "--days", "1")
	expired := regexp.MustCompile(`not_after: [^,}]*`).ReplaceAllString(oldEntry, "not_after: 2020-01-01T00:00:00Z")
	path := filepath.Join(x.dir, "tokens.yaml")
	if err := os.WriteFile(path+"_tmp", []byte(entry+idleEntry+expired), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+"_tmp", path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "tokens.yaml to be reloaded", func() bool {
		return x.rest(nil, httpRequest("GET", checkPath, bearerLine(good))).status == http.StatusOK
	})
	sum := regexp.MustCompile(`[0-9a-f]{64}`).FindString(entry)
	return []credential{
		{name: "valid", authorization: bearers(good), want: accepted},
		{name: "unknown", authorization: bearers(strings.Repeat("x", len(good)))},
		{name: "expired", authorization: bearers(old)},
		{name: "the beginning of one", authorization: bearers(good[:len(good)-1])},
		{name: "more than one", authorization: bearers(good + "A")},
		{name: "in another case", authorization: bearers(swapCase(good))},
		{name: "its SHA-256", authorization: bearers(sum)},
		{name: "without the right", authorization: bearers(idle), want: deniedFor},
		{name: "with blanks around it", authorization: []string{"Bearer  " + good + " x"}},
	}
}

func swapCase(s string) string {
	if upper := strings.ToUpper(s); upper != s {
		return upper
	}
	return strings.ToLower(s)
}

// mint runs eligibilityd token, and returns the token and its entry.
func mint(t *testing.T, args ...string) (token, entry string) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program, append([]string{"token"}, args...)...) //nolint:gosec // the test's own binary
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), asProgram+"=1"), &out, &errOut
	if err := cmd.Run(); err != nil {
		t.Fatalf("token: %v: %s", err, errOut.String())
	}
	return strings.TrimSpace(out.String()), errOut.String()
}

// certificateAttacks are attacks by certificate, alone or with a token.
func certificateAttacks(t *testing.T, x *target, v issued) []credential {
	t.Helper()
	const ours, till = "spiffe://shop.example/checkout", "till.shop.example"
	named := func(name string) *pair { return signed(t, x.ca, named509(name)) }
	changed := func(change func(*x509.Certificate)) *pair {
		template := named509(ours)
		change(&template)
		return signed(t, x.ca, template)
	}
	valid := func(from, until time.Duration) *pair {
		return changed(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(until) })
	}
	common := x.ca.Issue(t, till, x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}).TLS()
	foreign := signed(t, accesstest.NewAuthority(t), named509(ours))
	return []credential{
		{name: "valid, by URI", with: named(ours), want: accepted},
		{name: "valid, by DNS name", with: named(till), want: accepted},
		{name: "of another authority with the same name", with: foreign, want: noTLS},
		{name: "signed by itself", with: signedByItself(t, named509(ours)), want: noTLS},
		{name: "expired", with: valid(-time.Hour, -time.Minute), want: noTLS},
		{name: "not yet valid", with: valid(time.Minute, time.Hour), want: noTLS},
		{name: "for servers only", with: changed(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), want: noTLS},
		{name: "another URI", with: named("spiffe://shop.example/support")},
		{name: "a URI that begins alike", with: named(ours + "/x")},
		{name: "a URI that ends alike", with: named("spiffe://evil.shop.example/checkout")},
		{name: "a URI in another case (CVE-2026-55170)", with: named("spiffe://shop.example/CHECKOUT")},
		{name: "a URI with a query", with: named(ours + "?x")},
		{name: "a DNS name that begins alike", with: named(till + ".evil.example")},
		{name: "a DNS name that ends alike", with: named("evil-" + till)},
		{name: "a wildcard", with: named("*.shop.example")},
		{name: "the name only as common name", with: &common},
		{name: "the DNS name as URI", with: signed(t, x.ca, x509.Certificate{URIs: []*url.URL{{Scheme: "dns", Opaque: till}}})},
		{name: "the URI as DNS name", with: signed(t, x.ca, x509.Certificate{DNSNames: []string{"shop.example/checkout"}})},
		{name: "valid, with an invalid token", with: named(ours), authorization: bearers("x")},
		{name: "valid, with another scheme", with: named(ours), authorization: []string{"Basic eDp5"}},
		{name: "valid, with an empty header", with: named(ours), authorization: []string{""}},
		{name: "invalid, with a valid token", with: foreign, authorization: bearers(v.token), want: noTLS},
		{name: "of our authority, naming no caller, with a valid token", with: named("spiffe://shop.example/support"), authorization: bearers(v.token), want: accepted},
		{name: "valid, with a valid token without rights", with: named(ours), authorization: bearers(v.signed(v.header, v.claims.with(claims{"roles": nil}))), want: deniedFor},
		{name: "valid, with a valid token", with: named(ours), authorization: bearers(v.token), want: accepted},
	}
}

// revealsNothing looks for tokens in all that x has written.
func (x *target) revealsNothing(t *testing.T, tokens []string) {
	t.Helper()
	_, _, metrics := get(t, "http://"+x.Admin+"/metrics")
	seen := x.log.String() + x.out.String() + metrics
	if !strings.Contains(seen, "UNAUTHENTICATED") {
		t.Error("no refusal was logged: nothing was looked at")
	}
	for _, token := range tokens {
		for part := range strings.SplitSeq(token, ".") {
			if len(part) > 24 && strings.Contains(seen, part[:24]) {
				at := strings.Index(seen, part[:24])
				t.Errorf("a part of a token got out: …%s", seen[max(0, at-200):min(len(seen), at+100)])
			}
		}
	}
}
