//go:build acceptance

package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"

	"github.com/eligibilityd/eligibilityd/bench/load"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
)

// attackConnections are silent, slow and loud connections.
func attackConnections(t *testing.T, table *attacks) { //nolint:thelper // a test of its own
	x := startTarget(t, "", "")
	for range 20 { // warm: what honest callers cost is not the attackers'
		if err := x.answers(); err != nil {
			t.Fatal(err)
		}
	}
	table.begin("Connections")
	t.Run("Silent", func(t *testing.T) { attackSilent(t, table) })
	t.Run("Slow", func(t *testing.T) { attackSlow(t, x, table) })
	t.Run("Floods", func(t *testing.T) { attackFloods(t, x, table) })
	t.Run("Bombs", func(t *testing.T) { attackBombs(t, x, table) })
	t.Run("Descriptors", func(t *testing.T) { attackDescriptors(t, table) })
}

func rss(t *testing.T, pid int) int64 {
	t.Helper()
	n, err := load.RSS(pid)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// attackSilent opens as many connections as a listener keeps, and says nothing.
func attackSilent(t *testing.T, table *attacks) { //nolint:thelper // a test of its own
	const connections, further, idle = 10_000, 100, 2_000
	cells := map[bool]string{}
	for _, rest := range []bool{false, true} {
		x := startTarget(t, "", "") // whose memory nothing else has grown
		address := x.GRPC
		if rest {
			address = x.HTTP
		}
		idling := make([]net.Conn, 0, idle)
		before := rss(t, x.pid)
		for range idle {
			var conn net.Conn
			if rest {
				conn = x.idleREST(t)
			} else {
				conn = x.idleGRPC(t)
			}
			idling = append(idling, conn)
		}
		each := float64(rss(t, x.pid)-before) / idle / 1024
		t.Logf("%s: %d idle connections with TLS, after a request: %.1f KiB of memory each", transports[rest], idle, each)
		if err := x.answers(); err != nil {
			t.Errorf("%s, under idle connections: %v", transports[rest], err)
		}
		for _, conn := range idling {
			_ = conn.Close()
		}
		// Opened before, it goes on.
		early, err := openH2(x.GRPC, x.tls(nil))
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		before = rss(t, x.pid)
		conns, refused := make([]net.Conn, connections+further), x.metric(t, "eligibility_connections_refused_total", name(rest))
		var opening sync.WaitGroup
		for part := range 8 {
			opening.Go(func() {
				for i := part; i < len(conns); i += 8 {
					conns[i], _ = dial(address)
				}
			})
		}
		opening.Wait()
		opened, held := time.Since(begun), rss(t, x.pid)
		if err := x.probed(); err != nil {
			t.Errorf("%s, under 10,000 silent connections: %v", transports[rest], err)
		}
		if err = early.call(false, "/grpc.health.v1.Health/Check"); err == nil {
			err = early.send(framed(0, nil))
		}
		if a := early.receive(); err != nil || a.code != codes.OK {
			t.Errorf("%s, health under 10,000 silent connections: %+v, %v", transports[rest], a, err)
		}
		if !rest { // the listener of REST is not full
			if a := x.rest(nil, httpRequest("GET", checkPath, bearerLine(x.issuer.valid().token))); a.status != http.StatusOK {
				t.Errorf("a check over REST under silent connections to gRPC: %+v", a)
			}
		}
		if n := x.metric(t, "eligibility_connections_refused_total", name(rest)) - refused; n < further && opened < 3*time.Second {
			t.Errorf("%s: %.0f connections beyond 10,000 were closed and counted, want %d", transports[rest], n, further)
		}
		t.Logf("%s: 10,000 silent connections in %v: %.1f KiB of memory each", transports[rest], opened.Round(time.Millisecond), float64(held-before)/connections/1024)
		if each := (held - before) / connections; each > 26<<10 {
			t.Errorf("%s: a silent connection costs %d bytes, want less than 26 KiB", transports[rest], each)
		}
		eventually(t, "silent connections to be closed", func() bool { return x.metric(t, "eligibility_connections{", name(rest)) < 100 })
		if gone := time.Since(begun); gone > opened+20*time.Second {
			t.Errorf("%s: silent connections were closed after %v, want 10 s", transports[rest], gone)
		}
		for _, conn := range conns {
			if conn != nil {
				_ = conn.Close()
			}
		}
		_ = early.Close()
		cells[rest] = "closed after 10 s, further ones at once; health and probe answer"
	}
	table.add(t, "10,000 silent connections", cells[false], cells[true])
}

// place is where a pair has the value of a transport.
func place(rest bool) int {
	if rest {
		return 1
	}
	return 0
}

func name(rest bool) string {
	if rest {
		return `"http"`
	}
	return `"grpc"`
}

func (x *target) idleREST(t *testing.T) net.Conn {
	t.Helper()
	conn, err := dialTLS(x.HTTP, x.tls(nil))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, "GET /docs HTTP/1.1\r\nHost: localhost\r\n\r\n")
	readHTTP(bufio.NewReader(conn), "")
	return conn
}

