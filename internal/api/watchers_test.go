package api_test

import (
	"testing"

	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"
)

func TestStreamsOfWatchersAreBounded(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
	run.Chain.SetBeside(api.MaxBeside) // as if so many were open
	watch, err := healthv1.NewHealthClient(run.Conn).Watch(t.Context(), new(healthv1.HealthCheckRequest))
	if err != nil {
		t.Fatal(err)
	}
	_, err = watch.Recv()
	if got := apitest.OutcomeOf(status.Convert(err)); got.Code != codes.ResourceExhausted || got.Reason != "OVERLOADED" || got.Retry == 0 {
		t.Errorf("%v", err)
	}
}
