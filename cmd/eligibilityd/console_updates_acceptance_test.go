//go:build acceptance

package main

import (
	"fmt"
	"strings"
	"testing"
)

// scriptedUpdates replaces what the pages' script gets: %d is the period of updates in
// seconds. window.emit reports a change, window.fetches are the updates that began,
// window.streams the streams. window.answer, if set, makes an answer of a page's text.
const scriptedUpdates = `
	document.addEventListener("readystatechange", () => {
		const e = document.querySelector("main [data-refresh]");
		if (e) e.dataset.refresh = "%d";
	});
	window.fetches = [];
	window.streams = [];
	window.EventSource = class extends EventTarget {
		static CLOSED = 2;
		constructor(url) { super(); this.url = url; this.readyState = 1; window.streams.push(this); }
		close() { this.readyState = 2; }
	};
	window.emit = () => {
		for (const s of window.streams.filter(s => s.readyState === 1)) {
			s.dispatchEvent(new MessageEvent("change", {data: '{"change": {}}'}));
		}
	};
	const timeout = AbortSignal.timeout.bind(AbortSignal);
	AbortSignal.timeout = (ms) => { window.bound = ms; return timeout(window.hang ? 100 : ms); };
	const real = window.fetch.bind(window);
	window.fetch = async (url, options) => {
		window.fetches.push(Date.now());
		if (window.hang) {
			return new Promise((_, no) => options.signal?.addEventListener("abort", () => no(options.signal.reason)));
		}
		const r = await real(url, options);
		return window.answer ? new Response(window.answer(await r.text()), {status: r.status}) : r;
	};
`

// The script of the pages bounds how often it updates, waits for a reader who selects
// text but not for ever, gives up a request that gets no answer, and follows the stream
// that the page names.
func TestAcceptanceConsoleUpdates(t *testing.T) {
	d := startConsoleDev(t)
	d.script(t, fineAgain, "Allowed")
	d.fetch(t, fineAgain, "before", "")
	v := startVisitor(t, d.base)
	added := map[string]any{}
	opened := func(period int) {
		t.Helper()
		if len(added) > 0 {
			v.devTools("Page.removeScriptToEvaluateOnNewDocument", added, nil)
		}
		v.devTools("Page.addScriptToEvaluateOnNewDocument", map[string]any{"source": "{" + fmt.Sprintf(scriptedUpdates, period) + "}"}, &added)
		v.start(t)
		v.paste(t, fineAgain)
	}
	reads := func(want string) {
		t.Helper()
		eventually(t, want, func() bool { return strings.Contains(v.reads(t), want) })
	}
	count := func() (n int) {
		v.script("return window.fetches.length", &n)
		return n
	}

	opened(3)
	v.script("getSelection().selectAllChildren(document.querySelector('h1')); window.emit()", nil)
	reads("Paused while text is selected.")
	if n := count(); n != 0 {
		t.Errorf("%d updates while text is selected", n)
	}
	reads("Last updated at")

	opened(600)
	v.script("window.steady = setInterval(window.emit, 100)", nil)
	eventually(t, "updates during a steady flow of changes", func() bool { return count() >= 3 })
	var last int
	v.script("clearInterval(window.steady); window.emit(); return window.fetches.length", &last)
	eventually(t, "an update after the last change", func() bool { return count() > last })
	var gaps []int
	v.script("return window.fetches.slice(1).map((at, i) => at - window.fetches[i])", &gaps)
	for _, gap := range gaps {
		if gap < 1990 { // timers and clocks are rounded
			t.Errorf("an update %d ms after another", gap)
		}
	}

	v.script("window.answer = text => text.replace(/data-events=\"[^\"]*\"/, 'data-events=\"/console/events?other\"'); window.emit()", nil)
	eventually(t, "another stream", func() (ok bool) {
		v.script("return window.streams.length === 2 && window.streams[0].readyState === 2 && window.streams[1].url === '/console/events?other' && window.streams[1].readyState === 1", &ok)
		return ok
	})

	var bound int
	v.script("window.hang = true; window.emit()", nil)
	reads("Not updated since")
	v.script("return window.bound", &bound)
	if bound != 15_000 {
		t.Errorf("a request may take %d ms", bound)
	}
}
