package pcclient_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eligibilityd/eligibilityd/internal/pcclient"
)

// VS-30, QO-01, H-01, H-03, H-07.
func TestRequestsAreAsDocumented(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		ask func(*rig) (pcclient.Call, error)
		url string
	}{
		"account": {func(r *rig) (pcclient.Call, error) {
			_, call, err := r.ValidationStatus(t.Context(), strings.ToUpper(customerID))
			return call, err
		}, "/v1/customers/" + customerID + "/validationStatus?type=account"},
		"qualifications": {func(r *rig) (pcclient.Call, error) {
			_, call, err := r.Qualifications(t.Context(), strings.ToUpper(customerID))
			return call, err
		}, "/v1/customers/" + customerID + "/qualifications"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{api: func(w http.ResponseWriter, req *http.Request, n int) {
				body := allowed
				if strings.HasSuffix(req.URL.Path, "/qualifications") {
					body = `[]`
				}
				responds(http.StatusOK, body)(w, req, n)
			}})
			ids := map[string]bool{}
			for range 2 {
				call, err := test.ask(r)
				if err != nil {
					t.Fatal(err)
				}
				seen := r.api.asked()
				got := seen[len(seen)-1]
				if got.method != http.MethodGet || got.url != test.url {
					t.Errorf("asked %s %s, want %s", got.method, got.url, test.url)
				}
				for header, want := range map[string]string{
					"Authorization":                "Bearer access-1",
					"Accept":                       "application/json",
					"User-Agent":                   "eligibilityd",
					"MS-Contract-Version":          "v1",
					"MS-PartnerCenter-Application": "eligibilityd",
					"MS-RequestId":                 call.RequestID,
					"MS-CorrelationId":             call.CorrelationID,
					"X-Locale":                     "",
				} {
					if value := got.header.Get(header); value != want {
						t.Errorf("%s is %q, want %q", header, value, want)
					}
				}
				if call.Attempts != 1 || call.Status != http.StatusOK {
					t.Errorf("the call is %+v", call)
				}
				ids[call.RequestID], ids[call.CorrelationID] = true, true
			}
			for id := range ids {
				if uuid.Validate(id) != nil {
					t.Errorf("%q is no GUID", id)
				}
			}
			if len(ids) != 4 {
				t.Errorf("two fetches share an id: %v", ids)
			}
		})
	}
}

func TestRequestIDIsNewAfterAResponseOnly(t *testing.T) {
	t.Parallel()
	r := start(t, setup{api: inTurn{reset, responds(http.StatusServiceUnavailable, ""), responds(http.StatusOK, allowed)}.play})
	call := r.ask()
	r.counts(1, 3)
	var request, correlation []string
	for _, a := range r.api.asked() {
		request = append(request, a.header.Get("MS-RequestId"))
		correlation = append(correlation, a.header.Get("MS-CorrelationId"))
	}
	if request[0] != request[1] {
		t.Error("H-04: no response came, and the replay has another MS-RequestId")
	}
	if request[1] == request[2] {
		t.Error("H-05: a response came, and the replay has the same MS-RequestId")
	}
	if correlation[0] != correlation[1] || correlation[1] != correlation[2] {
		t.Errorf("H-06: replays have MS-CorrelationIds of their own: %v", correlation)
	}
	if call.Attempts != 3 || call.RequestID != request[2] || call.CorrelationID != correlation[0] {
		t.Errorf("the call is %+v", call)
	}
}

// VS-31, VS-34.
func TestMalformedCustomerIDIsNotSent(t *testing.T) {
	t.Parallel()
	r := start(t, setup{})
	for _, id := range []string{
		"", "x", "../../evil", "{" + customerID + "}", " " + customerID, customerID + "\n", "urn:uuid:" + customerID,
		strings.ReplaceAll(customerID, "-", ""), customerID + "/x", "11111111-1111-4111-8111-11111111abcg",
	} {
		if _, _, err := r.ValidationStatus(t.Context(), id); !errors.Is(err, pcclient.ErrCustomerID) {
			t.Errorf("account of %q: %v", id, err)
		}
		if _, _, err := r.Qualifications(t.Context(), id); !errors.Is(err, pcclient.ErrCustomerID) {
			t.Errorf("qualifications of %q: %v", id, err)
		}
	}
	r.counts(0, 0)
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	for _, status := range []int{301, 302, 303, 307, 308} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			other := listen(t, responds(http.StatusOK, allowed))
			r := start(t, setup{api: responds(status, allowed, "Location: "+other.URL+"/v1/customers/x/validationStatus")})
			fail := r.askInVain(pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected)
			if fail.Status != status {
				t.Errorf("status is %d", fail.Status)
			}
			r.counts(1, 1)
			if seen := other.asked(); len(seen) != 0 {
				t.Errorf("the other host saw %v", seen)
			}
		})
		t.Run(fmt.Sprintf("login %d", status), func(t *testing.T) {
			t.Parallel()
			other := listen(t, grants)
			r := start(t, setup{login: responds(status, "", "Location: "+other.URL+"/token")})
			r.askInVain(pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected)
			if seen := other.asked(); len(seen) != 0 {
				t.Errorf("the other host saw %v", seen)
			}
		})
	}
}

