package config_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

func TestFaultsOfAccess(t *testing.T) {
	t.Parallel()
	const rights = "check, batch, fresh, prefetch, watch, watch_all, support"
	for name, c := range map[string]struct {
		text    string
		command config.Command
		want    []string
	}{
		"halves of TLS": {
			text:    "server: {tls: {certificate_file: /c, client_certificates: optional}}\n",
			command: config.Doctor,
			want: []string{
				`config.yaml:1: server.tls.certificate_file: needs its key, in server.tls.key_file`,
				`config.yaml:1: server.tls.client_certificates: has no effect without server.tls.client_ca_file, which client certificates are verified against`,
			},
		},
		"other halves of TLS": {
			text:    "server: {tls: {key_file: /k, client_ca_file: /a, client_certificates: always}}\n",
			command: config.Doctor,
			want: []string{
				`config.yaml:1: server.tls.client_certificates: "always" is not one of optional, required`,
				`config.yaml:1: server.tls.key_file: needs the certificate that it belongs to, in server.tls.certificate_file`,
				`config.yaml:1: server.tls.client_ca_file: has no effect without TLS: give server.tls.certificate_file and server.tls.key_file`,
			},
		},
		"origins": {
			text: `
server:
  http:
    cors:
      origins: ["*", "null", "https://a.example", "https://a.example", "https://a.example/", "https://A.example", "https://a.example:443",
        "http://a.example:80", "https://a.example:0", "https://a.example:", "ftp://a.example", "a.example", "https://u@a.example", "https://a.example?",
        "https://*.example", "", "http://localhost:3000", "https://[::1]:8443", "https://a.example#", "HTTPS://a.example"]
`,
			command: config.Doctor,
			want: []string{`config.yaml:5: server.http.cors.origins: ` + strings.Join([]string{
				"item 1 is *, but origins must be exact; write each",
				"item 2 is null, which is the origin of any sandboxed page",
				"item 4 is there already",
				"item 5 " + notAnOrigin,
				"item 6 must be in lower case, as browsers send it",
				"item 7 has the port that browsers leave out; leave it out",
				"item 8 has the port that browsers leave out; leave it out",
				"item 9 " + notAnOrigin,
				"item 10 " + notAnOrigin,
				"item 11 " + notAnOrigin,
				"item 12 " + notAnOrigin,
				"item 13 " + notAnOrigin,
				"item 14 " + notAnOrigin,
				"item 15 " + notAnOrigin,
				"item 16 " + notAnOrigin,
				"item 19 " + notAnOrigin,
				"item 20 must be in lower case, as browsers send it",
			}, "; ")},
		},
		"limits of the server": {
			text: `
server:
  limits: {connections: 0, connection_age: 999ms, connection_grace: 0s, first_request: 0s, idle: 0s, header_bytes: 1023, grpc_body_bytes: 1023,
    rest_body_bytes: 67108865, streams_per_connection: 100001, concurrent: 0}
`,
			command: config.Doctor,
			want: []string{
				`config.yaml:3: server.limits.connection_age: 999ms must be at least 1s`,
				`config.yaml:3: server.limits.connection_grace: 0s must be more than 0`,
				`config.yaml:3: server.limits.first_request: 0s must be more than 0`,
				`config.yaml:3: server.limits.idle: 0s must be more than 0`,
				`config.yaml:3: server.limits.connections: 0 must be at least 1`,
				`config.yaml:3: server.limits.header_bytes: 1023 must be at least 1024`,
				`config.yaml:3: server.limits.grpc_body_bytes: 1023 must be at least 1024`,
				`config.yaml:4: server.limits.rest_body_bytes: 67108865 must be at most 67108864`,
				`config.yaml:4: server.limits.streams_per_connection: 100001 must be at most 100000`,
				`config.yaml:4: server.limits.concurrent: 0 must be at least 1`,
			},
		},
		"limits of callers": {
			text: "limits:\n  default: {requests_per_second: 0, burst: 1000001, concurrent: -1, new_customers_per_minute: -1}\n" +
				"  callers: {anybody: {requests_per_second: 1000001, burst: 0, concurrent: 0, new_customers_per_minute: 1000001}}\n",
			command: config.Doctor,
			want: []string{
				`config.yaml:2: limits.default.requests_per_second: 0 must be at least 1`,
				`config.yaml:2: limits.default.burst: 1000001 must be at most 1000000`,
				`config.yaml:2: limits.default.concurrent: -1 must be at least 1`,
				`config.yaml:2: limits.default.new_customers_per_minute: -1 must be at least 0`,
				`config.yaml:3: limits.callers.anybody.requests_per_second: 1000001 must be at most 1000000`,
				`config.yaml:3: limits.callers.anybody.burst: 0 must be at least 1`,
				`config.yaml:3: limits.callers.anybody.concurrent: 0 must be at least 1`,
				`config.yaml:3: limits.callers.anybody.new_customers_per_minute: 1000001 must be at most 1000000`,
			},
		},
		"certificates": {
			text: `
server: {tls: {certificate_file: /c, key_file: /k, client_ca_file: /a}}
auth:
  certificates:
    - {uri: "spiffe://a.example/x"}
    - {caller: a}
    - {caller: a, uri: "x:y", dns: a.example}
    - {caller: a, uri: "/x"}
    - {caller: a, uri: "spiffe:"}
    - {caller: a, uri: "spiffe://a.example/b c"}
    - {caller: a, dns: "*.example"}
    - {caller: a, dns: 10.0.0.1}
    - {caller: a, dns: a.example.}
    - {caller: a, uri: "spiffe://a.example/x"}
    - {caller: a, dns: A.example}
    - {caller: a, dns: a.example}
    - {caller: "a b", dns: b.example}
    - {caller: anonymous, dns: c.example}
    - {caller: nobody, dns: d.example}
    - {caller: partly, dns: e.example}
    - {caller: a, uri: "spiffe://a.example/X"}
  callers: {a: {rights: [check]}, partly: {partners: [default]}}
`,
			command: config.Doctor,
			want: []string{
				`config.yaml:5: auth.certificates[0].caller: is missing: the caller's name`,
				`config.yaml:6: auth.certificates[1]: needs uri or dns: what the certificate of the caller holds`,
				`config.yaml:7: auth.certificates[2]: has both uri and dns; write two entries`,
				`config.yaml:8: auth.certificates[3].uri: is not an absolute URI, such as spiffe://shop.example/checkout`,
				`config.yaml:9: auth.certificates[4].uri: is not an absolute URI, such as spiffe://shop.example/checkout`,
				`config.yaml:10: auth.certificates[5].uri: is not an absolute URI, such as spiffe://shop.example/checkout`,
				`config.yaml:11: auth.certificates[6].dns: is not a DNS name, such as checkout.shop.example; names are compared whole, without wildcards`,
				`config.yaml:12: auth.certificates[7].dns: is not a DNS name, such as checkout.shop.example; names are compared whole, without wildcards`,
				`config.yaml:13: auth.certificates[8].dns: is not a DNS name, such as checkout.shop.example; names are compared whole, without wildcards`,
				`config.yaml:14: auth.certificates[9]: is the same certificate as auth.certificates[0]`,
				`config.yaml:16: auth.certificates[11]: is the same certificate as auth.certificates[10]`,
				`config.yaml:17: auth.certificates[12].caller: must be 1 to 64 visible ASCII characters except quotes, commas and backslashes`,
				`config.yaml:18: auth.certificates[13].caller: is the name of callers that are not authenticated; choose another`,
				`config.yaml:19: auth.certificates[14].caller: has no rights: give them in auth.callers.nobody.rights`,
				`config.yaml:20: auth.certificates[15].caller: has no rights: give them in auth.callers.partly.rights`,
			},
		},
		"certificates without authorities": {
			text:    "auth: {certificates: [{caller: a, dns: a.example}], callers: {a: {rights: [check]}}}\n",
			command: config.Doctor,
			want:    []string{`config.yaml:1: auth.certificates: needs server.tls.client_ca_file, which client certificates are verified against`},
		},
		"issuers": {
			text: `
auth:
  jwt:
    - {audiences: [a]}
    - {issuer: "https://i.example/v2.0"}
    - {issuer: "https://i.example/v2.0", audiences: []}
    - {issuer: "http://i.example", audiences: ["", a, a, b c], keys_url: "http://keys.example"}
    - {issuer: "i.example", audiences: [a], keys_url: "https://u:p@keys.example"}
    - {issuer: "https://j.example/a b", audiences: [a], algorithms: []}
    - {issuer: "https://k.example?a", audiences: [a], algorithms: [none, HS256, hs512, rs256, PS384, RS256, RS256], keys_url: "https://k.example/keys?appid=1"}
    - {issuer: "https://l.example", audiences: [a], caller_claim: "", rights_claim: "a b", rights: {}, require: {tid: ""}}
    - {issuer: "https://m.example", audiences: [a], rights: {Check: [check, chekc], None: [], Twice: [check, check]}}
    - {issuer: "https://M.example/#", audiences: [a]}
`,
			command: config.Doctor,
			want: []string{
				`config.yaml:4: auth.jwt[0].issuer: is missing: the claim iss of the tokens, to the letter`,
				`config.yaml:5: auth.jwt[1].audiences: needs at least one: without it, tokens for any other service would be accepted`,
				`config.yaml:6: auth.jwt[2].issuer: is the same as that of auth.jwt[1]`,
				`config.yaml:6: auth.jwt[2].audiences: needs at least one: without it, tokens for any other service would be accepted`,
				`config.yaml:7: auth.jwt[3].issuer: must begin with https://; http is accepted for loopback hosts only (127.0.0.0/8, ::1, localhost)`,
				`config.yaml:7: auth.jwt[3].keys_url: must begin with https://; http is accepted for loopback hosts only (127.0.0.0/8, ::1, localhost)`,
				`config.yaml:7: auth.jwt[3].audiences: item 1 must be visible ASCII characters; item 3 is there already; item 4 must be visible ASCII characters`,
				`config.yaml:8: auth.jwt[4].issuer: must be an absolute URL, such as https://host.example`,
				`config.yaml:8: auth.jwt[4].keys_url: must not hold a user name or password`,
				`config.yaml:9: auth.jwt[5].issuer: must not hold blanks or other than ASCII characters`,
				`config.yaml:9: auth.jwt[5].algorithms: needs at least one; leave it out for RS256`,
				`config.yaml:10: auth.jwt[6].issuer: must not have a query or a fragment`,
				`config.yaml:10: auth.jwt[6].algorithms: ` +
					`item 1 is none, which means that tokens are not signed, so that anybody can make them; it is never accepted; ` +
					`item 2 has one secret that signs and verifies, so that whoever can verify a token can make one; it is never accepted; ` +
					`item 3 has one secret that signs and verifies, so that whoever can verify a token can make one; it is never accepted; ` +
					`item 4 is not one of RS256, RS384, RS512, PS256, ES256, ES384, EdDSA; ` +
					`item 5 is not one of RS256, RS384, RS512, PS256, ES256, ES384, EdDSA; ` +
					`item 7 is there already`,
				`config.yaml:11: auth.jwt[7].caller_claim: is not the name of a claim`,
				`config.yaml:11: auth.jwt[7].rights_claim: is not the name of a claim`,
				`config.yaml:11: auth.jwt[7].rights: names no value; leave it out if the values are names of rights`,
				`config.yaml:11: auth.jwt[7].require.tid: must have a value`,
				`config.yaml:12: auth.jwt[8].rights.Check: item 2 is not one of ` + rights,
				`config.yaml:12: auth.jwt[8].rights.None: names no right; a caller without rights has no access, so leave it out`,
				`config.yaml:12: auth.jwt[8].rights.Twice: item 2 is there already`,
				`config.yaml:13: auth.jwt[9].issuer: must not have a query or a fragment`,
			},
		},
		"too many issuers": {
			text:    "auth: {jwt: [" + issuers(17) + "]}\n",
			command: config.Doctor,
			want:    []string{`config.yaml:1: auth.jwt: has 17 issuers, and at most 16 are supported`},
		},
		"callers": {
			text: `
auth:
  tokens_file: /t
  callers:
    a: {rights: [check, write, check], partners: [eu, us, eu]}
    b: {rights: [], partners: []}
    anonymous: {rights: [check]}
partners: {eu: {}}
`,
			command: config.Doctor,
			want: []string{
				`config.yaml:5: auth.callers.a.rights: item 2 is not one of ` + rights + `; item 3 is there already`,
				`config.yaml:5: auth.callers.a.partners: item 2 is none of the partners; item 3 is there already`,
				`config.yaml:7: auth.callers.anonymous: is nobody: with a method of auth, every caller is authenticated`,
				`config.yaml:6: auth.callers.b.rights: names no right; a caller without rights has no access, so leave it out`,
				`config.yaml:6: auth.callers.b.partners: names no partner; leave it out for all`,
			},
		},
		"partners of the short form": {
			text:    "auth: {tokens_file: /t, callers: {a: {partners: [default, eu]}}}\n",
			command: config.Doctor,
			want:    []string{`config.yaml:1: auth.callers.a.partners: item 2 is none of the partners`},
		},
		"callers without a method": {
			text:    "auth: {callers: {a: {rights: [chekc]}}}\n",
			command: config.Doctor,
			want: []string{
				`config.yaml:1: auth.callers.a.rights: item 1 is not one of ` + rights,
				`config.yaml:1: auth.callers: has no effect without a method that identifies callers: auth.certificates, auth.tokens_file or auth.jwt`,
			},
		},
		"a method that is wrong is still one": {
			text:    "server: {grpc: {address: ':1'}, tls: {certificate_file: [x]}}\nauth: {jwt: x, callers: {a: {}}}\n",
			command: config.Doctor,
			want: []string{
				`config.yaml:1: server.tls.certificate_file: must be text, not several values; put text that holds any of []{} in quotes`,
				`config.yaml:2: auth.jwt: must be a list, each item of which begins with a hyphen`,
			},
		},
		"probe": {
			text:    "server: {probe: {address: '9092'}}\n",
			command: config.Doctor,
			want:    []string{`config.yaml:1: server.probe.address: "9092" is not host:port; write e.g. 127.0.0.1:9090`},
		},
		"probe on another listener": {
			text:    "server: {probe: {address: '127.0.0.1:9091'}}\n",
			command: config.Doctor,
			want:    []string{`config.yaml:1: server.probe.address: is the same address as server.admin.address`},
		},
		"admin beyond loopback, insecure": {
			text:    "server: {insecure: true, admin: {address: '0.0.0.0:9091'}}\n",
			command: config.Doctor,
			want:    []string{`config.yaml:1: server.admin.address: "0.0.0.0:9091" can be reached from other machines: the admin listener must be on loopback, whatever else is set, because it has pprof; server.probe serves health and metrics to other machines`},
		},
		"dev with everything that serve needs": {
			text: `
server:
  insecure: true
  grpc: {address: ":1"}
  http: {address: "0.0.0.0:2"}
  admin: {address: "[::]:3"}
  probe: {address: "gate.example:4"}
  tls: {certificate_file: /c, key_file: /k}
auth: {tokens_file: /t}
`,
			command: config.Dev,
			want: []string{
				`config.yaml:4: server.grpc.address: ":1" can be reached from other machines: dev listens on loopback only, such as 127.0.0.1`,
				`config.yaml:5: server.http.address: "0.0.0.0:2" can be reached from other machines: dev listens on loopback only, such as 127.0.0.1`,
				`config.yaml:6: server.admin.address: "[::]:3" can be reached from other machines: the admin listener must be on loopback, whatever else is set, because it has pprof; server.probe serves health and metrics to other machines`,
				`config.yaml:7: server.probe.address: "gate.example:4" can be reached from other machines: dev listens on loopback only, such as 127.0.0.1`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, faults(t, c.text, nil, c.command)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

const notAnOrigin = "is not an origin: https://host or https://host:port, without a path"

func issuers(n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("{issuer: 'https://%d.example', audiences: [a]}", i)
	}
	return strings.Join(all, ", ")
}

// TestAccessWithoutFaults loads what is unusual and valid.
func TestAccessWithoutFaults(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"an issuer on loopback, to the letter": "auth: {jwt: [{issuer: 'http://127.0.0.1:8080/', audiences: [a], keys_url: 'http://localhost:1/keys?p=b2c', algorithms: [RS384, RS512, PS256, ES256, ES384, EdDSA]}]}",
		"sixteen issuers":                      "auth: {jwt: [" + issuers(16) + "]}",
		"a caller of a token":                  "auth: {tokens_file: /t, callers: {a: {partners: [default]}, b: {}}}",
		"several certificates of a caller":     "server: {tls: {certificate_file: /c, key_file: /k, client_ca_file: /a}}\nauth: {certificates: [{caller: a, dns: a.example}, {caller: a, uri: 'urn:x:y'}], callers: {a: {rights: [check]}}}",
		"certificates beside tokens":           "server: {tls: {certificate_file: /c, key_file: /k, client_ca_file: /a, client_certificates: required}}\nauth: {tokens_file: /t}",
		"limits of nobody in particular":       "limits: {callers: {anonymous: {burst: 1}, 2f1e3c52-9d1c-4c1c-8a52-1b2f3c4d5e6f: {burst: 1}}}",
		"origins":                              "server: {http: {cors: {origins: ['https://a.example', 'http://localhost:3000', 'https://[::1]:8443', 'https://a.example:444']}}}",
		"tokens in the clear on loopback":      "auth: {tokens_file: /t}",
	} {
		if _, err := config.Load(write(t, "config.yaml", text), nil, config.Doctor); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPartnersOfDevHaveOtherNames accepts names that no configuration of dev holds.
func TestPartnersOfDevHaveOtherNames(t *testing.T) {
	t.Parallel()
	if _, err := config.Load("", []string{tokens, "ELIGIBILITY_AUTH__CALLERS={a: {partners: [contoso-eu]}}"}, config.Dev); err != nil {
		t.Error(err)
	}
}

// TestCombinationsOfListenersTLSAndAuth tries all of them.
func TestCombinationsOfListenersTLSAndAuth(t *testing.T) {
	t.Parallel()
	transports := map[string]string{
		"plain": "",
		"tls":   "tls: {certificate_file: /c, key_file: /k}",
		"mtls":  "tls: {certificate_file: /c, key_file: /k, client_ca_file: /a, client_certificates: required}",
	}
	methods := map[string]string{
		"none":         "auth: {}",
		"certificates": "auth: {certificates: [{caller: a, dns: a.example}], callers: {a: {rights: [check]}}}",
		"tokens":       "auth: {tokens_file: /t}",
		"jwt":          "auth: {jwt: [{issuer: 'https://i.example', audiences: [a]}]}",
	}
	hosts := map[string]bool{ // whether others reach it
		"127.0.0.1": false, "localhost": false, "[::1]": false, "127.9.9.9": false,
		"": true, "0.0.0.0": true, "[::]": true, "10.0.0.1": true, "gate.example": true, "128.0.0.1": true, "localhost.example": true,
	}
	path := write(t, "config.yaml", "")
	tried := 0
	for _, command := range []config.Command{config.Doctor, config.Dev} {
		for listener, port := range map[string]string{"grpc": "1", "http": "2", "admin": "3", "probe": "4"} {
			for host, open := range hosts {
				for transport, tls := range transports {
					for method, auth := range methods {
						for _, insecure := range []bool{false, true} {
							tried++
							parts := []string{fmt.Sprintf("%s: {address: '%s:%s'}", listener, host, port), fmt.Sprintf("insecure: %v", insecure)}
							if tls != "" {
								parts = append(parts, tls)
							}
							text := "server: {" + strings.Join(parts, ", ") + "}\n" + auth + "\n"
							var want []string
							if method == "certificates" && transport != "mtls" {
								want = append(want, "auth.certificates")
							}
							refused := map[string]bool{
								"grpc":  !insecure && (transport == "plain" || method == "none"),
								"http":  !insecure && (transport == "plain" || method == "none"),
								"admin": true,
								"probe": false,
							}[listener]
							if open && (refused || command == config.Dev) {
								want = append(want, "server."+listener+".address")
							}
							slices.Sort(want)
							if got := faultyKeys(t, path, text, command); !slices.Equal(got, want) {
								t.Errorf("command %v, %s: faults of %v, want %v", command, text, got, want)
							}
						}
					}
				}
			}
		}
	}
	if tried != 2*4*11*3*4*2 {
		t.Errorf("tried %d combinations", tried)
	}
}

// faultyKeys returns the keys of which Load reports faults, sorted.
func faultyKeys(t *testing.T, path, text string, command config.Command) []string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := config.Load(path, nil, command)
	if err == nil {
		return nil
	}
	var keys []string
	for _, each := range err.(interface{ Unwrap() []error }).Unwrap() {
		keys = append(keys, each.(config.Fault).Key) //nolint:errorlint // Load joins faults
	}
	slices.Sort(keys)
	return keys
}
