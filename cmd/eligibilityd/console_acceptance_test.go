//go:build acceptance

package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// browserVisitor is a visitor with a real browser.
type browserVisitor struct {
	*browser

	base string // scheme and host
}

// startVisitor starts a browser that logs its requests and the messages of its console. It
// accepts every certificate.
func startVisitor(t *testing.T, base string) *browserVisitor {
	t.Helper()
	b := startBrowserWith(t, map[string]any{
		"acceptInsecureCerts": true,
		"goog:loggingPrefs":   map[string]string{"performance": "ALL", "browser": "ALL"},
	})
	b.devTools("Browser.grantPermissions", map[string]any{"permissions": []string{"clipboardReadWrite", "clipboardSanitizedWrite"}}, nil)
	return &browserVisitor{b, base}
}

func (v *browserVisitor) start(t *testing.T) {
	t.Helper()
	v.open(v.base + "/console")
}

// leave does something that makes the browser load another page, and waits for it.
func (v *browserVisitor) leave(t *testing.T, by func()) {
	t.Helper()
	v.script("window.leaving = true", nil)
	by()
	eventually(t, "the next page", func() bool {
		var loaded bool
		err := v.try(http.MethodPost, "/execute/sync", map[string]any{
			"script": "return !window.leaving && document.readyState === 'complete'", "args": []any{},
		}, &loaded)
		return err == nil && loaded
	})
}

func (v *browserVisitor) paste(t *testing.T, text string) {
	t.Helper()
	v.browser.click(`input[name="q"]`)
	v.browser.paste(text)
	v.leave(t, func() { v.press(keyEnter) })
}

const findByName = `
	const name = arguments[0].toLowerCase();
	const all = [...document.querySelectorAll("a, button, summary")].filter(e => e.checkVisibility())
		.map(e => [e, e.innerText.replace(/\s+/g, " ").trim().toLowerCase()]);
	const found = all.find(([, text]) => text === name) ?? all.find(([, text]) => text.startsWith(name + " "));
	if (!found) return null;
	const e = found[0];
	e.scrollIntoView({block: "center"});
	const leaves = e.tagName === "A" && !e.getAttribute("href").startsWith("#") || e.tagName === "BUTTON" && e.type === "submit" && !!e.form;
	return [e, leaves];
`

func (v *browserVisitor) click(t *testing.T, name string) {
	t.Helper()
	var found []json.RawMessage
	v.script(findByName, &found, name)
	if len(found) != 2 {
		t.Fatalf("nothing on the page is called %q:\n%s", name, v.reads(t))
	}
	var element map[string]string
	if err := json.Unmarshal(found[0], &element); err != nil {
		t.Fatal(err)
	}
	press := func() {
		for _, id := range element {
			v.call(http.MethodPost, "/element/"+id+"/click", map[string]any{}, nil)
		}
	}
	if string(found[1]) != "true" {
		press()
		return
	}
	v.leave(t, press)
}

func (v *browserVisitor) reads(t *testing.T) string {
	t.Helper()
	return strings.Join(strings.Fields(v.text()), " ")
}

// copied returns what the page has copied.
func (v *browserVisitor) copied(t *testing.T) string {
	t.Helper()
	var text string
	v.promise("return await navigator.clipboard.readText()", &text)
	return text
}

// relay passes connections on to a listener until it is cut.
type relay struct {
	address string
	to      string

	mu      sync.Mutex
	open    map[net.Conn]bool // guarded by mu; nil while cut
	passing sync.WaitGroup
}

func startRelay(t *testing.T, to string) *relay {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{address: listener.Addr().String(), to: to, open: map[net.Conn]bool{}}
	r.passing.Go(func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			r.passing.Go(func() { r.pass(from) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		r.cut()
		r.passing.Wait()
	})
	return r
}

func (r *relay) pass(from net.Conn) {
	defer func() { _ = from.Close() }()
	to, err := net.Dial("tcp", r.to) //nolint:noctx // it ends with the connection
	if err != nil {
		return
	}
	defer func() { _ = to.Close() }()
	r.mu.Lock()
	if r.open == nil {
		r.mu.Unlock()
		return
	}
	r.open[from], r.open[to] = true, true
	r.mu.Unlock()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(from, to)
		_ = from.Close()
	})
	_, _ = io.Copy(to, from)
	_ = to.Close()
	back.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, from)
	delete(r.open, to)
}

// cut closes all connections, and each that comes until mend.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for conn := range r.open {
		_ = conn.Close()
	}
	r.open = nil
}

func (r *relay) mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open = map[net.Conn]bool{}
}

// accountCall returns the last call about a customer's account that the simulator answered.
func (d *consoleDev) accountCall(t *testing.T, id string) (last pcsim.Request) {
	t.Helper()
	_, _, body := get(t, d.control+"/v1/requests")
	var journal struct{ Requests []pcsim.Request }
	if err := json.Unmarshal([]byte(body), &journal); err != nil {
		t.Fatal(err)
	}
	for _, one := range journal.Requests {
		if one.Resource == "account" && one.CustomerID == id && one.Number > last.Number {
			last = one
		}
	}
	if last.Number == 0 {
		t.Fatalf("no call about %s: %s", id, body)
	}
	return last
}

