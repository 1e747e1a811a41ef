package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

const (
	allowedID     = "a0000000-0000-4000-8000-000000000001"
	underReviewID = "a0000000-0000-4000-8000-000000000002"
	notAllowedID  = "a0000000-0000-4000-8000-000000000003"
	nobodyID      = "99999999-9999-4999-8999-999999999999"
)

// Two replicas share one Redis: the second answers from what the first fetched.
// If Redis is unavailable, both keep answering; when it returns, they use it
// again.
func TestReplicasShareWhatOneFetched(t *testing.T) {
	t.Parallel()
	sim, partnerCenter := pcsimtest.Start(t)
	redis := cachetest.StartRedis(t)
	onRedis := []string{
		"ELIGIBILITY_CACHE__REDIS__ADDRESSES=" + redis.Address,
		"ELIGIBILITY_CACHE__REDIS__READ_TIMEOUT=1s", // a loaded test machine is slow
		"ELIGIBILITY_CACHE__REDIS__WRITE_TIMEOUT=1s",
		"ELIGIBILITY_CACHE__LOCAL__MAX_AGE=1ms", // so that each answer reads Redis
	}
	one, two := startServe(t, partnerCenter.URL, onRedis...), startServe(t, partnerCenter.URL, onRedis...)

	for _, p := range []*process{one, two} { // a first heartbeat may time out on a loaded machine
		eventually(t, "Redis accepts writes", func() bool {
			_, _, metrics := get(t, "http://"+p.Admin+"/metrics")
			return strings.Contains(metrics, `eligibility_cache_redis_writable{partner="default"} 1`)
		})
	}
	source := func(p *process, id string) eligibilityv1.EvidenceSource {
		t.Helper()
		resp, err := p.ask(t, &eligibilityv1.CheckEligibilityRequest{CustomerId: id})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetSource()
	}
	if got := source(one, allowedID); got != eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_PARTNER_CENTER {
		t.Errorf("first answer from %s", got)
	}
	eventually(t, "both facets in Redis", func() bool { return keysIn(t, redis) == 2 })
	// It may already hold the evidence if the first one's message has arrived.
	if got := source(two, allowedID); got == eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_PARTNER_CENTER {
		t.Errorf("the second replica answered from %s", got)
	}
	if n := sim.Stats().Account; n != 1 {
		t.Errorf("%d account calls, want 1", n)
	}

	redis.Kill()
	for _, id := range []string{allowedID, underReviewID} {
		if got := source(two, id); got == eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_REDIS {
			t.Errorf("answered from a Redis that is away")
		}
	}
	redis.Start()
	eventually(t, "Redis used again", func() bool {
		source(one, notAllowedID)
		return source(two, notAllowedID) == eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_REDIS
	})
}

func keysIn(t *testing.T, redis *cachetest.Redis) int64 {
	t.Helper()
	client := redis.Client()
	defer func() { _ = client.Close() }()
	ctx := context.Background()
	return int64(len(client.Keys(ctx, "*:account").Val()) + len(client.Keys(ctx, "*:qualifications").Val()))
}

func TestServeStartsWhileEverythingIsAway(t *testing.T) {
	t.Parallel()
	away := httptest.NewServer(http.NotFoundHandler())
	away.Close()
	p := startServe(t, away.URL, "ELIGIBILITY_CACHE__REDIS__ADDRESSES=127.0.0.1:1")
	status, _, body := get(t, "http://"+p.HTTP+"/v1/customers/"+allowedID+"/eligibility")
	if status != http.StatusServiceUnavailable || !strings.Contains(body, "PARTNER_CENTER_UNAVAILABLE") {
		t.Errorf("status %d, body %s", status, body)
	}
	if status, _, _ := get(t, "http://"+p.Admin+"/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: %d", status)
	}
	if status, _, _ := get(t, "http://"+p.Admin+"/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("/readyz before the first token and the ten seconds: %d", status)
	}
}

func TestServeIsReadyWithTheFirstToken(t *testing.T) {
	t.Parallel()
	_, partnerCenter := pcsimtest.Start(t)
	p := startServe(t, partnerCenter.URL)
	p.awaitReady(t)
}

