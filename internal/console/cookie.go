package console

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/loopback"
)

// The names of the cookies, and how long each counts. The name is part of what is
// authenticated, so neither passes for the other.
const (
	sessionCookie = "eligibility-console"
	attemptCookie = "eligibility-console-sign-in"

	sessionFor = 8 * time.Hour
	attemptFor = 10 * time.Minute
)

// cookiePrefix makes browsers accept a cookie only from a site with TLS, for its whole
// host and for no other.
const cookiePrefix = "__Host-"

// maxCookieBytes is the most that browsers keep of a cookie, name and attributes
// included.
const maxCookieBytes = 4096

// skew is by how much the clocks of replicas may differ.
const skew = time.Minute

// stamp is the time that a cookie counts, in seconds of Unix time.
type stamp struct {
	Issued int64 `json:"iat"`
	Until  int64 `json:"exp"`
}

func newStamp(now time.Time, lasts time.Duration) stamp {
	return stamp{Issued: now.Unix(), Until: now.Add(lasts).Unix()}
}

// counts reports whether a cookie counts at a time. One of the future does not: a clock
// that is set back must not prolong it.
func (s stamp) counts(now time.Time, lasts time.Duration) bool {
	issued := time.Unix(s.Issued, 0)
	return !issued.After(now.Add(skew)) && now.Before(time.Unix(s.Until, 0)) && now.Before(issued.Add(lasts))
}

// aead returns the cipher of cookies, whose key is derived from the client's secret: all
// replicas have the same, and a new secret ends all sessions.
func (s *SignIn) aead() (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, s.Secret(), nil, "eligibilityd console cookies 1", 32)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("new cipher: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block) //nolint:wrapcheck // by the caller
}

var errLargeCookie = errors.New("the cookie does not fit into 4096 bytes")

// seal sets a cookie that only the console can read.
func (s *SignIn) seal(w http.ResponseWriter, r *http.Request, name string, content any, lasts time.Duration) error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false) // it takes six bytes for one
	if err := encoder.Encode(content); err != nil {
		return fmt.Errorf("encode cookie: %w", err)
	}
	aead, err := s.aead()
	if err != nil {
		return fmt.Errorf("seal cookie: %w", err)
	}
	cookie := newCookie(r, name)                              //nolint:gosec // it decides by the scheme
	sealed := aead.Seal(nil, nil, text.Bytes(), []byte(name)) //nolint:gosec // the cipher makes the nonce
	cookie.Value = base64.RawURLEncoding.EncodeToString(sealed)
	cookie.MaxAge = int(lasts.Seconds())
	header := cookie.String()
	if len(header) > maxCookieBytes {
		return errLargeCookie
	}
	w.Header().Add("Set-Cookie", header)
	return nil
}

// open reads a cookie of a request into content. It reports whether there is one that
// this console, or another replica of it, has set.
func (s *SignIn) open(r *http.Request, name string, content any) bool {
	cookies := r.CookiesNamed(newCookie(r, name).Name)
	if len(cookies) != 1 || len(cookies[0].Value) > maxCookieBytes {
		return false
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(cookies[0].Value)
	if err != nil {
		return false
	}
	aead, err := s.aead()
	if err != nil {
		return false
	}
	text, err := aead.Open(nil, nil, sealed, []byte(name))
	return err == nil && json.Unmarshal(text, content) == nil
}

// drop makes the browser forget a cookie.
func drop(w http.ResponseWriter, r *http.Request, name string) {
	cookie := newCookie(r, name) //nolint:gosec // it decides by the scheme
	cookie.MaxAge = -1
	http.SetCookie(w, cookie)
}

// newCookie returns a cookie without a value. Over plain HTTP to this machine, where
// browsers accept no cookie with the prefix, it has none, and no Secure.
func newCookie(r *http.Request, name string) *http.Cookie {
	cookie := &http.Cookie{Name: name, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode}
	if schemeOf(r) == "https" {
		cookie.Name, cookie.Secure = cookiePrefix+name, true
	}
	return cookie
}

// schemeOf returns the scheme under which the browser has opened the console: https,
// which something in front may terminate, unless the browser is on this machine.
func schemeOf(r *http.Request) string {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if r.TLS == nil && loopback.IsHost(trimBrackets(host)) {
		return "http"
	}
	return "https"
}

func trimBrackets(host string) string {
	if len(host) > 1 && host[0] == '[' && host[len(host)-1] == ']' {
		return host[1 : len(host)-1]
	}
	return host
}

// isHost reports whether text is a host, with or without a port, and nothing else.
func isHost(text string) bool {
	parsed, err := url.Parse("https://" + text)
	return err == nil && parsed.Host == text && parsed.Hostname() != ""
}

// addressOf returns the address of a page of the console as the browser knows it.
func addressOf(r *http.Request, path string) string {
	return (&url.URL{Scheme: schemeOf(r), Host: r.Host, Path: path}).String()
}
