package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

// startSimulate runs the simulate command and returns the roots of its two
// listeners.
func startSimulate(t *testing.T, args ...string) (api, control string) {
	t.Helper()
	root, out := newRootCommand(), new(output)
	root.SetOut(out)
	root.SetErr(new(output))
	root.SetArgs(append([]string{"simulate", "--address=127.0.0.1:0", "--control-address=127.0.0.1:0"}, args...))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- root.ExecuteContext(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("simulate ended with: %v", err)
		}
	})
	var at []string
	out.await(t, "the addresses of the simulator", func(printed string) bool {
		at = regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindAllString(printed, -1)
		return len(at) == 2
	})
	return at[0], at[1]
}

func TestSimulateAcceptsSettings(t *testing.T) {
	t.Parallel()
	_, control := startSimulate(t, "--without-mfa", "--mfa-pass-percent=50", "--clock-skew=-10m")
	_, _, body := get(t, control+"/v1/settings")
	if diff := cmp.Diff(`{"without_mfa":true,"mfa_pass_percent":50,"clock_skew":"-10m0s"}`+"\n", body); diff != "" {
		t.Error(diff)
	}
}

func TestSimulateAcceptsCertificates(t *testing.T) {
	t.Parallel()
	one, _ := clientCertificate(t, time.Hour)
	two, _ := clientCertificate(t, time.Hour)
	api, _ := startSimulate(t, "--client-certificate="+one, "--client-certificate="+two)
	for _, file := range []string{one, two} {
		consult(t, pcsimtest.Environ(api, pcsimtest.TokenFile(t), withCertificate(file)...)).Want("token", "ok")
	}
}

func TestSimulateRejectsInvalidScripts(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for flag, want := range map[string]string{
		"--mfa-pass-percent=101":         "mfa_pass_percent: 101 is not from 0 to 100",
		"--client-certificate=" + empty:  "holds no certificate in PEM",
		"--client-certificate=/no/where": "--client-certificate /no/where: no such file",
	} {
		root := newRootCommand()
		root.SetOut(new(output))
		root.SetArgs([]string{"simulate", "--address=127.0.0.1:0", "--control-address=127.0.0.1:0", flag})
		if err := root.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", flag, err)
		}
	}
}

// TestNoWebPageCanDriveTheSimulator sends the requests that a page in a browser
// can send to both listeners.
func TestNoWebPageCanDriveTheSimulator(t *testing.T) {
	t.Parallel()
	api, control := startSimulate(t)
	link := []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}
	for name, row := range map[string]struct {
		method, url, host string
		headers           []string
		refused           bool
	}{
		"the control API by another name":  {"GET", control + "/v1/customers", "rebound.example:9081", nil, true},
		"a reset by another name":          {"POST", control + "/v1/reset", "rebound.example:9081", nil, true},
		"a reset from another site":        {"POST", control + "/v1/reset", "", []string{"Sec-Fetch-Site", "cross-site"}, true},
		"a link to the control API":        {"GET", control + "/v1/customers", "", link, true},
		"the control API by localhost":     {"GET", control + "/v1/customers", "localhost", nil, false},
		"Partner Center by another name":   {"GET", api + "/v1/customers/x/qualifications", "rebound.example", nil, true},
		"Partner Center from another site": {"GET", api + "/v1/customers/x/qualifications", "", link, true},
		"a link to the sign-in page":       {"GET", api + "/" + pcsim.DefaultTenantID + "/oauth2/v2.0/authorize", "", link, false},
	} {
		req, err := http.NewRequestWithContext(t.Context(), row.method, row.url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = row.host
		for i := 0; i < len(row.headers); i += 2 {
			req.Header.Set(row.headers[i], row.headers[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if (resp.StatusCode == http.StatusForbidden) != row.refused {
			t.Errorf("%s: %d, refused: %v", name, resp.StatusCode, row.refused)
		}
	}
}
