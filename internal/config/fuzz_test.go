package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

// FuzzLoad loads any text as a file and any lines as an environment. Load must
// return a configuration or an error that consists of faults.
func FuzzLoad(f *testing.F) {
	for _, seed := range []string{
		"", "{}", "---\n---\n", "- a", "a: &a [*a]", "<<: {log: {level: info}}", "? [a]\n: b", "!!binary x: y", "\xff\xfe\x00",
		"log: {level: info, level: debug}", "server: {grpc: {address: ':0'}, insecure: true}",
		"cache: {redis: {addresses: ['unix:///s', 'h:1'], db: 1}, ages: {allowed: {fresh: 9223372036s, usable: -1ns}}}",
		"partner_center: {base_url: 'http://[::1%25lo]:1/v1', audience: 'api://a/.default', tenant_id: a.b}",
		"partners: {eu: {cloud: china}, us: , 1-a: {refresh_token_file: /t}, B: {}}\ndefault_partner: us\npartner_defaults: {refresh_token_file: /t}",
		"partners: {eu: {}}\npartner_center: {flow: app_only}",
		"auth: {jwt: [{issuer: 'https://i/', audiences: [a], rights: {A.b: [check]}, require: {tid: 1}}], callers: {a.b: {rights: [], partners: [eu]}}}",
		"auth: {certificates: [{caller: a, uri: 'x:y'}, {caller: b, dns: b}, ~], jwt: {}, tokens_file: }\nlimits: {default: {burst: 0}, callers: {a: {burst: 1}, [x]: {}}}",
		"server: {tls: {key_file: k}, http: {cors: {origins: ['*', 'https://a:443']}}, probe: {address: ':1'}, limits: {idle: 0, concurrent: -1}}",
		"a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nlog: *c",
	} {
		f.Add(seed, "LOG__LEVEL=info\nCACHE__REDIS__ADDRESSES=a:1,b:2\nPARTNERS__MY_REGION__CLIENT_ID=x\nDEFAULT_PARTNER=eu\n"+
			"AUTH__JWT=[{issuer: x, audiences: [a]}]\nLIMITS__CALLERS={a: {burst: 2}}\nAUTH__CALLERS=*a\nAUTH__CERTIFICATES=- {}")
	}
	example, err := os.ReadFile(filepath.Join("..", "..", "deploy", "config.example.yaml"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(example), "")
	f.Fuzz(func(t *testing.T, text, lines string) {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var environ []string
		for line := range strings.SplitSeq(lines, "\n") {
			environ = append(environ, "ELIGIBILITY_"+line)
		}
		for _, command := range []config.Command{config.Dev, config.Serve} {
			cfg, err := config.Load(path, environ, command)
			if (cfg == nil) == (err == nil) {
				t.Fatalf("configuration %v and error %v", cfg, err)
			}
			if err == nil {
				continue
			}
			for _, each := range err.(interface{ Unwrap() []error }).Unwrap() {
				var fault config.Fault
				if !errors.As(each, &fault) || fault.Problem == "" || strings.ContainsAny(each.Error(), "\n\r") {
					t.Errorf("not a fault of one line: %q", each)
				}
			}
		}
	})
}
