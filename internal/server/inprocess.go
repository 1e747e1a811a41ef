package server

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// The ways by which an RPC can come, as logs and metrics name them.
const (
	viaGRPC = "grpc"
	viaREST = "rest"
)

// inProcessConn is the connection of the REST gateway to the service: it calls
// the handlers of a service description in this process, through the very
// interceptors that the gRPC server runs, without a socket. It is safe for
// concurrent use.
type inProcessConn struct {
	service   any
	methods   map[string]grpc.MethodDesc // full method → its description
	intercept grpc.UnaryServerInterceptor
}

var _ grpc.ClientConnInterface = (*inProcessConn)(nil)

func newInProcessConn(desc *grpc.ServiceDesc, service any, intercept grpc.UnaryServerInterceptor) *inProcessConn {
	methods := make(map[string]grpc.MethodDesc, len(desc.Methods))
	for _, method := range desc.Methods {
		methods["/"+desc.ServiceName+"/"+method.MethodName] = method
	}
	return &inProcessConn{service: service, methods: methods, intercept: intercept}
}

// Invoke calls a unary method. As over a socket, the handler gets a copy of the
// request, ctx's outgoing metadata as its incoming metadata, and ctx's end; the
// caller gets a copy of the response, and header and trailer where it asked for
// them. Other than over a socket, the handler sees ctx's values.
func (c *inProcessConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	desc, ok := c.methods[method]
	if !ok {
		return status.Error(codes.Unimplemented, "unknown method")
	}
	stream := &inProcessStream{method: method}
	sent, _ := metadata.FromOutgoingContext(ctx)
	handlerCtx := metadata.NewIncomingContext(metadata.NewOutgoingContext(ctx, nil), sent)
	handlerCtx, cancel := context.WithCancel(grpc.NewContextWithServerTransportStream(handlerCtx, stream))
	defer cancel() // a handler's context ends with its RPC

	resp, err := desc.Handler(c.service, handlerCtx, func(in any) error { return copyMessage(in, args) }, c.intercept)
	for _, opt := range opts {
		switch opt := opt.(type) {
		case grpc.HeaderCallOption:
			*opt.HeaderAddr = stream.header
		case grpc.TrailerCallOption:
			*opt.TrailerAddr = stream.trailer
		}
	}
	if err != nil {
		return statusError(err)
	}
	return copyMessage(reply, resp)
}

// NewStream fails: the service has no streams.
func (c *inProcessConn) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unimplemented, "no streams in process")
}

// statusError turns what a handler returned into what a gRPC server would send.
func statusError(err error) error {
	st, ok := status.FromError(err)
	if !ok {
		st = status.FromContextError(err)
	}
	return st.Err()
}

// copyMessage makes to an independent copy of from.
func copyMessage(to, from any) error {
	dst, ok := to.(proto.Message)
	if !ok {
		return status.Error(codes.Internal, "not a protobuf message")
	}
	src, ok := from.(proto.Message)
	if !ok || dst.ProtoReflect().Descriptor() != src.ProtoReflect().Descriptor() {
		return status.Error(codes.Internal, fmt.Sprintf("not a %s", dst.ProtoReflect().Descriptor().FullName()))
	}
	proto.Reset(dst)
	proto.Merge(dst, src)
	return nil
}

// inProcessStream collects the header and trailer that a handler sets. That a
// stream is one of these says that the RPC came through the gateway.
type inProcessStream struct {
	method string

	mu      sync.Mutex
	sent    bool // guarded by mu, as are the two below until the handler returned
	header  metadata.MD
	trailer metadata.MD
}

var _ grpc.ServerTransportStream = (*inProcessStream)(nil)

// Method returns the full method.
func (s *inProcessStream) Method() string { return s.method }

// SetHeader adds to the header; an error once it was sent.
func (s *inProcessStream) SetHeader(md metadata.MD) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sent {
		return status.Error(codes.Internal, "header was sent already")
	}
	s.header = metadata.Join(s.header, md)
	return nil
}

// SendHeader adds to the header and closes it.
func (s *inProcessStream) SendHeader(md metadata.MD) error {
	if err := s.SetHeader(md); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = true
	return nil
}

// SetTrailer adds to the trailer.
func (s *inProcessStream) SetTrailer(md metadata.MD) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trailer = metadata.Join(s.trailer, md)
	return nil
}
