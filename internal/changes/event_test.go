package changes_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const source = "/eligibilityd/contoso"

var (
	customer = eligibility.CustomerID{0xc0, 0xff, 0xee, 15: 1}
	fetched  = time.Date(2026, 3, 1, 12, 0, 0, 123_000_000, time.UTC)
	later    = fetched.Add(90 * time.Second)
)

func status(word string, at time.Time) *eligibility.Evidence {
	return &eligibility.Evidence{Status: eligibility.ParseAccountStatus(word), StatusText: word, FetchTime: at, CorrelationID: "corr"}
}

func TestTheFormOfAnEvent(t *testing.T) {
	t.Parallel()
	qualifications := eligibility.Key{CustomerID: customer, Facet: eligibility.FacetQualifications}
	education, _ := eligibility.ParseQualification("Education", "InReview", "", fetched)
	entity, _ := eligibility.ParseQualification("StateOwnedEntity", "", "", time.Time{})
	const head = `{"specversion":"1.0","id":"c0ffee00-0000-0000-0000-000000000001:`
	const common = `"source":"/eligibilityd/contoso","type":"eligibility.evidence.changed.v1","subject":"c0ffee00-0000-0000-0000-000000000001","time":"2026-03-01T12:01:30.123Z","datacontenttype":"application/json","data":{"customerId":"c0ffee00-0000-0000-0000-000000000001",`
	for name, row := range map[string]struct {
		change changes.Change
		want   string
	}{
		"a status": {
			changes.Change{Key: eligibility.Key{CustomerID: customer}, Before: status("UnderReview", fetched), After: status("Allowed", later)},
			head + `account:1772366490123000000",` + common + `"facet":"account","before":{"accountStatus":"UnderReview"},"after":{"accountStatus":"Allowed"},"evidenceTime":"2026-03-01T12:01:30.123Z","previousEvidenceTime":"2026-03-01T12:00:00.123Z","correlationId":"corr","firstSeen":false}}`,
		},
		"no status after an absence": {
			changes.Change{
				Key:    eligibility.Key{CustomerID: customer},
				Before: &eligibility.Evidence{Absence: eligibility.AbsenceNotFound, FetchTime: fetched},
				After:  &eligibility.Evidence{Status: eligibility.AccountStatusNone, FetchTime: later},
			},
			head + `account:1772366490123000000",` + common + `"facet":"account","before":{"absence":"NOT_FOUND"},"after":{"accountStatus":null},"evidenceTime":"2026-03-01T12:01:30.123Z","previousEvidenceTime":"2026-03-01T12:00:00.123Z","correlationId":"","firstSeen":false}}`,
		},
		"qualifications seen first": {
			changes.Change{Key: qualifications, After: &eligibility.Evidence{
				Facet: eligibility.FacetQualifications, FetchTime: later,
				Qualifications: []eligibility.Qualification{education, entity},
			}},
			head + `qualifications:1772366490123000000",` + common + `"facet":"qualifications","before":null,"after":{"qualifications":[{"type":"Education","vettingStatus":"InReview","vettingReason":null,"vettingCreatedTime":"2026-03-01T12:00:00.123Z"},{"type":"StateOwnedEntity","vettingStatus":null,"vettingReason":null,"vettingCreatedTime":null}]},"evidenceTime":"2026-03-01T12:01:30.123Z","previousEvidenceTime":null,"correlationId":"","firstSeen":true}}`,
		},
		"no qualification": {
			changes.Change{
				Key:    qualifications,
				Before: &eligibility.Evidence{Facet: eligibility.FacetQualifications, Absence: eligibility.AbsenceNotServed, FetchTime: fetched},
				After:  &eligibility.Evidence{Facet: eligibility.FacetQualifications, FetchTime: later},
			},
			head + `qualifications:1772366490123000000",` + common + `"facet":"qualifications","before":{"absence":"NOT_SERVED"},"after":{"qualifications":[]},"evidenceTime":"2026-03-01T12:01:30.123Z","previousEvidenceTime":"2026-03-01T12:00:00.123Z","correlationId":"","firstSeen":false}}`,
		},
		"an abandoned review": {
			changes.Change{Type: changes.TypeAbandoned, Key: eligibility.Key{CustomerID: customer}, After: status("UnderReview", later), PendingSince: fetched},
			head + `account:1772366490123000000:abandoned",` + strings.Replace(common, "evidence.changed", "review.abandoned", 1) + `"facet":"account","before":null,"after":{"accountStatus":"UnderReview"},"evidenceTime":"2026-03-01T12:01:30.123Z","previousEvidenceTime":null,"correlationId":"corr","firstSeen":false,"pendingSince":"2026-03-01T12:00:00.123Z"}}`,
		},
	} {
		if diff := cmp.Diff(row.want, string(row.change.AppendJSON([]byte("x"), source)[1:])); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// sameChange compares changes as Parse rebuilds them.
func sameChange() cmp.Options {
	return cmp.Options{
		cmpopts.IgnoreUnexported(eligibility.Evidence{}), cmpopts.EquateEmpty(),
		cmp.FilterPath(func(p cmp.Path) bool {
			return p.Last().String() == ".CorrelationID" && strings.Contains(p.GoString(), ".Before")
		}, cmp.Ignore()),
	}
}

func TestParseReadsWhatAppendJSONWrote(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := drawChange(t)
		text := want.AppendJSON(nil, source)
		if !json.Valid(text) {
			t.Fatalf("not JSON: %s", text)
		}
		got, err := changes.Parse(text)
		if diff := cmp.Diff(want, got, sameChange()); diff != "" || err != nil {
			t.Fatalf("%v (-want +got):\n%s", err, diff)
		}
		if got.ID() != want.ID() || got.FirstSeen() != want.FirstSeen() {
			t.Fatalf("id %s, first seen %t of %s", got.ID(), got.FirstSeen(), text)
		}
	})
}

