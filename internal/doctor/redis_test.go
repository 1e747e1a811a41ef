package doctor

import (
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

// onRedis returns the environment of a healthy connection to that Redis.
func onRedis(t *testing.T, address string, more ...string) []string {
	t.Helper()
	_, partnerCenter := pcsimtest.Start(t)
	return pcsimtest.Environ(partnerCenter.URL, pcsimtest.TokenFile(t), append([]string{"ELIGIBILITY_CACHE__REDIS__ADDRESSES=" + address}, more...)...)
}

func TestDoctorMissesRedis(t *testing.T) {
	t.Parallel()
	consult(t, onRedis(t, ""), Options{}).want(checkRedisReach, VerdictSkipped)
	consult(t, onRedis(t, "127.0.0.1:1"), Options{}).want(checkRedisReach, VerdictFailure, "unavailable", "start it")
	redis := cachetest.StartRedis(t)
	environ := onRedis(t, redis.Address)
	redis.Stall()
	start := time.Now()
	consult(t, environ, Options{}).want(checkRedisReach, VerdictFailure, "does not answer")
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("took %v", took)
	}
	redis.Resume()
}

func TestDoctorMeasuresRedis(t *testing.T) {
	t.Parallel()
	redis := cachetest.StartRedis(t)
	consult(t, onRedis(t, redis.Address, "ELIGIBILITY_CACHE__REDIS__READ_TIMEOUT=1ns"), Options{}).
		want(checkRedisReach, VerdictWarning, "cache.redis.read_timeout")
}

func TestDoctorJudgesWhatRedisEvicts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		limit, policy string
		want          Verdict
	}{
		{"0", "volatile-lru", VerdictOK},
		{"1000000", "allkeys-lfu", VerdictOK},
		{"1000000", "noeviction", VerdictWarning},
		{"0", "noeviction", VerdictWarning},
		{"", "", VerdictWarning},
	} {
		if got := redisMemory(c.limit, c.policy); got.Status != c.want {
			t.Errorf("%q and %q: %+v", c.limit, c.policy, got)
		}
	}
	redis := cachetest.StartRedis(t)
	consult(t, onRedis(t, redis.Address), Options{}).want(checkRedisMemory, VerdictWarning, "no maxmemory")
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
	needs := []any{"~eligibility:*", "resetchannels", "&eligibility:*"}
	for right := range strings.FieldsSeq(redisRights) {
		needs = append(needs, right)
	}
	e := consult(t, user(needs...), Options{})
	e.want(checkRedisAccess, VerdictOK)
	e.want(checkRedisMessages, VerdictOK)
	e.want(checkRedisChanges, VerdictOK)
	e.want(checkRedisMemory, VerdictWarning, "unknown")
	consult(t, user(append(needs, "-set")...), Options{}).want(checkRedisAccess, VerdictFailure, "SET", "allow")
	e = consult(t, user(append(needs, "resetchannels")...), Options{})
	e.want(checkRedisAccess, VerdictOK)
	e.want(checkRedisMessages, VerdictWarning, "every 0.9 s", "&eligibility:*")
	consult(t, user(append(needs, "-subscribe")...), Options{}).want(checkRedisMessages, VerdictWarning, "+subscribe")
	consult(t, user(append(needs, "-publish")...), Options{}).want(checkRedisMessages, VerdictWarning, "+publish")
	for _, command := range []string{"get", "getrange", "set", "pttl", "time", "del", "evalsha"} {
		consult(t, user(append(needs, "-"+command)...), Options{}).
			want(checkRedisAccess, VerdictFailure, "may not "+strings.ToUpper(command), "allow")
	}
	for _, command := range []string{"xadd", "xlen", "xrange", "xdel", "zadd", "zscore", "zcard", "zremrangebyscore", "zrem", "zrange", "hget", "hincrby", "lpush", "ltrim", "lrange"} {
		e = consult(t, user(append(needs, "-"+command)...), Options{})
		e.want(checkRedisAccess, VerdictOK)
		e.want(checkRedisChanges, VerdictFailure, "may not "+strings.ToUpper(command), "allow")
	}
	consult(t, user(append(needs, "-lpush")...), Options{}).want(checkRedisChanges, VerdictFailure, "history")
	consult(t, user("~other:*", "+@all"), Options{}).want(checkRedisAccess, VerdictFailure, "GET", "~eligibility:*")
	consult(t, user("~*"), Options{}).want(checkRedisReach, VerdictFailure, "ping", redisRights)
	consult(t, append(user("~*", "&*", "+@all"), "ELIGIBILITY_CACHE__REDIS__KEY_PREFIX=x"), Options{}).want(checkRedisAccess, VerdictOK)
	environ := onRedis(t, redis.Address, "ELIGIBILITY_CACHE__REDIS__USERNAME=gate", "ELIGIBILITY_CACHE__REDIS__PASSWORD=wrong")
	consult(t, environ, Options{}).want(checkRedisReach, VerdictFailure, "WRONGPASS", "password")
	if err := client.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	consult(t, user("~*", "&*", "+@all"), Options{}).want(checkRedisAccess, VerdictFailure, "full")
}

