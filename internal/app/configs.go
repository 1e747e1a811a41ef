package app

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/allowance"
	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/budget"
	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/identity"
	"github.com/eligibilityd/eligibilityd/internal/otlpmetrics"
	"github.com/eligibilityd/eligibilityd/internal/pcclient"
	"github.com/eligibilityd/eligibilityd/internal/rest"
	"github.com/eligibilityd/eligibilityd/internal/server"
	"github.com/eligibilityd/eligibilityd/internal/tokenstore"
	"github.com/eligibilityd/eligibilityd/internal/tracing"
)

// ClientConfig converts the configuration of a partner at Partner Center and its
// login host.
func ClientConfig(cfg config.PartnerCenter, logger *zap.Logger, registerer prometheus.Registerer) pcclient.Config {
	flow := pcclient.FlowAppUser
	if cfg.Flow == config.FlowAppOnly {
		flow = pcclient.FlowAppOnly
	}
	endpoint := pcclient.TokenEndpointV2
	if cfg.TokenEndpoint == config.TokenEndpointV1 {
		endpoint = pcclient.TokenEndpointV1
	}
	return pcclient.Config{
		BaseURL:      cfg.BaseURL,
		Authority:    cfg.Authority,
		TenantID:     cfg.TenantID,
		ClientID:     cfg.ClientID,
		ClientSecret: cfg.ClientSecret.Reveal(),
		ClientSecretVault: tokenstore.VaultSecret{
			URL:  cfg.ClientSecretVault.URL,
			Name: cfg.ClientSecretVault.Secret,
		},
		ClientCertificate: cfg.KeyPair(),
		ClientCertificateVault: tokenstore.VaultSecret{
			URL:  cfg.ClientCertificateVault.URL,
			Name: cfg.ClientCertificateVault.Secret,
		},
		ClientAssertion:  clientAssertion(cfg),
		Audience:         cfg.Audience,
		TokenEndpoint:    endpoint,
		Flow:             flow,
		RefreshTokenFile: cfg.RefreshTokenFile,
		RefreshTokenVault: tokenstore.VaultSecret{
			URL:  cfg.RefreshTokenVault.URL,
			Name: cfg.RefreshTokenVault.Secret,
		},
		AttemptTimeout: cfg.AttemptTimeout,
		Logger:         logger.Named("pcclient"),
		Registerer:     registerer,
	}
}

// clientAssertion converts which identity takes the place of a secret.
func clientAssertion(cfg config.PartnerCenter) identity.Assertion {
	switch cfg.ClientAssertion {
	case config.WorkloadIdentity:
		return identity.Assertion{Kind: identity.WorkloadIdentity}
	case config.ManagedIdentity:
		return identity.Assertion{Kind: identity.ManagedIdentity, Audience: cfg.Cloud.TokenExchange()}
	case config.NoAssertion:
	}
	return identity.Assertion{}
}

// budgetConfig converts the configuration of a partner's budget, which replicas
// share if store has a Redis.
func budgetConfig(cfg *config.Config, partner config.Partner, build Build, store *cache.Store, registerer prometheus.Registerer) budget.Config {
	return budget.Config{
		PerMinute:   partner.BudgetPerMinute,
		ReviewShare: cfg.Reviews.BudgetShare,
		Shared:      store.SharedBudget(),
		Replica:     Replica(cfg, partner, build),
		Registerer:  registerer,
	}
}

// Replica describes this process to the replicas that share a partner's budget.
func Replica(cfg *config.Config, partner config.Partner, build Build) budget.Replica {
	var policy strings.Builder
	fmt.Fprintf(&policy, "not_ready=%s under_review=%s when_undecidable=%s", cfg.Policy.NotReady, cfg.Policy.UnderReview, cfg.Policy.WhenUndecidable)
	ages := cfg.Cache.Ages
	for _, age := range []struct {
		name string
		config.Age
	}{
		{"allowed", ages.Allowed},
		{"no_status", ages.NoStatus},
		{"pending", ages.Pending},
		{"not_allowed", ages.NotAllowed},
		{"qualifications", ages.Qualifications},
		{"qualifications_in_review", ages.QualificationsInReview},
	} {
		fmt.Fprintf(&policy, " %s=%v/%v", age.name, age.Fresh, age.Usable)
	}
	return budget.Replica{Host: host(), Version: build.Version, PerMinute: partner.BudgetPerMinute, Policy: policy.String()}
}

// cacheConfig converts the configuration of the cache for a partner, who gets an
// equal share of the local tier.
func cacheConfig(cfg *config.Config, partner config.Partner, logger *zap.Logger, registerer prometheus.Registerer) cache.Config {
	redis := PartnerRedisConfig(cfg, partner)
	return cache.Config{
		MaxEntries:  max(cfg.Cache.Local.MaxEntries/len(cfg.Partners), 1),
		MaxBytes:    max(cfg.Cache.Local.MaxBytes/len(cfg.Partners), 1),
		LocalMaxAge: cfg.Cache.Local.MaxAge,
		Ages:        ages(cfg),
		Policy:      policy(cfg),
		Feed:        cache.FeedConfig{Retention: cfg.Feed.Retention, MaxEvents: cfg.Feed.MaxEvents},
		Reviews: cache.ReviewsConfig{
			Enabled: cfg.Reviews.Enabled, GiveUpAfter: cfg.Reviews.GiveUpAfter, MaxTracked: cfg.Reviews.MaxTracked,
		},
		Redis:      redis,
		Logger:     logger.Named("cache"),
		Registerer: registerer,
	}
}