func (x *target) idleGRPC(t *testing.T) net.Conn {
	t.Helper()
	conn, err := openH2(x.GRPC, x.tls(nil))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.call(false, "/grpc.health.v1.Health/Check")
	_ = conn.send(framed(0, nil))
	if a := conn.receive(); a.code != codes.OK {
		t.Fatalf("health: %+v", a)
	}
	return conn
}

// ends waits until conn ends, and returns after how long. Whatever arrives is dropped.
func ends(conn net.Conn, begun time.Time) time.Duration {
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	_, _ = io.Copy(io.Discard, conn)
	return time.Since(begun)
}

// drip writes text to conn, a piece a second, until it fails.
func drip(conn net.Conn, pieces func(i int) []byte) (stop func()) {
	done := make(chan struct{})
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for i := 0; ; i++ {
			if _, err := conn.Write(pieces(i)); err != nil {
				return
			}
			select {
			case <-tick.C:
			case <-done:
				return
			}
		}
	}()
	return sync.OnceFunc(func() { close(done) })
}

// attackSlow sends what takes for ever. All run at the same time.
func attackSlow(t *testing.T, x *target, table *attacks) { //nolint:thelper // a test of its own
	token := x.issuer.valid().token
	secured := func(address string) net.Conn {
		conn, err := dialTLS(address, x.tls(nil))
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	h2conn := func() *h2 {
		conn, err := openH2(x.GRPC, x.tls(nil))
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	type slow struct {
		name, transport string
		took            time.Duration
		ended           answer
		want            string
	}
	var mu sync.Mutex
	var all []slow
	var running sync.WaitGroup
	run := func(name, transport, want string, attack func() answer) {
		running.Go(func() {
			begun := time.Now()
			ended := attack()
			mu.Lock()
			defer mu.Unlock()
			all = append(all, slow{name, transport, time.Since(begun), ended, want})
		})
	}
	// TLS, of which the first bytes arrive.
	for transport, address := range map[string]string{"gRPC": x.GRPC, "REST": x.HTTP} {
		run("a handshake of TLS, one byte a second", transport, "connection closed", func() answer {
			conn, err := dial(address)
			if err != nil {
				return closedBy(err)
			}
			defer drip(conn, func(i int) []byte { return []byte{[]byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3}[i%11]} })()
			ends(conn, time.Now())
			return answer{ended: "connection closed"}
		})
		run("a handshake of TLS, then silence", transport, "connection closed", func() answer {
			protocol := "h2"
			if transport == "REST" {
				protocol = "http/1.1"
			}
			conn, err := open(address, x.tls(nil), protocol)
			if err != nil {
				return closedBy(err)
			}
			ends(conn, time.Now())
			return answer{ended: "connection closed"}
		})
	}
	run("a preface of HTTP/2, then pings only", "gRPC", "connection closed", func() answer {
		conn := h2conn()
		defer drip(conn, func(int) []byte { return nil })()
		ends(conn, time.Now())
		return answer{ended: "connection closed"}
	})
	run("headers, one a second", "REST", "connection closed", func() answer {
		conn := secured(x.HTTP)
		_, _ = io.WriteString(conn, "GET "+checkPath+" HTTP/1.1\r\nHost: localhost\r\n")
		defer drip(conn, func(i int) []byte { return fmt.Appendf(nil, "X-A%d: b\r\n", i) })()
		ends(conn, time.Now())
		return answer{ended: "connection closed"}
	})
	run("headers, one a second", "gRPC", "connection closed", func() answer {
		conn := h2conn()
		block := append([]byte(nil), conn.block(":method", "POST", ":scheme", "https", ":path", checkMethod, ":authority", "localhost", "content-type", "application/grpc")...)
		_ = conn.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block})
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			for i := 0; ; i++ {
				select {
				case <-time.After(time.Second):
				case <-stop:
					return
				}
				if conn.WriteContinuation(1, false, conn.block(fmt.Sprintf("x-a%d", i), "b")) != nil {
					return
				}
			}
		}()
		ends(conn, time.Now())
		return answer{ended: "connection closed"}
	})
	run("a body, one byte a second", "REST", "an answer", func() answer {
		conn := secured(x.HTTP)
		_, _ = io.WriteString(conn, "POST "+batchPath+" HTTP/1.1\r\nHost: localhost\r\n"+bearerLine(x.issuer.issue("batches", "Eligibility.Batch").token)+"\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
		defer drip(conn, func(int) []byte { return []byte(" ") })()
		return readHTTP(bufio.NewReader(conn), "")
	})
	run("a body, one byte a second", "gRPC", "an answer", func() answer {
		conn := h2conn()
		_ = conn.call(false, checkMethod, "authorization", "Bearer "+token)
		stop := make(chan struct{})
		defer close(stop)
		id := conn.id
		go func() {
			for _, b := range message(about(allowedID)) {
				select {
				case <-time.After(time.Second):
				case <-stop:
					return
				}
				if conn.WriteData(id, false, []byte{b}) != nil {
					return
				}
			}
		}()
		return conn.receive()
	})
	running.Wait()
	rows := map[string]map[string]string{}
	for _, s := range all {
		t.Logf("%s, over %s: %s after %v", s.name, s.transport, s.ended, s.took.Round(100*time.Millisecond))
		if s.took > 15*time.Second {
			t.Errorf("%s, over %s: ended after %v, want 10 s", s.name, s.transport, s.took)
		}
		if s.want == "an answer" && s.ended.code == codes.OK && s.ended.status < 400 && s.ended.ended == "" {
			t.Errorf("%s, over %s: %+v", s.name, s.transport, s.ended)
		}
		if rows[s.name] == nil {
			rows[s.name] = map[string]string{"gRPC": "–", "REST": "–"}
		}
		rows[s.name][s.transport] = s.ended.String() + " within 15 s"
	}
	for _, name := range []string{
		"a handshake of TLS, one byte a second", "a handshake of TLS, then silence", "a preface of HTTP/2, then pings only", "headers, one a second", "a body, one byte a second",
	} {
		table.add(t, name, rows[name]["gRPC"], rows[name]["REST"])
	}
	if err := x.answers(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// flood sends frames over HTTP/2 until the server ends the connection or d is over,
// and reports which.
func (x *target) flood(t *testing.T, address string, d time.Duration, frames func(conn *h2, i int) error) (ended string, sent int) {
	t.Helper()
	conn, err := openH2(address, x.tls(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	closed := make(chan string, 1)
	go func() {
		why := "connection closed"
		for {
			frame, err := conn.ReadFrame()
			if away, ok := frame.(*http2.GoAwayFrame); ok && away.ErrCode != http2.ErrCodeNo {
				why = "GOAWAY " + away.ErrCode.String()
			}
			if err != nil {
				closed <- why
				return
			}
		}
	}()
	for begun := time.Now(); time.Since(begun) < d; sent++ {
		if err := frames(conn, sent); err != nil {
			select {
			case why := <-closed:
				return why, sent
			case <-time.After(time.Second):
				return "connection closed", sent
			}
		}
		select {
		case why := <-closed:
			return why, sent
		default:
		}
	}
	return "goes on", sent
}

// attackFloods sends what HTTP/2 permits, too often.
func attackFloods(t *testing.T, x *target, table *attacks) { //nolint:thelper // a test of its own
	token := x.issuer.valid().token
	ping := [8]byte{1}
	for _, row := range []struct {
		name string
		// The connection must end over gRPC, over REST.
		ends   [2]bool
		frames func(conn *h2, i int) error
	}{
		{"rapid reset, without a token (CVE-2023-44487)", [2]bool{}, func(conn *h2, _ int) error {
			if err := conn.call(false, checkMethod); err != nil {
				return err
			}
			return conn.WriteRSTStream(conn.id, http2.ErrCodeCancel)
		}},
		{"rapid reset, with a valid token (CVE-2023-44487)", [2]bool{}, func(conn *h2, _ int) error {
			if err := conn.call(false, checkMethod, "authorization", "Bearer "+token); err != nil {
				return err
			}
			return conn.WriteRSTStream(conn.id, http2.ErrCodeCancel)
		}},
		{"resets that the server is made to send", [2]bool{}, func(conn *h2, _ int) error {
			if err := conn.call(false, checkMethod); err != nil {
				return err
			}
			return conn.WriteWindowUpdate(conn.id, 0)
		}},
		{"`PING`s", [2]bool{true, false}, func(conn *h2, _ int) error { return conn.WritePing(false, ping) }},
		{"`SETTINGS`", [2]bool{}, func(conn *h2, i int) error {
			return conn.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(i % 1000)}) //nolint:gosec // small
		}},
		{"`CONTINUATION`s without an end", [2]bool{true, true}, func(conn *h2, i int) error {
			if i == 0 {
				return conn.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: conn.block(":method", "POST")})
			}
			return conn.WriteContinuation(1, false, conn.block(fmt.Sprintf("x-%d", i), strings.Repeat("a", 1000)))
		}},
		{"empty `DATA`", [2]bool{}, func(conn *h2, i int) error {
			if i == 0 {
				return conn.call(false, checkMethod, "authorization", "Bearer "+token)
			}
			return conn.WriteData(1, false, nil)
		}},
		{"unknown frames", [2]bool{}, func(conn *h2, _ int) error { return conn.WriteRawFrame(0xfa, 0, 0, []byte("x")) }},
	} {
		cells := map[bool]string{}
		for _, rest := range []bool{false, true} {
			address := x.GRPC
			if rest {
				address = x.HTTP
			}
			before, warm := rss(t, x.pid), time.Duration(0)
			finished := make(chan struct{})
			var ended string
			var sent int
			go func() {
				defer close(finished)
				ended, sent = x.flood(t, address, 2*time.Second, row.frames)
			}()
			for going := true; going; {
				begun := time.Now()
				if err := x.answers(); err != nil {
					t.Errorf("%s, over %s: other callers: %v", row.name, transports[rest], err)
				}
				warm = max(warm, time.Since(begun))
				select {
				case <-finished:
					going = false
				default:
				}
			}
			grown := rss(t, x.pid) - before
			t.Logf("%s, over %s: %s after %d frames; memory grew by %d KiB; others waited at most %v for all listeners", row.name, transports[rest], ended, sent, grown>>10, warm.Round(time.Millisecond))
			if grown > 64<<20 {
				t.Errorf("%s, over %s: memory grew by %d MiB", row.name, transports[rest], grown>>20)
			}
			if row.ends[place(rest)] && ended == "goes on" {
				t.Errorf("%s, over %s: the connection goes on", row.name, transports[rest])
			}
			if warm > 5*time.Second {
				t.Errorf("%s, over %s: others waited %v", row.name, transports[rest], warm)
			}
			cells[rest] = "others are answered"
			if row.ends[place(rest)] {
				cells[rest] = "connection ended; others are answered"
			}
		}
		table.add(t, row.name, cells[false], cells[true])
	}
}

