package rest_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"
)

// BenchmarkCheck measures a check that the local tier answers: from the request to the
// response writer, and with net/http on a connection of the loopback interface, whose
// client only counts bytes.
func BenchmarkCheck(b *testing.B) {
	run := servertest.StartWarm(b, api.Config{PlainRecords: 1})
	path := "/v1/customers/" + apitest.CustomerA + "/eligibility"
	b.Run("handler", func(b *testing.B) {
		req, w := newRequest(b, http.MethodGet, run.REST+path), &discardWriter{header: make(http.Header)}
		b.ReportAllocs()
		for b.Loop() {
			clear(w.header)
			run.Handler.ServeHTTP(w, req)
		}
	})
	b.Run("server", func(b *testing.B) {
		wire := "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n"
		conn, err := new(net.Dialer).DialContext(b.Context(), "tcp", strings.TrimPrefix(run.REST, "http://"))
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		answers := bufio.NewReader(conn)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := io.WriteString(conn, wire); err != nil {
				b.Fatal(err)
			}
			for read := []byte(nil); !bytes.HasSuffix(read, []byte("}")); { // the header has none
				if read, err = answers.ReadSlice('}'); err != nil {
					b.Fatal(err)
				}
				if answers.Buffered() > 0 {
					read = nil
				}
			}
		}
	})
}

// BenchmarkBatch measures a batch of 100 that the local tier answers, from the request
// to the response writer.
func BenchmarkBatch(b *testing.B) {
	run := servertest.StartWarm(b, api.Config{PlainRecords: 1})
	body := holdBatch(run, 100)
	req, w := newRequest(b, http.MethodPost, run.REST+batchPath), &discardWriter{header: make(http.Header)}
	sent := bytes.NewReader(nil)
	req.ContentLength, req.Body = int64(len(body)), io.NopCloser(sent)
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		sent.Reset(body)
		run.Handler.ServeHTTP(w, req)
	}
}

const batchPath = "/v1/customers:batchCheckEligibility"

// holdBatch puts evidence of n customers into the local tier and returns the body that
// asks about them.
func holdBatch(run *servertest.Running, n int) []byte {
	now := time.Now().Add(-time.Second)
	var body bytes.Buffer
	body.WriteString(`{"requests":[`)
	for i := range n {
		id := fmt.Sprintf("cccccccc-0000-4000-8000-%012x", i)
		run.Store.Hold(id, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed"}, now)
		run.Store.Hold(id, eligibility.FacetQualifications, eligibility.Evidence{}, now)
		if i > 0 {
			body.WriteByte(',')
		}
		body.WriteString(`{"customerId":"` + id + `"}`)
	}
	body.WriteString("]}")
	return body.Bytes()
}

func newRequest(tb testing.TB, method, url string) *http.Request {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), method, url, http.NoBody)
	if err != nil {
		tb.Fatal(err)
	}
	return req
}

// discardWriter is a response that counts what it is sent.
type discardWriter struct {
	header  http.Header
	written int
}

func (w *discardWriter) Header() http.Header { return w.header }

func (w *discardWriter) Write(b []byte) (int, error) {
	w.written += len(b)
	return len(b), nil
}

func (w *discardWriter) WriteHeader(int) {}
