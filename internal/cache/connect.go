package cache

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/eligibilityd/eligibilityd/internal/identity"
)

// RedisMode is how the servers of a [RedisConfig] hang together.
type RedisMode uint8

const (
	// RedisStandalone is one server, or a proxy that stands for several.
	RedisStandalone RedisMode = iota
	// RedisSentinel is a primary with replicas, of which sentinels choose the
	// primary; the addresses are theirs.
	RedisSentinel
	// RedisCluster is primaries that share the keys; the addresses are of some
	// nodes, which name the others.
	RedisCluster
)

// RedisConfig names the shared tier. Its zero value is none.
type RedisConfig struct {
	// Mode selects what Addresses point to: a server, its sentinels, or cluster nodes.
	Mode RedisMode
	// Addresses are host:port or, for RedisStandalone, unix:///path.
	Addresses []string
	Username  string
	Password  string
	// EntraID is the source of tokens that take the place of Username and
	// Password; nil means none. It needs TLS.
	EntraID *identity.Tokens
	// MasterName is what the sentinels call the primary. This and the next two
	// are for RedisSentinel only.
	MasterName string
	// SentinelUsername and SentinelPassword are for the sentinels, which do not
	// share the users of their servers.
	SentinelUsername string
	SentinelPassword string
	// TLS is for connections to all servers and sentinels; nil encrypts none.
	// Without ServerName a certificate must hold the host that is connected to.
	TLS *tls.Config
	// IntegrityKey authenticates what is written to Redis and sent through it.
	// If it is empty, every writer to Redis is trusted.
	IntegrityKey []byte
	// PreviousIntegrityKey is also accepted, while replicas still write with it.
	// Empty means none.
	PreviousIntegrityKey []byte
	// DB is the database number; a cluster has 0 only.
	DB int
	// KeyPrefix starts every key; empty means "eligibility".
	KeyPrefix string
	// Namespace separates the evidence of one partner in one cloud from that of others.
	Namespace string
	// ReadTimeout bounds a lookup as a whole, connecting included; 0 means 50 ms.
	ReadTimeout time.Duration
	// WriteTimeout bounds a write as a whole; 0 means 100 ms.
	WriteTimeout time.Duration
	// PoolSize bounds the connections to one server, subscriptions aside; 0 means
	// 20. Half of them are for reads, a quarter each for leases and for writes; at
	// least one each.
	PoolSize int
}

const (
	// dialTimeout bounds the opening of a connection, which continues if the caller
	// that needed it has run out of time.
	dialTimeout = time.Second
	// topologyAge is how old the client's map of a cluster may be. Only a node
	// that lives reports a change; after one that died, this is what finds the
	// new primary. Sentinels announce it, and are asked at each connection.
	topologyAge = 2 * time.Second
)

// withDefaults returns the configuration with its defaults, or an error that
// lists everything that is invalid.
func (c RedisConfig) withDefaults() (RedisConfig, error) {
	if c.KeyPrefix == "" {
		c.KeyPrefix = "eligibility"
	}
	if c.ReadTimeout == 0 {
		c.ReadTimeout = 50 * time.Millisecond
	}
	if c.WriteTimeout == 0 {
		c.WriteTimeout = 100 * time.Millisecond
	}
	if c.PoolSize == 0 {
		c.PoolSize = 20
	}
	var faults []error
	if c.ReadTimeout < 0 || c.WriteTimeout < 0 || c.PoolSize < 0 || c.DB < 0 {
		faults = append(faults, errors.New("cache: redis timeouts, pool size and database must not be negative"))
	}
	if c.EntraID != nil && (c.TLS == nil || c.Username != "" || c.Password != "") {
		faults = append(faults, errors.New("cache: redis by entra id needs TLS and has no other user or password"))
	}
	switch c.Mode {
	case RedisStandalone:
		if len(c.Addresses) != 1 {
			faults = append(faults, errors.New("cache: a standalone redis has one address"))
		}
	case RedisSentinel:
		if c.MasterName == "" {
			faults = append(faults, errors.New("cache: sentinels need the name of a primary"))
		}
	case RedisCluster:
		if c.DB != 0 {
			faults = append(faults, errors.New("cache: a redis cluster has database 0 only"))
		}
	default:
		faults = append(faults, errors.New("cache: unknown redis mode"))
	}
	return c, errors.Join(faults...)
}

// Connections are the connections to the shared tier that the stores of a process
// share. Reads, claims and writes have some of their own.
type Connections struct {
	reader, claimer, writer redis.UniversalClient
	subscriber              redis.UniversalClient // reader, unless entra is set
	entra                   *entra                // nil if the connections have a password

	warming sync.Mutex
	warmed  time.Time // when they were warmed last; guarded by warming
}

// Connect returns the connections of a configuration, whose Namespace has no
// effect. It opens none yet, and fails only if the RedisConfig is invalid.
func Connect(cfg RedisConfig) (*Connections, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if cfg.EntraID == nil {
		reader := newClient(cfg, readPool(cfg), nil)
		return &Connections{
			reader: reader, subscriber: reader, claimer: newClient(cfg, otherPool(cfg), nil), writer: newClient(cfg, otherPool(cfg), nil),
		}, nil
	}
	e := newEntra(cfg.EntraID)
	authenticate := func(options *redis.UniversalOptions) { e.authenticate(options, cfg.Mode) }
	return &Connections{
		reader: newClient(cfg, readPool(cfg), authenticate), claimer: newClient(cfg, otherPool(cfg), authenticate), writer: newClient(cfg, otherPool(cfg), authenticate),
		// go-redis authenticates no subscription again, and keeps each that had
		// asked for it in memory. The server ends it with its token; the next one
		// has a new token.
		subscriber: newClient(cfg, 1, e.connectOnly),
		entra:      e,
	}, nil
}

