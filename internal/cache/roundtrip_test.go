package cache

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// answering is a server that answers each GETRANGE with what reply returns for its
// key; after an answer that is no whole reply it cuts the connection.
func answering(t *testing.T, reply func(key string) (answer string, whole bool)) redis.UniversalClient { //nolint:ireturn // as newClient
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer func() { _ = conn.Close() }()
				in, out := bufio.NewReader(conn), bufio.NewWriter(conn)
				for {
					args, err := readCommand(in)
					if err != nil {
						return
					}
					answer, whole := "+OK\r\n", true
					switch strings.ToLower(args[0]) {
					case "hello":
						answer = "-ERR unknown command\r\n"
					case "getrange":
						answer, whole = reply(args[1])
					}
					_, _ = out.WriteString(answer)
					if in.Buffered() == 0 || !whole {
						_ = out.Flush()
					}
					if !whole {
						return
					}
				}
			})
		}
	})
	cfg, err := RedisConfig{Addresses: []string{listener.Addr().String()}}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	client := newClient(cfg, 8, nil)
	t.Cleanup(func() {
		_ = client.Close()
		_ = listener.Close()
		serving.Wait()
	})
	return client
}

func readCommand(in *bufio.Reader) (args []string, err error) {
	length := func() (n int, err error) {
		line, err := in.ReadString('\n')
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(strings.TrimSpace(line[1:]))
	}
	count, err := length()
	for range count {
		n, err := length()
		if err != nil {
			return nil, err
		}
		arg := make([]byte, n+2)
		if _, err := io.ReadFull(in, arg); err != nil {
			return nil, err
		}
		args = append(args, string(arg[:n]))
	}
	return args, err
}

// bulk is a reply.
func bulk(value string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(value), value) }

// The commands of a round trip are used again. Each read is of its own key all the
// same, however those before it ended, and is not changed by those after it.
func TestReadsOfReusedCommandsAreTheirOwn(t *testing.T) {
	t.Parallel()
	const (
		valued = iota
		long
		absent
		wrongType
		refused
		cut
		kinds
	)
	kindOf := func(name string) int { return int(name[strings.Index(name, "}:")+3]-'0') % kinds }
	client := answering(t, func(key string) (string, bool) {
		if !strings.HasSuffix(key, "account") && !strings.HasSuffix(key, "qualifications") {
			return bulk(""), true // a heartbeat
		}
		switch kindOf(key) {
		case long:
			return bulk(key + strings.Repeat("x", 20_000)), true
		case absent:
			return bulk(""), true
		case wrongType:
			return "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n", true
		case refused:
			return "-NOPERM no\r\n", true
		case cut:
			return bulk(key)[:len(key)/2], false
		default:
			return bulk(key), true
		}
	})
	keys := newRedisKeys("p", "n")
	batcher := &readBatcher{client: client, keys: keys, beats: newBeats(keys, newToken())}
	type result struct {
		keys  []eligibility.Key
		reads []read
	}
	results := make([][]result, 8)
	var callers sync.WaitGroup
	for caller := range results {
		callers.Go(func() {
			for trip := range 27 {
				asked := make([]eligibility.Key, 1+(trip*7+caller)%40)
				for i := range asked {
					kind := (trip + i) % cut
					if trip%9 == 8 && i == len(asked)/2 {
						kind = cut
					}
					asked[i] = eligibility.Key{CustomerID: eligibility.CustomerID{byte(kind), byte(caller), byte(trip), byte(i)}, Facet: eligibility.Facet(i % 2)} //nolint:gosec // small
				}
				results[caller] = append(results[caller], result{asked, batcher.run(time.Now().Add(10*time.Second), asked)})
			}
		})
	}
	callers.Wait()
	for _, result := range results {
		for _, r := range result {
			from := slices.IndexFunc(r.keys, func(key eligibility.Key) bool { return kindOf(keys.of(key)) == cut })
			for i, read := range r.reads {
				name := keys.of(r.keys[i])
				kind, want := kindOf(name), ""
				if from >= 0 && read.err != nil && !isReply(read.err) {
					continue // the end of the connection may overtake replies
				}
				switch {
				case from >= 0 && i >= from:
					t.Errorf("kind %d after the connection was cut: %v", kind, read.err)
				case kind == valued:
					want = name
				case kind == long:
					want = name + strings.Repeat("x", 20_000)
				}
				if string(read.value) != want {
					t.Errorf("kind %d: %d bytes, %.60q", kind, len(read.value), read.value)
				}
				if redis.HasErrorPrefix(read.err, "WRONGTYPE") != (kind == wrongType) || (read.err != nil) != (kind == wrongType || kind == refused) {
					t.Errorf("kind %d: %v", kind, read.err)
				}
			}
		}
	}
}

// A round trip that panics returns no commands: the client may still use them.
func TestCommandsOfAPanicAreNotReused(t *testing.T) {
	client := answering(t, func(key string) (string, bool) { return bulk(key), true })
	var kept []redis.Cmder
	client.AddHook(keeping{&kept})
	keys := newRedisKeys("p", "n")
	batcher := &readBatcher{client: client, keys: keys, beats: newBeats(keys, newToken())}
	asked := []eligibility.Key{{CustomerID: eligibility.CustomerID{1}}}
	if reads := batcher.run(time.Now().Add(time.Second), asked); !errors.Is(reads[0].err, errPanic) {
		t.Fatal(reads[0].err)
	}
	if got := kept[len(kept)-1].Args(); len(got) == 0 {
		t.Fatal("the commands have been cleared")
	}
	trip := roundTrips.Get().(*roundTrip)
	for i := range trip.gets[:cap(trip.gets)] {
		if kept[len(kept)-1] == redis.Cmder(&trip.gets[:cap(trip.gets)][i].StringCmd) {
			t.Error("the commands are in the pool")
		}
	}
}

// keeping is a hook that keeps commands and panics.
type keeping struct{ commands *[]redis.Cmder }

func (keeping) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (keeping) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (k keeping) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(_ context.Context, commands []redis.Cmder) error {
		*k.commands = commands
		panic("a mistake")
	}
}