// attackBombs sends little that becomes much.
func attackBombs(t *testing.T, x *target, table *attacks) { //nolint:thelper // a test of its own
	token := x.issuer.issue("batches", "Eligibility.Check", "Eligibility.Batch").token
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	zeros := make([]byte, 1<<20)
	for range 256 {
		_, _ = w.Write(zeros)
	}
	_ = w.Close()
	peak := func(attack func() answer) (a answer, grown int64) {
		before := rss(t, x.pid)
		a = attack()
		return a, rss(t, x.pid) - before
	}
	over := func(what string, a answer, grown int64) {
		t.Logf("%s: %s, memory grew by %d KiB", what, a, grown>>10)
		if a.code == codes.OK && a.ended == "" && a.status < 400 {
			t.Errorf("%s is answered: %+v", what, a)
		}
		if grown > 96<<20 {
			t.Errorf("%s: memory grew by %d MiB", what, grown>>20)
		}
	}
	post := func(body string, headers ...string) func() answer {
		return func() answer {
			return x.rest(nil, httpRequest("POST", batchPath, append(headers, bearerLine(token), "Content-Type: application/json", fmt.Sprintf("Content-Length: %d", len(body)))...)+body)
		}
	}
	send := func(flag byte, content []byte, fields ...string) func() answer {
		return func() answer {
			return x.grpc(nil, batchMethod, framed(flag, content), append(fields, "authorization", "Bearer "+token)...)
		}
	}
	for _, row := range []struct {
		name       string
		grpc, rest func() answer
	}{
		{"256 MiB of zeros, compressed by gzip", send(1, zipped.Bytes(), "grpc-encoding", "gzip"), post(zipped.String(), "Content-Encoding: gzip")},
		{"a message of 3 MiB", send(0, make([]byte, 3<<20)), post(strings.Repeat(" ", 3<<20))},
		{"a length of 4 GiB", func() answer {
			return x.grpc(nil, batchMethod, []byte{0, 255, 255, 255, 255}, "authorization", "Bearer "+token)
		}, func() answer {
			return x.rest(nil, httpRequest("POST", batchPath, bearerLine(token), "Content-Type: application/json", "Content-Length: 4294967296")+"{}")
		}},
		{"100,000 levels of JSON", send(0, bytes.Repeat([]byte{0x0a, 0x7f}, 50_000)), post(`{"requests":` + strings.Repeat("[", 100_000))},
		{"a million items", send(0, bytes.Repeat([]byte{0x0a, 0}, 500_000)), post(`{"requests":[` + strings.Repeat("{},", 600_000) + "{}]}")},
	} {
		a, grown := peak(row.grpc)
		over(row.name+", over gRPC", a, grown)
		b, more := peak(row.rest)
		over(row.name+", over REST", b, more)
		rest := fmt.Sprint(b.status)
		if b.reason != "" {
			rest += " `" + b.reason + "`"
		} else if b.ended != "" {
			rest = b.ended
		}
		table.add(t, row.name, "`"+a.String()+"`", rest)
	}
	if err := x.answers(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// attackDescriptors opens more connections than the process may have descriptors.
func attackDescriptors(t *testing.T, table *attacks) { //nolint:thelper // a test of its own
	x := &target{under: []string{"sh", "-c", `ulimit -n 256; exec "$0" "$@"`}}
	x.init(t)
	x.restart(t, cachetest.StartRedis(t).Address, "", "")
	cells := map[bool]string{}
	for _, rest := range []bool{false, true} {
		address := x.GRPC
		if rest {
			address = x.HTTP
		}
		var conns []net.Conn
		for range 300 {
			if conn, err := dial(address); err == nil {
				conns = append(conns, conn)
			}
		}
		for range 5 {
			if err := x.probed(); err != nil {
				t.Errorf("300 connections over %s, 256 descriptors: %v", transports[rest], err)
			}
		}
		for _, conn := range conns {
			_ = conn.Close()
		}
		eventually(t, "the service to answer again", func() bool { return x.answers() == nil })
		cells[rest] = "probe and admin listener answer"
	}
	table.add(t, "300 connections, 256 descriptors", cells[false], cells[true])
}
