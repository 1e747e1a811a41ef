package cache

import (
	"context"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
)

// What a heartbeat finds out from the age that it last saw, and from the
// watermark.
func TestHeartbeatScript(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	client := server.Client()
	defer func() { _ = client.Close() }()
	now := time.Now().Truncate(time.Millisecond)
	watermark := func(last, floor time.Time) string { return string(timeBytes(last)) + string(timeBytes(floor)) }
	old := now.Add(-time.Hour)
	for name, row := range map[string]struct {
		stored, watermark string // empty: absent
		seen, covered     int
		raise             int
		lost              bool
		floor             time.Time
	}{
		"the first on a new server":         {seen: -1, covered: -60_000, floor: now},
		"the first beside others":           {watermark: watermark(now, old), seen: -1, covered: -60_000, floor: old},
		"all is well":                       {stored: "1000", watermark: watermark(now, old), seen: 1000, covered: -59_000, floor: old},
		"a reply was lost":                  {stored: "1250", watermark: watermark(now, old), seen: 1000, covered: -59_000, floor: old},
		"a loss that outboxes cover":        {stored: "99000", watermark: watermark(now, old), seen: 100_000, covered: 41_000, lost: true, floor: old},
		"a loss beyond what outboxes cover": {stored: "1000", watermark: watermark(now, old), seen: 100_000, covered: 41_000, lost: true, floor: now},
		"an empty server":                   {seen: 100_000, covered: 41_000, lost: true, floor: now},
		"an empty server, a young process":  {watermark: watermark(now, old), seen: 5000, covered: -54_000, lost: true, floor: old},
		"nobody for a while":                {stored: "1000", watermark: watermark(now.Add(-11*time.Second), old), seen: 1000, covered: -59_000, floor: now},
		"nobody for as long as a restart":   {watermark: watermark(now.Add(-9*time.Second), old), seen: -1, covered: -60_000, floor: old},
		"a floor is asked for":              {stored: "1000", watermark: watermark(now, old), seen: 1000, covered: -59_000, raise: 1, floor: now},
		"a floor of the future":             {stored: "1000", watermark: watermark(now, now.Add(time.Hour)), seen: 1000, covered: -59_000, floor: now},
		"a last heartbeat of the future":    {stored: "1000", watermark: watermark(now.Add(time.Hour), old), seen: 1000, covered: -59_000, floor: old},
		"a watermark that is none":          {stored: "1000", watermark: "x", seen: 1000, covered: -59_000, floor: now},
		"an age that is none":               {stored: "x", watermark: watermark(now, old), seen: 1000, covered: -59_000, lost: true, floor: old},
		"an age that is none, of long ago":  {stored: "x", watermark: watermark(now, old), seen: 100_000, covered: 41_000, lost: true, floor: now},
	} {
		ctx := context.Background()
		for key, value := range map[string]string{"own": row.stored, "watermark": row.watermark} {
			client.Del(ctx, key)
			if value != "" {
				client.Set(ctx, key, value, 0)
			}
		}
		answer, err := newScripts().heartbeat.Run(ctx, client, []string{"own", "watermark", "mark"},
			row.seen+250, row.seen, row.covered, timeBytes(now), timeBytes(now.Add(-fleetRestart)), timeBytes(now.Add(clockTolerance)),
			row.raise, "channel", "message").Slice()
		reply, ok := decodeBeatReply(answer)
		if err != nil || !ok || reply.lost != row.lost || reply.floor != row.floor.UnixNano() || reply.silent {
			t.Errorf("%s: %+v, %v, want lost %t and floor %v", name, reply, err, row.lost, row.floor.Sub(now))
		}
		if last := client.Get(ctx, "watermark").Val(); last[:8] != string(timeBytes(now)) {
			t.Errorf("%s: the watermark was not advanced", name)
		}
	}
}
