package access_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
)

func nop() *zap.Logger { return zap.NewNop() }

func writeJSON(w http.ResponseWriter, value any) { _ = json.NewEncoder(w).Encode(value) } //nolint:errchkjson // the test gives it

// A key set that cannot be used replaces nothing, whatever the issuer does.
func TestFetchesThatFailReplaceNothing(t *testing.T) {
	t.Parallel()
	elsewhere := accesstest.NewIssuer(t)
	for name, spoil := range map[string]func(t *testing.T, i *accesstest.Issuer){
		"500":     func(_ *testing.T, i *accesstest.Issuer) { i.Fail(http.StatusInternalServerError) },
		"204":     func(_ *testing.T, i *accesstest.Issuer) { i.Fail(http.StatusNoContent) },
		"endless": func(_ *testing.T, i *accesstest.Issuer) { i.Flood() },
		"refused": func(_ *testing.T, i *accesstest.Issuer) { i.Close() },
		"no set": func(_ *testing.T, i *accesstest.Issuer) {
			i.Answer(func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, map[string]any{}) })
		},
		"null": func(_ *testing.T, i *accesstest.Issuer) {
			i.Answer(func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, map[string]any{"keys": nil}) })
		},
		"no JSON": func(_ *testing.T, i *accesstest.Issuer) {
			i.Answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) })
		},
		"a list": func(_ *testing.T, i *accesstest.Issuer) {
			i.Answer(func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, []int{1}) })
		},
		"keys no list": func(_ *testing.T, i *accesstest.Issuer) {
			i.Answer(func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, map[string]any{"keys": "x"}) })
		},
		"101 keys": func(_ *testing.T, i *accesstest.Issuer) {
			jwk := i.Key().JWK()
			i.Answer(func(w http.ResponseWriter, _ *http.Request) {
				keys := make([]any, 101)
				for n := range keys {
					keys[n] = jwk
				}
				writeJSON(w, map[string]any{"keys": keys})
			})
		},
		"cut off": func(_ *testing.T, i *accesstest.Issuer) {
			i.Answer(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "1000")
				_, _ = w.Write([]byte(`{"keys":[]}`))
			})
		},
		"a bomb": func(_ *testing.T, i *accesstest.Issuer) {
			var bomb bytes.Buffer
			packer := gzip.NewWriter(&bomb)
			_, _ = packer.Write(bytes.Repeat([]byte(" "), 64<<20))
			_ = packer.Close()
			i.Answer(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Encoding", "gzip")
				_, _ = w.Write(bomb.Bytes())
			})
		},
		"a redirect": func(_ *testing.T, i *accesstest.Issuer) {
			i.Answer(func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, elsewhere.KeysURL(), http.StatusFound)
			})
		},
		"another issuer's document": func(_ *testing.T, i *accesstest.Issuer) { i.Discover("issuer", elsewhere.URL) },
		"no issuer in the document": func(_ *testing.T, i *accesstest.Issuer) { i.Discover("issuer", nil) },
		"no jwks_uri":               func(_ *testing.T, i *accesstest.Issuer) { i.Discover("jwks_uri", nil) },
		"jwks_uri over http":        func(_ *testing.T, i *accesstest.Issuer) { i.Discover("jwks_uri", "http://192.0.2.1/keys") },
		"jwks_uri a file":           func(_ *testing.T, i *accesstest.Issuer) { i.Discover("jwks_uri", "file:///etc/passwd") },
		"jwks_uri with a password":  func(_ *testing.T, i *accesstest.Issuer) { i.Discover("jwks_uri", "https://a:b@127.0.0.1/keys") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			token := r.issuer.Token(t, "shop", map[string]any{"roles": "check"})
			spoil(t, r.issuer)
			err := r.FetchKeys(t.Context(), r.issuer.URL)
			if err == nil {
				t.Fatal("the fetch succeeded")
			}
			if len(err.Error()) > 300 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
			if got := r.try("Bearer " + token); got != "shop check" {
				t.Errorf("after %v: %q", err, got)
			}
		})
	}
	if n := elsewhere.Fetches(); n != 0 {
		t.Errorf("a redirect was followed")
	}
}

func TestAnIssuerThatHangsIsGivenUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.issuer.Hang()
	start := time.Now()
	err := r.FetchKeys(t.Context(), r.issuer.URL)
	if took := time.Since(start); err == nil || took < 4*time.Second || took > 30*time.Second {
		t.Errorf("%v after %v", err, took)
	}
}

