//go:build acceptance

package main

import (
	"bytes"
	"fmt"
	stdimage "image"
	"image/draw"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// consolePage is a page of the console in one of its states.
type consolePage struct {
	name string // of the screenshots
	path string
	// do brings the page into the state; nil if the path does.
	do func(v *browserVisitor)
	// want is a text of the state.
	want string
	// hostile is set if Partner Center sends what an attacker would.
	hostile bool
}

// Customers of the pages, beside those of the calls.
const (
	neverAsked  = "1d000000-0000-4000-8000-000000000001"
	notOurs     = "1d000000-0000-4000-8000-000000000002"
	manyChanges = "1d000000-0000-4000-8000-000000000003"
	longReason  = "1d000000-0000-4000-8000-000000000004"
	cannotAsk   = "1d000000-0000-4000-8000-000000000005"
	mayBuy      = "1d000000-0000-4000-8000-000000000006"
	strangeWord = "1d000000-0000-4000-8000-000000000007"
)

// consolePages prepares the customers of the pages, and returns the pages of a user who may
// do everything.
func consolePages(t *testing.T, d *consoleDev) []consolePage {
	t.Helper()
	supportCalls(t, d)
	hostile := prepareHostile(t, d)
	approved := pcsim.Qualification{Qualification: "Education", VettingStatus: "Approved", VettingCreatedDate: "2024-05-06T07:08:09.123Z"}
	d.script(t, mayBuy, "Allowed", approved, pcsim.Qualification{Qualification: "StateOwnedEntity"})
	d.fetch(t, mayBuy, "page-1", "")
	for i := range 12 {
		d.script(t, manyChanges, []string{"Allowed", "UnderReview", "NotAllowed"}[i%3], pcsim.Qualification{
			Qualification: "Education", VettingStatus: []string{"InReview", "Denied", "Approved"}[i%3], VettingReason: "Not an Education Customer",
		})
		d.fetch(t, manyChanges, fmt.Sprintf("page-2-%d", i), "")
	}
	reason := "The organization's website does not show that it is an accredited institution; " + strings.Repeat("submit the registration, the tax certificate and a letter on headed paper. ", 8)
	d.script(t, longReason, "Allowed",
		pcsim.Qualification{Qualification: "Education", VettingStatus: "Denied", VettingReason: reason, VettingCreatedDate: "2024-05-06T07:08:09.123Z"},
		pcsim.Qualification{Qualification: "GovernmentCommunityCloud", VettingStatus: "InReview", VettingReason: "None"},
		pcsim.Qualification{Qualification: "Nonprofit", VettingStatus: "Approved"})
	d.fetch(t, longReason, "page-3", "")
	d.put(t, notOurs, pcsim.Customer{Tenant: pcsim.TenantOtherPartner})
	d.tries(t, notOurs)
	d.put(t, cannotAsk, pcsim.Customer{Account: []pcsim.Step{{Status: "NotAllowed", Times: 1}, {Raw: &pcsim.Raw{Status: 500}}}})
	d.tries(t, cannotAsk)
	d.script(t, strangeWord, "Suspended")
	d.fetch(t, strangeWord, "page-4", "")
	d.stored(t, manyChanges, 20, false, "page-2-11")
	d.stored(t, strangeWord, 2, false, "page-4")

	customer := "/console/customers/"
	ask := func(v *browserVisitor) { v.click(t, "Ask Microsoft now") }
	pages := []consolePage{
		{"start", "/console", nil, "Partner Center", false},
		{"start-not-an-id", "/console/find?q=Contoso+Ltd", nil, "no customer's id in this", false},
		{"customer-allowed", customer + mayBuy, nil, "May buy", false},
		{"customer-under-review", customer + workedBefore, nil, "May not buy", false},
		{"customer-not-allowed", customer + blockedByMicrosoft, nil, "May not buy", false},
		{"customer-denied", customer + educationLost, nil, "Denied", false},
		{"customer-long-reason", customer + longReason, nil, "accredited", false},
		{"customer-many-changes", customer + manyChanges, nil, "InReview", false},
		{"customer-strange-word", customer + strangeWord, nil, "Suspended", false},
		{"customer-never-asked", customer + neverAsked, nil, neverAsked, false},
		{"customer-not-served", customer + notOurs, nil, notOurs, false},
		{"customer-of-other-partner", customer + inBoth + "?partner=" + devSecondPartner, nil, devSecondPartner, false},
		{"customer-earlier", customer + workedBefore + "?at=2026-01-01T00:00:00Z", nil, "2026-01-01", false},
		{"customer-asked-now", customer + mayBuy, ask, "May buy", false},
		{"customer-cannot-ask", customer + cannotAsk, ask, cannotAsk, false},
		{"customer-no-such-partner", customer + mayBuy + "?partner=nobody", nil, "There is no such partner", false},
		{"who-asked", customer + askedFor + "/asked", nil, "ACCOUNT_UNKNOWN", false},
		{"who-asked-nobody", customer + neverAsked + "/asked", nil, neverAsked, false},
		{"reviews", "/console/reviews", nil, workedBefore, false},
		{"reviews-of-nobody", "/console/reviews?partner=" + devSecondPartner, nil, devSecondPartner, false},
		{"fleet", "/console/fleet", nil, "Redis", false},
		{"not-found", "/console/nothing", nil, "There is no such page", false},
	}
	for i := range hostile {
		pages = append(pages, consolePage{fmt.Sprintf("hostile-%02d", i), customer + hostileID(i), nil, hostileID(i), true})
	}
	return pages
}

var (
	consoleWidths  = []int{320, 1280}
	consoleColours = []string{"light", "dark"}
)

// violation is a rule of axe-core that a page breaks.
type violation struct {
	ID, Impact, Help string
	Nodes            []struct {
		HTML           string
		Target         []any
		FailureSummary string
	}
}

// axe returns what axe-core finds wrong with the page.
func (v *browserVisitor) axe(t *testing.T) (found []violation) {
	t.Helper()
	const file = "testdata/console/node_modules/axe-core/axe.min.js"
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; make acceptance-console installs it", err)
	}
	var loaded bool
	v.script("return !!window.axe", &loaded)
	if !loaded {
		v.script(string(source), nil)
	}
	v.promise("return (await axe.run(document, {resultTypes: ['violations'], preload: false})).violations", &found)
	return found
}

