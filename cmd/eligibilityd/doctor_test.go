package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/app"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// examined is what doctor said, by check.
type examined struct {
	t       *testing.T
	checks  map[string]finding
	printed string
	failed  bool // by exit code
}

// consult runs doctor as JSON and checks what holds for every report.
func consult(t *testing.T, environ []string, flags doctorFlags, roots *x509.CertPool) examined {
	t.Helper()
	flags.json = true
	var out bytes.Buffer
	err := doctor(t.Context(), environ, flags, roots, &out)
	exit, isExit := errors.AsType[*exitError](err)
	if err != nil && (!isExit || exit.code != exitFailure || exit.err != nil) {
		t.Fatal(err)
	}
	var findings []finding
	if err := json.Unmarshal(out.Bytes(), &findings); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	e := examined{t: t, checks: map[string]finding{}, printed: out.String(), failed: err != nil}
	failures := false
	for _, f := range findings {
		if _, again := e.checks[f.Check]; !again {
			e.checks[f.Check] = f
		}
		failures = failures || f.Status == verdictFailure
		if hasRemedy := f.Remedy != ""; hasRemedy != (f.Status == verdictFailure || f.Status == verdictWarning) || f.Detail == "" {
			t.Errorf("%+v", f)
		}
	}
	if failures != e.failed {
		t.Errorf("failures %v, exit code 1 %v", failures, e.failed)
	}
	if strings.Contains(e.printed, pcsim.DefaultClientSecret) || strings.Contains(e.printed, pcsim.DefaultRefreshToken) {
		t.Errorf("a secret is printed: %s", e.printed)
	}
	return e
}

