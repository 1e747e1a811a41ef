package api

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// WithoutMessages returns desc for a gRPC server that has the chain's codec: of the API,
// the two methods that are called for each sale neither receive nor return a message.
// Both have to be begun by [Chain.Begin].
func (ch *Chain) WithoutMessages(desc grpc.ServiceDesc) grpc.ServiceDesc {
	if desc.ServiceName != eligibilityv1.EligibilityService_ServiceDesc.ServiceName {
		return desc
	}
	checkInfo := &grpc.UnaryServerInfo{FullMethod: eligibilityv1.EligibilityService_CheckEligibility_FullMethodName}
	check := func(ctx context.Context, req any) (any, error) {
		q, _ := req.(*Question)
		return ch.Check(ctx, q)
	}
	desc.Methods = slices.Clone(desc.Methods)
	for i := range desc.Methods {
		switch method := &desc.Methods[i]; method.MethodName {
		case "CheckEligibility":
			method.Handler = func(_ any, ctx context.Context, receive func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				q := &callOf(ctx).question
				if err := receive(q); err != nil {
					return nil, err
				}
				return ch.Intercept(ctx, q, checkInfo, check)
			}
		case "BatchCheckEligibility":
			method.Handler = func(_ any, ctx context.Context, receive func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				return ch.receiveBatch(ctx, receive)
			}
		}
	}
	return desc
}

// batchInfo names the RPC for the interceptor. It is shared and never changed.
var batchInfo = grpc.UnaryServerInfo{FullMethod: eligibilityv1.EligibilityService_BatchCheckEligibility_FullMethodName} //nolint:gochecknoglobals // only read

// encoded is a response in the form that is sent.
type encoded mem.BufferSlice

// receiveBatch receives a batch, answers it and encodes the answers, in memory that
// serves the next batch. After a panic it is left to the garbage collector: nobody knows
// what still refers to it.
func (ch *Chain) receiveBatch(ctx context.Context, receive func(any) error) (any, error) {
	memory, _ := ch.batches.Get().(*batchMemory)
	if err := receive(&memory.batch); err != nil { // it has read nothing
		ch.batches.Put(memory)
		return nil, err
	}
	memory.wire = ch.codec.buffers.Get(len(memory.batch.Questions) * protoBytes)
	*memory.wire = (*memory.wire)[:0]
	_, err := ch.Intercept(ctx, &memory.batch, &batchInfo, func(ctx context.Context, _ any) (any, error) {
		return nil, ch.answers.checkBatch(ctx, memory.batch.Questions, memory)
	})
	if status.Code(err) == codes.Internal { // a panic, among others
		return nil, err
	}
	var reply any
	if err == nil {
		for memory.encoded < len(memory.reply) {
			memory.encodeNext()
		}
		reply = encoded{mem.NewBuffer(memory.wire, ch.codec.buffers)}
	} else {
		ch.codec.buffers.Put(memory.wire)
	}
	c := callOf(ctx)
	c.tally, c.batch = nil, nil // the call may outlive the RPC
	memory.reset()
	ch.batches.Put(memory)
	return reply, err
}
