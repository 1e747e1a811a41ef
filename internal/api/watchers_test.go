package api_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
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
	watch := func(conn *grpc.ClientConn) (end func(), err error) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		stream, err := healthv1.NewHealthClient(conn).Watch(ctx, new(healthv1.HealthCheckRequest))
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		return cancel, err
	}
	// What others hold denies no connection its first.
	end, err := watch(run.Conn)
	if err != nil {
		t.Fatalf("the first stream of a connection: %v", err)
	}
	end2, err := watch(run.Conn)
	defer end2()
	if got := apitest.OutcomeOf(status.Convert(err)); got.Code != codes.ResourceExhausted || got.Reason != "OVERLOADED" || got.Retry == 0 {
		t.Errorf("its second: %v", err)
	}
	other, err := grpc.NewClient(run.Conn.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	endOther, err := watch(other)
	defer endOther()
	if err != nil {
		t.Errorf("another connection: %v", err)
	}
	end()
	for deadline := time.Now().Add(20 * time.Second); ; {
		end, err = watch(run.Conn)
		t.Cleanup(end)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after the first has ended: %v", err)
		}
	}
}
