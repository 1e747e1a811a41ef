package rest_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/rest"
	echov1 "github.com/eligibilityd/eligibilityd/internal/rest/testdata/echo/v1"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"
)

// gunzip returns the body of a response, decompressed if it is compressed.
func gunzip(t *testing.T, got servertest.Reply) []byte {
	t.Helper()
	if got.Header.Get("Content-Encoding") != "gzip" {
		return got.Body
	}
	reader, err := gzip.NewReader(bytes.NewReader(got.Body))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(reader) // checks length and checksum
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// vary is sent with each answer.
const vary = "Accept-Encoding, Accept-Language"

func batchOf(n int) string {
	return `{"requests":[` + strings.TrimSuffix(strings.Repeat(`{"customerId":"`+apitest.CustomerA+`"},`, n), ",") + `]}`
}

// A body is compressed if it is large and the request accepts that; the answer is
// the same either way.
func TestLargeBodiesAreCompressedIfTheRequestAcceptsIt(t *testing.T) {
	t.Parallel()
	run := startEchoes(t, &echoes{echo: repeat}, servertest.Setup{Source: apitest.Approved()})
	run.Get(t, apitest.CustomerA, "") // so that all that follows is from the cache
	at := func(path string) func(...string) servertest.Reply {
		return func(headers ...string) servertest.Reply {
			return run.Do(t, http.MethodGet, run.REST+path, "", headers...)
		}
	}
	for name, row := range map[string]struct {
		ask   func(headers ...string) servertest.Reply
		large bool
	}{
		"check":           {at("/v1/customers/" + apitest.CustomerA + "/eligibility"), false},
		"batch":           {func(h ...string) servertest.Reply { return run.Post(t, batchOf(50), h...) }, true},
		"small batch":     {func(h ...string) servertest.Reply { return run.Post(t, batchOf(1), h...) }, false},
		"generated":       {at("/v1/echoes/abcdefgh?count=1000"), true},
		"small generated": {at("/v1/echoes/abcdefgh?count=2"), false},
		"violations": {func(h ...string) servertest.Reply {
			return run.Post(t, `{"requests":[],`+strings.Repeat(`"x":1,`, 99)+`"y":1}`, h...)
		}, true},
		"document":         {at("/openapi.json"), true},
		"page's script":    {at("/docs/docs.js"), false},
		"script":           {at("/docs/swagger-ui-bundle.js"), true},
		"part of document": {func(h ...string) servertest.Reply { return at("/openapi.json")(append(h, "Range", "bytes=0-1999")...) }, false},
	} {
		// A token stops net/http from asking for compression, and decompressing, itself.
		plain := row.ask("Accept-Encoding", "identity")
		if plain.Header.Get("Content-Encoding") != "" || plain.Header.Get("Vary") != vary {
			t.Errorf("%s, plain: %v", name, plain.Header)
		}
		for _, accept := range []string{"gzip", "deflate, GZIP;q=0.5", "br;q=1, *;q=0.1", "x-gzip"} {
			got := row.ask("Accept-Encoding", accept)
			if compressed := got.Header.Get("Content-Encoding") == "gzip"; compressed != row.large {
				t.Errorf("%s, %s: compressed %v, %d bytes", name, accept, compressed, len(plain.Body))
			}
			if body := gunzip(t, got); !bytes.Equal(body, plain.Body) && name != "batch" {
				t.Errorf("%s, %s: %.200q, plain %.200q", name, accept, body, plain.Body)
			}
			if got.Header.Get("Vary") != vary || got.Header.Get("Etag") != plain.Header.Get("Etag") || got.StatusCode != plain.StatusCode {
				t.Errorf("%s, %s: %d %v, plain %d %v", name, accept, got.StatusCode, got.Header, plain.StatusCode, plain.Header)
			}
			if row.large && len(got.Body) >= len(plain.Body) {
				t.Errorf("%s: %d bytes compressed, %d plain", name, len(got.Body), len(plain.Body))
			}
		}
		for _, accept := range []string{"gzip;q=0", "gzip;q=0.000", "*;q=0", "gzip;q=none", "br", "", "gzip;q=0, *"} {
			if got := row.ask("Accept-Encoding", accept); got.Header.Get("Content-Encoding") != "" {
				t.Errorf("%s: compressed for %q", name, accept)
			}
		}
	}
}

// The tag of an answer is confirmed whichever form the caller holds, and a response
// without a body has neither length nor coding of one.
func TestCompressionChangesNoTag(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Returns(eligibility.AccountStatusAllowed, "Allowed", slices.Repeat([]eligibility.Qualification{{
		Type: eligibility.QualificationEducation, TypeText: "Education", VettingStatus: eligibility.VettingApproved, VettingStatusText: "Approved",
	}}, 20)...)})
	run.Get(t, apitest.CustomerA, "?segment=education")
	for name, path := range map[string]string{"check": "/v1/customers/" + apitest.CustomerA + "/eligibility?segment=education", "document": "/openapi.json"} {
		full := run.Do(t, http.MethodGet, run.REST+path, "", "Accept-Encoding", "gzip")
		tag := full.Header.Get("Etag")
		if full.Header.Get("Content-Encoding") != "gzip" || !strings.HasPrefix(tag, `W/"`) {
			t.Fatalf("%s: %v", name, full.Header)
		}
		for _, accept := range []string{"gzip", "identity"} {
			got := run.Do(t, http.MethodGet, run.REST+path, "", "Accept-Encoding", accept, "If-None-Match", tag)
			if got.StatusCode != http.StatusNotModified || len(got.Body) > 0 || got.Header.Get("Content-Encoding") != "" ||
				got.Header.Get("Vary") != vary || got.Header.Get("Etag") != tag {
				t.Errorf("%s, %s: %d %v", name, accept, got.StatusCode, got.Header)
			}
		}
		head := run.Do(t, http.MethodHead, run.REST+path, "", "Accept-Encoding", "gzip")
		if head.StatusCode != http.StatusOK || head.ContentLength > 0 && head.ContentLength != full.ContentLength || head.Header.Get("Etag") != tag || head.Header.Get("Vary") != vary {
			t.Errorf("%s: HEAD %d %v", name, head.StatusCode, head.Header)
		}
	}
}

