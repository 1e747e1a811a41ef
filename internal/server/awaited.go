package server

import (
	"context"
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
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
// concurrent use, and callers on different connections rarely share a lock.
type awaited struct {
	ended func() // counts a stream that was ended

	seed   maphash.Seed
	shards [awaitedShards]awaitedShard // by connection
	count  atomic.Int64                // streams in all shards
	order  atomic.Uint64               // of the newest stream
	second atomic.Int64                // since run began

	receivers sync.Pool // of *receiver
}

// awaitedShards is how many locks there are. To find the oldest stream, each is taken.
const awaitedShards = 32

// awaitedShard holds the streams of some connections.
type awaitedShard struct {
	mu     sync.Mutex
	oldest *awaitedStream
	newest *awaitedStream
	counts map[*peer.Peer]int // connection → its streams
}

// awaitedStream is one of them. What is in its list is guarded by the mutex of its
// shard.
type awaitedStream struct {
	stream       statusStream
	conn         *peer.Peer
	order        uint64 // greater than that of any older stream
	second       int64  // when it was added
	older, newer *awaitedStream
	listed       bool
}

// newAwaited returns an awaited without streams, which calls ended for each stream
// that it ends.
func newAwaited(ended func()) *awaited {
	a := &awaited{ended: ended, seed: maphash.MakeSeed()}
	a.receivers.New = func() any {
		r := &receiver{awaited: a}
		r.receive = r.receiveMessage
		return r
	}
	return a
}

// shard returns the shard of a connection.
func (a *awaited) shard(conn *peer.Peer) *awaitedShard {
	return &a.shards[maphash.Comparable(a.seed, conn)%awaitedShards]
}

// statusStream is what awaited needs of grpc-go's stream: the method that ends
// it, and with it the read that a handler's goroutine is blocked in.
type statusStream interface {
	WriteStatus(st *status.Status) error
}

// receive calls recv, which blocks until the message of ctx's stream has arrived.
// It fails at once if the stream is refused. s is zero, and not used afterwards.
func (a *awaited) receive(ctx context.Context, s *awaitedStream, recv func(any) error, message any) error {
	stream, ok := grpc.ServerTransportStreamFromContext(ctx).(statusStream)
	if !ok {
		return recv(message)
	}
	s.stream = stream
	s.conn, _ = peer.FromContext(ctx) // one for each connection
	if !a.add(s) {
		return api.StatusOf(api.Overloaded()).Err()
	}
	defer a.drop(s)
	return recv(message)
}

// add reports whether there is room for s, or could be made.
func (a *awaited) add(s *awaitedStream) bool {
	full := a.count.Add(1) > maxAwaited
	shard := a.shard(s.conn)
	shard.mu.Lock()
	if full && shard.counts[s.conn] >= fairAwaited {
		shard.mu.Unlock()
		a.count.Add(-1)
		return false
	}
	s.order, s.second, s.listed = a.order.Add(1), a.second.Load(), true
	if s.older = shard.newest; s.older == nil {
		shard.oldest = s
	} else {
		s.older.newer = s
	}
	shard.newest = s
	if shard.counts == nil {
		shard.counts = make(map[*peer.Peer]int)
	}
	shard.counts[s.conn]++
	shard.mu.Unlock()
	if full {
		a.endOldest()
	}
	return true
}

func (a *awaited) drop(s *awaitedStream) {
	shard := a.shard(s.conn)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	a.remove(shard, s)
}

// remove takes s off the list of its shard, unless it is off already, and returns its
// stream: s may be in use again as soon as shard.mu, which is held, is not.
func (a *awaited) remove(shard *awaitedShard, s *awaitedStream) statusStream { //nolint:ireturn // of grpc-go
	if !s.listed {
		return nil
	}
	if s.older == nil {
		shard.oldest = s.newer
	} else {
		s.older.newer = s.newer
	}
	if s.newer == nil {
		shard.newest = s.older
	} else {
		s.newer.older = s.older
	}
	s.older, s.newer, s.listed = nil, nil, false
	a.count.Add(-1)
	shard.counts[s.conn]--
	if shard.counts[s.conn] == 0 {
		delete(shard.counts, s.conn)
	}
	return s.stream
}

// endOldest ends the oldest stream of all.
func (a *awaited) endOldest() {
	var in *awaitedShard
	least := uint64(math.MaxUint64)
	for i := range a.shards {
		shard := &a.shards[i]
		shard.mu.Lock()
		if shard.oldest != nil && shard.oldest.order < least {
			in, least = shard, shard.oldest.order
		}
		shard.mu.Unlock()
	}
	if in != nil {
		a.endIf(in, api.Overloaded(), func(s *awaitedStream) bool { return s.order == least })
	}
}

// endIf ends the oldest stream of a shard with failure if ends reports true, and
// reports whether it did.
func (a *awaited) endIf(shard *awaitedShard, failure *eligibility.Error, ends func(*awaitedStream) bool) bool {
	shard.mu.Lock()
	oldest := shard.oldest
	if oldest == nil || !ends(oldest) {
		shard.mu.Unlock()
		return false
	}
	stream := a.remove(shard, oldest)
	shard.mu.Unlock() // the transport has locks of its own
	a.ended()
	_ = stream.WriteStatus(api.StatusOf(failure)) // it fails only if the stream has ended
	return true
}

// sweep ends the streams that have waited too long in a second.
func (a *awaited) sweep(second int64) {
	late := func(s *awaitedStream) bool {
		return second-s.second > int64(firstMessageTimeout/time.Second) // the first is not whole
	}
	for i := range a.shards {
		for a.endIf(&a.shards[i], &eligibility.Error{Kind: eligibility.KindDeadlineExceeded}, late) {
		}
	}
}

// run sweeps every second until ctx ends.
func (a *awaited) run(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			a.sweep(a.second.Add(1))
		case <-ctx.Done():
			return
		}
	}
}

// waiting is how many streams are open without a message.
func (a *awaited) waiting() int { return int(a.count.Load()) }

// receiver receives the message of one unary RPC after the other.
type receiver struct {
	awaited *awaited
	receive func(message any) error // receiveMessage, made once

	ctx    context.Context //nolint:containedctx // of the RPC
	decode func(any) error
	stream awaitedStream
}

// receiveMessage awaits the message of the RPC.
func (r *receiver) receiveMessage(message any) error {
	return r.awaited.receive(r.ctx, &r.stream, r.decode, message)
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
			r, _ := a.receivers.Get().(*receiver)
			r.ctx, r.decode = ctx, decode
			resp, err := handle(srv, ctx, r.receive, interceptor)
			r.ctx, r.decode, r.stream = nil, nil, awaitedStream{}
			a.receivers.Put(r) // after a panic, it is not used again
			return resp, err
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
	return s.awaited.receive(s.Context(), new(awaitedStream), s.ServerStream.RecvMsg, m)
}
