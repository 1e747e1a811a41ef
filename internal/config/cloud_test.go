package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

// One key selects a cloud's hosts, and each can be overridden.
func TestACloudHasItsHosts(t *testing.T) {
	t.Parallel()
	const (
		global = "https://api.partnercenter.microsoft.com"
		china  = "https://partner.partnercenterapi.microsoftonline.cn"
	)
	for _, c := range []struct {
		text, environ string
		want          []string
	}{
		{"", "", []string{global, "https://login.microsoftonline.com", global}},
		{"cloud: global", "", []string{global, "https://login.microsoftonline.com", global}},
		{"cloud: us_government", "", []string{global, "https://login.microsoftonline.us", global}},
		{"cloud: china", "", []string{china, "https://login.partner.microsoftonline.cn", china}},
		{"cloud: global", "CLOUD=china", []string{china, "https://login.partner.microsoftonline.cn", china}},
		{"cloud: china, base_url: 'http://127.0.0.1:1/'", "", []string{"http://127.0.0.1:1", "https://login.partner.microsoftonline.cn", china}},
		{"cloud: china", "AUTHORITY=https://login.chinacloudapi.cn", []string{china, "https://login.chinacloudapi.cn", china}},
		{"cloud: china, audience: '" + global + "'", "", []string{china, "https://login.partner.microsoftonline.cn", global}},
	} {
		cfg, err := config.Load(write(t, "config.yaml", "partner_center: {"+c.text+"}\n"), []string{"ELIGIBILITY_PARTNER_CENTER__" + c.environ}[:min(len(c.environ), 1)], config.Dev)
		if err != nil {
			t.Errorf("%s %s: %v", c.text, c.environ, err)
			continue
		}
		got := []string{cfg.Partners[0].BaseURL, cfg.Partners[0].Authority, cfg.Partners[0].Audience}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s %s (-want +got):\n%s", c.text, c.environ, diff)
		}
	}
}

// The fault names the audience of the selected cloud.
func TestARetiredAudienceNamesItsSuccessor(t *testing.T) {
	t.Parallel()
	got := faults(t, "partner_center: {cloud: china, audience: 'https://graph.chinacloudapi.cn'}\n", nil, config.Dev)
	if len(got) != 1 || !strings.HasSuffix(got[0], "; use https://partner.partnercenterapi.microsoftonline.cn") {
		t.Errorf("faults %q", got)
	}
}
