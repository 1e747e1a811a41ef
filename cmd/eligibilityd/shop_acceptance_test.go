//go:build acceptance

package main

import (
	"bytes"
	"cmp"
	"encoding/base64"
	stdimage "image"
	"image/color"
	"image/draw"
	"image/png"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// shopPage is a page of the shop: who is shown what.
type shopPage struct {
	name            string // of the screenshot
	policy          bool   // of the second service
	customer, offer string
	reason          eligibility.Reason
}

func shopPages() []shopPage {
	const account, education = "a0000000-0000-4000-8000-00000000000", "e0000000-0000-4000-8000-00000000000"
	blocked := func(customer, offer string, code eligibility.ReasonCode) shopPage {
		return shopPage{strings.ToLower(code.String()), false, customer, offer, eligibility.Reason{Code: code, Blocks: true}}
	}
	allowed := func(customer, offer string, code eligibility.ReasonCode) shopPage {
		return shopPage{strings.ToLower(code.String()), false, customer, offer, eligibility.Reason{Code: code}}
	}
	pages := []shopPage{
		allowed(account+"1", "commercial", eligibility.ReasonAccountAllowed),
		allowed(account+"6", "commercial", eligibility.ReasonAccountHasNoStatus),
		blocked(account+"2", "commercial", eligibility.ReasonAccountUnderReview),
		blocked(account+"3", "commercial", eligibility.ReasonAccountNotAllowed),
		blocked(account+"4", "commercial", eligibility.ReasonAccountUnknown),
		blocked(account+"5", "commercial", eligibility.ReasonAccountNotReady),
		blocked(account+"8", "commercial", eligibility.ReasonAccountStatusUnrecognized),
		allowed(education+"1", "education", eligibility.ReasonQualificationApproved),
		blocked(education+"2", "education", eligibility.ReasonQualificationInReview),
		blocked(education+"3", "education", eligibility.ReasonQualificationDenied),
		blocked(education+"4", "education", eligibility.ReasonQualificationMissing),
		blocked(education+"8", "education", eligibility.ReasonQualificationUnrecognized),
	}
	for _, page := range []shopPage{
		{"account_not_ready_allowed", true, account + "5", "commercial", eligibility.Reason{Code: eligibility.ReasonAccountNotReady}},
		allowed(account+"2", "renewal", eligibility.ReasonAccountReviewExempt),
		blocked("f0000000-0000-4000-8000-0000000000aa", "commercial", eligibility.ReasonUndecidable), // last: Partner Center fails
	} {
		page.policy = true
		pages = append(pages, page)
	}
	return pages
}

// shopWords are what the headings of the shop's pages begin with.
var shopWords = map[string]map[bool]string{
	"en-customer": {true: "We cannot take this order", false: "You can place your order."},
	"en-staff":    {true: "This customer may not buy", false: "This customer may buy."},
	"de-customer": {true: "Wir können diese Bestellung derzeit nicht", false: "Sie können Ihre Bestellung aufgeben."},
	"de-staff":    {true: "Dieser Kunde darf derzeit nicht", false: "Dieser Kunde darf kaufen."},
}

// notForCustomers is what only the partner's staff can do, or use.
var notForCustomers = regexp.MustCompile(`(?i)Partner Center|eligibilityd|ticket|Microsoft.support|contact Microsoft|an Microsoft|correlation|korrelation`)

// The shop in a real browser shows each reason in two languages, to its customer and to
// its staff. With UPDATE_REFERENCE=1, the screenshots in examples/shop-node are replaced.
func TestAcceptanceDeployShop(t *testing.T) {
	usual, policy := startShopDevs(t)
	dir := shopInNode(t)
	bases := map[bool]string{false: startNodeShop(t, dir, "ELIGIBILITY_TARGET=dns:///"+usual.GRPC), true: startNodeShop(t, dir, "ELIGIBILITY_TARGET=dns:///"+policy.GRPC)}
	shots := t.ArtifactDir()
	if os.Getenv("UPDATE_REFERENCE") != "" {
		shots = "../../examples/shop-node/screenshots"
	}
	codes := make(map[eligibility.ReasonCode]bool)
	for language, in := range map[string]eligibility.Language{"en": eligibility.English, "de": eligibility.German} {
		window := startBrowser(t, language+"-CH", language)
		window.call(http.MethodPost, "/window/rect", map[string]int{"width": 720, "height": 640}, nil)
		for _, page := range shopPages() {
			codes[page.reason.Code] = true
			var pictures []stdimage.Image
			for _, audience := range []string{"customer", "staff"} {
				query := url.Values{"customer": {page.customer}, "offer": {page.offer}, "audience": {audience}}
				window.call(http.MethodPost, "/url", map[string]string{"url": bases[page.policy] + "/checkout?" + query.Encode()}, nil)
				text := window.text()
				heading := shopWords[language+"-"+audience][page.reason.Blocks]
				if page.reason.Code == eligibility.ReasonUndecidable && audience == "staff" {
					heading = map[string]string{"en": "It is not known whether", "de": "Es ist nicht bekannt, ob"}[language]
				}
				for _, want := range []string{heading, page.reason.Message(in)} {
					if !strings.Contains(text, want) {
						t.Errorf("%s in %s for %s: %q is not in %q", page.name, language, audience, want, text)
					}
				}
				if found := notForCustomers.FindString(text); audience == "customer" && found != "" {
					t.Errorf("%s in %s: a customer is shown %q in %q", page.name, language, found, text)
				}
				pictures = append(pictures, window.picture())
			}
			writePicture(t, filepath.Join(shots, page.name+"."+language+".png"), pictures)
		}
	}
	if len(codes) != int(eligibility.ReasonUndecidable) {
		t.Errorf("%d reasons of %d were shown", len(codes), eligibility.ReasonUndecidable)
	}
}

// picture returns a screenshot.
func (b *browser) picture() stdimage.Image {
	b.t.Helper()
	var encoded string
	b.call(http.MethodGet, "/screenshot", nil, &encoded)
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		b.t.Fatal(err)
	}
	picture, err := png.Decode(bytes.NewReader(raw))
	if err != nil {
		b.t.Fatal(err)
	}
	return picture
}

