//go:build acceptance

package main

import (
	"fmt"
	"strings"
	"testing"
)

// focused describes the element that has the focus.
type focused struct {
	At      int    // in the order of the document, among all that can have the focus; -1 if none has
	Of      int    // how many can have it
	Name    string // its text
	Visible bool   // whether it is shown that it has the focus, within the window
	Parts   bool   // whether it has parts that Tab leads through
}

const focusNow = `
	const all = [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]")]
		.filter(e => e.checkVisibility() && !e.disabled && e.type !== "hidden" && e.tabIndex >= 0);
	const e = document.activeElement, at = all.indexOf(e);
	if (at < 0) return {At: at, Of: all.length, Name: "", Visible: false, Parts: false};
	const style = getComputedStyle(e), box = e.getBoundingClientRect();
	const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0 || style.boxShadow !== "none";
	const inside = box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth;
	return {At: at, Of: all.length, Name: (e.innerText || e.name || "").trim(), Visible: e.matches(":focus-visible") && ring && inside, Parts: e.type === "datetime-local"};
`

func (v *browserVisitor) focus() (now focused) {
	v.t.Helper()
	v.browser.script(focusNow, &now)
	return now
}

// tabTo presses Tab until the element of that name has the focus.
func (v *browserVisitor) tabTo(t *testing.T, name string) {
	t.Helper()
	for range 200 {
		v.press(keyTab)
		if now := v.focus(); strings.EqualFold(now.Name, name) {
			if !now.Visible {
				t.Errorf("%q has the focus, which is not shown", name)
			}
			return
		}
	}
	t.Fatalf("Tab does not lead to %q", name)
}

// tabThrough presses Tab until all that can have the focus has had it, wherever the page
// began.
func (v *browserVisitor) tabThrough(t *testing.T, name string) {
	t.Helper()
	reached := map[int]bool{}
	before := v.focus()
	for range 2*before.Of + 40 {
		v.press(keyTab)
		now := v.focus()
		if now.Parts && now.At == before.At {
			continue
		}
		if now.At >= 0 {
			reached[now.At] = true
			if !now.Visible {
				t.Errorf("%s: the focus on number %d, %q, is not shown", name, now.At, now.Name)
			}
		}
		if follows := now.At == before.At+1 || before.At == before.Of-1 && now.At <= 0; !follows && before.At >= 0 {
			t.Errorf("%s: after number %d, %q, comes %d, %q", name, before.At, before.Name, now.At, now.Name)
		}
		if before = now; len(reached) == now.Of {
			return
		}
	}
	t.Errorf("%s: Tab reaches %d of %d", name, len(reached), before.Of)
}

// Tab leads to everything that can be used, in the order of the page, and shows where it
// is; Enter does what a click does. When a page changes by itself, the focus stays.
func TestAcceptanceConsoleKeyboard(t *testing.T) {
	d := startConsoleDev(t)
	v := startVisitor(t, d.base)
	for _, page := range consolePages(t, d) {
		if page.hostile {
			continue
		}
		for _, width := range consoleWidths {
			v.show(width, "light")
			v.visit(t, page)
			v.tabThrough(t, fmt.Sprintf("%s at %d px", page.name, width))
		}
	}

	v.show(consoleWidths[1], "light")
	v.start(t)
	for v.focus().Name != "q" { // it has the focus already, unless that has changed
		v.press(keyTab)
	}
	v.browser.paste(fineAgain)
	v.leave(t, func() { v.press(keyEnter) })
	v.tabTo(t, "Ask Microsoft now")
	v.leave(t, func() { v.press(keyEnter) })
	if text := v.reads(t); !strings.Contains(text, "May buy") {
		t.Errorf("asked by Enter: %s", text)
	}
	v.tabTo(t, "Copy for Microsoft support")
	d.script(t, fineAgain, "NotAllowed")
	d.fetch(t, fineAgain, "meanwhile", "")
	eventually(t, "the change on the page", func() bool { return strings.Contains(v.reads(t), "May not buy") })
	if now := v.focus(); !strings.EqualFold(now.Name, "Copy for Microsoft support") {
		t.Errorf("after the change, the focus is on %q", now.Name)
	}
	v.open(v.base + "/console/reviews")
	v.tabTo(t, "Customer")
	v.leave(t, func() { v.press(keyEnter) })
	if text := v.reads(t); !strings.Contains(text, workedBefore) {
		t.Errorf("sorted by Enter: %s", text)
	}
}

// Without script, a browser finds, shows, sorts and asks.
func TestAcceptanceConsoleWithoutScript(t *testing.T) {
	d := startConsoleDev(t)
	v := startVisitor(t, d.base)
	v.devTools("Emulation.setScriptExecutionDisabled", map[string]any{"value": true}, nil)
	for _, call := range supportCalls(t, d) {
		if last := call.steps[len(call.steps)-1]; last.click == "Copy for Microsoft support" { // the text can be selected
			call.steps = call.steps[:len(call.steps)-1]
		}
		call.answer(t, v)
	}
	v.open(v.base + "/console/reviews")
	v.click(t, "Customer")
	if text := v.reads(t); !strings.Contains(text, workedBefore) || !strings.Contains(text, inBoth) {
		t.Errorf("sorted: %s", text)
	}
	v.keep(t, "reviews-without-script.png")
}
