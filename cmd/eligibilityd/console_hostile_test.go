package main

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// hostileTexts are what an attacker at Partner Center's side would send in each text. Those
// with script call pwned if they get their way.
func hostileTexts() []string {
	return []string{
		`<script>window.pwned=1;alert(1)</script>`,
		`"><img src=x onerror="window.pwned=2;alert(2)">`,
		`' onfocus='window.pwned=3;alert(3)' autofocus tabindex='0`,
		`</bdi></dd></main></body><script>window.pwned=4</script><iframe src=javascript:alert(4)>`,
		`javascript:window.pwned=5`,
		"`${window.pwned=6}` {{.}} {{template \"layout\"}} <!-- --!> ]]>",
		`<svg/onload=window.pwned=7><style>*{display:none!important}</style>`,
		`<meta http-equiv="refresh" content="0;url=https://evil.example/"><base href="https://evil.example/"><link rel=stylesheet href=//evil.example/x.css>`,
		`&lt;script&gt;window.pwned=9&lt;/script&gt;&#x3C;img src=x onerror=window.pwned=9&#x3E;`,
		"\u202etxet desrever \u2066\u2067\u2068\u200f\u061c\u202b\u202d",
		strings.Repeat("W", 20_000),
		strings.Repeat("word ", 4_000),
		strings.Repeat("語", 3_000) + strings.Repeat("e\u0301\u0327\u0330", 300),
		"a\x00b\x01\x07\x1b[31m\x7f\u0085\u2028\u2029\ufeff\uffff",
		"x\n\ndata: {\"change\":{}}\r\n\r\nevent: end\n\n",
		" \t\u00a0\u3000",
	}
}

// hostileID is the customer about whom a hostile text is sent.
func hostileID(n int) string { return fmt.Sprintf("1b000000-0000-4000-8000-%012d", n) }

// hostileCustomer is one about whom Partner Center sends the text in each of its texts, those
// of headers included.
func hostileCustomer(text string) pcsim.Customer {
	return pcsim.Customer{
		Name: text, Shows: text,
		Account: []pcsim.Step{{Status: text}},
		Qualifications: []pcsim.Step{{Items: []pcsim.Qualification{
			{Qualification: "Education", VettingStatus: text, VettingReason: text, VettingCreatedDate: text},
			{Qualification: text, VettingStatus: "Denied", VettingReason: text},
		}}},
	}
}

// prepareHostile makes the service know each hostile customer, with a history, and returns
// how many there are.
func prepareHostile(t *testing.T, d *consoleDev) int {
	t.Helper()
	texts := hostileTexts()
	for i, text := range texts {
		id := hostileID(i)
		customer := hostileCustomer(text)
		customer.Account = append([]pcsim.Step{{Status: "UnderReview", Times: 1}}, customer.Account...)
		d.put(t, id, customer)
		d.tries(t, id)
		d.tries(t, id)
	}
	// Headers may hold what can be seen only.
	d.put(t, hostileID(len(texts)), pcsim.Customer{Account: []pcsim.Step{{Raw: &pcsim.Raw{
		Status: http.StatusOK, Body: `{"type":"account","status":"UnderReview"}`,
		Headers: map[string]string{"MS-CorrelationId": texts[0], "MS-RequestId": texts[1], "MS-CV": texts[2]},
	}}}})
	d.tries(t, hostileID(len(texts)))
	return len(texts) + 1
}

// tries is fetch that may fail.
func (d *consoleDev) tries(t *testing.T, id string) {
	t.Helper()
	if _, err := d.ask(t, freshEducation(id)); err != nil {
		t.Logf("%s: %.200v", id, err)
	}
}

// hostilePages are the pages about hostile customers.
func hostilePages(customers int) (paths []string) {
	for i := range customers {
		paths = append(paths, "/console/customers/"+hostileID(i))
	}
	for i := range hostileTexts() {
		paths = append(paths, "/console/find?q="+url.QueryEscape(hostileTexts()[i][:min(len(hostileTexts()[i]), 2000)]))
	}
	return append(paths, "/console/reviews", "/console/fleet", "/console/customers/"+hostileID(0)+"/asked")
}

// faultsOf lists what no page of the console may have: script of its own, and addresses of
// other hosts.
func faultsOf(page *html.Node) (faults []string) {
	for n := range page.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		if slices.Contains([]string{"style", "iframe", "object", "embed", "base", "applet", "frame"}, n.Data) {
			faults = append(faults, "<"+n.Data+">")
		}
		if n.Data == "script" && (n.FirstChild != nil || attribute(n, "src") != "/console/script.js") {
			faults = append(faults, "a script "+attribute(n, "src"))
		}
		if n.Data == "meta" && attribute(n, "http-equiv") != "" {
			faults = append(faults, "<meta http-equiv>")
		}
		for _, a := range n.Attr {
			switch {
			case strings.HasPrefix(a.Key, "on") || a.Key == "style" || a.Key == "srcdoc":
				faults = append(faults, fmt.Sprintf("<%s %s=%q>", n.Data, a.Key, a.Val))
			case slices.Contains([]string{"href", "src", "action", "formaction", "srcset", "poster", "data", "ping", "xlink:href"}, a.Key) && leadsAway(n, a.Val):
				faults = append(faults, fmt.Sprintf("<%s %s=%.100q>", n.Data, a.Key, a.Val))
			}
		}
	}
	return faults
}

// leadsAway reports whether an address of an element is one of another host, other than a
// link to documents of Microsoft.
func leadsAway(n *html.Node, address string) bool {
	to, err := url.Parse(address)
	if err != nil || to.Scheme != "" && to.Scheme != "https" {
		return true
	}
	return to.Host != "" && (n.Data != "a" || !strings.HasSuffix("."+to.Hostname(), ".microsoft.com"))
}

// Whatever Partner Center sends, the pages have no script, style or address but their own,
// and their headers keep the browser from running any other.
func TestTheConsoleRunsNoTextOfPartnerCenter(t *testing.T) {
	t.Parallel()
	d := startConsoleDev(t)
	customers := prepareHostile(t, d)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	v := newHTTPVisitor(t, d.base, transport)
	for _, path := range hostilePages(customers) {
		v.open(t, path)
		for _, fault := range faultsOf(v.page) {
			t.Errorf("%.100s has %.300s", path, fault)
		}
		if v.status >= http.StatusInternalServerError || len(v.body) > 1<<20 {
			t.Errorf("%.100s: status %d, %d bytes", path, v.status, len(v.body))
		}
		policy := v.header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'"} {
			if !strings.Contains(policy, want) {
				t.Errorf("%.100s: the policy %q lacks %s", path, policy, want)
			}
		}
		if strings.Contains(policy, "unsafe") || v.header.Get("X-Content-Type-Options") != "nosniff" || v.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%.100s: %v", path, v.header)
		}
		if strings.ContainsAny(v.body, "\x00\x01\x07\x1b\x7f") && !strings.HasPrefix(path, "/console/find") { // that is what was pasted
			t.Errorf("%.100s has control characters", path)
		}
	}
}
