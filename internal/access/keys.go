package access

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/health"
	"github.com/eligibilityd/eligibilityd/internal/remote"
)

const (
	// refreshInterval is how often keys are fetched, give or take a tenth.
	refreshInterval = 15 * time.Minute
	// fetchGap is the least time between two fetches, whatever callers send.
	fetchGap = 10 * time.Second
	// fetchTimeout and maxFetchBytes bound each of the requests of a fetch.
	fetchTimeout  = 5 * time.Second
	maxFetchBytes = 1 << 20
	// maxAddressBytes bounds the address of a key set, which may be logged.
	maxAddressBytes = 2048
	// keysFor is how long keys are valid without being confirmed by a fetch.
	keysFor = 24 * time.Hour
	// maxKeys bounds a key set; issuers have about ten.
	maxKeys = 100
	// Keys of RSA outside these bounds are forgeable or expensive.
	minRSABits, maxRSABits = 2048, 8192
	// logEvery is the number of failed fetches in a row of which one is logged.
	logEvery = 30
)

// key verifies signatures.
type key struct {
	id, alg string // alg is empty if the issuer does not restrict it
	public  crypto.PublicKey
	// until is when the key ceases to be valid, by the time that passes. It is moved
	// whenever a fetch confirms the key, and to zero when the key leaves the set.
	until atomic.Int64
}

// fits reports whether the key is one for an algorithm.
func (k *key) fits(alg string) bool {
	if k.alg != "" && k.alg != alg {
		return false
	}
	switch public := k.public.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(alg, "RS") || strings.HasPrefix(alg, "PS")
	case *ecdsa.PublicKey:
		switch public.Curve.Params().BitSize {
		case 256:
			return alg == "ES256"
		case 384:
			return alg == "ES384"
		}
		return false
	case ed25519.PublicKey:
		return alg == "EdDSA"
	}
	return false
}

// same reports whether both are one key.
func (k *key) same(other *key) bool {
	public, ok := k.public.(interface {
		Equal(other crypto.PublicKey) bool
	})
	return ok && k.id == other.id && k.alg == other.alg && public.Equal(other.public)
}

// keySource has the keys of one issuer and keeps them current in the background.
type keySource struct {
	issuer, url string
	algorithms  []string
	logger      *zap.Logger
	clock       clock
	metrics     *metrics
	condition   *health.Component
	fetch       func(ctx context.Context) ([]*key, error)

	// provides is set before run if people sign in at the issuer: then its endpoints
	// for that are fetched after the keys.
	provides  bool
	endpoints atomic.Pointer[endpoints] // nil until they were fetched

	keys    atomic.Pointer[[]*key] // nil while none are known
	fetched atomic.Int64           // when the last fetch that succeeded began, by the time that passes
	wanted  chan struct{}
	tried   chan struct{} // closed when the first fetch has ended, of a configuration to sign in with too
}

func newKeySource(cfg Issuer, a *Authenticator, logger *zap.Logger) *keySource {
	s := &keySource{
		issuer: cfg.Issuer, url: cfg.KeysURL, algorithms: cfg.Algorithms, logger: logger, clock: a.clock, metrics: a.metrics, condition: health.New(a.clock.now),
		wanted: make(chan struct{}, 1), tried: make(chan struct{}),
	}
	s.fetch = s.fetchHTTP
	a.metrics.fetches.WithLabelValues(s.issuer, "ok")
	a.metrics.fetches.WithLabelValues(s.issuer, "failed")
	return s
}

// candidates returns the keys that may have signed a token. If its key is not known,
// the set is fetched soon.
func (s *keySource) candidates(header jwtHeader) ([]*key, *failure) {
	var found []*key
	current, alive, named := s.keys.Load(), false, false
	if current != nil {
		elapsed := s.clock.elapsed()
		for _, k := range *current {
			if elapsed >= time.Duration(k.until.Load()) {
				continue
			}
			alive = true
			if header.kid != "" && k.id != header.kid {
				continue
			}
			named = true
			if k.fits(header.alg) && len(found) < maxKeysTried {
				found = append(found, k)
			}
		}
	}
	switch {
	case !alive:
		s.want()
		return nil, errKeysMissing
	case !named:
		s.want()
		return nil, errKey
	case len(found) == 0:
		return nil, errKey
	}
	return found, nil
}

// has reports whether the set has a key of that name, valid or not.
func (s *keySource) has(kid string) bool {
	current := s.keys.Load()
	return current != nil && slices.ContainsFunc(*current, func(k *key) bool { return k.id == kid })
}

