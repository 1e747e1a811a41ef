package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// startFor starts a server for callers, whose evidence allows every customer.
func startFor(t *testing.T, callers apitest.Callers, with servertest.Setup) *servertest.Running {
	t.Helper()
	with.API.Access = callers
	if with.Source == nil && with.Partners == nil {
		with.Source = apitest.Approved()
	}
	return servertest.Start(t, with)
}

// restRoutes returns the method and path of each RPC over REST, from the document.
func restRoutes(t *testing.T, run *servertest.Running, token string) map[string][2]string {
	t.Helper()
	got := run.Do(t, http.MethodGet, run.REST+"/openapi.json", "", "Authorization", token)
	var document struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(got.Body, &document); err != nil {
		t.Fatalf("%d %s: %v", got.StatusCode, got.Body, err)
	}
	routes := make(map[string][2]string)
	for path, methods := range document.Paths {
		for method, operation := range methods {
			routes[operation.OperationID] = [2]string{strings.ToUpper(method), strings.ReplaceAll(path, "{customerId}", apitest.CustomerA)}
		}
	}
	return routes
}

// rightNamed returns the right that an error over gRPC names.
func rightNamed(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetMetadata()["right"]
		}
	}
	return ""
}

// Each method of the API needs the same right over gRPC and REST, and every caller
// without it is refused with the right's name.
func TestEachMethodNeedsOneRightOverBothTransports(t *testing.T) {
	t.Parallel()
	callers := apitest.EachRight()
	run := startFor(t, callers, servertest.Setup{})
	routes := restRoutes(t, run, "check")
	desc := eligibilityv1.EligibilityService_ServiceDesc
	if len(routes) != len(desc.Methods)+len(desc.Streams) {
		t.Fatalf("%d routes over REST, %d methods", len(routes), len(desc.Methods)+len(desc.Streams))
	}
	for _, method := range desc.Methods {
		route, ok := routes[method.MethodName]
		if !ok {
			t.Fatalf("%s has no route over REST", method.MethodName)
		}
		admitted := 0
		for token := range callers {
			err := run.Conn.Invoke(apitest.With(t.Context(), token), "/"+desc.ServiceName+"/"+method.MethodName, new(eligibilityv1.CheckEligibilityRequest), new(eligibilityv1.CheckEligibilityResponse))
			got := run.Do(t, route[0], run.REST+route[1], "{}", "Authorization", token)
			refused := status.Code(err) == codes.PermissionDenied
			if refused != (got.StatusCode == http.StatusForbidden) {
				t.Errorf("%s with the right %s: %v over gRPC, %d over REST", method.MethodName, token, err, got.StatusCode)
			}
			if !refused {
				admitted++
				continue
			}
			named := rightNamed(err)
			if right, ok := access.ParseRight(named); !ok || callers[token].Rights.Has(right) {
				t.Errorf("%s with the right %s: refused for lack of %q", method.MethodName, token, named)
			}
			if got.Failure(t).Right() != named {
				t.Errorf("%s over REST does not name %q: %s", method.MethodName, named, got.Body)
			}
		}
		if admitted != 1 {
			t.Errorf("%s admits %d of the callers with one right each", method.MethodName, admitted)
		}
	}
}

