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
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/eligibilityd/eligibilityd/internal/app"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
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

// simulator starts a Partner Center simulator on a real socket.
func simulator(t *testing.T) (*pcsim.Server, *httptest.Server) {
	t.Helper()
	sim, err := pcsim.New(pcsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	on := httptest.NewServer(sim.Handler())
	t.Cleanup(func() {
		sim.Close()
		on.Close()
	})
	return sim, on
}

func keysIn(t *testing.T, redis *cachetest.Redis) int64 {
	t.Helper()
	client := redis.Client()
	defer func() { _ = client.Close() }()
	ctx := context.Background()
	return int64(len(client.Keys(ctx, "*:account").Val()) + len(client.Keys(ctx, "*:qualifications").Val()))
}

// examined is what doctor said, by check.
type examined struct {
	t       *testing.T
	checks  map[string]Finding
	printed string
	failed  bool
}

// consult examines and checks what holds for every report.
func consult(t *testing.T, environ []string, options Options) examined {
	t.Helper()
	findings := Examine(t.Context(), environ, options)
	printed, err := json.Marshal(findings)
	if err != nil {
		t.Fatal(err)
	}
	e := examined{t: t, checks: map[string]Finding{}, printed: string(printed)}
	for _, f := range findings {
		if _, again := e.checks[f.Check]; !again {
			e.checks[f.Check] = f
		}
		e.failed = e.failed || f.Status == VerdictFailure
		if hasRemedy := f.Remedy != ""; hasRemedy != (f.Status == VerdictFailure || f.Status == VerdictWarning) || f.Detail == "" {
			t.Errorf("%+v", f)
		}
	}
	if strings.Contains(e.printed, pcsim.DefaultClientSecret) || strings.Contains(e.printed, pcsim.DefaultRefreshToken) {
		t.Errorf("a secret is printed: %s", e.printed)
	}
	return e
}

// says fails the test unless a check came to that verdict, in such words.
func (e examined) says(check string, status Verdict, words ...string) {
	e.t.Helper()
	got := e.checks[check]
	if got.Status != status {
		e.t.Errorf("%s: %+v, want %s", check, got, status)
	}
	for _, word := range words {
		if !strings.Contains(got.Detail+"; "+got.Remedy, word) {
			e.t.Errorf("%s: %+v, want %q in it; all: %s", check, got, word, e.printed)
		}
	}
}

// connection returns the variables of a connection to a simulator, and of
// listeners on any free port. If more sets a variable, it wins.
func connection(simulator, tokenFile string, more ...string) []string {
	environ := slices.Clone(more)
	for name, value := range map[string]string{
		"SERVER__GRPC__ADDRESS": "127.0.0.1:0", "SERVER__HTTP__ADDRESS": "127.0.0.1:0", "SERVER__ADMIN__ADDRESS": "127.0.0.1:0",
		"PARTNER_CENTER__BASE_URL": simulator, "PARTNER_CENTER__AUTHORITY": simulator,
		"PARTNER_CENTER__TENANT_ID": pcsim.DefaultTenantID, "PARTNER_CENTER__CLIENT_ID": pcsim.DefaultClientID,
		"PARTNER_CENTER__CLIENT_SECRET": pcsim.DefaultClientSecret, "PARTNER_CENTER__REFRESH_TOKEN_FILE": tokenFile,
	} {
		entry := "ELIGIBILITY_" + name + "="
		if !slices.ContainsFunc(more, func(set string) bool { return strings.HasPrefix(set, entry) }) {
			environ = append(environ, entry+value)
		}
	}
	return environ
}

// tokenFile holds the simulator's refresh token.
func tokenFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "refresh-token")
	if err := os.WriteFile(path, []byte(pcsim.DefaultRefreshToken), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDoctorFindsAHealthyServiceHealthy(t *testing.T) {
	t.Parallel()
	_, partnerCenter := simulator(t)
	redis := cachetest.StartRedis(t)
	client := redis.Client()
	defer func() { _ = client.Close() }()
	if err := client.ConfigSet(t.Context(), "maxmemory-policy", "volatile-lru").Err(); err != nil {
		t.Fatal(err)
	}
	file := tokenFile(t)
	environ := connection(partnerCenter.URL, file,
		"ELIGIBILITY_CACHE__REDIS__ADDRESSES="+redis.Address, "ELIGIBILITY_CACHE__REDIS__READ_TIMEOUT=1s")
	e := consult(t, environ, Options{Customer: allowedID})
	for _, check := range []string{
		"configuration", "login host", "partner center host", "clock", checkTokenFile, checkToken, checkMFA,
		checkAccount, checkQualifications, checkRedisReach, checkRedisAccess, checkRedisMessages, checkRedisMemory,
		"listener grpc", "listener http", "listener admin",
	} {
		e.says(check, VerdictOK)
	}
	if len(e.checks) != 16 {
		t.Errorf("%d checks: %s", len(e.checks), e.printed)
	}
	e.says(checkAccount, VerdictOK, `"Allowed"`)
	e.says(checkRedisReach, VerdictOK, "7.")
	if content, err := os.ReadFile(file); err != nil || string(content) != pcsim.DefaultRefreshToken {
		t.Errorf("the refresh token's file was changed: %v", err)
	}
	if n := keysIn(t, redis); n != 0 {
		t.Errorf("%d keys are left behind", n)
	}

	e = consult(t, environ, Options{})
	e.says(checkMFA, VerdictOK)
	e.says(checkAccount, VerdictSkipped, "--customer")
	e.says(checkQualifications, VerdictSkipped, "--customer")
}

func TestDoctorSaysWhatToDoAboutTheToken(t *testing.T) {
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
			sim, partnerCenter := simulator(t)
			if c.token != nil {
				if err := sim.ScriptTokens(*c.token); err != nil {
					t.Fatal(err)
				}
			}
			more := []string{}
			if c.environ != "" {
				more = append(more, c.environ)
			}
			e := consult(t, connection(partnerCenter.URL, tokenFile(t), more...), Options{Customer: allowedID})
			e.says(checkToken, VerdictFailure, c.want...)
			for _, check := range []string{checkMFA, checkAccount, checkQualifications} {
				e.says(check, VerdictSkipped, "no token")
			}
		})
	}
}