// want asks run for a fetch and waits for nothing.
func (s *keySource) want() {
	select {
	case s.wanted <- struct{}{}:
	default:
	}
}

// run fetches the keys at once, every [refreshInterval], and when they are wanted, but
// never twice within [fetchGap]. It measures by the time that passes.
func (s *keySource) run(ctx context.Context) error {
	failures := 0
	tried := sync.OnceFunc(func() { close(s.tried) })
	for {
		select {
		case <-s.wanted: // the fetch that begins serves it
		default:
		}
		began := s.clock.elapsed()
		err := s.renew(ctx, began)
		var noSignIn error
		if s.provides {
			noSignIn = s.provide(ctx)
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the fetch was ended with the process
		}
		wait := refreshInterval*9/10 + rand.N(refreshInterval/5) //nolint:gosec // spreads load
		result := "ok"
		switch {
		case err == nil && noSignIn == nil:
			if failures > 0 {
				s.logger.Info("keys of the issuer fetched again", zap.String("issuer", s.issuer))
			}
			failures = 0
			s.condition.OK()
		case err == nil: // callers do not depend on it
			if failures%logEvery == 0 {
				s.logger.Error("OpenID configuration of the issuer not usable; people can sign in to the console only as far as it is known from before",
					zap.String("issuer", s.issuer), zap.Error(noSignIn))
			}
			failures++
			s.failed(noSignIn)
			wait = fetchGap + rand.N(fetchGap/2) //nolint:gosec // spreads load
		default:
			result = "failed"
			if failures%logEvery == 0 {
				s.logger.Error("keys of the issuer not fetched; continuing with those that are known",
					zap.String("issuer", s.issuer), zap.Error(err))
			}
			failures++
			s.failed(err)
			wait = fetchGap + rand.N(fetchGap/2) //nolint:gosec // spreads load
		}
		s.metrics.fetches.WithLabelValues(s.issuer, result).Inc()
		tried()
		if !sleep(ctx, fetchGap, nil) || !sleep(ctx, wait-fetchGap, s.wanted) {
			return nil
		}
	}
}

// errNoKeys means that a key set was fetched and has no key that is used here.
var errNoKeys = errors.New("has no key for the algorithms of auth.jwt")

// renew fetches the keys and adopts them. An issuer that has withdrawn all of them is
// obeyed, and counts as a failure.
func (s *keySource) renew(ctx context.Context, began time.Duration) error {
	keys, err := s.fetch(ctx)
	if ctx.Err() == nil && (err == nil || errors.Is(err, errNoKeys)) {
		s.adopt(keys, began)
	}
	return err
}

// failed records a failed fetch. As long as keys are valid, tokens are verified.
func (s *keySource) failed(err error) {
	kind := "failed"
	if errors.Is(err, context.DeadlineExceeded) {
		kind = "timeout"
	}
	if current := s.keys.Load(); current != nil && slices.ContainsFunc(*current, func(k *key) bool { return s.clock.elapsed() < time.Duration(k.until.Load()) }) {
		s.condition.Degraded(kind)
		return
	}
	s.condition.Failed(kind)
}

// sleep waits for d or for early. It returns false if ctx ended.
func sleep(ctx context.Context, d time.Duration, early <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-early:
	}
	return true
}

// adopt replaces the key set. A key that stays remains the same value, so that tokens
// that it verified stay valid; a key that leaves invalidates them.
func (s *keySource) adopt(keys []*key, began time.Duration) {
	var old []*key
	if current := s.keys.Load(); current != nil {
		old = *current
	}
	for n, k := range keys {
		if at := slices.IndexFunc(old, k.same); at >= 0 {
			keys[n] = old[at]
		}
		keys[n].until.Store(int64(began + keysFor))
	}
	s.fetched.Store(int64(began))
	if len(keys) > 0 {
		s.keys.Store(&keys)
	} else {
		s.keys.Store(nil)
	}
	for _, k := range old {
		if !slices.Contains(keys, k) {
			k.until.Store(0)
		}
	}
}