// says fails the test unless a check came to that verdict, in such words.
func (e examined) says(check string, status verdict, words ...string) {
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

// connection are the variables of a connection to a simulator.
func connection(simulator, tokenFile string, more ...string) []string {
	environ := more
	for _, entry := range anyPort() {
		name, value, _ := strings.Cut(entry, "=")
		environ = withDefault(environ, name, value)
	}
	for name, value := range map[string]string{
		"BASE_URL": simulator, "AUTHORITY": simulator, "TENANT_ID": pcsim.DefaultTenantID, "CLIENT_ID": pcsim.DefaultClientID,
		"CLIENT_SECRET": pcsim.DefaultClientSecret, "REFRESH_TOKEN_FILE": tokenFile,
	} {
		environ = withDefault(environ, "ELIGIBILITY_PARTNER_CENTER__"+name, value)
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
	e := consult(t, environ, doctorFlags{customer: allowedID}, nil)
	for _, check := range []string{
		"configuration", "login host", "partner center host", "clock", checkTokenFile, checkToken, checkMFA,
		checkAccount, checkQualifications, checkRedisReach, checkRedisAccess, checkRedisMessages, checkRedisMemory,
		"listener grpc", "listener http", "listener admin",
	} {
		e.says(check, verdictOK)
	}
	if len(e.checks) != 16 {
		t.Errorf("%d checks: %s", len(e.checks), e.printed)
	}
	e.says(checkAccount, verdictOK, `"Allowed"`)
	e.says(checkRedisReach, verdictOK, "7.")
	if content, err := os.ReadFile(file); err != nil || string(content) != pcsim.DefaultRefreshToken {
		t.Errorf("the refresh token's file was changed: %v", err)
	}
	if n := keysIn(t, redis); n != 0 {
		t.Errorf("%d keys are left behind", n)
	}

	e = consult(t, environ, doctorFlags{}, nil)
	e.says(checkMFA, verdictOK)
	e.says(checkAccount, verdictSkipped, "--customer")
	e.says(checkQualifications, verdictSkipped, "--customer")
}

func TestDoctorPrintsALineForEachCheck(t *testing.T) {
	t.Parallel()
	_, partnerCenter := simulator(t)
	var out bytes.Buffer
	if err := doctor(t.Context(), connection(partnerCenter.URL, tokenFile(t)), doctorFlags{}, nil, &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 13 || !strings.HasPrefix(lines[5], "ok       token ") {
		t.Errorf("%d lines:\n%s", len(lines), out.String())
	}
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
			e := consult(t, connection(partnerCenter.URL, tokenFile(t), more...), doctorFlags{customer: allowedID}, nil)
			e.says(checkToken, verdictFailure, c.want...)
			for _, check := range []string{checkMFA, checkAccount, checkQualifications} {
				e.says(check, verdictSkipped, "no token")
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
	e := consult(t, environ, doctorFlags{customer: allowedID}, nil)
	e.says(checkToken, verdictOK)
	e.says(checkMFA, verdictFailure, "900421", "eligibilityd login")
	e.says(checkAccount, verdictFailure, "900421", "eligibilityd login")

	// While it is not enforced, only the header says so.
	if err := sim.SetSettings(pcsim.Settings{WithoutMFA: true, MFAPassPercent: 100}); err != nil {
		t.Fatal(err)
	}
	e = consult(t, environ, doctorFlags{customer: allowedID}, nil)
	e.says(checkMFA, verdictFailure)
	e.says(checkAccount, verdictOK)
}

func TestDoctorSaysThatPartnerCenterDoesNotTell(t *testing.T) {
	t.Parallel()
	sim, _ := simulator(t)
	silent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("ValidateMfa")
		sim.Handler().ServeHTTP(w, r)
	}))
	defer silent.Close()
	consult(t, connection(silent.URL, tokenFile(t)), doctorFlags{}, nil).says(checkMFA, verdictWarning, "unknown")
}

func TestDoctorSaysWhatAppOnlyCannotDo(t *testing.T) {
	t.Parallel()
	_, partnerCenter := simulator(t)
	e := consult(t, connection(partnerCenter.URL, "", "ELIGIBILITY_PARTNER_CENTER__FLOW=app_only"), doctorFlags{customer: allowedID}, nil)
	e.says(checkToken, verdictOK, "app_only")
	e.says(checkMFA, verdictSkipped)
	e.says(checkAccount, verdictWarning, "no purchase can be decided", "app_user")
	e.says(checkQualifications, verdictOK)
	if _, said := e.checks[checkTokenFile]; said || e.failed {
		t.Error(e.printed)
	}
}

func TestDoctorAsksForThisPartnersCustomers(t *testing.T) {
	t.Parallel()
	_, partnerCenter := simulator(t)
	e := consult(t, connection(partnerCenter.URL, tokenFile(t)), doctorFlags{customer: nobodyID}, nil)
	for _, check := range []string{checkAccount, checkQualifications} {
		e.says(check, verdictFailure, "60003", "MS-CorrelationId", "customer of this partner")
	}
	e.says(checkMFA, verdictOK)
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
		status verdict
		word   string
	}{
		"good":           {path("good", 0o600, "x"), verdictOK, "good"},
		"open to others": {path("open", 0o644, "x"), verdictWarning, "chmod 600"},
		"empty":          {path("empty", 0o600, ""), verdictFailure, "eligibilityd login --config c.yaml"},
		"absent":         {filepath.Join(dir, "absent"), verdictFailure, "eligibilityd login --config c.yaml"},
		"a directory":    {dir, verdictFailure, "no regular file"},
		"below a file":   {filepath.Join(dir, "good", "x"), verdictFailure, "readable"},
	} {
		if got := checkRefreshTokenFile(c.path, "c.yaml"); got.Status != c.status || !strings.Contains(got.Detail+got.Remedy, c.word) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestDoctorNamesEveryMistake(t *testing.T) {
	t.Parallel()
	e := consult(t, []string{"ELIGIBILITY_POLICY__FAIL_OPEN=true", "ELIGIBILITY_LOG__LEVEL=loud"}, doctorFlags{}, nil)
	e.says("configuration", verdictFailure)
	e.says("others", verdictSkipped)
	if n := strings.Count(e.printed, `"configuration"`); n != 2 {
		t.Errorf("%d mistakes: %s", n, e.printed)
	}
	away := httptest.NewServer(http.NotFoundHandler())
	away.Close()
	e = consult(t, []string{
		"ELIGIBILITY_PARTNER_CENTER__BASE_URL=" + away.URL, "ELIGIBILITY_PARTNER_CENTER__AUTHORITY=" + away.URL,
	}, doctorFlags{}, nil)
	if n := strings.Count(e.printed, `"configuration"`); n != 4 {
		t.Errorf("%d keys are missing: %s", n, e.printed)
	}
	e.says("login host", verdictFailure, "refuses connections")
	e.says("clock", verdictSkipped)
	e.says(checkToken, verdictSkipped, "not complete")
}

func TestDoctorReadsTheClock(t *testing.T) {
	t.Parallel()
	for skew, want := range map[time.Duration]verdict{
		0: verdictOK, 30 * time.Second: verdictOK, 90 * time.Second: verdictWarning, -90 * time.Second: verdictWarning,
		10 * time.Minute: verdictFailure, -10 * time.Minute: verdictFailure,
	} {
		sim, partnerCenter := simulator(t)
		if err := sim.SetSettings(pcsim.Settings{ClockSkew: skew}); err != nil {
			t.Fatal(err)
		}
		e := consult(t, connection(partnerCenter.URL, tokenFile(t)), doctorFlags{}, nil)
		e.says("clock", want)
		if want == verdictFailure {
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
	consult(t, environ, doctorFlags{}, roots).says("login host", verdictOK, "TLS 1.3", "more days")
	consult(t, environ, doctorFlags{}, x509.NewCertPool()).says("login host", verdictFailure, "tls: certificate of an unknown authority")
	consult(t, connection(strings.Replace(secure.URL, "127.0.0.1", "name.invalid", 1), tokenFile(t)), doctorFlags{}, roots).
		says("partner center host", verdictFailure, "DNS")

	ends := secure.Certificate().NotAfter
	host := hostCheck{name: "login host", key: "authority", root: secure.URL}
	for before, want := range map[time.Duration]verdict{15 * 24 * time.Hour: verdictOK, 13 * 24 * time.Hour: verdictWarning} {
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
	), doctorFlags{}, nil)
	e.says("listener grpc", verdictWarning, "is the service running?")
	e.says("listener http", verdictWarning, "server.insecure")
	e.says("listener admin", verdictFailure, "server.admin.address")
}

func TestDoctorTakesACustomerThatIsAGUID(t *testing.T) {
	t.Parallel()
	root := newRootCommand()
	root.SetArgs([]string{"doctor", "--customer", "nobody"})
	root.SetErr(new(output))
	if code := run(t.Context(), root); code != exitUsage {
		t.Errorf("exit code %d", code)
	}
}

func TestDoctorPrintsJSON(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := report([]finding{failure("a", "b > c", "d"), ok("e", "f")}, true, &out); err != nil {
		t.Fatal(err)
	}
	const want = `[
  {
    "check": "a",
    "status": "failure",
    "detail": "d",
    "remedy": "b > c"
  },
  {
    "check": "e",
    "status": "ok",
    "detail": "f"
  }
]
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}
