package cache_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/changes"
)

func TestTheFeedIsTrimmedByNumber(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	client := server.Client()
	defer func() { _ = client.Close() }()
	registry := prometheus.NewRegistry()
	cfg := at(server, start.Add(time.Hour))
	cfg.Registerer, cfg.Feed.MaxEvents = registry, 5*64
	store := newStore(t, cfg)
	for i := range 5 {
		shareAt(store, time.Duration(2*i)*time.Second, allowed)
		shareAt(store, time.Duration(2*i+1)*time.Second, blocked)
		// An entry of a former configuration, which kept more.
		for range 8 {
			if err := client.XAdd(ctx, &redis.XAddArgs{Stream: feedKey("feed"), Values: []string{"event", "x"}}).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	all := client.XRange(ctx, feedKey("feed"), "-", "+").Val()
	shareAt(store, time.Minute, allowed)
	page := readPage(store, changes.Position{}, 100)
	kept := client.XRange(ctx, feedKey("feed"), "-", "+").Val()
	if len(kept) != 5 || len(page.Entries) == 0 {
		t.Fatalf("%d kept", len(kept))
	}
	if want := all[len(all)-5].ID; position(page.Removed) != want {
		t.Errorf("removed %s, want %s", position(page.Removed), want)
	}
	if n := gathered(t, registry, trimmedTotal); n != 11+40-5 {
		t.Errorf("%v trimmed", n)
	}
	if left := client.PTTL(ctx, feedKey("feed")).Val(); left < 167*time.Hour || left > 168*time.Hour {
		t.Errorf("the feed expires after %v", left)
	}
	if left := client.PTTL(ctx, feedKey("feed:removed")).Val(); left < 167*time.Hour || left > 168*time.Hour {
		t.Errorf("what was removed expires after %v", left)
	}
}

func position(p changes.Position) string { return fmt.Sprintf("%d-%d", p.Millis, p.Seq) }

func TestTheFeedIsTrimmedByTime(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	client := server.Client()
	defer func() { _ = client.Close() }()
	cfg := at(server, start.Add(time.Hour))
	cfg.Feed.Retention = time.Hour
	now := time.Now()
	for i := range 40 { // one every 2 minutes
		id := now.Add(time.Duration(i-40) * 2 * time.Minute).UnixMilli()
		if err := client.XAdd(ctx, &redis.XAddArgs{Stream: feedKey("feed"), ID: fmt.Sprintf("%d-3", id), Values: []string{"event", "x"}}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	all := client.XRange(ctx, feedKey("feed"), "-", "+").Val()
	store := newStore(t, cfg)
	shareAt(store, time.Second, allowed)
	page := readPage(store, changes.Position{}, 100)
	// 11 are older than an hour, those of 80 to 60 minutes ago.
	if position(page.Removed) != all[10].ID || fmt.Sprint(page.Oldest) != strings.TrimSuffix(all[11].ID, "-3") {
		t.Errorf("removed %s, oldest %d; want %s, %s", position(page.Removed), page.Oldest, all[10].ID, all[11].ID)
	}
}

// The newest id removed has no seal. One of the future would expire every resume token.
func TestAnIDRemovedInTheFutureIsIgnored(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	client := server.Client()
	defer func() { _ = client.Close() }()
	store := newStore(t, at(server, start.Add(time.Hour)))
	shareAt(store, time.Second, allowed)
	for ahead, ignored := range map[time.Duration]bool{-time.Minute: false, time.Minute: false, 2 * time.Hour: true} {
		id := fmt.Sprintf("%d-7", time.Now().Add(ahead).UnixMilli())
		if err := client.Set(ctx, feedKey("feed:removed"), id, time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
		page := readPage(store, changes.Position{}, 100)
		if got := page.Removed == (changes.Position{}); got != ignored || !ignored && position(page.Removed) != id {
			t.Errorf("%v ahead: removed %s, written %s", ahead, position(page.Removed), id)
		}
	}
}