// H-08, A-02.
func TestDoctorMissesMFA(t *testing.T) {
	t.Parallel()
	sim, partnerCenter := simulator(t)
	if err := sim.SetSettings(pcsim.Settings{WithoutMFA: true}); err != nil {
		t.Fatal(err)
	}
	environ := connection(partnerCenter.URL, tokenFile(t))
	e := consult(t, environ, Options{Customer: allowedID})
	e.says(checkToken, VerdictOK)
	e.says(checkMFA, VerdictFailure, "900421", "eligibilityd login")
	e.says(checkAccount, VerdictFailure, "900421", "eligibilityd login")

	// While it is not enforced, only the header says so.
	if err := sim.SetSettings(pcsim.Settings{WithoutMFA: true, MFAPassPercent: 100}); err != nil {
		t.Fatal(err)
	}
	e = consult(t, environ, Options{Customer: allowedID})
	e.says(checkMFA, VerdictFailure)
	e.says(checkAccount, VerdictOK)
}

func TestDoctorSaysThatPartnerCenterDoesNotTell(t *testing.T) {
	t.Parallel()
	sim, _ := simulator(t)
	silent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("ValidateMfa")
		sim.Handler().ServeHTTP(w, r)
	}))
	defer silent.Close()
	consult(t, connection(silent.URL, tokenFile(t)), Options{}).says(checkMFA, VerdictWarning, "unknown")
}

func TestDoctorSaysWhatAppOnlyCannotDo(t *testing.T) {
	t.Parallel()
	_, partnerCenter := simulator(t)
	e := consult(t, connection(partnerCenter.URL, "", "ELIGIBILITY_PARTNER_CENTER__FLOW=app_only"), Options{Customer: allowedID})
	e.says(checkToken, VerdictOK, "app_only")
	e.says(checkMFA, VerdictSkipped)
	e.says(checkAccount, VerdictWarning, "no purchase can be decided", "app_user")
	e.says(checkQualifications, VerdictOK)
	if _, said := e.checks[checkTokenFile]; said || e.failed {
		t.Error(e.printed)
	}
}

