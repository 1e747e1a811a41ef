package server

import (
	"cmp"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"
)

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
	a := newAwaited(func() { ended++ })
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
		a := newAwaited(func() {})
		conns := []*peer.Peer{{}, {}, {}}
		var model []*awaitedStream
		second := int64(0)
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				second++
				a.second.Store(second)
				s := &awaitedStream{stream: new(endedStream), conn: rapid.SampledFrom(conns).Draw(t, "conn")}
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
				a.sweep(second)
				model = slices.DeleteFunc(model, func(s *awaitedStream) bool { return second-s.second > int64(firstMessageTimeout/time.Second) })
			},
			"": func(t *rapid.T) {
				counts := make(map[*peer.Peer]int)
				var listed []*awaitedStream
				for i := range a.shards {
					for s := a.shards[i].oldest; s != nil; s = s.newer {
						listed = append(listed, s)
					}
				}
				slices.SortFunc(listed, func(a, b *awaitedStream) int { return cmp.Compare(a.order, b.order) })
				for _, s := range model {
					counts[s.conn]++
				}
				held := make(map[*peer.Peer]int)
				for i := range a.shards {
					maps.Copy(held, a.shards[i].counts)
				}
				if !slices.Equal(listed, model) || a.waiting() != len(model) || !maps.Equal(counts, held) {
					t.Fatalf("%d streams in %v, want %d in %v", a.waiting(), held, len(model), counts)
				}
			},
		})
	})
}

func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	counted := &connections{refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "refused_total", Help: "refused"})}
	open, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener := &boundedListener{open, counted, Limits{Connections: 2}.withDefaults(), newTogether(0), false}
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

// pipes is a listener whose connections lead nowhere.
type pipes struct{ net.Listener }

func (pipes) Accept() (net.Conn, error) {
	_, server := net.Pipe()
	return server, nil
}

func TestConnectionsWithoutARequestAreReplacedFirst(t *testing.T) {
	t.Parallel()
	counted := &connections{refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "refused_total", Help: "refused"})}
	listener := &operatorListener{Listener: pipes{}, connections: counted, max: 3}
	var conns []*operatorConnection
	for _, step := range []struct {
		state    http.ConnState // of the next connection
		replaced int            // by it
	}{
		{http.StateActive, -1},
		{http.StateIdle, -1},
		{http.StateNew, -1},
		{http.StateActive, 1},
		{http.StateActive, 2},
		{http.StateActive, 0}, // all have a request
		{http.StateIdle, 3},
		{http.StateActive, 6},
	} {
		accepted, err := listener.Accept()
		conn, ok := accepted.(*operatorConnection)
		if err != nil || !ok {
			t.Fatal(accepted, err)
		}
		noteState(conn, step.state)
		for i, other := range conns {
			if i == step.replaced && other.place != nil {
				t.Errorf("connection %d does not replace %d", len(conns), i)
			}
		}
		conns = append(conns, conn)
		if want := int64(min(len(conns), 3)); counted.open.Load() != want {
			t.Errorf("%d are open, want %d", counted.open.Load(), want)
		}
	}
}