// drawChange draws any change that package cache can store.
func drawChange(t *rapid.T) *changes.Change {
	c := &changes.Change{Key: eligibility.Key{
		CustomerID: eligibility.CustomerID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "customer")),
		Facet:      rapid.SampledFrom([]eligibility.Facet{eligibility.FacetAccount, eligibility.FacetQualifications}).Draw(t, "facet"),
	}}
	c.After = drawEvidence(t, c.Key.Facet)
	switch rapid.IntRange(0, 2).Draw(t, "kind") {
	case 0:
		c.Before = drawEvidence(t, c.Key.Facet)
	case 1:
		c.Type, c.PendingSince = changes.TypeAbandoned, drawTime(t)
	}
	return c
}

func drawTime(t *rapid.T) time.Time {
	return time.Unix(0, rapid.Int64().Draw(t, "ns")).UTC()
}

func drawEvidence(t *rapid.T, facet eligibility.Facet) *eligibility.Evidence {
	e := &eligibility.Evidence{Facet: facet, FetchTime: drawTime(t), CorrelationID: rapid.String().Draw(t, "correlation")}
	switch kind := rapid.IntRange(0, 4).Draw(t, "evidence"); {
	case kind < 2:
		e.Absence = []eligibility.Absence{eligibility.AbsenceNotFound, eligibility.AbsenceNotServed}[kind]
	case facet == eligibility.FacetQualifications:
		e.Qualifications = rapid.SliceOfN(rapid.Custom(drawQualification), 0, 4).Draw(t, "qualifications")
	case kind == 2:
		e.Status = eligibility.AccountStatusNone
	default:
		e.StatusText = drawWord(t, "Allowed", "UnderReview", "under_review", "NotReady")
		e.Status = eligibility.ParseAccountStatus(e.StatusText)
	}
	return e
}

func drawQualification(t *rapid.T) eligibility.Qualification {
	var created time.Time
	if rapid.Bool().Draw(t, "dated") {
		created = drawTime(t)
	}
	q, isHeld := eligibility.ParseQualification(
		drawWord(t, "Education", "Nonprofit", "StateOwnedEntity"), rapid.SampledFrom([]string{"", "Approved", "In Review"}).Draw(t, "vetting"),
		rapid.String().Draw(t, "reason"), created)
	if !isHeld {
		t.Skip("no qualification")
	}
	return q
}