// PartnerRedisConfig converts the configuration of Redis for the keys of a partner.
func PartnerRedisConfig(cfg *config.Config, partner config.Partner) cache.RedisConfig {
	redis := RedisConfig(cfg)
	redis.Namespace = namespace(partner)
	return redis
}

// RedisConfig converts the configuration of Redis, without a namespace.
func RedisConfig(cfg *config.Config) cache.RedisConfig {
	redis := cfg.Cache.Redis
	mode := cache.RedisStandalone
	switch redis.Mode {
	case config.RedisSentinel:
		mode = cache.RedisSentinel
	case config.RedisCluster:
		mode = cache.RedisCluster
	case config.RedisStandalone:
	}
	var tokens *identity.Tokens
	if redis.EntraID.Enabled {
		tokens = new(identity.Tokens)
	}
	return cache.RedisConfig{
		EntraID:          tokens,
		Mode:             mode,
		Addresses:        redis.Addresses,
		Username:         redis.Username,
		Password:         redis.Password.Reveal(),
		MasterName:       redis.Sentinel.MasterName,
		SentinelUsername: redis.Sentinel.Username,
		SentinelPassword: redis.Sentinel.Password.Reveal(),
		TLS:              redis.TLSConfig(),
		IntegrityKey:     []byte(redis.IntegrityKey.Reveal()),
		DB:               redis.DB,
		KeyPrefix:        redis.KeyPrefix,
		ReadTimeout:      redis.ReadTimeout,
		WriteTimeout:     redis.WriteTimeout,
		PoolSize:         redis.PoolSize,

		PreviousIntegrityKey: []byte(redis.IntegrityKeyPrevious.Reveal()),
	}
}

// namespace separates the evidence of one partner at one Partner Center from all
// other: evidence from a simulator or another cloud must never answer for it, and
// no more that of another partner of the same tenant. Clouds may share a Partner
// Center, and a tenant of each may claim the same domain name. config.Load accepts
// no URL with '#' and no name of a partner with '/'.
func namespace(cfg config.Partner) string {
	base := strings.TrimSuffix(strings.ToLower(cfg.BaseURL), "/")
	name := cfg.Name + "/" + strings.ToLower(cfg.TenantID) + "@" + base[strings.Index(base, "://")+len("://"):]
	if cfg.Cloud != config.CloudGlobal {
		name += "#" + string(cfg.Cloud)
	}
	return name
}

func ages(cfg *config.Config) eligibility.Ages {
	age := func(a config.Age) eligibility.Age { return eligibility.Age{Fresh: a.Fresh, Usable: a.Usable} }
	return eligibility.Ages{
		Allowed:                age(cfg.Cache.Ages.Allowed),
		NoStatus:               age(cfg.Cache.Ages.NoStatus),
		Pending:                age(cfg.Cache.Ages.Pending),
		NotAllowed:             age(cfg.Cache.Ages.NotAllowed),
		Qualifications:         age(cfg.Cache.Ages.Qualifications),
		QualificationsInReview: age(cfg.Cache.Ages.QualificationsInReview),
	}
}

func policy(cfg *config.Config) eligibility.Policy {
	return eligibility.Policy{
		NotReadyAllowed:  cfg.Policy.NotReady == config.NotReadyAllow,
		AllowReducing:    cfg.Policy.UnderReview == config.UnderReviewAllowReducing,
		BlockUndecidable: cfg.Policy.WhenUndecidable == config.UndecidableBlock,
	}
}

// ServiceConfig converts the configuration of the policy, the ages and the
// batches of a partner.
func ServiceConfig(cfg *config.Config, partner config.Partner, logger *zap.Logger, registerer prometheus.Registerer) evidence.Config {
	return evidence.Config{
		Partner:             partner.Name,
		Ages:                ages(cfg),
		Policy:              policy(cfg),
		BatchConcurrency:    partner.BatchConcurrency,
		QualificationsGrace: max(cfg.Policy.QualificationsGrace, 1), // 0 would mean the default
		Logger:              logger.Named("eligibility"),
		Registerer:          registerer,
	}
}

