package cache_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// at is a config on redis whose clock stands still.
func at(redis *cachetest.Redis, now time.Time) cache.Config {
	cfg := sharing(redis, "p")
	cfg.Now = func() time.Time { return now }
	return cfg
}

func blocked(fetched time.Time) *eligibility.Evidence {
	return fetchedHere(&eligibility.Evidence{Status: eligibility.AccountStatusNotAllowed, StatusText: "NotAllowed"}, fetched)
}

// The script compares times by halves of 32 bits: the low one wraps every 4.29 s.
func TestRedisKeepsTheNewer(t *testing.T) {
	t.Parallel()
	redis := cachetest.StartRedis(t)
	wrap := time.Unix(0, start.UnixNano()|(1<<32-1)) // the low half is all ones
	now := wrap.Add(3 * time.Hour)
	for name, row := range map[string]struct {
		first time.Time
		later time.Duration // the second evidence's fetch, after the first's
		wins  bool
	}{
		"the same fetch":                 {first: wrap},
		"1 ns later":                     {first: wrap.Add(-time.Second), later: 1, wins: true},
		"1 ns earlier":                   {first: wrap.Add(-time.Second), later: -1},
		"1 ns later, over the wrap":      {first: wrap, later: 1, wins: true},
		"1 ns earlier, over the wrap":    {first: wrap.Add(1), later: -1},
		"1 s later, over the wrap":       {first: wrap, later: time.Second, wins: true},
		"1 s earlier, over the wrap":     {first: wrap.Add(time.Second / 2), later: -time.Second},
		"5 s later":                      {first: wrap, later: 5 * time.Second, wins: true},
		"5 s earlier":                    {first: wrap, later: -5 * time.Second},
		"1 h later":                      {first: wrap, later: time.Hour, wins: true},
		"1 h earlier":                    {first: wrap, later: -time.Hour},
		"1 h earlier, 1 s ahead of time": {first: now.Add(time.Second), later: -time.Hour},
		"1 h earlier, more ahead":        {first: now.Add(time.Second + 1), later: -time.Hour, wins: true},
		"1 h earlier, 1 h ahead of time": {first: now.Add(time.Hour), later: -time.Hour, wins: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			on := func(now time.Time) *cache.Store {
				cfg := at(redis, now)
				cfg.Redis.KeyPrefix = name
				return newStore(t, cfg)
			}
			ctx := context.Background()
			on(row.first).Share(ctx, key, allowed(row.first), row.first.Add(time.Hour))
			on(now).Share(ctx, key, blocked(row.first.Add(row.later)), now.Add(time.Hour))
			want := allowed(row.first)
			if row.wins {
				want = blocked(row.first.Add(row.later))
			}
			if diff := cmp.Diff(want, load(on(now)).Evidence, cachetest.Compare()); diff != "" {
				t.Errorf("in Redis (-want +got):\n%s", diff)
			}
		})
	}
}

// The shortest value is that of a customer without qualifications.
func TestRedisKeepsTheShortestValue(t *testing.T) {
	t.Parallel()
	redis := cachetest.StartRedis(t)
	ctx := context.Background()
	key := eligibility.Key{CustomerID: key.CustomerID, Facet: eligibility.FacetQualifications}
	store := newStore(t, at(redis, start))
	store.Share(ctx, key, &eligibility.Evidence{Facet: key.Facet, FetchTime: start}, start.Add(time.Hour))
	store.Share(ctx, key, &eligibility.Evidence{
		Facet: key.Facet, FetchTime: start.Add(-1), Absence: eligibility.AbsenceNotServed,
	}, start.Add(time.Hour))
	if found := store.Load(ctx, []eligibility.Key{key})[0].Evidence; found == nil || !found.FetchTime.Equal(start) {
		t.Errorf("found %+v", found)
	}
}

// If a value cannot be of this version, it must not keep evidence out.
func TestShareReplacesWhatIsNoValue(t *testing.T) {
	t.Parallel()
	redis := cachetest.StartRedis(t)
	client := redis.Client()
	defer func() { _ = client.Close() }()
	ctx := context.Background()
	store := newStore(t, at(redis, start))
	share := func() { store.Share(ctx, key, allowed(start), start.Add(time.Hour)) }
	share()
	name := client.Keys(ctx, "*:account").Val()[0]
	good := client.Get(ctx, name).Val()
	for what, foreign := range map[string]func(){
		"another version": func() { client.Set(ctx, name, "\x01"+good[1:], 0) },
		"a short value":   func() { client.Set(ctx, name, good[:12], 0) },
		"half a time":     func() { client.Set(ctx, name, good[:5], 0) },
		"nothing":         func() { client.Set(ctx, name, "", 0) },
		"a hash":          func() { client.HSet(ctx, name, "a", "b") },
	} {
		client.Del(ctx, name)
		foreign()
		share()
		if client.Get(ctx, name).Val() != good {
			t.Errorf("%s keeps evidence out", what)
		}
	}
}

// A value that may not be seen may be the newer one.
func TestShareReplacesNothingUnseen(t *testing.T) {
	t.Parallel()
	redis := cachetest.StartRedis(t)
	client := redis.Client()
	defer func() { _ = client.Close() }()
	ctx := context.Background()
	if err := client.Do(ctx, "ACL", "SETUSER", "blind", "on", ">word", "~*", "+@all", "-get").Err(); err != nil {
		t.Fatal(err)
	}
	seeing, cfg := newStore(t, at(redis, start)), at(redis, start)
	cfg.Redis.Username, cfg.Redis.Password = "blind", "word"
	seeing.Share(ctx, key, blocked(start), start.Add(time.Hour))
	newStore(t, cfg).Share(ctx, key, allowed(start.Add(-1)), start.Add(time.Hour))
	if found := load(seeing); found.Tier != eligibility.TierRedis || fetchTime(found) != "0s" {
		t.Errorf("replaced: tier %d, fetched %s", found.Tier, fetchTime(found))
	}
}
