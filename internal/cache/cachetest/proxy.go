package cachetest

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Proxy stands before one server and passes its answers on late.
type Proxy struct {
	// Address is what cache.RedisConfig.Addresses takes.
	Address string

	server *Redis
	delay  atomic.Int64
	ended  chan struct{}
	both   sync.WaitGroup
}

// StartProxy starts a proxy that passes everything on at once, until SetDelay.
// It ends with the test.
func StartProxy(tb testing.TB, server *Redis) *Proxy {
	tb.Helper()
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &Proxy{Address: listener.Addr().String(), server: server, ended: make(chan struct{})}
	tb.Cleanup(func() {
		close(p.ended)
		_ = listener.Close()
		p.both.Wait()
	})
	p.both.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			p.both.Go(func() { p.pass(client) })
		}
	})
	return p
}

// SetDelay sets by how much each answer is late from now on.
func (p *Proxy) SetDelay(delay time.Duration) { p.delay.Store(int64(delay)) }

// pass joins a client to the server until either leaves.
func (p *Proxy) pass(client net.Conn) {
	server, err := (&net.Dialer{}).DialContext(context.Background(), "unix", p.server.socket)
	if err != nil {
		_ = client.Close()
		return
	}
	over := make(chan struct{})
	p.both.Go(func() { // unblocks the copying below
		select {
		case <-p.ended:
		case <-over:
		}
		_ = client.Close()
		_ = server.Close()
	})
	p.both.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	})
	defer close(over)
	p.answer(server, client)
}

// late is a piece of an answer, and when it is due.
type late struct {
	data []byte
	due  time.Time
}

// answer forwards the server's replies, each piece late by the delay that applies
// when it arrives: pieces that arrive together are not delayed twice.
func (p *Proxy) answer(server io.Reader, client io.Writer) {
	pieces := make(chan late, 1024)
	p.both.Go(func() {
		defer close(pieces)
		for {
			data := make([]byte, 16<<10)
			n, err := server.Read(data)
			if err != nil {
				return
			}
			select {
			case pieces <- late{data[:n], time.Now().Add(time.Duration(p.delay.Load()))}:
			case <-p.ended:
				return
			}
		}
	})
	for piece := range pieces {
		if wait := time.Until(piece.due); wait > 0 {
			select {
			case <-time.After(wait):
			case <-p.ended:
				return
			}
		}
		if _, err := client.Write(piece.data); err != nil {
			return
		}
	}
}
