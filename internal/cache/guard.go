package cache

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// The bounds of a reply of Redis. A reply that exceeds them is malformed: nothing
// that this service sends has such a reply.
const (
	maxReplyBulk   = maxValueBytes + 4096
	maxReplyLine   = 64 << 10
	maxReplyCount  = 64 << 10
	maxReplyDepth  = 8
	maxReplyLength = 8 * maxReplyBulk
)

var errMalformedReply = errors.New("malformed reply of redis")

// guardedDialer connects as go-redis would. The client library allocates the length
// that a reply announces, and panics if a reply is malformed, also in goroutines of
// its own. So replies are checked before the library parses them.
func guardedDialer(config *tls.Config) func(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: dialTimeout}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if config != nil && network != "unix" {
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			conn, err := (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &guardedConn{Conn: conn}, nil
		}
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if raw, ok := conn.(syscall.Conn); ok {
			return &guardedSocket{guardedConn: guardedConn{Conn: conn}, raw: raw}, nil
		}
		return &guardedConn{Conn: conn}, nil
	}
}

// guardedConn fails if it reads something that is no reply.
type guardedConn struct {
	net.Conn

	subscribed atomic.Bool
	replies    replyChecker // used by the reader alone
}

// guardedSocket is a guardedConn that can be polled for whether it still lives.
type guardedSocket struct {
	guardedConn

	raw syscall.Conn
}

// SyscallConn implements syscall.Conn.
func (c *guardedSocket) SyscallConn() (syscall.RawConn, error) { return c.raw.SyscallConn() }

// Write notices when the connection becomes one that receives messages.
func (c *guardedConn) Write(b []byte) (int, error) {
	if !c.subscribed.Load() && isSubscribe(b) {
		c.subscribed.Store(true)
	}
	return c.Conn.Write(b)
}

// isSubscribe reports whether the first command of b is SUBSCRIBE. An argument of
// that name, such as a password, is no command.
func isSubscribe(b []byte) bool {
	const command = "$9\r\nsubscribe\r\n"
	_, rest, _ := bytes.Cut(b[:min(len(b), 64)], []byte("\r\n")) // after the number of arguments
	return len(rest) >= len(command) && strings.EqualFold(string(rest[:len(command)]), command)
}

// Read implements io.Reader.
func (c *guardedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && !c.replies.accepts(b[:n], c.subscribed.Load()) {
		_ = c.Conn.Close()
		return 0, errMalformedReply
	}
	return n, err
}

// replyChecker checks a stream of replies in the protocol of Redis, version 2 or
// 3, whatever the pieces in which it arrives. Its zero value is at the start of
// a reply.
type replyChecker struct {
	malformed bool
	line      []byte // what has arrived of a line; its first byte is its type
	bulk      int    // bytes that are left of a bulk string and its end
	open      []int  // elements that are left of each aggregate
	length    int    // of the reply so far
	shape     messageShape
}

// messageShape is what is known of a reply on a connection that receives
// messages.
type messageShape struct {
	types []byte // of the reply and its elements
	kind  []byte // the first element
}

// accepts reports whether b continues the stream as well-formed replies.
func (c *replyChecker) accepts(b []byte, subscribed bool) bool {
	for len(b) > 0 && !c.malformed {
		if c.bulk > 0 {
			b = c.readBulk(b)
		} else {
			b = c.readLine(b)
		}
		if c.length > maxReplyLength {
			c.malformed = true
		}
		if c.bulk == 0 && len(c.line) == 0 && !c.malformed {
			c.ended(subscribed)
		}
	}
	return !c.malformed
}

// readBulk consumes what b has of a bulk string.
func (c *replyChecker) readBulk(b []byte) []byte {
	n := min(len(b), c.bulk)
	if len(c.open) == 1 && len(c.shape.types) == 2 && len(c.shape.kind) < 32 {
		c.shape.kind = append(c.shape.kind, b[:min(n, 32)]...)
	}
	c.bulk -= n
	c.length += n
	return b[n:]
}

// readLine consumes what b has of a line.
func (c *replyChecker) readLine(b []byte) []byte {
	end := bytes.IndexByte(b, '\n')
	n := end + 1
	if end < 0 {
		n = len(b)
	}
	c.line = append(c.line, b[:n]...)
	c.length += n
	if len(c.line) > maxReplyLine {
		c.malformed = true
	}
	if end >= 0 {
		c.readHead()
	}
	return b[n:]
}

// readHead evaluates a whole line.
func (c *replyChecker) readHead() {
	line, whole := bytes.CutSuffix(c.line, []byte("\r\n"))
	c.line = c.line[:0]
	if !whole || len(line) == 0 {
		c.malformed = true
		return
	}
	kind, text := line[0], string(line[1:])
	null := text == "-1" && (kind == '$' || kind == '*')
	if len(c.open) <= 1 && len(c.shape.types) < 8 {
		if null {
			c.shape.types = append(c.shape.types, '_')
		} else {
			c.shape.types = append(c.shape.types, kind)
		}
	}
	switch {
	case null:
	case strings.IndexByte("+-:_#,(", kind) >= 0:
	case strings.IndexByte("$=!", kind) >= 0:
		c.bulk = c.count(text, maxReplyBulk) + len("\r\n")
	case strings.IndexByte("*~>%", kind) >= 0:
		n := c.count(text, maxReplyCount)
		if kind == '%' {
			n *= 2
		}
		if n > 0 {
			c.open = append(c.open, n+1) // itself ends as its last element
		}
		if len(c.open) > maxReplyDepth {
			c.malformed = true
		}
	default:
		c.malformed = true
	}
}

// count parses a length.
func (c *replyChecker) count(text string, most int) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > most || text[0] == '+' {
		c.malformed = true
		return 0
	}
	return n
}

// ended closes whatever ends with the element that has just ended.
func (c *replyChecker) ended(subscribed bool) {
	for len(c.open) > 0 {
		last := len(c.open) - 1
		c.open[last]--
		if c.open[last] > 0 {
			return
		}
		c.open = c.open[:last]
	}
	if subscribed && !c.shape.isMessage() {
		c.malformed = true
	}
	c.shape = messageShape{types: c.shape.types[:0], kind: c.shape.kind[:0]}
	c.length = 0
}

// isMessage reports whether a reply is one that the library can parse on a
// connection that receives messages.
func (s *messageShape) isMessage() bool {
	types := string(s.types)
	if types == "+" || types == "-" {
		return true
	}
	if types == "" || types[0] != '*' && types[0] != '>' {
		return false
	}
	kind := strings.TrimSuffix(string(s.kind), "\r\n")
	switch {
	case slices.Contains([]string{"subscribe", "unsubscribe", "psubscribe", "punsubscribe", "ssubscribe", "sunsubscribe"}, kind):
		return types[1:] == "$$:" || types[1:] == "$_:"
	case kind == "message" || kind == "smessage":
		return types[1:] == "$$$"
	case kind == "pmessage":
		return types[1:] == "$$$$"
	case kind == "pong":
		return types[1:] == "$$"
	default:
		return strings.HasPrefix(types[1:], "$") // the library refuses it
	}
}
