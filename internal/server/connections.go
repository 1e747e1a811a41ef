package server

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// maxConnections is how many connections each listener keeps open. It bounds
// what silent clients cost, and is far above what honest ones need.
const maxConnections = 10_000

// connections counts the open and the refused connections of one listener.
type connections struct {
	open    atomic.Int64
	refused prometheus.Counter
}

// newConnections registers the metrics of the three listeners, and of the gRPC
// streams that wait for their first message.
func newConnections(registerer prometheus.Registerer, streams *awaited) (grpc, http, admin *connections, err error) {
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "eligibility_connections_refused_total",
		Help: "Connections closed at once because too many were open, by listener.",
	}, []string{"listener"})
	timedOut := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "eligibility_grpc_streams_timed_out_total",
		Help: "gRPC streams ended because their first message did not arrive.",
	})
	streams.ended = timedOut.Inc
	faults := []error{
		registerer.Register(refused),
		registerer.Register(timedOut),
		registerer.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "eligibility_grpc_streams_waiting",
			Help: "gRPC streams whose first message has not arrived.",
		}, func() float64 { return float64(streams.waiting()) })),
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
	grpc, http, admin = of("grpc"), of("http"), of("admin")
	return grpc, http, admin, errors.Join(faults...)
}

// boundedListener keeps at most max connections open. It closes further ones at
// once, so that their callers can try another replica.
type boundedListener struct {
	net.Listener

	max int64
	*connections
}

// Accept returns the next connection that is not refused.
func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err //nolint:wrapcheck // servers look at its type
		}
		if l.open.Add(1) <= l.max {
			return &boundedConn{Conn: conn, closed: sync.OnceFunc(func() { l.open.Add(-1) })}, nil
		}
		l.open.Add(-1)
		l.refused.Inc()
		_ = conn.Close() // nothing was sent
	}
}

// boundedConn is a connection that its listener counts.
type boundedConn struct {
	net.Conn

	closed func()
}

// Close closes the connection. It may be called more than once.
func (c *boundedConn) Close() error {
	c.closed()
	return c.Conn.Close() //nolint:wrapcheck // servers look at its type
}