// sentinelled and clustered return the environments of healthy connections to
// the servers that they start.
func sentinelled(t *testing.T, set *cachetest.Sentinel, more ...string) []string {
	t.Helper()
	return onRedis(t, strings.Join(set.Addresses, ","), append([]string{
		"ELIGIBILITY_CACHE__REDIS__MODE=sentinel", "ELIGIBILITY_CACHE__REDIS__SENTINEL__MASTER_NAME=" + set.MasterName,
		"ELIGIBILITY_CACHE__REDIS__READ_TIMEOUT=1s",
	}, more...)...)
}

func overTLS(certificates *cachetest.TLS) []string {
	const prefix = "ELIGIBILITY_CACHE__REDIS__TLS__"
	return []string{
		prefix + "ENABLED=true", prefix + "CA_FILE=" + certificates.CA, prefix + "SERVER_NAME=redis.example",
		prefix + "CERTIFICATE_FILE=" + certificates.Certificate, prefix + "KEY_FILE=" + certificates.Key,
	}
}

func TestDoctorExaminesSentinels(t *testing.T) {
	t.Parallel()
	certificates := cachetest.NewTLS(t)
	set := certificates.StartSentinel(t)
	e := consult(t, sentinelled(t, set, overTLS(certificates)...), Options{})
	e.want(checkRedisSentinels, VerdictOK, "all 3")
	e.want(checkRedisReach, VerdictOK, "7.", "answers")
	e.want(checkRedisAccess, VerdictOK)
	e.want(checkRedisMemory, VerdictWarning)
	other := append(overTLS(certificates), "ELIGIBILITY_CACHE__REDIS__SENTINEL__MASTER_NAME=other")
	consult(t, slices.DeleteFunc(sentinelled(t, set, other...), func(variable string) bool { return strings.HasSuffix(variable, "="+set.MasterName) }),
		Options{}).want(checkRedisSentinels, VerdictFailure, "master_name")
	consult(t, sentinelled(t, set), Options{}).want(checkRedisSentinels, VerdictFailure, "none answers")
	set.Sentinels[1].Kill()
	consult(t, sentinelled(t, set, overTLS(certificates)...), Options{}).want(checkRedisSentinels, VerdictWarning, "1 of 3", "item 2")
}

