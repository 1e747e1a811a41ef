package rest

import (
	"fmt"
	"strings"
)

// costly are bodies of a batch of about size bytes, each of a shape that makes
// a careless reader repeat work.
func costly(size int) map[string]string {
	item := func(members string) string { return `{"requests":[{` + members + `}]}` }
	fill := func(part string) string { return strings.Repeat(part, size/len(part)) }
	numbered := func(format string) string {
		var b strings.Builder
		for i := 0; b.Len() < size; i++ {
			fmt.Fprintf(&b, format, i)
		}
		return strings.TrimSuffix(b.String(), ",")
	}
	const deep = 4000 // json.Valid accepts 10,000
	return map[string]string{
		"unknown members of an item":       item(numbered(`"x%d":0,`)),
		"one unknown member, repeated":     item(strings.TrimSuffix(fill(`"x":0,`), ",")),
		"one known member, repeated":       item(strings.TrimSuffix(fill(`"segment":"EDU",`), ",")),
		"members without a name":           item(strings.TrimSuffix(fill(`"":0,`), ",")),
		"unknown members of the body":      `{` + numbered(`"x%d":0,`) + `}`,
		"requests, repeated":               `{` + strings.TrimSuffix(fill(`"requests":[],`), ",") + `}`,
		"items that are no objects":        `{"requests":[` + strings.TrimSuffix(fill(`0,`), ",") + `]}`,
		"items that are empty":             `{"requests":[` + strings.TrimSuffix(fill(`{},`), ",") + `]}`,
		"unknown members of every item":    `{"requests":[` + strings.TrimSuffix(fill(`{"a":0,"b":0,"c":0,"d":0,"e":0,"f":0},`), ",") + `]}`,
		"lists within lists":               item(`"x":` + strings.Repeat("[", size/2) + strings.Repeat("]", size/2)),
		"lists within lists, to the limit": item(strings.TrimSuffix(fill(`"customerId":`+strings.Repeat("[", deep)+strings.Repeat("]", deep)+`,`), ",")),
		"a long name":                      item(`"` + fill("x") + `":0`),
		"a long name of escapes":           item(`"` + fill(`\u0000`) + `":0`),
		"a long id":                        item(`"customerId":"` + fill("x") + `"`),
		"an id of blanks":                  item(`"customerId":"` + fill(" ") + `"`),
		"a long segment":                   item(`"segment":"` + fill("_") + `"`),
		"a long number as segment":         item(`"segment":` + fill("9")),
		"a long exponent as segment":       item(`"segment":1e` + fill("9")),
		"a long duration":                  item(`"maxAge":"` + fill("0") + `s"`),
		"a long fraction of a duration":    item(`"maxAge":"0.` + fill("0") + `s"`),
		"a long timestamp":                 item(`"minEvidenceTime":"2026-01-01T00:00:00.` + fill("0") + `Z"`),
		"blanks":                           `{"requests":[` + fill(" ") + `{}]}`,
		"no end":                           `{"requests":[{"x":[` + fill("0,"),
	}
}
