package access_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
)

// What shows whether a token was remembered: it stays valid although its issuer's key
// could not verify it a second time, until a fetch moves the key out of the set.
func TestVerifiedTokensAreRemembered(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	token := "Bearer " + r.issuer.Token(t, "shop", map[string]any{"exp": in(3 * time.Minute), "roles": "check"})
	first, err := r.Authenticate(access.Credentials{Authorization: []string{token}})
	if err != nil {
		t.Fatal(err)
	}
	second, _ := r.Authenticate(access.Credentials{Authorization: []string{token}})
	if first != second {
		t.Error("the token was verified again")
	}
	// Until it expires; then within the leeway it is verified each time.
	r.clock.pass(3*time.Minute + 10*time.Second)
	third, err := r.Authenticate(access.Credentials{Authorization: []string{token}})
	if err != nil || third == first {
		t.Errorf("within the leeway: %v, verified again: %v", err, third != first)
	}
	r.clock.pass(time.Minute)
	if got := r.try(token); got != "expired" {
		t.Errorf("after the leeway: %q", got)
	}
}

func TestVerifiedTokensAreRememberedForFiveMinutes(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	given := access.Credentials{Authorization: []string{"Bearer " + r.issuer.Token(t, "shop", nil)}}
	first, _ := r.Authenticate(given)
	r.clock.pass(5*time.Minute - time.Second)
	if again, _ := r.Authenticate(given); again != first {
		t.Error("forgotten before five minutes have passed")
	}
	r.clock.pass(2 * time.Second)
	if again, err := r.Authenticate(given); again == first || err != nil {
		t.Errorf("remembered after five minutes (%v)", err)
	}
}

// A clock that is set back keeps a remembered token no longer than its life; one that
// is set forward ends it.
func TestAClockThatIsSetDoesNotProlongATokensLife(t *testing.T) {
	t.Parallel()
	for _, back := range []time.Duration{time.Minute, 10 * time.Hour} {
		r := newRig(t, nil)
		token := "Bearer " + r.issuer.Token(t, "shop", map[string]any{"exp": in(2 * time.Minute), "iat": nil, "nbf": nil, "roles": "check"})
		first, err := r.Authenticate(access.Credentials{Authorization: []string{token}})
		if err != nil {
			t.Fatal(err)
		}
		r.clock.set.Add(-int64(back))
		r.clock.pass(2*time.Minute + time.Second)
		if again, _ := r.Authenticate(access.Credentials{Authorization: []string{token}}); again == first {
			t.Errorf("set back by %v: the token is remembered beyond its life", back)
		}
	}
	r := newRig(t, nil)
	token := "Bearer " + r.issuer.Token(t, "shop", map[string]any{"exp": in(2 * time.Minute)})
	r.try(token)
	r.clock.set.Add(int64(time.Hour))
	if got := r.try(token); got != "expired" {
		t.Errorf("set forward: %q", got)
	}
}

func TestRememberedTokensAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	key := accesstest.NewKey(t, "fast", "ES256")
	r.issuer.Publish(key)
	r.fetch(t)
	claims := r.issuer.Claims("shop", nil)
	for n := range 10_500 {
		claims["jti"] = n
		if got := r.try("Bearer " + key.Sign(t, nil, claims)); !strings.HasPrefix(got, "shop ") {
			t.Fatal(got)
		}
	}
	if n := r.Verified(); n > 10_000 || n < 9_000 {
		t.Errorf("%d tokens are remembered", n)
	}
	// Those that have expired make room first.
	r.clock.pass(6 * time.Minute)
	claims["jti"] = "last"
	given := access.Credentials{Authorization: []string{"Bearer " + key.Sign(t, nil, claims)}}
	first, err := r.Authenticate(given)
	if again, _ := r.Authenticate(given); err != nil || first != again {
		t.Errorf("the newest token is not remembered (%v)", err)
	}
}

// Callers, fetches and reloads at once, for the race detector; no valid token is refused.
func TestReplacingKeysRefusesNobody(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	stays := r.issuer.Key()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for caller := range 4 {
		group.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				token := "Bearer " + staticToken
				if caller%2 == 0 {
					token = "Bearer " + stays.Sign(t, nil, r.issuer.Claims(fmt.Sprintf("shop-%d", n%3), nil))
				}
				if got := r.try(token); got == "key" || got == "signature" || got == "unknown" || got == "keys_missing" {
					t.Errorf("refused: %s", got)
					return
				}
			}
		})
	}
	for range 10 {
		r.issuer.Publish(accesstest.NewKey(t, "new", "ES256"), stays)
		r.fetch(t)
	}
	cancel()
	group.Wait()
}

