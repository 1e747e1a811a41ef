package rest_test

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"
)

func TestAFreshAnswerMayBeKeptForItsWholeFreshAge(t *testing.T) {
	t.Parallel()
	got := servertest.StartAged(t, 61*time.Second).Get(t, apitest.CustomerA, "")
	answer := got.JSON(t)
	evidence, err := time.Parse(time.RFC3339Nano, answer["evidenceTime"].(string))
	if err != nil {
		t.Fatal(err)
	}
	expire, err := time.Parse(time.RFC3339Nano, answer["expireTime"].(string))
	if err != nil {
		t.Fatal(err)
	}
	want := "private, max-age=" + strconv.Itoa(int(expire.Sub(evidence).Seconds()))
	if cache := got.Header.Get("Cache-Control"); cache != want {
		t.Errorf("Cache-Control %q, want %q", cache, want)
	}
	if age, err := strconv.Atoi(got.Header.Get("Age")); err != nil || age < 61 || age > 90 {
		t.Errorf("Age %q, want 61 or little more", got.Header.Get("Age"))
	}
}

func TestAStaleAnswerMustNotBeKept(t *testing.T) {
	t.Parallel()
	got := servertest.StartAged(t, 20*time.Minute).Get(t, apitest.CustomerA, "")
	if answer := got.JSON(t); answer["stale"] != true || got.Header.Get("Cache-Control") != "no-cache" {
		t.Errorf("Cache-Control %q of %s", got.Header.Get("Cache-Control"), got.Body)
	}
}

func TestAnAnswerWithoutEvidenceMustNotBeKept(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{
		Source:  apitest.Fails(eligibility.Error{Kind: eligibility.KindUnavailable}),
		Service: evidence.Config{Policy: eligibility.Policy{BlockUndecidable: true}},
	})
	got := run.Get(t, apitest.CustomerA, "")
	if got.StatusCode != http.StatusOK || reasons(got.JSON(t)) != "UNDECIDABLE" {
		t.Fatalf("%d %s", got.StatusCode, got.Body)
	}
	if got.Header.Get("Cache-Control") != "no-cache" || got.Header.Get("Age") != "" {
		t.Errorf("Cache-Control %q, Age %q", got.Header.Get("Cache-Control"), got.Header.Get("Age"))
	}
	answer := got.JSON(t)
	for _, name := range []string{"evidenceTime", "expireTime"} {
		if _, inbound := answer[name]; inbound {
			t.Errorf("%s is invented: %s", name, got.Body)
		}
	}
	if answer["accountStatus"] != "ACCOUNT_STATUS_UNSPECIFIED" || answer["source"] != "EVIDENCE_SOURCE_UNSPECIFIED" ||
		answer["correlationId"] != "" || answer["qualificationsKnown"] != false || answer["recheckTime"] == nil {
		t.Errorf("an undecidable answer says %s", got.Body)
	}
}

func TestAnAnswerThatTheCallerHoldsIsNotSentAgain(t *testing.T) {
	t.Parallel()
	run := servertest.StartAged(t, time.Minute)
	full := run.Get(t, apitest.CustomerA, "")
	tag := full.Header.Get("Etag")
	if len(tag) < 5 || tag[:3] != `W/"` {
		t.Fatalf("ETag %q", tag)
	}
	for held, code := range map[string]int{
		tag:                           304,
		tag[2:]:                       304, // weak comparison
		"*":                           304,
		`"other", ` + tag + `, W/"x"`: 304,
		` * `:                         304,
		`"other"`:                     200,
		`"other,*,"`:                  200, // one tag
		`"other", *`:                  200, // no list may contain it
		`W/"other"`:                   200,
		"":                            200,
	} {
		got := run.Get(t, apitest.CustomerA, "", "If-None-Match", held, "X-Request-Id", "r1")
		if got.StatusCode != code || (len(got.Body) == 0) != (code == 304) {
			t.Errorf("If-None-Match %s: %d %q", held, got.StatusCode, got.Body)
		}
		for name, want := range map[string]string{
			"Etag": tag, "Cache-Control": full.Header.Get("Cache-Control"), "X-Request-Id": "r1",
		} {
			if got.Header.Get(name) != want {
				t.Errorf("If-None-Match %s: %s is %q, want %q", held, name, got.Header.Get(name), want)
			}
		}
		if got.Header.Get("Age") == "" {
			t.Errorf("If-None-Match %s: no Age", held)
		}
	}
	// Two header lines are one list.
	got := run.Get(t, apitest.CustomerA, "", "If-None-Match", `"other"`, "If-None-Match", tag)
	if got.StatusCode != http.StatusNotModified {
		t.Errorf("two lines: %d", got.StatusCode)
	}
}

