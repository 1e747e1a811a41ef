package cache

import (
	"encoding/hex"
	"strings"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// schemaVersion changes with the meaning of a stored value, so that replicas
// of two releases never read each other's.
const schemaVersion = "v1"

// redisKeys makes the keys of one partner's evidence:
//
//	{prefix}:v1:{namespace}:{customer, 32 hex digits, in braces}:{facet}
//
// The braces are Redis's hash tag: all keys of a customer share a slot. A lease's
// key has ":lease" behind the facet, and announcements go through the channel
//
//	{prefix}:v1:{namespace}:announcements
type redisKeys struct{ head string }

func newRedisKeys(prefix, namespace string) redisKeys {
	// A brace outside the customer's would be taken for the hash tag.
	clean := strings.NewReplacer("{", "_", "}", "_")
	return redisKeys{head: clean.Replace(prefix) + ":" + schemaVersion + ":" + clean.Replace(namespace) + ":"}
}

func (k redisKeys) of(key eligibility.Key) string {
	name := make([]byte, 0, 128) // on the stack
	name = append(append(name, k.head...), '{')
	name = hex.AppendEncode(name, key.CustomerID[:])
	name = append(name, "}:"...)
	name = append(name, key.Facet.String()...)
	return string(name)
}

func (k redisKeys) lease(key eligibility.Key) string { return k.of(key) + ":lease" }

func (k redisKeys) channel() string { return k.head + "announcements" }
