package cachetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Sentinel is one primary with two replicas, watched by three sentinels, which
// take a server for dead after a second.
type Sentinel struct {
	// Addresses are the sentinels', and MasterName is what they call the primary.
	Addresses  []string
	MasterName string
	// Servers are the primary of the start and its replicas, Sentinels the
	// others.
	Servers, Sentinels []*Redis

	tb testing.TB
}

// StartSentinel starts them and waits until a failover would work.
func StartSentinel(tb testing.TB) *Sentinel {
	tb.Helper()
	return (*TLS)(nil).StartSentinel(tb)
}

// StartSentinel is the function of that name, with TLS.
func (t *TLS) StartSentinel(tb testing.TB) *Sentinel {
	tb.Helper()
	set := &Sentinel{tb: tb, MasterName: "gate"}
	primary := t.StartRedis(tb)
	host, port, _ := net.SplitHostPort(primary.Address)
	set.Servers = append(set.Servers, primary)
	for range 2 {
		replica := newRedis(tb)
		replica.startOnPort(func(own string) []string { return t.args(own, "--replicaof", host+" "+port) })
		set.Servers = append(set.Servers, replica)
	}
	// A sentinel that asks once all replicas are there knows them at once.
	for _, replica := range set.Servers[1:] {
		replica.must("follow its primary", follows)
	}
	for range 3 {
		sentinel := newRedis(tb)
		sentinel.startOnPort(func(own string) []string { return t.sentinelArgs(sentinel, own, set.MasterName, host, port) })
		set.Sentinels = append(set.Sentinels, sentinel)
		set.Addresses = append(set.Addresses, sentinel.Address)
	}
	for _, sentinel := range set.Sentinels {
		sentinel.must("know all replicas and sentinels", set.complete)
	}
	return set
}

// sentinelArgs writes a sentinel's file, which it insists on, and names it.
func (t *TLS) sentinelArgs(sentinel *Redis, own, name, host, port string) []string {
	// It polls often, so that tests need seconds only. It must not mistake a busy
	// machine for a clock that jumped, since it would then stop.
	text := fmt.Sprintf("sentinel monitor %[1]s %[2]s %[3]s 2\nsentinel down-after-milliseconds %[1]s 1000\n"+
		"sentinel failover-timeout %[1]s 2000\nsentinel parallel-syncs %[1]s 2\n", name, host, port)
	file := filepath.Join(sentinel.dir, "sentinel.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		sentinel.tb.Fatal(err)
	}
	return append([]string{file, "--sentinel"}, t.args(own)...)
}

// follows reports whether a server is a replica that has caught up.
func follows(ctx context.Context, client *redis.Client) error {
	info, err := client.Info(ctx, "replication").Result()
	if err == nil && !strings.Contains(info, "master_link_status:up") {
		err = errors.New("no link to its primary")
	}
	return err
}

// complete reports whether a sentinel knows all others and could have one of
// the replicas promoted.
func (s *Sentinel) complete(ctx context.Context, client *redis.Client) error {
	// Found out by trying, as it is no command of all versions: by default
	// they look at each other every two seconds only.
	_ = client.Do(ctx, "SENTINEL", "DEBUG", "info-period", "200", "publish-period", "200", "ask-period", "200", "tilt-trigger", "60000").Err()
	fields, err := s.master(ctx, client)
	if err == nil && (fields["num-slaves"] != "2" || fields["num-other-sentinels"] != "2" || fields["flags"] != "master") {
		err = fmt.Errorf("says %v", fields)
	}
	return err
}

// master returns what a sentinel reports about the primary.
func (s *Sentinel) master(ctx context.Context, client *redis.Client) (map[string]string, error) {
	reply := redis.NewMapStringStringCmd(ctx, "SENTINEL", "MASTER", s.MasterName)
	_ = client.Process(ctx, reply) // reply has the error too
	return reply.Result()
}

// Primary is the server that the sentinels name, once no failover runs.
func (s *Sentinel) Primary() *Redis {
	s.tb.Helper()
	primary := s.Servers[0]
	s.awaitNamed(func(named *Redis) bool {
		primary = named
		return true
	})
	return primary
}

// AwaitFailover waits until all sentinels that work name a server that is not
// old, until it is a primary, and until the failover is over; and returns it.
func (s *Sentinel) AwaitFailover(old *Redis) *Redis {
	s.tb.Helper()
	var primary *Redis
	s.awaitNamed(func(named *Redis) bool {
		primary = named
		return named != old
	})
	primary.must("be the primary", func(ctx context.Context, client *redis.Client) error {
		info, err := client.Info(ctx, "replication").Result()
		if err == nil && !strings.Contains(info, "role:master") {
			err = errors.New("is a replica")
		}
		return err
	})
	return primary
}

// awaitNamed waits until each sentinel that works names a server that works and
// that is the one, and no failover runs.
func (s *Sentinel) awaitNamed(isIt func(named *Redis) bool) {
	s.tb.Helper()
	for _, sentinel := range s.Sentinels {
		if !sentinel.works() {
			continue
		}
		sentinel.must("name the primary", func(ctx context.Context, client *redis.Client) error {
			fields, err := s.master(ctx, client)
			if err != nil {
				return err
			}
			for _, server := range s.Servers {
				// There are more flags if it is down or if a failover is running.
				if server.Address == net.JoinHostPort(fields["ip"], fields["port"]) && fields["flags"] == "master" && isIt(server) {
					return nil
				}
			}
			return fmt.Errorf("says %v", fields)
		})
	}
}

// Failover makes the sentinels promote a replica in place of a primary that
// works, and waits for it.
func (s *Sentinel) Failover() *Redis {
	s.tb.Helper()
	old := s.Primary()
	var tried time.Time
	s.Sentinels[0].must("promote a replica", func(ctx context.Context, client *redis.Client) error {
		fields, err := s.master(ctx, client)
		if err != nil || net.JoinHostPort(fields["ip"], fields["port"]) != old.Address {
			return err
		}
		// On a busy machine a failover may be abandoned.
		if time.Since(tried) > 10*time.Second {
			tried = time.Now()
			err = client.Do(ctx, "SENTINEL", "FAILOVER", s.MasterName).Err()
		}
		return cmp.Or(err, errors.New("the primary is the old one"))
	})
	return s.AwaitFailover(old)
}

// Flush removes every key.
func (s *Sentinel) Flush() {
	s.tb.Helper()
	s.Primary().Flush()
}
