package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/api"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

const consolePath = "/console"

// ofConsole reports whether the console serves a path.
func (r *Handler) ofConsole(path string) bool {
	return r.console != nil && (path == consolePath || strings.HasPrefix(path, consolePath+"/"))
}

// Mount makes console serve /console and what is below, from now on. It authenticates
// its users itself; links of other sites may open its pages. Mount is called before the
// first request.
func (r *Handler) Mount(console http.Handler) { r.console = console }

// ServeFor is ServeHTTP for a caller who was authenticated elsewhere. It neither
// compresses the response nor sets the headers that ServeHTTP sets for each.
func (r *Handler) ServeFor(w http.ResponseWriter, req *http.Request, caller *access.Caller) {
	inbound := r.read(req)
	if outer, ok := req.Context().Value(requestKey{}).(*request); ok {
		inbound.RequestID = outer.RequestID
	}
	inbound.Admit(caller)
	r.serve(w, req, inbound)
}

// Client returns a client of the API in this process. The context of each call holds
// the *api.Inbound of its request under [api.InboundKey], with the caller admitted;
// several calls may share it. Only unary RPCs can be called.
func (r *Handler) Client() eligibilityv1.EligibilityServiceClient { //nolint:ireturn // gRPC has no other type
	return eligibilityv1.NewEligibilityServiceClient(&client{r.conn, r.chain.Codec()})
}

// client is the connection of [Handler.Client].
type client struct {
	conn  *inProcess
	codec api.Codec
}

// clientContext is the context of a call: it has an Inbound of its own, and is no part
// of the HTTP request that the calls are made for.
type clientContext struct {
	context.Context //nolint:containedctx // of the call

	in *api.Inbound
}

// Value returns the call's Inbound under its key.
func (c clientContext) Value(key any) any {
	switch key {
	case requestKey{}:
		return nil
	case api.InboundKey{}:
		return c.in
	default:
		return c.Context.Value(key)
	}
}

var errNoCaller = errors.New("the context of the call names no caller")

// Invoke calls a unary RPC. Its errors are those of the interceptor.
func (c *client) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	in, ok := ctx.Value(api.InboundKey{}).(*api.Inbound)
	if !ok {
		return errNoCaller
	}
	response, err := c.conn.call(clientContext{ctx, in.Next()}, method, args, api.Violations{})
	if err != nil {
		return err
	}
	if _, ok := response.(proto.Message); ok {
		return copyMessage(reply, response)
	}
	encoded, err := c.codec.Marshal(response) // a reply that stands for a message
	if err != nil {
		return fmt.Errorf("encode %T: %w", response, err)
	}
	defer encoded.Free()
	message, ok := reply.(proto.Message)
	if !ok {
		return fmt.Errorf("decode into %T: no protobuf message", reply)
	}
	if err := proto.Unmarshal(encoded.Materialize(), message); err != nil {
		return fmt.Errorf("decode %T: %w", response, err)
	}
	return nil
}

var errNoStreams = errors.New("streams are served by ServeFor")

// NewStream fails.
func (*client) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errNoStreams
}