// An answer in one language never confirms one that is held in another.
func TestAnAnswerInAnotherLanguageIsSentAnew(t *testing.T) {
	t.Parallel()
	run := servertest.StartAged(t, time.Minute)
	tags := make(map[string]string) // by language
	for in := range eligibility.Language(eligibility.LanguageCount) {
		got := run.Get(t, apitest.CustomerA, "", "Accept-Language", in.String())
		if got.Header.Get("Content-Language") != in.String() {
			t.Errorf("%v: Content-Language %q", in, got.Header.Get("Content-Language"))
		}
		tags[in.String()] = got.Header.Get("Etag")
	}
	for held, tag := range tags {
		for asked := range tags {
			got := run.Get(t, apitest.CustomerA, "", "Accept-Language", asked, "If-None-Match", tag)
			if (got.StatusCode == http.StatusNotModified) != (held == asked) || got.Header.Get("Content-Language") != asked || got.Header.Get("Vary") != vary {
				t.Errorf("%s is held, %s is asked for: %d %v", held, asked, got.StatusCode, got.Header)
			}
		}
	}
}

// Sentences about errors are English, whatever the caller prefers.
func TestErrorsAreInEnglish(t *testing.T) {
	t.Parallel()
	run := servertest.StartAged(t, time.Minute)
	for name, got := range map[string]servertest.Reply{
		"refused":   run.Get(t, "no-guid", "", "Accept-Language", "de"),
		"failed":    run.Get(t, apitest.CustomerB, "", "Accept-Language", "de"),
		"generated": run.Do(t, http.MethodGet, run.REST+"/v1/reviews?page_size=-1", "", "Accept-Language", "de"),
		"no path":   run.Do(t, http.MethodGet, run.REST+"/v2", "", "Accept-Language", "de"),
	} {
		if got.StatusCode < http.StatusBadRequest || got.Header.Get("Content-Language") != "en" {
			t.Errorf("%s: %d %v", name, got.StatusCode, got.Header)
		}
	}
}

// A caller may hold the answer from before, which was fresh then.
func TestAStaleAnswerIsConfirmedByItsOwnTagOnly(t *testing.T) {
	t.Parallel()
	run := servertest.StartAged(t, time.Minute)
	now := time.Now()
	for customer, age := range map[string]time.Duration{apitest.CustomerA: 20 * time.Minute, apitest.CustomerB: 0} {
		run.Store.Hold(customer, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed}, now.Add(-age))
		before := run.Get(t, customer, "").Header.Get("Etag")
		query := ""
		if age == 0 { // stale for this caller, before its time
			query = "?max_age=0s"
		}
		got := run.Get(t, customer, query, "If-None-Match", "*")
		if got.StatusCode != http.StatusOK || got.JSON(t)["stale"] != true {
			t.Errorf("a stale answer: %d %s", got.StatusCode, got.Body)
		}
		tag := got.Header.Get("Etag")
		if got := run.Get(t, customer, query, "If-None-Match", tag); got.StatusCode != http.StatusNotModified || got.Header.Get("Cache-Control") != "no-cache" {
			t.Errorf("its own tag: %d %v", got.StatusCode, got.Header)
		}
		if age == 0 {
			if got := run.Get(t, customer, query, "If-None-Match", before); before == tag || got.StatusCode != http.StatusOK {
				t.Errorf("the tag of a fresh answer: %d %s", got.StatusCode, got.Body)
			}
		}
	}
}

func TestErrorsAndBatchesAreNotKept(t *testing.T) {
	t.Parallel()
	run := servertest.StartAged(t, time.Minute)
	for name, got := range map[string]servertest.Reply{
		"an error":             run.Get(t, "no-guid", ""),
		"an error with a tag":  run.Get(t, apitest.CustomerB, "", "If-None-Match", "*"),
		"an answer to a batch": run.Post(t, `{"requests":[{"customerId":"`+apitest.CustomerA+`"}]}`),
	} {
		if got.Header.Get("Cache-Control") != "no-store" || got.Header.Get("Etag") != "" {
			t.Errorf("%s: %d %v", name, got.StatusCode, got.Header)
		}
	}
}