// A blocked customer is found by id and by the address of a page of Partner Center, and
// the block for Microsoft support is that of the call that the simulator answered.
func TestAcceptanceConsoleFindsAndCopies(t *testing.T) {
	d := startConsoleDev(t)
	v := startVisitor(t, d.base)
	const id, subscription = blockedByMicrosoft, "70000000-0000-4000-8000-000000000009"
	d.script(t, id, "NotAllowed")
	fetched := d.fetch(t, id, "order", "").GetEvidenceTime().AsTime()
	call := d.accountCall(t, id)
	for _, pasted := range []string{
		id, strings.ToUpper(id), "{" + id + "}", "  " + id + "\t", strings.ReplaceAll(id, "-", ""), "Customer " + id + ", since Tuesday",
		"https://partner.microsoft.com/dashboard/v2/customers/" + id + "/accountprofile",
		"https://partner.microsoft.com/en-us/dashboard/commerce2/customers/" + id + "/subscriptions/" + subscription + "?tab=overview#details",
		"https://api.partnercenter.microsoft.com/v1/customers/" + id + "/validationStatus?type=account",
	} {
		v.start(t)
		v.paste(t, pasted)
		if text := v.reads(t); !strings.Contains(text, id) || !strings.Contains(text, "May not buy") {
			t.Errorf("%q leads to %s", pasted, text)
		}
	}
	v.click(t, "Copy for Microsoft support")
	var copied string
	eventually(t, "the copied block", func() bool {
		copied = v.copied(t)
		return strings.Contains(copied, id)
	})
	t.Logf("copied:\n%s", copied)
	for _, want := range []string{id, "NotAllowed", call.CorrelationID, call.RequestID, call.Path, fetched.Format("2006-01-02T15:04:05.000Z")} {
		if want == "" || !strings.Contains(copied, want) {
			t.Errorf("%q was not copied", want)
		}
	}
}

// Each of ten calls that support gets is answered in two clicks at most.
func TestAcceptanceConsoleCalls(t *testing.T) {
	d := startConsoleDev(t)
	v := startVisitor(t, d.base)
	for _, call := range supportCalls(t, d) {
		call.answer(t, v)
		t.Logf("%q: %d", call.question, len(call.steps))
	}
}

// showsBound is how long a page may need to show what the service knows.
const showsBound = 5 * time.Second

// The page of a customer changes by itself when a review ends: when another caller finds
// out, when that happens while the page has lost its stream, and when the service does by
// itself.
func TestAcceptanceConsoleReviewEnds(t *testing.T) {
	d := startConsoleDev(t)
	between := startRelay(t, d.HTTP)
	ids := []string{workedBefore, inBoth, fineAgain}
	for _, id := range ids {
		d.script(t, id, "UnderReview")
		d.fetch(t, id, "before", "")
	}
	asked := time.Now()
	v := startVisitor(t, "http://"+between.address)
	ended := func(id string) {
		d.script(t, id, "Allowed")
	}
	shown := func(id string, within time.Duration) {
		t.Helper()
		began := time.Now()
		eventuallyIn(t, within+patience, id+" to be allowed on its page", func() bool {
			text := v.reads(t)
			return strings.Contains(text, "May buy commercial licences") && strings.Contains(text, id)
		})
		took := time.Since(began)
		t.Logf("%s: shown after %v", id, took.Round(time.Millisecond))
		if took > within {
			t.Errorf("%s: shown only after %v", id, took)
		}
		var touched bool
		v.script("return !!window.untouched", &touched)
		if !touched {
			t.Error("the page was loaded again")
		}
	}
	opened := func(id string) {
		t.Helper()
		v.start(t)
		v.paste(t, id)
		v.script("window.untouched = true", nil)
		if text := v.reads(t); !strings.Contains(text, "May not buy") {
			t.Errorf("%s: %s", id, text)
		}
	}

	opened(ids[0])
	ended(ids[0])
	d.fetch(t, ids[0], "another caller", "")
	shown(ids[0], showsBound)

	opened(ids[1])
	between.cut()
	ended(ids[1])
	d.fetch(t, ids[1], "another caller", "")
	pause(t.Context(), 3*time.Second) // an outage, in which the browser tries again
	between.mend()
	shown(ids[1], 30*time.Second+showsBound)

	opened(ids[2])
	ended(ids[2])
	shown(ids[2], max(0, time.Until(asked.Add(reviewLatest)))+2*showsBound)
}

// eventuallyIn is eventually with another bound.
func eventuallyIn(t *testing.T, within time.Duration, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !holds(); pause(t.Context(), 20*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v in vain for: %s", within, what)
		}
	}
}
