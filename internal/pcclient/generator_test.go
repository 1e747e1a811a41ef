package pcclient_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/pcclient"
)

// scene is a far side that gives one answer to every question, and tokens to
// everybody.
type scene struct {
	status int
	header http.Header
	body   []byte
}

func (s *scene) RoundTrip(req *http.Request) (*http.Response, error) {
	resp := &http.Response{
		StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req,
		Header: http.Header{"Content-Type": {"application/json"}},
	}
	body := []byte(`{"access_token":"t","token_type":"Bearer","expires_in":3600}`)
	if req.Method == http.MethodGet {
		resp.StatusCode, resp.Header, body = s.status, s.header, s.body
	}
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return resp, nil
}

// The client and the oracle agree on every answer of Partner Center that the
// generator makes.
//
// Run for longer with -rapid.checks=1000000.
func TestTheClientAgreesWithTheOracle(t *testing.T) {
	t.Parallel()
	refresh := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(refresh, []byte("r"), 0o600); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		facet := rapid.SampledFrom([]eligibility.Facet{eligibility.FacetAccount, eligibility.FacetQualifications}).Draw(rt, "facet")
		far := &scene{status: drawStatus(rt), header: drawHeader(rt), body: drawBody(rt)}
		want := oracle(facet, far.status, far.body)
		var evidence eligibility.Evidence
		var err error
		// In a bubble, where the pauses between attempts cost no time.
		synctest.Test(t, func(*testing.T) { evidence, err = fetchFrom(far, facet, refresh) })
		got := verdict{
			absence: evidence.Absence, status: evidence.Status, statusText: evidence.StatusText, qualifications: evidence.Qualifications,
			failure: kindOf(rt, err),
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(verdict{}), cmpopts.EquateEmpty()); diff != "" {
			rt.Fatalf("facet %s, status %d, body %.300q (-oracle +client):\n%s", facet, far.status, far.body, diff)
		}
	})
}

