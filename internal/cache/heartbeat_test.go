package cache

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// The results of a heartbeat, by the age that it last stored and by the watermark.
func TestHeartbeatScript(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	client := server.Client()
	defer func() { _ = client.Close() }()
	now := time.Now().Add(time.Minute).Truncate(time.Millisecond) // later than the server's
	old := now.Add(-time.Hour)
	for name, row := range map[string]struct {
		stored        string        // empty: absent
		floor         time.Time     // zero: there is no watermark
		silent        time.Duration // since when there was no heartbeat
		watermark     string        // if set, instead of the floor
		age           int           // 0: the next after what was seen
		seen, covered int
		raise         int
		lost          bool
		wantAge       string // empty: that of the heartbeat
		want          time.Time
	}{
		"the first on a new server":         {seen: -1, covered: -60_000, want: now},
		"the first beside others":           {floor: old, seen: -1, covered: -60_000, want: old},
		"all is well":                       {stored: "1000", floor: old, seen: 1000, covered: -59_000, want: old},
		"a reply was lost":                  {stored: "1250", floor: old, seen: 1000, covered: -59_000, want: old},
		"late, after the next":              {stored: "1500", floor: old, age: 1250, seen: 1000, covered: -59_000, wantAge: "1500", want: old},
		"a loss that outboxes cover":        {stored: "99000", floor: old, seen: 100_000, covered: 41_000, lost: true, want: old},
		"a loss beyond what outboxes cover": {stored: "1000", floor: old, seen: 100_000, covered: 41_000, lost: true, want: now},
		"an empty server":                   {seen: 100_000, covered: 41_000, lost: true, want: now},
		"an empty server, a young process":  {floor: old, seen: 5000, covered: -54_000, lost: true, want: old},
		"nobody for a while":                {stored: "1000", floor: old, silent: 11 * time.Second, seen: 1000, covered: -59_000, want: now},
		"nobody for as long as a restart":   {floor: old, silent: 9 * time.Second, seen: -1, covered: -60_000, want: old},
		"a floor is asked for":              {stored: "1000", floor: old, seen: 1000, covered: -59_000, raise: 1, want: now},
		"a floor is asked for, below it":    {stored: "1000", floor: now.Add(time.Second), seen: 1000, covered: -59_000, raise: 1, want: now.Add(time.Second)},
		"a floor of the future":             {stored: "1000", floor: now.Add(time.Hour), seen: 1000, covered: -59_000, want: now},
		"a watermark that is none":          {stored: "1000", watermark: "x", seen: 1000, covered: -59_000, want: now},
		"a watermark without end":           {stored: "1000", watermark: string(timeBytes(old)), silent: watermarkLife, seen: 1000, covered: -59_000, want: now},
		"an age that is none":               {stored: "x", floor: old, seen: 1000, covered: -59_000, lost: true, want: old},
		"an age that is none, of long ago":  {stored: "x", floor: old, seen: 100_000, covered: 41_000, lost: true, want: now},
		"an age that is no number":          {stored: "nan", floor: old, seen: 1000, covered: -59_000, want: old},
		"an age that nothing reaches":       {stored: "1e300", floor: old, seen: 1000, covered: -59_000, want: old},
	} {
		ctx := context.Background()
		client.Del(ctx, "own", "watermark")
		if row.stored != "" {
			client.Set(ctx, "own", row.stored, 0)
		}
		if !row.floor.IsZero() {
			row.watermark = string(timeBytes(row.floor))
		}
		if row.watermark != "" {
			client.Set(ctx, "watermark", row.watermark, watermarkLife-row.silent)
		}
		if row.age == 0 {
			row.age = row.seen + 250
		}
		if row.wantAge == "" {
			row.wantAge = strconv.Itoa(row.age)
		}
		answer, err := newScripts().heartbeat.Run(ctx, client, []string{"own", "watermark", "mark"},
			row.age, row.seen, row.covered, timeBytes(now), fleetRestart.Milliseconds(), timeBytes(now.Add(eligibility.ClockTolerance)),
			row.raise, "channel", "message").Slice()
		reply, ok := decodeBeatReply(answer)
		if err != nil || !ok || reply.lost != row.lost || reply.floor != row.want.UnixNano() || reply.silent {
			t.Errorf("%s: %+v, %v, want lost %t and floor %v", name, reply, err, row.lost, row.want.Sub(now))
		}
		if age := client.Get(ctx, "own").Val(); age != row.wantAge {
			t.Errorf("%s: left the age %s, want %s", name, age, row.wantAge)
		}
		if left := client.PTTL(ctx, "watermark").Val(); left < watermarkLife-time.Minute {
			t.Errorf("%s: the watermark was not prolonged: %v", name, left)
		}
	}
}

// A replica whose clock is behind must not lower the floor for replicas that start
// later, nor raise it to a time before a loss of writes.
func TestAReplicaWhoseClockIsBehindKeepsTheFloor(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	client := server.Client()
	defer func() { _ = client.Close() }()
	ctx := context.Background()
	beat := func(now time.Time, raise int) time.Time {
		t.Helper()
		answer, err := newScripts().heartbeat.Run(ctx, client, []string{"own", "watermark", "mark"},
			1, -1, -60_000, timeBytes(now), fleetRestart.Milliseconds(), timeBytes(now.Add(eligibility.ClockTolerance)), raise, "channel", "message").Slice()
		reply, ok := decodeBeatReply(answer)
		if err != nil || !ok {
			t.Fatalf("%v, %v", answer, err)
		}
		return time.Unix(0, reply.floor)
	}
	floor := beat(time.Now(), 0)
	if got := beat(time.Now().Add(-time.Hour), 0); !got.Equal(floor) {
		t.Errorf("the floor is %v, was %v", got, floor)
	}
	before := time.Now().Add(-time.Second)
	if got := beat(time.Now().Add(-time.Hour), 1); got.Before(before) || got.After(time.Now().Add(time.Second)) {
		t.Errorf("the raised floor is %v, it is %v", got, time.Now())
	}
	// A user who may not call TIME loses that, and nothing else.
	if err := client.Do(ctx, "ACL", "SETUSER", "default", "-time").Err(); err != nil {
		t.Fatal(err)
	}
	now := time.Now().Add(time.Minute)
	if got := beat(now, 1); !got.Equal(now) {
		t.Errorf("without TIME the floor is %v, it is %v", got, now)
	}
}
