package cachetest

import (
	"context"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// A node of a cluster also listens on the port that is busOffset higher. Both
// lie below the ports that systems give to connections, so that only another
// server can take one between its choice and its use.
const (
	lowestPort = 10_000
	busOffset  = 10_000
	ports      = 12_000
)

// freePort returns a port that is free now.
func freePort(tb testing.TB) string {
	tb.Helper()
	for range 1000 {
		port := lowestPort + rand.IntN(ports) //nolint:gosec // no secret
		if isFree(port) && isFree(port+busOffset) {
			return strconv.Itoa(port)
		}
	}
	tb.Fatal("no free port")
	return ""
}

func isFree(port int) bool {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return listener.Close() == nil
}