func TestKeysURLNeedsNoDiscovery(t *testing.T) {
	t.Parallel()
	issuer := accesstest.NewIssuer(t)
	cfg := configOf(issuer)
	cfg.Issuer, cfg.KeysURL = "https://login.microsoftonline.com/Tenant/v2.0", issuer.KeysURL()
	c := &clock{}
	a, err := access.NewWithClock(access.Config{JWT: []access.Issuer{cfg}, Logger: nop()}, c.now, c.elapsed)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.FetchKeys(t.Context(), cfg.Issuer); err != nil {
		t.Fatal(err)
	}
	token := issuer.Token(t, "shop", map[string]any{"iss": cfg.Issuer, "roles": "check"})
	if got := outcome(a.Authenticate(access.Credentials{Authorization: []string{"Bearer " + token}})); got != "shop check" || issuer.Discoveries() != 0 {
		t.Errorf("%q after %d discoveries", got, issuer.Discoveries())
	}
}

func TestKeysAreValidForADay(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	life := map[string]any{"roles": "check", "exp": in(1000 * time.Hour)}
	first := r.issuer.Token(t, "shop", life)
	r.clock.pass(24*time.Hour - time.Second)
	if got := r.try("Bearer " + first); got != "shop check" {
		t.Errorf("before a day has passed: %q", got)
	}
	r.clock.pass(2 * time.Second)
	// A token that was verified just now is not an exception.
	if got := r.try("Bearer " + first); got != "keys_missing" {
		t.Errorf("after a day: %q", got)
	}
	if !r.Wanted(r.issuer.URL) {
		t.Error("no fetch is asked for")
	}
	r.fetch(t)
	if got := r.try("Bearer " + first); got != "shop check" {
		t.Errorf("after a fetch: %q", got)
	}
	if age := r.gauge(t, "eligibility_issuer_keys_age_seconds"); age != 0 {
		t.Errorf("the keys are %v s old", age)
	}
}

func TestAKeyThatLeavesInvalidatesItsTokens(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	stays, leaves := accesstest.NewKey(t, "stays", "RS256"), accesstest.NewKey(t, "leaves", "RS256")
	r.issuer.Publish(stays, leaves)
	r.fetch(t)
	claims := r.issuer.Claims("shop", map[string]any{"roles": "check"})
	kept, lost := stays.Sign(t, nil, claims), leaves.Sign(t, nil, claims)
	for _, token := range []string{kept, lost} {
		if got := r.try("Bearer " + token); got != "shop check" {
			t.Fatal(got)
		}
	}
	r.issuer.Publish(stays)
	r.fetch(t)
	if got := r.try("Bearer " + lost); got != "key" {
		t.Errorf("the token of the key that left: %q", got)
	}
	if got := r.try("Bearer " + kept); got != "shop check" {
		t.Errorf("the token of the key that stayed: %q", got)
	}
	// A new key by an old name replaces the old one.
	r.issuer.Publish(accesstest.NewKey(t, "stays", "RS256"))
	r.fetch(t)
	if got := r.try("Bearer " + kept); got != "signature" {
		t.Errorf("the token of a replaced key: %q", got)
	}
}

// An issuer may withdraw its only key before it has another, or one of an algorithm that
// is not accepted. The set can be read, so the issuer is not unavailable.
func TestAKeySetWithoutKeysForUsInvalidatesAllTokens(t *testing.T) {
	t.Parallel()
	for name, left := range map[string][]*accesstest.Key{"no key": nil, "a key of another algorithm": {accesstest.NewKey(t, "x", "EdDSA")}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			token := r.issuer.Token(t, "shop", map[string]any{"roles": "check"})
			if got := r.try("Bearer " + token); got != "shop check" {
				t.Fatal(got)
			}
			key := r.issuer.Key()
			r.issuer.Publish(left...)
			if err := r.FetchKeys(t.Context(), r.issuer.URL); err == nil {
				t.Error("the fetch succeeded: the next one is 15 min away")
			}
			if got := r.try("Bearer " + token); got != "keys_missing" {
				t.Errorf("the token of a key that left: %q", got)
			}
			if age := r.gauge(t, "eligibility_issuer_keys_age_seconds"); !math.IsNaN(age) {
				t.Errorf("the keys are %v s old", age)
			}
			r.issuer.Publish(key)
			r.fetch(t)
			if got := r.try("Bearer " + token); got != "shop check" {
				t.Errorf("after the key is back: %q", got)
			}
		})
	}
}

