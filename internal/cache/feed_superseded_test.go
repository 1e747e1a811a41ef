package cache_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
)

// Replica one answered by facts that Redis did not take in time, and two has stored newer
// evidence with the facts of before. Whoever saw the answer gets the change back.
func TestAnAnswerThatRedisDidNotTakeIsFollowedByAChange(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		until func(one, two *cache.Store) // what they do before
		away  func(one, two *cache.Store) // what one does while Redis refuses its writes
		then  func(one, two *cache.Store)
		want  []string
		first bool // nothing is stored before
	}{
		"the same as before": {
			away: func(one, _ *cache.Store) { shareAt(one, 2*time.Second, allowed) },
			then: func(_, two *cache.Store) { shareAt(two, 3*time.Second, underReview) },
			want: []string{"->UnderReview1s", "UnderReview1s>Allowed2s", "Allowed2s>UnderReview3s"},
		},
		"several answers": {
			away: func(one, _ *cache.Store) {
				shareAt(one, 2*time.Second, allowed)
				shareAt(one, 3*time.Second, blocked)
				shareAt(one, 4*time.Second, underReview)
			},
			then: func(_, two *cache.Store) { shareAt(two, 5*time.Second, underReview) },
			want: []string{"->UnderReview1s", "UnderReview1s>Allowed2s", "Allowed2s>NotAllowed3s", "NotAllowed3s>UnderReview4s"},
		},
		"confirmed in between": {
			away: func(one, _ *cache.Store) { shareAt(one, 3*time.Second, allowed) },
			then: func(_, two *cache.Store) {
				shareAt(two, 2*time.Second, underReview)
				shareAt(two, 4*time.Second, underReview)
			},
			want: []string{"->UnderReview1s", "UnderReview1s>Allowed3s", "Allowed3s>UnderReview4s"},
		},
		"a fetch of its own later": {
			away: func(one, _ *cache.Store) { shareAt(one, 2*time.Second, allowed) },
			then: func(one, two *cache.Store) {
				shareAt(two, 3*time.Second, underReview)
				shareAt(one, 4*time.Second, underReview)
			},
			want: []string{"->UnderReview1s", "UnderReview1s>Allowed2s", "Allowed2s>UnderReview4s"},
		},
		"a fetch of its own later, that Redis does not take": {
			away: func(one, _ *cache.Store) {
				shareAt(one, 2*time.Second, allowed)
				shareAt(one, 5*time.Second, underReview)
			},
			then: func(_, two *cache.Store) {
				shareAt(two, 3*time.Second, underReview)
				shareAt(two, 4*time.Second, underReview)
			},
			want: []string{"->UnderReview1s", "UnderReview1s>Allowed2s", "Allowed2s>UnderReview5s"},
		},
		"facts that it had answered by before": {
			until: func(one, two *cache.Store) {
				shareAt(one, 2*time.Second, blocked)
				shareAt(two, 3*time.Second, allowed)
			},
			away: func(one, _ *cache.Store) {
				shareAt(one, 4*time.Second, blocked)
				shareAt(one, 5*time.Second, allowed)
			},
			then: func(_, _ *cache.Store) {},
			want: []string{"->UnderReview1s", "UnderReview1s>NotAllowed2s", "NotAllowed2s>Allowed3s", "Allowed3s>NotAllowed4s", "NotAllowed4s>Allowed5s"},
		},
		"a late fetch": {
			away: func(_, _ *cache.Store) {},
			then: func(one, two *cache.Store) {
				shareAt(two, 3*time.Second, underReview)
				shareAt(one, 2*time.Second, allowed)
			},
			want: []string{"->UnderReview1s", "UnderReview1s>Allowed2s", "Allowed2s>UnderReview3s"},
		},
		"a late fetch, that Redis does not take": {
			away: func(one, _ *cache.Store) {
				shareAt(one, 4*time.Second, underReview)
				shareAt(one, 3*time.Second, allowed)
			},
			then: func(_, _ *cache.Store) {},
			want: []string{"->UnderReview1s", "UnderReview1s>Allowed3s", "Allowed3s>UnderReview4s"},
		},
		"late fetches among others": {
			away: func(one, _ *cache.Store) {
				shareAt(one, 3*time.Second, blocked)
				shareAt(one, 6*time.Second, underReview)
				shareAt(one, 4*time.Second, allowed)
				shareAt(one, 5*time.Second, blocked)
				shareAt(one, 2*time.Second, allowed)
			},
			then: func(_, _ *cache.Store) {},
			want: []string{"->UnderReview1s", "UnderReview1s>Allowed2s", "Allowed2s>NotAllowed3s", "NotAllowed3s>Allowed4s", "Allowed4s>NotAllowed5s", "NotAllowed5s>UnderReview6s"},
		},
		"a late fetch, that Redis takes, before others that it did not": {
			away: func(one, _ *cache.Store) {
				shareAt(one, 3*time.Second, blocked)
				shareAt(one, 4*time.Second, underReview)
			},
			then: func(one, _ *cache.Store) { shareAt(one, 2*time.Second, allowed) },
			want: []string{"->UnderReview1s", "UnderReview1s>Allowed2s", "Allowed2s>NotAllowed3s", "NotAllowed3s>UnderReview4s"},
		},
		// Watchers got news after the answer.
		"a change since": {
			away: func(one, _ *cache.Store) { shareAt(one, 2*time.Second, allowed) },
			then: func(_, two *cache.Store) { shareAt(two, 3*time.Second, blocked) },
			want: []string{"->UnderReview1s", "UnderReview1s>NotAllowed3s"},
		},
		"the facts that are stored": {
			away: func(one, _ *cache.Store) { shareAt(one, 2*time.Second, allowed) },
			then: func(_, two *cache.Store) { shareAt(two, 3*time.Second, allowed) },
			want: []string{"->UnderReview1s", "UnderReview1s>Allowed3s"},
		},
		"first seen": {
			first: true,
			away:  func(one, _ *cache.Store) { shareAt(one, 2*time.Second, allowed) },
			then:  func(_, two *cache.Store) { shareAt(two, 3*time.Second, underReview) },
			want:  []string{"->UnderReview3s"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := cachetest.StartRedis(t)
			cfg := at(server, start.Add(time.Minute))
			one, two := newStore(t, cfg), newStore(t, cfg)
			if !row.first {
				shareAt(two, 1*time.Second, underReview)
			}
			if row.until != nil {
				row.until(one, two)
			}
			server.RefuseWrites("OOM")
			row.away(one, two)
			server.AcceptWrites()
			row.then(one, two)
			flushAll(t, one, two)
			wantSteps(t, two, row.want...)
			assertLinked(t, readAll(t, two.Feed()))
			found, err := two.History(ctx, key.CustomerID)
			if err != nil || len(found) != len(row.want) {
				t.Errorf("history %q, error %v", pasts(t, two), err)
			}
		})
	}
}

