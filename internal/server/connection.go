package server

import (
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/eligibilityd/eligibilityd/internal/access"
)

// connection is an open connection over gRPC or REST. It closes itself if its
// first request does not arrive in time, and when it is old: net/http knows no age of
// connections, and grpc-go, which asks the clients of old ones to close, would not wait
// for streams of changes.
//
// Over gRPC it is the AuthInfo of its peer, an api.Connection.
type connection struct {
	net.Conn

	of  *boundedListener
	raw syscall.RawConn // nil if the connection has none

	mu     sync.Mutex
	timer  *time.Timer // calls due
	closed bool

	requested   atomic.Bool
	secured     bool                // by TLS; set by the handshake over gRPC
	certificate *access.Certificate // nil if the client presented none

	// old is from when on responses over REST ask the client to close. Over gRPC,
	// grpc-go has asked it to by then.
	old     time.Time
	streams atomic.Int64 // of changes; they end by themselves

	// Over REST only.
	identified sync.Once
	latest     atomic.Int64 // when the last request began, in ns since the epoch
}

func newConnection(accepted net.Conn, of *boundedListener) *connection {
	c := &connection{Conn: accepted, of: of}
	if tcp, ok := accepted.(*net.TCPConn); ok {
		c.raw, _ = tcp.SyscallConn() // it fails only if tcp is closed
	}
	age := of.limits.ConnectionAge
	c.old = time.Now().Add(age + age/10)
	if of.ages {
		c.old = c.old.Add(-rand.N(age/5 + 1)) //nolint:gosec // no secret
	}
	c.mu.Lock() // due may be called at once
	defer c.mu.Unlock()
	c.timer = time.AfterFunc(of.limits.FirstRequest, c.due)
	return c
}

// due closes the connection if its first request did not arrive, or if it is old, has
// no stream of changes, and no request began within the grace. Otherwise it sets the timer for the next look.
func (c *connection) due() {
	if !c.requested.Load() {
		_ = c.Close()
		return
	}
	end := c.old
	if latest := time.Unix(0, c.latest.Load()); latest.After(end) {
		end = latest
	}
	if c.streams.Load() > 0 {
		end = time.Now()
	}
	left := time.Until(end.Add(c.of.limits.ConnectionGrace))
	if left <= 0 {
		_ = c.Close()
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.timer.Reset(left)
	}
}

// Close closes the connection. It may be called more than once.
func (c *connection) Close() error {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	c.timer.Stop()
	c.mu.Unlock()
	if first {
		c.of.drop()
	}
	return c.Conn.Close() //nolint:wrapcheck // servers look at its type
}

// Requested records that a request has arrived.
func (c *connection) Requested() {
	if !c.requested.Load() {
		c.requested.Store(true)
	}
}

// Streaming records that a stream of changes begins, and ended that it has ended. The
// connection is not closed while it lasts.
func (c *connection) Streaming() (ended func()) {
	c.streams.Add(1)
	return func() { c.streams.Add(-1) }
}

// Certificate returns the client's verified certificate, nil if it presented none.
func (c *connection) Certificate() *access.Certificate { return c.certificate }

// AuthType names the protocol that secures the connection.
func (c *connection) AuthType() string {
	if c.secured {
		return "tls"
	}
	return "insecure"
}

// GetCommonAuthInfo returns how well the connection is protected.
func (c *connection) GetCommonAuthInfo() credentials.CommonAuthInfo {
	if c.secured {
		return credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}
	}
	return credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}
}

// begin records that a request over REST begins. It reports whether its response
// must ask the client to close the connection.
func (c *connection) begin() (old bool) {
	now := time.Now()
	c.latest.Store(now.UnixNano())
	c.Requested()
	return now.After(c.old)
}
