package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"

	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

// asProgram is the variable that makes the test binary run as the program.
const asProgram = "TEST_AS_ELIGIBILITYD"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	quietLibraries()
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	err := goleak.Find()
	for range 3 { // go-redis takes a second to notice that a client was closed
		if err != nil {
			err = goleak.Find()
		}
	}
	if code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// patience bounds the wait for a condition that should hold at once.
const patience = 30 * time.Second

// output collects what a command prints; it may be read concurrently.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// await waits until found returns true for the output so far.
func (o *output) await(t *testing.T, what string, found func(printed string) bool) {
	t.Helper()
	eventually(t, what, func() bool { return found(o.String()) })
}

// eventually waits until holds returns true.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited %v in vain for: %s", patience, what)
		}
	}
}

// addresses are the listeners of a service under test.
type addresses struct {
	GRPC  string `json:"grpc"`
	HTTP  string `json:"http"`
	Admin string `json:"admin"`
	Probe string `json:"probe"`
}

// process is a command under test that serves until stop.
type process struct {
	addresses
	out, log *output
	stop     func() error
}

// start runs command and waits until it logs that it is serving.
func start(t *testing.T, command func(ctx context.Context, out, log io.Writer) error) *process {
	t.Helper()
	p := &process{out: new(output), log: new(output)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- command(ctx, p.out, p.log) }()
	p.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := p.stop(); err != nil {
			t.Errorf("the command ended with: %v", err)
		}
	})
	p.log.await(t, "the record that it serves", func(printed string) bool {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("the command ended at once: %v", err)
		default:
		}
		for line := range strings.SplitSeq(printed, "\n") {
			if strings.Contains(line, `"msg":"serving"`) && json.Unmarshal([]byte(line), &p.addresses) == nil {
				return true
			}
		}
		return false
	})
	return p
}

// anyPort returns variables for a service that listens on free ports and logs
// in a form that tests can parse.
func anyPort(more ...string) []string {
	return append([]string{
		"ELIGIBILITY_SERVER__GRPC__ADDRESS=127.0.0.1:0",
		"ELIGIBILITY_SERVER__HTTP__ADDRESS=127.0.0.1:0",
		"ELIGIBILITY_SERVER__ADMIN__ADDRESS=127.0.0.1:0",
		"ELIGIBILITY_LOG__FORMAT=json",
	}, more...)
}

func startDev(t *testing.T, more ...string) *process {
	t.Helper()
	return start(t, func(ctx context.Context, out, log io.Writer) error {
		return dev(ctx, anyPort(more...), "127.0.0.1:0", nil, out, log)
	})
}

// startGuarded runs dev with TLS and every method of auth but certificates. ca is the
// file of the authority to trust.
func startGuarded(t *testing.T, more ...string) (p *process, ca string, issuer *accesstest.Issuer) {
	t.Helper()
	authority := accesstest.NewAuthority(t)
	issuer = accesstest.NewIssuer(t)
	server := authority.Server(t)
	tokens := filepath.Join(t.TempDir(), "tokens.yaml")
	if err := os.WriteFile(tokens, []byte("[]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p = startDev(t, append(more,
		"ELIGIBILITY_SERVER__TLS__CERTIFICATE_FILE="+server.CertificateFile, "ELIGIBILITY_SERVER__TLS__KEY_FILE="+server.KeyFile,
		"ELIGIBILITY_AUTH__TOKENS_FILE="+tokens, "ELIGIBILITY_AUTH__JWT=[{issuer: "+issuer.URL+", audiences: [api://eligibilityd]}]")...)
	p.awaitReady(t) // before it has the issuer's keys, it refuses the issuer's tokens
	return p, authority.File, issuer
}

// startServe runs serve against a simulator at simulator.
func startServe(t *testing.T, simulator string, more ...string) *process {
	t.Helper()
	environ := toServe(t, simulator, more...)
	return start(t, func(ctx context.Context, out, log io.Writer) error {
		return serve(ctx, environ, "", false, out, log)
	})
}

// toServe returns the variables of a serve that uses the simulator at url.
func toServe(t *testing.T, url string, more ...string) []string {
	t.Helper()
	environ := pcsimtest.Environ(url, pcsimtest.TokenFile(t), more...)
	environ = withDefault(environ, "ELIGIBILITY_SERVER__DRAIN", "0s")
	return withDefault(environ, "ELIGIBILITY_PARTNER_CENTER__BUDGET_PER_MINUTE", "100000")
}

// awaitReady waits until the service reports that it is ready.
func (a addresses) awaitReady(t *testing.T) {
	t.Helper()
	eventually(t, "/readyz", func() bool {
		status, _, _ := get(t, "http://"+a.Admin+"/readyz")
		return status == http.StatusOK
	})
}

// ask sends one question over gRPC.
func (p *process) ask(t *testing.T, req *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
	t.Helper()
	conn, err := grpc.NewClient(p.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return eligibilityv1.NewEligibilityServiceClient(conn).CheckEligibility(ctx, req)
}

// sendJSON sends body to a URL. The test fails if it is refused.
func sendJSON(t *testing.T, method, url string, body any) {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if answer, _ := io.ReadAll(resp.Body); resp.StatusCode > http.StatusNoContent {
		t.Fatalf("%s %s: %s %s", method, url, resp.Status, answer)
	}
}

// get fetches a URL and returns status, header and body. The test fails if that takes
// longer than patience.
func get(t *testing.T, url string) (int, http.Header, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}
