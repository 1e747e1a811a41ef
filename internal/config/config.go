// Package config reads the configuration of eligibilityd.
//
// The structs below are the operator's manual: the comment of every field
// defines its meaning, its unit, its default, whether it is optional and which
// keys it conflicts with. The yaml tags, joined by dots, are the keys.
//
// A configuration is the defaults, overlaid by one YAML file, overlaid by the
// environment. Every key can be given in the environment as ELIGIBILITY_ and
// its path in upper case, levels joined by two underscores:
// partner_center.client_id is ELIGIBILITY_PARTNER_CENTER__CLIENT_ID. A hyphen
// in the name of a partner is one underscore there. Lists are
// comma separated there, and a variable that is set but empty sets the key to
// empty. Durations are written as Go writes them: 250ms, 3s, 10m, 24h.
//
// Reading is strict: unknown keys and variables, repeated keys, wrong types and
// values out of range are faults, and Load reports all of them at once. No
// fault ever shows the value of a secret.
package config

import "time"

// Config is one whole configuration. [Default] fills every field that has a
// default; the zero Config is not usable.
type Config struct {
	// Server configures the listeners and the limits of calls.
	Server Server `yaml:"server"`
	// Auth configures how callers prove who they are, and what each may do.
	Auth Auth `yaml:"auth"`
	// Console configures the pages for support.
	Console Console `yaml:"console"`
	// Limits configures how much each caller may ask.
	Limits Limits `yaml:"limits"`
	// Partners are the partners whose customers are checked, by name: 1 to 32 of
	// a-z, 0-9 and hyphens. Each has every key of partner_center, its own or of
	// partner_defaults. serve requires one partner. Conflicts with
	// partner_center, which is the short form of one partner called "default".
	// After Load they are in the order of their names, in either form.
	Partners []Partner `yaml:"partners"`
	// DefaultPartner is the name of the partner that a request means if it names
	// none. Optional; the only partner, or none if there are several. After Load
	// it holds the name in either case.
	DefaultPartner string `yaml:"default_partner"`
	// Cache configures the tiers that keep evidence, and how long it counts.
	Cache Cache `yaml:"cache"`
	// Feed configures the feed of changes.
	Feed Feed `yaml:"feed"`
	// Watch configures the streams of changes.
	Watch Watch `yaml:"watch"`
	// Reviews configures the checks of customers under review.
	Reviews Reviews `yaml:"reviews"`
	// Webhooks are called with the changes of a partner's customers; at most 32.
	// Optional; none.
	Webhooks []Webhook `yaml:"webhooks"`
	// Policy holds the partner's decisions if Microsoft's answer leaves room.
	Policy Policy `yaml:"policy"`
	// Log configures the log on standard error.
	Log Log `yaml:"log"`
	// DecisionLog configures the record of each answer.
	DecisionLog DecisionLog `yaml:"decision_log"`
	// Tracing configures the export of spans.
	Tracing Tracing `yaml:"tracing"`
	// Metrics configures the export of metrics, beside /metrics.
	Metrics Metrics `yaml:"metrics"`
}

