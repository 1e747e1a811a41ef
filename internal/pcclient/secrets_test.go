package pcclient_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/eligibilityd/eligibilityd/internal/pcclient"
)

// canary stands in every secret, every token and every body of this test.
const canary = "canary"

// No secret, no token and no text of a far side reaches an error, the log or a
// metric, whatever fails.
func TestNothingSecretLeaks(t *testing.T) {
	t.Parallel()
	grant := func(w http.ResponseWriter, r *http.Request, n int) {
		responds(http.StatusOK, fmt.Sprintf(`{"token_type":"Bearer","access_token":"canary-access-%d","expires_in":3600,
			"refresh_token":"canary-refresh-%d","id_token":"canary"}`, n, n))(w, r, n)
	}
	failing := func(login bool) map[string]answerer {
		all := map[string]answerer{
			"reset": reset, "reset amid the body": resetBody, "hang": hang, "hang amid the body": hangBody,
			"not HTTP":   garbage("canary canary canary\r\n\r\n"),
			"bad header": garbage("HTTP/1.1 200 OK\r\ncanary canary\r\n\r\n"),
			"bad length": garbage("HTTP/1.1 200 OK\r\nContent-Length: canary\r\n\r\n"),
			"bad status": garbage("HTTP/1.1 canary canary\r\n\r\n"),
			"redirect":   responds(307, "canary", "Location: http://canary.invalid/canary"),
		}
		statuses := []int{200, 400, 401, 403, 404, 429, 501, 503}
		if login { // each without a verdict costs replays
			statuses = []int{200, 400, 429}
		}
		for _, status := range statuses {
			for _, body := range []string{
				"canary", `"canary"`, `{"canary":1,"canary":2}`, `{"code":"canary","description":"canary","isRetryable":"canary"}`,
				`{"error":"canary","error_description":"canary","error_codes":["canary"]}`,
				`{"code":900421,"errorName":"canary","message":"canary","data":["canary"]}`,
				`{"status":{"canary":1},"qualification":["canary"]}`, "\xffcanary",
			} {
				all[fmt.Sprintf("%d %q", status, body)] = responds(status, body,
					"Retry-After: canary", "WWW-Authenticate: canary", "MS-RequestId: canary", "MS-CorrelationId: canary", "X-Canary: canary")
			}
		}
		return all
	}
	for side, login := range map[string]bool{"login": true, "partner center": false} {
		for name, answer := range failing(login) {
			t.Run(side+"/"+name, func(t *testing.T) {
				t.Parallel()
				s := setup{login: grant, api: answer}
				if login {
					s.login = answer
				}
				s.config = func(c *pcclient.Config) { c.AttemptTimeout = 200 * time.Millisecond }
				r := start(t, s)
				r.write("canary-refresh-0")
				ctx, cancel := context.WithTimeout(t.Context(), patience) // less than any Retry-After here
				defer cancel()
				_, _, accountErr := r.ValidationStatus(ctx, customerID)
				_, _, qualificationsErr := r.Qualifications(ctx, customerID)
				if accountErr == nil || qualificationsErr == nil {
					t.Fatalf("got %v and %v, want failures", accountErr, qualificationsErr)
				}
				r.keepsSecrets(accountErr, qualificationsErr)
			})
		}
	}
}

func TestNothingSecretLeaksOfTheFile(t *testing.T) {
	t.Parallel()
	r := startReadOnly(t, responds(200, `{"token_type":"Bearer","access_token":"canary-a","expires_in":3600,"refresh_token":"canary-r"}`))
	r.write("canary-refresh-0")
	r.ask()
	r.unstored(1)
	r.write(strings.Repeat(canary, 20_000))
	r.renew()
	remove(t, r.file)
	r.renew()
	if r.logs.FilterLevelExact(zapcore.ErrorLevel).Len() == 0 {
		t.Error("nothing was logged")
	}
	r.keepsSecrets()
}

// keepsSecrets fails the test if a canary stands in an error, the log or a metric.
func (r *rig) keepsSecrets(errs ...error) {
	r.t.Helper()
	var output strings.Builder
	for _, err := range errs {
		fmt.Fprintf(&output, "error: %v %+v %#v\n", err, err, err)
		for unwrapped := err; unwrapped != nil; {
			fmt.Fprintf(&output, "cause: %v\n", unwrapped)
			wrapper, ok := unwrapped.(interface{ Unwrap() error })
			if !ok {
				break
			}
			unwrapped = wrapper.Unwrap()
		}
	}
	encoder := zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "m", LevelKey: "l", NameKey: "n"})
	for _, entry := range r.logs.All() {
		line, err := encoder.EncodeEntry(entry.Entry, entry.Context)
		if err != nil {
			r.t.Fatal(err)
		}
		fmt.Fprintf(&output, "log: %s %v\n", line, entry.Context)
	}
	output.WriteString(r.scrape())
	for line := range strings.Lines(output.String()) {
		if strings.Contains(strings.ToLower(line), canary) {
			r.t.Errorf("output: %.400s", line)
		}
	}
}

// garbage answers with these very bytes.
func garbage(text string) answerer {
	return func(w http.ResponseWriter, _ *http.Request, _ int) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = conn.Write([]byte(text))
		_ = conn.Close()
	}
}