func TestStatusesAndReplays(t *testing.T) {
	t.Parallel()
	type outcome struct {
		class    pcclient.Class
		reason   pcclient.Reason
		attempts int
	}
	down := outcome{pcclient.ClassUnavailable, pcclient.ReasonServerError, 3}
	final := outcome{pcclient.ClassUnavailable, pcclient.ReasonServerError, 1}
	odd := outcome{pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, 1}
	tests := map[string]struct {
		status int
		body   string
		want   outcome
	}{
		"S-01 500":                     {500, `{"code":800003,"description":"x"}`, down},
		"S-02 500":                     {500, `{"code":900192,"description":"x"}`, down},
		"S-03 502 HTML":                {502, `<html>`, down},
		"S-03 503 empty":               {503, ``, down},
		"S-03 504":                     {504, ``, down},
		"S-04 408":                     {408, ``, down},
		"599":                          {599, ``, down},
		"500 with Allowed":             {500, allowed, down},
		"isRetryable true":             {500, `{"code":1,"isRetryable":true}`, down},
		"isRetryable is a string":      {500, `{"code":1,"isRetryable":"false"}`, down},
		"isRetryable false":            {500, `{"code":1,"isRetryable":false}`, final},
		"isRetryable false in capital": {503, `{"ISRETRYABLE":false}`, final},
		"S-07 501":                     {501, ``, odd},
		"S-07 405":                     {405, ``, odd},
		"S-07 406":                     {406, ``, odd},
		"S-07 412":                     {412, ``, odd},
		"S-07 417":                     {417, ``, odd},
		"VS-29 400":                    {400, `{"code":3000}`, odd},
		"201 with Allowed":             {201, allowed, odd},
		"202 with Allowed":             {202, allowed, odd},
		"203 with Allowed":             {203, allowed, odd},
		"204":                          {204, ``, odd},
		"206 with Allowed":             {206, allowed, odd},
		"299 with Allowed":             {299, allowed, odd},
		"304":                          {304, ``, odd},
		"600":                          {600, ``, odd},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{api: responds(test.status, test.body)})
			fail := r.askInVain(test.want.class, test.want.reason)
			if fail.Attempts != test.want.attempts || fail.Status != test.status {
				t.Errorf("%d attempts, status %d, want %d and %d", fail.Attempts, fail.Status, test.want.attempts, test.status)
			}
			r.counts(1, test.want.attempts)
		})
	}
}

func TestFailureThatPassesIsNotNoticed(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]answerer{
		"500":                       responds(http.StatusInternalServerError, ""),
		"S-11 reset before headers": reset,
		"S-11 reset amid the body":  resetBody,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{api: inTurn{broken, broken, responds(http.StatusOK, allowed)}.play})
			if call := r.ask(); call.Attempts != 3 || call.Status != http.StatusOK {
				t.Errorf("the call is %+v", call)
			}
			if !r.shows(`retries_total{op="validation_status"} 2`) {
				t.Error("the replays are not counted")
			}
		})
	}
}

func TestNoCompleteAnswer(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		api    answerer
		reason pcclient.Reason
	}{
		"reset before headers": {reset, pcclient.ReasonConnection},
		"reset amid the body":  {resetBody, pcclient.ReasonConnection},
		"hang before headers":  {hang, pcclient.ReasonTimeout},
		"hang amid the body":   {hangBody, pcclient.ReasonTimeout},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{api: test.api, config: func(c *pcclient.Config) { c.AttemptTimeout = 200 * time.Millisecond }})
			began := time.Now()
			fail := r.askInVain(pcclient.ClassUnavailable, test.reason)
			if took := time.Since(began); took > patience {
				t.Errorf("took %v", took)
			}
			if fail.Attempts != 3 || fail.Status != 0 {
				t.Errorf("%d attempts, status %d, want 3 and 0", fail.Attempts, fail.Status)
			}
			ids := map[string]bool{}
			for _, a := range r.api.asked() {
				ids[a.header.Get("MS-RequestId")] = true
			}
			if len(ids) != 1 {
				t.Errorf("the replays have %d MS-RequestIds", len(ids))
			}
		})
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	r := start(t, setup{})
	r.api.Close()
	fail := r.askInVain(pcclient.ClassUnavailable, pcclient.ReasonConnection)
	if fail.Attempts != 3 {
		t.Errorf("%d attempts, want 3", fail.Attempts)
	}
}

func TestFetchEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	t.Run("deadline", func(t *testing.T) {
		t.Parallel()
		r := start(t, setup{api: hang, config: func(c *pcclient.Config) { c.AttemptTimeout = time.Minute }})
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, call, err := r.ValidationStatus(ctx, customerID)
		failure(t, err, pcclient.ClassUnavailable, pcclient.ReasonTimeout)
		if call.Attempts != 1 {
			t.Errorf("%d attempts, want 1", call.Attempts)
		}
	})
	t.Run("no time for a replay", func(t *testing.T) {
		t.Parallel()
		r := start(t, setup{api: responds(http.StatusBadGateway, "")})
		if err := r.Token(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 240*time.Millisecond)
		defer cancel()
		_, call, err := r.ValidationStatus(ctx, customerID)
		failure(t, err, pcclient.ClassUnavailable, pcclient.ReasonServerError)
		if call.Attempts != 1 || ctx.Err() != nil {
			t.Errorf("%d attempts until %v, want 1 and an answer at once", call.Attempts, ctx.Err())
		}
	})
	t.Run("S-13 cancel", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		r := start(t, setup{api: func(w http.ResponseWriter, req *http.Request, n int) {
			cancel()
			hang(w, req, n)
		}})
		_, call, err := r.ValidationStatus(ctx, customerID)
		failure(t, err, pcclient.ClassUnavailable, pcclient.ReasonCanceled)
		if !errors.Is(err, context.Canceled) || call.Attempts != 1 {
			t.Errorf("got %v after %d attempts", err, call.Attempts)
		}
	})
}

func TestRetryAfterOf503(t *testing.T) {
	t.Parallel()
	t.Run("that would fit is not waited for either", func(t *testing.T) {
		t.Parallel()
		r := start(t, setup{api: inTurn{responds(503, "", "Retry-After: 1"), responds(http.StatusOK, allowed)}.play})
		fail := r.askInVain(pcclient.ClassUnavailable, pcclient.ReasonServerError)
		if fail.Attempts != 1 || fail.RetryAfter != time.Second {
			t.Errorf("%d attempts, retry after %v", fail.Attempts, fail.RetryAfter)
		}
		r.ask()
	})
	t.Run("ends the fetch at once", func(t *testing.T) {
		t.Parallel()
		r := start(t, setup{api: responds(503, "", "Retry-After: 30")})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		began := time.Now()
		_, call, err := r.ValidationStatus(ctx, customerID)
		fail := failure(t, err, pcclient.ClassUnavailable, pcclient.ReasonServerError)
		if call.Attempts != 1 || fail.RetryAfter != 30*time.Second || time.Since(began) > patience {
			t.Errorf("%d attempts, retry after %v, took %v", call.Attempts, fail.RetryAfter, time.Since(began))
		}
		r.clock.advance(time.Millisecond)
		_, _, _ = r.Qualifications(ctx, customerID)
		r.counts(1, 2) // a 503 pauses nobody else
	})
}

func TestBodyIsBounded(t *testing.T) {
	t.Parallel()
	const limit = 1 << 20
	zipped := func(body []byte) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	padded := func(size int) string { return allowed + strings.Repeat(" ", size-len(allowed)) }
	corrupt := []byte(zipped([]byte(allowed)))
	corrupt[len(corrupt)-6] ^= 0xff // in the checksum
	tests := map[string]struct {
		body     string
		encoding string
		ok       bool
	}{
		"exactly 1 MiB":              {padded(limit), "", true},
		"a byte more":                {padded(limit + 1), "", false},
		"4 MiB":                      {padded(4 * limit), "", false},
		"H-10 gzip":                  {zipped([]byte(allowed)), "gzip", true},
		"gzip bomb":                  {zipped([]byte(padded(16 * limit))), "gzip", false},
		"gzip with a wrong checksum": {string(corrupt), "gzip", false},
		"no gzip at all":             {allowed, "gzip", false},
		"unasked encoding":           {allowed[1:], "br", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{api: func(w http.ResponseWriter, req *http.Request, n int) {
				if test.encoding != "" {
					w.Header().Set("Content-Encoding", test.encoding)
				}
				responds(http.StatusOK, test.body)(w, req, n)
			}})
			if test.ok {
				r.ask()
			} else {
				r.askInVain(pcclient.ClassInvalidResponse, pcclient.ReasonUnreadable)
			}
			r.counts(1, 1)
		})
	}
}
