package config_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

// faults returns the lines of the error of a Load that must fail, without the
// directory of the file.
func faults(t *testing.T, text string, environ []string, command config.Command) []string {
	t.Helper()
	path := write(t, "config.yaml", text)
	cfg, err := config.Load(path, environ, command)
	if err == nil {
		t.Fatalf("loaded: %+v", cfg)
	}
	if cfg != nil {
		t.Errorf("a configuration beside the error: %+v", cfg)
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("the error joins nothing: %v", err)
	}
	var lines []string
	for _, each := range joined.Unwrap() {
		if _, ok := errors.AsType[config.Fault](each); !ok {
			t.Errorf("not a Fault: %v", each)
		}
		line := strings.ReplaceAll(each.Error(), filepath.Dir(path)+"/", "")
		if strings.Contains(line, "\n") {
			t.Errorf("more than one line: %q", line)
		}
		lines = append(lines, line)
	}
	return lines
}

func TestFaultsOfTheFile(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"all at once": {
			"server:\n  drain: later\n  insecure: maybe\npartner_center:\n  attempt_timeout: 3 parsecs\n  budget_per_minute: many\nlog:\n  level: loud\n",
			[]string{
				`config.yaml:2: server.drain: "later" is not a duration; write e.g. 5s`,
				`config.yaml:3: server.insecure: "maybe" is neither true nor false`,
				`config.yaml:5: partner_center.attempt_timeout: "3 parsecs" is not a duration; write e.g. 3s`,
				`config.yaml:6: partner_center.budget_per_minute: "many" is not a whole number; write e.g. 400`,
				`config.yaml:8: log.level: "loud" is not one of debug, info, warn, error`,
			},
		},
		"unknown key": {
			"partner_center:\n  tennant_id: x\nredis: {db: 1}\nfail_open: true\npolicy: {notReady: block}\n",
			[]string{
				`config.yaml:2: partner_center.tennant_id: unknown key; did you mean partner_center.tenant_id?`,
				`config.yaml:3: redis: unknown key; did you mean cache.redis?`,
				`config.yaml:4: fail_open: unknown key`,
				`config.yaml:5: policy.notReady: unknown key; did you mean policy.not_ready?`,
			},
		},
		"a key that was renamed": {
			"server: {max_concurrent: 1}\n",
			[]string{`config.yaml:1: server.max_concurrent: unknown key; it is server.limits.concurrent now`},
		},
		"repeated key": {
			"log:\n  level: info\nserver: {drain: 1s}\nlog:\n  level: debug\n",
			[]string{`config.yaml:4: log: is given twice; line 1 has it already`},
		},
		"repeated key in a section": {
			"log:\n  level: info\n  level: debug\n",
			[]string{`config.yaml:3: log.level: is given twice; line 2 has it already`},
		},
		"several documents": {
			"log: {level: info}\n---\nlog: {level: debug}\n",
			[]string{`config.yaml:2: holds a second document; write all keys in one`},
		},
		"an empty second document": {
			"log: {level: info}\n---\n",
			[]string{`config.yaml:2: holds a second document; write all keys in one`},
		},
		"root is a list": {
			"- server\n",
			[]string{`config.yaml:1: is not a configuration; write keys such as server: and partner_center:`},
		},
		"root is text": {
			"hello\n",
			[]string{`config.yaml:1: is not a configuration; write keys such as server: and partner_center:`},
		},
		"root has a tag": {
			"!thing {log: {level: info}}\n",
			[]string{`config.yaml:1: has a tag, and tags are not supported; put a value that begins with ! in quotes`},
		},
		"no YAML": {
			"log:\n  level: info\n oops\n",
			[]string{`config.yaml:2: is not valid YAML near this line: did not find expected key`},
		},
		"no YAML in the second document": {
			"log: {level: info}\n---\n{\n",
			[]string{`config.yaml:3: is not valid YAML near this line: did not find expected node content`},
		},
		"an alias of nothing": { // YAML reads a secret that begins with * as this
			"log: {}\npartner_center: {client_secret: *hunter2}\n",
			[]string{`config.yaml: is not valid YAML: a value begins with *; put it in quotes`},
		},
		"not UTF-8": {
			"log: {level: \xff\xfe}\n",
			[]string{`config.yaml: is not valid YAML: invalid leading UTF-8 octet`},
		},
		"too long": {
			strings.Repeat("# padding\n", 1<<20/10+1),
			[]string{`config.yaml: cannot be read: larger than 1048576 bytes`},
		},
		"section is no mapping": {
			"server: fast\ncache:\n  redis: [a]\n  ages:\n    allowed: 10m\n",
			[]string{
				`config.yaml:1: server: must hold keys, one to a line`,
				`config.yaml:3: cache.redis: must hold keys, one to a line`,
				`config.yaml:5: cache.ages.allowed: must hold keys, one to a line`,
			},
		},
		"value is no single one": {
			"server: {insecure: [true], drain: {s: 5}}\nlog: {level: [info]}\npartner_center:\n  budget_per_minute: []\n",
			[]string{
				`config.yaml:1: server.insecure: must be true or false, not several values; put text that holds any of []{} in quotes`,
				`config.yaml:1: server.drain: must be a duration, not several values; put text that holds any of []{} in quotes`,
				`config.yaml:2: log.level: must be text, not several values; put text that holds any of []{} in quotes`,
				`config.yaml:4: partner_center.budget_per_minute: must be a whole number, not several values; put text that holds any of []{} in quotes`,
			},
		},
		"quoted where no text belongs": {
			"server: {insecure: \"true\"}\npartner_center: {budget_per_minute: '400'}\n",
			[]string{
				`config.yaml:1: server.insecure: must be true or false, without quotes`,
				`config.yaml:2: partner_center.budget_per_minute: must be a whole number, without quotes`,
			},
		},
		"no value": {
			"log:\n  level:\npartner_center: {tenant_id: ~}\ncache: {redis: {addresses: }}\n",
			[]string{
				`config.yaml:2: log.level: has no value; leave the key out for the default`,
				`config.yaml:3: partner_center.tenant_id: has no value; leave the key out for the default`,
				`config.yaml:4: cache.redis.addresses: has no value; leave the key out for the default`,
			},
		},
		"lists": {
			"cache:\n  redis:\n    addresses: 127.0.0.1:6379\n",
			[]string{`config.yaml:3: cache.redis.addresses: must be a list, such as [a, b]`},
		},
		"list items": {
			"cache: {redis: {addresses: [a:1, [b:2]]}}\n",
			[]string{`config.yaml:1: cache.redis.addresses: item 2 is not text`},
		},
		"list item without value": {
			"cache: {redis: {addresses: [~]}}\n",
			[]string{`config.yaml:1: cache.redis.addresses: item 1 is not text`},
		},
		"aliases, anchors and tags": {
			"log: &log\n  level: info\nserver: *log\npolicy: {not_ready: !!str block, when_undecidable: &x error}\n",
			[]string{
				`config.yaml:1: log: has an anchor, and anchors are not supported; put a value that begins with & in quotes`,
				`config.yaml:3: server: is an alias, and aliases are not supported; write the value out, in quotes if it begins with *`,
				`config.yaml:4: policy.not_ready: has a tag, and tags are not supported; put a value that begins with ! in quotes`,
				`config.yaml:4: policy.when_undecidable: has an anchor, and anchors are not supported; put a value that begins with & in quotes`,
			},
		},
		"keys that are no names": {
			"log:\n  ? [a]\n  : b\n  <<: {level: info}\n  level=info:\n",
			[]string{
				`config.yaml:2: log: holds something that is not the name of a key; is a blank missing after a colon, or is a value not in quotes?`,
				`config.yaml:4: log: holds something that is not the name of a key; is a blank missing after a colon, or is a value not in quotes?`,
				`config.yaml:5: log: holds something that is not the name of a key; is a blank missing after a colon, or is a value not in quotes?`,
			},
		},
		"numbers that are not quite": {
			"partner_center: {budget_per_minute: 4e2}\ncache: {local: {max_entries: 1_000}, redis: {db: 010, pool_size: 0x10}}\n",
			[]string{
				`config.yaml:1: partner_center.budget_per_minute: "4e2" is not a whole number; write e.g. 400`,
				`config.yaml:2: cache.local.max_entries: "1_000" is not a whole number; write e.g. 100000`,
				`config.yaml:2: cache.redis.db: "010" is not a whole number; write e.g. 0`,
				`config.yaml:2: cache.redis.pool_size: "0x10" is not a whole number; write e.g. 20`,
			},
		},
		"a long value is cut": {
			"log: {level: " + strings.Repeat("ü", 100) + "}\n",
			[]string{`config.yaml:1: log.level: "` + strings.Repeat("ü", 40) + `…" is not one of debug, info, warn, error`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, faults(t, c.text, nil, config.Dev)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestFaultsOfTheEnvironment(t *testing.T) {
	t.Parallel()
	want := []string{
		`config.yaml:1: log.leevl: unknown key; did you mean log.level?`,
		`ELIGIBILITY_…: unknown variable, and its name is none that a key could have`,
		`ELIGIBILITY_: unknown variable`,
		`ELIGIBILITY_CLIENT_SECRET: unknown variable; did you mean ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET?`,
		`ELIGIBILITY_FAIL_OPEN: unknown variable`,
		`ELIGIBILITY_GRPC_SERVICE_HOST: unknown variable; Kubernetes sets it for a Service of that name: set enableServiceLinks: false in the pod, or call the Service something that does not begin with eligibility-`,
		`ELIGIBILITY_LOG__FORMAT: log.format: is given twice in the environment`,
		`ELIGIBILITY_PARTNER_CENTER_TENANT_ID: unknown variable; did you mean ELIGIBILITY_PARTNER_CENTER__TENANT_ID?`,
		`ELIGIBILITY_PORT_9090_TCP_ADDR: unknown variable; Kubernetes sets it for a Service of that name: set enableServiceLinks: false in the pod, or call the Service something that does not begin with eligibility-`,
		`ELIGIBILITY_SERVER: unknown variable`,
		`ELIGIBILITY_SERVER__DRAIN: server.drain: "soon" is not a duration; write e.g. 1s`,
		`ELIGIBILITY_SERVER__MAX_CONCURRENT: unknown variable; it is ELIGIBILITY_SERVER__LIMITS__CONCURRENT now`,
		`ELIGIBILITY_log__level: unknown variable; did you mean ELIGIBILITY_LOG__LEVEL?`,
	}
	got := faults(t, "log: {leevl: info}\nserver: {drain: 1s}\n", []string{
		"PATH=/bin",
		"ELIGIBILITY_log__level=debug",
		"ELIGIBILITY_=x",
		"ELIGIBILITY_ a b=x",
		"ELIGIBILITY_FAIL_OPEN=true",
		"ELIGIBILITY_CLIENT_SECRET=x",
		"ELIGIBILITY_PARTNER_CENTER_TENANT_ID=x",
		"ELIGIBILITY_SERVER=x",
		"ELIGIBILITY_SERVER__DRAIN=soon",
		"ELIGIBILITY_SERVER__MAX_CONCURRENT=1",
		"ELIGIBILITY_LOG__FORMAT=json",
		"ELIGIBILITY_LOG__FORMAT=console",
		"ELIGIBILITY_PORT_9090_TCP_ADDR=10.0.0.1",
		"ELIGIBILITY_GRPC_SERVICE_HOST=10.0.0.1",
	}, config.Dev)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAFileThatCannotBeReadIsOneFault(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for path, problem := range map[string]string{
		filepath.Join(dir, "none.yaml"): "no such file or directory",
		dir:                             "is a directory",
	} {
		_, err := config.Load(path, nil, config.Serve)
		if want := path + ": cannot be read: " + problem; err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}
