package console

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/access"
)

// Provider signs people in. An [access.OpenID] is one.
type Provider interface {
	// SignInURL returns the address at which a browser begins a sign-in.
	SignInURL(attempt access.Attempt) (string, error)
	// SignIn completes a sign-in with the code that the browser has brought back.
	SignIn(ctx context.Context, attempt access.Attempt, code string) (access.Person, error)
	// SignOutURL returns the address at which a browser ends its session with the
	// provider; empty if there is none.
	SignOutURL(backTo string) string
	// Caller returns the caller of what a person asks.
	Caller(person access.Person) *access.Caller
}

// SignIn is how people sign in.
type SignIn struct {
	Provider Provider
	// Secret returns the client's secret, from which the key of cookies is derived.
	Secret func() []byte
	// Registerer collects the metrics; nil if nobody does.
	Registerer prometheus.Registerer

	outcomes *prometheus.CounterVec
}

// The outcomes of a sign-in.
const (
	outcomeOK       = "ok"
	outcomeDenied   = "denied"
	outcomeState    = "state"
	outcomeNotReady = "not_ready"
	outcomeBusy     = "busy"
	outcomeProvider = "provider"
	outcomeToken    = "token"
)

func (s *SignIn) register() error {
	s.outcomes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "eligibility_console_sign_ins_total",
		Help: "Sign-ins to the console, by outcome: ok; denied by the provider; state, if the browser came back without the cookie of the sign-in; " +
			"not_ready, if the provider's configuration or keys are not known; busy; provider, if its token endpoint failed; token, if its ID token was refused.",
	}, []string{"outcome"})
	for _, outcome := range []string{outcomeOK, outcomeDenied, outcomeState, outcomeNotReady, outcomeBusy, outcomeProvider, outcomeToken} {
		s.outcomes.WithLabelValues(outcome)
	}
	if s.Registerer == nil {
		return nil
	}
	return s.Registerer.Register(s.outcomes) //nolint:wrapcheck // by the caller
}

// signInPath returns the path of the sign-in that leads to a page of the console.
func signInPath(to string) string {
	if to == "" || to == Path {
		return Path + "/sign-in"
	}
	return Path + "/sign-in?" + url.Values{"to": {to}}.Encode()
}

// maxReturnBytes bounds the path to which a sign-in leads.
const maxReturnBytes = 1024

// returnPath returns where a sign-in leads to: a page of the console, the first one if
// to is none. It is made of path and query alone, so it never leads to another site.
func returnPath(to string) string {
	target, err := url.Parse(to)
	if err != nil || path.Clean(target.Path) != target.Path || target.Path != Path && !strings.HasPrefix(target.Path, Path+"/") {
		return Path
	}
	switch target.Path {
	case Path + "/sign-in", Path + "/callback", Path + "/sign-out", Path + "/signed-out", Path + "/events":
		return Path
	}
	made := (&url.URL{Path: target.Path, RawQuery: target.RawQuery}).String()
	if len(made) > maxReturnBytes || !isPlain(target.Path) || !isPlain(made) {
		return Path
	}
	return made
}

// isPlain reports whether text is UTF-8 without control characters. The cookie of a
// sign-in takes two bytes for one of it at most, and six for one of other texts.
func isPlain(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl)
}

// attempt is the content of the cookie of a sign-in.
type attempt struct {
	stamp

	State    string `json:"state"`
	Nonce    string `json:"nonce"`
	Verifier string `json:"verifier"`
	To       string `json:"to"`
}

func (a *attempt) at(r *http.Request) access.Attempt {
	return access.Attempt{State: a.State, Nonce: a.Nonce, Verifier: a.Verifier, RedirectURI: addressOf(r, Path+"/callback")}
}

// secretText returns 256 random bits as text.
func secretText() string {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	return base64.RawURLEncoding.EncodeToString(secret)
}

// signIn sends the browser to the provider.
func (h *Handler) signIn(w http.ResponseWriter, r *http.Request) {
	to := returnPath(r.URL.Query().Get("to"))
	if h.fictive != nil {
		redirect(w, to)
		return
	}
	if !isHost(r.Host) {
		h.fail(w, r, nil, http.StatusBadRequest, "The request names no host, so nobody could be sent back to it.")
		return
	}
	a := attempt{
		stamp: newStamp(h.cfg.Now(), attemptFor),
		State: secretText(), Nonce: secretText(), Verifier: secretText(), To: to,
	}
	at, err := h.cfg.SignIn.Provider.SignInURL(a.at(r))
	if err != nil {
		h.signInFailed(w, r, err)
		return
	}
	if err := h.cfg.SignIn.seal(w, r, attemptCookie, a, attemptFor); err != nil {
		panic(err) // its size is bounded
	}
	redirect(w, at)
}