// A request without a valid token gets the same bytes for all causes, whatever else
// it is, and before its body has arrived.
func TestUnauthenticatedRequestsAreAllAnsweredAlike(t *testing.T) {
	t.Parallel()
	run := startFor(t, apitest.EachRight(), servertest.Setup{})
	checkPath, batchPath, prefetchPath := "/v1/customers/"+apitest.CustomerA+"/eligibility", "/v1/customers:batchCheckEligibility", "/v1/customers:prefetchEligibility"
	want := ""
	for name, request := range map[string]string{
		"no token":              "GET " + checkPath + " HTTP/1.1\r\n\r\n",
		"unknown token":         "GET " + checkPath + " HTTP/1.1\r\nAuthorization: Bearer guessed\r\n\r\n",
		"two tokens":            "GET " + checkPath + " HTTP/1.1\r\nAuthorization: check\r\nAuthorization: check\r\n\r\n",
		"token in the URL":      "GET " + checkPath + "?access_token=check HTTP/1.1\r\n\r\n",
		"other customer":        "GET /v1/customers/" + apitest.CustomerB + "/eligibility HTTP/1.1\r\n\r\n",
		"no customer":           "GET /v1/customers/x/eligibility?segment=none HTTP/1.1\r\n\r\n",
		"unknown path":          "GET /v2/anything HTTP/1.1\r\n\r\n",
		"bad escape":            "GET /v1/customers/%2525zz/eligibility HTTP/1.1\r\n\r\n",
		"wrong method":          "DELETE " + checkPath + " HTTP/1.1\r\n\r\n",
		"document":              "GET /openapi.json HTTP/1.1\r\n\r\n",
		"page":                  "GET /docs HTTP/1.1\r\n\r\n",
		"root":                  "GET / HTTP/1.1\r\n\r\n",
		"malformed batch":       "POST " + batchPath + " HTTP/1.1\r\nContent-Length: 3\r\n\r\n{]}",
		"form":                  "POST " + batchPath + " HTTP/1.1\r\nContent-Type: text/xml\r\nContent-Length: 3\r\n\r\n{]}",
		"compressed":            "POST " + batchPath + " HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n{]}",
		"body that never comes": "POST " + batchPath + " HTTP/1.1\r\nContent-Length: 300\r\n\r\n",
		"chunks that never end": "POST " + prefetchPath + " HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n",
		"huge body":             "POST " + batchPath + " HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n" + strings.Repeat("x", 1<<16),
		"override":              "POST " + batchPath + " HTTP/1.1\r\nX-HTTP-Method-Override: GET\r\nContent-Length: 0\r\n\r\n",
	} {
		head, body, _ := strings.Cut(request, "\r\n")
		began := time.Now()
		got := exchange(t, run, head+"\r\nHost: localhost\r\nX-Request-Id: mine\r\n"+body)
		if took := time.Since(began); took > 5*time.Second { // the body has 10 s
			t.Errorf("%s: answered after %v", name, took)
		}
		if want == "" {
			want = got
		}
		if got != want {
			t.Errorf("%s: %q, others get %q", name, got, want)
		}
	}
	if !strings.HasPrefix(want, "HTTP/1.1 401 Unauthorized\r\n") || !strings.Contains(want, "\r\nWww-Authenticate: Bearer error=\"invalid_token\"\r\n") ||
		!strings.Contains(want, `"The caller could not be authenticated."`) {
		t.Errorf("%q", want)
	}

	first := ""
	for method, req := range map[string]proto.Message{
		eligibilityv1.EligibilityService_CheckEligibility_FullMethodName:       apitest.Ask(apitest.CustomerA),
		eligibilityv1.EligibilityService_CheckEligibility_FullMethodName + " ": apitest.Ask("x"),
		eligibilityv1.EligibilityService_BatchCheckEligibility_FullMethodName:  new(eligibilityv1.BatchCheckEligibilityRequest),
		eligibilityv1.EligibilityService_PrefetchEligibility_FullMethodName:    &eligibilityv1.PrefetchEligibilityRequest{CustomerIds: slices.Repeat([]string{apitest.CustomerA}, 200_000)},
		"/eligibility.v1.EligibilityService/Nothing":                           apitest.Ask(apitest.CustomerA),
		"/none.Such/Method": apitest.Ask(apitest.CustomerA),
		grpc_reflection_v1.ServerReflection_ServerReflectionInfo_FullMethodName:           apitest.Ask(apitest.CustomerA),
		"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo":                  apitest.Ask(apitest.CustomerA),
		"/GRPC.HEALTH.V1.HEALTH/CHECK":                                                    apitest.Ask(apitest.CustomerA),
		"/grpc.health.v1.Health/../../eligibility.v1.EligibilityService/CheckEligibility": apitest.Ask(apitest.CustomerA),
		"//eligibility.v1.EligibilityService/CheckEligibility":                            apitest.Ask(apitest.CustomerA),
		"/eligibility.v1.EligibilityService%2FCheckEligibility/x":                         apitest.Ask(apitest.CustomerA),
	} {
		for _, token := range []string{"", "Bearer guessed"} {
			ctx := t.Context()
			if token != "" {
				ctx = apitest.With(ctx, token)
			}
			header := make(metadata.MD)
			err := run.Conn.Invoke(metadata.AppendToOutgoingContext(ctx, "x-request-id", "mine"), strings.TrimSuffix(method, " "), req, new(eligibilityv1.CheckEligibilityResponse), grpc.Header(&header))
			got := fmt.Sprintf("%v %v", status.Convert(err).Proto(), header)
			if status.Code(err) != codes.Unauthenticated {
				t.Errorf("%s: %v", method, err)
			}
			// Only the first of them is normalised by the formatting of messages.
			got = strings.Join(strings.Fields(got), " ")
			if first == "" {
				first = got
			}
			if got != first {
				t.Errorf("%s: %s, others get %s", method, got, first)
			}
		}
	}
}

