package accesstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Audience is the audience of the tokens that [Issuer.Token] issues.
const Audience = "api://eligibilityd"

// Paths of an issuer.
const (
	DiscoveryPath = "/.well-known/openid-configuration"
	KeysPath      = "/keys"
)

// Issuer issues tokens and publishes its keys on a listener of its own.
type Issuer struct {
	// URL identifies the issuer: the claim iss of its tokens.
	URL string

	server *httptest.Server

	discoveries, fetches atomic.Int64

	mu        sync.Mutex
	published []*Key                                   // guarded by mu
	document  map[string]any                           // guarded by mu
	answer    func(http.ResponseWriter, *http.Request) // guarded by mu; nil: the published keys
	provider  *Provider                                // guarded by mu; nil: nobody signs in
}

// Key signs tokens.
type Key struct {
	// ID is the key's kid; empty if it has none.
	ID string
	// Algorithm is the JWS algorithm that the key signs with.
	Algorithm string
	Private   crypto.Signer
}

// NewIssuer starts an issuer with one RS256 key on loopback, in plain text.
func NewIssuer(tb testing.TB) *Issuer {
	tb.Helper()
	return start(tb, func(s *httptest.Server) { s.Start() })
}

// NewQuickIssuer starts one whose key is for ES256, which takes no time to make.
func NewQuickIssuer(tb testing.TB) *Issuer {
	tb.Helper()
	return startWith(tb, "ES256", func(s *httptest.Server) { s.Start() })
}

// NewTLSIssuer starts one whose certificate is issued by authority.
func NewTLSIssuer(tb testing.TB, authority *Authority) *Issuer {
	tb.Helper()
	return start(tb, func(s *httptest.Server) {
		s.TLS = authority.ClientTLS(authority.Server(tb))
		s.StartTLS()
	})
}

func start(tb testing.TB, begin func(*httptest.Server)) *Issuer {
	tb.Helper()
	return startWith(tb, "RS256", begin)
}

func startWith(tb testing.TB, algorithm string, begin func(*httptest.Server)) *Issuer {
	tb.Helper()
	i := &Issuer{}
	i.server = httptest.NewUnstartedServer(i)
	begin(i.server)
	tb.Cleanup(i.Close)
	i.URL = i.server.URL
	i.document = map[string]any{"issuer": i.URL, "jwks_uri": i.KeysURL()}
	i.Publish(NewKey(tb, "first", algorithm))
	return i
}

// Close stops the issuer: connections to it are refused.
func (i *Issuer) Close() {
	i.Recover()
	i.server.CloseClientConnections()
	i.server.Close()
}

// KeysURL is the address of the key set.
func (i *Issuer) KeysURL() string { return i.URL + KeysPath }

// Discoveries counts the requests for the OpenID configuration, Fetches those for the
// key set.
func (i *Issuer) Discoveries() int64 { return i.discoveries.Load() }

// Fetches counts the requests for the key set.
func (i *Issuer) Fetches() int64 { return i.fetches.Load() }

// Publish replaces the key set.
func (i *Issuer) Publish(keys ...*Key) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.published = keys
}

// Rotate publishes a new RS256 key in place of all others, and returns it.
func (i *Issuer) Rotate(tb testing.TB) *Key {
	tb.Helper()
	key := NewKey(tb, fmt.Sprintf("key-%d", time.Now().UnixNano()), "RS256")
	i.Publish(key)
	return key
}

// Key is the first key of the set.
func (i *Issuer) Key() *Key {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.published[0]
}

// Discover replaces a member of the OpenID configuration; nil removes it.
func (i *Issuer) Discover(member string, value any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.document = maps.Clone(i.document)
	if value == nil {
		delete(i.document, member)
		return
	}
	i.document[member] = value
}

// Answer makes answer reply to every request for the key set.
func (i *Issuer) Answer(answer func(http.ResponseWriter, *http.Request)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answer = answer
}

// Recover ends what Answer, Fail, Hang and Flood began.
func (i *Issuer) Recover() { i.Answer(nil) }

