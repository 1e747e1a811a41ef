//go:build acceptance

package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// recorder keeps what a host answers.
type recorder struct {
	http.RoundTripper

	host    string
	kept    []recorded
	foreign []string // Location headers of other hosts
}

// recorded is an answer: its status line and header, without the cookies, and its body.
type recorded struct {
	what    string
	cookies []string
}

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := r.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if req.URL.Host != r.host {
		r.foreign = append(r.foreign, resp.Header.Get("Location"))
		return resp, nil
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	header := resp.Header.Clone()
	cookies := header.Values("Set-Cookie")
	header.Del("Set-Cookie")
	var text strings.Builder
	fmt.Fprintf(&text, "%s %s: %s\n", req.Method, req.URL, resp.Status)
	_ = header.Write(&text)
	text.Write(body)
	r.kept = append(r.kept, recorded{text.String(), cookies})
	return resp, nil
}

// crawl opens every page that links of the site lead to, from the path on.
func (v *httpVisitor) crawl(t *testing.T, paths ...string) (opened int) {
	t.Helper()
	const most = 300
	for seen := slices.Clone(paths); len(paths) > 0 && opened < most; opened++ {
		path := paths[0]
		paths = paths[1:]
		v.open(t, path)
		for n := range v.page.Descendants() {
			if n.Type != html.ElementNode {
				continue
			}
			for _, key := range []string{"href", "src"} {
				to, err := v.at.Parse(attribute(n, key))
				if err != nil || attribute(n, key) == "" || to.Host != v.at.Host || strings.HasPrefix(to.Path, "/console/sign-") {
					continue
				}
				to.Fragment = ""
				if next := to.RequestURI(); !slices.Contains(seen, next) {
					seen, paths = append(seen, next), append(paths, next)
				}
			}
		}
	}
	return opened
}

// No page, for a user of whatever rights, has a secret in it or in its header, nor do the
// logs: client secrets, tokens, codes, the contents of cookies.
func TestAcceptanceConsoleSecrets(t *testing.T) {
	const integrityKey = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	s := startConsoleServe(t,
		"ELIGIBILITY_CACHE__REDIS__INTEGRITY_KEY="+integrityKey,
		"ELIGIBILITY_AUTH__CALLERS={"+onePartner+": {rights: [support, watch], partners: [default]}}")
	s.far.put(t, flipping(blockedByMicrosoft, "NotAllowed", 0))
	s.far.put(t, flipping(workedBefore, "UnderReview", 0))
	transport := &http.Transport{TLSClientConfig: s.ca.ClientTLS(nil)}
	defer transport.CloseIdleConnections()
	all := &recorder{RoundTripper: transport, host: "localhost:" + portOf(s.HTTP)}
	customer := "/console/customers/"
	paths := []string{
		"/console", "/console/find?q=nobody", customer + blockedByMicrosoft, customer + workedBefore, customer + neverAsked,
		customer + blockedByMicrosoft + "/asked", "/console/reviews", "/console/fleet", "/console/nothing", "/console/signed-out",
		"/console/callback?code=guessed&state=guessed", "/console/callback?error=access_denied&state=x", "/console/customers/nobody",
		"/console/style.css", "/console/script.js", "/console/icon.svg",
	}
	for _, person := range []string{"", everyRight, onlySupport, onePartner, noSupport} {
		v := newHTTPVisitor(t, s.base, all)
		if person != "" {
			v.open(t, "/console")
			v.click(t, person)
		}
		if person == everyRight {
			v.open(t, customer+blockedByMicrosoft)
			v.click(t, "Ask Microsoft now")
		}
		if person == "" {
			for _, path := range paths {
				v.open(t, path)
			}
			continue
		}
		opened := v.crawl(t, paths...)
		t.Logf("%s: %d pages", person, opened)
		v.open(t, "/console/nothing")
		v.click(t, "Sign out")
	}

	secrets := []string{
		"first-secret-of-the-console-client", pcsim.DefaultClientSecret, pcsim.DefaultRefreshToken, integrityKey, "secret of the provider",
		s.secret, // where it is
	}
	s.mu.Lock()
	secrets = append(secrets, s.tokens...)
	s.mu.Unlock()
	for _, to := range all.foreign {
		if at, err := url.Parse(to); err == nil && at.Query().Get("code") != "" {
			secrets = append(secrets, at.Query().Get("code"))
		}
	}
	if len(secrets) < 12 || len(all.kept) < 60 {
		t.Errorf("%d secrets, %d answers", len(secrets), len(all.kept))
	}
	anyJWT := regexp.MustCompile(`eyJ[\w-]{8,}\.eyJ`)
	var values []string
	for _, one := range all.kept {
		for _, set := range one.cookies {
			_, value, _ := strings.Cut(set, "=")
			value, _, _ = strings.Cut(value, ";")
			if len(value) > 8 {
				values = append(values, value)
			}
			for _, secret := range secrets {
				if strings.Contains(set, secret) {
					t.Errorf("a cookie has %.12s…", secret)
				}
			}
		}
	}
	for _, one := range all.kept {
		first, _, _ := strings.Cut(one.what, "\n")
		for _, secret := range slices.Concat(secrets, values) {
			// The request line of a callback is ours, not an answer's.
			if strings.Contains(strings.TrimPrefix(one.what, first), secret) {
				t.Errorf("%s has %.12s…", first, secret)
			}
		}
		if anyJWT.MatchString(one.what) {
			t.Errorf("%s has a token", first)
		}
	}
	for _, secret := range slices.Concat(secrets[:len(secrets)-1], values) {
		if secret != s.secret && strings.Contains(s.log.String()+s.out.String(), secret) {
			t.Errorf("the log has %.12s…", secret)
		}
	}
	t.Logf("%d answers, %d secrets and %d cookies looked for", len(all.kept), len(secrets), len(values))
}