// exchange sends raw bytes on a connection and returns the answer without its date,
// and without what says that the connection ends.
func exchange(t *testing.T, run *servertest.Running, request string) string {
	t.Helper()
	return exchangeFor(t, run, http.MethodGet, request)
}

func exchangeFor(t *testing.T, run *servertest.Running, method, request string) string {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(run.REST, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	go func() { _, _ = io.WriteString(conn, request) }() // the server may not read it all
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%.80q: %v", request, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%.80q: %v", request, err)
	}
	resp.Header.Del("Date")
	resp.Header.Del("Connection")
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\r\n", resp.Proto, resp.Status)
	_ = resp.Header.Write(&b)
	return b.String() + "\r\n" + string(body)
}

// A refused request is answered before its body has arrived, and the connection of
// one that has no body is used again.
func TestARefusedRequestDoesNotWaitForItsBody(t *testing.T) {
	t.Parallel()
	run := startFor(t, apitest.EachRight(), servertest.Setup{})
	for _, path := range []string{"/v1/customers:batchCheckEligibility", "/v1/customers:prefetchEligibility"} {
		for name, rest := range map[string]string{"length": "Content-Length: 300\r\n\r\n", "chunks": "Transfer-Encoding: chunked\r\n\r\n", "expect": "Expect: 100-continue\r\nContent-Length: 300\r\n\r\n"} {
			began := time.Now()
			got := exchange(t, run, "POST "+path+" HTTP/1.1\r\nHost: localhost\r\nAuthorization: check\r\n"+rest)
			if !strings.HasPrefix(got, "HTTP/1.1 403 ") || time.Since(began) > 5*time.Second {
				t.Errorf("%s, %s: after %v: %q", path, name, time.Since(began), got)
			}
		}
	}
	for _, token := range []string{"", "none"} {
		got := run.Get(t, apitest.CustomerA, "", "Authorization", token)
		if got.Close || got.StatusCode < 401 {
			t.Errorf("token %q: %d, close %v", token, got.StatusCode, got.Close)
		}
	}
}

// A caller without the right gets the same bytes whether the customer exists, and
// whatever the message is.
func TestDeniedRequestsAreAllAnsweredAlike(t *testing.T) {
	t.Parallel()
	run := startFor(t, apitest.EachRight(), servertest.Setup{Source: apitest.Approved()})
	seen := make(map[string]bool)
	for _, id := range []string{apitest.CustomerA, apitest.CustomerB, "x"} {
		got := run.Get(t, id, "?max_age=nonsense", "Authorization", "batch", "X-Request-Id", "mine")
		got.Header.Del("Date")
		seen[fmt.Sprint(got.StatusCode, got.Header, string(got.Body))] = true
	}
	if len(seen) != 1 {
		t.Errorf("%q", slices.Collect(maps.Keys(seen)))
	}
	clear(seen)
	for _, body := range []string{"", "{", `{"requests":[]}`, `{"requests":[{"customerId":"` + apitest.CustomerA + `"}]}`} {
		got := run.Post(t, body, "Authorization", "check", "X-Request-Id", "mine")
		got.Header.Del("Date")
		seen[fmt.Sprint(got.StatusCode, got.Header, string(got.Body))] = true
	}
	if len(seen) != 1 {
		t.Errorf("%q", slices.Collect(maps.Keys(seen)))
	}
}

