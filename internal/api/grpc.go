package api

import (
	"context"
	"slices"

	"google.golang.org/grpc"

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
	batchInfo := &grpc.UnaryServerInfo{FullMethod: eligibilityv1.EligibilityService_BatchCheckEligibility_FullMethodName}
	batch := func(ctx context.Context, req any) (any, error) {
		b, _ := req.(*Batch)
		return ch.CheckBatch(ctx, b.Questions)
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
				b := new(Batch)
				if err := receive(b); err != nil {
					return nil, err
				}
				return ch.Intercept(ctx, b, batchInfo, batch)
			}
		}
	}
	return desc
}