func chainConfig(cfg *config.Config, build Build, logger *zap.Logger, registry *prometheus.Registry) api.Config {
	budgets := make(map[string]int, len(cfg.Partners))
	for _, partner := range cfg.Partners {
		budgets[partner.Name] = partner.BudgetPerMinute
	}
	return api.Config{
		Logger:         logger.Named("server"),
		Registerer:     registry,
		DefaultTimeout: cfg.Server.DefaultTimeout,
		MaxTimeout:     cfg.Server.MaxTimeout,
		Reserve:        cfg.Server.Reserve,
		MaxConcurrent:  cfg.Server.Limits.Concurrent,
		MaxWatches:     cfg.Watch.MaxStreams,
		GRPCBodyBytes:  cfg.Server.Limits.GRPCBodyBytes,
		PlainRecords:   cfg.Log.PlainPerSecond,
		FailureRecords: cfg.Log.FailuresPerSecond,
		SampleRatio:    cfg.Tracing.SampleRatio,
		Budgets:        budgets,
		Callers:        callers(cfg),
		Version:        build.Version,
		Commit:         build.Commit,
	}
}

// AccessConfig converts how callers are authenticated.
func AccessConfig(auth config.Auth, logger *zap.Logger, registerer prometheus.Registerer) access.Config {
	cfg := access.Config{
		TokensFile: auth.TokensFile, Callers: make(map[string]access.Grant, len(auth.Callers)),
		Logger: logger.Named("access"), Registerer: registerer,
	}
	for _, caller := range auth.Certificates {
		cfg.Certificates = append(cfg.Certificates, access.CertificateCaller(caller))
	}
	for _, issuer := range auth.JWT {
		cfg.JWT = append(cfg.JWT, access.Issuer(issuer))
	}
	for name, caller := range auth.Callers {
		cfg.Callers[name] = access.Grant(caller)
	}
	return cfg
}

// limitsConfig converts what each caller may ask. Without auth, only limits that
// name anonymous apply.
func limitsConfig(cfg *config.Config, registerer prometheus.Registerer) allowance.Config {
	limits := allowance.Config{Callers: make(map[string]allowance.Limit, len(cfg.Limits.Callers)), Registerer: registerer}
	if cfg.Auth.Enabled() {
		limits.Default = limit(cfg.Limits.Default)
	}
	for name, given := range cfg.Limits.Callers {
		limits.Callers[name] = limit(given)
	}
	return limits
}

func limit(given config.Limit) allowance.Limit {
	bound := allowance.BoundWithoutBatch
	if given.NewCustomersGiven {
		bound = allowance.BoundAll
	}
	return allowance.Limit{
		RequestsPerSecond: given.RequestsPerSecond, Burst: given.Burst, Concurrent: given.Concurrent,
		NewCustomersPerMinute: given.NewCustomersPerMinute, NewCustomers: bound,
	}
}

// callers returns the names of callers in the configuration, in order.
func callers(cfg *config.Config) []string {
	named := make(map[string]bool)
	for name := range cfg.Auth.Callers {
		named[name] = true
	}
	for name := range cfg.Limits.Callers {
		named[name] = true
	}
	for _, caller := range cfg.Auth.Certificates {
		named[caller.Caller] = true
	}
	return slices.Sorted(maps.Keys(named))
}

func restConfig(cfg *config.Config) rest.Config {
	return rest.Config{BodyBytes: cfg.Server.Limits.RESTBodyBytes, Origins: cfg.Server.HTTP.CORS.Origins}
}

func serverConfig(cfg *config.Config, logger *zap.Logger, registry *prometheus.Registry) server.Config {
	return server.Config{
		Logger:     logger.Named("server"),
		Registerer: registry,
		Gatherer:   registry,
		TLS: server.TLS{
			CertificateFile:          cfg.Server.TLS.CertificateFile,
			KeyFile:                  cfg.Server.TLS.KeyFile,
			ClientCAFile:             cfg.Server.TLS.ClientCAFile,
			RequireClientCertificate: cfg.Server.TLS.ClientCertificates == config.ClientCertificatesRequired,
		},
		Limits: server.Limits{
			Connections:          cfg.Server.Limits.Connections,
			ConnectionAge:        cfg.Server.Limits.ConnectionAge,
			ConnectionGrace:      cfg.Server.Limits.ConnectionGrace,
			FirstRequest:         cfg.Server.Limits.FirstRequest,
			Idle:                 cfg.Server.Limits.Idle,
			HeaderBytes:          cfg.Server.Limits.HeaderBytes,
			StreamsPerConnection: cfg.Server.Limits.StreamsPerConnection,
		},
		DrainPause:      cfg.Server.Drain,
		ShutdownTimeout: cfg.Server.ShutdownTimeout,
		FailureRecords:  cfg.Log.FailuresPerSecond,
	}
}

func tracingConfig(cfg *config.Config, build Build, logger *zap.Logger) tracing.Config {
	return tracing.Config{
		Endpoint: cfg.Tracing.Endpoint,
		Headers:  cfg.Tracing.HeaderValues(),
		Version:  build.Version,
		Logger:   logger.Named("tracing"),
	}
}

func metricsConfig(cfg *config.Config, build Build, registry *prometheus.Registry, logger *zap.Logger) otlpmetrics.Config {
	return otlpmetrics.Config{
		Endpoint: cfg.Metrics.OTLP.Endpoint,
		Headers:  cfg.Metrics.OTLP.HeaderValues(),
		Interval: cfg.Metrics.OTLP.Interval,
		Gatherer: registry,
		Version:  build.Version,
		Logger:   logger.Named("metrics"),
	}
}