// clients are the clients whose connections are pooled.
func (c *Connections) clients() []redis.UniversalClient {
	return []redis.UniversalClient{c.reader, c.claimer, c.writer}
}

// Close ends the connections. No store may be using them any more.
func (c *Connections) Close() error {
	var faults []error
	for _, client := range c.clients() {
		faults = append(faults, client.Close())
	}
	if c.entra != nil {
		faults = append(faults, c.subscriber.Close())
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("cache: close redis clients: %w", err)
	}
	return nil
}

// NewClient returns a client as the shared tier uses it, for diagnosis. It opens no
// connection yet, and fails only if the RedisConfig is invalid. The caller closes
// the client.
func NewClient(cfg RedisConfig) (redis.UniversalClient, error) { //nolint:ireturn // one of two types, by mode
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if cfg.EntraID == nil {
		return newClient(cfg, cfg.PoolSize, nil), nil
	}
	return newClient(cfg, cfg.PoolSize, func(options *redis.UniversalOptions) {
		options.CredentialsProviderContext = func(ctx context.Context) (user, password string, err error) {
			token, err := cfg.EntraID.Get(ctx)
			return token.User, token.Value, err
		}
	}), nil
}

func readPool(cfg RedisConfig) int  { return max(cfg.PoolSize/2, 1) }
func otherPool(cfg RedisConfig) int { return max(cfg.PoolSize/4, 1) }

// newClient requires the result of withDefaults. authenticate may change the
// options; nil changes nothing.
func newClient(cfg RedisConfig, pool int, authenticate func(*redis.UniversalOptions)) redis.UniversalClient { //nolint:ireturn // one of two types, by mode
	options := universalOptions(cfg, pool)
	if authenticate != nil {
		authenticate(options)
	}
	switch cfg.Mode {
	case RedisSentinel:
		return redis.NewFailoverClient(options.Failover())
	case RedisCluster:
		return redis.NewClusterClient(clusterOptions(options))
	default:
		return redis.NewClient(options.Simple())
	}
}

// universalOptions sets every timeout and retry that go-redis has: its own
// defaults would multiply the budgets. A failed command is a miss at once;
// a retry would cost the caller more than it gains. Nothing is read from Redis
// replicas, which may lag behind and return older evidence.
func universalOptions(cfg RedisConfig, pool int) *redis.UniversalOptions {
	addresses := make([]string, len(cfg.Addresses))
	for i, address := range cfg.Addresses {
		addresses[i] = strings.TrimPrefix(address, "unix://") // go-redis takes the path
	}
	// Contexts bound each call; the client's own bounds must not be narrower.
	longest := max(cfg.ReadTimeout, cfg.WriteTimeout, lastResort)
	return &redis.UniversalOptions{
		Addrs:      addresses,
		MasterName: cfg.MasterName,
		// Version 3 adds messages between replies, which nothing here uses and the library
		// looks for before each of them.
		Protocol:              2,
		ClientName:            "eligibilityd",
		DisableIdentity:       true, // a command more at each connection, and one that users may not be allowed
		Username:              cfg.Username,
		Password:              cfg.Password,
		SentinelUsername:      cfg.SentinelUsername,
		SentinelPassword:      cfg.SentinelPassword,
		TLSConfig:             cfg.TLS,
		Dialer:                guardedDialer(cfg.TLS),
		DB:                    cfg.DB,
		MaxRetries:            -1,
		DialTimeout:           dialTimeout,
		DialerRetries:         1,
		DialerRetryTimeout:    time.Millisecond,
		ReadTimeout:           longest,
		WriteTimeout:          longest,
		ContextTimeoutEnabled: true,
		PoolSize:              pool,
		PipelinePoolSize:      -1, // a pool of its own for pipelines would go beyond PoolSize
		PoolTimeout:           longest,
		MinIdleConns:          0, // they would be connected in New, and authenticated in a caller's time
		ConnMaxIdleTime:       5 * time.Minute,
		ConnMaxLifetime:       time.Hour,
		MaintNotificationsConfig: &maintnotifications.Config{
			Mode: maintnotifications.ModeDisabled,
		},
	}
}

// clusterOptions adds what only a cluster has.
func clusterOptions(universal *redis.UniversalOptions) *redis.ClusterOptions {
	options := universal.Cluster()
	// Redirects are followed, and a command is tried on the new primary, as
	// long as its context allows.
	options.MaxRedirects = 3
	options.MinRetryBackoff = 5 * time.Millisecond
	options.MaxRetryBackoff = 20 * time.Millisecond
	options.ClusterStateReloadInterval = topologyAge
	// Routing by policy asks for the table of commands first, for up to five
	// seconds whatever the caller's context allows.
	options.DisableRoutingPolicies = true
	return options
}

// isCluster reports whether keys are spread over several servers.
func isCluster(client redis.UniversalClient) bool {
	_, is := client.(*redis.ClusterClient)
	return is
}
