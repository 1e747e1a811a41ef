package pcclient_test

import (
	"crypto/tls"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/pcclient"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

func versionOne(c *pcclient.Config) { c.TokenEndpoint = pcclient.TokenEndpointV1 }

// T-01: version 1 takes a resource and no scope.
func TestVersionOneOfTheTokenEndpoint(t *testing.T) {
	t.Parallel()
	const oldAnswer = `{"token_type":"Bearer","access_token":"a","expires_in":"3600","expires_on":"1","resource":"x","refresh_token":"refresh-1"}`
	for name, test := range map[string]struct {
		config func(*pcclient.Config)
		want   url.Values
	}{
		"app+user": {func(*pcclient.Config) {}, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"refresh-0"}}},
		"app-only": {appOnly, url.Values{"grant_type": {"client_credentials"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{login: responds(200, oldAnswer), config: func(c *pcclient.Config) { versionOne(c); test.config(c) }})
			if err := r.Token(t.Context()); err != nil {
				t.Fatal(err)
			}
			got := r.login.asked()[0]
			if got.method != http.MethodPost || got.url != "/partner.example/oauth2/token" {
				t.Errorf("asked %s %s", got.method, got.url)
			}
			test.want.Set("client_id", "client-id")
			test.want.Set("client_secret", "canary-secret")
			test.want.Set("resource", "https://api.partnercenter.microsoft.com")
			if diff := cmp.Diff(test.want, got.form); diff != "" {
				t.Errorf("form (-want +got):\n%s", diff)
			}
		})
	}
}

// T-01, T-02, T-03, T-07 at the simulator: each version, flow and credential
// brings a token that Partner Center takes. The simulator checks what an
// assertion is for.
func TestEachEndpointTakesEachCredential(t *testing.T) {
	t.Parallel()
	ours := certificate(t, ourKey)
	for version, endpoint := range map[string]pcclient.TokenEndpoint{"v1": pcclient.TokenEndpointV1, "v2": pcclient.TokenEndpointV2} {
		for credential, pair := range map[string]*tls.Certificate{"secret": nil, "certificate": ours} {
			for _, flow := range []pcclient.Flow{pcclient.FlowAppUser, pcclient.FlowAppOnly} {
				name := version + " " + credential + map[pcclient.Flow]string{pcclient.FlowAppUser: " app+user", pcclient.FlowAppOnly: " app-only"}[flow]
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					c := startCertified(t, leaf(t, ours))
					r := start(t, setup{config: func(cfg *pcclient.Config) {
						c.use(cfg, pair)
						cfg.TokenEndpoint, cfg.Flow = endpoint, flow
						if pair == nil {
							cfg.ClientSecret = pcsim.DefaultClientSecret
						}
					}})
					if _, _, err := r.Qualifications(t.Context(), c.sim.Customers()[0].ID); err != nil {
						t.Fatal(err)
					}
					if path := c.host.asked()[0].url; strings.Contains(path, "/v2.0/") != (version == "v2") {
						t.Errorf("asked %s", path)
					}
					content, err := os.ReadFile(c.file)
					if rotated := string(content) != pcsim.DefaultRefreshToken; err != nil || rotated != (flow == pcclient.FlowAppUser) {
						t.Errorf("rotated %v, %v", rotated, err)
					}
				})
			}
		}
	}
}

// T-06 by version 1, with which serve goes on.
func TestConsentByVersionOne(t *testing.T) {
	t.Parallel()
	c := startCertified(t)
	cfg := good()
	c.use(&cfg, nil)
	cfg.ClientSecret = pcsim.DefaultClientSecret
	versionOne(&cfg)
	consent, err := pcclient.NewConsent(cfg, redirect)
	if err != nil {
		t.Fatal(err)
	}
	page, err := url.Parse(consent.URL())
	if err != nil {
		t.Fatal(err)
	}
	if query := page.Query(); page.Path != "/"+pcsim.DefaultTenantID+"/oauth2/authorize" ||
		query.Get("resource") != "https://api.partnercenter.microsoft.com" || query.Get("scope") != "openid" {
		t.Errorf("page asked: %s", page)
	}
	tenant, err := consent.Redeem(t.Context(), codeFrom(t, consent.URL()))
	if err != nil || tenant != pcsim.DefaultTenantID {
		t.Fatalf("tenant %q, %v", tenant, err)
	}
	stored, err := os.ReadFile(c.file)
	if err != nil || string(stored) == pcsim.DefaultRefreshToken || len(stored) == 0 {
		t.Errorf("stored %d bytes, %v", len(stored), err)
	}
	r := start(t, setup{config: func(cfg *pcclient.Config) {
		c.use(cfg, nil)
		cfg.ClientSecret = pcsim.DefaultClientSecret
		versionOne(cfg)
	}})
	if err := r.Token(t.Context()); err != nil {
		t.Error(err)
	}
}