func TestOnlyTokensForUnknownKeysAskForAFetch(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	unknown := map[string]any{"kid": "unknown"}
	claims := r.issuer.Claims("shop", nil)
	for name, one := range map[string]struct {
		token string
		want  bool
	}{
		"unknown kid":                   {r.issuer.Key().Sign(t, unknown, claims), true},
		"known kid":                     {r.issuer.Key().Sign(t, nil, claims), false},
		"unknown kid, expired":          {r.issuer.Key().Sign(t, unknown, r.issuer.Claims("shop", map[string]any{"exp": in(-time.Hour)})), false},
		"unknown kid, another audience": {r.issuer.Key().Sign(t, unknown, r.issuer.Claims("shop", map[string]any{"aud": "x"})), false},
		"unknown kid, another issuer":   {r.issuer.Key().Sign(t, unknown, r.issuer.Claims("shop", map[string]any{"iss": "x"})), false},
		"wrong signature":               {accesstest.NewKey(t, "first", "RS256").Sign(t, nil, claims), false},
	} {
		r.try("Bearer " + one.token)
		if got := r.Wanted(r.issuer.URL); got != one.want {
			t.Errorf("%s: a fetch is asked for: %v", name, got)
		}
	}
}

// What callers send changes when keys are fetched, but never to more than once in 10 s;
// a clock that is set back changes nothing.
func TestWhenKeysAreFetched(t *testing.T) {
	t.Parallel()
	issuer := accesstest.NewIssuer(t)
	token := issuer.Key().Sign(t, map[string]any{"kid": "unknown"}, issuer.Claims("shop", map[string]any{"exp": int64(4e9), "iat": nil, "nbf": nil}))
	for name, one := range map[string]struct {
		fails, hostile bool
		setBack        time.Duration
		least, most    int // fetches in an hour
	}{
		"quiet":            {false, false, 0, 4, 5},
		"clock set back":   {false, false, 1000 * time.Hour, 4, 5},
		"failing":          {true, false, 0, 230, 361},
		"hostile":          {false, true, 0, 355, 361},
		"hostile, failing": {true, true, 1000 * time.Hour, 355, 361},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var back atomic.Int64
				a, err := access.NewWithClock(access.Config{JWT: []access.Issuer{configOf(issuer)}, Logger: nop()},
					func() time.Time { return time.Now().Add(-time.Duration(back.Load())) }, func() time.Duration { return time.Since(start) })
				if err != nil {
					t.Fatal(err)
				}
				var mu sync.Mutex
				var fetches []time.Time
				ctx, cancel := context.WithCancel(t.Context())
				var group sync.WaitGroup
				group.Go(func() {
					_ = a.RunKeys(ctx, issuer.URL, func() error {
						mu.Lock()
						defer mu.Unlock()
						fetches = append(fetches, time.Now())
						if one.fails {
							return errors.New("no")
						}
						return nil
					})
				})
				for range 3600 {
					if one.hostile {
						_, _ = a.Authenticate(access.Credentials{Authorization: []string{"Bearer " + token}})
					}
					time.Sleep(time.Second)
					if time.Since(start) > time.Minute {
						back.Store(int64(one.setBack))
					}
				}
				cancel()
				group.Wait()
				if n := len(fetches); n < one.least || n > one.most {
					t.Errorf("%d fetches in an hour, want %d to %d", n, one.least, one.most)
				}
				for n := 1; n < len(fetches); n++ {
					if gap := fetches[n].Sub(fetches[n-1]); gap < 10*time.Second {
						t.Fatalf("%v between two fetches", gap)
					}
				}
			})
		})
	}
}

