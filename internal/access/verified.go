package access

import (
	"crypto/sha256"
	"sync"
	"time"
)

const (
	// verifiedFor is how long a token is not verified again.
	verifiedFor = 5 * time.Minute
	// maxVerified bounds the tokens that are remembered, which are spread over shards.
	maxVerified = 10_000
	shards      = 16
)

// verifiedTokens remembers tokens whose signatures were verified, by their hash. Its
// zero value is empty. Tokens that are refused never enter, so only holders of valid
// tokens can displace others.
type verifiedTokens struct {
	shards [shards]struct {
		mu     sync.RWMutex
		tokens map[[sha256.Size]byte]verifiedToken // guarded by mu
	}
}

// verifiedToken is what a valid token says.
type verifiedToken struct {
	caller *Caller
	key    *key          // that signed it
	expiry time.Time     // by the time of day
	until  time.Duration // by the time that passes: a clock that is set back prolongs nothing
}

func (v verifiedToken) valid(clock clock) bool {
	elapsed := clock.elapsed()
	return elapsed < v.until && elapsed < time.Duration(v.key.until.Load()) && clock.now().Before(v.expiry)
}

func (t *verifiedTokens) get(sum *[sha256.Size]byte, clock clock) *Caller {
	shard := &t.shards[sum[0]%shards]
	shard.mu.RLock()
	token, known := shard.tokens[*sum]
	shard.mu.RUnlock()
	if !known || !token.valid(clock) {
		return nil
	}
	return token.caller
}

// put remembers a token. In a full shard it replaces tokens that are no longer valid;
// if there are none, any other.
func (t *verifiedTokens) put(sum *[sha256.Size]byte, token verifiedToken, clock clock) {
	token.until = clock.elapsed() + min(verifiedFor, token.expiry.Sub(clock.now()))
	if !token.valid(clock) {
		return // it is within the leeway
	}
	shard := &t.shards[sum[0]%shards]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if shard.tokens == nil {
		shard.tokens = map[[sha256.Size]byte]verifiedToken{}
	}
	if _, known := shard.tokens[*sum]; !known && len(shard.tokens) >= maxVerified/shards {
		for other, old := range shard.tokens {
			if !old.valid(clock) {
				delete(shard.tokens, other)
			}
		}
		for other := range shard.tokens {
			if len(shard.tokens) < maxVerified/shards {
				break
			}
			delete(shard.tokens, other)
		}
	}
	shard.tokens[*sum] = token
}
