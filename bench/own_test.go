package main

import (
	"strings"
	"testing"
)

func TestASampleBelongsToTheInnermostOfOwnAndTransport(t *testing.T) {
	t.Parallel()
	const rule = "-----------+-------------------------------------------------------\n"
	got := sharesOf("File: eligibilityd\nDuration: 10s, Total samples = 100ms (1%)\n" +
		rule + `      10ms   runtime.mallocgc
             google.golang.org/protobuf/proto.Marshal (inline)
             github.com/eligibilityd/eligibilityd/internal/api.(*handler).CheckEligibility
             github.com/eligibilityd/eligibilityd/internal/api.(*Chain).Intercept
             google.golang.org/grpc.(*Server).handleStream
` + rule + `       5ms   github.com/eligibilityd/eligibilityd/internal/api.appendTime
             google.golang.org/grpc.(*Server).handleStream
` + rule + `      60ms   internal/runtime/syscall.Syscall6
             net.(*conn).Write
             github.com/eligibilityd/eligibilityd/internal/rest.(*Handler).serve
` + rule + "      25ms   runtime.gcDrain\n             runtime.gcBgMarkWorker\n" + rule)
	if got.own != 15 || got.flat != 5 || got.transport != 60 || got.runtime != 25 {
		t.Errorf("%+v", got)
	}
	var out strings.Builder
	got.write(&out)
	want := "own 15.0 % (itself 5.0 %), transport 60.0 %, runtime alone 25.0 % of 100 ms\n" +
		"  10.0 %  internal/api.(*handler).CheckEligibility\n   5.0 %  internal/api.appendTime\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
