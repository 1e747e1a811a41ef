//go:build acceptance

package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

// The attack suite: each row is one attack on the real program, over gRPC and REST.
// The table of docs/security.md is what the rows have received.
func TestAcceptanceAccess(t *testing.T) { //nolint:paralleltest // it measures
	table := new(attacks)
	for _, section := range []struct {
		name string
		run  func(t *testing.T, table *attacks)
	}{
		{"Start", attackStart},
		{"Credentials", attackCredentials},
		{"Methods", attackMethods},
		{"Connections", attackConnections},
		{"Callers", attackCallers},
		{"Replacements", attackReplacements},
	} {
		t.Run(section.name, func(t *testing.T) { section.run(t, table) })
	}
	if chosen := flag.Lookup("test.run"); !t.Failed() && !strings.Contains(chosen.Value.String(), "/") {
		table.document(t)
	}
}

// attacks are the rows of the table.
type attacks struct{ rows []string }

// begin starts a section of the table.
func (a *attacks) begin(title string) {
	a.rows = append(a.rows, "", "**"+title+"**", "", "| attack | over gRPC | over REST |", "|---|---|---|")
}

// add adds a row: what was sent, and what came back.
func (a *attacks) add(t *testing.T, name, grpc, rest string) {
	t.Helper()
	row := fmt.Sprintf("| %s | %s | %s |", strings.ReplaceAll(name, "|", `\|`), grpc, rest)
	a.rows = append(a.rows, row)
	t.Log(row)
}

// The table stands between these lines of docs/security.md.
const tableBegins, tableEnds = "<!-- attacks: make acceptance-access writes this with UPDATE_REFERENCE=1 -->\n", "<!-- /attacks -->\n"

// document compares the table with docs/security.md, or writes it.
func (a *attacks) document(t *testing.T) {
	t.Helper()
	path := filepath.Join("..", "..", "docs", "security.md")
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), tableBegins)
	former, after, also := strings.Cut(rest, tableEnds)
	if !ok || !also {
		t.Fatalf("%s has no place for the table", path)
	}
	table := strings.TrimPrefix(strings.Join(append(a.rows, "", ""), "\n"), "\n")
	switch {
	case former == table:
	case os.Getenv("UPDATE_REFERENCE") != "":
		if err := os.WriteFile(path, []byte(before+tableBegins+table+tableEnds+after), 0o644); err != nil { //nolint:gosec // a document
			t.Fatal(err)
		}
	default:
		t.Errorf("the table of %s is out of date; run make acceptance-access with UPDATE_REFERENCE=1. The rows are\n%s", path, table)
	}
}

const (
	audience    = accesstest.Audience
	tenant      = "70000000-0000-4000-8000-00000000000a"
	fixedRefuse = "The caller could not be authenticated."
	fixedDeny   = "The caller does not have the right that this request needs."
	checkMethod = "/eligibility.v1.EligibilityService/CheckEligibility"
	batchMethod = "/eligibility.v1.EligibilityService/BatchCheckEligibility"
	checkPath   = "/v1/customers/" + allowedID + "/eligibility"
	batchPath   = "/v1/customers:batchCheckEligibility"
)

// target is the program under attack, and all that it needs.
type target struct {
	*process

	probe   string // the address of the probe listener
	sim     simulated
	ca      *accesstest.Authority // of the server and its clients
	dir     string                // of its files: tls.crt, tls.key, ca.crt and tokens.yaml
	issuer  *issuer
	pid     int
	under   []string // the words that start the program, if there are any
	environ []string // its further variables
}

