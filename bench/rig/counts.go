package rig

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Counts are the counters of a service and its redis-server.
type Counts struct {
	// The local tier answered LocalHits of LocalLookups.
	LocalHits, LocalLookups float64
	// RedisReads is how often redis-server read from a connection: about once
	// for each round trip.
	RedisReads float64
	// Dropped is how many records the decision log has dropped.
	Dropped float64
}

// Minus returns the difference to an earlier time.
func (c Counts) Minus(earlier Counts) Counts {
	return Counts{c.LocalHits - earlier.LocalHits, c.LocalLookups - earlier.LocalLookups, c.RedisReads - earlier.RedisReads, c.Dropped - earlier.Dropped}
}

// Counts reads the counters of s and of redis-server.
func (r *Rig) Counts(ctx context.Context, s Server) (Counts, error) {
	text, err := get(ctx, "http://"+s.Admin+"/metrics")
	if err != nil {
		return Counts{}, fmt.Errorf("counts: %w", err)
	}
	var counts Counts
	for line := range bytes.Lines(text) {
		series, value, _ := strings.Cut(string(line), " ")
		lookups := strings.HasPrefix(series, "eligibility_cache_lookups_total{") && strings.Contains(series, `tier="local"`)
		if !lookups && series != "eligibility_decision_log_dropped_total" {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil {
			return Counts{}, fmt.Errorf("counts: %w", err)
		}
		switch {
		case !lookups:
			counts.Dropped += n
		case strings.Contains(series, `result="hit"`):
			counts.LocalHits += n
			fallthrough
		default:
			counts.LocalLookups += n
		}
	}
	counts.RedisReads, err = r.redisReads(ctx)
	return counts, err
}

func (r *Rig) redisReads(ctx context.Context) (float64, error) {
	client := redis.NewClient(&redis.Options{Addr: r.Redis})
	defer func() { _ = client.Close() }() // it has nothing to lose
	info, err := client.Info(ctx, "stats").Result()
	if err != nil {
		return 0, fmt.Errorf("counts of redis-server: %w", err)
	}
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, "total_reads_processed:"); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, nil // older than version 6.2
}
