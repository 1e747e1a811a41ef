//go:build acceptance

package main

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

// build builds the program as it is installed.
func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "eligibilityd")
	if printed, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput(); err != nil { //nolint:gosec // a file of the test
		t.Fatalf("%v\n%s", err, printed)
	}
	return binary
}

// The login host is down for a minute in which the early renewal is due. Every
// answer needs Partner Center, and none fails.
func TestAcceptanceALoginHostThatIsDownIsNotNoticed(t *testing.T) {
	t.Parallel()
	const (
		lifetime = 100 * time.Second // early renewal after 75 s
		downFrom = 35 * time.Second
		downTo   = downFrom + time.Minute
		watch    = 110 * time.Second
	)
	far := startWitness(t, pcsim.Config{TokenLifetime: lifetime})
	began := time.Now()
	client := eligibilityv1.NewEligibilityServiceClient(startServe(t, far.url).dial(t))
	script := func(steps ...pcsim.Step) {
		t.Helper()
		if err := far.ScriptTokens(steps...); err != nil {
			t.Fatal(err)
		}
	}
	var took times
	down := false
	for time.Since(began) < watch {
		switch since := time.Since(began); {
		case !down && since >= downFrom && since < downTo:
			down = true
			script(pcsim.Step{Failure: pcsim.FailureReset})
		case down && since >= downTo:
			down = false
			script()
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		asked := time.Now()
		resp, err := client.CheckEligibility(ctx, &eligibilityv1.CheckEligibilityRequest{
			CustomerId: allowedID, MaxAge: durationpb.New(0),
		})
		cancel()
		took = append(took, time.Since(asked))
		if err != nil || resp.GetStale() || resp.GetSource() != eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_PARTNER_CENTER {
			t.Errorf("after %v: %v, %v", time.Since(began), resp, err)
		}
		pause(t.Context(), 50*time.Millisecond)
	}
	failed := 0
	for _, one := range far.requests(true) {
		t.Logf("token request after %v: status %d", one.came.Sub(began).Round(10*time.Millisecond), one.status)
		if one.status == 0 {
			failed++
		}
	}
	t.Logf("callers: %v", took)
	if failed == 0 || failed > 6 { // two renewals of three attempts
		t.Errorf("%d token requests in vain", failed)
	}
	if p99 := took.quantile(0.99); p99 > time.Second {
		t.Errorf("callers waited: p99 %v", p99)
	}
}

// rotation is a login host that is stricter than Microsoft's: a refresh token
// works until its successor is used. At Microsoft, all keep working.
type rotation struct {
	*pcsim.Server

	mu     sync.Mutex
	parent map[string]string // refresh token → its predecessor; guarded by mu
	dead   map[string]bool   // guarded by mu
	newest string            // guarded by mu
	grants chan struct{}     // one for each answer in flight
}

func (r *rotation) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if !strings.HasSuffix(req.URL.Path, "/token") || req.ParseForm() != nil {
		r.Handler().ServeHTTP(w, req)
		return
	}
	used := req.PostForm.Get("refresh_token")
	if !r.use(used) {
		http.Error(w, `{"error":"invalid_grant","error_codes":[50173]}`, http.StatusBadRequest)
		return
	}
	answer := httptest.NewRecorder()
	r.Handler().ServeHTTP(answer, req)
	var granted struct {
		RefreshToken string `json:"refresh_token"`
	}
	_ = json.Unmarshal(answer.Body.Bytes(), &granted) // or there is none
	r.mu.Lock()
	r.parent[granted.RefreshToken], r.newest = used, granted.RefreshToken
	r.mu.Unlock()
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
	_ = http.NewResponseController(w).Flush()
	r.grants <- struct{}{}
}

// use reports whether a token works, and if so invalidates its predecessors.
func (r *rotation) use(token string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for old, ok := r.parent[token]; ok && !r.dead[old]; old, ok = r.parent[old] {
		r.dead[old] = true
	}
	return !r.dead[token]
}

// knows returns the state of a token at the login host.
func (r *rotation) knows(token string) (isNewest, isItsParent, works bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, given := r.parent[token]
	return token == r.newest, token == r.parent[r.newest], !r.dead[token] && (given || token == pcsim.DefaultRefreshToken)
}

// killed starts the program and kills it some time after it was granted its
// n-th token.
func killed(t *testing.T, binary string, environ []string, far *rotation, n int, after time.Duration) {
	t.Helper()
	var printed output
	cmd := exec.CommandContext(t.Context(), binary, "serve")
	cmd.Env, cmd.Stderr = append(os.Environ(), environ...), &printed
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	asking, stop := context.WithCancel(t.Context())
	var caller sync.WaitGroup
	if n > 1 { // a token is fetched only if it is needed
		caller.Go(func() { keepAsking(asking, &printed) })
	}
	for range n {
		select {
		case <-far.grants:
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			t.Fatalf("no token was granted:\n%s", printed.String())
		}
	}
	pause(asking, after)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the program ended by itself: %v\n%s", err, printed.String())
	}
	stop()
	caller.Wait()
	for len(far.grants) > 0 { // of answers that nobody received
		<-far.grants
	}
}

// keepAsking sends checks to the service with that log, whether or not they
// succeed.
func keepAsking(ctx context.Context, log *output) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for pause(ctx, 10*time.Millisecond) {
		var at addresses
		for line := range strings.SplitSeq(log.String(), "\n") {
			if strings.Contains(line, `"msg":"serving"`) && json.Unmarshal([]byte(line), &at) == nil {
				break
			}
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet,
			"http://"+at.HTTP+"/v1/customers/"+allowedID+"/eligibility?max_age=0s", http.NoBody)
		if err != nil {
			continue
		}
		if resp, err := client.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}
}

// If the program is killed at any time, the file holds the newest refresh token
// or its predecessor: only the answer in flight can be lost.
func TestAcceptanceAKilledProcessLeavesAUsableRefreshToken(t *testing.T) {
	const kills = 200
	sim, err := pcsim.New(pcsim.Config{TokenLifetime: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	far := &rotation{Server: sim, parent: map[string]string{}, dead: map[string]bool{}, grants: make(chan struct{}, 100)}
	on := httptest.NewServer(far)
	t.Cleanup(func() {
		sim.Close()
		on.Close()
	})
	binary, file := build(t), pcsimtest.TokenFile(t)
	environ := pcsimtest.Environ(on.URL, file, "ELIGIBILITY_SERVER__DRAIN=0s")
	var newest, older int
	before := pcsim.DefaultRefreshToken
	for i := range kills {
		n := 1 + min(i%4, 1)
		killed(t, binary, environ, far, n, rand.N(12*time.Millisecond))
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		switch isNewest, isItsParent, works := far.knows(string(content)); {
		case !works:
			t.Fatalf("kill %d: the %d bytes that the file holds are no token that works", i, len(content))
		case isNewest:
			newest++
		case isItsParent:
			older++
		default:
			t.Fatalf("kill %d: the file holds an old token", i)
		}
		if n > 1 && string(content) == before {
			t.Fatalf("kill %d: of %d tokens that were granted none was stored", i, n)
		}
		before = string(content)
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("kill %d: %v, %v", i, info, err)
		}
	}
	left, err := os.ReadDir(filepath.Dir(file))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d kills while %d refresh tokens were given: the file held the newest %d times, the one it was asked for with %d times",
		kills, len(far.parent), newest, older)
	t.Logf("the directory holds %d files", len(left))
	killed(t, binary, environ, far, 1, 0) // works once more
}