// writePicture writes pictures side by side, in the colours that they use most, so that
// the file is small.
func writePicture(t *testing.T, file string, pictures []stdimage.Image) {
	t.Helper()
	whole, at := stdimage.NewRGBA(stdimage.Rectangle{}), 0
	for _, picture := range pictures {
		size := picture.Bounds()
		grown := stdimage.NewRGBA(stdimage.Rect(0, 0, at+size.Dx(), max(whole.Bounds().Dy(), size.Dy())))
		draw.Draw(grown, grown.Bounds(), whole, stdimage.Point{}, draw.Src)
		draw.Draw(grown, stdimage.Rect(at, 0, at+size.Dx(), size.Dy()), picture, size.Min, draw.Src)
		whole, at = grown, at+size.Dx()
	}
	counts := make(map[color.RGBA]int)
	for y := range whole.Bounds().Dy() {
		for x := range whole.Bounds().Dx() {
			counts[whole.RGBAAt(x, y)]++
		}
	}
	var colours color.Palette
	most := make([]color.RGBA, 0, len(counts))
	for colour := range counts {
		most = append(most, colour)
	}
	slices.SortFunc(most, func(a, b color.RGBA) int { return cmp.Compare(counts[b], counts[a]) })
	for _, colour := range most[:min(len(most), 64)] {
		colours = append(colours, colour)
	}
	small := stdimage.NewPaletted(whole.Bounds(), colours)
	draw.Draw(small, small.Bounds(), whole, stdimage.Point{}, draw.Src)
	var encoded bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&encoded, small); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, encoded.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}
