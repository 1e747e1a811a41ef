package api

import (
	"maps"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"github.com/eligibilityd/eligibilityd/internal/access"
)

const (
	// maxNamedCallers is how many callers have names of their own in metrics. Names
	// come from tokens, so anybody who issues these could fill the memory.
	maxNamedCallers = 100
	// otherCallers is the name of all further callers.
	otherCallers = "other"
	// unknownCallers is the name of those that are not authenticated. No caller has
	// it.
	unknownCallers = ""
)

// callerMetrics counts requests by caller. The first maxNamedCallers have names of
// their own, those of the configuration before all others, for as long as the
// process lives. It is safe for concurrent use, and takes no lock for a caller that
// it knows.
type callerMetrics struct {
	requests       *prometheus.CounterVec
	other, unknown *callerSeries

	adding sync.Mutex
	named  atomic.Pointer[map[string]*callerSeries] // never changed, but replaced to add
}

// callerSeries is the series of one caller, made when a code first occurs.
type callerSeries struct {
	name  string
	of    *prometheus.CounterVec
	codes [codes.Unauthenticated + 1]atomic.Pointer[prometheus.Counter]
}

// newCallerMetrics returns the metrics of callers, and keeps room for those named
// configured.
func newCallerMetrics(configured []string) *callerMetrics {
	m := &callerMetrics{requests: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "eligibility_caller_requests_total",
		Help: "RPCs handled and requests refused, by caller and gRPC code: up to 100 callers by name, all further ones as other; without a name if the caller is not authenticated.",
	}, []string{"caller", "code"})}
	m.other, m.unknown = m.series(otherCallers), m.series(unknownCallers)
	m.named.Store(new(map[string]*callerSeries))
	for _, name := range configured {
		m.add(name)
	}
	return m
}

func (m *callerMetrics) series(name string) *callerSeries {
	return &callerSeries{name: name, of: m.requests}
}

// of returns the series of a caller; nil is one that is not authenticated.
func (m *callerMetrics) of(caller *access.Caller) *callerSeries {
	if caller == nil {
		return m.unknown
	}
	named := *m.named.Load()
	if series, ok := named[caller.Name]; ok {
		return series
	}
	if len(named) >= maxNamedCallers || !utf8.ValidString(caller.Name) {
		return m.other
	}
	return m.add(caller.Name)
}

// add adds a caller, if there is room.
func (m *callerMetrics) add(name string) *callerSeries {
	m.adding.Lock()
	defer m.adding.Unlock()
	named := *m.named.Load()
	if series, ok := named[name]; ok {
		return series
	}
	if len(named) >= maxNamedCallers {
		return m.other
	}
	more := make(map[string]*callerSeries, len(named)+1)
	maps.Copy(more, named)
	more[name] = m.series(name)
	m.named.Store(&more)
	return more[name]
}

// count counts a request.
func (s *callerSeries) count(code codes.Code) {
	if int(code) >= len(s.codes) { // there are no others
		return
	}
	counter := s.codes[code].Load()
	if counter == nil {
		made := s.of.WithLabelValues(s.name, CodeName(code))
		counter = &made
		s.codes[code].Store(counter)
	}
	(*counter).Inc()
}
