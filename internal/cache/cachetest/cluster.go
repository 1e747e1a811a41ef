package cachetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// Cluster is three primaries with a replica each. They take a node for dead
// after a second.
type Cluster struct {
	// Addresses are those of all nodes.
	Addresses []string
	// Nodes are the three primaries of the start, then the replica of each.
	Nodes []*Redis

	tb  testing.TB
	ids []string // of Nodes
}

const (
	primaries = 3
	slots     = 16_384
)

// StartCluster starts them and waits until all slots are served and every
// replica has caught up.
func StartCluster(tb testing.TB) *Cluster {
	tb.Helper()
	return (*TLS)(nil).StartCluster(tb)
}

// StartCluster is the function of that name, with TLS.
func (t *TLS) StartCluster(tb testing.TB) *Cluster {
	tb.Helper()
	c := &Cluster{tb: tb}
	for range 2 * primaries {
		node := newRedis(tb)
		node.startOnPort(func(port string) []string {
			return t.args(port, "--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
		})
		c.Nodes = append(c.Nodes, node)
		c.Addresses = append(c.Addresses, node.Address)
	}
	c.join()
	for i, node := range c.Nodes {
		node.must("serve all slots", serves)
		if i >= primaries {
			node.must("follow its primary", follows)
		}
	}
	return c
}

// join makes one cluster of nodes that know nothing.
func (c *Cluster) join() {
	c.tb.Helper()
	for i, node := range c.Nodes {
		node.must("join", func(ctx context.Context, client *redis.Client) error {
			id, err := client.Do(ctx, "CLUSTER", "MYID").Text()
			c.ids = append(c.ids[:i], id)
			if err != nil {
				return err
			}
			if i < primaries {
				// On the second try the node itself has them.
				_ = client.ClusterAddSlotsRange(ctx, i*slots/primaries, (i+1)*slots/primaries-1).Err()
			}
			// Without epochs of their own they would have to agree on them first.
			_ = client.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err()
			// Each meets all, since gossip needs seconds.
			for _, other := range c.Nodes[:i] {
				host, port, _ := strings.Cut(other.Address, ":")
				err = errors.Join(err, client.ClusterMeet(ctx, host, port).Err())
			}
			return err
		})
	}
	for i, node := range c.Nodes {
		node.must("know all others", func(ctx context.Context, client *redis.Client) error {
			info, err := client.ClusterInfo(ctx).Result()
			if err == nil && !strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d\r\n", len(c.Nodes))) {
				err = errors.New("knows fewer")
			}
			return err
		})
		if i >= primaries {
			node.must("become a replica", func(ctx context.Context, client *redis.Client) error {
				return client.ClusterReplicate(ctx, c.ids[i-primaries]).Err()
			})
		}
	}
}

// serves reports whether a node knows of a primary and a replica for each slot.
func serves(ctx context.Context, client *redis.Client) error {
	if err := isComplete(ctx, client); err != nil {
		return err
	}
	served, err := slotsOf(ctx, client)
	if err != nil {
		return err
	}
	for _, slot := range served {
		if len(slot.Nodes) < 2 {
			return errors.New("it does not know all replicas")
		}
	}
	return nil
}

// PrimaryOf is the node that serves a key, in the eyes of the nodes that work.
func (c *Cluster) PrimaryOf(key string) *Redis {
	c.tb.Helper()
	return c.awaitPrimary(key, nil)
}

// AwaitFailover waits until another node than old serves a key, and all nodes
// that work know it; and returns it.
func (c *Cluster) AwaitFailover(key string, old *Redis) *Redis {
	c.tb.Helper()
	return c.awaitPrimary(key, old)
}

// awaitPrimary waits until no node that works names old as the primary of key.
func (c *Cluster) awaitPrimary(key string, old *Redis) (primary *Redis) {
	c.tb.Helper()
	for _, node := range c.Nodes {
		if !node.works() || node == old {
			continue
		}
		node.must("know the primary", func(ctx context.Context, client *redis.Client) (err error) {
			primary, err = c.primaryOf(ctx, client, key)
			if err == nil && primary == old {
				err = errors.New("knows the old one only")
			}
			return err
		})
	}
	if old != nil {
		primary.must("serve all slots", isComplete)
	}
	return primary
}

// primaryOf is the node that serves a key in the eyes of another.
func (c *Cluster) primaryOf(ctx context.Context, client *redis.Client, key string) (*Redis, error) {
	slot, err := client.ClusterKeySlot(ctx, key).Result()
	if err != nil {
		return nil, err
	}
	served, err := slotsOf(ctx, client)
	if err != nil {
		return nil, err
	}
	for _, part := range served {
		if int(slot) < part.Start || int(slot) > part.End || len(part.Nodes) == 0 {
			continue
		}
		if i := slices.Index(c.ids, part.Nodes[0].ID); i >= 0 {
			return c.Nodes[i], nil
		}
	}
	return nil, errors.New("knows none")
}

// slotsOf returns which node serves which slots, as one node reports it.
func slotsOf(ctx context.Context, client *redis.Client) ([]redis.ClusterSlot, error) {
	return client.ClusterSlots(ctx).Result() //nolint:staticcheck // version 6 knows nothing else
}

// isComplete reports whether a node knows of a primary for each slot.
func isComplete(ctx context.Context, client *redis.Client) error {
	info, err := client.ClusterInfo(ctx).Result()
	if err == nil && !strings.Contains(info, "cluster_state:ok") {
		err = errors.New("the cluster is incomplete")
	}
	return err
}

// Flush removes every key of the primaries that work.
func (c *Cluster) Flush() {
	c.tb.Helper()
	for _, node := range c.Nodes {
		if !node.works() {
			continue
		}
		node.must("be empty", func(ctx context.Context, client *redis.Client) error {
			if err := client.FlushAll(ctx).Err(); !redis.HasErrorPrefix(err, "READONLY") {
				return err
			}
			return nil // a replica, emptied by its primary
		})
	}
}