// Server holds the listeners and the limits of their calls.
type Server struct {
	// GRPC is the listener for gRPC, health and reflection included.
	// Optional; 127.0.0.1:9090.
	GRPC Listener `yaml:"grpc"`
	// HTTP is the listener for REST and its documentation.
	// Optional; 127.0.0.1:8080.
	HTTP HTTP `yaml:"http"`
	// TLS is the transport of the gRPC and REST listeners. Without it they
	// serve plain text.
	TLS TLS `yaml:"tls"`
	// Probe is a listener for /healthz, /readyz and /metrics only, in plain
	// HTTP, for kubelet and Prometheus. It may be on any interface. Optional;
	// none.
	Probe Listener `yaml:"probe"`
	// Admin is the listener for /metrics, /healthz, /readyz and /debug/pprof/.
	// It must be on the loopback interface, whatever else is set. Optional;
	// 127.0.0.1:9091.
	Admin Listener `yaml:"admin"`
	// Insecure permits gRPC and REST listeners beyond the loopback interface
	// without TLS, or without a method of auth. Set it only if something in
	// front, such as a service mesh or a network policy, does what is missing.
	// It disables nothing, and logs a warning at every start. Optional; false.
	Insecure bool `yaml:"insecure"`
	// DefaultTimeout is the deadline of a single check whose caller set none,
	// at least 100ms, since less would leave no time to ask anybody. A batch
	// without a deadline gets max_timeout. Optional; 2s.
	DefaultTimeout time.Duration `yaml:"default_timeout"`
	// MaxTimeout is the longest that a call may take, whatever deadline its
	// caller sets; not below default_timeout. Optional; 30s.
	MaxTimeout time.Duration `yaml:"max_timeout"`
	// Reserve is the part of a caller's deadline that is left for sending the
	// answer; more than 0 and at most 50ms. Optional; 20ms.
	Reserve time.Duration `yaml:"reserve"`
	// Limits holds what callers may use of the gRPC and REST listeners.
	Limits ServerLimits `yaml:"limits"`
	// Drain is how long the service keeps serving after a stop signal while it
	// reports itself not ready, so that load balancers notice. If it is 0, the
	// service stops at once. Optional; 5s.
	Drain time.Duration `yaml:"drain"`
	// ShutdownTimeout is how long calls in flight may take after the drain
	// before they are cut off; more than 0. The process manager must grant at
	// least the sum of both before it kills. Optional; 10s.
	ShutdownTimeout time.Duration `yaml:"shutdown_timeout"`
}

// Listener is one listening socket.
type Listener struct {
	// Address is host:port. An empty host means every interface, port 0 any
	// free port. A host other than 127.0.0.0/8, ::1 or localhost can be reached
	// from other machines: gRPC and REST need server.tls and a method of auth
	// for it, or server.insecure. No two listeners may have the same address.
	Address string `yaml:"address"`
}

// Policy holds the partner's own choices. None of them can turn a failure into
// an ALLOWED.
type Policy struct {
	// NotReady is the effect of the account status "Not Ready": block or allow.
	// Optional; block.
	NotReady NotReady `yaml:"not_ready"`
	// WhenUndecidable is the answer if there is no evidence: error answers
	// UNAVAILABLE, block answers BLOCKED with the reason UNDECIDABLE. Optional;
	// error.
	WhenUndecidable WhenUndecidable `yaml:"when_undecidable"`
	// QualificationsGrace is how long a commercial decision, which does not
	// need them, waits for the qualifications once the account has answered; if
	// it is 0, it does not wait. Optional; 250ms.
	QualificationsGrace time.Duration `yaml:"qualifications_grace"`
	// UnderReview is the effect of the account status UnderReview: block_all
	// blocks every operation; allow_reducing allows renewals, seat reductions
	// and cancellations. Optional; block_all.
	UnderReview UnderReview `yaml:"under_review"`
}

// NotReady is a value of policy.not_ready.
type NotReady string

// The values of policy.not_ready.
const (
	NotReadyBlock NotReady = "block"
	NotReadyAllow NotReady = "allow"
)

func (NotReady) words() []string { return []string{"block", "allow"} }

// WhenUndecidable is a value of policy.when_undecidable.
type WhenUndecidable string

// The values of policy.when_undecidable.
const (
	UndecidableError WhenUndecidable = "error"
	UndecidableBlock WhenUndecidable = "block"
)

func (WhenUndecidable) words() []string { return []string{"error", "block"} }

// UnderReview is a value of policy.under_review.
type UnderReview string

// The values of policy.under_review.
const (
	UnderReviewBlockAll      UnderReview = "block_all"
	UnderReviewAllowReducing UnderReview = "allow_reducing"
)

func (UnderReview) words() []string { return []string{"block_all", "allow_reducing"} }

