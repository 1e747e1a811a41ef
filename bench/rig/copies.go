package rig

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
)

// fetched is the number of customers that the first service of a program fetches;
// the evidence of all others is a copy of theirs.
const fetched = 1000

// copied is the number of commands in one pipeline.
const copied = 2000

// form is a stored value that can be copied to other customers.
type form struct {
	key     string // with the id of its customer, as customer holds it
	id      string
	facet   byte
	content []byte // without its checksum
	expiry  time.Duration
}

// copyEvidence stores the evidence of the customers beyond the first fetched ones,
// which the service has stored under prefix. Fetching that of a million would take
// ten minutes. A copy has the checksum of its own customer, as internal/cache makes
// it; if that changes, a service finds the copies unreadable and fetches, which
// takes longer and measures the same.
func (r *Rig) copyEvidence(ctx context.Context, prefix string) error {
	client := redis.NewClient(&redis.Options{Addr: r.Redis, ReadTimeout: time.Minute})
	defer func() { _ = client.Close() }() // it has nothing to lose
	forms := map[uint64][]form{}          // by partition
	for i := range fetched {
		if partition := partitionOf(i); forms[partition] == nil {
			var err error
			if forms[partition], err = formsOf(ctx, client, prefix, i); err != nil {
				return fmt.Errorf("copy evidence: %w", err)
			}
		}
	}
	pipeline := client.Pipeline()
	for i := fetched; i < r.cfg.Customers; i++ {
		id := uuid.MustParse(CustomerID(i))
		for _, f := range forms[partitionOf(i)] {
			value := binary.BigEndian.AppendUint32(append([]byte(nil), f.content...), checksum(f.facet, id, f.content))
			pipeline.Set(ctx, strings.Replace(f.key, f.id, hex.EncodeToString(id[:]), 1), value, f.expiry)
		}
		if pipeline.Len() >= copied || i == r.cfg.Customers-1 {
			if _, err := pipeline.Exec(ctx); err != nil {
				return fmt.Errorf("copy evidence: %w", err)
			}
		}
	}
	return nil
}

// formsOf returns both facets of a customer.
func formsOf(ctx context.Context, client *redis.Client, prefix string, customer int) ([]form, error) {
	id := uuid.MustParse(CustomerID(customer))
	digits := hex.EncodeToString(id[:])
	var forms []form
	for _, facet := range []string{"account", "qualifications"} {
		keys, _, err := client.Scan(ctx, 0, prefix+":*"+digits+":"+facet, 1<<20).Result()
		if err != nil || len(keys) != 1 {
			return nil, errors.Join(err, fmt.Errorf("%d keys of the %s of customer %s", len(keys), facet, id))
		}
		value, err := client.Get(ctx, keys[0]).Bytes()
		if err != nil {
			return nil, err
		}
		expiry, err := client.PTTL(ctx, keys[0]).Result()
		if err != nil {
			return nil, err
		}
		f := form{key: keys[0], id: digits, content: value[:max(len(value)-crc32.Size, 0)], expiry: expiry}
		for f.facet = 0; len(value) < crc32.Size || checksum(f.facet, id, f.content) != binary.BigEndian.Uint32(value[len(f.content):]); f.facet++ {
			if f.facet > 9 {
				return nil, fmt.Errorf("the %s of customer %s have an unknown form", facet, id)
			}
		}
		forms = append(forms, f)
	}
	return forms, nil
}

// checksum is that of a value in Redis without an integrity key.
func checksum(facet byte, id uuid.UUID, content []byte) uint32 {
	head := append([]byte{'v', facet}, id[:]...)
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, content)
}

// partitionOf returns the partition of a customer: keys of one have the same tag.
func partitionOf(customer int) uint64 {
	id := uuid.MustParse(CustomerID(customer))
	x := binary.LittleEndian.Uint64(id[:8]) ^ binary.LittleEndian.Uint64(id[8:])*0x9e3779b97f4a7c15
	x = (x ^ x>>32) * 0xd6e8feb86659fd93
	return x >> 58
}
