package load

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
)

// GRPC calls one unary method, over several connections in turn.
type GRPC struct {
	method string
	conns  []*grpc.ClientConn
	next   atomic.Uint32
}

var _ Caller = (*GRPC)(nil)

// NewGRPC returns a caller of a method, such as
// /eligibility.v1.EligibilityService/CheckEligibility, over that many
// connections. A request is an encoded message. Connections open on first use.
func NewGRPC(address, method string, connections int, access Access) (*GRPC, error) {
	caller := &GRPC{method: method}
	for range connections {
		conn, err := grpc.NewClient("passthrough:///"+address,
			append(access.DialOptions(), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{})))...)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("load: %w", err), caller.Close())
		}
		caller.conns = append(caller.conns, conn)
	}
	return caller, nil
}

// Call implements Caller.
func (c *GRPC) Call(ctx context.Context, request []byte) error {
	conn := c.conns[int(c.next.Add(1))%len(c.conns)]
	return conn.Invoke(ctx, c.method, request, nil)
}

// Close implements Caller.
func (c *GRPC) Close() error {
	var faults []error
	for _, conn := range c.conns {
		faults = append(faults, conn.Close())
	}
	return errors.Join(faults...)
}

// rawCodec sends []byte unchanged and does not decode answers. It has the name
// of the usual codec, which the server uses.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(message any) (mem.BufferSlice, error) {
	encoded, ok := message.([]byte)
	if !ok {
		return nil, fmt.Errorf("load: %T is not an encoded message", message)
	}
	return mem.BufferSlice{mem.SliceBuffer(encoded)}, nil
}

func (rawCodec) Unmarshal(mem.BufferSlice, any) error { return nil }
