package doctor

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/eligibilityd/eligibilityd/internal/app"
	"github.com/eligibilityd/eligibilityd/internal/budget"
	"github.com/eligibilityd/eligibilityd/internal/cache"
)

// checkReplicas is the check of the replicas that share a budget.
const checkReplicas = "replicas"

// maxDifferences is how many differing replicas a finding lists.
const maxDifferences = 5

// checkReplicas compares the configuration of the partner with those of the running
// replicas. If Redis cannot be asked, checkRedis says so.
func (p patient) checkReplicas(ctx context.Context) (findings []Finding) {
	defer func() {
		if recover() != nil { // as in checkRedis
			findings = nil
		}
	}()
	if len(p.cfg.Cache.Redis.Addresses) == 0 {
		return nil
	}
	redis := app.PartnerRedisConfig(p.cfg, p.partner)
	redis.ReadTimeout, redis.WriteTimeout = redisLimit, redisLimit
	client, err := cache.NewClient(redis)
	if err != nil {
		return nil
	}
	defer func() { _ = client.Close() }() // nothing is left to lose
	replicas, err := cache.Replicas(ctx, client, redis)
	if err != nil {
		return nil
	}
	return []Finding{compareReplicas(app.Replica(p.cfg, p.partner, app.Build{}), replicas)}
}

// compareReplicas warns if a replica has another budget or another policy than own.
func compareReplicas(own budget.Replica, replicas []budget.Replica) Finding {
	slices.SortFunc(replicas, func(a, b budget.Replica) int { return cmp.Compare(a.Host, b.Host) })
	var differences []string
	for _, replica := range replicas {
		if words := differing(own, replica); len(words) > 0 {
			differences = append(differences, printable(replica.Host)+" has "+strings.Join(words, ", "))
		}
	}
	differences = slices.Compact(differences)
	switch n := len(differences); {
	case len(replicas) == 0:
		return ok(checkReplicas, "none is running")
	case n == 0:
		return ok(checkReplicas, "%d running, with this budget and policy", len(replicas))
	case n > maxDifferences:
		differences = append(differences[:maxDifferences], fmt.Sprintf("%d more differ", n-maxDifferences))
	}
	return warning(checkReplicas, "give all replicas of a partner the same budget_per_minute, policy and cache.ages, and restart those that differ: "+
		"the same customer must not get another answer from another replica", "%s", strings.Join(differences, "; "))
}

// differing names what differs, with both values.
func differing(own, other budget.Replica) (words []string) {
	if other.PerMinute != own.PerMinute {
		words = append(words, fmt.Sprintf("partner_center.budget_per_minute %d (here %d)", other.PerMinute, own.PerMinute))
	}
	values := make(map[string]string)
	for word := range strings.FieldsSeq(other.Policy) {
		key, value, _ := strings.Cut(word, "=")
		values[key] = value
	}
	for word := range strings.FieldsSeq(own.Policy) {
		key, value, _ := strings.Cut(word, "=")
		if got, has := values[key]; !has {
			words = append(words, fmt.Sprintf("no %s (here %s)", key, value))
		} else if got != value {
			words = append(words, fmt.Sprintf("%s %s (here %s)", key, printable(got), value))
		}
	}
	return words
}

// printableWord matches what may be shown of the text of another replica, or of
// whoever can write to Redis.
var printableWord = regexp.MustCompile(`^[A-Za-z0-9._/-]{1,64}$`)

func printable(text string) string {
	if !printableWord.MatchString(text) {
		return "(unreadable)"
	}
	return text
}
