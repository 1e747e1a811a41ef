package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/eligibilityd/eligibilityd/internal/app"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/doctor/doctortest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

const (
	allowedID = "a0000000-0000-4000-8000-000000000001"
	nobodyID  = "99999999-9999-4999-8999-999999999999"
)

func TestMain(m *testing.M) {
	code := m.Run()
	err := goleak.Find()
	for range 3 { // goroutines of go-redis end up to a second after Close
		if err != nil {
			err = goleak.Find()
		}
	}
	if code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func keysIn(t *testing.T, redis *cachetest.Redis) int64 {
	t.Helper()
	client := redis.Client()
	defer func() { _ = client.Close() }()
	ctx := context.Background()
	return int64(len(client.Keys(ctx, "*:account").Val()) + len(client.Keys(ctx, "*:qualifications").Val()))
}

// examined is a report of the doctor.
type examined struct{ doctortest.Report }

// consult examines what environ configures.
func consult(t *testing.T, environ []string, options Options) examined {
	t.Helper()
	report, err := json.Marshal(Examine(t.Context(), environ, options))
	if err != nil {
		t.Fatal(err)
	}
	return examined{doctortest.Read(t, report)}
}

func (e examined) want(check string, verdict Verdict, words ...string) {
	e.Want(check, string(verdict), words...)
}

func TestDoctorFindsAHealthyServiceHealthy(t *testing.T) {
	t.Parallel()
	_, partnerCenter := pcsimtest.Start(t)
	redis := cachetest.StartRedis(t)
	client := redis.Client()
	defer func() { _ = client.Close() }()
	if err := client.ConfigSet(t.Context(), "maxmemory-policy", "volatile-lru").Err(); err != nil {
		t.Fatal(err)
	}
	file := pcsimtest.TokenFile(t)
	environ := pcsimtest.Environ(partnerCenter.URL, file,
		"ELIGIBILITY_CACHE__REDIS__ADDRESSES="+redis.Address, "ELIGIBILITY_CACHE__REDIS__READ_TIMEOUT=1s",
		"ELIGIBILITY_SERVER__LIMITS__CONNECTIONS=10")
	e := consult(t, environ, Options{Customer: allowedID})
	for _, check := range []string{
		"configuration", "login host", "partner center host", "clock", checkTokenFile, checkToken, checkMFA,
		checkAccount, checkQualifications, checkRedisReach, checkRedisAccess, checkRedisMessages, checkRedisBudget, checkRedisChanges, checkRedisMemory, checkReplicas,
		"listener grpc", "listener http", "listener admin", checkFiles, checkCallers,
	} {
		e.want(check, VerdictOK)
	}
	if e.Checks() != 21 {
		t.Errorf("%d checks: %s", e.Checks(), e.Text)
	}
	e.want(checkAccount, VerdictOK, `"Allowed"`)
	e.want(checkRedisReach, VerdictOK, "7.")
	if content, err := os.ReadFile(file); err != nil || string(content) != pcsim.DefaultRefreshToken {
		t.Errorf("the refresh token's file was changed: %v", err)
	}
	if n := keysIn(t, redis); n != 0 {
		t.Errorf("%d keys are left behind", n)
	}

	e = consult(t, environ, Options{})
	e.want(checkMFA, VerdictOK)
	e.want(checkAccount, VerdictSkipped, "--customer")
	e.want(checkQualifications, VerdictSkipped, "--customer")
}

func TestDoctorReportsTheRemedyForTheToken(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		environ string
		token   *pcsim.Step
		want    []string
	}{
		"wrong secret":         {environ: "ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET=wrong", want: []string{"invalid_client", "AADSTS7000215", "client_secret"}},
		"expired consent":      {token: &pcsim.Step{EntraError: 700082}, want: []string{"invalid_grant", "AADSTS700082", "eligibilityd login"}},
		"consent missing":      {token: &pcsim.Step{EntraError: 65001}, want: []string{"invalid_grant", "AADSTS65001", "administrator"}},
		"Conditional Access":   {token: &pcsim.Step{EntraError: 53003}, want: []string{"invalid_grant", "AADSTS53003", "Conditional Access"}},
		"perhaps passing":      {token: &pcsim.Step{EntraError: 70000}, want: []string{"invalid_grant", "AADSTS70000", "try again", "eligibilityd login"}},
		"MFA asked for":        {token: &pcsim.Step{EntraError: 50076}, want: []string{"interaction_required", "eligibilityd login"}},
		"permission missing":   {token: &pcsim.Step{EntraError: 65005}, want: []string{"invalid_resource", "API permissions"}},
		"wrong tenant":         {environ: "ELIGIBILITY_PARTNER_CENTER__TENANT_ID=elsewhere.example", want: []string{"invalid_request", "tenant_id"}},
		"throttled":            {token: &pcsim.Step{EntraError: 90055}, want: []string{"wait"}},
		"a page of a proxy":    {token: &pcsim.Step{Raw: &pcsim.Raw{Status: 403, Body: "<html>"}}, want: []string{"unreadable", "proxy"}},
		"no refresh token":     {environ: "ELIGIBILITY_PARTNER_CENTER__REFRESH_TOKEN_FILE=/nowhere", want: []string{"eligibilityd login"}},
		"a host that is silly": {token: &pcsim.Step{Failure: pcsim.FailureReset}, want: []string{"connection", "authority"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim, partnerCenter := pcsimtest.Start(t)
			if c.token != nil {
				if err := sim.ScriptTokens(*c.token); err != nil {
					t.Fatal(err)
				}
			}
			more := []string{}
			if c.environ != "" {
				more = append(more, c.environ)
			}
			e := consult(t, pcsimtest.Environ(partnerCenter.URL, pcsimtest.TokenFile(t), more...), Options{Customer: allowedID})
			e.want(checkToken, VerdictFailure, c.want...)
			for _, check := range []string{checkMFA, checkAccount, checkQualifications} {
				e.want(check, VerdictSkipped, "no token")
			}
		})
	}
}

