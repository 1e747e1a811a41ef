package loopback

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func TestOnlyLoopbackNamesAreHosts(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"localhost": true, "localhost:8080": true, "LocalHost:1": true,
		"127.0.0.1": true, "127.0.0.1:8080": true, "127.255.0.9:1": true,
		"[::1]": true, "[::1]:8080": true, "::1": true,
		"": false, ":8080": false, "rebound.example": false, "rebound.example:8080": false,
		"localhost.rebound.example": false, "127.0.0.1.rebound.example:80": false, "xlocalhost": false,
		"0.0.0.0:8080": false, "192.168.0.1": false, "[::]:8080": false, "[fe80::1]": false, "128.0.0.1": false,
	} {
		if got := isName(host); got != want {
			t.Errorf("%q: %v, want %v", host, got, want)
		}
	}
}

func TestWhatABrowserMarksIsRefused(t *testing.T) {
	t.Parallel()
	navigate := []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}
	for name, row := range map[string]struct {
		method  string
		page    bool
		headers []string
		refused bool
	}{
		"no browser":                       {"POST", false, nil, false},
		"the address bar":                  {"GET", false, append([]string{"Sec-Fetch-Site", "none"}, navigate...), false},
		"the page itself":                  {"POST", false, []string{"Sec-Fetch-Site", "same-origin", "Origin", "http://127.0.0.1:8080"}, false},
		"the page behind a proxy":          {"POST", false, []string{"Sec-Fetch-Site", "same-origin", "Origin", "http://other.example"}, false},
		"a form of another site":           {"POST", true, append([]string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, navigate...), true},
		"an image of another site":         {"GET", true, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"}, true},
		"a frame of another site":          {"GET", true, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}, true},
		"a script of another port":         {"GET", false, []string{"Sec-Fetch-Site", "same-site", "Origin", "http://127.0.0.1:3000"}, true},
		"a link to a page":                 {"GET", true, append([]string{"Sec-Fetch-Site", "cross-site"}, navigate...), false},
		"a link to what is no page":        {"GET", false, append([]string{"Sec-Fetch-Site", "cross-site"}, navigate...), true},
		"an older browser":                 {"POST", false, []string{"Origin", "https://evil.example"}, true},
		"an older browser, no origin":      {"POST", false, []string{"Origin", "null"}, true},
		"an older browser, another port":   {"GET", false, []string{"Origin", "http://127.0.0.1:3000"}, true},
		"an older browser, the same":       {"POST", false, []string{"Origin", "http://127.0.0.1:8080"}, false},
		"an origin that cannot be read":    {"POST", false, []string{"Origin", "http://%zz"}, true},
		"a mark that is not known":         {"GET", false, []string{"Sec-Fetch-Site", "elsewhere"}, true},
		"a mark in the wrong upper letter": {"GET", false, []string{"Sec-Fetch-Site", "Cross-Site"}, true},
	} {
		r := httptest.NewRequestWithContext(t.Context(), row.method, "http://127.0.0.1:8080/", http.NoBody)
		for i := 0; i < len(row.headers); i += 2 {
			r.Header.Set(row.headers[i], row.headers[i+1])
		}
		if got := Refuses(r, row.page); got != row.refused {
			t.Errorf("%s: refused %v, want %v", name, got, row.refused)
		}
		r.Host = "rebound.example:8080"
		if !Refuses(r, row.page) {
			t.Errorf("%s is not refused to another name", name)
		}
	}
}

func TestOnlyListenersOnLoopbackAreGuarded(t *testing.T) {
	t.Parallel()
	next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	for address, want := range map[string]int{"127.0.0.1": 403, "127.9.9.9": 403, "::1": 403, "0.0.0.0": 204, "::": 204, "10.0.0.1": 204} {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://rebound.example/", http.NoBody)
		Guard(&net.TCPAddr{IP: net.ParseIP(address)}, next, nil).ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("on %s: %d, want %d", address, w.Code, want)
		}
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://rebound.example/", http.NoBody)
	Guard(&net.UnixAddr{Name: "s"}, next, nil).ServeHTTP(w, r)
	if w.Code != http.StatusNoContent {
		t.Errorf("on a Unix socket: %d", w.Code)
	}
}