func drawWord(t *rapid.T, known ...string) string {
	return rapid.OneOf(rapid.SampledFrom(known), rapid.StringN(1, -1, -1)).Draw(t, "word")
}

func TestBytesThatAreNotUTF8AreReplaced(t *testing.T) {
	t.Parallel()
	change := changes.Change{Key: eligibility.Key{CustomerID: customer}, After: status("Under\xffReview", later)}
	got, err := changes.Parse(change.AppendJSON(nil, source))
	if err != nil || got.After.StatusText != "Under�Review" {
		t.Errorf("read as %+v, error %v", got, err)
	}
}

func TestParseRefusesWhatAppendJSONWouldNotWrite(t *testing.T) {
	t.Parallel()
	change := changes.Change{Key: eligibility.Key{CustomerID: customer}, Before: status("UnderReview", fetched), After: status("Allowed", later)}
	good := string(change.AppendJSON(nil, source))
	abandoned := changes.Change{Type: changes.TypeAbandoned, Key: change.Key, After: change.Before, PendingSince: fetched}
	held := changes.Change{
		Key:   eligibility.Key{CustomerID: customer, Facet: eligibility.FacetQualifications},
		After: &eligibility.Evidence{Facet: eligibility.FacetQualifications, FetchTime: later, Qualifications: []eligibility.Qualification{{TypeText: "Education"}}},
	}
	replace := func(text, old, replacement string) string {
		if !strings.Contains(text, old) {
			t.Errorf("%s is not in %s", old, text)
		}
		return strings.Replace(text, old, replacement, 1)
	}
	for name, text := range map[string]string{
		"nothing":                          "",
		"another document":                 `[]`,
		"null":                             `null`,
		"half an event":                    good[:len(good)/2],
		"two events":                       good + good,
		"white space":                      good + "\n",
		"an unknown attribute":             replace(good, `{"specversion"`, `{"integrity":"00","specversion"`),
		"an attribute twice":               replace(good, `"source"`, `"source":"/x","source"`),
		"an attribute in another case":     replace(good, `"subject"`, `"Subject"`),
		"another version of CloudEvents":   replace(good, `"1.0"`, `"0.3"`),
		"another id":                       replace(good, `account:`, `account:1`),
		"no source":                        replace(good, source, ""),
		"another type":                     replace(good, "changed.v1", "changed.v2"),
		"another subject":                  replace(good, `"subject":"c0`, `"subject":"c1`),
		"another customer":                 replace(good, `"customerId":"c0`, `"customerId":"c1`),
		"a customer in capitals":           strings.ReplaceAll(good, "c0ffee", "C0FFEE"),
		"no customer":                      replace(good, `"customerId":"c0ffee00-0000-0000-0000-000000000001",`, ""),
		"another time":                     replace(good, `"time":"2026`, `"time":"2025`),
		"another content type":             replace(good, "application/json", "text/json"),
		"an unknown facet":                 strings.ReplaceAll(good, "account", "agreement"),
		"no facts after":                   replace(good, `{"accountStatus":"Allowed"}`, `null`),
		"empty facts":                      replace(good, `{"accountStatus":"Allowed"}`, `{}`),
		"an empty word":                    replace(good, `"Allowed"`, `""`),
		"a number as a word":               replace(good, `"Allowed"`, `1`),
		"an unknown absence":               replace(good, `{"accountStatus":"Allowed"}`, `{"absence":"GONE"}`),
		"an absence with a status":         replace(good, `{"accountStatus":"Allowed"}`, `{"absence":"NOT_FOUND","accountStatus":"Allowed"}`),
		"a status and qualifications":      replace(good, `{"accountStatus":"Allowed"}`, `{"accountStatus":"Allowed","qualifications":[]}`),
		"qualifications of an account":     replace(good, `{"accountStatus":"Allowed"}`, `{"qualifications":[]}`),
		"a time before without facts":      replace(good, `{"accountStatus":"UnderReview"}`, `null`),
		"facts before without a time":      replace(good, `"previousEvidenceTime":"2026-03-01T12:00:00.123Z"`, `"previousEvidenceTime":null`),
		"a time of another form":           replace(good, `"previousEvidenceTime":"2026-03-01T12:00:00.123Z"`, `"previousEvidenceTime":"2026-03-01T12:00:00.1230Z"`),
		"a time in another zone":           replace(good, `"previousEvidenceTime":"2026-03-01T12:00:00.123Z"`, `"previousEvidenceTime":"2026-03-01T13:00:00.123+01:00"`),
		"a time that no fetch has":         replace(good, `"previousEvidenceTime":"2026`, `"previousEvidenceTime":"2926`),
		"an unreadable time":               replace(good, `"previousEvidenceTime":"2026`, `"previousEvidenceTime":"soon`),
		"first seen with facts before":     replace(good, `"firstSeen":false`, `"firstSeen":true`),
		"pending though changed":           replace(good, `"firstSeen":false`, `"firstSeen":false,"pendingSince":"2026-03-01T12:00:00.123Z"`),
		"escapes that nobody needs":        replace(good, "Allowed", `\u0041llowed`),
		"bytes that are not UTF-8":         replace(good, "Allowed", "\xff"),
		"abandoned, pending since nothing": replace(string(abandoned.AppendJSON(nil, source)), `,"pendingSince":"2026-03-01T12:00:00.123Z"`, ""),
		"abandoned, pending since never":   replace(string(abandoned.AppendJSON(nil, source)), `"pendingSince":"2026`, `"pendingSince":"x`),
		"qualifications of no kind":        replace(string(held.AppendJSON(nil, source)), `"type":"Education",`, ``),
		"qualifications with a status":     replace(string(held.AppendJSON(nil, source)), `{"qualifications":[`, `{"accountStatus":"Allowed","qualifications":[`),
		"no qualifications, not even none": replace(string(held.AppendJSON(nil, source)), `{"qualifications":[{"type":"Education","vettingStatus":null,"vettingReason":null,"vettingCreatedTime":null}]}`, `{}`),
		"a vetting time that is none":      replace(string(held.AppendJSON(nil, source)), `"vettingCreatedTime":null`, `"vettingCreatedTime":"never"`),
		"an event beyond all bounds":       replace(good, "Allowed", strings.Repeat("A", 16<<20)),
	} {
		if got, err := changes.Parse([]byte(text)); err == nil || got != nil {
			t.Errorf("%s: read as %+v, error %v", name, got, err)
		} else if strings.Contains(err.Error(), "never") || strings.Contains(err.Error(), "soon") {
			t.Errorf("%s: the error repeats the event: %v", name, err)
		}
	}
}

// FuzzEvent reads events of any bytes: one that is read is written again as it was.
func FuzzEvent(f *testing.F) {
	for _, change := range []changes.Change{
		{Key: eligibility.Key{CustomerID: customer}, Before: status("UnderReview", fetched), After: status("Allowed", later)},
		{Type: changes.TypeAbandoned, Key: eligibility.Key{CustomerID: customer}, After: status("UnderReview", later), PendingSince: fetched},
		{Key: eligibility.Key{CustomerID: customer, Facet: eligibility.FacetQualifications}, After: &eligibility.Evidence{
			Facet: eligibility.FacetQualifications, FetchTime: later,
			Qualifications: []eligibility.Qualification{{TypeText: "Education", VettingReason: "r", VettingCreatedTime: fetched}},
		}},
	} {
		f.Add(change.AppendJSON(nil, source))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		change, err := changes.Parse(text)
		if err != nil {
			if change != nil {
				t.Errorf("%+v beside %v", change, err)
			}
			return
		}
		var e struct{ Source string }
		if err := json.Unmarshal(text, &e); err != nil {
			t.Fatal(err)
		}
		if again := change.AppendJSON(nil, e.Source); !bytes.Equal(again, text) {
			t.Errorf("written again as %s", again)
		}
	})
}
