package rest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/eligibilityd/eligibilityd/internal/api"
)

// inProcess is the connection on which grpc-gateway's generated handlers call the
// RPCs of this process. It runs the interceptors that the gRPC server runs, and
// copies messages like a socket. Unlike a socket, it passes the values of the
// caller's context to the handler: the [request] is among them.
type inProcess struct {
	chain   *api.Chain
	unary   map[string]inProcessUnary // by full method
	streams map[string]inProcessStreaming
}

type inProcessUnary struct {
	grpc.MethodDesc
	impl any
}

type inProcessStreaming struct {
	grpc.StreamDesc
	impl any
}

func newInProcess(chain *api.Chain) *inProcess {
	c := &inProcess{chain: chain, unary: make(map[string]inProcessUnary), streams: make(map[string]inProcessStreaming)}
	for _, service := range chain.Services() {
		for _, method := range service.Desc.Methods {
			c.unary[service.FullMethod(method.MethodName)] = inProcessUnary{method, service.Impl}
		}
		for _, stream := range service.Desc.Streams {
			c.streams[service.FullMethod(stream.StreamName)] = inProcessStreaming{stream, service.Impl}
		}
	}
	return c
}

// errNoMethod is the error of a method that no service has: a fault of the
// generated code, which knows its own methods only.
func errNoMethod(method string) error {
	return status.Error(codes.Unimplemented, "no method "+method) //nolint:wrapcheck // a status
}

// Invoke calls a unary RPC. Its errors are those of the interceptor.
func (c *inProcess) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	faults, err := begin(ctx, method)
	if err != nil {
		return err
	}
	resp, err := c.call(ctx, method, args, faults)
	if err != nil {
		return err
	}
	return copyMessage(reply, resp)
}

// call calls a unary RPC of a request with these faults.
func (c *inProcess) call(ctx context.Context, method string, args any, faults api.Violations) (any, error) {
	target, ok := c.unary[method]
	if !ok {
		return nil, errNoMethod(method)
	}
	decode := func(into any) error { return copyMessage(into, args) }
	intercept := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		return c.chain.Intercept(ctx, req, info, func(ctx context.Context, req any) (any, error) {
			if err := faults.Err(); err != nil {
				return nil, err
			}
			// Only the handler sees it: to the chain, it is the mark of an RPC over gRPC.
			return handler(grpc.NewContextWithServerTransportStream(ctx, new(runtime.ServerTransportStream)), req)
		})
	}
	return target.Handler(target.impl, incoming(ctx), decode, intercept) //nolint:wrapcheck // the interceptor's status
}

// NewStream starts a streaming RPC in a goroutine of its own, which ends when its
// handler returns. [request.wait] waits for it.
func (c *inProcess) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	target, ok := c.streams[method]
	if !ok {
		return nil, errNoMethod(method)
	}
	faults, err := begin(ctx, method)
	if err != nil {
		return nil, err
	}
	s := &inProcessStream{
		ctx: incoming(ctx), clientStreams: target.ClientStreams, requests: make(chan proto.Message), responses: make(chan any),
		headerSent: make(chan struct{}), ended: make(chan struct{}),
	}
	if inbound, ok := ctx.Value(requestKey{}).(*request); ok {
		inbound.stream = s.ended
	}
	info := &grpc.StreamServerInfo{FullMethod: method, IsClientStream: target.ClientStreams, IsServerStream: target.ServerStreams}
	go func() {
		defer close(s.ended)
		s.err = c.chain.InterceptStream(target.impl, (*inProcessServerStream)(s), info, func(impl any, stream grpc.ServerStream) error {
			if err := faults.Err(); err != nil {
				return err
			}
			return target.Handler(impl, stream)
		})
	}()
	return s, nil
}

// begin marks the HTTP request of ctx as one whose RPC has begun, and returns
// what is wrong with its header and query. The gateway drops a parameter that the
// request message does not have, and a mistyped name must not change what is asked.
func begin(ctx context.Context, method string) (api.Violations, error) {
	inbound, ok := ctx.Value(requestKey{}).(*request)
	if !ok {
		return api.Violations{}, nil
	}
	if inbound.refused != nil { // a GET has no body to fail on
		return api.Violations{}, inbound.refused
	}
	inbound.called = true
	rpc := descriptorOf(method)
	if rpc == nil {
		return api.Violations{}, errNoMethod(method)
	}
	checkQuery(inbound, rpc.Input().Fields())
	return inbound.Violations, nil
}

// descriptorOf returns the descriptor of a method by its full name; nil if there is none.
func descriptorOf(method string) protoreflect.MethodDescriptor { //nolint:ireturn // protobuf has no other type
	name := strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", ".")
	described, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return nil
	}
	rpc, _ := described.(protoreflect.MethodDescriptor)
	return rpc
}

