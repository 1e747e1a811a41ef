package server

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const (
	// firstMessageTimeout is how long a stream may be open without a message.
	firstMessageTimeout = 10 * time.Second
	// maxAwaited is how many streams may be open without a message.
	maxAwaited = 4096
	// fairAwaited is how many of them one connection may have when all are taken.
	fairAwaited = 16
)

// awaited holds the streams of all gRPC connections whose first message has not
// arrived, each of which costs a goroutine. It ends those that take too long. If
// there are too many, it refuses a connection that has several, and makes room
// for any other by ending the oldest stream: the message of an honest caller
// arrives with its header, so the oldest never gets one. It is safe for
// concurrent use; its zero value, with ended set, is empty.
type awaited struct {
	ended func() // counts a stream that was ended

	mu     sync.Mutex
	oldest *awaitedStream
	newest *awaitedStream
	count  int
	counts map[*peer.Peer]int // connection → its streams
}

// awaitedStream is one of them. Its list is guarded by the mutex of awaited.
type awaitedStream struct {
	stream       statusStream
	conn         *peer.Peer
	since        time.Time
	older, newer *awaitedStream
	listed       bool
}

// statusStream is what awaited needs of grpc-go's stream: the method that ends
// it, and with it the read that a handler's goroutine is blocked in.
type statusStream interface {
	WriteStatus(st *status.Status) error
}

// receive calls recv, which blocks until the message of ctx's stream has arrived.
// It fails at once if the stream is refused.
func (a *awaited) receive(ctx context.Context, recv func() error) error {
	stream, ok := grpc.ServerTransportStreamFromContext(ctx).(statusStream)
	if !ok {
		return recv()
	}
	conn, _ := peer.FromContext(ctx) // one for each connection
	s := &awaitedStream{stream: stream, conn: conn, since: time.Now()}
	if !a.add(s) {
		return api.StatusOf(api.Overloaded()).Err()
	}
	defer a.drop(s)
	return recv()
}

// add reports whether there is room for s, or could be made.
func (a *awaited) add(s *awaitedStream) bool {
	a.mu.Lock()
	if a.count >= maxAwaited && a.counts[s.conn] >= fairAwaited {
		a.mu.Unlock()
		return false
	}
	var evicted *awaitedStream
	if a.count >= maxAwaited {
		evicted = a.oldest
		a.remove(evicted)
	}
	if s.older = a.newest; s.older == nil {
		a.oldest = s
	} else {
		s.older.newer = s
	}
	if a.counts == nil {
		a.counts = make(map[*peer.Peer]int)
	}
	a.newest, s.listed = s, true
	a.count++
	a.counts[s.conn]++
	a.mu.Unlock()
	if evicted != nil {
		a.end(evicted, api.StatusOf(api.Overloaded()))
	}
	return true
}

func (a *awaited) drop(s *awaitedStream) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.remove(s)
}

// remove takes s off the list, unless it is off already; a.mu is held.
func (a *awaited) remove(s *awaitedStream) {
	if !s.listed {
		return
	}
	if s.older == nil {
		a.oldest = s.newer
	} else {
		s.older.newer = s.newer
	}
	if s.newer == nil {
		a.newest = s.older
	} else {
		s.newer.older = s.older
	}
	s.older, s.newer, s.listed = nil, nil, false
	a.count--
	a.counts[s.conn]--
	if a.counts[s.conn] == 0 {
		delete(a.counts, s.conn)
	}
}

// end ends a stream that is off the list; a.mu is not held, for the transport
// has locks of its own.
func (a *awaited) end(s *awaitedStream, st *status.Status) {
	a.ended()
	_ = s.stream.WriteStatus(st) // it fails only if the stream has ended
}

// sweep ends the streams that have waited too long at now.
func (a *awaited) sweep(now time.Time) {
	for {
		a.mu.Lock()
		late := a.oldest
		if late == nil || now.Sub(late.since) < firstMessageTimeout {
			a.mu.Unlock()
			return
		}
		a.remove(late)
		a.mu.Unlock()
		a.end(late, api.StatusOf(&eligibility.Error{Kind: eligibility.KindDeadlineExceeded}))
	}
}

// run sweeps every second until ctx ends.
func (a *awaited) run(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			a.sweep(now)
		case <-ctx.Done():
			return
		}
	}
}

// waiting is how many streams are open without a message.
func (a *awaited) waiting() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count
}

// awaiting returns desc with methods that begin before their first message, which
// is awaited. Streams are awaited by intercept.
func (a *awaited) awaiting(desc grpc.ServiceDesc, begin func(ctx context.Context, method string) (context.Context, error)) *grpc.ServiceDesc {
	methods := make([]grpc.MethodDesc, len(desc.Methods))
	for i, method := range desc.Methods {
		handle, name := method.Handler, "/"+desc.ServiceName+"/"+method.MethodName
		method.Handler = func(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			ctx, err := begin(ctx, name)
			if err != nil {
				return nil, err
			}
			return handle(srv, ctx, func(message any) error {
				return a.receive(ctx, func() error { return decode(message) })
			}, interceptor)
		}
		methods[i] = method
	}
	desc.Methods = methods
	return &desc
}

// intercept hands on a stream whose first message is awaited.
func (a *awaited) intercept(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return handler(srv, &awaitedServerStream{ServerStream: stream, awaited: a})
}

// awaitedServerStream awaits the first message that it receives.
type awaitedServerStream struct {
	grpc.ServerStream
	awaited  *awaited
	received bool
}

// RecvMsg receives the next message. It fails if it is the first and the stream
// is refused.
func (s *awaitedServerStream) RecvMsg(m any) error {
	if s.received {
		return s.ServerStream.RecvMsg(m)
	}
	s.received = true
	return s.awaited.receive(s.Context(), func() error { return s.ServerStream.RecvMsg(m) })
}