// A replica whose slow fetch ends after the entry of a newer one was evicted answers by
// it, while Redis is away. Redis may have the newer one already.
func TestALateAnswerThatRedisDidNotTakeIsFollowedByAChange(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		taken bool // by Redis, of the newer one
		away  func(*outage) *atomic.Bool
	}{
		"both are refused":              {away: func(o *outage) *atomic.Bool { return &o.refuses }},
		"while replies are lost":        {away: func(o *outage) *atomic.Bool { return &o.losesReplies }},
		"after the newer one is stored": {taken: true, away: func(o *outage) *atomic.Bool { return &o.refuses }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := cachetest.StartRedis(t)
			cfg := at(server, start.Add(time.Minute))
			one, two := newStore(t, cfg), newStore(t, cfg)
			var out outage
			one.AddHook(&out)
			shareAt(two, time.Second, underReview)
			away := row.away(&out)
			away.Store(!row.taken)
			shareAt(one, 4*time.Second, underReview)
			away.Store(true)
			one.Forget(key.CustomerID)
			late := allowed(start.Add(3 * time.Second))
			if shown := answerBy(one, key, late); shown != late {
				t.Fatalf("answered by %+v", shown)
			}
			away.Store(false)
			flushAll(t, one)
			wantSteps(t, two, "->UnderReview1s", "UnderReview1s>Allowed3s", "Allowed3s>UnderReview4s")
			assertLinked(t, readAll(t, two.Feed()))
			one.AddToOutbox(key, late) // as each read of a Redis that lost it does
			if n := cache.OutboxEntries(one); n != 0 {
				t.Errorf("%d writes of what is written", n)
			}
		})
	}
}

// afterPipeline calls a function once, after a pipeline was sent.
type afterPipeline struct {
	outage

	call func()
}

func (h *afterPipeline) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := h.outage.ProcessPipelineHook(next)(ctx, cmds)
		if call := h.call; call != nil {
			h.call = nil
			call()
		}
		return err
	}
}

// The outbox is writing the newer one while the slow fetch ends.
func TestALateAnswerDuringAWriteOfTheOutboxIsFollowedByAChange(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	cfg := at(server, start.Add(time.Minute))
	one, two := newStore(t, cfg), newStore(t, cfg)
	hook := new(afterPipeline)
	one.AddHook(hook)
	shareAt(two, time.Second, underReview)
	hook.refuses.Store(true)
	shareAt(one, 4*time.Second, underReview)
	hook.refuses.Store(false)
	hook.call = func() {
		hook.refuses.Store(true)
		shareAt(one, 3*time.Second, allowed)
		hook.refuses.Store(false)
	}
	one.FlushOutbox(ctx)
	if hook.call != nil {
		t.Fatal("the outbox wrote nothing")
	}
	flushAll(t, one)
	wantSteps(t, two, "->UnderReview1s", "UnderReview1s>Allowed3s", "Allowed3s>UnderReview4s")
}

