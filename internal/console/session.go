package console

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// maxBodyBytes bounds the body of a form.
const maxBodyBytes = 64 << 10

// callerName is the caller of all calls of the console.
const callerName = "console"

// csrfBytes is the length of a CSRF token.
const csrfBytes = 16

// user is a person who has signed in. It is never changed.
type user struct {
	caller *access.Caller
	csrf   string    // csrfBytes random bytes
	until  time.Time // when the session ends; zero if it does not
}

// newFictiveUser returns the user of a console without sign-in.
func newFictiveUser() *user {
	return &user{
		caller: &access.Caller{Name: callerName, Person: "developer", Rights: access.AllRights},
		csrf:   newCSRF(),
	}
}

func newCSRF() string {
	token := make([]byte, csrfBytes)
	_, _ = rand.Read(token) // never fails
	return string(token)
}

// session is the content of the cookie of a session.
type session struct {
	stamp

	Person string `json:"person"`
	Rights string `json:"rights"` // their names, separated by commas
	CSRF   []byte `json:"csrf"`
}

// startSession signs a person in.
func (h *Handler) startSession(w http.ResponseWriter, r *http.Request, person access.Person) error {
	return h.cfg.SignIn.seal(w, r, sessionCookie, session{
		stamp: newStamp(h.cfg.Now(), sessionFor), Person: person.Name, Rights: person.Rights.String(), CSRF: []byte(newCSRF()),
	}, sessionFor)
}

// session returns the user of a request; nil if it has no session.
func (h *Handler) session(r *http.Request) *user {
	if h.fictive != nil {
		return h.fictive
	}
	var s session
	if !h.cfg.SignIn.open(r, sessionCookie, &s) || !s.counts(h.cfg.Now(), sessionFor) || !access.ValidPerson(s.Person) || len(s.CSRF) != csrfBytes {
		return nil
	}
	person := access.Person{Name: s.Person}
	for word := range strings.SplitSeq(s.Rights, ",") {
		right, _ := access.ParseRight(word) // none of a newer version
		person.Rights |= right
	}
	return &user{caller: h.cfg.SignIn.Provider.Caller(person), csrf: string(s.CSRF), until: time.Unix(s.Until, 0)}
}

// equal reports whether two texts are the same, in a time that does not depend on where
// they differ.
func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// maskedCSRF returns the user's CSRF token for a form, in another form each time: the
// length of compressed pages must not reveal it.
func (u *user) maskedCSRF() string {
	masked := make([]byte, 2*csrfBytes)
	_, _ = rand.Read(masked[:csrfBytes])
	subtle.XORBytes(masked[csrfBytes:], masked[:csrfBytes], []byte(u.csrf))
	return base64.RawURLEncoding.EncodeToString(masked)
}

// owns reports whether a CSRF token from a form is the user's.
func (u *user) owns(masked string) bool {
	token, err := base64.RawURLEncoding.Strict().DecodeString(masked)
	if err != nil || len(token) != 2*csrfBytes {
		return false
	}
	subtle.XORBytes(token[csrfBytes:], token[csrfBytes:], token[:csrfBytes])
	return equal(string(token[csrfBytes:]), u.csrf)
}

// signedIn returns a handler of requests that need a session with a right; 0 is none. A
// POST needs the session's CSRF token too.
func (h *Handler) signedIn(right access.Rights, next pageHandler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		u := h.session(r)
		switch {
		case u == nil:
			h.askToSignIn(w, r)
		case r.Method == http.MethodPost && !h.permitsForm(w, r, u):
		case !u.caller.Rights.Has(right):
			h.lacks(w, r, u, right)
		default:
			next(w, r, u)
		}
	}
}

// askToSignIn answers a request without a session: pages by the sign-in, after which
// they are opened, others by an error. If a page of the console leads to it, a link leads
// on: browsers keep a form, such as the search, from being redirected to the provider.
func (h *Handler) askToSignIn(w http.ResponseWriter, r *http.Request) {
	mode := r.Header.Get("Sec-Fetch-Mode")
	opens := (r.Method == http.MethodGet || r.Method == http.MethodHead) && (mode == "" || mode == "navigate") && r.Pattern != "GET /console/events"
	p := problem{Status: http.StatusUnauthorized, Text: "Nothing was done. Sign in and try again.", Retry: signInPath(""), RetryText: "Sign in"}
	switch {
	case opens && r.Header.Get("Sec-Fetch-Site") == "same-origin":
		p.Text, p.Retry = "Sign in to open the page.", signInPath(r.URL.RequestURI())
	case opens:
		redirect(w, signInPath(r.URL.RequestURI()))
		return
	}
	h.failWith(w, r, nil, p)
}

// permitsForm reports whether a form is one of the user's pages, and answers if it is not.
func (h *Handler) permitsForm(w http.ResponseWriter, r *http.Request, u *user) bool {
	if err := http.NewCrossOriginProtection().Check(r); err != nil {
		h.refused(r, u, "a form of another site")
		h.fail(w, r, u, http.StatusForbidden, "The form was sent by another site. Nothing was done.")
		return false
	}
	err := r.ParseForm()
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		h.fail(w, r, u, http.StatusRequestEntityTooLarge, "The form is too large. Nothing was done.")
	case err != nil:
		h.fail(w, r, u, http.StatusBadRequest, "The form is malformed. Nothing was done.")
	case len(r.PostForm["csrf"]) != 1 || !u.owns(r.PostForm.Get("csrf")):
		h.refused(r, u, "a form without the token of the session")
		h.fail(w, r, u, http.StatusForbidden, "The form is of another session. Nothing was done. Open the page again and repeat it.")
	default:
		return true
	}
	return false
}

// context returns the context for calls of the API for a user.
func (h *Handler) context(r *http.Request, u *user) context.Context {
	in := &api.Inbound{RequestID: api.RequestIDOr(r.Header.Get("X-Request-Id"))}
	if outer, ok := r.Context().Value(api.InboundKey{}).(*api.Inbound); ok {
		in.RequestID, in.Trace = outer.RequestID, outer.Trace
	}
	in.Language = eligibility.English
	in.Admit(u.caller)
	return context.WithValue(r.Context(), api.InboundKey{}, in)
}
