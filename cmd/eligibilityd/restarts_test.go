package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/client"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

// restartDrain is the server.drain of replicas that are restarted. It is far below the
// default, so that a thousand restarts take minutes.
const restartDrain = 200 * time.Millisecond

// restarted is two replicas that are restarted in turn, each always at the same address.
type restarted struct {
	environ [2][]string
	running [2]*program
}

// startRestarted starts two replicas, whose customers may buy.
func startRestarted(t *testing.T, customers []string) (r *restarted, addresses string) {
	t.Helper()
	sim, on := pcsimtest.Start(t)
	for _, id := range customers {
		setAccount(t, sim, id, "Allowed")
	}
	r = new(restarted)
	grpc := make([]string, len(r.running))
	for i := range r.running {
		grpc[i] = fixedAddress(t)
		r.environ[i] = toServe(t, on.URL, "ELIGIBILITY_SERVER__GRPC__ADDRESS="+grpc[i], "ELIGIBILITY_SERVER__DRAIN="+restartDrain.String())
		r.running[i] = launch(t, nil, r.environ[i], "serve")
	}
	return r, strings.Join(grpc, ",")
}

// fixedAddress returns an address that is free, and that no outgoing connection gets:
// those have higher ports.
func fixedAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(20_000+rand.IntN(10_000)))
		if listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address); err == nil {
			_ = listener.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

// restart ends a replica by a signal, and starts it again.
func (r *restarted) restart(t *testing.T, i int, with os.Signal) {
	t.Helper()
	r.running[i].signal(t, with)
	if code := r.running[i].exits(t); with == syscall.SIGTERM && code != 0 {
		t.Fatalf("a replica ended with %d", code)
	}
	_ = r.running[i].stderr.Close()
	r.running[i] = launch(t, nil, r.environ[i], "serve")
}

// exampleShop is examples/shop, running.
type exampleShop struct {
	url     string
	visitor *http.Client

	mu     sync.Mutex
	causes map[string]int // of what it could not decide
}

// startShop starts examples/shop. It ends when the test does.
func startShop(t *testing.T, program string, args ...string) *exampleShop {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), program, append(args, "--listen", "127.0.0.1:0")...) //nolint:gosec // our own program
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatal("the shop prints nothing")
	}
	_, address, _ := strings.Cut(lines.Text(), "http://")
	shop := &exampleShop{
		url: "http://" + address, visitor: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}, Timeout: patience},
		causes: make(map[string]int),
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines.Scan() {
			var line struct{ Error string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Error != "" {
				shop.mu.Lock()
				shop.causes[line.Error]++
				shop.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() {
		shop.visitor.CloseIdleConnections()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-read
		if err := cmd.Wait(); err != nil {
			t.Errorf("the shop ended with: %v", err)
		}
	})
	return shop
}

// visits is what the visitors of a shop have seen.
type visits struct {
	mu     sync.Mutex
	all    int
	failed int // pages without an offer
	took   []time.Duration
}

// visit makes visits at a fixed rate, whether or not earlier ones have been answered,
// until ctx ends. offered makes one, and reports whether the customer may buy.
func visit(ctx context.Context, aSecond int, customers []string, offered func(customer string) bool) *visits {
	v := new(visits)
	var asking sync.WaitGroup
	began := time.Now()
	for n := 0; ctx.Err() == nil; n++ {
		select {
		case <-time.After(time.Until(began.Add(time.Duration(n) * time.Second / time.Duration(aSecond)))):
		case <-ctx.Done():
		}
		asking.Go(func() {
			asked := time.Now()
			ok := offered(customers[n%len(customers)])
			v.mu.Lock()
			defer v.mu.Unlock()
			v.all++
			v.took = append(v.took, time.Since(asked))
			if !ok {
				v.failed++
			}
		})
	}
	asking.Wait()
	return v
}

// offers reports whether the shop offers a product to a customer.
func (s *exampleShop) offers(customer string) bool {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, s.url+"/offer?sku=business&customer="+url.QueryEscape(customer), http.NoBody)
	if err != nil {
		return false
	}
	resp, err := s.visitor.Do(req)
	if err != nil {
		return false
	}
	defer func() { _ = resp.Body.Close() }()
	page, err := io.ReadAll(resp.Body)
	return err == nil && strings.Contains(string(page), `data-outcome="allowed"`)
}

// common returns the most frequent causes.
func (s *exampleShop) common() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	causes := slices.SortedFunc(maps.Keys(s.causes), func(a, b string) int { return s.causes[b] - s.causes[a] })
	var all strings.Builder
	for _, cause := range causes[:min(10, len(causes))] {
		fmt.Fprintf(&all, "\n%d × %s", s.causes[cause], cause)
	}
	return all.String()
}

// visitDuring makes visits of each kind while the replicas are restarted in turn, each a
// while after the other serves.
func (r *restarted) visitDuring(t *testing.T, restarts int, with os.Signal, after time.Duration, aSecond int, customers []string, offered ...func(customer string) bool) []*visits {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	defer end()
	seen := make([]*visits, len(offered))
	var visiting sync.WaitGroup
	for i, one := range offered {
		visiting.Go(func() { seen[i] = visit(ctx, aSecond, customers, one) })
	}
	for n := range restarts {
		r.restart(t, n%2, with)
		<-time.After(after)
	}
	end()
	visiting.Wait()
	return seen
}

func buyers(n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprintf("b0000000-0000-4000-8000-%012d", i))
	}
	return ids
}

// The replicas are restarted in turn, by a deployment and by a crash, and no call of the
// client fails. make acceptance-deploy does so a thousand times, with the shop.
func TestNoCallerNoticesRestarts(t *testing.T) {
	t.Parallel()
	customers := buyers(10)
	replicas, addresses := startRestarted(t, customers)
	asker, err := client.New(addresses, client.Config{Insecure: true, Timeout: patience}) // on a busy machine
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = asker.Close() })
	asks := func(customer string) bool {
		verdict := asker.Check(context.Background(), client.Request{CustomerID: customer})
		if !verdict.Allowed() {
			t.Errorf("%v: %v", verdict.Outcome(), verdict.Err())
		}
		return verdict.Allowed()
	}
	for _, with := range []os.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if seen := replicas.visitDuring(t, 4, with, 0, 100, customers, asks)[0]; seen.failed > 0 || seen.all == 0 {
			t.Errorf("%v: %d of %d calls failed", with, seen.failed, seen.all)
		}
	}
}

// The shop, as it is built, sells to customers of dev, and ends in an orderly way.
func TestTheShopSellsToCustomersOfDev(t *testing.T) {
	t.Parallel()
	service := startDev(t)
	shop := startShop(t, buildExample(t, "shop"), "--insecure", "--address", service.GRPC)
	if !shop.offers(allowedID) {
		t.Errorf("the shop offers nothing to %s:%s", allowedID, shop.common())
	}
	if shop.offers(underReviewID) {
		t.Errorf("the shop offers a product to %s", underReviewID)
	}
}
