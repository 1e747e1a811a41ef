package main

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"html/template"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/doctor"
	"github.com/eligibilityd/eligibilityd/internal/pcclient"
)

//go:embed login.html
var loginPage string

// loginStyle is the page's only style; the page's Content-Security-Policy
// allows no other.
const loginStyle = `body{font:1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:4rem auto;padding:0 1rem}` +
	`h1{font-size:1.4rem}code{overflow-wrap:anywhere}.ok h1{color:#18692b}.failed h1{color:#a4161a}`

// callback serves the page to which the login host redirects the browser. It
// accepts one answer and ignores any other request.
type callback struct {
	ctx     context.Context //nolint:containedctx // the command's: if the browser disconnects, the exchange continues
	consent *pcclient.Consent
	config  string // the configuration file, for the next steps
	host    string // the Host header of the redirected browser
	page    *template.Template
	policy  string
	taken   atomic.Bool
	results chan loginResult
	server  *http.Server
	served  chan error
}

// newCallback serves on listener until await.
func newCallback(ctx context.Context, consent *pcclient.Consent, listener net.Listener, configFile string) *callback {
	sum := sha256.Sum256([]byte(loginStyle))
	c := &callback{
		ctx:     ctx,
		consent: consent,
		config:  configFile,
		host:    redirectURL(listener),
		page:    template.Must(template.New("login").Parse(loginPage)),
		policy: "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
			"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		results: make(chan loginResult, 1),
		served:  make(chan error, 1),
	}
	c.server = &http.Server{
		Handler:           c,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		IdleTimeout:       5 * time.Second,
		MaxHeaderBytes:    64 << 10,
	}
	go func() { c.served <- c.server.Serve(listener) }()
	return c
}

// loginView is the content of the page.
type loginView struct {
	Style   template.CSS
	Class   string
	Title   string
	Message string
	Todo    string // with commands in backticks
}

// passage is plain text or a command.
type passage struct {
	Text    string
	Command bool
}

// Passages returns the next steps, with commands marked.
func (v loginView) Passages() []passage {
	var all []passage
	for part := range strings.SplitSeq(v.Todo, "`") {
		all = append(all, passage{Text: part, Command: len(all)%2 == 1})
	}
	return all
}

// ServeHTTP answers the browser.
func (c *callback) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", c.policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer") // the address holds the code
	h.Set("Cache-Control", "no-store")
	query := r.URL.Query()
	switch {
	case r.URL.Path != "/" || "http://"+r.Host+"/" != c.host:
		c.respond(w, http.StatusNotFound, loginView{Title: "Nothing here", Message: "eligibilityd waits for a sign-in at another address."})
	case r.Method != http.MethodGet:
		h.Set("Allow", http.MethodGet)
		c.respond(w, http.StatusMethodNotAllowed, loginView{Title: "Not understood", Message: "This page is only for the answer to a sign-in."})
	case len(query["state"]) != 1 || !c.consent.Expects(query.Get("state")):
		c.respond(w, http.StatusBadRequest, loginView{
			Class: "failed", Title: "Not the sign-in that was asked for",
			Message: "This answer does not belong to the sign-in that eligibilityd waits for, so nothing was done with it.",
			Todo:    "Open the address that stands in the terminal. eligibilityd goes on waiting.",
		})
	case len(query["code"])+len(query["error"]) != 1:
		c.respond(w, http.StatusBadRequest, loginView{
			Class: "failed", Title: "Not understood", Message: "The answer holds neither one code nor one error.",
			Todo: "Open the address that stands in the terminal once more.",
		})
	case !c.taken.CompareAndSwap(false, true):
		c.respond(w, http.StatusConflict, loginView{
			Class: "failed", Title: "Already used", Message: "This sign-in has been answered before, and an answer counts once.",
			Todo: "See the terminal for what became of it.",
		})
	default:
		c.settle(w, query.Get("code"), query.Get("error"))
	}
}

// settle redeems the answer for a refresh token, responds to the browser, and
// then reports to the terminal.
func (c *callback) settle(w http.ResponseWriter, code, refusal string) {
	var result loginResult
	if code == "" {
		result.todo, result.err = refusedConsent(refusal)
	} else if result.tenantID, result.err = c.consent.Redeem(c.ctx, code); result.err != nil {
		result.todo = consentRemedy(result.err)
	} else {
		result.todo = "Next: `eligibilityd doctor --config " + placeholder(c.config) + "` tests the connection, `eligibilityd serve` uses it. " +
			"A service that runs takes the new token up by itself."
	}
	if result.err != nil {
		c.respond(w, http.StatusBadRequest, loginView{
			Class: "failed", Title: "Nothing was stored", Message: result.err.Error(), Todo: result.todo,
		})
	} else {
		c.respond(w, http.StatusOK, loginView{
			Class: "ok", Title: "Consent is given",
			Message: "eligibilityd may ask Partner Center for tenant " + result.tenantID + ". The refresh token is stored.",
			Todo:    result.todo + " You can close this page.",
		})
	}
	c.results <- result
}

func (c *callback) respond(w http.ResponseWriter, status int, view loginView) {
	view.Style = loginStyle
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_ = c.page.Execute(w, view) // the browser may disconnect at any time
}

// refusedConsent describes an error of the login host's page. It repeats an
// error code only if it is a published one, because anybody can write one into
// a URL.
//
// Source: https://learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-auth-code-flow#error-codes-for-authorization-endpoint-errors
// (read 2026-11-21)
func refusedConsent(word string) (todo string, err error) {
	switch word {
	case "access_denied":
		return "Run login again and accept; if only an administrator may consent, ask one to.",
			errors.New("consent was refused on the sign-in page: access_denied")
	case "server_error", "temporarily_unavailable":
		return "Run login again.", errors.New("the login host could not answer: " + word)
	case "invalid_request", "unauthorized_client", "invalid_client", "invalid_resource", "invalid_scope", "unsupported_response_type":
		return "Check partner_center.tenant_id and client_id, and the app registration: its API permissions and its redirect URI http://localhost.",
			errors.New("the login host refused the request: " + word)
	case "interaction_required", "login_required", "consent_required":
		return "Run login again and answer all that the page asks.", errors.New("the login host asks for more: " + word)
	default:
		return "See the sign-in log of the tenant.", errors.New("the login host refused, for a reason that is not published")
	}
}

// consentRemedy returns the next step after a consent that failed.
func consentRemedy(err error) string {
	switch {
	case errors.Is(err, pcclient.ErrConsentTenant):
		return "Sign in with an account of the partner's own tenant, or correct partner_center.tenant_id."
	case errors.Is(err, pcclient.ErrConsentIdentity):
		return "Check partner_center.client_id and authority."
	case errors.Is(err, pcclient.ErrConsentRefreshToken):
		return "Allow the permission offline_access in the app registration, and run login again."
	}
	if fail, ok := errors.AsType[*pcclient.APIError](err); ok {
		return doctor.TokenRemedy(fail, "")
	}
	return "Make partner_center.refresh_token_file and its directory writable, or let your identity set the secret of the vault, and run login again."
}
