package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

const aGUID = "10000000-0000-4000-8000-000000000001"

// partner is a partner of a configuration in which it has only these keys.
func partner(name string, change func(*config.PartnerCenter)) config.Partner {
	p := config.Partner{Name: name, PartnerCenter: config.Default().Partners[0].PartnerCenter}
	change(&p.PartnerCenter)
	return p
}

func TestPartners(t *testing.T) {
	t.Parallel()
	eu := partner("eu", func(pc *config.PartnerCenter) { pc.ClientID = aGUID })
	for name, c := range map[string]struct {
		text      string
		environ   []string
		want      []config.Partner
		byDefault string
	}{
		"in the order of their names": {
			text: "partners: {us: {cloud: us_government}, 1-a: {flow: app_only}, eu: {client_id: " + aGUID + "}}\ndefault_partner: eu\n",
			want: []config.Partner{
				partner("1-a", func(pc *config.PartnerCenter) { pc.Flow = config.FlowAppOnly }), eu,
				partner("us", func(pc *config.PartnerCenter) {
					pc.Cloud, pc.Authority = config.CloudUSGovernment, "https://login.microsoftonline.us"
				}),
			},
			byDefault: "eu",
		},
		"the only one is the default": {text: "partners: {eu: {client_id: " + aGUID + "}}\n", want: []config.Partner{eu}, byDefault: "eu"},
		"several without a default": {
			text: "partners: {eu: {client_id: " + aGUID + "}, us: {client_id: " + aGUID + "}}\n",
			want: []config.Partner{eu, partner("us", func(pc *config.PartnerCenter) { pc.ClientID = aGUID })},
		},
		"each level overrides the one before": {
			text: "partner_defaults: {tenant_id: file.defaults, budget_per_minute: 1, batch_concurrency: 1, base_url: 'https://file.defaults'}\n" +
				"partners: {a: {batch_concurrency: 3, budget_per_minute: 3, cloud: china}, b: }\n",
			environ: []string{
				"ELIGIBILITY_PARTNER_DEFAULTS__BUDGET_PER_MINUTE=2", "ELIGIBILITY_PARTNER_DEFAULTS__BATCH_CONCURRENCY=2",
				"ELIGIBILITY_PARTNERS__A__BATCH_CONCURRENCY=4", "ELIGIBILITY_DEFAULT_PARTNER=b",
			},
			want: []config.Partner{
				partner("a", func(pc *config.PartnerCenter) {
					pc.TenantID, pc.BudgetPerMinute, pc.BatchConcurrency, pc.BaseURL = "file.defaults", 3, 4, "https://file.defaults"
					pc.Cloud, pc.Authority, pc.Audience = config.CloudChina, "https://login.partner.microsoftonline.cn", "https://partner.partnercenterapi.microsoftonline.cn"
				}),
				partner("b", func(pc *config.PartnerCenter) {
					pc.TenantID, pc.BudgetPerMinute, pc.BatchConcurrency, pc.BaseURL = "file.defaults", 2, 2, "https://file.defaults"
				}),
			},
			byDefault: "b",
		},
		"names in the environment": {
			text: "partners: {my-region: {}, a--b: {}}\n",
			environ: []string{
				"ELIGIBILITY_PARTNERS__MY_REGION__CLIENT_ID=" + aGUID, "ELIGIBILITY_PARTNERS__A__B__CLIENT_ID=" + aGUID,
				"ELIGIBILITY_PARTNERS__MY_OTHER_REGION__REFRESH_TOKEN_VAULT__SECRET=s",
				"ELIGIBILITY_PARTNERS__MY_OTHER_REGION__REFRESH_TOKEN_VAULT__URL=https://abc.vault.azure.net",
			},
			want: []config.Partner{
				partner("a--b", func(pc *config.PartnerCenter) { pc.ClientID = aGUID }),
				partner("my-other-region", func(pc *config.PartnerCenter) {
					pc.RefreshTokenVault = config.RefreshTokenVault{URL: "https://abc.vault.azure.net", Secret: "s"}
				}),
				partner("my-region", func(pc *config.PartnerCenter) { pc.ClientID = aGUID }),
			},
		},
		"the environment alone": {
			environ: []string{"ELIGIBILITY_PARTNERS__EU__CLIENT_ID=" + aGUID}, want: []config.Partner{eu}, byDefault: "eu",
		},
		"a section without keys is none": {
			text: "partners:\npartner_defaults:\npartner_center: {client_id: " + aGUID + "}\ndefault_partner: default\n",
			want: []config.Partner{partner("default", func(pc *config.PartnerCenter) { pc.ClientID = aGUID })}, byDefault: "default",
		},
		"the short form by the environment": {
			text: "partners:\n", environ: []string{"ELIGIBILITY_PARTNER_CENTER__CLIENT_ID=" + aGUID},
			want: []config.Partner{partner("default", func(pc *config.PartnerCenter) { pc.ClientID = aGUID })}, byDefault: "default",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, err := config.Load(write(t, "config.yaml", c.text), c.environ, config.Dev)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, cfg.Partners); diff != "" || cfg.DefaultPartner != c.byDefault {
				t.Errorf("default %q, want %q; partners (-want +got):\n%s", cfg.DefaultPartner, c.byDefault, diff)
			}
			for _, want := range c.want {
				if got, ok := cfg.Partner(want.Name); !ok || got.Name != want.Name {
					t.Errorf("partner %s is %q", want.Name, got.Name)
				}
			}
			if got, ok := cfg.Partner(""); got.Name != c.byDefault || ok != (c.byDefault != "") {
				t.Errorf("the default is %q, %v", got.Name, ok)
			}
			if _, ok := cfg.Partner("nobody"); ok {
				t.Error("there is a partner of any name")
			}
		})
	}
}

