package pcclient

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/remote"
)

func FuzzReadLogin(f *testing.F) {
	f.Add(200, "", []byte(`{"token_type":"Bearer","access_token":"a","expires_in":3600,"refresh_token":"r"}`))
	f.Add(200, "", []byte(`{"token_type":"bearer","access_token":"a","expires_in":"3600","expires_on":"1"}`))
	f.Add(200, "", []byte("\xef\xbb\xbf"+`{"TOKEN_TYPE":"Bearer","access_token":"a\u0000","expires_in":3.6e3}`))
	f.Add(200, "", []byte(`<html>`))
	f.Add(400, "", []byte(`{"error":"invalid_grant","error_description":"x","error_codes":[700082,1e400,"x"]}`))
	f.Add(429, "57", []byte(`{"error":"temporarily_unavailable"}`))
	f.Add(503, "Wed, 21 Oct 2026 07:28:00 GMT", []byte(``))
	f.Add(302, "", []byte(``))
	asked := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, status int, header string, body []byte) {
		got := answer{status: status, header: http.Header{"Retry-After": {header}}, body: body}
		granted, fail := readLogin(got, asked, asked)
		if fail != nil {
			if granted != (grant{}) {
				t.Fatal("a failure comes with a token")
			}
			checkLoginFailure(t, fail)
			return
		}
		if status != http.StatusOK {
			t.Fatalf("a token from status %d", status)
		}
		members := oracleObject(t, oracleValue(t, body))
		if value := oracleMember(t, members, "access_token"); value != granted.access.value || value == "" {
			t.Fatalf("token is %v, read as %q", value, granted.access.value)
		}
		for _, token := range []string{granted.access.value, granted.refresh} {
			if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
				t.Fatalf("token %q does not fit a header", token)
			}
		}
		if kind, _ := oracleMember(t, members, "token_type").(string); !strings.EqualFold(kind, "bearer") {
			t.Fatalf("type is %q", kind)
		}
		life := granted.access.endsAt.Sub(asked)
		if life <= 0 || life > maxTokenLife || granted.access.early.length <= 0 || granted.access.early.length >= life {
			t.Fatalf("lives for %v, is renewed after %v", life, granted.access.early.length)
		}
		var stated float64
		switch expires := oracleMember(t, members, "expires_in").(type) {
		case json.Number:
			stated, _ = expires.Float64()
		case string:
			stated, _ = strconv.ParseFloat(expires, 64)
		default:
			t.Fatalf("expires_in is %v", expires)
		}
		if life.Seconds() > stated {
			t.Fatalf("lives for %v, want at most %v seconds", life, stated)
		}
	})
}

// checkLoginFailure fails the test unless a failure is one that callers know.
func checkLoginFailure(t *testing.T, fail *APIError) {
	t.Helper()
	if fail.Op != OpToken || fail.Code != "" && fail.Code != "unpublished" && !published(fail.Code) {
		t.Fatalf("got %+v", fail)
	}
	if fail.RetryAfter != 0 && (fail.RetryAfter < minRetryAfter || fail.RetryAfter > maxRetryAfter+maxRetryAfter/10) {
		t.Fatalf("retry after %v", fail.RetryAfter)
	}
	switch fail.Class {
	case ClassThrottled:
		if fail.Status != http.StatusTooManyRequests || fail.RetryAfter == 0 {
			t.Fatalf("got %+v", fail)
		}
	case ClassCredentials:
		if remote.ServerFailed(fail.Status) || fail.Reason == ReasonServerError {
			t.Fatalf("got %+v", fail)
		}
	case ClassUnavailable:
	case ClassInvalidResponse:
		if fail.Reason != ReasonUnexpected || fail.Status != http.StatusNotImplemented && fail.Status/100 != 3 {
			t.Fatalf("got %+v", fail)
		}
	default:
		t.Fatalf("got class %v", fail.Class)
	}
	if len(fail.aadsts) > maxAADSTS {
		t.Fatalf("%d numbers", len(fail.aadsts))
	}
}

func published(word string) bool {
	reason, _ := loginReason(word)
	return reason != ReasonRefused
}
