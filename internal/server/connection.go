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
// first request does not arrive in time. Over REST, because net/http knows no age of
// connections, it also closes itself when it is old; grpc-go does that for gRPC.
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

	// Over REST only.
	old        time.Time // from when on responses ask the client to close
	identified sync.Once
	latest     atomic.Int64 // when the last request began, in ns since the epoch
}

func newConnection(accepted net.Conn, of *boundedListener) *connection {
	c := &connection{Conn: accepted, of: of}
	if tcp, ok := accepted.(*net.TCPConn); ok {
		c.raw, _ = tcp.SyscallConn() // it fails only if tcp is closed
	}
	if of.ages {
		age := of.limits.ConnectionAge
		c.old = time.Now().Add(age - age/10 + rand.N(age/5+1)) //nolint:gosec // no secret
	}
	c.mu.Lock() // due may be called at once
	defer c.mu.Unlock()
	c.timer = time.AfterFunc(of.limits.FirstRequest, c.due)
	return c
}

// due closes the connection if its first request did not arrive, or if it is old and
// no request began within the grace. Otherwise it sets the timer for the next look.
func (c *connection) due() {
	if !c.requested.Load() {
		_ = c.Close()
		return
	}
	if !c.of.ages {
		return
	}
	end := c.old
	if latest := time.Unix(0, c.latest.Load()); latest.After(end) {
		end = latest
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