// A stream is not compressed: its header and each message arrive at once.
func TestStreamsAreNotCompressed(t *testing.T) {
	t.Parallel()
	more := make(chan struct{})
	run := startEchoes(t, &echoes{watch: func(_ *echov1.EchoRequest, stream grpc.ServerStreamingServer[echov1.EchoResponse]) error {
		if err := stream.SendHeader(nil); err != nil {
			return err
		}
		for range 2 {
			select {
			case <-more:
			case <-stream.Context().Done():
				return stream.Context().Err()
			}
			if err := stream.Send(&echov1.EchoResponse{Text: strings.Repeat("x", 3000)}); err != nil {
				return err
			}
		}
		return nil
	}}, servertest.Setup{})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, run.REST+"/v1/echoes/x:watch", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", "gzip")
	resp, err := run.HTTP.RoundTrip(req) // returns once the header is there
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.Header.Get("Content-Encoding") != "" || resp.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatalf("%v", resp.Header)
	}
	for range 2 {
		more <- struct{}{}
		message := make([]byte, 3000)
		if _, err := io.ReadFull(resp.Body, message); err != nil {
			t.Fatal(err)
		}
	}
}

const page = "https://shop.example"

// Pages of the configured origins may ask and read, and no others.
func TestOnlyConfiguredOriginsMayReadAnswers(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{
		Source: apitest.Approved(), REST: rest.Config{Origins: []string{"https://other.example:8443", page}},
		API: api.Config{Access: apitest.EachRight()},
	})
	url := run.REST + "/v1/customers/" + apitest.CustomerA + "/eligibility"
	cors := func(header http.Header) map[string]string {
		seen := make(map[string]string)
		for name := range header {
			if strings.HasPrefix(name, "Access-Control-") {
				seen[name] = header.Get(name)
			}
		}
		return seen
	}
	varies := func(header http.Header) bool {
		return slices.Contains(header.Values("Vary"), "Origin") && slices.Contains(header.Values("Vary"), vary)
	}
	preflight := []string{"Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "accept-language,authorization,cache-control"}

	got := run.Do(t, http.MethodOptions, url, "", append(preflight, "Origin", page, "Sec-Fetch-Site", "cross-site")...)
	if allowed := cors(got.Header); got.StatusCode != http.StatusNoContent || len(allowed) != 4 || allowed["Access-Control-Allow-Origin"] != page ||
		!strings.Contains(allowed["Access-Control-Allow-Headers"], "Accept-Language, Authorization") || !strings.Contains(allowed["Access-Control-Allow-Methods"], "GET") ||
		allowed["Access-Control-Max-Age"] != "600" || !varies(got.Header) {
		t.Errorf("preflight: %d %v", got.StatusCode, got.Header)
	}
	for name, request := range map[string]struct {
		token, path string
		status      int
	}{
		"answer":          {"check", url, http.StatusOK},
		"refused":         {"none", url, http.StatusForbidden},
		"unauthenticated": {"guessed", url, http.StatusUnauthorized},
		"unknown path":    {"check", run.REST + "/none", http.StatusNotFound},
		"malformed":       {"check", url + "?x=1", http.StatusBadRequest},
	} {
		got := run.Do(t, http.MethodGet, request.path, "", "Origin", page, "Authorization", request.token, "Sec-Fetch-Site", "cross-site")
		seen := cors(got.Header)
		if got.StatusCode != request.status || len(seen) != 2 || seen["Access-Control-Allow-Origin"] != page || !varies(got.Header) {
			t.Errorf("%s: %d %v", name, got.StatusCode, got.Header)
		}
		for _, header := range []string{"Etag", "Age", "Retry-After", "X-Request-Id", "Www-Authenticate"} {
			if !strings.Contains(seen["Access-Control-Expose-Headers"], header) {
				t.Errorf("%s is not exposed: %q", header, seen["Access-Control-Expose-Headers"])
			}
		}
	}
	for _, origin := range []string{"", "null", "https://shop.example.evil.test", "https://shop.example:443", "http://shop.example", "HTTPS://SHOP.EXAMPLE", page + "/", "https://evil.test", page + ", https://evil.test"} {
		for method, status := range map[string]int{http.MethodOptions: http.StatusUnauthorized, http.MethodGet: http.StatusOK} {
			headers := []string{"Origin", origin}
			if origin == "" {
				headers = nil
			} else {
				status = http.StatusForbidden // by the guard of listeners on loopback
			}
			if method == http.MethodOptions {
				headers = append(headers, preflight...)
			} else {
				headers = append(headers, "Authorization", "check")
			}
			got := run.Do(t, method, url, "", headers...)
			if seen := cors(got.Header); len(seen) > 0 || got.StatusCode != status {
				t.Errorf("%s from %q: %d %v", method, origin, got.StatusCode, got.Header)
			}
		}
	}
	// A page that resolves to loopback is no configured origin, whatever it claims.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "shop.example"
	req.Header.Set("Origin", page)
	req.Header.Set("Authorization", "check")
	resp, err := run.HTTP.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden || len(cors(resp.Header)) > 0 {
		t.Errorf("rebound: %d %v", resp.StatusCode, resp.Header)
	}
}

// Without origins, no answer permits a page anything.
func TestNoOriginMayReadAnswersByDefault(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
	for _, method := range []string{http.MethodGet, http.MethodOptions} {
		got := run.Do(t, method, run.REST+"/v1/customers/"+apitest.CustomerA+"/eligibility", "", "Origin", page, "Access-Control-Request-Method", "GET")
		if strings.Contains(fmt.Sprint(got.Header), "Access-Control") || got.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %d %v", method, got.StatusCode, got.Header)
		}
	}
}
