package server

import (
	"cmp"
	"time"
)

// Limits bound what clients may cost over gRPC and REST. A field that is 0 has the
// documented default.
type Limits struct {
	// Connections is how many each of the two listeners keeps open; 0 means 10,000.
	Connections int
	// Together is how many both keep open; 0 means any number.
	Together int
	// ConnectionAge is when a connection is asked to close, give or take a tenth;
	// 0 means 5 min.
	ConnectionAge time.Duration
	// ConnectionGrace is how much later it is closed; 0 means 30 s. Over REST, a
	// request in progress has as long from its start.
	ConnectionGrace time.Duration
	// FirstRequest is how long a connection may take until its first request, and
	// a request over REST until it has been read; 0 means 10 s.
	FirstRequest time.Duration
	// Idle is how long a connection may be open without a request; 0 means 2 min.
	Idle time.Duration
	// HeaderBytes bounds the header of one request; 0 means 16 KiB.
	HeaderBytes int
	// StreamsPerConnection bounds the requests in progress of one connection over
	// HTTP/2; 0 means 250. A client that wants more waits in its own queue.
	StreamsPerConnection int
}

func (l Limits) negative() bool {
	return min(l.Connections, l.Together, l.HeaderBytes, l.StreamsPerConnection) < 0 ||
		min(l.ConnectionAge, l.ConnectionGrace, l.FirstRequest, l.Idle) < 0
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Connections:          cmp.Or(l.Connections, 10_000),
		Together:             l.Together,
		ConnectionAge:        cmp.Or(l.ConnectionAge, 5*time.Minute),
		ConnectionGrace:      cmp.Or(l.ConnectionGrace, 30*time.Second),
		FirstRequest:         cmp.Or(l.FirstRequest, 10*time.Second),
		Idle:                 cmp.Or(l.Idle, 2*time.Minute),
		HeaderBytes:          cmp.Or(l.HeaderBytes, 16<<10),
		StreamsPerConnection: cmp.Or(l.StreamsPerConnection, 250),
	}
}
