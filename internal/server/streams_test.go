package server_test

import (
	"runtime"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/server"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// await returns when so many streams wait for their first message.
func await(t *testing.T, run *servertest.Running, streams int) {
	t.Helper()
	for run.Server.Waiting() != streams {
		if t.Context().Err() != nil {
			t.Fatal("the streams do not arrive")
		}
		runtime.Gosched()
	}
}

func TestAStreamWithoutAMessageIsEnded(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
	methods := []string{
		eligibilityv1.EligibilityService_CheckEligibility_FullMethodName,
		eligibilityv1.EligibilityService_BatchCheckEligibility_FullMethodName,
		healthv1.Health_Check_FullMethodName,
		healthv1.Health_Watch_FullMethodName,
		grpc_reflection_v1.ServerReflection_ServerReflectionInfo_FullMethodName,
	}
	var streams []grpc.ClientStream
	for _, method := range methods {
		stream, err := run.Conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, stream)
	}
	await(t, run, len(methods))
	if got := run.Scrape(t, "eligibility_grpc_streams_waiting"); !slices.Equal(got, []string{"eligibility_grpc_streams_waiting 5"}) {
		t.Errorf("%q", got)
	}
	run.Server.Sweep(server.FirstMessageTimeout - time.Second)
	if got := run.Server.Waiting(); got != len(methods) {
		t.Errorf("%d streams are left before the time, want %d", got, len(methods))
	}
	run.Server.Sweep(server.FirstMessageTimeout + time.Second)
	for i, stream := range streams {
		err := stream.RecvMsg(new(eligibilityv1.CheckEligibilityResponse))
		if got := apitest.OutcomeOf(status.Convert(err)); got.Code != codes.DeadlineExceeded || got.Reason != "DEADLINE_EXCEEDED" {
			t.Errorf("%s: %v", methods[i], err)
		}
	}
	if got := run.Scrape(t, "eligibility_grpc_streams_"); !slices.Equal(got, []string{"eligibility_grpc_streams_timed_out_total 5", "eligibility_grpc_streams_waiting 0"}) {
		t.Errorf("%q", got)
	}
}

func TestAStreamWithAMessageIsNotEnded(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
	watch, err := healthv1.NewHealthClient(run.Conn).Watch(t.Context(), new(healthv1.HealthCheckRequest))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	run.Server.Sweep(time.Hour)
	run.Server.SetReady()
	if got, err := watch.Recv(); err != nil || got.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("%v, %v", got, err)
	}
}