func TestFaultsOfPartners(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Symlink("token", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte(canary), 0o600); err != nil {
		t.Fatal(err)
	}
	same := func(a, b string) string {
		return "is the same for the partners " + a + " and " + b + ": each needs its own, because a renewal for one replaces the token of the other"
	}
	const conflict = "conflicts with partners: it is the short form of one partner; move that partner to partners, under a name"
	for name, c := range map[string]struct {
		text    string
		environ []string
		command config.Command
		want    []string
	}{
		"both forms": {
			text: "partner_center: {tenant_id: x}\npartners: {eu: {}}\n",
			want: []string{"config.yaml:1: partner_center: " + conflict},
		},
		"one form in the file and one in the environment": {
			text:    "partners: {eu: {}}\n",
			environ: []string{"ELIGIBILITY_PARTNER_CENTER__CLIENT_ID="},
			want:    []string{"ELIGIBILITY_PARTNER_CENTER__CLIENT_ID: partner_center: " + conflict},
		},
		"and the other way round": {
			text:    "partner_center: {flow: app_only}\n",
			environ: []string{"ELIGIBILITY_PARTNERS__EU__CLIENT_ID="},
			want:    []string{"config.yaml:1: partner_center: " + conflict},
		},
		"defaults of several with the short form": {
			text:    "partner_center: {flow: app_only}\n",
			environ: []string{"ELIGIBILITY_PARTNER_DEFAULTS__CLIENT_ID="},
			want:    []string{"ELIGIBILITY_PARTNER_DEFAULTS__CLIENT_ID: partner_defaults: has no effect without partners"},
		},
		"defaults of none": {
			text: "partner_defaults: {flow: app_only}\n",
			want: []string{"config.yaml:1: partner_defaults: has no effect without partners"},
		},
		"no partner": {
			text: "partners: {}\n", command: config.Serve,
			want: []string{"config.yaml:1: partners: names no partner; write the name of each, and its keys below the name"},
		},
		"no section": {
			text: "partners: [eu]\n", command: config.Serve,
			want: []string{"config.yaml:1: partners: must hold keys, one to a line"},
		},
		"names that are none": {
			text: "partners:\n  EU: {flow: app_only}\n  a_b: {}\n  " + strings.Repeat("a", 33) + ": {}\n  '': {}\n  a.b: {}\n  " + canary + "/~: {}\n  [a]: {}\n  ok: {cloud: x}\n",
			want: []string{
				"config.yaml:2: partners.EU: is not the name of a partner: 1 to 32 of a-z, 0-9 and hyphens",
				"config.yaml:3: partners.a_b: is not the name of a partner: 1 to 32 of a-z, 0-9 and hyphens",
				"config.yaml:4: partners: " + noName, "config.yaml:5: partners: " + noName, "config.yaml:6: partners: " + noName,
				"config.yaml:7: partners: " + noName, "config.yaml:8: partners: " + noName,
				`config.yaml:9: partners.ok.cloud: "x" is not one of global, us_government, china`,
			},
		},
		"a name that is repeated": {
			text: "partners:\n  eu: {}\n  us: {}\n  eu: {}\n",
			want: []string{"config.yaml:4: partners.eu: is given twice; line 2 has it already"},
		},
		"an unknown default": {
			text: "partners: {eu: {}}\ndefault_partner: us\n",
			want: []string{"config.yaml:2: default_partner: names none of the partners"},
		},
		"an unknown default with the short form": {
			environ: []string{"ELIGIBILITY_DEFAULT_PARTNER=eu"},
			want:    []string{"ELIGIBILITY_DEFAULT_PARTNER: default_partner: names none of the partners"},
		},
		"misspelt keys": {
			text: "partners: {eu: {client_secert: " + canary + "}}\npartner_default: {}\npartner: {}\n",
			environ: []string{
				"ELIGIBILITY_PARTNERS__EU__CLIENT_SECERT=" + canary, "ELIGIBILITY_PARTNERS__EU__=x", "ELIGIBILITY_PARTNERS__EU=x",
				"ELIGIBILITY_PARTNERS____CLIENT_SECRET=x", "ELIGIBILITY_PARTNERS__us__CLIENT_SECRET=x", "ELIGIBILITY_PARTNERS__US__client_secret=x",
				"ELIGIBILITY_PARTNERS___US__CLIENT_SECRET=x", "ELIGIBILITY_PARTNERS__A__B__CLIENT_SECRET=x",
				"ELIGIBILITY_PARTNERS__" + strings.Repeat("A", 33) + "__CLIENT_ID=x",
			},
			want: []string{
				"config.yaml:1: partners.eu.client_secert: unknown key; did you mean partners.eu.client_secret?",
				"config.yaml:2: partner_default: unknown key; did you mean partner_defaults?",
				"config.yaml:3: partner: unknown key; did you mean partners?",
				"ELIGIBILITY_PARTNERS__" + strings.Repeat("A", 33) + "__CLIENT_ID: unknown variable; did you mean ELIGIBILITY_PARTNER_CENTER__CLIENT_ID?",
				"ELIGIBILITY_PARTNERS__A__B__CLIENT_SECRET: unknown variable; did you mean ELIGIBILITY_PARTNERS__EU__CLIENT_SECRET?",
				"ELIGIBILITY_PARTNERS__EU: unknown variable",
				"ELIGIBILITY_PARTNERS__EU__: unknown variable",
				"ELIGIBILITY_PARTNERS__EU__CLIENT_SECERT: unknown variable; did you mean ELIGIBILITY_PARTNERS__EU__CLIENT_SECRET?",
				"ELIGIBILITY_PARTNERS__US__client_secret: unknown variable; did you mean ELIGIBILITY_PARTNERS__EU__CLIENT_SECRET?",
				"ELIGIBILITY_PARTNERS___US__CLIENT_SECRET: unknown variable; did you mean ELIGIBILITY_PARTNERS__EU__CLIENT_SECRET?",
				"ELIGIBILITY_PARTNERS____CLIENT_SECRET: unknown variable; did you mean ELIGIBILITY_PARTNERS__EU__CLIENT_SECRET?",
				"ELIGIBILITY_PARTNERS__us__CLIENT_SECRET: unknown variable; did you mean ELIGIBILITY_PARTNERS__EU__CLIENT_SECRET?",
			},
		},
		"a fault of the defaults is one fault": {
			text: "partner_defaults: {tenant_id: " + canary + "!, client_secret: s3cret}\npartners: {b: {client_id: x, client_secret_file: y}, a: {tenant_id: y}}\n",
			want: []string{
				"config.yaml:2: partners.b.client_secret_file: conflicts with partner_defaults.client_secret: give one of the two and empty the other",
				"config.yaml:2: partners.a.tenant_id: is neither a GUID nor a domain name",
				"config.yaml:1: partner_defaults.tenant_id: is neither a GUID nor a domain name",
				"config.yaml:2: partners.b.client_id: is not a GUID",
			},
		},
		"each partner needs a connection": {
			text:    "partners:\n  eu: {tenant_id: a.example, client_id: " + aGUID + ", client_secret: s, refresh_token_file: " + dir + "/none}\n",
			environ: []string{"ELIGIBILITY_PARTNERS__US__FLOW=app_only"},
			command: config.Serve,
			want: []string{
				"config.yaml:2: partners.eu.refresh_token_file: cannot be read: no such file or directory; `eligibilityd login --config config.yaml --partner eu` obtains a refresh token and writes it there",
				"partners.us.tenant_id: is required: the partner's own tenant, a GUID or a domain name; once it is set, `eligibilityd doctor --config config.yaml` tests it",
				"partners.us.client_id: is required: the application (client) id of the app registration; once it is set, `eligibilityd doctor --config config.yaml` tests it",
				"partners.us.client_secret: is required, or client_secret_file, client_certificate_file or one of the other credentials: the value of a secret of the app registration, or a certificate of it with its key; once it is set, `eligibilityd doctor --config config.yaml` tests it",
			},
		},
		"one file for two refresh tokens": {
			text: fmt.Sprintf("partners:\n  a: {refresh_token_file: %[1]s/token}\n  b: {refresh_token_file: %[1]s/../%[2]s/link}\n  c: {refresh_token_file: %[1]s/other}\n", dir, filepath.Base(dir)),
			want: []string{"config.yaml:3: partners.b.refresh_token_file: " + same("a", "b")},
		},
		"one file for two, by the defaults": {
			text: "partner_defaults: {refresh_token_file: none/token}\npartners: {a: {flow: app_only}, b: {}, c: {}, d: {}, e: {refresh_token_file: ''}}\n",
			want: []string{"config.yaml:1: partner_defaults.refresh_token_file: " + same("b", "c")},
		},
		"one secret of a vault for two": {
			text: "partner_defaults: {refresh_token_vault: {url: 'https://abc.vault.azure.net', secret: s}}\n" +
				"partners:\n  a: {}\n  b: {refresh_token_vault: {url: 'https://ABC.vault.azure.net/', secret: S}}\n  c: {refresh_token_vault: {secret: t}}\n",
			want: []string{"config.yaml:4: partners.b.refresh_token_vault.secret: " + same("a", "b")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := faults(t, c.text, c.environ, c.command)
			for i := range got {
				got[i] = strings.ReplaceAll(got[i], dir, "")
				hidden(t, "a fault", got[i])
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

const noName = "holds something that is not the name of a key; is a blank missing after a colon, or is a value not in quotes?"

// TestEveryKeyOfAPartnerArrives sets each key in all places that a partner's can
// be in.
func TestEveryKeyOfAPartnerArrives(t *testing.T) {
	t.Parallel()
	for _, l := range leaves() {
		name, ok := strings.CutPrefix(l.key, "partner_center.")
		if !ok {
			continue
		}
		values := companions(t, l)
		values[l.key] = other(t, l)
		want := changed(t, values).Partners[0]
		want.Name = "my-eu"
		for place, variable := range map[string]string{"partners.my-eu.": "PARTNERS__MY_EU__", "partner_defaults.": "PARTNER_DEFAULTS__"} {
			moved := map[string]string{"partners.my-eu.cloud": "global"}
			environ := []string{"ELIGIBILITY_PARTNERS__MY_EU__CLOUD=global"}
			if name == "cloud" && place == "partner_defaults." {
				moved, environ = map[string]string{"partners.my-eu.flow": "app_user"}, []string{"ELIGIBILITY_PARTNERS__MY_EU__FLOW=app_user"}
			} else if name == "cloud" {
				environ = nil
			}
			for key, value := range values {
				name := strings.TrimPrefix(key, "partner_center.")
				moved[place+name] = value
				environ = append(environ, "ELIGIBILITY_"+variable+strings.ToUpper(strings.ReplaceAll(name, ".", "__"))+"="+value)
			}
			cfg, err := config.Load("", environ, config.Dev)
			if err != nil {
				t.Errorf("%s%s by environment: %v", place, name, err)
			} else if diff := cmp.Diff([]config.Partner{want}, cfg.Partners); diff != "" {
				t.Errorf("%s%s by environment (-want +got):\n%s", place, name, diff)
			}
			cfg, err = config.Load(write(t, "config.yaml", inFile(moved)), nil, config.Dev)
			if err != nil {
				t.Errorf("%s%s by file: %v\n%s", place, name, err, inFile(moved))
			} else if diff := cmp.Diff([]config.Partner{want}, cfg.Partners); diff != "" {
				t.Errorf("%s%s by file (-want +got):\n%s", place, name, diff)
			}
		}
	}
}

func TestTheExampleOfPartnersLoads(t *testing.T) {
	t.Parallel()
	var environ []string
	for _, name := range []string{"EU", "US"} {
		environ = append(environ, "ELIGIBILITY_PARTNERS__"+name+"__TENANT_ID="+aGUID, "ELIGIBILITY_PARTNERS__"+name+"__CLIENT_ID="+aGUID,
			"ELIGIBILITY_PARTNERS__"+name+"__CLIENT_SECRET_FILE="+write(t, "secret", canary), "ELIGIBILITY_PARTNERS__"+name+"__REFRESH_TOKEN_FILE="+write(t, "token", canary))
	}
	cfg, err := config.Load(filepath.Join("..", "..", "deploy", "config.partners.example.yaml"), environ, config.Serve)
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Partners) != 2 || cfg.DefaultPartner != "eu" || cfg.Partners[1].Authority != "https://login.microsoftonline.us" {
		t.Errorf("%d partners, default %q, authority %s", len(cfg.Partners), cfg.DefaultPartner, cfg.Partners[1].Authority)
	}
}