// Run fetches the keys at the start, and again for a key that it does not know.
func TestRotationIsNoticed(t *testing.T) {
	t.Parallel()
	issuer := accesstest.NewIssuer(t)
	a, err := access.New(access.Config{JWT: []access.Issuer{configOf(issuer)}, Logger: nop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	try := func(token string) string {
		return outcome(a.Authenticate(access.Credentials{Authorization: []string{"Bearer " + token}}))
	}
	for range 2 {
		token := issuer.Token(t, "shop", map[string]any{"roles": "check"})
		eventually(t, func() bool { return try(token) == "shop check" })
		issuer.Rotate(t)
	}
	if n := issuer.Fetches(); n != 2 {
		t.Errorf("%d fetches", n)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A token without a kid is tried against a bounded number of keys.
func TestATokenWithoutKidIsTriedAgainstFewKeys(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	keys := make([]*accesstest.Key, 0, 9)
	for n := range cap(keys) {
		keys = append(keys, accesstest.NewKey(t, fmt.Sprint(n), "ES256"))
	}
	r.issuer.Publish(keys...)
	r.fetch(t)
	for n, key := range keys {
		want := "shop check"
		if n == 8 {
			want = "signature"
		}
		token := key.Sign(t, map[string]any{"kid": nil}, r.issuer.Claims("shop", map[string]any{"roles": "check"}))
		if got := r.try("Bearer " + token); got != want {
			t.Errorf("key %d: %q", n, got)
		}
	}
}

func TestNoErrorHasPartsOfAToken(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	const mark = "canary"
	for _, authorization := range []string{
		"Basic " + mark, "Bearer " + mark, "Bearer " + strings.Repeat(mark, 10),
		"Bearer " + r.issuer.Token(t, mark, map[string]any{"aud": mark}),
		"Bearer " + r.issuer.Token(t, mark+" "+mark, nil),
		"Bearer " + r.issuer.Token(t, "shop", map[string]any{"iss": mark}),
		"Bearer " + r.issuer.Token(t, "shop", map[string]any{"roles": map[string]any{mark: mark}}),
		"Bearer " + r.issuer.Key().Sign(t, map[string]any{"kid": mark}, r.issuer.Claims(mark, nil)),
		"Bearer " + r.issuer.Key().Sign(t, map[string]any{"typ": mark}, r.issuer.Claims(mark, nil)),
	} {
		_, err := r.Authenticate(access.Credentials{Authorization: []string{authorization}})
		if err == nil || strings.Contains(err.Error(), mark) {
			t.Errorf("%.30s: %v", authorization, err)
		}
	}
}

// AwaitKeys waits for the first fetch of each issuer, whether it succeeds or not, and no
// longer than its context.
func TestAwaitKeysWaitsForTheFirstFetch(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusOK, http.StatusServiceUnavailable} {
		issuer, slow := accesstest.NewIssuer(t), accesstest.NewIssuer(t)
		asked, reply := make(chan struct{}), make(chan struct{})
		slow.Answer(func(w http.ResponseWriter, _ *http.Request) {
			close(asked)
			<-reply
			w.WriteHeader(status)
		})
		a, err := access.New(access.Config{JWT: []access.Issuer{configOf(issuer), configOf(slow)}, Logger: nop()})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		<-asked
		impatient, giveUp := context.WithTimeout(ctx, 50*time.Millisecond)
		a.AwaitKeys(impatient)
		if impatient.Err() == nil {
			t.Error("did not wait for the slow issuer")
		}
		giveUp()
		close(reply)
		a.AwaitKeys(ctx)
		token := issuer.Token(t, "shop", map[string]any{"roles": "check"})
		if got := outcome(a.Authenticate(access.Credentials{Authorization: []string{"Bearer " + token}})); got != "shop check" {
			t.Errorf("after AwaitKeys: %s", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestNoErrorOfAFetchHasTextOfTheIssuer(t *testing.T) {
	t.Parallel()
	const mark = "canary"
	for name, sent := range map[string]string{
		"status line": "HTTP/1.1 " + mark + "\r\n\r\n",
		"header":      "HTTP/1.1 200 OK\r\n" + mark + "\r\n\r\n",
		"length":      "HTTP/1.1 200 OK\r\nContent-Length: " + mark + "\r\n\r\n",
		"chunk":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + mark + "\r\n",
	} {
		r := newRig(t, nil)
		r.issuer.Answer(func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, sent)
			_ = conn.Close()
		})
		if err := r.FetchKeys(t.Context(), r.issuer.URL); err == nil || strings.Contains(err.Error(), mark) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := newRig(t, nil)
	r.issuer.Discover("jwks_uri", "https://localhost/"+strings.Repeat(mark, 1000))
	if err := r.FetchKeys(t.Context(), r.issuer.URL); err == nil || strings.Contains(err.Error(), mark) {
		t.Errorf("a long address: %v", err)
	}
}
