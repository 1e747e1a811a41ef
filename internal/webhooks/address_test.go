package webhooks_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/eligibilityd/eligibilityd/internal/webhooks"
)

func TestMain(m *testing.M) {
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"} {
		_ = os.Setenv(name, "http://127.0.0.1:1") // not used: TestNamesThatChange sees the look-ups
	}
	// go-redis takes a second to notice that a client was closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

func TestAddressesThatMayBeConnectedTo(t *testing.T) {
	t.Parallel()
	const never, private, always = 0, 1, 2
	for address, want := range map[string]int{
		"8.8.8.8": always, "2606:4700::1111": always, "::ffff:8.8.8.8": always, "64:ff9b::808:808": always, "2002:808:808::1": always,

		"10.0.0.1": private, "172.16.0.1": private, "172.31.255.255": private, "192.168.1.1": private, "100.64.0.1": private, "100.127.255.255": private,
		"198.18.0.1": private, "fc00::1": private, "fd12:3456::1": private, "::ffff:10.0.0.1": private, "64:ff9b::a00:1": private, "64:ff9b:1::808:808": private,
		"2002:a00:1::1": private, "::a00:1": private,

		"127.0.0.1": never, "127.255.255.254": never, "::1": never, "::ffff:127.0.0.1": never, "64:ff9b::7f00:1": never, "::7f00:1": never, "2002:7f00:1::": never,
		"0.0.0.0": never, "0.1.2.3": never, "::": never, "169.254.169.254": never, "::ffff:169.254.169.254": never, "64:ff9b::a9fe:a9fe": never, "fe80::1": never,
		"fe80::1%eth0": never, "168.63.129.16": never, "100.100.100.200": never, "fd00:ec2::254": never, "fd00:ec2::23": never, "fd20:ce::254": never, "64:ff9b:1::a9fe:a9fe": never, "64:ff9b:1::7f00:1": never,
		"192.0.0.192": never, "224.0.0.1": never, "ff02::1": never,
		"255.255.255.255": never, "240.0.0.1": never, "2001::1": never,
	} {
		a := netip.MustParseAddr(address)
		for _, allowPrivate := range []bool{false, true} {
			permits := webhooks.AddressRule{Private: allowPrivate}.Permits(a)
			if permits != (want == always || want == private && allowPrivate) {
				t.Errorf("%s with private %v: %v", address, allowPrivate, permits)
			}
		}
	}
	if (webhooks.AddressRule{}).Permits(netip.Addr{}) {
		t.Error("no address is permitted")
	}
	for address, want := range map[string]bool{"127.0.0.1": true, "::1": true, "::ffff:127.0.0.1": true, "8.8.8.8": false, "10.0.0.1": false} {
		if permits := webhooks.RuleFor("http://localhost:80", true).Permits(netip.MustParseAddr(address)); permits != want {
			t.Errorf("%s for a loopback host: %v", address, permits)
		}
	}
}

// nameServer answers each query for an address with the next of answers, and the last
// for ever.
func nameServer(t *testing.T, answers ...string) (resolver *net.Resolver, queries *atomic.Int64) {
	t.Helper()
	conn, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	queries = new(atomic.Int64)
	go func() {
		packet := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(packet)
			if err != nil {
				return
			}
			var query dnsmessage.Message
			if query.Unpack(packet[:n]) != nil {
				continue
			}
			answer := dnsmessage.Message{Header: dnsmessage.Header{ID: query.ID, Response: true}, Questions: query.Questions}
			if query.Questions[0].Type == dnsmessage.TypeA {
				next := answers[min(int(queries.Add(1)), len(answers))-1]
				answer.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: query.Questions[0].Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET},
					Body:   &dnsmessage.AResource{A: netip.MustParseAddr(next).As4()},
				}}
			}
			if packed, err := answer.Pack(); err == nil {
				_, _ = conn.WriteTo(packed, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, conn.LocalAddr().String())
	}}, queries
}

// A name that resolves to a public address when it is checked, and to a private one
// when it is connected to, is the attack that a check in advance misses.
func TestNamesThatChange(t *testing.T) {
	t.Parallel()
	var reached atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	resolver, queries := nameServer(t, "8.8.8.8", "127.0.0.1")
	cfg := configOf(newFeed(), webhooks.NewMemory())
	cfg.URL = "http://orders.shop.example:" + u.Port() // the configuration accepts https only; the rule is that of addresses
	cfg.AllowPrivate = true
	checked, err := resolver.LookupNetIP(t.Context(), "ip4", "orders.shop.example.")
	if err != nil || !webhooks.RuleFor(cfg.URL, cfg.AllowPrivate).Permits(checked[0]) {
		t.Fatal(checked, err)
	}
	outcome, _, _, err := webhooks.NewWithResolver(cfg, resolver).Attempt(t.Context(), "id", nil)
	if outcome != "address_not_permitted" || reached.Load() != 0 {
		t.Errorf("%s (%v), and %d requests reached the receiver", outcome, err, reached.Load())
	}
	if queries.Load() < 2 {
		t.Errorf("%d look-ups: was the name resolved by a proxy?", queries.Load())
	}
}
