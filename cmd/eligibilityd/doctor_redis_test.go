package main

import (
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
)

// onRedis is a healthy connection with that Redis.
func onRedis(t *testing.T, address string, more ...string) []string {
	t.Helper()
	_, partnerCenter := simulator(t)
	return connection(partnerCenter.URL, tokenFile(t), append([]string{"ELIGIBILITY_CACHE__REDIS__ADDRESSES=" + address}, more...)...)
}

func TestDoctorMissesRedis(t *testing.T) {
	t.Parallel()
	consult(t, onRedis(t, ""), doctorFlags{}, nil).says(checkRedisReach, verdictSkipped)
	consult(t, onRedis(t, "127.0.0.1:1"), doctorFlags{}, nil).says(checkRedisReach, verdictFailure, "away", "start it")
	redis := cachetest.StartRedis(t)
	environ := onRedis(t, redis.Address)
	redis.Stall()
	start := time.Now()
	consult(t, environ, doctorFlags{}, nil).says(checkRedisReach, verdictFailure, "does not answer")
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("took %v", took)
	}
	redis.Resume()
}

func TestDoctorMeasuresRedis(t *testing.T) {
	t.Parallel()
	redis := cachetest.StartRedis(t)
	consult(t, onRedis(t, redis.Address, "ELIGIBILITY_CACHE__REDIS__READ_TIMEOUT=1ns"), doctorFlags{}, nil).
		says(checkRedisReach, verdictWarning, "cache.redis.read_timeout")
}

func TestDoctorJudgesWhatRedisEvicts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		limit, policy string
		want          verdict
	}{
		{"0", "volatile-lru", verdictOK},
		{"1000000", "allkeys-lfu", verdictOK},
		{"1000000", "noeviction", verdictWarning},
		{"0", "noeviction", verdictWarning},
		{"", "", verdictWarning},
	} {
		if got := redisMemory(c.limit, c.policy); got.Status != c.want {
			t.Errorf("%q and %q: %+v", c.limit, c.policy, got)
		}
	}
	redis := cachetest.StartRedis(t)
	consult(t, onRedis(t, redis.Address), doctorFlags{}, nil).says(checkRedisMemory, verdictWarning, "no maxmemory")
}

func TestDoctorTriesWhatItsRedisUserMay(t *testing.T) {
	t.Parallel()
	redis := cachetest.StartRedis(t)
	client := redis.Client()
	defer func() { _ = client.Close() }()
	user := func(rules ...any) []string {
		args := append([]any{"ACL", "SETUSER", "gate", "reset", "on", ">canary"}, rules...)
		if err := client.Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(err)
		}
		return onRedis(t, redis.Address, "ELIGIBILITY_CACHE__REDIS__USERNAME=gate", "ELIGIBILITY_CACHE__REDIS__PASSWORD=canary")
	}
	needs := []any{"~eligibility:*"}
	for right := range strings.FieldsSeq(redisRights) {
		needs = append(needs, right)
	}
	e := consult(t, user(needs...), doctorFlags{}, nil)
	e.says(checkRedisAccess, verdictOK)
	e.says(checkRedisMemory, verdictWarning, "unknown")
	consult(t, user(append(needs, "-set")...), doctorFlags{}, nil).says(checkRedisAccess, verdictFailure, "SET", "allow")
	consult(t, user("~other:*", "+@all"), doctorFlags{}, nil).says(checkRedisAccess, verdictFailure, "GET", "~eligibility:*")
	consult(t, user("~*"), doctorFlags{}, nil).says(checkRedisReach, verdictFailure, "ping", redisRights)
	consult(t, append(user("~*", "+@all"), "ELIGIBILITY_CACHE__REDIS__KEY_PREFIX=x"), doctorFlags{}, nil).says(checkRedisAccess, verdictOK)
	environ := onRedis(t, redis.Address, "ELIGIBILITY_CACHE__REDIS__USERNAME=gate", "ELIGIBILITY_CACHE__REDIS__PASSWORD=wrong")
	consult(t, environ, doctorFlags{}, nil).says(checkRedisReach, verdictFailure, "credentials")
	if err := client.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	consult(t, user("~*", "+@all"), doctorFlags{}, nil).says(checkRedisAccess, verdictFailure, "full")
}
