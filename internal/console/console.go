// Package console serves the pages for people who help customers, at /console and
// below. It calls the API in this process, for the person who has signed in.
package console

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/logging"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// refusalsPerSecond bounds the records of sign-ins that failed: anybody can cause one.
const refusalsPerSecond = 10

// Path is the path of the console's first page.
const Path = "/console"

// Config configures a [Handler].
type Config struct {
	// API is a client of the API in this process: rest.Handler.Client.
	API eligibilityv1.EligibilityServiceClient
	// Stream answers a request for a stream of the API: rest.Handler.ServeFor.
	Stream func(w http.ResponseWriter, r *http.Request, caller *access.Caller)
	// Partners are the names of the partners, sorted. DefaultPartner is one of them, or
	// empty if there is none.
	Partners       []string
	DefaultPartner string
	// SignIn is how people sign in; nil signs in a fictitious user who may do all.
	SignIn *SignIn
	// Fleet describes this replica and the others.
	Fleet func(ctx context.Context) Fleet
	// Asked searches the decision log of this replica; nil if it has none.
	Asked func(ctx context.Context, q AskedQuery) (Asked, error)
	// Version is that of the program.
	Version string
	// Logger is required.
	Logger *zap.Logger
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
}

// Handler serves the console. It is built by [New], and safe for concurrent use.
type Handler struct {
	cfg       Config
	mux       *http.ServeMux
	templates map[string]*template.Template // by name
	fictive   *user                         // without sign-in, every user; nil with it
	refusals  *zap.Logger                   // of records that anybody can cause
	asks      asks
}

// page handlers answer requests of a user who has signed in.
type pageHandler func(w http.ResponseWriter, r *http.Request, u *user)

// New builds the Handler.
func New(cfg Config) (*Handler, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	h := &Handler{cfg: cfg, mux: http.NewServeMux(), refusals: logging.Limit(cfg.Logger, logging.NewLimiter(refusalsPerSecond, time.Second))}
	if cfg.SignIn == nil {
		h.fictive = newFictiveUser()
	} else if err := cfg.SignIn.register(); err != nil {
		return nil, fmt.Errorf("new console: register metrics: %w", err)
	}
	var err error
	if h.templates, err = parseTemplates(templateFiles); err != nil {
		return nil, fmt.Errorf("new console: %w", err)
	}
	for pattern, handle := range map[string]pageHandler{
		"GET /console":                      h.start,
		"GET /console/find":                 h.find,
		"GET /console/customers/{id}":       h.customer,
		"POST /console/customers/{id}/ask":  h.ask,
		"GET /console/customers/{id}/asked": h.asked,
		"GET /console/reviews":              h.reviews,
		"GET /console/fleet":                h.fleet,
		"GET /console/events":               h.events,
	} {
		h.mux.HandleFunc(pattern, h.signedIn(access.Support, handle))
	}
	h.mux.HandleFunc("POST /console/sign-out", h.signedIn(0, h.signOut))
	for pattern, handle := range map[string]http.HandlerFunc{
		"GET /console/sign-in":    h.signIn,
		"GET /console/callback":   h.callback,
		"GET /console/signed-out": h.signedOut,
		"GET /console/style.css":  h.asset,
		"GET /console/script.js":  h.asset,
		"GET /console/icon.svg":   h.asset,
	} {
		h.mux.HandleFunc(pattern, handle)
	}
	return h, nil
}

// policy lets a page load nothing but the console's own files, and be in no frame.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", policy)
	header.Set("Referrer-Policy", "same-origin") // forms need their Origin
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Cache-Control", "no-store")
	noted := &notedWriter{ResponseWriter: w}
	defer func() { h.recovered(recover(), noted, r) }()
	r.Body = http.MaxBytesReader(noted, r.Body, maxBodyBytes)
	if trimmed := strings.TrimRight(r.URL.Path, "/"); trimmed != r.URL.Path {
		moved := *r.URL
		moved.Path, moved.RawPath = trimmed, ""
		redirect(noted, moved.RequestURI())
		return
	}
	if _, pattern := h.mux.Handler(r); pattern == "" {
		h.notFound(noted, r)
		return
	}
	h.mux.ServeHTTP(noted, r)
}

// redirect makes the browser open another page of the console, whose path the caller
// has made or checked, with GET.
func redirect(w http.ResponseWriter, to string) {
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusSeeOther)
}

//go:embed templates
var templateFiles embed.FS

// parseTemplates returns each page of templates/, within the layout and with the parts
// that pages share, of templates/parts/.
func parseTemplates(files fs.FS) (map[string]*template.Template, error) {
	base := template.New("layout.html").Funcs(fleetFunctions())
	base, err := base.ParseFS(files, "templates/layout.html")
	if err != nil {
		return nil, fmt.Errorf("layout: %w", err)
	}
	if parts, _ := fs.Glob(files, "templates/parts/*.html"); len(parts) > 0 {
		if base, err = base.ParseFS(files, parts...); err != nil {
			return nil, fmt.Errorf("parts: %w", err)
		}
	}
	pages, err := fs.Glob(files, "templates/*.html")
	if err != nil {
		return nil, fmt.Errorf("pages: %w", err)
	}
	parsed := make(map[string]*template.Template, len(pages))
	for _, file := range pages {
		name := strings.TrimSuffix(path.Base(file), ".html")
		if name == "layout" {
			continue
		}
		page, err := base.Clone()
		if err == nil {
			page, err = page.ParseFS(files, file)
		}
		if err != nil {
			return nil, fmt.Errorf("page %s: %w", name, err)
		}
		parsed[name] = page
	}
	return parsed, nil
}

// view is what a template is executed with. Data is the page's own.
type view struct {
	// Page is the name of the page.
	Page string
	// Person is the user, empty if nobody has signed in. Rights are the user's.
	Person string
	Rights access.Rights
	// CSRF is the value that each form has as csrf: {{template "csrf" .}}.
	CSRF    string
	Version string
	Now     time.Time
	Data    any
}

// page writes templates/NAME.html within the layout. u is nil if nobody has signed in.
// If the template fails, nothing of it is sent.
func (h *Handler) page(w http.ResponseWriter, _ *http.Request, u *user, status int, name string, data any) {
	v := view{Page: name, Version: h.cfg.Version, Now: h.cfg.Now().UTC(), Data: data}
	if u != nil {
		v.Person, v.Rights, v.CSRF = cmp.Or(u.caller.Person, u.caller.Name), u.caller.Rights, u.maskedCSRF()
	}
	var body bytes.Buffer
	err := errNoTemplate
	if found := h.templates[name]; found != nil {
		err = found.Execute(&body, v)
	}
	if err != nil {
		panic(fmt.Errorf("page %s: %w", name, err)) // a fault of ours: recovered answers
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // the browser has left
}

var errNoTemplate = errors.New("there is no such template")