// flushAll writes all that is open.
func flushAll(t *testing.T, stores ...*cache.Store) {
	t.Helper()
	for range 4 {
		for _, store := range stores {
			store.Healthy()
			store.FlushOutbox(ctx)
		}
	}
	for _, store := range stores {
		if n := cache.OutboxEntries(store); n != 0 {
			t.Errorf("%d writes left", n)
		}
	}
}

// Of several replicas that were away, the first adds its answer and the change back; to
// the others' observers that is news.
func TestSeveralAnswersThatRedisDidNotTake(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	cfg := at(server, start.Add(time.Minute))
	one, two, three := newStore(t, cfg), newStore(t, cfg), newStore(t, cfg)
	shareAt(three, time.Second, underReview)
	server.RefuseWrites("OOM")
	shareAt(one, 2*time.Second, allowed)
	shareAt(two, 3*time.Second, blocked)
	server.AcceptWrites()
	shareAt(three, 4*time.Second, underReview)
	flushAll(t, one, two, three)
	for _, store := range []*cache.Store{one, two} {
		store.Resubscribe() // which repeats all
	}
	flushAll(t, one, two, three)
	wantSteps(t, three, "->UnderReview1s", "UnderReview1s>Allowed2s", "Allowed2s>UnderReview4s")
}

// A failover loses the answer together with its change.
func TestAnAnswerThatAFailoverLostIsFollowedByAChange(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	client := server.Client()
	defer func() { _ = client.Close() }()
	cfg := at(server, start.Add(time.Minute))
	one, two := newStore(t, cfg), newStore(t, cfg)
	shareAt(two, time.Second, underReview)
	dumps := make(map[string]string)
	for _, name := range client.Keys(ctx, "*").Val() {
		dumps[name] = client.Dump(ctx, name).Val()
	}
	shareAt(one, 2*time.Second, allowed)
	client.FlushAll(ctx)
	for name, dump := range dumps {
		if err := client.RestoreReplace(ctx, name, time.Hour, dump).Err(); err != nil {
			t.Fatal(err)
		}
	}
	shareAt(two, 3*time.Second, underReview)
	one.Resubscribe()
	two.Resubscribe()
	flushAll(t, two, one)
	wantSteps(t, two, "->UnderReview1s", "UnderReview1s>Allowed2s", "Allowed2s>UnderReview3s")
}

// Without the history there is no telling whether a change was written since.
func TestWithoutTheHistoryNoChangeIsMadeUp(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		lose func(server *cachetest.Redis)
		want []string
	}{
		"evicted": {func(server *cachetest.Redis) {
			client := server.Client()
			defer func() { _ = client.Close() }()
			client.Del(ctx, rawKey()+":history")
		}, []string{"->UnderReview1s", "UnderReview1s>Allowed2s", "Allowed2s>UnderReview3s"}},
		"forged": {func(server *cachetest.Redis) {
			client := server.Client()
			defer func() { _ = client.Close() }()
			entry := client.LIndex(ctx, rawKey()+":history", 0).Val()
			client.LSet(ctx, rawKey()+":history", 0, entry[:len(entry)-4]+"seal")
		}, []string{"->UnderReview1s"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := cachetest.StartRedis(t)
			cfg := at(server, start.Add(time.Minute))
			one, two := newStore(t, cfg), newStore(t, cfg)
			shareAt(one, time.Second, underReview)
			server.RefuseWrites("OOM")
			shareAt(one, 2*time.Second, allowed)
			server.AcceptWrites()
			shareAt(two, 3*time.Second, underReview)
			row.lose(server)
			flushAll(t, one, two)
			wantSteps(t, two, row.want...)
		})
	}
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		server := cachetest.StartRedis(t)
		setUser(t, []*cachetest.Redis{server}, []any{"old", "on", ">word", "~*", "&*", "+@all", "-lrange"})
		cfg := at(server, start.Add(time.Minute))
		two := newStore(t, cfg)
		cfg.Redis.Username, cfg.Redis.Password = "old", "word"
		one := newStore(t, cfg)
		shareAt(two, time.Second, underReview)
		shareAt(two, 3*time.Second, underReview)
		shareAt(one, 2*time.Second, allowed)
		flushAll(t, one)
		wantSteps(t, two, "->UnderReview1s")
	})
}