// H-08, A-02.
func TestDoctorMissesMFA(t *testing.T) {
	t.Parallel()
	sim, partnerCenter := pcsimtest.Start(t)
	if err := sim.SetSettings(pcsim.Settings{WithoutMFA: true}); err != nil {
		t.Fatal(err)
	}
	environ := pcsimtest.Environ(partnerCenter.URL, pcsimtest.TokenFile(t))
	e := consult(t, environ, Options{Customer: allowedID})
	e.want(checkToken, VerdictOK)
	e.want(checkMFA, VerdictFailure, "900421", "eligibilityd login")
	e.want(checkAccount, VerdictFailure, "900421", "eligibilityd login")

	// If it is not enforced, only the header reports it.
	if err := sim.SetSettings(pcsim.Settings{WithoutMFA: true, MFAPassPercent: 100}); err != nil {
		t.Fatal(err)
	}
	e = consult(t, environ, Options{Customer: allowedID})
	e.want(checkMFA, VerdictFailure)
	e.want(checkAccount, VerdictOK)
}

func TestDoctorWarnsIfPartnerCenterDoesNotReportMFA(t *testing.T) {
	t.Parallel()
	sim, _ := pcsimtest.Start(t)
	silent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("ValidateMfa")
		sim.Handler().ServeHTTP(w, r)
	}))
	defer silent.Close()
	consult(t, pcsimtest.Environ(silent.URL, pcsimtest.TokenFile(t)), Options{}).want(checkMFA, VerdictWarning, "unknown")
}

func TestDoctorReportsTheLimitsOfAppOnly(t *testing.T) {
	t.Parallel()
	_, partnerCenter := pcsimtest.Start(t)
	e := consult(t, pcsimtest.Environ(partnerCenter.URL, "", "ELIGIBILITY_PARTNER_CENTER__FLOW=app_only"), Options{Customer: allowedID})
	e.want(checkToken, VerdictOK, "app_only")
	e.want(checkMFA, VerdictSkipped)
	e.want(checkAccount, VerdictWarning, "no purchase can be decided", "app_user")
	e.want(checkQualifications, VerdictOK)
	if e.Has(checkTokenFile) || e.Failed {
		t.Error(e.Text)
	}
}

func TestDoctorAsksForThisPartnersCustomers(t *testing.T) {
	t.Parallel()
	_, partnerCenter := pcsimtest.Start(t)
	e := consult(t, pcsimtest.Environ(partnerCenter.URL, pcsimtest.TokenFile(t)), Options{Customer: nobodyID})
	for _, check := range []string{checkAccount, checkQualifications} {
		e.want(check, VerdictFailure, "60003", "MS-CorrelationId", "customer of this partner")
	}
	e.want(checkMFA, VerdictOK)
}

func TestDoctorLooksAtTheTokenFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := func(name string, mode os.FileMode, content string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for name, c := range map[string]struct {
		path   string
		status Verdict
		word   string
	}{
		"good":           {path("good", 0o600, "x"), VerdictOK, "good"},
		"open to others": {path("open", 0o644, "x"), VerdictWarning, "chmod 600"},
		"empty":          {path("empty", 0o600, ""), VerdictFailure, "eligibilityd login --config c.yaml"},
		"absent":         {filepath.Join(dir, "absent"), VerdictFailure, "eligibilityd login --config c.yaml"},
		"a directory":    {dir, VerdictFailure, "no regular file"},
		"below a file":   {filepath.Join(dir, "good", "x"), VerdictFailure, "readable"},
	} {
		if got := checkRefreshTokenFile(c.path, "c.yaml"); got.Status != c.status || !strings.Contains(got.Detail+got.Remedy, c.word) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestDoctorNamesEveryMistake(t *testing.T) {
	t.Parallel()
	e := consult(t, []string{"ELIGIBILITY_POLICY__FAIL_OPEN=true", "ELIGIBILITY_LOG__LEVEL=loud"}, Options{})
	e.want("configuration", VerdictFailure)
	e.want("others", VerdictSkipped)
	if n := strings.Count(e.Text, `"configuration"`); n != 2 {
		t.Errorf("%d mistakes: %s", n, e.Text)
	}
	away := httptest.NewServer(http.NotFoundHandler())
	away.Close()
	e = consult(t, []string{
		"ELIGIBILITY_PARTNER_CENTER__BASE_URL=" + away.URL, "ELIGIBILITY_PARTNER_CENTER__AUTHORITY=" + away.URL,
	}, Options{})
	if n := strings.Count(e.Text, `"configuration"`); n != 4 {
		t.Errorf("%d keys are missing: %s", n, e.Text)
	}
	e.want("login host", VerdictFailure, "refuses connections")
	e.want("clock", VerdictSkipped)
	e.want(checkToken, VerdictSkipped, "not complete")
}

func TestDoctorReadsTheClock(t *testing.T) {
	t.Parallel()
	for skew, want := range map[time.Duration]Verdict{
		0: VerdictOK, 30 * time.Second: VerdictOK, 90 * time.Second: VerdictWarning, -90 * time.Second: VerdictWarning,
		10 * time.Minute: VerdictFailure, -10 * time.Minute: VerdictFailure,
	} {
		sim, partnerCenter := pcsimtest.Start(t)
		if err := sim.SetSettings(pcsim.Settings{ClockSkew: skew}); err != nil {
			t.Fatal(err)
		}
		e := consult(t, pcsimtest.Environ(partnerCenter.URL, pcsimtest.TokenFile(t)), Options{})
		e.want("clock", want)
		if want == VerdictFailure {
			e.want("clock", want, map[bool]string{true: "behind", false: "ahead of"}[skew > 0], "NTP")
		}
	}
}

func TestDoctorReadsCertificates(t *testing.T) {
	t.Parallel()
	sim, _ := pcsimtest.Start(t)
	secure := httptest.NewUnstartedServer(sim.Handler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // of clients that trust no authority
	secure.StartTLS()
	defer secure.Close()
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	environ := pcsimtest.Environ(secure.URL, pcsimtest.TokenFile(t))
	consult(t, environ, Options{Roots: roots}).want("login host", VerdictOK, "TLS 1.3", "more days")
	consult(t, environ, Options{Roots: x509.NewCertPool()}).want("login host", VerdictFailure, "tls: certificate of an unknown authority")
	consult(t, pcsimtest.Environ(strings.Replace(secure.URL, "127.0.0.1", "name.invalid", 1), pcsimtest.TokenFile(t)), Options{Roots: roots}).
		want("partner center host", VerdictFailure, "DNS")

	ends := secure.Certificate().NotAfter
	host := hostCheck{name: "login host", key: "authority", root: secure.URL}
	for before, want := range map[time.Duration]Verdict{15 * 24 * time.Hour: VerdictOK, 13 * 24 * time.Hour: VerdictWarning} {
		state := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{secure.Certificate()}}
		if got := host.reached(state, ends.Add(-before)); got.Status != want {
			t.Errorf("%v before its end: %+v", before, got)
		}
	}
}

func TestDoctorTriesTheListeners(t *testing.T) {
	t.Parallel()
	taken, err := app.Listen(t.Context(), "test", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	_, partnerCenter := pcsimtest.Start(t)
	e := consult(t, pcsimtest.Environ(partnerCenter.URL, pcsimtest.TokenFile(t),
		"ELIGIBILITY_SERVER__INSECURE=true",
		"ELIGIBILITY_SERVER__GRPC__ADDRESS=203.0.113.1:0",
		"ELIGIBILITY_SERVER__HTTP__ADDRESS=0.0.0.0:0",
		"ELIGIBILITY_SERVER__ADMIN__ADDRESS="+taken.Addr().String(),
	), Options{})
	e.want("listener grpc", VerdictFailure, "server.grpc.address")
	e.want("listener http", VerdictWarning, "server.insecure")
	e.want("listener admin", VerdictWarning, "is the service running?")
}
