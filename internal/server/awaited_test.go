package server

import (
	"io"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// await returns when so many streams wait for their first message.
func (r *running) await(t *testing.T, streams int) {
	t.Helper()
	for r.server.awaited.waiting() != streams {
		if t.Context().Err() != nil {
			t.Fatal("the streams do not arrive")
		}
		runtime.Gosched()
	}
}

func TestAStreamWithoutAMessageIsEnded(t *testing.T) {
	t.Parallel()
	run := start(t, setup{source: approved()})
	methods := []string{
		eligibilityv1.EligibilityService_CheckEligibility_FullMethodName,
		eligibilityv1.EligibilityService_BatchCheckEligibility_FullMethodName,
		healthv1.Health_Check_FullMethodName,
		healthv1.Health_Watch_FullMethodName,
		grpc_reflection_v1.ServerReflection_ServerReflectionInfo_FullMethodName,
	}
	var streams []grpc.ClientStream
	for _, method := range methods {
		stream, err := run.conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, stream)
	}
	run.await(t, len(methods))
	if got := run.scrape(t, "eligibility_grpc_streams_waiting"); !slices.Equal(got, []string{"eligibility_grpc_streams_waiting 5"}) {
		t.Errorf("%q", got)
	}
	run.server.awaited.sweep(time.Now().Add(firstMessageTimeout - time.Second))
	if got := run.server.awaited.waiting(); got != len(methods) {
		t.Errorf("%d streams are left before the time, want %d", got, len(methods))
	}
	run.server.awaited.sweep(time.Now().Add(firstMessageTimeout))
	for i, stream := range streams {
		err := stream.RecvMsg(new(eligibilityv1.CheckEligibilityResponse))
		if got := tellOf(status.Convert(err)); got.Code != codes.DeadlineExceeded || got.Reason != "DEADLINE_EXCEEDED" {
			t.Errorf("%s: %v", methods[i], err)
		}
	}
	if got := run.scrape(t, "eligibility_grpc_streams_"); !slices.Equal(got, []string{"eligibility_grpc_streams_timed_out_total 5", "eligibility_grpc_streams_waiting 0"}) {
		t.Errorf("%q", got)
	}
}

func TestAStreamWithAMessageIsNotEnded(t *testing.T) {
	t.Parallel()
	run := start(t, setup{source: approved()})
	watch, err := healthv1.NewHealthClient(run.conn).Watch(t.Context(), new(healthv1.HealthCheckRequest))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	run.server.awaited.sweep(time.Now().Add(time.Hour))
	run.server.SetReady()
	if got, err := watch.Recv(); err != nil || got.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("%v, %v", got, err)
	}
}

func TestStreamsOfWatchersAreBounded(t *testing.T) {
	t.Parallel()
	run := start(t, setup{source: approved()})
	run.chain.streams.Store(maxOpenStreams) // as if so many were open
	watch, err := healthv1.NewHealthClient(run.conn).Watch(t.Context(), new(healthv1.HealthCheckRequest))
	if err != nil {
		t.Fatal(err)
	}
	_, err = watch.Recv()
	if got := tellOf(status.Convert(err)); got.Code != codes.ResourceExhausted || got.Reason != "OVERLOADED" || got.Retry == 0 {
		t.Errorf("%v", err)
	}
}

// endedStream notes the status that it is ended with.
type endedStream struct{ code codes.Code }

func (e *endedStream) WriteStatus(st *status.Status) error {
	e.code = st.Code()
	return nil
}

// TestASilentConnectionCannotCrowdOthersOut fills all places from one connection.
func TestASilentConnectionCannotCrowdOthersOut(t *testing.T) {
	t.Parallel()
	ended := 0
	a := &awaited{ended: func() { ended++ }}
	silent, honest := new(peer.Peer), new(peer.Peer)
	first := new(endedStream)
	for i := range maxAwaited {
		stream := new(endedStream)
		if i == 0 {
			stream = first
		}
		if !a.add(&awaitedStream{stream: stream, conn: silent}) {
			t.Fatalf("stream %d is refused", i)
		}
	}
	if a.add(&awaitedStream{stream: new(endedStream), conn: silent}) {
		t.Error("the silent connection gets one more stream")
	}
	stream := &awaitedStream{stream: new(endedStream), conn: honest}
	if !a.add(stream) || ended != 1 || first.code != codes.ResourceExhausted {
		t.Errorf("another connection gets no room: %d ended, the oldest with %v", ended, first.code)
	}
	a.drop(stream)
	if got := a.waiting(); got != maxAwaited-1 {
		t.Errorf("%d wait, want %d", got, maxAwaited-1)
	}
}

// TestAwaitedHoldsWhatWasAdded compares the list with a slice over random steps.
func TestAwaitedHoldsWhatWasAdded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a := &awaited{ended: func() {}}
		conns := []*peer.Peer{{}, {}, {}}
		var model []*awaitedStream
		now := time.Now()
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				now = now.Add(time.Second)
				s := &awaitedStream{stream: new(endedStream), conn: rapid.SampledFrom(conns).Draw(t, "conn"), since: now}
				a.add(s)
				model = append(model, s)
			},
			"drop": func(t *rapid.T) {
				if len(model) == 0 {
					t.Skip("empty")
				}
				i := rapid.IntRange(0, len(model)-1).Draw(t, "place")
				a.drop(model[i])
				a.drop(model[i]) // again changes nothing
				model = slices.Delete(model, i, i+1)
			},
			"sweep": func(*rapid.T) {
				a.sweep(now)
				model = slices.DeleteFunc(model, func(s *awaitedStream) bool { return now.Sub(s.since) >= firstMessageTimeout })
			},
			"": func(t *rapid.T) {
				counts := make(map[*peer.Peer]int)
				s := a.oldest
				for _, want := range model {
					if s != want {
						t.Fatal("the list differs")
					}
					counts[s.conn]++
					s = s.newer
				}
				if s != nil || a.count != len(model) || len(counts) != len(a.counts) {
					t.Fatalf("%d streams in %v, want %d in %v", a.count, a.counts, len(model), counts)
				}
			},
		})
	})
}

func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	counted := &connections{refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "refused_total", Help: "refused"})}
	listener := &boundedListener{listen(t), 2, counted}
	defer func() { _ = listener.Close() }()
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	dial := func() net.Conn {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	dial()
	dial()
	one, two := <-accepted, <-accepted
	if n, err := dial().Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a third connection reads %d bytes, %v", n, err)
	}
	if counted.open.Load() != 2 {
		t.Errorf("%d are open, want 2", counted.open.Load())
	}
	_ = one.Close()
	_ = one.Close() // again changes nothing
	client := dial()
	three := <-accepted
	go func() { _, _ = three.Write([]byte("x")) }()
	if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
		t.Errorf("after one has gone, the next: %v", err)
	}
	_, _ = two.Close(), three.Close()
	if counted.open.Load() != 0 {
		t.Errorf("%d are open, want none", counted.open.Load())
	}
}