// Fail makes requests for the key set fail with a status.
func (i *Issuer) Fail(status int) {
	i.Answer(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no keys today", status) })
}

// Hang makes requests for the key set wait until the client gives up.
func (i *Issuer) Hang() {
	i.Answer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
}

// Flood makes the key set a valid JSON document without an end.
func (i *Issuer) Flood() {
	i.Answer(func(w http.ResponseWriter, r *http.Request) {
		piece := make([]byte, 64<<10)
		for at := range piece {
			piece[at] = ' '
		}
		if _, err := w.Write([]byte(`{"keys":[`)); err != nil {
			return
		}
		for r.Context().Err() == nil {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	})
}

// ServeHTTP implements http.Handler.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	answer, document, published, provider := i.answer, i.document, i.published, i.provider
	i.mu.Unlock()
	if provider != nil && provider.serve(w, r) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case DiscoveryPath:
		i.discoveries.Add(1)
		_ = json.NewEncoder(w).Encode(document) //nolint:errchkjson // a test sets its members
	case KeysPath:
		i.fetches.Add(1)
		if answer != nil {
			answer(w, r)
			return
		}
		keys := make([]map[string]any, 0, len(published))
		for _, key := range published {
			keys = append(keys, key.JWK())
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": keys}) //nolint:errchkjson // strings
	default:
		http.NotFound(w, r)
	}
}

// Claims returns valid claims of a token for caller: all rights are in roles. The
// members of more replace them; a nil value removes one.
func (i *Issuer) Claims(caller string, more map[string]any) map[string]any {
	now := time.Now()
	claims := map[string]any{
		"iss": i.URL, "aud": Audience, "azp": caller, "sub": "subject of " + caller,
		"iat": now.Add(-time.Minute).Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(time.Hour).Unix(),
		"roles": []string{"check", "batch", "fresh", "prefetch", "watch", "watch_all", "support"},
	}
	for name, value := range more {
		if value == nil {
			delete(claims, name)
		} else {
			claims[name] = value
		}
	}
	return claims
}

// Token returns a token for caller, signed by the first key of the set.
func (i *Issuer) Token(tb testing.TB, caller string, more map[string]any) string {
	tb.Helper()
	return i.Key().Sign(tb, nil, i.Claims(caller, more))
}

// NewKey makes a key for one of the algorithms RS256, RS384, RS512, PS256, ES256,
// ES384, ES512 and EdDSA.
func NewKey(tb testing.TB, id, algorithm string) *Key {
	tb.Helper()
	var private crypto.Signer
	var err error
	switch algorithm {
	case "ES256":
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		private, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA":
		_, private, err = ed25519.GenerateKey(rand.Reader)
	default:
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return &Key{ID: id, Algorithm: algorithm, Private: private}
}

// Sign returns a token with these claims. The members of header are added to alg, typ
// and kid, or replace them; a nil value removes one. The signature is always made with
// the key's own algorithm.
func (k *Key) Sign(tb testing.TB, header map[string]any, claims any) string {
	tb.Helper()
	all := map[string]any{"alg": k.Algorithm, "typ": "JWT"}
	if k.ID != "" {
		all["kid"] = k.ID
	}
	for name, value := range header {
		if value == nil {
			delete(all, name)
		} else {
			all[name] = value
		}
	}
	return k.SignText(tb, Unsigned(tb, all, claims))
}

// SignText appends a signature to what it signs, which may be anything.
func (k *Key) SignText(tb testing.TB, text string) string {
	tb.Helper()
	signature, err := jwt.GetSigningMethod(k.Algorithm).Sign(text, k.Private)
	if err != nil {
		tb.Fatal(err)
	}
	return text + "." + encode(signature)
}

// Unsigned returns the header and the claims of a token as they are signed.
func Unsigned(tb testing.TB, header, claims any) string {
	tb.Helper()
	return part(tb, header) + "." + part(tb, claims)
}

func part(tb testing.TB, value any) string {
	tb.Helper()
	if text, ok := value.(string); ok { // it is no JSON, or is to be sent as it is written
		return encode([]byte(text))
	}
	text, err := json.Marshal(value)
	if err != nil {
		tb.Fatal(err)
	}
	return encode(text)
}

func encode(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// JWK is the public key as it is published.
func (k *Key) JWK() map[string]any {
	jwk := map[string]any{"alg": k.Algorithm, "use": "sig"}
	if k.ID != "" {
		jwk["kid"] = k.ID
	}
	switch public := k.Private.Public().(type) {
	case *rsa.PublicKey:
		jwk["kty"], jwk["n"], jwk["e"] = "RSA", encode(public.N.Bytes()), encode(big.NewInt(int64(public.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := public.Bytes() // 4, x, y
		if err != nil {
			panic(err)
		}
		half := (len(point) - 1) / 2
		jwk["kty"], jwk["crv"] = "EC", public.Curve.Params().Name
		jwk["x"], jwk["y"] = encode(point[1:1+half]), encode(point[1+half:])
	case ed25519.PublicKey:
		jwk["kty"], jwk["crv"], jwk["x"] = "OKP", "Ed25519", encode(public)
	}
	return jwk
}
