package app

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/logging"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/referencetest"
)

// describedMetric matches the text of a prometheus.Desc, which has no accessors.
var describedMetric = regexp.MustCompile(`fqName: "(\w+)", help: (".*"), constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

var labelValue = regexp.MustCompile(`="[^"]*"`)

func TestTheReferenceOfMetricsIsComplete(t *testing.T) {
	t.Parallel()
	cfg := config.Default()
	partner := &cfg.Partners[0]
	partner.TenantID, partner.ClientID = pcsim.DefaultTenantID, pcsim.DefaultClientID
	partner.ClientSecret = config.NewSecret(pcsim.DefaultClientSecret)
	partner.RefreshTokenFile = "none"
	pair := accesstest.NewAuthority(t).Server(t)
	cfg.Server.TLS.CertificateFile, cfg.Server.TLS.KeyFile = pair.CertificateFile, pair.KeyFile
	cfg.Auth.TokensFile = filepath.Join(t.TempDir(), "tokens.yaml")
	if err := os.WriteFile(cfg.Auth.TokensFile, []byte("[]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	issuer := config.DefaultJWT()
	issuer.Issuer, issuer.Audiences = accesstest.NewIssuer(t).URL, []string{"api://eligibilityd"}
	cfg.Auth.JWT = []config.JWT{issuer}
	cfg.DecisionLog.File = filepath.Join(t.TempDir(), "decisions.jsonl")
	cfg.Console.Enabled = true
	cfg.Console.OIDC = config.OIDC{Issuer: issuer.Issuer, ClientID: "console", ClientSecretFile: filepath.Join(t.TempDir(), "secret")}
	if err := os.WriteFile(cfg.Console.OIDC.ClientSecretFile, []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Cache.Redis.Addresses = []string{"127.0.0.1:1"} // nothing connects
	registry := prometheus.NewRegistry()
	if err := logging.NewQueue(nil).Register(registry); err != nil {
		t.Fatal(err)
	}
	a := &App{cfg: cfg, logger: zap.NewNop()}
	if err := a.build(Build{}, registry, Replacements{}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		registry.Describe(descs)
	}()
	var rows []string
	for desc := range descs {
		parts := describedMetric.FindStringSubmatch(desc.String())
		if parts == nil {
			t.Fatalf("cannot read %s", desc)
		}
		labels := cmp.Or(strings.ReplaceAll(strings.Trim(labelValue.ReplaceAllString(parts[3], "")+","+parts[4], ","), ",", ", "), "–")
		var help string
		if _, err := fmt.Sscanf(parts[2], "%q", &help); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, "| `"+parts[1]+"` | "+labels+" | "+strings.ReplaceAll(help, "|", "\\|")+" |\n")
	}
	slices.Sort(rows)
	rows = slices.Compact(rows)
	referencetest.Compare(t, "../..", "metrics.md", "# Metrics\n\n"+
		"Generated from the code by `make generate`. `/metrics` on the admin listener exports these in the Prometheus text\n"+
		"format, beside those of the Go runtime and of the process, as does the probe listener.\n\n"+
		"| metric | labels | help |\n|---|---|---|\n"+strings.Join(rows, ""))
}