func fetchFrom(far http.RoundTripper, facet eligibility.Facet, refresh string) (eligibility.Evidence, error) {
	client, err := pcclient.New(pcclient.Config{
		BaseURL: "http://127.0.0.1:1", Authority: "http://127.0.0.1:1", TenantID: "t", ClientID: "c", ClientSecret: "s",
		Audience: "https://api.partnercenter.microsoft.com", RefreshTokenFile: refresh,
		Transport: far,
	})
	if err != nil {
		return eligibility.Evidence{}, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	evidence, _, err := pcclient.NewSource(client).Fetch(ctx, evidence.Query{Key: eligibility.Key{CustomerID: eligibility.CustomerID{1}, Facet: facet}, Priority: evidence.NewPriority(evidence.LaneCheckout)})
	return evidence, err
}

func kindOf(rt *rapid.T, err error) eligibility.Kind {
	if err == nil {
		return 0
	}
	known, ok := err.(*eligibility.Error) //nolint:errorlint // the port promises this very type
	if !ok || known.Kind == eligibility.KindInternal {
		rt.Fatalf("error %T %v", err, err)
	}
	return known.Kind
}

func drawStatus(rt *rapid.T) int {
	if rapid.IntRange(0, 9).Draw(rt, "any status") == 0 {
		return rapid.IntRange(200, 599).Draw(rt, "status")
	}
	return rapid.SampledFrom([]int{200, 200, 200, 200, 404, 404, 403, 401, 400, 429, 500, 501, 503, 302, 204, 206, 408}).Draw(rt, "status")
}

func drawHeader(rt *rapid.T) http.Header {
	header := http.Header{}
	header.Set("Content-Type", rapid.SampledFrom([]string{"application/json; charset=utf-8", "text/html", "application/xml", ""}).Draw(rt, "type"))
	for _, name := range []string{"Retry-After", "Location", "WWW-Authenticate"} {
		if rapid.IntRange(0, 3).Draw(rt, name+" sent") == 0 {
			header.Set(name, rapid.SampledFrom([]string{"1", "57", "-1", "soon", "999999999999999999999", "Fri, 01 Jan 2100 00:00:00 GMT", "https://elsewhere.example/"}).Draw(rt, name))
		}
	}
	return header
}

// drawBody makes a body of the kind that Partner Center sends, whole or damaged.
func drawBody(rt *rapid.T) []byte {
	var b strings.Builder
	switch rapid.IntRange(0, 9).Draw(rt, "body") {
	case 0, 1, 2:
		drawStatusBody(rt, &b)
	case 3, 4, 5:
		drawQualificationsBody(rt, &b)
	case 6, 7:
		drawErrorBody(rt, &b)
	case 8:
		drawValue(rt, &b, 4)
	default:
		return drawOdd(rt)
	}
	return damage(rt, []byte(b.String()))
}

func drawOdd(rt *rapid.T) []byte {
	deep := rapid.IntRange(1, 3000).Draw(rt, "deep")
	padding := rapid.SampledFrom([]int{1<<20 - 40, 1<<20 - 30, 1 << 20, 2 << 20}).Draw(rt, "padding")
	return []byte(rapid.SampledFrom([]string{
		"", " ", "null", "<html><body>Sign in</body></html>", "<?xml version=\"1.0\"?><status>Allowed</status>",
		"Allowed", `"Allowed"`, "[[[[", "\x00", "\xff\xfe{\x00}\x00",
		strings.Repeat("[", deep) + strings.Repeat("]", deep),
		strings.Repeat(`{"a":`, deep) + "1" + strings.Repeat("}", deep),
		`{"status":"Allowed"}` + strings.Repeat(" ", padding),
	}).Draw(rt, "odd"))
}

func drawStatusBody(rt *rapid.T, b *strings.Builder) {
	var members []string
	if rapid.IntRange(0, 3).Draw(rt, "typed") > 0 {
		members = append(members, drawName(rt, "type")+":"+rapid.SampledFrom([]string{`"account"`, `"Account"`, `"account"`, "null", `"other"`, `""`, "1", `" a-c_c\tount"`}).Draw(rt, "type"))
	}
	if rapid.IntRange(0, 9).Draw(rt, "with status") > 0 {
		members = append(members, drawName(rt, "status")+":"+drawWord(rt, "Allowed", "UnderReview", "NotAllowed", "Unknown", "Not Ready", "Approved", "None", "許可"))
	}
	writeObject(rt, b, members)
}

func drawQualificationsBody(rt *rapid.T, b *strings.Builder) {
	items := make([]string, rapid.IntRange(0, 3).Draw(rt, "items"))
	for i := range items {
		var item strings.Builder
		if rapid.IntRange(0, 14).Draw(rt, "no object") == 0 {
			drawValue(rt, &item, 1)
		} else {
			drawItem(rt, &item)
		}
		items[i] = item.String()
	}
	list := "[" + strings.Join(items, ",") + "]"
	switch rapid.IntRange(0, 4).Draw(rt, "shape") {
	case 0:
		writeObject(rt, b, []string{drawName(rt, "qualifications") + ":" + list})
	case 1:
		drawItem(rt, b)
	case 2:
		writeObject(rt, b, []string{drawName(rt, "qualifications") + ":" + rapid.SampledFrom([]string{"null", "{}", `""`, "1"}).Draw(rt, "wrapped")})
	default:
		b.WriteString(list)
	}
}

func drawItem(rt *rapid.T, b *strings.Builder) {
	var members []string
	if rapid.IntRange(0, 9).Draw(rt, "named") > 0 {
		members = append(members, drawName(rt, "qualification")+":"+drawWord(rt, "Education", "GovernmentCommunityCloud", "government_community_cloud", "Nonprofit", "StateOwnedEntity", "None", "GCC"))
	}
	if rapid.Bool().Draw(rt, "vetted") {
		members = append(members, drawName(rt, "vettingStatus")+":"+drawWord(rt, "Approved", "InReview", "Denied", "Expired"))
	}
	if rapid.Bool().Draw(rt, "with reason") {
		members = append(members, drawName(rt, "vettingReason")+":"+drawWord(rt, "Not an Education Customer"))
	}
	for _, name := range []string{"vettingCreatedDate", "vettingCreateDate"} {
		if rapid.IntRange(0, 2).Draw(rt, name) == 0 {
			members = append(members, drawName(rt, name)+":"+rapid.SampledFrom([]string{
				`"2020-12-03T10:37:38.885Z"`, `"2021-05-06T19:59:56.6832021+00:00"`, `"2021-07-14T18:02:00"`, `"07/09/2020: 00:00:00"`, `""`, "null", "1", `"9999-12-31T23:59:59-23:59"`,
			}).Draw(rt, "date"))
		}
	}
	writeObject(rt, b, members)
}

func drawErrorBody(rt *rapid.T, b *strings.Builder) {
	code := rapid.SampledFrom([]string{
		"600074", `"600074"`, "600074.0", "6.00074e5", "60007400e-2", "6000740E-1", "600074.00000000000000001", "0.0600074e7", `" 600074"`, `"600074.0"`, "-600074", "6e999999999", "600074e-0",
		"60003", `"60003"`, "20002", `"20002"`, "1000", "900308", `"2032"`, "null", "{}", "[]", "true", `""`, "6.00074e+5",
	}).Draw(rt, "code")
	members := []string{drawName(rt, rapid.SampledFrom([]string{"code", "code", "code", "statusCode"}).Draw(rt, "code name")) + ":" + code}
	for _, more := range []string{`"message":"m"`, `"description":"a &lt;b&gt;"`, `"errorName":"AccountStatusNotFound"`, `"isRetryable":false`, `"isRetryable2":true`, `"parameters":{}`, `"data":["x"]`, `"statusCode":429`} {
		if rapid.IntRange(0, 3).Draw(rt, more) == 0 {
			members = append(members, more)
		}
	}
	writeObject(rt, b, members)
}

// drawName writes a member name, mostly as it is, sometimes in another case,
// escaped, or with a letter that only Unicode folds to it.
func drawName(rt *rapid.T, name string) string {
	switch rapid.IntRange(0, 9).Draw(rt, "name") {
	case 0:
		name = strings.ToUpper(name)
	case 1:
		return fmt.Sprintf(`"\u%04x%s"`, name[0], name[1:])
	case 2:
		name = strings.NewReplacer("s", "ſ", "k", "K").Replace(name)
	}
	return `"` + name + `"`
}

// drawWord writes one of the words, mostly as it is, or something in its place.
func drawWord(rt *rapid.T, words ...string) string {
	word := rapid.SampledFrom(words).Draw(rt, "word")
	switch rapid.IntRange(0, 12).Draw(rt, "spelling") {
	case 0:
		word = strings.ToUpper(word)
	case 1:
		word = " " + word[:1] + `\t_-` + word[1:] + " "
	case 2:
		word += rapid.SampledFrom([]string{".", "\u00a0", `\u0000`, "ed", `\ud800`, `\ud83d\ude00`, `\ud800\u0041`}).Draw(rt, "suffix")
	case 3:
		return rapid.SampledFrom([]string{"null", "true", "1", "{}", "[]", `""`, `" "`, `["Allowed"]`}).Draw(rt, "no word")
	}
	return `"` + word + `"`
}

// writeObject writes the members in some order, with members that the rules do
// not know and, at times, one that is repeated.
func writeObject(rt *rapid.T, b *strings.Builder, members []string) {
	if rapid.IntRange(0, 3).Draw(rt, "more members") == 0 {
		var extra strings.Builder
		drawValue(rt, &extra, 2)
		members = append(members, `"lastUpdateDateTime":`+extra.String())
	}
	if len(members) > 0 && rapid.IntRange(0, 9).Draw(rt, "repeated") == 0 {
		again := members[0]
		if rapid.Bool().Draw(rt, "in another case") {
			name, value, _ := strings.Cut(again, ":")
			again = strings.ToUpper(name) + ":" + value
		}
		members = append(members, again)
	}
	if len(members) > 1 {
		members = rapid.Permutation(members).Draw(rt, "order")
	}
	blank := rapid.SampledFrom([]string{"", " ", "\r\n\t"}).Draw(rt, "blank")
	b.WriteString("{" + blank + strings.Join(members, blank+","+blank) + blank + "}")
}

// drawValue writes any JSON value.
func drawValue(rt *rapid.T, b *strings.Builder, depth int) {
	choice := rapid.IntRange(0, 8).Draw(rt, "value")
	if depth == 0 {
		choice %= 6
	}
	switch choice {
	case 0:
		b.WriteString("null")
	case 1:
		b.WriteString("true")
	case 2, 3:
		b.WriteString(rapid.SampledFrom([]string{"0", "-0", "1.5e3", "01", "1.", ".5", "+1", "1e", "NaN", "-"}).Draw(rt, "number"))
	case 4, 5:
		b.WriteString(rapid.SampledFrom([]string{`"x"`, `""`, `"\u00e9"`, `"\x"`, `"\u12"`, "\"\x01\"", `"\/\b\f\n\r\t\\\""`, `'x'`}).Draw(rt, "string"))
	case 6:
		b.WriteString("[")
		drawValue(rt, b, depth-1)
		b.WriteString(",")
		drawValue(rt, b, depth-1)
		b.WriteString("]")
	default:
		b.WriteString(`{"a":`)
		drawValue(rt, b, depth-1)
		b.WriteString(rapid.SampledFrom([]string{`,"b":`, `,"A":`, `,"a":`, `, "`}).Draw(rt, "second"))
		drawValue(rt, b, depth-1)
		b.WriteString("}")
	}
}

// damage leaves most bodies whole.
func damage(rt *rapid.T, body []byte) []byte {
	at := func(label string) int { return rapid.IntRange(0, len(body)).Draw(rt, label) }
	switch rapid.IntRange(0, 14).Draw(rt, "damage") {
	case 0:
		return body[:at("cut")]
	case 1:
		i := at("at")
		return append(append(append([]byte(nil), body[:i]...), rapid.Byte().Draw(rt, "byte")), body[i:]...)
	case 2:
		return append([]byte("\xef\xbb\xbf"), body...)
	case 3:
		return append(append([]byte(" \n"), body...), rapid.SampledFrom([]string{" ", "\r\n", "\x00", "// UTC", "{}", ",", "\v"}).Draw(rt, "behind")...)
	case 4:
		return bytes.ReplaceAll(body, []byte("}"), []byte(",}"))
	case 5:
		return bytes.ReplaceAll(body, []byte(`"`), []byte("\u201c"))
	default:
		return body
	}
}