// No form of a path or of a method reaches an RPC without its right.
func TestNoFormOfAPathGoesAroundARight(t *testing.T) {
	t.Parallel()
	run := startFor(t, apitest.EachRight(), servertest.Setup{})
	checkPath, batchPath := "/v1/customers/"+apitest.CustomerA+"/eligibility", "/v1/customers:batchCheckEligibility"
	for _, given := range []struct{ method, path, token, header string }{
		{"GET", checkPath, "batch", ""},
		{"GET", "/" + checkPath, "batch", ""},
		{"GET", "//v1//customers/" + apitest.CustomerA + "/eligibility", "batch", ""},
		{"GET", checkPath + "/", "batch", ""},
		{"GET", checkPath + "//", "batch", ""},
		{"GET", checkPath + ";v=1", "batch", ""},
		{"GET", "/v1/x/.." + strings.TrimPrefix(checkPath, "/v1"), "batch", ""},
		{"GET", "/docs/../" + checkPath, "batch", ""},
		{"GET", "/docs/%2e%2e" + checkPath, "batch", ""},
		{"GET", "/%2e%2e" + checkPath, "batch", ""},
		{"GET", "/v1%2fcustomers%2f" + apitest.CustomerA + "%2feligibility", "batch", ""},
		{"GET", "/v1/customers/" + apitest.CustomerA + "%2feligibility", "batch", ""},
		{"GET", "/v1/customers/%31" + apitest.CustomerA[1:] + "/eligibility", "batch", ""},
		{"GET", "/V1/CUSTOMERS/" + apitest.CustomerA + "/ELIGIBILITY", "batch", ""},
		{"HEAD", checkPath, "batch", ""},
		{"GET", "http://localhost" + checkPath, "batch", ""},
		{"POST", checkPath, "batch", "X-HTTP-Method-Override: GET\r\n"},
		{"POST", checkPath, "batch", "Content-Type: application/x-www-form-urlencoded\r\n"},
		{"POST", checkPath, "batch", "Content-Type: application/x-www-form-urlencoded\r\nX-HTTP-Method-Override: GET\r\n"},
		{"get", checkPath, "batch", ""},
		{"GET", checkPath, "batch", "X-Original-URL: " + batchPath + "\r\nX-Forwarded-Prefix: /docs\r\n"},
		{"POST", batchPath, "check", ""},
		{"POST", batchPath + "/", "check", ""},
		{"POST", "/v1/customers%3abatchCheckEligibility", "check", ""},
		{"POST", "/v1/customers:BATCHCHECKELIGIBILITY", "check", ""},
		{"POST", "/v1/customers/" + apitest.CustomerA + "/eligibility:batchCheckEligibility", "check", ""},
		{"GET", batchPath, "check", "X-HTTP-Method-Override: POST\r\n"},
		{"POST", checkPath, "check", "X-HTTP-Method-Override: POST\r\n"},
		{"GET", "/openapi.json", "batch", ""},
		{"GET", "/openapi.json/", "batch", ""},
		{"GET", "//openapi.json", "batch", ""},
		{"GET", "/docs/docs.js", "batch", ""},
		{"GET", "/docs/%64ocs.js", "batch", ""},
		{"HEAD", "/docs/", "batch", ""},
		{"GET", "/", "batch", ""},
		{"OPTIONS", checkPath, "batch", ""},
		{"OPTIONS", "*", "batch", ""},
	} {
		got := exchangeHead(t, run, given.method, given.path, "Authorization: "+given.token+"\r\n"+given.header)
		if got < 300 || got >= 500 {
			t.Errorf("%s %s: %d", given.method, given.path, got)
		}
	}
	if records := run.Logs.FilterField(zap.String("code", "OK")).Len(); records > 0 {
		t.Errorf("%d requests were answered", records)
	}
}

// exchangeHead sends a request without a body as it is written, and returns the status.
func exchangeHead(t *testing.T, run *servertest.Running, method, target, header string) int {
	t.Helper()
	if method == http.MethodPost {
		header += "Content-Length: 2\r\n\r\n{}"
	} else {
		header += "\r\n"
	}
	status, _, _ := strings.Cut(strings.TrimPrefix(exchangeFor(t, run, method, method+" "+target+" HTTP/1.1\r\nHost: localhost\r\n"+header), "HTTP/1.1 "), " ")
	code, err := strconv.Atoi(status)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	return code
}

// A handler that goes on although its RPC was refused gets the refusal again.
func TestARefusedRPCOverRESTCannotBeCalled(t *testing.T) {
	t.Parallel()
	run := startFor(t, apitest.EachRight(), servertest.Setup{})
	in := &api.Inbound{Credentials: access.Credentials{Authorization: []string{"batch"}}}
	ctx := context.WithValue(t.Context(), api.InboundKey{}, in)
	info := &grpc.UnaryServerInfo{FullMethod: eligibilityv1.EligibilityService_CheckEligibility_FullMethodName}
	if err := run.Chain.BeginREST(ctx, info.FullMethod, in); status.Code(err) != codes.PermissionDenied {
		t.Fatalf("begin: %v", err)
	}
	_, err := run.Chain.Intercept(ctx, apitest.Ask(apitest.CustomerA), info, func(context.Context, any) (any, error) {
		t.Error("the handler was called")
		return nil, nil //nolint:nilnil // it must not be called
	})
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("intercept: %v", err)
	}
}