// guardedConfig is the configuration of a target. The numbers are the files, the
// issuer, the simulator and its secrets, Redis, and further keys.
const guardedConfig = `
server:
  grpc: {address: '127.0.0.1:0'}
  http: {address: '127.0.0.1:0'}
  admin: {address: '127.0.0.1:0'}
  probe: {address: '127.0.0.1:0'}
  tls: {certificate_file: '%[1]s/tls.crt', key_file: '%[1]s/tls.key', client_ca_file: '%[11]s'}
  drain: 0s
%[9]s
auth:
  certificates:
  - {caller: machine, uri: 'spiffe://shop.example/checkout'}
  - {caller: till, dns: till.shop.example}
  tokens_file: '%[1]s/tokens.yaml'
  jwt:
  - issuer: '%[2]s'
    audiences: [` + audience + `]
    rights: {Eligibility.Check: [check, fresh], Eligibility.Batch: [batch], Eligibility.Support: [support]}
    require: {tid: ` + tenant + `, idtyp: app}
  callers:
    machine: {rights: [check, fresh]}
    till: {rights: [check]}
partner_center:
  base_url: '%[3]s'
  authority: '%[3]s'
  tenant_id: %[4]s
  client_id: %[5]s
  client_secret: %[6]s
  refresh_token_file: '%[7]s'
  budget_per_minute: 100000
cache:
  redis: {addresses: ['%[8]s'], read_timeout: 1s, write_timeout: 1s}
log: {format: json}
%[10]s`

// startTarget starts the program with TLS and every method of auth. Server adds keys
// to server, and top adds sections.
func startTarget(t *testing.T, server, top string) *target {
	t.Helper()
	x := new(target)
	x.init(t)
	x.restart(t, cachetest.StartRedis(t).Address, server, top)
	return x
}

// init makes all that x needs.
func (x *target) init(t *testing.T) {
	t.Helper()
	x.sim, x.ca, x.dir, x.issuer = simulateApart(t), accesstest.NewAuthority(t), t.TempDir(), startIssuer(t)
	installServer(t, x.ca, x.dir)
	if err := os.WriteFile(filepath.Join(x.dir, "tokens.yaml"), []byte("[]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// restart starts another process over the same files.
func (x *target) restart(t *testing.T, redis, server, top string) {
	t.Helper()
	config := filepath.Join(t.TempDir(), "config.yaml")
	text := fmt.Sprintf(guardedConfig, x.dir, x.issuer.URL, x.sim.api, pcsim.DefaultTenantID, pcsim.DefaultClientID, pcsim.DefaultClientSecret,
		pcsimtest.TokenFile(t), redis, server, top, x.ca.File)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	x.process, x.pid = startUnder(t, x.under, x.environ, "serve", "--config", config)
	for line := range strings.SplitSeq(x.log.String(), "\n") {
		var serving struct{ Msg, Probe string }
		if json.Unmarshal([]byte(line), &serving) == nil && serving.Msg == "serving" {
			x.probe = serving.Probe
		}
	}
	// Keys are fetched in the background, and no caller waits for them.
	eventually(t, "a valid token to be accepted", func() bool {
		return x.rest(nil, httpRequest("GET", checkPath, bearerLine(x.issuer.valid().token))).status == http.StatusOK
	})
}

// startUnder runs the program as a separate process, started by the words of under
// if there are any.
func startUnder(t *testing.T, under, environ []string, args ...string) (p *process, pid int) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	words := append(append(append([]string{}, under...), program), args...)
	cmd := exec.CommandContext(context.Background(), words[0], words[1:]...) //nolint:gosec // the test's own binary
	cmd.Env = append(append(os.Environ(), environ...), asProgram+"=1")
	p = start(t, func(ctx context.Context, out, log io.Writer) error {
		cmd.Stdout, cmd.Stderr = out, log
		if err := cmd.Start(); err != nil {
			return err
		}
		defer context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })()
		return cmd.Wait()
	})
	return p, cmd.Process.Pid
}

// simulated is a simulator in a process of its own.
type simulated struct{ api, control string }

