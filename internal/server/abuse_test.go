package server_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/server"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"
)

// hostile is a client that writes frames of HTTP/2 as it likes, and reads what it is
// sent if it reads at all.
type hostile struct {
	net.Conn
	*http2.Framer

	header bytes.Buffer
	encode *hpack.Encoder
	rest   bool
}

func newHostile(t *testing.T, conn net.Conn, rest bool) *hostile {
	t.Helper()
	h := &hostile{Conn: conn, Framer: http2.NewFramer(conn, conn), rest: rest}
	h.encode = hpack.NewEncoder(&h.header)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := h.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return h
}

// block returns the header of a request, with further fields: name and value in turn.
func (h *hostile) block(further ...string) []byte {
	h.header.Reset()
	fields := []string{":method", "POST", ":scheme", "https", ":authority", "localhost", ":path", "/grpc.health.v1.Health/Check", "content-type", "application/grpc", "te", "trailers"}
	if h.rest {
		fields = []string{":method", "GET", ":scheme", "https", ":authority", "localhost", ":path", "/v1/customers/" + apitest.CustomerA + "/eligibility"}
	}
	fields = append(fields, further...)
	for i := 0; i < len(fields); i += 2 {
		_ = h.encode.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return h.header.Bytes()
}

// floods are what a hostile client does, again and again, until the server ends the
// connection or the time is over.
var floods = map[string]struct {
	step func(h *hostile, i int) error
	// ends is whether each of the servers ends the connection: gRPC and REST.
	grpcEnds, restEnds bool
	deaf               bool // it reads nothing
}{
	// CVE-2023-44487.
	"rapid reset": {step: func(h *hostile, i int) error {
		id := uint32(2*i + 1)
		if err := h.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: h.block(), EndHeaders: true, EndStream: h.rest}); err != nil {
			return err
		}
		return h.WriteRSTStream(id, http2.ErrCodeCancel)
	}},
	"pings": {step: func(h *hostile, _ int) error { return h.WritePing(false, [8]byte{1}) }, grpcEnds: true},
	"pings without reading": {
		step: func(h *hostile, _ int) error { return h.WritePing(false, [8]byte{1}) }, grpcEnds: true, restEnds: true, deaf: true,
	},
	"settings": {step: func(h *hostile, _ int) error {
		return h.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 16})
	}},
	"settings without reading": {
		step: func(h *hostile, _ int) error {
			return h.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 16})
		},
		deaf: true, // net/http acknowledges many at once
	},
	// CVE-2023-45288.
	"continuations": {step: func(h *hostile, i int) error {
		if i == 0 {
			return h.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h.block()})
		}
		h.header.Reset()
		for range 100 {
			_ = h.encode.WriteField(hpack.HeaderField{Name: "x-more", Value: strings.Repeat("x", 100), Sensitive: true})
		}
		return h.WriteContinuation(1, false, h.header.Bytes())
	}, grpcEnds: true, restEnds: true},
	"empty continuations": {step: func(h *hostile, i int) error {
		if i == 0 {
			return h.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h.block()})
		}
		return h.WriteContinuation(1, false, nil)
	}},
	// A table entry of 4,000 bytes costs one byte to repeat.
	"header bombs": {step: func(h *hostile, i int) error {
		bomb := strings.Repeat("x", 3900)
		fields := make([]string, 0, 2000)
		for range 1000 {
			fields = append(fields, "x-bomb", bomb)
		}
		return h.WriteHeaders(http2.HeadersFrameParam{
			StreamID: uint32(2*i + 1), BlockFragment: h.block(fields...), EndHeaders: true, EndStream: true,
		})
	}},
	"empty data": {step: func(h *hostile, i int) error {
		if i == 0 {
			return h.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h.block(), EndHeaders: true})
		}
		return h.WriteData(1, false, nil)
	}},
	"priorities": {step: func(h *hostile, i int) error {
		return h.WritePriority(uint32(2*i+1), http2.PriorityParam{StreamDep: 0, Weight: 1})
	}},
}

// Whatever a connection over HTTP/2 does, it costs little memory, and others are
// served. What grpc-go and net/http count as abuse ends it.
func TestFloodsAreBounded(t *testing.T) { //nolint:paralleltest // it measures memory
	authority := accesstest.NewAuthority(t)
	h2 := authority.ClientTLS(nil)
	h2.NextProtos = []string{"h2"}
	const most = 64 << 20
	for name, flood := range floods {
		for _, transport := range []string{"grpc", "rest"} {
			t.Run(name+" over "+transport, func(t *testing.T) {
				run := servertest.Start(t, servertest.Setup{
					Source: apitest.Approved(), ClientTLS: authority.ClientTLS(nil), API: api.Config{Logger: zap.NewNop()},
					Server: server.Config{TLS: serverTLS(t, authority), Limits: server.Limits{FirstRequest: time.Minute}},
				})
				before := heap()
				h := newHostile(t, connect(t, hosts(run)[transport], h2), transport == "rest")
				if !flood.deaf {
					go func() { _, _ = io.Copy(io.Discard, h.Conn) }()
				}
				ended := make(chan error, 1)
				ends, lasts := flood.grpcEnds, time.Second/4
				if transport == "rest" {
					ends = flood.restEnds
				}
				if ends { // net/http sends GOAWAY and closes a second later
					lasts = bound
				}
				_ = h.SetWriteDeadline(time.Now().Add(lasts))
				go func() {
					for i := 0; ; i++ {
						if err := flood.step(h, i); err != nil {
							ended <- err
							return
						}
					}
				}()
				var worst time.Duration
				served := 0
				var err error
				for flooding := true; flooding || served == 0; {
					ctx, cancel := context.WithTimeout(t.Context(), bound)
					begun := time.Now()
					_, failure := run.Client.CheckEligibility(ctx, apitest.Ask(apitest.CustomerB))
					cancel()
					if failure != nil {
						t.Fatalf("another caller: %v", failure)
					}
					worst = max(worst, time.Since(begun))
					served++
					select {
					case err = <-ended:
						flooding = false
					default:
					}
				}
				if grown := heap() - before; grown > most {
					t.Errorf("memory grew by %d MiB", grown>>20)
				}
				cut := !errors.Is(err, os.ErrDeadlineExceeded)
				if ends && !cut {
					t.Errorf("the connection was not ended")
				}
				t.Logf("ended %v (%v); %d calls of another caller, the slowest in %v", cut, err, served, worst)
			})
		}
	}
}

// heap returns how many bytes are in use after a collection.
func heap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc + stats.StackInuse) //nolint:gosec // far smaller
}