// Log configures the volume and format of the log.
type Log struct {
	// Level is the lowest level written: debug, info, warn or error.
	// Optional; info.
	Level LogLevel `yaml:"level"`
	// Format is json, one object per line, or console, for people.
	// Optional; json.
	Format LogFormat `yaml:"format"`
	// PlainPerSecond is how many records a second are written for ordinary
	// calls: allowed, by evidence that was cached and fresh. If records were
	// suppressed, the next one carries their number in left_out. At least 1.
	// Optional; 100.
	PlainPerSecond int `yaml:"plain_per_second"`
	// FailuresPerSecond is how many records a second are written for each
	// reason of a failure; stale evidence is such a reason. Blocks, fetches
	// from Partner Center and traced calls are always written unless they fail.
	// left_out counts suppressed records here, too. At least 1. Optional; 20.
	FailuresPerSecond int `yaml:"failures_per_second"`
}

// LogLevel is a value of log.level.
type LogLevel string

// The values of log.level.
const (
	LogDebug LogLevel = "debug"
	LogInfo  LogLevel = "info"
	LogWarn  LogLevel = "warn"
	LogError LogLevel = "error"
)

func (LogLevel) words() []string { return []string{"debug", "info", "warn", "error"} }

// LogFormat is a value of log.format.
type LogFormat string

// The values of log.format.
const (
	LogJSON    LogFormat = "json"
	LogConsole LogFormat = "console"
)

func (LogFormat) words() []string { return []string{"json", "console"} }

// Default returns the configuration of an empty file and an empty
// environment. Each call returns a new one.
func Default() *Config {
	return &Config{
		Server: Server{
			GRPC:            Listener{Address: "127.0.0.1:9090"},
			HTTP:            HTTP{Address: "127.0.0.1:8080"},
			Admin:           Listener{Address: "127.0.0.1:9091"},
			DefaultTimeout:  2 * time.Second,
			MaxTimeout:      30 * time.Second,
			Reserve:         20 * time.Millisecond,
			TLS:             TLS{ClientCertificates: ClientCertificatesOptional},
			Limits:          defaultServerLimits(),
			Drain:           5 * time.Second,
			ShutdownTimeout: 10 * time.Second,
		},
		Limits:         Limits{Default: defaultLimit()},
		Partners:       []Partner{{Name: onlyPartner, PartnerCenter: *newPartnerCenter()}},
		DefaultPartner: onlyPartner,
		Cache: Cache{
			Redis: Redis{
				Mode:         RedisStandalone,
				KeyPrefix:    "eligibility",
				ReadTimeout:  50 * time.Millisecond,
				WriteTimeout: 100 * time.Millisecond,
				PoolSize:     20,
			},
			Local: Local{MaxEntries: 100_000, MaxBytes: 128 << 20, MaxAge: 30 * time.Second},
			Ages: Ages{
				Allowed:                Age{Fresh: 10 * time.Minute, Usable: time.Hour},
				NoStatus:               Age{Fresh: 2 * time.Minute, Usable: 15 * time.Minute},
				Pending:                Age{Fresh: time.Minute, Usable: 24 * time.Hour},
				NotAllowed:             Age{Fresh: 10 * time.Minute, Usable: 24 * time.Hour},
				Qualifications:         Age{Fresh: 15 * time.Minute, Usable: 6 * time.Hour},
				QualificationsInReview: Age{Fresh: 2 * time.Minute, Usable: 6 * time.Hour},
			},
		},
		Feed:    defaultFeed(),
		Watch:   Watch{MaxStreams: 10_000},
		Reviews: defaultReviews(),
		Policy: Policy{
			NotReady:            NotReadyBlock,
			WhenUndecidable:     UndecidableError,
			QualificationsGrace: 250 * time.Millisecond,
			UnderReview:         UnderReviewBlockAll,
		},
		Log:         Log{Level: LogInfo, Format: LogJSON, PlainPerSecond: 100, FailuresPerSecond: 20},
		DecisionLog: defaultDecisionLog(),
		Tracing:     Tracing{SampleRatio: 0.01},
		Metrics:     defaultMetrics(),
	}
}
