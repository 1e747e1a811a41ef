package app

import (
	"context"
	"io"
	"math"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// SilentSource is a Partner Center that is never asked.
type SilentSource struct{}

func (SilentSource) Fetch(context.Context, evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
	return eligibility.Evidence{}, eligibility.Call{}, nil
}

func (SilentSource) Room(context.Context, evidence.Lane) int { return math.MaxInt }

func (SilentSource) Obstacles(context.Context) []evidence.Obstacle { return nil }

// consoleAt runs the service with these variables, and returns what opens a page of it:
// the status, where it leads to, and its text.
func consoleAt(t *testing.T, variables ...string) (a *App, url string, open func(at string) (status int, location, body string)) {
	t.Helper()
	cfg, err := config.Load("", append([]string{
		"ELIGIBILITY_SERVER__GRPC__ADDRESS=127.0.0.1:0", "ELIGIBILITY_SERVER__HTTP__ADDRESS=127.0.0.1:0",
		"ELIGIBILITY_SERVER__ADMIN__ADDRESS=127.0.0.1:0", "ELIGIBILITY_SERVER__DRAIN=0s",
	}, variables...), config.Dev)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	a, err = NewWith(ctx, cfg, Build{}, io.Discard, Replacements{Source: func(string) evidence.Source { return SilentSource{} }})
	if err != nil {
		t.Fatal(err)
	}
	on, err := OpenListeners(ctx, cfg.Server)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx, on) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{
		Transport: &http.Transport{DisableKeepAlives: true}, Jar: jar,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	url = "http://" + on.HTTP.Addr().String()
	return a, url, func(at string) (int, string, string) {
		if strings.HasPrefix(at, "/") {
			at = url + at
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header.Get("Location"), string(body)
	}
}

func TestTheConsoleIsOffByDefault(t *testing.T) {
	t.Parallel()
	_, _, open := consoleAt(t)
	if status, _, body := open("/console"); status != http.StatusNotFound || strings.Contains(body, "<html") {
		t.Errorf("%d %s", status, body)
	}
}

// The whole service signs people in, and ends their sessions when the file of the secret
// changes.
func TestTheConsoleFollowsTheFileOfItsSecret(t *testing.T) {
	t.Parallel()
	const first, second = "the-first-secret-of-the-console", "the-second-secret-of-the-console"
	secret := filepath.Join(t.TempDir(), "secret")
	write := func(text string) {
		if err := os.WriteFile(secret, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(first)
	issuer := accesstest.NewIssuer(t)
	provider := issuer.Provide(t, &accesstest.Provider{
		ClientID: "console", ClientSecret: first, People: []accesstest.Person{{Name: "anna@contoso.example", Roles: access.Words()}},
	})
	a, url, open := consoleAt(t,
		"ELIGIBILITY_AUTH__JWT=[{issuer: "+issuer.URL+", audiences: ["+accesstest.Audience+"]}]", "ELIGIBILITY_CONSOLE__ENABLED=true",
		"ELIGIBILITY_CONSOLE__OIDC__CLIENT_ID=console", "ELIGIBILITY_CONSOLE__OIDC__CLIENT_SECRET_FILE="+secret)
	provider.Change(func(p *accesstest.Provider) { p.RedirectURIs = []string{url + "/console/callback"} })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	a.access.AwaitKeys(ctx)
	signIn := func() {
		t.Helper()
		_, at, body := open("/console/sign-in")
		if at == "" {
			t.Fatal(body)
		}
		if status, to, body := open(accesstest.Choose(t, at, "anna@contoso.example")); status != http.StatusSeeOther || to != "/console" {
			t.Fatalf("%d %s %s", status, to, body)
		}
		if status, _, body := open("/console"); status != http.StatusOK || !strings.Contains(body, "anna@contoso.example") {
			t.Fatalf("%d %s", status, body)
		}
	}
	signIn()
	provider.Change(func(p *accesstest.Provider) { p.ClientSecret = second })
	write(second)
	a.reload()
	for deadline := time.Now().Add(30 * time.Second); ; {
		if status, _, _ := open("/console"); status == http.StatusSeeOther {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the session outlives its secret")
		}
	}
	signIn()
}
