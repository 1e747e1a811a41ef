package server

import (
	"container/list"
	"errors"
	"math"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// maxOperators is how many connections the admin and the probe listener keep open
// each.
const maxOperators = 32

// OperatorConnections is how many connections both keep open, and one of each that
// replaces another.
const OperatorConnections = 2 * (maxOperators + 1)

// connections counts the open and the refused connections of one listener.
type connections struct {
	open    atomic.Int64
	refused prometheus.Counter
}

// newConnections registers the metrics of the listeners, and of the gRPC streams
// that wait for their first message.
func (s *Server) newConnections(registerer prometheus.Registerer) error {
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "eligibility_connections_refused_total",
		Help: "Connections closed because too many were open, by listener.",
	}, []string{"listener"})
	timedOut := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "eligibility_grpc_streams_timed_out_total",
		Help: "gRPC streams ended because their first message did not arrive.",
	})
	s.awaited = newAwaited(timedOut.Inc)
	faults := []error{
		registerer.Register(refused),
		registerer.Register(timedOut),
		registerer.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "eligibility_grpc_streams_waiting",
			Help: "gRPC streams whose first message has not arrived.",
		}, func() float64 { return float64(s.awaited.waiting()) })),
	}
	of := func(listener string) *connections {
		c := &connections{refused: refused.WithLabelValues(listener)}
		faults = append(faults, registerer.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "eligibility_connections",
			Help:        "Open connections, by listener.",
			ConstLabels: prometheus.Labels{"listener": listener},
		}, func() float64 { return float64(c.open.Load()) })))
		return c
	}
	s.grpcConnections, s.httpConnections, s.adminConnections, s.probeConnections = of("grpc"), of("http"), of("admin"), of("probe")
	return errors.Join(faults...)
}

// together bounds the connections of several listeners.
type together struct {
	max  int64
	open atomic.Int64
}

func newTogether(most int) *together {
	if most == 0 {
		most = math.MaxInt
	}
	return &together{max: int64(most)}
}

// boundedListener keeps at most limits.Connections open, and no more than
// together allows. It closes further ones at once, so that their callers can try
// another replica.
type boundedListener struct {
	net.Listener
	*connections

	limits   Limits
	together *together
	ages     bool // the connections end themselves when they are old
}

// Accept returns the next connection that is not refused.
func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err //nolint:wrapcheck // servers look at its type
		}
		if l.add() {
			return newConnection(conn, l), nil
		}
		l.refused.Inc()
		_ = conn.Close() // nothing was sent
	}
}

// add reports whether there is room for one more connection, and counts it.
func (l *boundedListener) add() bool {
	if l.open.Add(1) <= int64(l.limits.Connections) {
		if l.together.open.Add(1) <= l.together.max {
			return true
		}
		l.together.open.Add(-1)
	}
	l.open.Add(-1)
	return false
}

func (l *boundedListener) drop() {
	l.together.open.Add(-1)
	l.open.Add(-1)
}

// operatorListener is the listener of probes and operators, who must be answered
// whatever others do: beyond max, a new connection replaces the oldest of those
// without a request in progress, or, if all have one, the oldest.
type operatorListener struct {
	net.Listener
	*connections

	max int

	mu     sync.Mutex
	oldest list.List // of the open ones
}

// Accept returns the next connection.
func (l *operatorListener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err //nolint:wrapcheck // servers look at its type
	}
	conn := &operatorConnection{Conn: accepted, of: l}
	l.open.Add(1)
	var replaced *operatorConnection
	l.mu.Lock()
	conn.place = l.oldest.PushBack(conn)
	if l.oldest.Len() > l.max {
		replaced = l.replaceable(conn)
	}
	l.mu.Unlock()
	if replaced != nil {
		l.refused.Inc()
		_ = replaced.Close()
	}
	return conn, nil
}

// replaceable returns the connection that the latest replaces; l.mu is held.
func (l *operatorListener) replaceable(latest *operatorConnection) *operatorConnection {
	for place := l.oldest.Front(); place != latest.place; place = place.Next() {
		if conn, _ := place.Value.(*operatorConnection); !conn.active {
			return conn
		}
	}
	oldest, _ := l.oldest.Front().Value.(*operatorConnection)
	return oldest
}

// noteState notes whether a connection of an operatorListener has a request in
// progress, for [http.Server.ConnState].
func noteState(accepted net.Conn, state http.ConnState) {
	if conn, ok := accepted.(*operatorConnection); ok { // it is nothing else
		conn.of.mu.Lock()
		defer conn.of.mu.Unlock()
		conn.active = state == http.StateActive
	}
}

// operatorConnection is a connection of an operatorListener.
type operatorConnection struct {
	net.Conn

	of *operatorListener

	place  *list.Element // nil once closed; guarded by of.mu
	active bool          // it has a request in progress; guarded by of.mu
}

// Close closes the connection. It may be called more than once.
func (c *operatorConnection) Close() error {
	c.of.mu.Lock()
	if c.place != nil {
		c.of.oldest.Remove(c.place)
		c.of.open.Add(-1)
		c.place = nil
	}
	c.of.mu.Unlock()
	return c.Conn.Close() //nolint:wrapcheck // servers look at its type
}
