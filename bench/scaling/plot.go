package main

import (
	"bytes"
	"fmt"
	"strings"
)

// The plot's frame, in its own units.
const (
	plotWidth, plotHeight                  = 860.0, 430.0
	plotLeft, plotRight, plotTop, plotFoot = 60.0, 190.0, 46.0, 48.0
	plotMost                               = 1000.0 // calls a minute
	plotEvery                              = 100.0
)

// colors by exponent: apart for the colour-blind as well.
func colorOf(name string) string {
	switch name[strings.LastIndexByte(name, '-')+1:] {
	case "0.8":
		return "#0072b2"
	case "1.0":
		return "#009e73"
	default:
		return "#cc79a7"
	}
}

func plotX(minute float64) float64 {
	return plotLeft + minute/(24*60)*(plotWidth-plotLeft-plotRight)
}

func plotY(calls float64) float64 {
	return plotHeight - plotFoot - calls/plotMost*(plotHeight-plotTop-plotFoot)
}

// plotCalls draws the days without a budget against the published limit.
func plotCalls(results []result) []byte {
	var svg bytes.Buffer
	draw := func(format string, args ...any) { fmt.Fprintf(&svg, format+"\n", args...) }
	draw(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" font-family="sans-serif" font-size="12">`, plotWidth, plotHeight)
	draw(`<rect width="%g" height="%g" fill="white"/>`, plotWidth, plotHeight)
	draw(`<text x="%g" y="20" font-size="14">Calls to Partner Center a minute, over a day</text>`, plotLeft)
	draw(`<text x="%g" y="36" fill="#555">5 checks a second about 100,000 customers, four replicas</text>`, plotLeft)
	for calls := 0.0; calls <= plotMost; calls += plotEvery {
		draw(`<path d="M%g %.1fH%g" stroke="#ddd"/>`, plotLeft, plotY(calls), plotWidth-plotRight)
		draw(`<text x="%g" y="%.1f" text-anchor="end">%g</text>`, plotLeft-6, plotY(calls)+4, calls)
	}
	for hour := 0; hour <= 24; hour += 3 {
		draw(`<text x="%.1f" y="%g" text-anchor="middle">%02d:00</text>`, plotX(float64(hour)*60), plotHeight-plotFoot+18, hour)
	}
	row := plotTop + 8
	legend := func(color, dashes, text string) {
		from := plotWidth - plotRight + 14
		draw(`<path d="M%g %gh26" stroke="%s" stroke-width="2"%s/>`, from, row, color, dashes)
		draw(`<text x="%g" y="%g">%s</text>`, from+32, row+4, text)
		row += 20
	}
	draw(`<path d="M%g %.1fH%g" stroke="#d55e00" stroke-width="2"/>`, plotLeft, plotY(publishedLimit), plotWidth-plotRight)
	legend("#d55e00", "", fmt.Sprintf("%d, the limit", publishedLimit))
	for i := range results {
		kind, exponent, _ := strings.Cut(results[i].name, "-")
		dashes, of := "", "one Redis"
		switch kind {
		case "shared":
		case "apart":
			dashes, of = ` stroke-dasharray="5 4"`, "none"
		default:
			continue
		}
		color := colorOf(results[i].name)
		var line strings.Builder
		for at, calls := range results[i].tens {
			fmt.Fprintf(&line, " %.1f,%.1f", plotX((float64(at)+0.5)*tenMinutes), plotY(calls))
		}
		draw(`<polyline fill="none" stroke="%s" stroke-width="1.5"%s points="%s"/>`, color, dashes, line.String()[1:])
		legend(color, dashes, fmt.Sprintf("Zipf %s, %s", exponent, of))
	}
	draw(`</svg>`)
	return svg.Bytes()
}
