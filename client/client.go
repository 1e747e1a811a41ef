// Package client asks eligibilityd whether customers may buy.
//
// [New] connects to all replicas of a service, [Client.Check] asks about one customer,
// [Client.CheckBatch] about many, and [Client.Watch] receives changes. An answer is a
// [Verdict]: allowed, blocked or undecided. Sell if [Verdict.Allowed] returns true, and
// never otherwise: whatever fails, the verdict is undecided.
//
// For the tests of callers, package eligibilitytest runs the real service.
package client

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // the health checks of serviceConfig
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// serviceConfig spreads calls over all replicas that report themselves healthy.
const serviceConfig = `{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": "eligibility.v1.EligibilityService"}}`

const (
	defaultTimeout = 2 * time.Second
	// defaultAttempts is how many fit into defaultTimeout if connections keep breaking.
	defaultAttempts = 6
	// maxResponseBytes is enough for a batch of 1,000 answers with long texts.
	maxResponseBytes = 16 << 20
)

// Config tunes a [Client]. Its zero value is the documented default.
type Config struct {
	// TLS verifies the service, and may hold the caller's own certificate; nil means
	// the system's authorities and no certificate.
	TLS *tls.Config
	// Insecure connects in plain text. Neither TLS nor Token may be set.
	Insecure bool
	// Token returns the token that a call sends; nil means none. It is called for each
	// attempt and must be safe for concurrent use. See [StaticToken] and [TokenFile].
	Token func(ctx context.Context) (string, error)
	// Timeout bounds a Check, its retries included, if the context has no deadline; 0
	// means 2 s.
	Timeout time.Duration
	// Attempts is how often a call is made at most; 0 means 6, and 1 no retries.
	Attempts int
	// Language is the language of the messages in answers, such as "de" or "fr, en;q=0.5";
	// empty means English. The metadata accept-language of a context takes precedence.
	Language string
	// DialOptions are added to those of the client: a stats handler for traces, for example.
	DialOptions []grpc.DialOption
}

// Client asks a service. It is safe for concurrent use.
type Client struct {
	conn *grpc.ClientConn
	api  eligibilityv1.EligibilityServiceClient
	cfg  Config
}

// New returns a client of the service at target: HOST:PORT, where HOST has an address
// for each replica, several such separated by commas, or a target in gRPC's own syntax.
// It connects when it is first used, and until Close. It returns an error if target or
// cfg is impossible.
func New(target string, cfg Config) (*Client, error) {
	switch {
	case cfg.Insecure && cfg.TLS != nil:
		return nil, errors.New("eligibility client: Insecure and TLS exclude each other")
	case cfg.Insecure && cfg.Token != nil:
		return nil, errors.New("eligibility client: a token is not sent in plain text: use TLS")
	case cfg.Timeout < 0 || cfg.Attempts < 0:
		return nil, errors.New("eligibility client: Timeout and Attempts must not be negative")
	}
	cfg.Timeout, cfg.Attempts = cmp.Or(cfg.Timeout, defaultTimeout), cmp.Or(cfg.Attempts, defaultAttempts)
	transport := insecure.NewCredentials()
	if !cfg.Insecure {
		transport = credentials.NewTLS(cfg.TLS)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(serviceConfig), grpc.WithDisableServiceConfig(), // not another one from DNS
		grpc.WithDisableRetry(), // by code alone: Client.retry looks at the reason
		// Far sooner than by gRPC's default, so that a replica which was restarted is in use
		// before the next one stops.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(maxResponseBytes)),
		// No more often than the service permits, which is every 10 s.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 15 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithUserAgent("eligibilityd-client/" + version()),
	}
	if cfg.Token != nil {
		options = append(options, grpc.WithPerRPCCredentials(tokens(cfg.Token)))
	}
	if strings.Contains(target, ",") {
		replicas, err := listed(target)
		if err != nil {
			return nil, err
		}
		options, target = append(options, grpc.WithResolvers(replicas)), replicas.Scheme()+":///eligibilityd"
	}
	conn, err := grpc.NewClient(target, append(options, cfg.DialOptions...)...)
	if err != nil {
		return nil, fmt.Errorf("eligibility client: %w", err)
	}
	return &Client{conn: conn, api: eligibilityv1.NewEligibilityServiceClient(conn), cfg: cfg}, nil
}

// listed resolves to the replicas of a list. Each is verified by its own name.
func listed(target string) (*manual.Resolver, error) {
	var state resolver.State
	for address := range strings.SplitSeq(target, ",") {
		address = strings.TrimSpace(address)
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("eligibility client: %w", err)
		}
		state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: address, ServerName: host}}})
	}
	replicas := manual.NewBuilderWithScheme("replicas")
	replicas.InitialState(state)
	return replicas, nil
}

// Close closes the connections. Calls in progress end undecided.
func (c *Client) Close() error { return c.conn.Close() }

// outgoing returns ctx with the metadata of a call.
func (c *Client) outgoing(ctx context.Context) context.Context {
	sent, _ := metadata.FromOutgoingContext(ctx)
	if c.cfg.Language == "" || len(sent.Get("accept-language")) > 0 {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "accept-language", c.cfg.Language)
}

// version is that of this module in the program; devel if it is not known.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == "github.com/eligibilityd/eligibilityd/client" {
				return module.Version
			}
		}
	}
	return "devel"
}
