//go:build acceptance

package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

// attackStart starts the program with each combination of listener, TLS, method of
// auth and insecure.
func attackStart(t *testing.T, table *attacks) { //nolint:thelper // a test of its own
	dir, ca := t.TempDir(), accesstest.NewAuthority(t)
	installServer(t, ca, dir)
	if err := os.WriteFile(filepath.Join(dir, "tokens.yaml"), []byte("[]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	keys := startIssuer(t)
	token := pcsimtest.TokenFile(t)
	_, far := pcsimtest.Start(t)
	configure := func(grpc, http, tls, auth, insecure string) string {
		path := filepath.Join(t.TempDir(), "config.yaml")
		text := fmt.Sprintf(`
server: {grpc: {address: '%s'}, http: {address: '%s'}, admin: {address: '127.0.0.1:0'}, tls: {%s}, insecure: %s, drain: 0s}
auth: {%s}
partner_center: {base_url: '%s', authority: '%[6]s', tenant_id: %[7]s, client_id: %[8]s, client_secret: %[10]s, refresh_token_file: '%[9]s'}
log: {format: json}
`, grpc, http, tls, insecure, auth, far.URL, pcsim.DefaultTenantID, pcsim.DefaultClientID, token, pcsim.DefaultClientSecret)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	type choice struct{ name, text string }
	certificate, key, clients := "certificate_file: '"+dir+"/tls.crt'", "key_file: '"+dir+"/tls.key'", "client_ca_file: '"+ca.File+"'"
	listeners := []choice{{"loopback", "127.0.0.1:0"}, {"beyond", "0.0.0.0:0"}, {"beyond", ":0"}, {"loopback", "[::1]:0"}, {"beyond", "[::]:0"}}
	tlses := []choice{{"none", ""}, {"pair", certificate + ", " + key}, {"pair", certificate + ", " + key + ", " + clients}, {"half", certificate}, {"half", key}, {"half", clients}}
	auths := []choice{
		{"none", ""},
		{"certificates", "certificates: [{caller: till, uri: 'spiffe://x/y'}], callers: {till: {rights: [check]}}"},
		{"tokens", "tokens_file: '" + dir + "/tokens.yaml'"},
		{"jwt", "jwt: [{issuer: '" + keys.URL + "', audiences: [a]}]"},
	}
	outcomes, combinations := map[string][2][]string{}, 0
	for _, listener := range listeners {
		for _, tls := range tlses {
			for _, auth := range auths {
				for _, insecure := range []string{"false", "true"} {
					for transport, setting := range []string{"server.grpc.address", "server.http.address"} {
						combinations++
						grpc, http := listener.text, "127.0.0.1:0"
						if transport == 1 {
							grpc, http = http, grpc
						}
						var out bytes.Buffer
						err := serve(t.Context(), os.Environ(), configure(grpc, http, tls.text, auth.text, insecure), true, &out, new(output))
						withoutClients := auth.name == "certificates" && !strings.Contains(tls.text, "client_ca")
						var group, want string // want is what the message must contain
						switch {
						case tls.name == "half":
							group, want = "half a pair, whatever else is set", "server.tls."
						case withoutClients:
							group, want = "client certificates without `client_ca_file`, whatever else is set", "server.tls.client_ca_file"
						case listener.name == "loopback":
							group = "loopback, whatever else is set"
						case tls.name == "pair" && auth.name != "none":
							group = "beyond loopback, with TLS and a method of `auth`"
						case insecure == "true":
							group = "beyond loopback, something missing, `insecure`"
						case tls.name == "pair":
							group, want = "beyond loopback, with TLS, without `auth`", setting
						case auth.name != "none":
							group, want = "beyond loopback, without TLS, with `auth`", setting
						default:
							group, want = "beyond loopback, without both", setting
						}
						outcome := "starts"
						if err != nil {
							outcome = "refuses, naming the key"
							if want == "" || !strings.Contains(err.Error(), want) {
								t.Errorf("%s=%s, tls %q, auth %s, insecure %s: %v; it must contain %q", setting, listener.text, tls.text, auth.name, insecure, err, want)
							}
						} else if want != "" {
							t.Errorf("%s=%s, tls %q, auth %s, insecure %s: starts", setting, listener.text, tls.text, auth.name, insecure)
						}
						both := outcomes[group]
						if !slices.Contains(both[transport], outcome) {
							both[transport] = append(both[transport], outcome)
						}
						outcomes[group] = both
					}
				}
			}
		}
	}
	table.begin("Start: listener, TLS, `auth` and `insecure`")
	groups := make([]string, 0, len(outcomes))
	for group := range outcomes {
		groups = append(groups, group)
	}
	slices.Sort(groups)
	for _, group := range groups {
		both := outcomes[group]
		table.add(t, group, strings.Join(both[0], ", "), strings.Join(both[1], ", "))
	}
	t.Logf("%d combinations", combinations)

	whole, good := certificate+", "+key, auths[2].text
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "10.0.0.1:0"} {
		path := configure("127.0.0.1:0", "127.0.0.1:0", whole, good, "true")
		err := serve(t.Context(), append(os.Environ(), "ELIGIBILITY_SERVER__ADMIN__ADDRESS="+address), path, true, new(output), new(output))
		if err == nil || !strings.Contains(err.Error(), "server.admin.address") {
			t.Errorf("admin at %s, with everything and insecure: %v", address, err)
		}
		for _, name := range []string{"GRPC", "HTTP", "ADMIN", "PROBE"} {
			err := boundedDev(t, "ELIGIBILITY_SERVER__"+name+"__ADDRESS="+address, "ELIGIBILITY_SERVER__INSECURE=true")
			if err == nil || !strings.Contains(err.Error(), "server."+strings.ToLower(name)+".address") {
				t.Errorf("dev with %s at %s: %v", name, address, err)
			}
		}
	}
	table.add(t, "the admin listener beyond loopback, with TLS, `auth` and `insecure`", "refuses, naming the key", "–")
	table.add(t, "`dev` beyond loopback, with `insecure`", "refuses, naming the key", "refuses, naming the key")

	for name, broken := range map[string]string{"tls.crt": "not PEM", "tls.key": "not PEM"} {
		at := t.TempDir()
		installServer(t, ca, at)
		if err := os.WriteFile(filepath.Join(at, name), []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		err := boundedServe(t, configure("127.0.0.1:0", "127.0.0.1:0", strings.ReplaceAll(whole, dir, at), good, "false"))
		if err == nil || !strings.Contains(err.Error(), "server.tls") {
			t.Errorf("a broken %s: %v", name, err)
		}
	}
	at := t.TempDir()
	installServer(t, ca, at)
	ca.Server(t).CopyTo(t, filepath.Join(at, "unused"), filepath.Join(at, "tls.key"))
	if err := boundedServe(t, configure("127.0.0.1:0", "127.0.0.1:0", strings.ReplaceAll(whole, dir, at), good, "false")); err == nil || !strings.Contains(err.Error(), "server.tls") {
		t.Errorf("the key of another certificate: %v", err)
	}
	table.add(t, "a pair that does not load", "refuses, naming the key", "refuses, naming the key")

	p, _ := startUnder(t, nil, nil, "serve", "--config", configure("127.0.0.1:0", "0.0.0.0:0", "", "", "true"))
	if !strings.Contains(p.log.String(), "server.insecure") || !strings.Contains(p.log.String(), `"level":"warn"`) {
		t.Errorf("no warning about server.insecure: %s", p.log.String())
	}
	for _, port := range []string{p.HTTP} {
		_, number, _ := strings.Cut(strings.TrimPrefix(port, "[::]"), ":")
		if status, _, _ := get(t, "http://127.0.0.1:"+number+checkPath); status != http.StatusOK {
			t.Errorf("insecure: %d", status)
		}
	}
}

// boundedServe runs serve until it fails, or for a second.
func boundedServe(t *testing.T, path string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	return serve(ctx, os.Environ(), path, false, new(output), new(output))
}

func boundedDev(t *testing.T, environ ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var own []string
	for _, entry := range anyPort() {
		name, _, _ := strings.Cut(entry, "=")
		if !slices.ContainsFunc(environ, func(set string) bool { return strings.HasPrefix(set, name+"=") }) {
			own = append(own, entry)
		}
	}
	return dev(ctx, append(own, environ...), "127.0.0.1:0", nil, new(output), new(output))
}
