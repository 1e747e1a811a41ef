//go:build acceptance

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	bin "encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// The clients of the attack suite speak HTTP/2 and HTTP/1.1 by hand: a library
// would refuse to send most of it.

// pair is a certificate and its key, as a client presents them.
type pair = tls.Certificate

// signed returns a certificate for a client of authority a, by template.
func signed(t *testing.T, a *accesstest.Authority, template x509.Certificate) *pair {
	t.Helper()
	if template.ExtKeyUsage == nil {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	p := a.Issue(t, "client", template).TLS()
	return &p
}

// named returns a template for a client with that URI, or DNS name if it is none.
func named509(name string) (template x509.Certificate) {
	if at, err := url.Parse(name); err == nil && at.Scheme != "" {
		template.URIs = []*url.URL{at}
	} else {
		template.DNSNames = []string{name}
	}
	return template
}

// signedByItself returns a certificate that no authority has signed.
func signedByItself(t *testing.T, template x509.Certificate) *pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.ExtKeyUsage = big.NewInt(1), []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &pair{Certificate: [][]byte{der}, PrivateKey: key}
}

// installServer gives the server another certificate, as Kubernetes does: in a new directory,
// to which a link is then switched.
func installServer(t *testing.T, a *accesstest.Authority, dir string) {
	t.Helper()
	p, files := a.Server(t), map[string][]byte{}
	for name, from := range map[string]string{"tls.crt": p.CertificateFile, "tls.key": p.KeyFile} {
		content, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = content
	}
	writeLinked(t, dir, files)
}