func TestServeNamesEveryMissingKey(t *testing.T) {
	t.Parallel()
	err := serve(t.Context(), nil, "", false, new(output), new(output))
	if err == nil {
		t.Fatal("started without a configuration")
	}
	for _, key := range []string{"partner_center.tenant_id", "partner_center.client_id", "partner_center.client_secret", "partner_center.refresh_token_file", "eligibilityd login"} {
		if !strings.Contains(err.Error(), key) {
			t.Errorf("%s is not named:\n%v", key, err)
		}
	}
}

func TestCheckConfig(t *testing.T) {
	t.Parallel()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	environ := []string{
		"ELIGIBILITY_PARTNER_CENTER__TENANT_ID=" + pcsim.DefaultTenantID,
		"ELIGIBILITY_PARTNER_CENTER__CLIENT_ID=" + pcsim.DefaultClientID,
		"ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET=x",
		"ELIGIBILITY_PARTNER_CENTER__REFRESH_TOKEN_FILE=" + token,
	}
	var out bytes.Buffer
	if err := serve(t.Context(), environ, "", true, &out, new(output)); err != nil || out.String() != "configuration ok\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
	if err := serve(t.Context(), append(environ, "ELIGIBILITY_POLICY__FAIL_OPEN=true"), "", true, &out, new(output)); err == nil {
		t.Error("an unknown variable is accepted")
	}
}

// A check of the configuration reads the files that serve needs at its start.
func TestCheckConfigReportsMissingFiles(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing")
	pair := accesstest.NewAuthority(t).Server(t)
	certificate, key := "ELIGIBILITY_SERVER__TLS__CERTIFICATE_FILE=", "ELIGIBILITY_SERVER__TLS__KEY_FILE="
	for name, test := range map[string]struct {
		environ []string
		key     string // which the message names, and not what may be a secret in place of a file
	}{
		"none is missing": {environ: []string{certificate + pair.CertificateFile, key + pair.KeyFile}},
		"tokens":          {environ: []string{"ELIGIBILITY_AUTH__TOKENS_FILE=" + missing}, key: "auth.tokens_file"},
		"certificate":     {environ: []string{certificate + missing, key + pair.KeyFile}, key: "server.tls.certificate_file"},
		"key":             {environ: []string{certificate + pair.CertificateFile, key + missing}, key: "server.tls.key_file"},
		"client authorities": {
			environ: []string{certificate + pair.CertificateFile, key + pair.KeyFile, "ELIGIBILITY_SERVER__TLS__CLIENT_CA_FILE=" + missing},
			key:     "server.tls.client_ca_file",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			err := serve(t.Context(), pcsimtest.Environ("http://127.0.0.1:1", pcsimtest.TokenFile(t), test.environ...), "", true, &out, new(output))
			switch {
			case test.key == "":
				if err != nil || out.String() != "configuration ok\n" {
					t.Errorf("%q, %v", out.String(), err)
				}
			case err == nil || out.Len() > 0:
				t.Errorf("accepted: %q", out.String())
			case !strings.Contains(err.Error(), test.key) || strings.Contains(err.Error(), missing):
				t.Errorf("%v; it must name %s and not the file", err, test.key)
			}
		})
	}
}

func TestServeReportsEveryAddressInUse(t *testing.T) {
	t.Parallel()
	p := startDev(t)
	_, partnerCenter := pcsimtest.Start(t)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := serve(t.Context(), []string{
		"ELIGIBILITY_PARTNER_CENTER__BASE_URL=" + partnerCenter.URL,
		"ELIGIBILITY_PARTNER_CENTER__AUTHORITY=" + partnerCenter.URL,
		"ELIGIBILITY_PARTNER_CENTER__TENANT_ID=" + pcsim.DefaultTenantID,
		"ELIGIBILITY_PARTNER_CENTER__CLIENT_ID=" + pcsim.DefaultClientID,
		"ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET=x",
		"ELIGIBILITY_PARTNER_CENTER__REFRESH_TOKEN_FILE=" + token,
		"ELIGIBILITY_SERVER__GRPC__ADDRESS=" + p.GRPC,
		"ELIGIBILITY_SERVER__HTTP__ADDRESS=" + p.HTTP,
		"ELIGIBILITY_SERVER__ADMIN__ADDRESS=" + p.Admin,
	}, "", false, new(output), new(output))
	if err == nil {
		t.Fatal("listens where another process does")
	}
	for _, key := range []string{"server.grpc.address", "server.http.address", "server.admin.address"} {
		if !strings.Contains(err.Error(), key) {
			t.Errorf("%s is not named: %v", key, err)
		}
	}
}
