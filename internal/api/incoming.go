package api

import (
	"context"

	"google.golang.org/grpc/metadata"
)

// incomingKey returns the key under which contexts have the metadata of an RPC. The
// functions of package metadata copy each value that they return, and compare each key
// if there is none; an RPC would pay for that with each header that it may have.
func incomingKey() any {
	asked := &askedContext{Context: context.Background()}
	metadata.ValueFromIncomingContext(asked, "")
	return asked.key
}

// askedContext notes the key that it is asked for.
type askedContext struct {
	context.Context //nolint:containedctx // has no values
	key             any
}

// Value returns nothing.
func (a *askedContext) Value(key any) any {
	a.key = key
	return nil
}

// incoming returns the metadata of an RPC, which is not to be changed.
func (ch *Chain) incoming(ctx context.Context) metadata.MD {
	md, ok := ctx.Value(ch.incomingKey).(metadata.MD)
	if !ok {
		md, _ = metadata.FromIncomingContext(ctx)
	}
	return md
}
