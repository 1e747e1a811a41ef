package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// longest bounds every duration so that no sum or jitter of them overflows.
	longest = 365 * 24 * time.Hour
	// fetchLimit is the fixed limit of a whole fetch, including all its
	// attempts.
	fetchLimit = 10 * time.Second
	// shortestTimeout leaves a check enough time to ask Redis or Partner
	// Center.
	shortestTimeout = 100 * time.Millisecond
	// maxCallerFile bounds a file of TLS or of tokens.
	maxCallerFile = 4 << 20
	// unlimited bounds counts that have no other bound.
	unlimited = 1<<31 - 1
)

// check records a fault for every value that breaks a rule. Only dev has rules of
// its own.
func (l *loader) check(command Command) {
	l.checkServer(command)
	l.checkAuth(command)
	l.checkDefaultPartner()
	for _, s := range l.partners {
		l.checkPartner(s)
	}
	l.checkRefreshTokens()
	l.checkRedis()
	l.checkDurations()
	l.checkAges()
	l.checkCounts()
	l.checkDecisionLog()
	l.checkTracing()
	l.checkMetrics()
	l.checkChanges(command)
	l.checkConsole(command)
	if command == Serve {
		l.checkCallerFiles()
	}
}

// checkCallerFiles rejects files of TLS and of tokens that cannot be read. The
// packages that reload them check their contents.
func (l *loader) checkCallerFiles() {
	tls := &l.cfg.Server.TLS
	for _, f := range []struct{ key, path string }{
		{"server.tls.certificate_file", tls.CertificateFile},
		{"server.tls.key_file", tls.KeyFile},
		{"server.tls.client_ca_file", tls.ClientCAFile},
		{"auth.tokens_file", l.cfg.Auth.TokensFile},
	} {
		if f.path == "" {
			continue
		}
		if _, problem := readText(f.path, maxCallerFile); problem != "" {
			l.object(f.key, "%s", problem)
		}
	}
}

// checkDurations checks the range of every duration except the ages.
func (l *loader) checkDurations() {
	cfg := l.cfg
	for _, d := range []struct {
		key                    string
		value, least, greatest time.Duration
	}{
		{"server.default_timeout", cfg.Server.DefaultTimeout, shortestTimeout, longest},
		{"server.max_timeout", cfg.Server.MaxTimeout, shortestTimeout, longest},
		{"server.reserve", cfg.Server.Reserve, 1, shortestTimeout / 2},
		{"server.drain", cfg.Server.Drain, 0, longest},
		{"server.shutdown_timeout", cfg.Server.ShutdownTimeout, 1, longest},
		{"cache.redis.read_timeout", cfg.Cache.Redis.ReadTimeout, 1, longest},
		{"cache.redis.write_timeout", cfg.Cache.Redis.WriteTimeout, 1, longest},
		{"cache.local.max_age", cfg.Cache.Local.MaxAge, 1, longest},
		{"policy.qualifications_grace", cfg.Policy.QualificationsGrace, 0, longest},
	} {
		l.checkDuration(d.key, d.value, d.least, d.greatest)
	}
	if cfg.Server.MaxTimeout < cfg.Server.DefaultTimeout {
		l.objectToEither("server.max_timeout", "server.default_timeout", "max_timeout %s is below default_timeout %s", short(cfg.Server.MaxTimeout), short(cfg.Server.DefaultTimeout))
	}
}

// checkDuration notes whether value is out of range; a least of 1 ns reads as
// "more than 0".
func (l *loader) checkDuration(key string, value, least, greatest time.Duration) {
	switch {
	case value < least && least == 1:
		l.object(key, "%s must be more than 0", short(value))
	case value < least:
		l.object(key, "%s must be at least %s", short(value), short(least))
	case value > greatest:
		l.object(key, "%s must be at most %s", short(value), short(greatest))
	}
}

func (l *loader) checkAges() {
	ages := &l.cfg.Cache.Ages
	for _, a := range []struct {
		key string
		age Age
	}{
		{"cache.ages.allowed", ages.Allowed},
		{"cache.ages.no_status", ages.NoStatus},
		{"cache.ages.pending", ages.Pending},
		{"cache.ages.not_allowed", ages.NotAllowed},
		{"cache.ages.qualifications", ages.Qualifications},
		{"cache.ages.qualifications_in_review", ages.QualificationsInReview},
	} {
		fresh, usable := a.key+".fresh", a.key+".usable"
		l.checkDuration(fresh, a.age.Fresh, 1, longest)
		l.checkDuration(usable, a.age.Usable, 1, longest)
		if a.age.Usable < a.age.Fresh {
			l.objectToEither(usable, fresh, "usable %s is below fresh %s", short(a.age.Usable), short(a.age.Fresh))
		}
	}
}

// checkItems rejects a list with items that have a problem or are repeated.
func (l *loader) checkItems(key string, items []string, problemOf func(string) string) {
	var problems []string
	for i, item := range items {
		problem := problemOf(item)
		if problem == "" && slices.Contains(items[:i], item) {
			problem = "is there already"
		}
		if problem != "" {
			problems = append(problems, fmt.Sprintf("item %d %s", i+1, problem))
		}
	}
	if problems != nil {
		l.object(key, "%s", strings.Join(problems, "; "))
	}
}

// objectToEither objects to key. If only other was given, the fault has the
// position of other; if other was rejected, there is no fault.
func (l *loader) objectToEither(key, other, format string, args ...any) {
	if l.isRejected(other) {
		return
	}
	if at, ok := l.origins[other]; ok {
		if _, ok := l.origins[key]; !ok {
			l.origins[key] = at
		}
	}
	l.object(key, format, args...)
}

func (l *loader) checkCounts() {
	for _, n := range []struct {
		key                    string
		value, least, greatest int
	}{
		{"cache.redis.pool_size", l.cfg.Cache.Redis.PoolSize, 1, 10_000},
		{"log.plain_per_second", l.cfg.Log.PlainPerSecond, 1, unlimited},
		{"log.failures_per_second", l.cfg.Log.FailuresPerSecond, 1, unlimited},
		{"cache.local.max_entries", l.cfg.Cache.Local.MaxEntries, 1, unlimited},
		{"cache.local.max_bytes", l.cfg.Cache.Local.MaxBytes, 1 << 20, unlimited},
	} {
		l.checkCount(n.key, n.value, n.least, n.greatest)
	}
}

func (l *loader) checkCount(key string, value, least, greatest int) {
	switch {
	case value < least:
		l.object(key, "%d must be at least %d", value, least)
	case value > greatest:
		l.object(key, "%d must be at most %d", value, greatest)
	}
}
