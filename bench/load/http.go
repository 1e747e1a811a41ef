package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
)

// maxConnections bounds the connections to one server. If all are in use, a
// request waits for one, which counts as its latency.
const maxConnections = 512

// HTTP sends HTTP/1.1 requests over persistent connections, one request at a
// time on each.
type HTTP struct {
	address string
	access  Access
	slots   chan struct{} // one for each connection in use

	mu   sync.Mutex
	idle []*httpConn
}

type httpConn struct {
	net.Conn

	reader *bufio.Reader
}

var _ Caller = (*HTTP)(nil)

// NewHTTP returns a caller with persistent connections. A request is in wire
// format, with its token; [HTTPRequest] encodes one. If all connections are in
// use, it opens another, up to 512.
func NewHTTP(address string, access Access) *HTTP {
	return &HTTP{address: address, access: access, slots: make(chan struct{}, maxConnections)}
}

// HTTPRequest returns an HTTP/1.1 request in wire format, without a token if that
// is "".
func HTTPRequest(method, path, token string, body []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: application/json\r\n", method, path)
	if token != "" {
		fmt.Fprintf(&b, "Authorization: Bearer %s\r\n", token)
	}
	if len(body) > 0 {
		fmt.Fprintf(&b, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes()
}

// Call implements Caller.
func (c *HTTP) Call(ctx context.Context, request []byte) error {
	c.slots <- struct{}{}
	defer func() { <-c.slots }()
	conn, err := c.take(ctx)
	if err != nil {
		return err
	}
	last, err := conn.exchange(request)
	if err != nil || last {
		return errors.Join(err, conn.Close())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = append(c.idle, conn)
	return nil
}

// take returns an idle connection, or a new one.
func (c *HTTP) take(ctx context.Context) (*httpConn, error) {
	c.mu.Lock()
	if last := len(c.idle) - 1; last >= 0 {
		conn := c.idle[last]
		c.idle = c.idle[:last]
		c.mu.Unlock()
		return conn, nil
	}
	c.mu.Unlock()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", c.address)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	if c.access.Authorities != nil {
		conn = tls.Client(conn, c.access.tls()) // the first request shakes hands
	}
	return &httpConn{conn, bufio.NewReaderSize(conn, 16<<10)}, nil
}

// exchange sends a request and reads its answer. last reports whether the
// server closes the connection after this answer.
func (c *httpConn) exchange(request []byte) (last bool, err error) {
	if _, err := c.Write(request); err != nil {
		return true, err
	}
	resp, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return true, err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end below
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return true, err
	}
	if resp.StatusCode != http.StatusOK {
		return true, fmt.Errorf("load: status %s", resp.Status)
	}
	return resp.Close, nil
}

// Close implements Caller. It closes idle connections: call it when no request
// is under way.
func (c *HTTP) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var faults []error
	for _, conn := range c.idle {
		faults = append(faults, conn.Close())
	}
	c.idle = nil
	return errors.Join(faults...)
}
