package server

import (
	"testing"

	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

func TestStreamsOfWatchersAreBounded(t *testing.T) {
	t.Parallel()
	run := start(t, setup{source: approved()})
	run.chain.SetStreams(MaxOpenStreams) // as if so many were open
	watch, err := healthv1.NewHealthClient(run.conn).Watch(t.Context(), new(healthv1.HealthCheckRequest))
	if err != nil {
		t.Fatal(err)
	}
	_, err = watch.Recv()
	if got := tellOf(status.Convert(err)); got.Code != codes.ResourceExhausted || got.Reason != "OVERLOADED" || got.Retry == 0 {
		t.Errorf("%v", err)
	}
}
