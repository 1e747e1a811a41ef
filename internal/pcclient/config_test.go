package pcclient_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eligibilityd/eligibilityd/internal/pcclient"
)

// good is a Config that nothing stands against.
func good() pcclient.Config {
	return pcclient.Config{
		BaseURL:          "https://api.partnercenter.microsoft.com",
		Authority:        "https://login.microsoftonline.com",
		TenantID:         "partner.example",
		ClientID:         "client-id",
		ClientSecret:     "canary-secret",
		Audience:         "https://api.partnercenter.microsoft.com",
		RefreshTokenFile: "/does/not/matter/before/the/first/token",
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*pcclient.Config)
		fault  string // empty: none
	}{
		"good":                         {func(*pcclient.Config) {}, ""},
		"tenant is a GUID":             {func(c *pcclient.Config) { c.TenantID = customerID }, ""},
		"app-only needs no file":       {func(c *pcclient.Config) { appOnly(c) }, ""},
		"roots end in a slash":         {func(c *pcclient.Config) { c.BaseURL += "/"; c.Authority += "/" }, ""},
		"base URL has a path":          {func(c *pcclient.Config) { c.BaseURL += "/proxy" }, ""},
		"http to localhost":            {func(c *pcclient.Config) { c.BaseURL = "http://localhost:1" }, ""},
		"http to 127.0.0.0/8":          {func(c *pcclient.Config) { c.Authority = "http://127.8.9.1:1" }, ""},
		"http to [::1]":                {func(c *pcclient.Config) { c.Authority = "http://[::1]:1" }, ""},
		"http elsewhere":               {func(c *pcclient.Config) { c.BaseURL = "http://api.example" }, "base URL"},
		"http to a name like loopback": {func(c *pcclient.Config) { c.BaseURL = "http://localhost.example" }, "base URL"},
		"http to 128.0.0.1":            {func(c *pcclient.Config) { c.Authority = "http://128.0.0.1" }, "authority"},
		"no base URL":                  {func(c *pcclient.Config) { c.BaseURL = "" }, "base URL"},
		"relative":                     {func(c *pcclient.Config) { c.BaseURL = "api.example" }, "base URL"},
		"no URL at all":                {func(c *pcclient.Config) { c.BaseURL = "https://canary-secret:x\x7f@y" }, "base URL"},
		"another scheme":               {func(c *pcclient.Config) { c.Authority = "ftp://login.example" }, "authority"},
		"credentials in the URL":       {func(c *pcclient.Config) { c.Authority = "https://u:canary-secret@login.example" }, "authority"},
		"query":                        {func(c *pcclient.Config) { c.BaseURL += "?x=y" }, "base URL"},
		"empty query":                  {func(c *pcclient.Config) { c.BaseURL += "?" }, "base URL"},
		"fragment":                     {func(c *pcclient.Config) { c.BaseURL += "#x" }, "base URL"},
		"no tenant":                    {func(c *pcclient.Config) { c.TenantID = "" }, "tenant ID"},
		"tenant leaves its place":      {func(c *pcclient.Config) { c.TenantID = ".." }, "tenant ID"},
		"tenant is a path":             {func(c *pcclient.Config) { c.TenantID = "a/b" }, "tenant ID"},
		"no client":                    {func(c *pcclient.Config) { c.ClientID = "" }, "client ID"},
		"no secret":                    {func(c *pcclient.Config) { c.ClientSecret = "" }, "client secret"},
		"no audience":                  {func(c *pcclient.Config) { c.Audience = "" }, "audience"},
		"T-12 retired audience":        {func(c *pcclient.Config) { c.Audience = "https://graph.windows.net" }, "audience"},
		"T-12 in other letters":        {func(c *pcclient.Config) { c.Audience = "https://Graph.Windows.NET/" }, "audience"},
		"T-12 in China":                {func(c *pcclient.Config) { c.Audience = "https://graph.chinacloudapi.cn" }, "audience"},
		"no file":                      {func(c *pcclient.Config) { c.RefreshTokenFile = "" }, "refresh token file"},
		"unknown flow":                 {func(c *pcclient.Config) { c.Flow = 7 }, "flow"},
		"version 1 of the endpoint":    {func(c *pcclient.Config) { c.TokenEndpoint = pcclient.TokenEndpointV1 }, ""},
		"unknown token endpoint":       {func(c *pcclient.Config) { c.TokenEndpoint = 2 }, "token endpoint"},
		"negative attempt timeout":     {func(c *pcclient.Config) { c.AttemptTimeout = -1 }, "attempt timeout"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := good()
			test.change(&cfg)
			err := cfg.Validate()
			if (err == nil) != (test.fault == "") {
				t.Fatalf("got %v, want a fault about %q", err, test.fault)
			}
			client, newErr := pcclient.New(cfg)
			if (newErr == nil) != (err == nil) || (client == nil) != (err != nil) {
				t.Errorf("New gives %v, %v; Validate %v", client, newErr, err)
			}
			if err == nil {
				return
			}
			if lines := strings.Split(err.Error(), "\n"); len(lines) != 1 || !strings.Contains(lines[0], test.fault+": ") {
				t.Errorf("got %q, want one fault about %q", lines, test.fault)
			}
			if strings.Contains(err.Error(), "canary-secret") {
				t.Errorf("a secret leaked: %v", err)
			}
		})
	}
}

func TestConfigReportsEveryFaultAtOnce(t *testing.T) {
	t.Parallel()
	cfg := pcclient.Config{AttemptTimeout: -time.Second}
	_, err := pcclient.New(cfg)
	if err == nil {
		t.Fatal("an empty Config is taken")
	}
	for _, about := range []string{
		"base URL", "authority", "tenant ID", "client ID", "client secret", "audience", "refresh token file", "attempt timeout",
	} {
		if !strings.Contains(err.Error(), about+" ") && !strings.Contains(err.Error(), about+": ") {
			t.Errorf("nothing about the %s in:\n%v", about, err)
		}
	}
}

func TestMetricsBelongToOneClient(t *testing.T) {
	t.Parallel()
	cfg := good()
	cfg.Registerer = prometheus.NewRegistry()
	if _, err := pcclient.New(cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := pcclient.New(cfg); err == nil {
		t.Error("a second client writes into the metrics of the first")
	}
}
