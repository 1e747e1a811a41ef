package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

// tokens makes auth.callers take effect.
const tokens = "ELIGIBILITY_AUTH__TOKENS_FILE=/etc/eligibilityd/tokens.yaml"

func TestFaultsOfNestedKeys(t *testing.T) {
	t.Parallel()
	const notAName = "holds something that is not the name of a key; is a blank missing after a colon, or is a value not in quotes?"
	for name, c := range map[string]struct {
		text    string
		environ []string
		want    []string
	}{
		"all at once": {
			text: `
auth:
  jwt:
    - isuer: https://login.example
      issuer: https://login.example
      audiences: api://eligibilityd
    - issuer: [a]
      audiences: [a]
      issuer: https://other.example
  certificates:
    - caller: {name: x}
      uri:
limits:
  callers:
    pipeline: {burst: many, brust: 1}
`,
			want: []string{
				`config.yaml:4: auth.jwt[0].isuer: unknown key; did you mean auth.jwt[0].issuer?`,
				`config.yaml:6: auth.jwt[0].audiences: must be a list, such as [a, b]`,
				`config.yaml:7: auth.jwt[1].issuer: must be text, not several values; put text that holds any of []{} in quotes`,
				`config.yaml:9: auth.jwt[1].issuer: is given twice; line 7 has it already`,
				`config.yaml:11: auth.certificates[0].caller: must be text, not several values; put text that holds any of []{} in quotes`,
				`config.yaml:12: auth.certificates[0].uri: has no value; leave the key out for the default`,
				`config.yaml:15: limits.callers.pipeline.burst: "many" is not a whole number; write e.g. 1000`,
				`config.yaml:15: limits.callers.pipeline.brust: unknown key; did you mean limits.callers.pipeline.burst?`,
				`config.yaml:11: auth.certificates[0]: needs uri or dns: what the certificate of the caller holds`,
				`config.yaml:10: auth.certificates: needs server.tls.client_ca_file, which client certificates are verified against`,
			},
		},
		"wrong kinds": {
			text: "auth: {jwt: {issuer: x}, certificates: x, callers: [x]}\nlimits: {callers: 7}\n",
			want: []string{
				`config.yaml:1: auth.jwt: must be a list, each item of which begins with a hyphen`,
				`config.yaml:1: auth.certificates: must be a list, each item of which begins with a hyphen`,
				`config.yaml:1: auth.callers: must hold keys, one to a line`,
				`config.yaml:2: limits.callers: must hold keys, one to a line`,
			},
		},
		"wrong kinds of items": {
			text: "auth: {jwt: [x], certificates: [[x]], tokens_file: /t, callers: {a: [check], b: check}}\nlimits: {callers: {a: 7}}\n",
			want: []string{
				`config.yaml:1: auth.jwt[0]: must hold keys, one to a line`,
				`config.yaml:1: auth.certificates[0]: must hold keys, one to a line`,
				`config.yaml:1: auth.callers.a: must hold keys, one to a line`,
				`config.yaml:1: auth.callers.b: must hold keys, one to a line`,
				`config.yaml:2: limits.callers.a: must hold keys, one to a line`,
				`config.yaml:1: auth.certificates: needs server.tls.client_ca_file, which client certificates are verified against`,
			},
		},
		"no value": {
			text: "auth:\n  jwt:\n  certificates: [~]\n  callers: {a: }\nlimits:\n  callers: ~\n",
			environ: []string{
				tokens,
			},
			want: []string{
				`config.yaml:2: auth.jwt: has no value; leave the key out for the default`,
				`config.yaml:3: auth.certificates[0]: has no value; leave the key out for the default`,
				`config.yaml:4: auth.callers.a: has no value; leave the key out for the default`,
				`config.yaml:6: limits.callers: has no value; leave the key out for the default`,
				`config.yaml:3: auth.certificates: needs server.tls.client_ca_file, which client certificates are verified against`,
			},
		},
		"aliases, anchors and tags": {
			text: "auth:\n  jwt: &jwt\n    - issuer: x\n  certificates: *jwt\n  callers: !!map {a: {}}\nlimits:\n  callers: {a: &a {burst: 1}, b: *a, c: {burst: !!int 1}, &d d: {}}\n",
			want: []string{
				`config.yaml:2: auth.jwt: has an anchor, and anchors are not supported; put a value that begins with & in quotes`,
				`config.yaml:4: auth.certificates: is an alias, and aliases are not supported; write the value out, in quotes if it begins with *`,
				`config.yaml:5: auth.callers: has a tag, and tags are not supported; put a value that begins with ! in quotes`,
				`config.yaml:7: limits.callers.a: has an anchor, and anchors are not supported; put a value that begins with & in quotes`,
				`config.yaml:7: limits.callers.b: is an alias, and aliases are not supported; write the value out, in quotes if it begins with *`,
				`config.yaml:7: limits.callers.c.burst: has a tag, and tags are not supported; put a value that begins with ! in quotes`,
				`config.yaml:7: limits.callers: holds something that is not the name of a caller: 1 to 64 visible ASCII characters except quotes, commas and backslashes`,
			},
		},
		"names": {
			text: `
auth:
  tokens_file: /t
  callers:
    a b: {}
    "a,b": {}
    ~: {}
    <<: {}
    [x]: {}
    "": {}
    a.b: {rights: [chekc]}
    a.b: {}
  jwt:
    - {issuer: 'https://i.example', audiences: [a], "keys url": x, rights: {'a b': [check], "x'y": [check], 'https://i.example/r': [chekc]}}
limits: {callers: {` + strings.Repeat("x", 65) + `: {}, ` + strings.Repeat("y", 64) + `: {burst: 0}}}
`,
			want: []string{
				`config.yaml:5: auth.callers: holds something that is not the name of a caller: 1 to 64 visible ASCII characters except quotes, commas and backslashes`,
				`config.yaml:6: auth.callers: holds something that is not the name of a caller: 1 to 64 visible ASCII characters except quotes, commas and backslashes`,
				`config.yaml:7: auth.callers: holds something that is not the name of a caller: 1 to 64 visible ASCII characters except quotes, commas and backslashes`,
				`config.yaml:8: auth.callers: holds something that is not the name of a caller: 1 to 64 visible ASCII characters except quotes, commas and backslashes`,
				`config.yaml:9: auth.callers: holds something that is not the name of a caller: 1 to 64 visible ASCII characters except quotes, commas and backslashes`,
				`config.yaml:10: auth.callers: holds something that is not the name of a caller: 1 to 64 visible ASCII characters except quotes, commas and backslashes`,
				`config.yaml:12: auth.callers["a.b"]: is given twice; line 11 has it already`,
				`config.yaml:14: auth.jwt[0]: ` + notAName,
				`config.yaml:14: auth.jwt[0].rights: holds something that is not a name of 1 to 256 visible ASCII characters except quotes, commas and backslashes`,
				`config.yaml:14: auth.jwt[0].rights: holds something that is not a name of 1 to 256 visible ASCII characters except quotes, commas and backslashes`,
				`config.yaml:15: limits.callers: holds something that is not the name of a caller: 1 to 64 visible ASCII characters except quotes, commas and backslashes`,
				`config.yaml:14: auth.jwt[0].rights["https://i.example/r"]: item 1 is not one of check, batch, fresh, prefetch, watch, watch_all, support`,
				`config.yaml:11: auth.callers["a.b"].rights: item 1 is not one of check, batch, fresh, prefetch, watch, watch_all, support`,
				`config.yaml:15: limits.callers.` + strings.Repeat("y", 64) + `.burst: 0 must be at least 1`,
			},
		},
		"too many": {
			text: "auth: {tokens_file: /t, certificates: [" + strings.Repeat("x,", 1001) + "], callers: {a: {partners: [" + strings.Repeat("x,", 1001) + "]}}}\nlimits: {callers: {" + many(1001) + "}}\n",
			want: []string{
				`config.yaml:1: auth.certificates: holds more than 1000 entries`,
				`config.yaml:1: auth.callers.a.partners: holds more than 1000 items`,
				`config.yaml:2: limits.callers: holds more than 1000 entries`,
			},
		},
		"variables": {
			environ: []string{
				"ELIGIBILITY_AUTH__JWT=[{issuer: 'https://login.example', audience: [a]}]",
				"ELIGIBILITY_AUTH__CERTIFICATES=- caller: a\n  uri: x:y\n  dnss: b\n",
				"ELIGIBILITY_AUTH__CALLERS={a",
				"ELIGIBILITY_LIMITS__CALLERS=a:\n  burst: 1\n b",
				"ELIGIBILITY_AUTH__JWT__ISSUER=x",
				"ELIGIBILITY_LIMITS__CALLERS__PIPELINE__BURST=x",
			},
			want: []string{
				`ELIGIBILITY_AUTH__CALLERS: auth.callers: is not valid YAML near this line: did not find expected ',' or '}'`,
				`ELIGIBILITY_AUTH__CERTIFICATES:3: auth.certificates[0].dnss: unknown key; did you mean auth.certificates[0].dns?`,
				`ELIGIBILITY_AUTH__JWT: auth.jwt[0].audience: unknown key; did you mean auth.jwt[0].audiences?`,
				`ELIGIBILITY_AUTH__JWT__ISSUER: unknown variable; ELIGIBILITY_AUTH__JWT holds the whole value, in YAML`,
				`ELIGIBILITY_LIMITS__CALLERS:2: limits.callers: is not valid YAML near this line: did not find expected key`,
				`ELIGIBILITY_LIMITS__CALLERS__PIPELINE__BURST: unknown variable; ELIGIBILITY_LIMITS__CALLERS holds the whole value, in YAML`,
				`ELIGIBILITY_AUTH__CERTIFICATES: auth.certificates: needs server.tls.client_ca_file, which client certificates are verified against`,
				`ELIGIBILITY_AUTH__JWT: auth.jwt[0].audiences: needs at least one: without it, tokens for any other service would be accepted`,
			},
		},
		"hostile variables": {
			environ: []string{
				"ELIGIBILITY_AUTH__JWT=*hunter2",
				"ELIGIBILITY_AUTH__CALLERS={}\n---\n{}",
				"ELIGIBILITY_AUTH__CERTIFICATES=[" + strings.Repeat(" ", 1<<20) + "]",
				"ELIGIBILITY_LIMITS__CALLERS=\xff",
			},
			want: []string{
				`ELIGIBILITY_AUTH__CALLERS:2: auth.callers: holds a second document`,
				`ELIGIBILITY_AUTH__CERTIFICATES: auth.certificates: is longer than 1048576 bytes`,
				`ELIGIBILITY_AUTH__JWT: auth.jwt: is not valid YAML: a value begins with *; put it in quotes`,
				`ELIGIBILITY_LIMITS__CALLERS: limits.callers: is not valid YAML: invalid leading UTF-8 octet`,
			},
		},
		"a variable replaces the whole value of the file": {
			text:    "auth: {jwt: [{issuer: 'https://i.example', audiences: [a], algorithms: [], keys_url: x}]}\n",
			environ: []string{"ELIGIBILITY_AUTH__JWT=[{issuer: 'https://i.example'}]"},
			want: []string{
				`ELIGIBILITY_AUTH__JWT: auth.jwt[0].audiences: needs at least one: without it, tokens for any other service would be accepted`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, faults(t, c.text, c.environ, config.Doctor)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// many returns that many limits of callers.
func many(n int) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "c%d: {}, ", i)
	}
	return text.String()
}

// TestTheMostEntriesLoad bounds the time that a configuration of the greatest size
// may take.
func TestTheMostEntriesLoad(t *testing.T) {
	t.Parallel()
	cfg, err := config.Load(write(t, "config.yaml", "limits: {callers: {"+many(1000)+"}}\n"), nil, config.Doctor)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(cfg.Limits.Callers); n != 1000 {
		t.Errorf("%d callers", n)
	}
}

func TestAVariableEmptiesANestedKey(t *testing.T) {
	t.Parallel()
	path := write(t, "config.yaml", `
auth: {jwt: [{issuer: 'https://i.example', audiences: [a]}], callers: {a: {rights: [check]}}}
limits: {callers: {a: {burst: 1}}}
`)
	for _, empty := range []string{"", " ", "# nothing", "\n"} {
		cfg, err := config.Load(path, []string{"ELIGIBILITY_AUTH__JWT=" + empty, "ELIGIBILITY_AUTH__CALLERS=" + empty, "ELIGIBILITY_LIMITS__CALLERS=" + empty}, config.Doctor)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(config.Default(), cfg); diff != "" {
			t.Errorf("%q: (-want +got):\n%s", empty, diff)
		}
	}
}

// TestJSONIsAValueOfANestedKey reads what programs write.
func TestJSONIsAValueOfANestedKey(t *testing.T) {
	t.Parallel()
	cfg, err := config.Load("", []string{`ELIGIBILITY_AUTH__JWT=[{"issuer": "https://i.example/", "audiences": ["a"], "require": {"ver": "2.0"}}]`}, config.Doctor)
	if err != nil {
		t.Fatal(err)
	}
	want := config.DefaultJWT()
	want.Issuer, want.Audiences, want.Require = "https://i.example/", []string{"a"}, map[string]string{"ver": "2.0"}
	if diff := cmp.Diff([]config.JWT{want}, cfg.Auth.JWT); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCallersInheritTheDefaultLimits(t *testing.T) {
	t.Parallel()
	path := write(t, "config.yaml", `
limits:
  callers:
    none: {}
    pipeline: {requests_per_second: 2000}
    guesser: {new_customers_per_minute: 60}
    nobody: {new_customers_per_minute: 0}
  default: {burst: 7}
`)
	cfg, err := config.Load(path, []string{"ELIGIBILITY_LIMITS__DEFAULT__CONCURRENT=8"}, config.Doctor)
	if err != nil {
		t.Fatal(err)
	}
	def := config.Limit{RequestsPerSecond: 500, Burst: 7, Concurrent: 8, NewCustomersPerMinute: 60}
	pipeline, guesser, nobody := def, def, def
	pipeline.RequestsPerSecond = 2000
	guesser.NewCustomersGiven = true
	nobody.NewCustomersPerMinute, nobody.NewCustomersGiven = 0, true
	want := config.Limits{Default: def, Callers: map[string]config.Limit{"none": def, "pipeline": pipeline, "guesser": guesser, "nobody": nobody}}
	if diff := cmp.Diff(want, cfg.Limits); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestAnInheritedLimitIsOneFault reports a wrong default once, not for each caller.
func TestAnInheritedLimitIsOneFault(t *testing.T) {
	t.Parallel()
	got := faults(t, "limits: {default: {burst: 0}, callers: {a: {}, b: {concurrent: 0}}}\n", nil, config.Doctor)
	want := []string{
		`config.yaml:1: limits.default.burst: 0 must be at least 1`,
		`config.yaml:1: limits.callers.b.concurrent: 0 must be at least 1`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
