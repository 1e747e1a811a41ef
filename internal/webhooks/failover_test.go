package webhooks_test

import (
	"net/http"
	"strings"
	"testing"
)

// A failover loses the commit that parked changes, and keeps the position: the holder
// writes another before it notices.
func TestAFailoverThatLosesParkedChanges(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 2)
	f.receiver.set(func(got received) (int, http.Header, error) {
		if got.customer == customer(1).String() {
			return http.StatusInternalServerError, nil, nil
		}
		return http.StatusOK, nil, nil
	})
	f.feed.add(1)
	f.feed.add(1)
	await(t, "two changes are parked", func() bool { return f.status(t).Parked == 2 })
	await(t, "the position has passed them", func() bool { return f.state(t).Position == "2" })
	client := f.server.Client()
	defer func() { _ = client.Close() }()
	for _, key := range client.Keys(t.Context(), "*").Val() {
		if strings.HasSuffix(key, ":parked") || strings.HasSuffix(key, ":letters") {
			client.Del(t.Context(), key)
		}
	}
	f.feed.add(2)
	await(t, "the next position is stored", func() bool { return f.state(t).Position == "3" })
	await(t, "the parked changes are stored again", func() bool { return f.status(t).Parked == 2 })
	f.stops[f.holder(t)]()
	f.receiver.set(nil)
	f.expect(t, "the holder has stopped")
}