// overflow lists the elements that make a page wider than the window.
const overflow = `
	const wide = document.documentElement.scrollWidth - window.innerWidth;
	if (wide <= 0) return [];
	return ["" + wide + " px too wide"].concat([...document.body.querySelectorAll("*")]
		.filter(e => e.getBoundingClientRect().right > window.innerWidth + 0.5).slice(0, 8)
		.map(e => e.outerHTML.slice(0, 120)));
`

// check reports what is wrong with the page as it is shown.
func (v *browserVisitor) check(t *testing.T, name string) {
	t.Helper()
	var wide []string
	v.script(overflow, &wide)
	if len(wide) > 0 {
		t.Errorf("%s: %s", name, strings.Join(wide, "\n"))
	}
	for _, found := range v.axe(t) {
		t.Errorf("%s: %s (%s): %s", name, found.ID, found.Impact, found.Help)
		for _, node := range found.Nodes[:min(3, len(found.Nodes))] {
			t.Errorf("  %v %.200s: %s", node.Target, node.HTML, node.FailureSummary)
		}
	}
	var pwned any
	v.script("return window.pwned", &pwned)
	if pwned != nil {
		t.Errorf("%s: the script %v ran", name, pwned)
	}
	for _, message := range v.logged("browser") {
		if !expectedMessage(message) {
			t.Errorf("%s: the browser logged %s", name, message)
		}
	}
}

// expectedMessage reports whether the browser logs a message about a page that is as it
// should be: the status of an error page.
func expectedMessage(message string) bool {
	return strings.Contains(message, "Failed to load resource: the server responded with a status of ")
}

// visit shows a page in its state.
func (v *browserVisitor) visit(t *testing.T, page consolePage) {
	t.Helper()
	v.open(v.base + page.path)
	if page.do != nil {
		page.do(v)
	}
	if text := v.reads(t); !strings.Contains(strings.ToLower(text), strings.ToLower(page.want)) {
		t.Errorf("%s: %q is not in %s", page.name, page.want, text)
	}
}

// keep stores a screenshot of the whole page among the artifacts.
func (v *browserVisitor) keep(t *testing.T, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(t.ArtifactDir(), name), v.wholePage(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Each page and state, in both themes, at 320 and 1280 px: axe-core finds nothing, nothing
// is wider than the window, no text of Partner Center ran, and the browser had nothing to
// report, such as a violation of the policy. The screenshots are among the artifacts.
func TestAcceptanceConsolePages(t *testing.T) {
	d := startConsoleDev(t)
	v := startVisitor(t, d.base)
	for _, page := range consolePages(t, d) {
		v.show(consoleWidths[0], consoleColours[0])
		v.visit(t, page)
		for _, width := range consoleWidths {
			for _, colours := range consoleColours {
				if page.hostile && (width == consoleWidths[0]) != (colours == consoleColours[0]) {
					continue // it takes long
				}
				name := fmt.Sprintf("%s-%s-%d", page.name, colours, width)
				v.show(width, colours)
				v.check(t, name)
				v.keep(t, name+".png")
			}
		}
	}
	v.onlyAsked(t, d.HTTP)
}

// onlyAsked fails if the browser has sent a request for a page to another host.
func (v *browserVisitor) onlyAsked(t *testing.T, hosts ...string) {
	t.Helper()
	asked := v.askedHosts(t)
	t.Logf("requests: %v", asked)
	if len(asked) == 0 {
		t.Error("no request was observed")
	}
	for host := range asked {
		if !slices.Contains(hosts, host) {
			t.Errorf("%d requests to %q", asked[host], host)
		}
	}
}

// The picture in the README is of a customer's page. With UPDATE_REFERENCE=1, it is taken
// anew.
func TestAcceptanceConsoleReadmePicture(t *testing.T) {
	const file, width, height, most = "../../docs/images/console-customer.png", 1280, 1130, 200 << 10
	if os.Getenv("UPDATE_REFERENCE") != "" {
		d := startConsoleDev(t)
		v := startVisitor(t, d.base)
		const underReview = "a0000000-0000-4000-8000-000000000002" // a seed
		d.fetch(t, underReview, "order", "")
		d.stored(t, underReview, 2, true, "order")
		v.show(width, "light")
		v.devTools("Emulation.setScrollbarsHidden", map[string]any{"hidden": true}, nil)
		v.visit(t, consolePage{path: "/console/customers/" + underReview, want: "May not buy"})
		whole, err := png.Decode(bytes.NewReader(v.wholePage()))
		if err != nil {
			t.Fatal(err)
		}
		top := stdimage.NewRGBA(stdimage.Rect(0, 0, width, min(height, whole.Bounds().Dy())))
		draw.Draw(top, top.Bounds(), whole, stdimage.Point{}, draw.Src)
		writePicture(t, file, []stdimage.Image{top})
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatalf("%v; make acceptance-console with UPDATE_REFERENCE=1 takes it", err)
	}
	if info.Size() > most {
		t.Errorf("%s has %d bytes", file, info.Size())
	}
}