func FuzzToken(f *testing.F) {
	r := newRig(f, nil)
	valid := r.issuer.Token(f, "shop", nil)
	header, _, _ := strings.Cut(valid, ".")
	for _, seed := range []string{
		"Bearer " + valid, "bearer " + staticToken, "Bearer a.b.c", "Bearer " + header + ".e30.AA", "Basic x", "",
		"Bearer " + accesstest.Unsigned(f, `{"alg":"none"}`, `{"iss":"`+r.issuer.URL+`"}`) + ".",
		"Bearer " + r.issuer.Key().Sign(f, map[string]any{"crit": []int{1}}, `{"exp":1e999,"aud":[[[]]]}`),
		"Bearer " + accesstest.Unsigned(f, strings.Repeat("[", 1000), strings.Repeat(`{"a":`, 900)) + ".AA",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, authorization string) {
		caller, err := r.Authenticate(access.Credentials{Authorization: []string{authorization}})
		if (caller == nil) == (err == nil) {
			t.Fatalf("%v and %v", caller, err)
		}
		if err != nil {
			if access.CauseOf(err) == "" {
				t.Errorf("no cause: %v", err)
			}
			return
		}
		// Nobody but the holder of the key or the token makes one that is accepted.
		if token := strings.TrimLeft(authorization[len("bearer"):], " "); token != valid && token != staticToken {
			t.Errorf("accepted: %q", authorization)
		}
	})
}

// What a hostile token can cost: the largest one, nested as deep as it can be.
func TestRefusedTokensAllocateLittle(t *testing.T) { //nolint:paralleltest // it measures the process
	r := newRig(t, nil)
	nested := strings.Repeat("[", 2700) + strings.Repeat("]", 2700)
	many := strings.Repeat(`"":0,`, 1000)
	for name, token := range map[string]string{
		"letters":       strings.Repeat("a", 8192),
		"dots":          strings.Repeat(".", 8192),
		"nested claims": accesstest.Unsigned(t, `{"alg":"RS256"}`, `{"x":`+nested+`}`) + ".AA",
		"nested header": accesstest.Unsigned(t, `{"alg":`+strings.Repeat("[", 700)+strings.Repeat("]", 700)+`}`, `{}`) + ".AA",
		"many claims":   accesstest.Unsigned(t, `{"alg":"RS256"}`, `{`+many+`"iss":"`+r.issuer.URL+`"}`) + ".AA",
		"a long rights claim": r.issuer.Key().Sign(t, map[string]any{"kid": "unknown"},
			r.issuer.Claims("shop", map[string]any{"roles": strings.Repeat("a ", 2500)})),
	} {
		if len(token) > 8192 {
			t.Fatalf("%s: %d bytes", name, len(token))
		}
		given := access.Credentials{Authorization: []string{"Bearer " + token}}
		const runs = 20
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range runs {
			if _, err := r.Authenticate(given); err == nil {
				t.Fatalf("%s: accepted", name)
			}
		}
		runtime.ReadMemStats(&after)
		if bytes := (after.TotalAlloc - before.TotalAlloc) / runs; bytes > 512<<10 { // half of it without the race detector
			t.Errorf("%s: %d bytes are allocated", name, bytes)
		}
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	r := newRig(b, nil)
	valid := r.issuer.Token(b, "shop", nil)
	for name, authorization := range map[string]string{
		"static": "Bearer " + staticToken, "JWT": "Bearer " + valid,
		"unknown":     "Bearer " + strings.Repeat("a", 43),
		"unknown kid": "Bearer " + r.issuer.Key().Sign(b, map[string]any{"kid": "x"}, r.issuer.Claims("shop", nil)),
		"wrong RS256": "Bearer " + accesstest.NewKey(b, "first", "RS256").Sign(b, nil, r.issuer.Claims("shop", nil)),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			given := access.Credentials{Authorization: []string{authorization}}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					_, _ = r.Authenticate(given)
				}
			})
		})
	}
}