func TestDoctorAsksForThisPartnersCustomers(t *testing.T) {
	t.Parallel()
	_, partnerCenter := simulator(t)
	e := consult(t, connection(partnerCenter.URL, tokenFile(t)), Options{Customer: nobodyID})
	for _, check := range []string{checkAccount, checkQualifications} {
		e.says(check, VerdictFailure, "60003", "MS-CorrelationId", "customer of this partner")
	}
	e.says(checkMFA, VerdictOK)
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
	e.says("configuration", VerdictFailure)
	e.says("others", VerdictSkipped)
	if n := strings.Count(e.printed, `"configuration"`); n != 2 {
		t.Errorf("%d mistakes: %s", n, e.printed)
	}
	away := httptest.NewServer(http.NotFoundHandler())
	away.Close()
	e = consult(t, []string{
		"ELIGIBILITY_PARTNER_CENTER__BASE_URL=" + away.URL, "ELIGIBILITY_PARTNER_CENTER__AUTHORITY=" + away.URL,
	}, Options{})
	if n := strings.Count(e.printed, `"configuration"`); n != 4 {
		t.Errorf("%d keys are missing: %s", n, e.printed)
	}
	e.says("login host", VerdictFailure, "refuses connections")
	e.says("clock", VerdictSkipped)
	e.says(checkToken, VerdictSkipped, "not complete")
}

func TestDoctorReadsTheClock(t *testing.T) {
	t.Parallel()
	for skew, want := range map[time.Duration]Verdict{
		0: VerdictOK, 30 * time.Second: VerdictOK, 90 * time.Second: VerdictWarning, -90 * time.Second: VerdictWarning,
		10 * time.Minute: VerdictFailure, -10 * time.Minute: VerdictFailure,
	} {
		sim, partnerCenter := simulator(t)
		if err := sim.SetSettings(pcsim.Settings{ClockSkew: skew}); err != nil {
			t.Fatal(err)
		}
		e := consult(t, connection(partnerCenter.URL, tokenFile(t)), Options{})
		e.says("clock", want)
		if want == VerdictFailure {
			e.says("clock", want, map[bool]string{true: "behind", false: "ahead of"}[skew > 0], "NTP")
		}
	}
}

func TestDoctorReadsCertificates(t *testing.T) {
	t.Parallel()
	sim, _ := simulator(t)
	secure := httptest.NewUnstartedServer(sim.Handler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // of clients that trust nobody
	secure.StartTLS()
	defer secure.Close()
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	environ := connection(secure.URL, tokenFile(t))
	consult(t, environ, Options{Roots: roots}).says("login host", VerdictOK, "TLS 1.3", "more days")
	consult(t, environ, Options{Roots: x509.NewCertPool()}).says("login host", VerdictFailure, "tls: certificate of an unknown authority")
	consult(t, connection(strings.Replace(secure.URL, "127.0.0.1", "name.invalid", 1), tokenFile(t)), Options{Roots: roots}).
		says("partner center host", VerdictFailure, "DNS")

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
	_, partnerCenter := simulator(t)
	e := consult(t, connection(partnerCenter.URL, tokenFile(t),
		"ELIGIBILITY_SERVER__INSECURE=true",
		"ELIGIBILITY_SERVER__GRPC__ADDRESS="+taken.Addr().String(),
		"ELIGIBILITY_SERVER__HTTP__ADDRESS=0.0.0.0:0",
		"ELIGIBILITY_SERVER__ADMIN__ADDRESS=203.0.113.1:0",
	), Options{})
	e.says("listener grpc", VerdictWarning, "is the service running?")
	e.says("listener http", VerdictWarning, "server.insecure")
	e.says("listener admin", VerdictFailure, "server.admin.address")
}
