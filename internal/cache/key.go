package cache

import (
	"encoding/hex"
	"strings"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// schemaVersion changes with the meaning of what is stored, so that replicas of
// two releases never read each other's.
const schemaVersion = "v2"

// redisKeys makes the keys of one partner's evidence:
//
//	{prefix}:v2:{namespace}:{TAG}:{customer, 32 hex digits}:{facet}
//
// The braces around TAG, the tag of the customer's partition, are literal:
// Redis's hash tag. A lease's key ends in ":lease", that of a history in ":history", and
// that of its last confirmation in ":confirmed". Each partition also has the
// keys of its heartbeats, see [heartbeatScript], and of its changes and reviews, see
// [putScript]. Messages go through the channel
//
//	{prefix}:v2:{namespace}:messages
//
// and a replica's own heartbeats through ":messages:" and its ID.
type redisKeys struct{ head string }

func newRedisKeys(prefix, namespace string) redisKeys {
	// A brace outside the tag would be read as the hash tag.
	clean := strings.NewReplacer("{", "_", "}", "_")
	return redisKeys{head: clean.Replace(prefix) + ":" + schemaVersion + ":" + clean.Replace(namespace) + ":"}
}

func (k redisKeys) of(key eligibility.Key) string {
	return string(k.append(make([]byte, 0, 128), key)) // on the stack
}

// append appends what of returns.
func (k redisKeys) append(b []byte, key eligibility.Key) []byte {
	b = append(append(b, k.head...), '{')
	b = append(b, partitionTags[partitionOf(key.CustomerID)]...)
	b = append(b, "}:"...)
	b = hex.AppendEncode(b, key.CustomerID[:])
	b = append(b, ':')
	return append(b, key.Facet.String()...)
}

func (k redisKeys) lease(key eligibility.Key) string { return k.of(key) + ":lease" }

func (k redisKeys) history(key eligibility.Key) string { return k.of(key) + ":history" }

func (k redisKeys) confirmed(key eligibility.Key) string { return k.of(key) + ":confirmed" }

// inPartition is a key of the partition itself.
func (k redisKeys) inPartition(partition int, name string) string {
	return k.head + "{" + partitionTags[partition] + "}:" + name
}

// reviewMember is the member of a key in the sorted sets of reviews: the customer as 32
// hex digits, a colon and the facet.
func reviewMember(key eligibility.Key) string {
	return hex.EncodeToString(key.CustomerID[:]) + ":" + key.Facet.String()
}

func (k redisKeys) channel() string { return k.head + "messages" }

func (k redisKeys) ownChannel(replica token) string {
	return k.channel() + ":" + hex.EncodeToString(replica[:])
}