func simulateApart(t *testing.T, args ...string) simulated {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out := new(output)
	args = append([]string{"simulate", "--address", "127.0.0.1:0", "--control-address", "127.0.0.1:0"}, args...)
	cmd := exec.CommandContext(context.Background(), program, args...) //nolint:gosec // the test's own binary
	cmd.Env, cmd.Stdout = append(os.Environ(), asProgram+"=1"), out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	printed := regexp.MustCompile(`(?s)authority: +(http://\S+).*control API: +(http://[^/\s]+)`)
	var found []string
	out.await(t, "the simulator's addresses", func(text string) bool {
		found = printed.FindStringSubmatch(text)
		return found != nil
	})
	return simulated{found[1], found[2]}
}

// stats counts the calls to Partner Center since the start.
func (s simulated) stats(t *testing.T) (stats pcsim.Stats) {
	t.Helper()
	_, _, body := get(t, s.control+"/v1/stats")
	if err := json.Unmarshal([]byte(body), &stats); err != nil {
		t.Fatal(err)
	}
	return stats
}

// put scripts a customer.
func (s simulated) put(t *testing.T, c pcsim.Customer) {
	t.Helper()
	s.do(t, http.MethodPut, "/v1/customers/"+c.ID, c)
}

// do sends a request with a body to the control API.
func (s simulated) do(t *testing.T, method, path string, body any) {
	t.Helper()
	sendJSON(t, method, s.control+path, body)
}

// tls returns the configuration of a client of x with that certificate, if any.
func (x *target) tls(with *pair) *tls.Config {
	cfg := x.ca.ClientTLS(nil)
	cfg.ServerName = "localhost"
	if with != nil {
		// Also if the server accepts only other authorities.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return with, nil }
	}
	return cfg
}

// grpc sends the header of an RPC, and the message if there is one. An answer to a
// header alone comes before the message was examined.
func (x *target) grpc(with *pair, method string, message []byte, fields ...string) answer {
	conn, err := openH2(x.GRPC, x.tls(with))
	if err != nil {
		return closedBy(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.call(false, method, fields...); err != nil {
		return closedBy(err)
	}
	if message != nil {
		if err := conn.send(message); err != nil {
			return closedBy(err)
		}
	}
	return conn.receive()
}

// rest sends a request as it stands.
func (x *target) rest(with *pair, request string) answer {
	return sendHTTP(x.HTTP, x.tls(with), request)
}

func bearerLine(token string) string { return "Authorization: Bearer " + token }

// metric returns the sum of the series of p whose name and labels contain all words.
func (p *process) metric(t *testing.T, words ...string) (sum float64) {
	t.Helper()
	_, _, text := get(t, "http://"+p.Admin+"/metrics")
line:
	for line := range strings.SplitSeq(text, "\n") {
		for _, word := range words {
			if strings.HasPrefix(line, "#") || !strings.Contains(line, word) {
				continue line
			}
		}
		var value float64
		if _, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &value); err == nil {
			sum += value
		}
	}
	return sum
}

// answers reports that x answers on every listener: a warm check over gRPC and REST,
// the probe and the admin listener.
func (x *target) answers() error {
	token := x.issuer.valid().token
	if a := x.grpc(nil, checkMethod, message(about(allowedID)), "authorization", "Bearer "+token); a.code != 0 {
		return fmt.Errorf("a check over gRPC: %+v", a)
	}
	if a := x.rest(nil, httpRequest("GET", checkPath, bearerLine(token))); a.status != http.StatusOK {
		return fmt.Errorf("a check over REST: %+v", a)
	}
	return x.probed()
}

// probed reports that the probe and the admin listener answer.
func (x *target) probed() error {
	var faults []error
	for _, url := range []string{"http://" + x.probe + "/healthz", "http://" + x.probe + "/metrics", "http://" + x.Admin + "/healthz"} {
		client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get(url) //nolint:noctx // the client has a timeout
		if err != nil {
			faults = append(faults, err)
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			faults = append(faults, fmt.Errorf("%s: %s", url, resp.Status))
		}
	}
	return errors.Join(faults...)
}