func TestDoctorExaminesAClusterOverTLS(t *testing.T) {
	t.Parallel()
	certificates := cachetest.NewTLS(t)
	cluster := certificates.StartCluster(t)
	clustered := append(overTLS(certificates), "ELIGIBILITY_CACHE__REDIS__READ_TIMEOUT=1s")
	e := consult(t, onRedis(t, strings.Join(cluster.Addresses, ","), clustered...), Options{})
	e.want(checkRedisReach, VerdictOK, "7.", "3 primaries")
	e.want(checkRedisCluster, VerdictOK, "6 nodes")
	e.want(checkRedisAccess, VerdictOK)
	e.want(checkRedisMemory, VerdictWarning)
	server := certificates.StartRedis(t)
	wrong := append(overTLS(certificates), "ELIGIBILITY_CACHE__REDIS__TLS__CA_FILE=", "ELIGIBILITY_CACHE__REDIS__MODE=standalone")
	wrong = slices.DeleteFunc(wrong, func(variable string) bool { return strings.HasSuffix(variable, certificates.CA) })
	consult(t, onRedis(t, server.Address, wrong...), Options{}).want(checkRedisReach, VerdictFailure, "tls: certificate of an unknown authority", "cache.redis.tls")
	consult(t, onRedis(t, server.Address, append(overTLS(certificates), "ELIGIBILITY_CACHE__REDIS__MODE=cluster")...), Options{}).
		want(checkRedisReach, VerdictFailure, "no cluster", "cache.redis.mode")
}

// The doctor and the manual name the same rights.
func TestTheManualNamesTheRights(t *testing.T) {
	t.Parallel()
	manual, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Join(strings.Fields(string(manual)), " ")
	for _, rights := range []string{redisRights + " ~eligibility:* &eligibility:*", sentinelRights} {
		if !strings.Contains(words, "```text "+rights+" ```") {
			t.Errorf("docs/install.md lacks %s", rights)
		}
	}
}

// foreign starts a server that answers each chunk of a client's text with
// reply.
func foreign(t *testing.T, reply func(received string) string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a test's own listener
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer func() { _ = conn.Close() }()
				for buffer := make([]byte, 4096); ; {
					n, err := conn.Read(buffer)
					if err != nil {
						return
					}
					if _, err := io.WriteString(conn, reply(string(buffer[:n]))); err != nil {
						return
					}
				}
			})
		}
	})
	return listener.Addr().String()
}

// If Redis does not know a command, its error repeats the arguments, including
// the password. Other servers may send anything.
func TestDoctorShowsNoTextOfRedis(t *testing.T) {
	t.Parallel()
	const canary = "c4nary"
	echo := func(received string) string {
		return "-ERR unknown command `HELLO`, with args beginning with: " + strings.ReplaceAll(received, "\r\n", " ") + "\r\n"
	}
	for name, reply := range map[string]func(string) string{
		"echo":       echo,
		"own code":   func(string) string { return "-" + strings.ToUpper(canary) + " " + canary + "\r\n" },
		"wrong pass": func(string) string { return "-WRONGPASS " + canary + "\r\n" },
		"garbage":    func(received string) string { return canary + received + "\r\n" },
		"push":       func(string) string { return ">1\r\n$6\r\n" + canary + "\r\n*-5\r\n" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, mode := range []string{"standalone", "cluster", "sentinel"} {
				environ := onRedis(t, foreign(t, reply), "ELIGIBILITY_CACHE__REDIS__MODE="+mode,
					"ELIGIBILITY_CACHE__REDIS__USERNAME=gate", "ELIGIBILITY_CACHE__REDIS__PASSWORD="+canary)
				check := checkRedisReach
				if mode == "sentinel" {
					check = checkRedisSentinels
					environ = append(environ, "ELIGIBILITY_CACHE__REDIS__SENTINEL__MASTER_NAME=m",
						"ELIGIBILITY_CACHE__REDIS__SENTINEL__USERNAME=gate", "ELIGIBILITY_CACHE__REDIS__SENTINEL__PASSWORD="+canary)
				}
				e := consult(t, environ, Options{})
				e.want(check, VerdictFailure)
				if strings.Contains(strings.ToLower(e.Text), canary) {
					t.Errorf("%s: the password is shown:\n%s", mode, e.Text)
				}
			}
		})
	}
}