// writeLinked replaces all files of dir at once.
func writeLinked(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	fresh, err := os.MkdirTemp(dir, "..") //nolint:usetesting // beside what it replaces
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "..data")
	former, _ := os.Readlink(link)
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(fresh, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
		if path := filepath.Join(dir, name); former == "" {
			if err := os.Symlink(filepath.Join("..data", name), path); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Symlink(filepath.Base(fresh), link+"_tmp"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(link+"_tmp", link); err != nil {
		t.Fatal(err)
	}
	if former != "" {
		if err := os.RemoveAll(filepath.Join(dir, former)); err != nil {
			t.Fatal(err)
		}
	}
}

// claims are the payload of a token.
type claims map[string]any

// with returns a copy in which some claims differ; nil removes one.
func (c claims) with(changes claims) claims {
	changed := claims{}
	maps.Copy(changed, c)
	for name, value := range changes {
		if changed[name] = value; value == nil {
			delete(changed, name)
		}
	}
	return changed
}

func (c claims) String() string { return asJSON(c) }

func asJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func base64url(p []byte) string { return base64.RawURLEncoding.EncodeToString(p) }

// forged returns a token with exactly this header and payload, signed by sign.
func forged(header, payload string, sign func(signed []byte) []byte) string {
	signed := base64url([]byte(header)) + "." + base64url([]byte(payload))
	return signed + "." + base64url(sign([]byte(signed)))
}

func unsigned([]byte) []byte { return nil }

func rs(key *rsa.PrivateKey, hash crypto.Hash) func([]byte) []byte {
	return func(signed []byte) []byte {
		h := hash.New()
		h.Write(signed)
		signature, err := rsa.SignPKCS1v15(rand.Reader, key, hash, h.Sum(nil))
		if err != nil {
			panic(err)
		}
		return signature
	}
}

func ps256(key *rsa.PrivateKey) func([]byte) []byte {
	return func(signed []byte) []byte {
		sum := sha256.Sum256(signed)
		signature, err := rsa.SignPSS(rand.Reader, key, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		if err != nil {
			panic(err)
		}
		return signature
	}
}

func hs256(secret []byte) func([]byte) []byte {
	return func(signed []byte) []byte {
		mac := hmac.New(sha256.New, secret)
		mac.Write(signed)
		return mac.Sum(nil)
	}
}

// answer is what a client received, over either transport.
type answer struct {
	code      codes.Code
	status    int // over REST
	reason    string
	message   string
	right     string
	retry     bool
	challenge string // WWW-Authenticate
	ended     string // how the connection or stream ended, if without an answer
	body      []byte
	header    map[string]string // in lower case
}

// String is the answer in the table.
func (a answer) String() string {
	switch {
	case a.ended != "":
		return a.ended
	case a.right != "":
		return fmt.Sprintf("%s, right %#q", a.reason, a.right)
	case a.reason != "":
		return a.reason
	case a.status != 0:
		return strconv.Itoa(a.status)
	default:
		return a.code.String()
	}
}

// closedBy describes a connection that ended without an answer.
func closedBy(err error) answer {
	var alert *net.OpError
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return answer{ended: "no answer"}
	case errors.As(err, &alert) && alert.Op == "remote error":
		return answer{ended: "TLS alert"}
	default:
		return answer{ended: "connection closed"}
	}
}

// dial opens a connection, without TLS.
func dial(address string) (net.Conn, error) {
	return (&net.Dialer{Timeout: patience}).DialContext(context.Background(), "tcp", address)
}

// open opens a connection that lasts no longer than patience. With cfg, the client
// offers protocol by ALPN; without it, the connection is plain text.
func open(address string, cfg *tls.Config, protocol string) (net.Conn, error) {
	conn, err := dial(address)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	if cfg == nil {
		return conn, nil
	}
	cfg = cfg.Clone()
	cfg.NextProtos = []string{protocol}
	secured := tls.Client(conn, cfg)
	if err := secured.HandshakeContext(context.Background()); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return secured, nil
}

// h2 is one HTTP/2 connection that does as it is told.
type h2 struct {
	net.Conn
	*http2.Framer

	encoded bytes.Buffer
	encoder *hpack.Encoder
	next    uint32

	// Of the last stream.
	id       uint32
	answer   answer
	answered bool
	// How much may be sent.
	window, streamWindow, initial int
}

// openH2 opens a connection to address. Without cfg, it is plain text.
func openH2(address string, cfg *tls.Config) (*h2, error) {
	conn, err := open(address, cfg, "h2")
	if err != nil {
		return nil, err
	}
	c := &h2{Conn: conn, Framer: http2.NewFramer(conn, conn), next: 1, window: 65_535, initial: 65_535}
	c.encoder = hpack.NewEncoder(&c.encoded)
	c.Framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.Framer.AllowIllegalWrites = true
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if err := c.WriteSettings(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// block encodes fields, which alternate between name and value.
func (c *h2) block(fields ...string) []byte {
	c.encoded.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = c.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return c.encoded.Bytes()
}

// open sends the header of a stream, over several frames if it is large.
func (c *h2) open(end bool, fields ...string) error {
	block, first := c.block(fields...), true
	c.id, c.answer, c.answered, c.streamWindow = c.next, answer{code: codes.Unknown, header: map[string]string{}}, false, c.initial
	c.next += 2
	for first || len(block) > 0 {
		part := block[:min(len(block), 16<<10)]
		block = block[len(part):]
		var err error
		if first {
			err = c.WriteHeaders(http2.HeadersFrameParam{StreamID: c.id, BlockFragment: part, EndStream: end, EndHeaders: len(block) == 0})
		} else {
			err = c.WriteContinuation(c.id, len(block) == 0, part)
		}
		if err != nil {
			return err
		}
		first = false
	}
	return nil
}

// call opens a stream for a method of gRPC.
func (c *h2) call(end bool, method string, fields ...string) error {
	return c.open(end, append([]string{
		":method", "POST", ":scheme", "https", ":path", method, ":authority", "localhost", "content-type", "application/grpc", "te", "trailers",
	}, fields...)...)
}

// message is a message of gRPC as it is sent.
func message(m proto.Message) []byte {
	encoded, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return framed(0, encoded)
}

// framed is a message of gRPC, compressed if flag is 1.
func framed(flag byte, content []byte) []byte {
	return append(bin.BigEndian.AppendUint32([]byte{flag}, uint32(len(content))), content...) //nolint:gosec // short
}

// send sends the content of the last stream, and its end. If an answer comes before
// it is all sent, the rest is not.
func (c *h2) send(content []byte) error {
	for len(content) > 0 && !c.answered {
		part := content[:min(len(content), 16<<10)]
		if len(part) > min(c.window, c.streamWindow) {
			if err := c.read(); err != nil {
				return err
			}
			continue
		}
		content = content[len(part):]
		c.window, c.streamWindow = c.window-len(part), c.streamWindow-len(part)
		if err := c.WriteData(c.id, len(content) == 0, part); err != nil {
			return nil //nolint:nilerr // the answer may have the cause
		}
	}
	return nil
}

// receive returns the answer to the last stream.
func (c *h2) receive() answer {
	for !c.answered {
		if err := c.read(); err != nil {
			return closedBy(err)
		}
	}
	return c.answer
}

// read reads one frame.
func (c *h2) read() error {
	frame, err := c.ReadFrame()
	if err != nil {
		if _, illegal := errors.AsType[http2.StreamError](err); illegal {
			return nil
		}
		return err
	}
	ours := frame.Header().StreamID == c.id
	switch f := frame.(type) {
	case *http2.SettingsFrame:
		if window, ok := f.Value(http2.SettingInitialWindowSize); ok {
			c.streamWindow += int(window) - c.initial
			c.initial = int(window)
		}
		if !f.IsAck() {
			return c.WriteSettingsAck()
		}
	case *http2.WindowUpdateFrame:
		if ours {
			c.streamWindow += int(f.Increment)
		} else if f.StreamID == 0 {
			c.window += int(f.Increment)
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return c.WritePing(true, f.Data)
		}
	case *http2.GoAwayFrame:
		if f.ErrCode != http2.ErrCodeNo || f.LastStreamID < c.id {
			c.answered, c.answer = true, answer{ended: "GOAWAY " + f.ErrCode.String()}
		}
	case *http2.RSTStreamFrame:
		if ours && c.answer.header["grpc-status"] == "" {
			c.answered, c.answer = true, answer{ended: "RST_STREAM " + f.ErrCode.String()}
		}
	case *http2.DataFrame:
		if ours {
			c.answer.body = append(c.answer.body, f.Data()...)
			if f.Length > 0 {
				_ = c.WriteWindowUpdate(0, f.Length)
				_ = c.WriteWindowUpdate(c.id, f.Length)
			}
			if f.StreamEnded() {
				c.answered, c.answer = true, c.answer.complete()
			}
		}
	case *http2.MetaHeadersFrame:
		if ours {
			for _, field := range f.Fields {
				c.answer.header[field.Name] = field.Value
			}
			if f.StreamEnded() {
				c.answered, c.answer = true, c.answer.complete()
			}
		}
	}
	return nil
}

// complete reads the status from the header and trailer.
func (a answer) complete() answer {
	a.challenge = a.header["www-authenticate"]
	number, err := strconv.Atoi(a.header["grpc-status"])
	if err != nil {
		a.status, _ = strconv.Atoi(a.header[":status"])
		return a
	}
	a.code, a.message = codes.Code(number), a.header["grpc-message"] //nolint:gosec // checked by callers
	encoded, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(a.header["grpc-status-details-bin"], "="))
	var st status.Status
	if err != nil || proto.Unmarshal(encoded, &st) != nil {
		return a
	}
	for _, detail := range st.GetDetails() {
		var info errdetails.ErrorInfo
		if detail.UnmarshalTo(&info) == nil {
			a.reason, a.right = info.GetReason(), info.GetMetadata()["right"]
		}
		a.retry = a.retry || detail.MessageIs(new(errdetails.RetryInfo))
	}
	return a
}

// dialTLS opens a connection for HTTP/1.1. Without cfg, it is plain text.
func dialTLS(address string, cfg *tls.Config) (net.Conn, error) {
	return open(address, cfg, "http/1.1")
}

// sendHTTP sends a request as it stands and returns the answer.
func sendHTTP(address string, cfg *tls.Config, request string) answer {
	conn, err := dialTLS(address, cfg)
	if err != nil {
		return closedBy(err)
	}
	defer func() { _ = conn.Close() }()
	go func() { _, _ = io.WriteString(conn, request) }() // the answer may come before its end
	return readHTTP(bufio.NewReader(conn), request)
}

// readHTTP reads the answer to a request.
func readHTTP(from *bufio.Reader, request string) answer {
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(from, &http.Request{Method: method})
	if err != nil {
		return closedBy(err)
	}
	defer func() { _ = resp.Body.Close() }()
	a := answer{status: resp.StatusCode, challenge: resp.Header.Get("Www-Authenticate"), header: map[string]string{}}
	for name, values := range resp.Header {
		a.header[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	if a.body, err = io.ReadAll(resp.Body); err != nil {
		return closedBy(err)
	}
	var failure struct {
		Code    int
		Message string
		Details []struct {
			Type     string `json:"@type"`
			Reason   string
			Metadata map[string]string
		}
	}
	if json.Unmarshal(a.body, &failure) == nil {
		a.code, a.message = codes.Code(failure.Code), failure.Message //nolint:gosec // checked by callers
		for _, detail := range failure.Details {
			switch detail.Type {
			case "type.googleapis.com/google.rpc.ErrorInfo":
				a.reason, a.right = detail.Reason, detail.Metadata["right"]
			case "type.googleapis.com/google.rpc.RetryInfo":
				a.retry = true
			}
		}
	}
	return a
}

// httpRequest is a request without a body.
func httpRequest(method, target string, headers ...string) string {
	return method + " " + target + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + strings.Join(append(headers, "", ""), "\r\n")
}

// about is the question about a customer.
func about(id string) *eligibilityv1.CheckEligibilityRequest {
	return &eligibilityv1.CheckEligibilityRequest{CustomerId: id}
}