// checkQuery adds a violation for each parameter that fields does not have, that
// the path sets, or that appears twice.
func checkQuery(inbound *request, fields protoreflect.FieldDescriptors) {
	seen := make(map[string]bool, len(inbound.query))
	for _, name := range slices.Sorted(maps.Keys(inbound.query)) {
		top, below, _ := strings.Cut(name, ".")
		field := fieldOf(fields, top)
		if field == nil || inbound.path[string(field.Name())] != "" {
			inbound.Violations.Add(printable(name, maxShown), "is no query parameter of this method")
			continue
		}
		whole := string(field.Name()) + "." + below
		if seen[whole] || len(inbound.query[name]) != 1 && !field.IsList() {
			inbound.Violations.Add(printable(name, maxShown), "must stand in the query once")
		}
		seen[whole] = true
	}
}

// incoming is the context of a handler: the caller's outgoing metadata arrives.
func incoming(ctx context.Context) context.Context {
	md, _ := metadata.FromOutgoingContext(ctx)
	return metadata.NewIncomingContext(ctx, md)
}

func copyMessage(into, from any) error {
	target, ok := into.(proto.Message)
	source, also := from.(proto.Message)
	if !ok || !also {
		return fmt.Errorf("copy %T to %T: no protobuf message", from, into)
	}
	proto.Reset(target)
	proto.Merge(target, source)
	return nil
}

// inProcessStream is one streaming RPC: its client's side, and the state that both
// sides share. A send blocks until the other side receives it, or has ended. The
// client's side never ends before the handler's, so the caller gets the status
// that the interceptor has made, also of a context that has ended.
type inProcessStream struct {
	ctx           context.Context //nolint:containedctx // a stream's context is handed on by its method only
	clientStreams bool
	requests      chan proto.Message
	responses     chan any // a proto.Message or an *api.WatchReply

	sendHeader sync.Once
	headerSent chan struct{}

	ended chan struct{} // closed once the handler has returned
	err   error         // what it returned; read after ended
}

var (
	_ grpc.ClientConnInterface = (*inProcess)(nil)
	_ grpc.ClientStream        = (*inProcessStream)(nil)
	_ grpc.ServerStream        = (*inProcessServerStream)(nil)
)

// Context returns the stream's context.
func (s *inProcessStream) Context() context.Context { return s.ctx }

// Header waits until the handler sends its header, a message, or ends. It fails
// if the handler ended with an error first.
func (s *inProcessStream) Header() (metadata.MD, error) {
	select {
	case <-s.headerSent:
		return nil, nil //nolint:nilnil // no metadata is no failure
	case <-s.ended:
		return nil, s.err
	}
}

// Trailer returns nothing: REST has no trailers.
func (s *inProcessStream) Trailer() metadata.MD { return nil }

// SendMsg sends a request. If the RPC has ended, RecvMsg returns how.
func (s *inProcessStream) SendMsg(m any) error {
	message, ok := m.(proto.Message)
	if !ok {
		return fmt.Errorf("send %T: no protobuf message", m)
	}
	select {
	case s.requests <- proto.Clone(message):
		return nil
	case <-s.ended:
		if s.clientStreams {
			return io.EOF
		}
		return nil
	}
}

// CloseSend ends the requests.
func (s *inProcessStream) CloseSend() error {
	close(s.requests)
	return nil
}

// RecvMsg receives the next response, or how the RPC ended.
func (s *inProcessStream) RecvMsg(m any) error {
	select {
	case response := <-s.responses:
		if reply, ok := response.(*api.WatchReply); ok {
			return encodeInto(m, reply)
		}
		return copyMessage(m, response)
	case <-s.ended:
		if s.err == nil {
			return io.EOF
		}
		return s.err
	}
}

// inProcessServerStream is the handler's side of a stream.
type inProcessServerStream inProcessStream

// Context returns the stream's context.
func (s *inProcessServerStream) Context() context.Context { return s.ctx }

// SetHeader does nothing: REST returns the headers that the API defines.
func (s *inProcessServerStream) SetHeader(metadata.MD) error { return nil }

// SendHeader sends the header of the response. It fails if that was sent already.
func (s *inProcessServerStream) SendHeader(metadata.MD) error {
	err := errors.New("send header: it was sent already")
	s.sendHeader.Do(func() {
		close(s.headerSent)
		err = nil
	})
	return err
}

// SetTrailer does nothing: REST has no trailers.
func (s *inProcessServerStream) SetTrailer(metadata.MD) {}

// SendMsg sends a response, and the header before the first.
func (s *inProcessServerStream) SendMsg(m any) error {
	response := m
	switch message := m.(type) {
	case *api.WatchReply: // never changed
	case proto.Message:
		response = proto.Clone(message)
	default:
		return fmt.Errorf("send %T: no protobuf message", m)
	}
	s.sendHeader.Do(func() { close(s.headerSent) })
	select {
	case s.responses <- response:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err() //nolint:wrapcheck // the interceptor looks for it
	}
}

// RecvMsg receives the next request, or io.EOF after the last.
func (s *inProcessServerStream) RecvMsg(m any) error {
	select {
	case request, more := <-s.requests:
		if !more {
			return io.EOF
		}
		return copyMessage(m, request)
	case <-s.ctx.Done():
		return s.ctx.Err() //nolint:wrapcheck // the interceptor looks for it
	}
}
