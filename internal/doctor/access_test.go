package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/doctor/doctortest"
)

// callersOf checks an auth section.
func callersOf(t *testing.T, auth config.Auth) examined {
	t.Helper()
	p := patient{cfg: &config.Config{Auth: auth}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	report, err := json.Marshal(p.checkAccess(ctx))
	if err != nil {
		t.Fatal(err)
	}
	return examined{doctortest.Read(t, report)}
}

// entry is a new entry of a token file.
func entry(t *testing.T, caller string, left time.Duration) string {
	t.Helper()
	token, text, err := access.NewToken(caller, []string{"check", "batch"}, time.Now().Add(left))
	if err != nil || strings.Contains(text, token) {
		t.Fatal(err)
	}
	return text
}

func TestDoctorChecksEveryStaticToken(t *testing.T) {
	t.Parallel()
	fine := entry(t, "checkout", 90*day)
	for name, row := range map[string]struct {
		file    string
		verdict Verdict
		words   []string
	}{
		"fine":             {fine + entry(t, "pipeline", 15*day), VerdictOK, []string{"2 tokens of 2 callers"}},
		"none":             {"[]\n", VerdictOK, []string{"0 tokens"}},
		"soon":             {fine + entry(t, "pipeline", 13*day+time.Hour), VerdictWarning, []string{"entry 2 (pipeline) expires in 13 days", "the last of the caller", "--caller pipeline --rights check,batch"}},
		"past":             {entry(t, "checkout", -time.Hour), VerdictWarning, []string{"entry 1 (checkout) expired at", "the last"}},
		"being rotated":    {entry(t, "checkout", 2*day) + fine, VerdictWarning, []string{"expires in 1 days", "has a later one"}},
		"twice":            {fine + fine, VerdictFailure, []string{"entry 2 (checkout)", "has the sha256 of entry 1"}},
		"an unknown right": {strings.Replace(fine, "batch", "buy", 1), VerdictFailure, []string{"unknown right", "watch_all"}},
		"no rights":        {strings.Replace(fine, ", rights: [check, batch]", "", 1), VerdictFailure, []string{"no rights"}},
		"no YAML":          {"{", VerdictFailure, []string{"not valid YAML"}},
		"empty":            {"", VerdictFailure, []string{"is empty"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			callersOf(t, config.Auth{TokensFile: written(t, []byte(row.file))}).want(checkTokens, row.verdict, row.words...)
		})
	}
	callersOf(t, config.Auth{TokensFile: "/nowhere/tokens.yaml"}).want(checkTokens, VerdictFailure, "/nowhere/tokens.yaml", "no such file", "eligibilityd token")
	callersOf(t, config.Auth{TokensFile: "/dev/zero"}).want(checkTokens, VerdictFailure, "larger")
}

// A token in place of its file's name is an easy mistake. The system opens no file with a
// name of more than 255 bytes.
func TestDoctorPrintsNoToken(t *testing.T) {
	t.Parallel()
	for _, token := range []string{"0.AXsecret-" + strings.Repeat("x", 32), "0.AXsecret-" + strings.Repeat("x", 1500)} {
		if found := callersOf(t, config.Auth{TokensFile: token}); strings.Contains(found.Text, "secret-") {
			t.Error(found.Text)
		}
		if found := checkRefreshTokenFile(token, "c.yaml"); found.Status != VerdictFailure || strings.Contains(found.Detail+found.Remedy, "secret-") {
			t.Errorf("%+v", found)
		}
	}
}

func TestDoctorComparesTheNamesOfCallers(t *testing.T) {
	t.Parallel()
	file := written(t, []byte(entry(t, "checkout", 90*day)))
	auth := config.Auth{
		TokensFile: file, Certificates: []config.CertificateCaller{{Caller: "pipeline", DNS: "pipeline.example"}},
		Callers: map[string]config.Caller{"checkout": {}, "pipeline": {Rights: []string{"batch"}}},
	}
	callersOf(t, auth).want(checkCallers, VerdictOK, "2 with a certificate or a token")
	auth.Callers["chekout"] = config.Caller{}
	callersOf(t, auth).want(checkCallers, VerdictWarning, "chekout", "remove them")
	callersOf(t, config.Auth{}).want(checkCallers, VerdictOK, "anonymous", "may do everything")
}

func TestDoctorFetchesTheKeysOfEachIssuer(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		change  func(*accesstest.Issuer, *config.JWT)
		verdict Verdict
		words   []string
	}{
		"fine":             {func(*accesstest.Issuer, *config.JWT) {}, VerdictOK, []string{"1 keys for RS256"}},
		"with a keys_url":  {func(i *accesstest.Issuer, c *config.JWT) { c.KeysURL = i.KeysURL() }, VerdictOK, []string{"1 keys"}},
		"another spelling": {func(_ *accesstest.Issuer, c *config.JWT) { c.Issuer += "/" }, VerdictFailure, []string{"another issuer", "to the letter"}},
		"no algorithm":     {func(_ *accesstest.Issuer, c *config.JWT) { c.Algorithms = []string{"ES384"} }, VerdictFailure, []string{"no key for the algorithms"}},
		"fails":            {func(i *accesstest.Issuer, _ *config.JWT) { i.Fail(http.StatusBadGateway) }, VerdictFailure, []string{"status 502"}},
		"floods":           {func(i *accesstest.Issuer, _ *config.JWT) { i.Flood() }, VerdictFailure, []string{"larger than 1 MiB"}},
		"hangs":            {func(i *accesstest.Issuer, _ *config.JWT) { i.Hang() }, VerdictFailure, []string{"deadline"}},
		"away":             {func(i *accesstest.Issuer, _ *config.JWT) { i.Close() }, VerdictFailure, []string{"refused"}},
		"keys over http":   {func(i *accesstest.Issuer, _ *config.JWT) { i.Discover("jwks_uri", "http://keys.example/") }, VerdictFailure, []string{"jwks_uri", "https"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			issuer := accesstest.NewIssuer(t)
			cfg := config.DefaultJWT()
			cfg.Issuer, cfg.Audiences = issuer.URL, []string{"api://eligibilityd"}
			row.change(issuer, &cfg)
			callersOf(t, config.Auth{JWT: []config.JWT{cfg}}).want(checkIssuer, row.verdict, append(row.words, fmt.Sprintf("%.16s", issuer.URL))...)
		})
	}
}
