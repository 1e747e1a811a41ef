package evidence

import (
	"errors"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const (
	// coolDownDefault is how long qualifications are not fetched again after a
	// failure, unless a decision needs them. If the failure has a Retry-After,
	// that applies instead, up to maxCoolDown.
	coolDownDefault = 10 * time.Second
	maxCoolDown     = time.Minute
	// maxCoolDowns bounds the cool-downs of a shard. Failures beyond it have none.
	maxCoolDowns = 1024
)

// coolDowns holds the qualifications whose last fetch failed. A cool-down is no
// evidence: no decision uses it.
type coolDowns map[eligibility.Key]coolDown

type coolDown struct {
	until time.Time // on the monotonic clock
	err   error
}

// record starts the cool-down of key if err is set, and ends it otherwise. Only
// qualifications have one: every decision needs the account.
func (c coolDowns) record(key eligibility.Key, err error, now time.Time) {
	if key.Facet != eligibility.FacetQualifications {
		return
	}
	if err == nil {
		delete(c, key)
		return
	}
	if len(c) >= maxCoolDowns {
		for other, d := range c {
			if !now.Before(d.until) {
				delete(c, other)
			}
		}
		if len(c) >= maxCoolDowns {
			return
		}
	}
	pause := coolDownDefault
	if known, ok := errors.AsType[*eligibility.Error](err); ok && known.RetryAfter > 0 {
		pause = min(known.RetryAfter, maxCoolDown)
	}
	c[key] = coolDown{until: now.Add(pause), err: err}
}

// failure returns the failure that key cools down from, or nil.
func (c coolDowns) failure(key eligibility.Key, now time.Time) error {
	if d, ok := c[key]; ok && now.Before(d.until) {
		return d.err
	}
	return nil
}
