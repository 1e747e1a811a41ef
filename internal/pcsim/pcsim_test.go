package pcsim_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

const (
	audience   = "https://api.partnercenter.microsoft.com"
	customerID = "12345678-90ab-4cde-8f01-234567890abc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a simulator behind a real socket.
type rig struct {
	*pcsim.Server
	t      *testing.T
	url    string
	client *http.Client
	clock  *clock
}

// clock is a wall clock that moves only when advanced.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func start(t *testing.T, cfg pcsim.Config) *rig {
	t.Helper()
	c := &clock{now: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)}
	if cfg.Now == nil {
		cfg.Now = c.Now
	}
	s, err := pcsim.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewServer(s.Handler())
	transport := &http.Transport{}
	t.Cleanup(func() {
		s.Close()
		ts.Close()
		transport.CloseIdleConnections()
	})
	return &rig{Server: s, t: t, url: ts.URL, client: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, clock: c}
}

// reply is an answer whose body has been read.
type reply struct {
	status int
	header http.Header
	body   string
}

func (r *rig) do(req *http.Request) (reply, error) {
	resp, err := r.client.Do(req)
	if err != nil {
		return reply{}, err
	}
	body, err := io.ReadAll(resp.Body)
	if closeErr := resp.Body.Close(); closeErr != nil {
		r.t.Error(closeErr)
	}
	return reply{resp.StatusCode, resp.Header, string(body)}, err
}

func (r *rig) request(method, path, token string) *http.Request {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, http.NoBody)
	if err != nil {
		r.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return req
}

func (r *rig) get(path, token string) reply {
	r.t.Helper()
	got, err := r.do(r.request(http.MethodGet, path, token))
	if err != nil {
		r.t.Fatal(err)
	}
	return got
}

func (r *rig) account(id, token string) reply {
	r.t.Helper()
	return r.get("/v1/customers/"+id+"/validationStatus?type=account", token)
}

func (r *rig) qualifications(id, token string) reply {
	r.t.Helper()
	return r.get("/v1/customers/"+id+"/qualifications", token)
}

// postToken sends a token request; if a value is empty, its key is left out.
func (r *rig) postToken(ctx context.Context, path string, form url.Values) (reply, error) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/"+path, strings.NewReader(form.Encode()))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r.do(req)
}

const (
	v1Path = pcsim.DefaultTenantID + "/oauth2/token"
	v2Path = pcsim.DefaultTenantID + "/oauth2/v2.0/token"
)

// refreshForm is a valid v2 refresh request with changes: key, value, …. If a
// value is empty, the key is removed.
func refreshForm(changes ...string) url.Values {
	form := url.Values{
		"grant_type":    {"refresh_token"},
		"client_id":     {pcsim.DefaultClientID},
		"client_secret": {pcsim.DefaultClientSecret},
		"refresh_token": {pcsim.DefaultRefreshToken},
		"scope":         {audience + "/user_impersonation offline_access"},
	}
	for i := 0; i < len(changes); i += 2 {
		if changes[i+1] == "" {
			form.Del(changes[i])
			continue
		}
		form.Set(changes[i], changes[i+1])
	}
	return form
}

// appOnlyForm is a valid v2 client_credentials request.
func appOnlyForm() url.Values {
	return refreshForm("grant_type", "client_credentials", "refresh_token", "", "scope", audience+"/.default")
}

func (r *rig) grant(path string, form url.Values) map[string]any {
	r.t.Helper()
	got, err := r.postToken(r.t.Context(), path, form)
	if err != nil {
		r.t.Fatal(err)
	}
	if got.status != http.StatusOK {
		r.t.Fatalf("token request: status %d: %s", got.status, got.body)
	}
	return decode(r.t, got.body)
}

// userToken returns a valid app+user access token.
func (r *rig) userToken() string {
	r.t.Helper()
	return r.grant(v2Path, refreshForm())["access_token"].(string)
}

func (r *rig) set(c pcsim.Customer) {
	r.t.Helper()
	if err := r.SetCustomer(c); err != nil {
		r.t.Fatal(err)
	}
}

func decode(t *testing.T, body string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return v
}

// code returns the error code in a Partner Center body, or 0 if there is none.
func code(body string) int {
	var v struct{ Code int }
	if json.Unmarshal([]byte(body), &v) != nil {
		return 0
	}
	return v.Code
}

func accountWithStatus(status string) pcsim.Customer {
	return pcsim.Customer{ID: customerID, Account: []pcsim.Step{{Status: status}}}
}
