package pcsim_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

func TestCallsAreRecordedWithoutTheToken(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	r.set(accountWithStatus("Allowed"))
	token := r.userToken()
	req := r.request(http.MethodGet, "/v1/customers/"+strings.ToUpper(customerID)+"/validationStatus?type=account", token)
	req.Header.Set("MS-RequestId", "037db222-6d8e-4d7f-ba78-df3dca33fb68")
	req.Header.Set("MS-CorrelationId", "not a GUID, kept as sent")
	answer, err := r.do(req)
	if err != nil {
		t.Fatal(err)
	}
	if id := answer.header.Get("MS-CorrelationId"); uuid.Validate(id) != nil {
		t.Errorf("what is no GUID came back as %q", id)
	}
	r.qualifications("x", "")
	r.get("/elsewhere", token)

	want := []pcsim.Request{
		{
			Number: 1, Time: r.clock.Now(), Method: "GET", Path: req.URL.Path, Query: "type=account",
			Resource: "account", CustomerID: customerID, Status: 200,
			RequestID: "037db222-6d8e-4d7f-ba78-df3dca33fb68", CorrelationID: "not a GUID, kept as sent",
		},
		{
			Number: 2, Time: r.clock.Now(), Method: "GET", Path: "/v1/customers/x/qualifications",
			Resource: "qualifications", CustomerID: "x", Status: 401,
		},
		{Number: 3, Time: r.clock.Now(), Method: "GET", Path: "/elsewhere", Resource: "other", Status: 404},
	}
	if diff := cmp.Diff(want, r.Requests()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(pcsim.Stats{Account: 1, Qualifications: 1, Other: 1, Tokens: 1}, r.Stats()); diff != "" {
		t.Error(diff)
	}
	all, err := json.Marshal(r.Requests())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(all), token) {
		t.Error("the token is recorded")
	}
}

func TestLogHasEveryCallAndNoSecret(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.DebugLevel)
	r := start(t, pcsim.Config{Logger: zap.New(core)})
	r.set(accountWithStatus("Allowed"))
	granted := r.grant(v2Path, refreshForm())
	r.account(customerID, granted["access_token"].(string))
	if logs.Len() != 2 {
		t.Errorf("%d records, want 2", logs.Len())
	}
	for _, record := range logs.All() {
		text, err := json.Marshal(record.ContextMap())
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []any{
			granted["access_token"], granted["refresh_token"], pcsim.DefaultRefreshToken, pcsim.DefaultClientSecret,
		} {
			if strings.Contains(record.Message+string(text), secret.(string)) {
				t.Errorf("%s %s holds a secret", record.Message, text)
			}
		}
	}
}

func TestOnlyTheLatestCallsAreKept(t *testing.T) {
	t.Parallel()
	const kept, extra = 10_000, 3
	r := start(t, pcsim.Config{})
	long := "/" + strings.Repeat("a", 5000)
	req := r.request(http.MethodGet, long, "")
	for range kept + extra {
		r.Handler().ServeHTTP(&discard{}, req)
	}
	got := r.Requests()
	if len(got) != kept || got[0].Number != extra+1 || got[kept-1].Number != kept+extra || got[0].Status != 401 {
		t.Errorf("%d calls, from %d to %d, status %d", len(got), got[0].Number, got[kept-1].Number, got[0].Status)
	}
	if len(got[0].Path) > 200 {
		t.Errorf("a path of %d bytes is kept", len(got[0].Path))
	}
}

// discard is a response nobody reads.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header {
	if d.header == nil {
		d.header = http.Header{}
	}
	return d.header
}
func (*discard) Write(p []byte) (int, error) { return len(p), nil }
func (*discard) WriteHeader(int)             {}
