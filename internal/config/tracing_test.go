package config_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

func TestHeadersOfTheCollector(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]map[string]string{
		"":                                 nil,
		" ":                                nil,
		"Authorization=Bearer%20abc":       {"authorization": "Bearer abc"},
		" x-team = gate , x-key = a%3Db ":  {"x-team": "gate", "x-key": "a=b"},
		"authorization=Basic dXNlcjpwdw==": {"authorization": "Basic dXNlcjpwdw=="},
	} {
		cfg, err := config.Load("", []string{"ELIGIBILITY_TRACING__HEADERS=" + text}, config.Dev)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if diff := cmp.Diff(want, cfg.Tracing.HeaderValues()); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
	for _, text := range []string{"a", "=b", "a=", "a=b,", "a=%zz", "a=b%0ac", "ä=b", "a b=c", "trace-bin=x", "grpc-status=0"} {
		if _, err := config.Load("", []string{"ELIGIBILITY_TRACING__HEADERS=" + text}, config.Dev); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestAnEndpointWithoutTLS(t *testing.T) {
	t.Parallel()
	for endpoint, insecure := range map[string]string{
		"http://127.0.0.1:4317":          "false",
		"http://[::1]:4317":              "false",
		"https://collector.example":      "false",
		"http://collector.example:4317/": "true",
	} {
		environ := []string{"ELIGIBILITY_TRACING__ENDPOINT=" + endpoint, "ELIGIBILITY_TRACING__INSECURE=" + insecure}
		if _, err := config.Load("", environ, config.Dev); err != nil {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}
