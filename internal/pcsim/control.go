package pcsim

import (
	"errors"
	"io"
	"net/http"
	"strings"
)

// ControlHandler serves the control API that docs/simulator.md describes. It
// has no authentication: bind it to loopback. If a page in a browser sends a
// change, it is rejected.
//
// A query parameter partner selects a partner that was added.
func (s *Server) ControlHandler() http.Handler {
	return http.NewCrossOriginProtection().Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		of, known := s.Partner(r.URL.Query().Get("partner"))
		if !known {
			reply(w, http.StatusNotFound, controlError{Error: "there is no such partner"})
			return
		}
		of.control.ServeHTTP(w, r)
	}))
}

func (s *Server) controlRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/customers", func(w http.ResponseWriter, _ *http.Request) {
		list := []Summary{}
		for _, c := range s.Customers() {
			list = append(list, c.Summary())
		}
		reply(w, http.StatusOK, map[string]any{"customers": list})
	})
	mux.HandleFunc("GET /v1/customers/{id}", s.getCustomer)
	mux.HandleFunc("PUT /v1/customers/{id}", s.putCustomer)
	mux.HandleFunc("DELETE /v1/customers/{id}", func(w http.ResponseWriter, r *http.Request) {
		if !s.DeleteCustomer(r.PathValue("id")) {
			noCustomer(w)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("PUT /v1/token", s.putToken)
	for path, do := range map[string]func(){
		"/v1/token/expire": s.ExpireTokens, "/v1/token/revoke": s.RevokeTokens, "/v1/reset": s.Reset,
	} {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, _ *http.Request) {
			do()
			w.WriteHeader(http.StatusNoContent)
		})
	}
	mux.HandleFunc("GET /v1/settings", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, s.Settings())
	})
	mux.HandleFunc("PUT /v1/settings", s.putSettings)
	mux.HandleFunc("GET /v1/requests", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]any{"requests": s.Requests()})
	})
	mux.HandleFunc("GET /v1/stats", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, s.Stats())
	})
	return mux
}

func (s *Server) getCustomer(w http.ResponseWriter, r *http.Request) {
	c, ok := s.Customer(r.PathValue("id"))
	if !ok {
		noCustomer(w)
		return
	}
	reply(w, http.StatusOK, c)
}

func (s *Server) putCustomer(w http.ResponseWriter, r *http.Request) {
	var c Customer
	err := readBody(w, r, &c, func() (faults []Fault) {
		c, faults = c.named("", r.PathValue("id"))
		return faults
	})
	if err != nil {
		refuse(w, err)
		return
	}
	created, err := s.setCustomer(c)
	switch {
	case err != nil: // only if there is no room
		reply(w, http.StatusInsufficientStorage, controlError{Error: err.Error()})
	case created:
		reply(w, http.StatusCreated, c)
	default:
		reply(w, http.StatusOK, c)
	}
}

func (s *Server) putToken(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Steps []Step `yaml:"steps"`
	}
	err := readBody(w, r, &body, func() []Fault {
		if body.Steps == nil {
			return []Fault{{Key: "steps", Problem: "is missing"}}
		}
		return checkSteps("steps", body.Steps, roleToken)
	})
	if err != nil {
		refuse(w, err)
		return
	}
	s.cast.setToken(body.Steps)
	w.WriteHeader(http.StatusNoContent)
}

// readBody decodes a request's JSON or YAML into the struct that into points
// to. If the body is invalid, or check returns faults, the error is a
// *ScriptError.
func readBody(w http.ResponseWriter, r *http.Request, into any, check func() []Fault) error {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxScriptBytes))
	if err != nil {
		return err
	}
	isYAML := strings.Contains(r.Header.Get("Content-Type"), "yaml")
	if !isYAML {
		if text, err = yamlOf(text); err != nil {
			return err
		}
	}
	o, err := decode(text, into)
	if err == nil {
		err = o.report(check())
	}
	var script *ScriptError
	if errors.As(err, &script) && !isYAML {
		for i := range script.Faults {
			script.Faults[i].Line = 0 // of the converted text
		}
	}
	return err
}

// controlError is the body of every error response.
type controlError struct {
	Error  string  `json:"error"`
	Faults []Fault `json:"faults,omitempty"`
}

func refuse(w http.ResponseWriter, err error) {
	var tooLarge *http.MaxBytesError
	var script *ScriptError
	switch {
	case errors.As(err, &tooLarge):
		reply(w, http.StatusRequestEntityTooLarge, controlError{Error: err.Error()})
	case errors.As(err, &script):
		reply(w, http.StatusBadRequest, controlError{Error: "the script has mistakes", Faults: script.Faults})
	default:
		reply(w, http.StatusBadRequest, controlError{Error: err.Error()})
	}
}

func noCustomer(w http.ResponseWriter) {
	reply(w, http.StatusNotFound, controlError{Error: "no such customer is scripted"})
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", jsonType)
	w.WriteHeader(status)
	// An error means that the client has disconnected.
	_, _ = w.Write(append(marshal(body), '\n')) //nolint:gosec // JSON, under a JSON content type
}
