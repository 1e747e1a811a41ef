//go:build acceptance

package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// attackReplacements replaces certificate, tokens and the issuer's key ten times each
// under load.
func attackReplacements(t *testing.T, table *attacks) { //nolint:thelper // a test of its own
	const rounds, reloadSlack = 10, 16 * time.Second
	x := startTarget(t, "", "limits: {default: {requests_per_second: 10000, burst: 10000}}\n")
	tokens := filepath.Join(x.dir, "tokens.yaml")
	write := func(entries string) {
		if err := os.WriteFile(tokens+"_tmp", []byte(entries), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tokens+"_tmp", tokens); err != nil {
			t.Fatal(err)
		}
	}
	takes := func(token string) (grpc, rest bool) {
		a := x.grpc(nil, checkMethod, message(about(allowedID)), "authorization", "Bearer "+token)
		b := x.rest(nil, httpRequest("GET", checkPath, bearerLine(token)))
		return a.code == 0 && a.ended == "", b.status == http.StatusOK
	}
	within := func(what string, holds func() bool) {
		t.Helper()
		begun := time.Now()
		for !holds() {
			if time.Since(begun) > reloadSlack {
				t.Errorf("%s: not within %v", what, reloadSlack)
				return
			}
			pause(t.Context(), 200*time.Millisecond)
		}
	}
	accepted := func(token string) func() bool {
		return func() bool {
			grpc, rest := takes(token)
			return grpc && rest
		}
	}
	refused := func(token string) func() bool {
		return func() bool {
			grpc, rest := takes(token)
			return !grpc && !rest
		}
	}
	static, entry := mint(t, "--caller", "shop", "--rights", "check", "--days", "1")
	write(entry)
	within("the first static token is accepted", accepted(static))

	var current atomic.Pointer[[2]string] // the static token and the issuer's
	current.Store(&[2]string{static, x.issuer.valid().token})
	ctx, stop := context.WithCancel(t.Context())
	var sent, failed atomic.Int64
	var loading sync.WaitGroup
	var mu sync.Mutex
	causes := map[string]int{}
	note := func(err error) {
		sent.Add(1)
		if err != nil {
			failed.Add(1)
			mu.Lock()
			defer mu.Unlock()
			causes[err.Error()]++
		}
	}
	every := func(d time.Duration, send func(i int)) {
		loading.Go(func() {
			tick := time.NewTicker(d)
			defer tick.Stop()
			for i := 0; ; i++ {
				select {
				case <-tick.C:
					loading.Go(func() { send(i) })
				case <-ctx.Done():
					return
				}
			}
		})
	}
	conn, err := grpc.NewClient(x.GRPC, grpc.WithTransportCredentials(credentials.NewTLS(x.tls(nil))))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	client := eligibilityv1.NewEligibilityServiceClient(conn)
	every(2*time.Millisecond, func(i int) {
		call, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, err := client.CheckEligibility(metadata.AppendToOutgoingContext(call, "authorization", "Bearer "+current.Load()[i%2]), about(allowedID))
		note(err)
	})
	// The transport opens connections that it may not need; the server closes them after
	// 10 s without a request, and a GET on a new connection is not repeated.
	kept := &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: x.tls(nil), MaxIdleConnsPerHost: 64, IdleConnTimeout: 5 * time.Second}}
	fresh := &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: x.tls(nil), DisableKeepAlives: true}}
	every(2*time.Millisecond, func(i int) {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "https://"+x.HTTP+checkPath, http.NoBody)
		if err != nil {
			panic(err)
		}
		req.Header.Set("Authorization", "Bearer "+current.Load()[i%2])
		by := kept
		if i%25 == 0 { // 20 new connections a second
			by = fresh
		}
		resp, err := by.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				err = fmt.Errorf("status %s", resp.Status)
			}
		}
		note(err)
	})

	var slowest time.Duration
	shows := func(former string, address string) bool {
		shown, err := x.serial(address)
		return err == nil && shown != former
	}
	for round := range rounds {
		begun := time.Now()
		former := serialOf(t, x)
		oldStatic, oldKey := static, x.issuer.Key()
		installServer(t, x.ca, x.dir)
		var nextEntry string
		static, nextEntry = mint(t, "--caller", "shop", "--rights", "check", "--days", "1")
		write(entry + nextEntry)
		key := accesstest.NewKey(t, fmt.Sprintf("key-%d", round), "RS256")
		x.issuer.Publish(oldKey, key)
		if round%2 == 1 {
			if err := syscall.Kill(x.pid, syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
		}
		next := x.issuer.issueWith(key, "shop", "Eligibility.Check").token
		within("the new certificate over gRPC", func() bool { return shows(former, x.GRPC) })
		within("the new certificate over REST", func() bool { return shows(former, x.HTTP) })
		within("the new static token", accepted(static))
		within("the new key of the issuer", accepted(next))
		slowest = max(slowest, time.Since(begun))
		oldToken := current.Load()[1]
		current.Store(&[2]string{static, next})
		x.issuer.sign(key)
		pause(t.Context(), 200*time.Millisecond) // requests with the former ones are under way
		write(nextEntry)
		x.issuer.Publish(key)
		if round%2 == 1 {
			if err := syscall.Kill(x.pid, syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
		}
		within("the former static token is refused", refused(oldStatic))
		if round == rounds-1 { // a key leaves the set with the next fetch, which an unknown kid causes
			stray := x.issuer.issueWith(accesstest.NewKey(t, "stray", "RS256"), "shop", "Eligibility.Check").token
			within("the token of a key that has left", func() bool {
				_, _ = takes(stray)
				return refused(oldToken)()
			})
		}
		entry = nextEntry
	}

	failures := x.metric(t, "eligibility_tls_reload_failures_total")
	former := serialOf(t, x)
	writeLinked(t, x.dir, map[string][]byte{"tls.crt": []byte("broken"), "tls.key": []byte("broken")})
	write("- broken")
	within("a broken pair is counted", func() bool { return x.metric(t, "eligibility_tls_reload_failures_total") > failures })
	if got := serialOf(t, x); got != former {
		t.Errorf("after a broken replacement: certificate %s, was %s", got, former)
	}
	within("a broken token file is counted", func() bool {
		_, _, text := get(t, "http://"+x.Admin+"/metrics")
		for line := range strings.SplitSeq(text, "\n") {
			if strings.Contains(line, "token") && strings.Contains(line, "failures_total") && !strings.HasSuffix(line, " 0") && !strings.HasPrefix(line, "#") {
				return true
			}
		}
		return false
	})
	if !accepted(static)() {
		t.Error("a broken token file invalidated the tokens")
	}
	stop()
	loading.Wait()
	t.Logf("%d requests, %d failed %v; the slowest replacement took %v until all were seen", sent.Load(), failed.Load(), causes, slowest.Round(time.Millisecond))
	if failed.Load() > 0 || sent.Load() == 0 {
		t.Errorf("%d of %d requests failed: %v", failed.Load(), sent.Load(), causes)
	}
	table.begin("Replacements under 500 requests a second")
	cell := "no failed request; the new one is used within 16 s, the former one is refused"
	table.add(t, "certificate, token file and the issuer's key, ten times each", cell, cell)
	table.add(t, "a pair and a token file that do not load", "counted; the former ones stay in use", "counted; the former ones stay in use")
}

// serialOf returns the serial number of the certificate that x presents.
func serialOf(t *testing.T, x *target) string {
	t.Helper()
	serial, err := x.serial(x.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	return serial
}

// serial returns the serial number of the certificate that x presents at address.
func (x *target) serial(address string) (string, error) {
	conn, err := open(address, x.tls(nil), "h2")
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
}
