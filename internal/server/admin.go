package server

import (
	"fmt"
	"net/http"
	"net/http/pprof"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/health"
)

// The states of the server, in the order in which it goes through them. Their
// names are what /readyz returns.
const (
	stateStarting int32 = iota
	stateReady
	stateStopping
)

// maxScrapes is how many scrapes of a listener may be in progress; further ones get
// 503. Each takes a processor, and anybody who reaches the probe listener may ask.
const maxScrapes = 4

func stateName(state int32) string {
	switch state {
	case stateStarting:
		return "starting"
	case stateReady:
		return "ready"
	default:
		return "stopping"
	}
}

// newAdmin serves operators: what newProbe serves, and profiles.
func newAdmin(gatherer prometheus.Gatherer, state func() int32, components []health.Source, complaints *zap.Logger) http.Handler {
	mux := newProbe(gatherer, state, components, complaints)
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// newProbe serves machines that watch the process: metrics, liveness and readiness, and
// components to people.
func newProbe(gatherer prometheus.Gatherer, state func() int32, components []health.Source, complaints *zap.Logger) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{
		ErrorLog: zap.NewStdLog(complaints), MaxRequestsInFlight: maxScrapes,
		EnableOpenMetrics: true, // the only text format with exemplars
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeState(w, http.StatusOK, "alive")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		code := http.StatusServiceUnavailable
		now := state()
		if now == stateReady {
			code = http.StatusOK
		}
		if r.URL.Query().Has("verbose") {
			writeComponents(w, code, stateName(now), components)
			return
		}
		writeState(w, code, stateName(now))
	})
	return mux
}

func writeState(w http.ResponseWriter, code int, state string) {
	writeHeader(w, code)
	_, _ = fmt.Fprintf(w, "{\"status\":%q}\n", state) // a caller who left is no concern
}

func writeHeader(w http.ResponseWriter, code int) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
}