// callback completes a sign-in, for which the provider has sent the browser back.
func (h *Handler) callback(w http.ResponseWriter, r *http.Request) {
	if h.fictive != nil {
		redirect(w, Path)
		return
	}
	var a attempt
	ours := h.cfg.SignIn.open(r, attemptCookie, &a) && a.counts(h.cfg.Now(), attemptFor)
	query := r.URL.Query()
	if !ours || len(query["state"]) != 1 || !equal(query.Get("state"), a.State) {
		if h.session(r) != nil { // another tab was faster, or the page was opened again
			redirect(w, Path)
			return
		}
		h.refuseSignIn(w, r, outcomeState, nil, problem{
			Status: http.StatusBadRequest, Title: "This sign-in has ended",
			Text: "It was begun more than ten minutes ago, in another browser, or again in another tab.",
		})
		return
	}
	drop(w, r, attemptCookie) // it counts once
	if query.Has("error") {
		code := access.ErrorCode(query.Get("error"))
		h.refuseSignIn(w, r, outcomeDenied, errors.New(code), problem{
			Status: http.StatusForbidden, Title: "You were not signed in", Text: "The sign-in provider has refused: " + code + ".",
		})
		return
	}
	person, err := h.cfg.SignIn.Provider.SignIn(r.Context(), a.at(r), query.Get("code"))
	if err != nil {
		h.signInFailed(w, r, err)
		return
	}
	if err := h.startSession(w, r, person); err != nil {
		panic(err) // its size is bounded
	}
	h.cfg.SignIn.outcomes.WithLabelValues(outcomeOK).Inc()
	h.cfg.Logger.Info("signed in to the console", zap.String("person", person.Name), zap.Stringer("rights", person.Rights))
	redirect(w, a.To)
}

// signInFailed answers a request of a sign-in that the provider did not complete.
func (h *Handler) signInFailed(w http.ResponseWriter, r *http.Request, err error) {
	var fault *access.ProviderError
	p := problem{Status: http.StatusServiceUnavailable, Title: "You cannot sign in at the moment"}
	outcome := outcomeProvider
	switch {
	case errors.Is(err, access.ErrNotReady):
		outcome = outcomeNotReady
		p.Text = "The configuration or the keys of the sign-in provider are not known yet. They are being fetched: try again in ten seconds."
	case errors.Is(err, access.ErrBusy):
		outcome = outcomeBusy
		p.Text = "Too many people are signing in. Try again in a moment."
	case errors.As(err, &fault) && fault.Code != "":
		p.Status, p.Text = http.StatusBadGateway, "The sign-in provider has refused the sign-in: "+fault.Code+"."
	case errors.As(err, &fault):
		p.Text = "The sign-in provider does not answer as it should. Try again in a moment."
	default:
		outcome = outcomeToken
		p.Status, p.Title, p.Text = http.StatusForbidden, "You were not signed in", "The sign-in provider's answer is not acceptable. The log of the service has the cause."
	}
	h.refuseSignIn(w, r, outcome, err, p)
}

// refuseSignIn answers a request of a sign-in that failed, and records that. cause holds
// nothing that a browser or the provider has sent but a code.
func (h *Handler) refuseSignIn(w http.ResponseWriter, r *http.Request, outcome string, cause error, p problem) {
	h.cfg.SignIn.outcomes.WithLabelValues(outcome).Inc()
	h.refusals.Warn("sign-in to the console failed", zap.String("outcome", outcome), zap.Error(cause))
	p.Retry, p.RetryText = signInPath(""), "Sign in again"
	h.failWith(w, r, nil, p)
}

// signOut ends the session in this browser. A redirect to the provider would be one of a
// form to another site, which browsers refuse; the page that follows has a link.
func (h *Handler) signOut(w http.ResponseWriter, r *http.Request, u *user) {
	if h.fictive == nil {
		drop(w, r, sessionCookie)
		h.cfg.Logger.Info("signed out of the console", zap.String("person", u.caller.Person))
	}
	redirect(w, Path+"/signed-out")
}

// signedOut shows that the session has ended.
func (h *Handler) signedOut(w http.ResponseWriter, r *http.Request) {
	if h.session(r) != nil && h.fictive == nil {
		redirect(w, Path)
		return
	}
	provider := ""
	if h.fictive == nil {
		provider = h.cfg.SignIn.Provider.SignOutURL(addressOf(r, Path+"/signed-out"))
	}
	h.page(w, r, nil, http.StatusOK, "signed-out", struct{ Provider string }{provider})
}