// fetchHTTP fetches the key set, and before that its address unless it is configured.
func (s *keySource) fetchHTTP(ctx context.Context) ([]*key, error) {
	client := newClient()
	defer client.CloseIdleConnections()
	address := s.url
	if address == "" {
		found, _, err := s.discover(ctx, client)
		if err == nil {
			if err = checkAddress(found.KeysURL); err != nil {
				err = fmt.Errorf("jwks_uri: %w", err)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("OpenID configuration: %w", err)
		}
		address = found.KeysURL
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := get(ctx, client, address, &set); err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	switch {
	case set.Keys == nil:
		return nil, fmt.Errorf("key set: %w", errNotExpected)
	case len(set.Keys) > maxKeys:
		return nil, fmt.Errorf("key set: has more than %d keys", maxKeys)
	}
	var keys []*key
	for _, raw := range set.Keys {
		if k := parseKey(raw); k != nil && slices.ContainsFunc(s.algorithms, k.fits) {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("key set: %w", errNoKeys)
	}
	return keys, nil
}

// document is the OpenID configuration of an issuer, as far as it is used.
type document struct {
	Issuer  string `json:"issuer"`
	KeysURL string `json:"jwks_uri"`
}

// discover fetches the issuer's OpenID configuration.
func (s *keySource) discover(ctx context.Context, client *http.Client) (found document, text json.RawMessage, err error) {
	if err := get(ctx, client, strings.TrimSuffix(s.issuer, "/")+"/.well-known/openid-configuration", &text); err != nil {
		return found, nil, err
	}
	if json.Unmarshal(text, &found) != nil {
		return found, nil, errNotExpected
	}
	if found.Issuer != s.issuer {
		return found, nil, errors.New("is that of another issuer")
	}
	return found, text, nil
}

// provide fetches the endpoints at which people sign in, and adopts them unless one of
// them cannot be used.
func (s *keySource) provide(ctx context.Context) error {
	client := newClient()
	defer client.CloseIdleConnections()
	_, text, err := s.discover(ctx, client)
	if err != nil {
		return fmt.Errorf("OpenID configuration: %w", err)
	}
	at, err := parseEndpoints(text)
	if err != nil {
		return fmt.Errorf("OpenID configuration: %w", err)
	}
	s.endpoints.Store(at)
	return nil
}

// newClient returns a client for requests to an issuer. It follows no redirects.
func newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, ForceAttemptHTTP2: true,
			MaxResponseHeaderBytes: 64 << 10,
		},
		Timeout:       fetchTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// CountKeys fetches the key set of an issuer once, as an [Authenticator] does, and
// returns how many of its keys are for the algorithms of the configuration.
func CountKeys(ctx context.Context, cfg Issuer) (int, error) {
	i, err := newIssuer(cfg, &Authenticator{metrics: newMetrics()}, nil, zap.NewNop())
	if err != nil {
		return 0, err
	}
	keys, err := i.keys.fetchHTTP(ctx)
	return len(keys), err
}

// checkAddress refuses addresses from which somebody on the way could send keys.
func checkAddress(address string) error {
	parsed, err := url.Parse(address)
	if err != nil || len(address) > maxAddressBytes || parsed.Hostname() == "" || parsed.User != nil {
		return errors.New("is not the address of a server")
	}
	host := parsed.Hostname()
	if ip := net.ParseIP(host); parsed.Scheme == "https" || parsed.Scheme == "http" && (host == "localhost" || ip != nil && ip.IsLoopback()) {
		return nil
	}
	return errors.New("must begin with https://")
}

var errNotExpected = errors.New("is not the JSON expected")

// get decodes the JSON document at address. Its errors have no text of the issuer's.
func get(ctx context.Context, client *http.Client, address string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return remote.Cause(ctx, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxFetchBytes+1))
	switch {
	case err != nil:
		return remote.Cause(ctx, err)
	case len(body) > maxFetchBytes:
		return errors.New("is larger than 1 MiB")
	case json.Unmarshal(body, into) != nil:
		return errNotExpected
	}
	return nil
}

// parseKey returns a public key for signatures; nil if raw is something else, which
// issuers may publish beside it.
func parseKey(raw json.RawMessage) *key {
	var marshalled jwkset.JWKMarshal
	if json.Unmarshal(raw, &marshalled) != nil {
		return nil
	}
	if marshalled.USE != "" && marshalled.USE != jwkset.UseSig ||
		len(marshalled.KEYOPS) > 0 && !slices.Contains(marshalled.KEYOPS, jwkset.KeyOpsVerify) {
		return nil
	}
	// Certificates are not needed: the set came from the issuer.
	marshalled.X5C, marshalled.X5U = nil, ""
	parsed, err := jwkset.NewJWKFromMarshal(marshalled, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{SkipAll: true})
	if err != nil {
		return nil
	}
	k := &key{id: marshalled.KID, alg: string(marshalled.ALG), public: parsed.Key()}
	if public, ok := k.public.(*rsa.PublicKey); ok {
		if bits := public.N.BitLen(); bits < minRSABits || bits > maxRSABits || public.E < 3 || public.E%2 == 0 {
			return nil
		}
	}
	return k
}
